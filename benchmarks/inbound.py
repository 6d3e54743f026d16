"""Inbound requests against Odoo's own API and what one could write by hand: ./dev bench inbound [--quick] [operation …]

All peers but one are served by one Odoo with two workers from one database. They take turns in every round, so that a
slower moment of the machine hits all alike. What is told are medians, and ratios to JSON-2.
"""

import argparse
import contextlib
import itertools
import json
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from _house import CACHE, ROOT, connect, get_facts, house, say
from addons.bj_bench_peers.operations import FIELDS, TRACKING_DISABLED

RESULTS = ROOT / "RESULTS-inbound.md"
SEEDED, PARTNERS, PAGED = 500, 5_000, 100_000
LENGTH = re.compile(rb"^content-length: *(\d+)", re.I | re.M)
FASTAPI = ["odoo-addon-fastapi==19.0.*", "odoo-addon-endpoint-route-handler==19.0.*"]
FASTAPI_NEEDS = [
    "fastapi<1",
    "a2wsgi<2",
    "fastapi-openapi-overrides",
    "parse-accept-language",
    "python-multipart",
    "ujson",
    "packaging",
]

SEED = """
import json
from odoo.addons.bj_bench_peers.operations import TRACKING_DISABLED
env = env(user=2, context=dict(env.context, **TRACKING_DISABLED))
countries = env["res.country"].search([], limit=20).ids
cities = ["Brussels", "Lyon", "Köln", "Milano", "Sevilla", "Porto", "Gdańsk", "Malmö", "Graz", "Cork"]
names = ["Ada Lovelace", "Azure Interior", "Müller & Söhne GmbH", "Deco Addict", "Jean-Luc Picard", "Ready Mat"]
values = [{
    "name": f"{names[i % 6]} {i}", "ref": f"P{i:06}", "email": f"contact.{i}@customer-{i % 97}.example.com",
    "phone": f"+32 2 {i:07}", "street": f"{i % 300} Rue de la Station", "city": cities[i % 10],
    "zip": f"{1000 + i % 9000}", "country_id": countries[i % 20], "is_company": i % 3 == 0,
} for i in range(SEEDED)]
env["res.partner"].create(values)
env.cr.execute("UPDATE res_partner SET active = false WHERE ref IS NULL AND id NOT IN"
    "(SELECT partner_id FROM res_users UNION SELECT partner_id FROM res_company)")

def config(name, endpoint, fields, extra=(), **options):
    get_field = env["ir.model.fields"]._get
    lines = [{"field_id": get_field("res.partner", field).id, "external_key": field} for field in fields]
    return env["bj.api.sync.config"].create({
        "name": name, "request_type": "in", "endpoint": endpoint, "model_id": env["ir.model"]._get_id("res.partner"),
        "http_method_ids": [(6, 0, env["bj.http.method"].search([]).ids)] if endpoint else False,
        "authorization_type": "bearer", "bearer_token": "bench-token", "user_id": 2, "record_id_type": "identifier",
        "line_ids": [(0, 0, line | {"is_record_identifier": line["external_key"] == "ref", "sequence": place})
            for place, line in enumerate([*lines, *extra])],
    } | options)

child = config("Bench child", False, FIELDS[:-1])
children = {"field_id": env["ir.model.fields"]._get("res.partner", "child_ids").id, "external_key": "children",
    "value_type": "relational", "mapping_config_id": child.id}
for suffix, off in (("", False), ("-off", True)):
    config("Bench partners" + suffix, "bench-partners" + suffix, FIELDS, tracking_disable=off)
    config("Bench companies" + suffix, "bench-companies" + suffix, FIELDS, [children], tracking_disable=off)
if "fastapi.endpoint" in env:
    env["fastapi.endpoint"].create({"name": "Bench", "app": "bj_bench", "root_path": "/bj_bench_fastapi", "user_id": 2,
        }).action_sync_registry()
key = env["res.users.apikeys"]._generate("rpc", "Bench", False)
env.cr.commit()
print("KEY", key)
"""

GROW = """
INSERT INTO res_partner (id, ref, commercial_partner_id, {columns})
SELECT id, 'P' || lpad(number::text, 6, '0'), id, {columns} FROM (
    SELECT nextval('res_partner_id_seq') AS id, number, {columns}
    FROM generate_series({seeded}, {seeded} + {missing} - 1) AS number
    JOIN res_partner ON ref = 'P' || lpad((number % {seeded})::text, 6, '0') ORDER BY number
) AS copies
"""


class Client:
    """The least HTTP client there is, that its own cost may not blur the ratios. One connection per request, as
    Odoo's server closes it after each answer anyway."""

    def __init__(self, port, database):
        self.address = ("127.0.0.1", port)
        self.head = f"HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Odoo-Database: {database}\r\nConnection: close\r\n"

    def send(self, method, path, token=None, payload=None):
        """Return the answer's body, and its head."""
        body = b"" if payload is None else json.dumps(payload).encode()
        head = f"{method} {path} {self.head}"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        with socket.create_connection(self.address) as connection:
            connection.sendall(f"{head}\r\n".encode() + body)
            answer_head, _, content = connection.recv(65536).partition(b"\r\n\r\n")
            size = int(LENGTH.search(answer_head)[1])
            while len(content) < size:  # werkzeug waits 10 ms for who does not close first
                content += connection.recv(65536) or sys.exit(f"{method} {path}: the answer was cut")
        if not re.match(rb"HTTP/1\.[01] 20", answer_head) or b'"error": {' in content[:80]:
            sys.exit(f"{method} {path}: {answer_head.decode()}\n{content[:2000].decode()}")
        return content, answer_head


class Peer:
    """One way to do the operations; each is one request unless said otherwise."""

    def __init__(self, client, path, token=None):
        self.client, self.path, self.token = client, path, token

    def call(self, operation, **payload):
        return self.client.send("POST", f"{self.path}/{operation}", self.token, payload)[0]

    def list(self, offset=0):
        return self.call("list", offset=offset)

    def one(self, key):
        return self.call("one", key=key)

    def create(self, values):
        return self.call("create", values=values)

    def upsert(self, values):
        return self.call("upsert", values=values)

    def nested(self, values, children):
        return self.call("nested", values=values, children=children)


class Json2(Peer):
    """Odoo's API: an upsert is one search, a write per record that exists, and one create."""

    context = {}

    def call(self, operation, **payload):
        return super().call(operation, context=self.context, **payload)

    def list(self, offset=0):
        return self.call("search_read", domain=[], fields=FIELDS, offset=offset, limit=100, order="id", load=None)

    def one(self, key):
        return self.call("search_read", domain=[("ref", "=", key)], fields=FIELDS, load=None)

    def create(self, values):
        return self.call("create", vals_list=values)

    def upsert(self, values):
        domain = [("ref", "in", [vals["ref"] for vals in values])]
        found = {item["ref"]: item["id"] for item in unwrap(self.call("search_read", domain=domain, fields=["ref"]))}
        for vals in values:
            if vals["ref"] in found:
                self.call("write", ids=[found[vals["ref"]]], vals=vals)
        new = [vals for vals in values if vals["ref"] not in found]
        return self.create(new) if new else None

    def nested(self, values, children):
        return self.create([values | {"child_ids": [(0, 0, child) for child in children]}])


class Json2Off(Json2):
    context = TRACKING_DISABLED


class JsonRpc(Json2):
    """The same calls by /jsonrpc."""

    def call(self, operation, **payload):
        args = [payload.pop(name) for name in ("ids", "vals_list") if name in payload]
        args = [self.client.database, 2, self.token, "res.partner", operation, args, payload]
        params = {"service": "object", "method": "execute_kw", "args": args}
        payload = {"jsonrpc": "2.0", "method": "call", "id": 1, "params": params}
        return self.client.send("POST", "/jsonrpc", None, payload)[0]


class Ours(Peer):
    """Ours: configurations with a bearer token, logged as they are by default."""

    suffix = ""

    def _send(self, method, path, payload=None):
        return self.client.send(method, f"/bj_api_sync/v1/{path}", "bench-token", payload)[0]

    def list(self, offset=0):
        return self._send("GET", f"bench-partners{self.suffix}?sort=id&limit=100&offset={offset}")

    def one(self, key):
        return self._send("GET", f"bench-partners{self.suffix}/{key}")

    def create(self, values):
        return self._send("POST", f"bench-partners{self.suffix}", values if len(values) > 1 else values[0])

    upsert = create

    def nested(self, values, children):
        return self._send("POST", f"bench-companies{self.suffix}", values | {"children": children})


class OursOff(Ours):
    suffix = "-off"


def unwrap(content):
    """Return the data of any peer's answer."""
    body = json.loads(content)
    return body.get("result", body.get("data", body)) if isinstance(body, dict) else body


# ---- What is measured --------------------------------------------------------------------------------------

serial = itertools.count(1)
CLIENTS = "list 100, 4 clients"
READ_PEERS = ("json2", "jsonrpc", "fastapi", "orm", "sql", "ours")
ALL_PEERS = ("json2", "jsonrpc", "fastapi", "orm", "orm_off", "sql", "json2_off", "ours", "ours_off")
TITLES = {
    "json2": "JSON-2, ms", "jsonrpc": "`/jsonrpc`", "fastapi": "OCA fastapi", "orm": "controller + ORM",
    "orm_off": "the same, tracking off", "sql": "plain SQL", "json2_off": "JSON-2, tracking off", "ours": "**ours**",
    "ours_off": "**ours, tracking off**",
}  # fmt: skip


def make_values(number):
    """Make new partners."""
    return [
        {
            "name": f"Grace Hopper {i}", "ref": f"N{i:07}", "email": f"grace.{i}@example.com",
            "phone": f"+1 555 {i:07}", "street": f"{i % 90} Harbour Street", "city": "Arlington",
            "zip": f"{i % 99999:05}",
            "country_id": 1 + i % 20, "is_company": False,
        }
        for i in itertools.islice(serial, number)
    ]  # fmt: skip


def some_refs(number):
    """Name existing partners, other ones each time as long as there are."""
    count = len(known) or SEEDED
    start = next(serial) * number % count
    return [f"P{(start + place) % count:06}" for place in range(number)]


known = {}  # the existing partners: identifier -> values


def load(cursor):
    cursor.execute(f"SELECT {', '.join(FIELDS[:-1])} FROM res_partner WHERE ref LIKE 'P%'")
    known.update((row[1], dict(zip(FIELDS, row))) for row in cursor.fetchall())


def make_half(number=100):
    """Half of it new partners, half existing ones of which phone and street have changed."""
    changed = [known[ref] | {"phone": f"+33 {next(serial)}", "street": "Moved"} for ref in some_refs(number // 2)]
    return changed + make_values(number // 2)


class Unchanged:
    """The same hundred again, for each peer those it wrote itself."""

    def __init__(self):
        self.known = {}

    def __call__(self, peer):
        if peer not in self.known:
            self.known[peer] = make_values(100)
            peer.create(self.known[peer])
        return self.known[peer]


unchanged = Unchanged()

#: title, peers, rounds, seconds it may take (a tenth when quick), at most, preparation, operation
OPERATIONS = [
    ("list 100 × 10 fields", READ_PEERS, 150, 12, "0.32", lambda _: (), lambda peer: peer.list()),
    ("read one by key", READ_PEERS, 150, 8, "0.36", lambda _: some_refs(1), lambda peer, key: peer.one(key)),
    ("create one", ALL_PEERS, 60, 15, "0.78; 0.50", lambda _: [make_values(1)], lambda peer, new: peer.create(new)),
    ("create 100 in one request", ALL_PEERS, 9, 20, "0.98; 0.57", lambda _: [make_values(100)],
        lambda peer, new: peer.create(new)),
    ("upsert 100, half exist", ALL_PEERS, 9, 25, "0.20; 0.12", lambda _: [make_half()],
        lambda peer, values: peer.upsert(values)),
    ("upsert 100, nothing changed", READ_PEERS, 9, 20, "0.02", lambda peer: [unchanged(peer)],
        lambda peer, values: peer.upsert(values)),
    ("company with 10 contacts", [name for name in ALL_PEERS if name != "sql"], 15, 12, "",
        lambda _: [make_values(1)[0], make_values(10)], lambda peer, *values: peer.nested(*values)),
]  # fmt: skip


class Processor:
    """The processor time of the server and its database, which other work on the machine hardly changes."""

    def __init__(self, home, cursor):
        self.home, self.cursor = home, cursor

    def read(self):
        """Return the milliseconds that Odoo's processes and their database sessions have used."""
        self.cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()", [self.home.database]
        )
        pids = [self.home.pid, *(row[0] for row in self.cursor.fetchall())]
        pids += Path(f"/proc/{self.home.pid}/task/{self.home.pid}/children").read_text().split()
        # Linux' name of another process's clock (clock_getcpuclockid); threads that have ended are in it
        with contextlib.suppress(OSError):
            return sum(time.clock_gettime((~int(pid) << 3) | 2) for pid in pids) * 1000
        return 0.0


def clock(work, *arguments):
    started = time.perf_counter()
    work(*arguments)
    return (time.perf_counter() - started) * 1000


def measure(peers, rounds, seconds, processor, prepare, work):
    """Let the peers take turns, once at least; return the milliseconds of each peer's rounds, and of processor time."""
    times, used, end = {name: [] for name in peers}, {name: [] for name in peers}, time.monotonic() + seconds
    for turn in range(rounds):
        if turn and time.monotonic() > end:
            break
        names = list(peers)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            arguments = prepare(peers[name])
            before = processor.read()
            times[name].append(clock(work, peers[name], *arguments))
            used[name].append(processor.read() - before)
    return times, used


def measure_throughput(peers, rounds, seconds, processor, clients=4):
    """Count what several clients get done; return requests per second, and the processor time of each."""
    rates, used = {name: [] for name in peers}, {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in peers.items():
            before, done, started = processor.read(), [0] * clients, time.perf_counter()
            threads = [
                threading.Thread(target=_work_until, args=(peer, started + seconds, done, i)) for i in range(clients)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rates[name].append(sum(done) / (time.perf_counter() - started))
            time.sleep(0.7)  # what is done after the answers counts too
            used[name].append((processor.read() - before) / sum(done))
    return rates, used


def _work_until(peer, end, done, place):
    while time.perf_counter() < end:
        peer.list()
        done[place] += 1


def measure_paging(peers, rounds):
    """Compare the first page with the last one, by offset and, where there is one, by cursor."""
    pages = {
        name: (lambda peer=peer: peer.list(0), lambda peer=peer: peer.list(PAGED - 100)) for name, peer in peers.items()
    }
    ours = peers["ours"]
    first = deep = "/bj_api_sync/v1/bench-partners?sort=id&limit=100&cursor="
    with contextlib.suppress(SystemExit):
        for number in range(PAGED // 100):
            deep, head = deep if number else first, ours.client.send("GET", deep, "bench-token")[1]
            following = re.search(r'<([^>]*cursor=[^>]+)>; *rel="?next', head.decode())
            if not following:
                break
            deep = "/" + following[1].split("/", 3)[-1]
        pages["ours, cursor"] = tuple(
            lambda path=path: ours.client.send("GET", path, "bench-token") for path in (first, deep)
        )
    return {
        name: [statistics.median(column) for column in zip(*([clock(page) for page in both] for _ in range(rounds)))]
        for name, both in pages.items()
    }


# ---- That all do the same ----------------------------------------------------------------------------------


def normalize(item):
    """Null and false, and the two ways to write a time, are the same."""
    return {name: str(item[name] or None).replace("T", " ").rstrip("Z").split(".")[0] for name in ["id", *FIELDS]}


def check(peers, cursor):
    """Assert that all peers answer the same and store the same."""
    for read in (lambda peer: peer.list(), lambda peer: peer.one("P000123")):
        answers = {}
        for name, peer in peers.items():
            data = unwrap(read(peer))
            answers[name] = [normalize(item) for item in (data if isinstance(data, list) else [data])]
        for name, answer in answers.items():
            assert answer == answers["json2"], f"{name} answers {answer[0]}, not {answers['json2'][0]}"
    for name, peer in peers.items():
        new, company, children = make_values(2), make_values(1), make_values(3)
        half = make_half(4)
        peer.create(new)
        peer.upsert(half)
        if name != "sql":
            peer.nested(company[0], children)
            assert_stored(cursor, name, company, "parent_id IS NULL")
            assert_stored(
                cursor, name, children, f"parent_id = (SELECT id FROM res_partner WHERE ref = '{company[0]['ref']}')"
            )
        assert_stored(cursor, name, new)
        assert_stored(cursor, name, half)


def assert_stored(cursor, name, values, where="true"):
    """Assert that each of some partners is stored once, with all its values; contacts have their company's address."""
    refs = [vals["ref"] for vals in values]
    names = [
        field for field in FIELDS[:-1] if where in ("true", "parent_id IS NULL") or field in ("name", "ref", "email")
    ]
    cursor.execute(f"SELECT {', '.join(names)} FROM res_partner WHERE ref = ANY(%s) AND {where} ORDER BY ref", [refs])
    expected = sorted(([vals[field] for field in names] for vals in values), key=lambda row: row[1])
    stored = [list(row) for row in cursor.fetchall()]
    assert stored == expected, f"{name} stored {stored[:1]}, not {expected[:1]}"


# ---- The report --------------------------------------------------------------------------------------------


def spread(times):
    """Return half the distance of the quartiles, in percent of the median."""
    if len(times) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / 2 / (middle or 1) * 100


def make_row(title, at_most, times, base_format="{:.1f} ±{:.0f} %"):
    """One line of a table: what JSON-2 took, how many times that the others took."""

    def ratio(name):
        value = statistics.median(times[name]) / (statistics.median(times["json2"]) or 1)
        return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"

    cells = [title, base_format.format(statistics.median(times["json2"]), spread(times["json2"]))]
    cells += [ratio(name) if name in times else "" for name in ALL_PEERS[1:]]
    return f"| {' | '.join([*cells, at_most])} |"


def make_table(rows):
    titles = ["operation", *TITLES.values(), "ours at most"]
    return "\n".join([f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *rows])


def install_fastapi():
    """Fetch OCA's fastapi into a folder of the cache; return it, or say why it is left out."""
    folder = CACHE / "bench-fastapi"
    if not (folder / "complete").exists():
        for options in (["--no-deps", *FASTAPI], FASTAPI_NEEDS):
            command = [sys.executable, "-m", "pip", "install", "-q", "--upgrade", "--target", str(folder), *options]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                say(f"OCA fastapi is left out: {(result.stderr.strip().splitlines() or ['?'])[-1]}")
                return None
        (folder / "complete").touch()
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, below a minute; writes no file")
    parser.add_argument("--without-fastapi", action="store_true", help="saves a minute")
    parser.add_argument("operations", nargs="*", help="only those whose title has one of these words; writes no file")
    arguments = parser.parse_args()
    others = {}
    if fastapi := None if arguments.without_fastapi else install_fastapi():
        with serve(["json2", "fastapi"], fastapi) as (home, cursor, peers):
            others = run(home, cursor, peers, arguments)
    with serve([name for name in ALL_PEERS if name != "fastapi"]) as (home, cursor, peers):
        results = run(home, cursor, peers, arguments)
        paging = page_deep(home, cursor, peers, 5 if arguments.quick else 25) if is_wanted("paging", arguments) else ""
        report(add(results, others), paging, get_facts(cursor), arguments)


def is_wanted(title, arguments):
    return not arguments.operations or any(word in title for word in arguments.operations)


@contextlib.contextmanager
def serve(names, fastapi=None):
    """A started server with some peers, and partners; OCA fastapi has one of its own, as it costs all others a query.

    Gives the house, a cursor, and the peers by name.
    """
    addons = [ROOT / "addons", *([fastapi / "odoo/addons"] if fastapi else [])]
    with house("bench", addons=addons, pythonpath=fastapi or "") as home:
        say(f"preparing a database for {', '.join(names)}")
        home.odoo("-i", "bj_bench_fastapi" if fastapi else "bj_bench_peers", "--stop-after-init", "--no-http")
        script = f"SEEDED, FIELDS = {SEEDED}, {FIELDS}\n{SEED}"
        key = home.odoo("--no-http", command=["shell"], script=script).split("KEY ")[1].split()[0]
        with home.serve("--workers", 2) as port, contextlib.closing(connect(home.database)) as connection:
            client, cursor = Client(port, home.database), connection.cursor()
            client.database = home.database
            peers = {
                "json2": Json2(client, "/json/2/res.partner", key),
                "jsonrpc": JsonRpc(client, "", key),
                "fastapi": Peer(client, "/bj_bench_fastapi", key),
                "orm": Peer(client, "/bj_bench/orm"),
                "orm_off": Peer(client, "/bj_bench/orm_off"),
                "sql": Peer(client, "/bj_bench/sql"),
                "json2_off": Json2Off(client, "/json/2/res.partner", key),
                "ours": Ours(client, ""),
                "ours_off": OursOff(client, ""),
            }
            grow(cursor, PARTNERS)
            load(cursor)
            yield home, cursor, {name: peers[name] for name in names}


def run(home, cursor, peers, arguments):
    """Measure; return title -> (times, processor times) of each peer."""
    say("checking that all do the same")
    check(peers, cursor)
    for _ in range(10):  # both workers get warm
        for peer in peers.values():
            peer.list(), peer.one("P000001")
    results, processor = {}, Processor(home, cursor)
    for title, names, rounds, seconds, _at_most, prepare, work in OPERATIONS:
        if is_wanted(title, arguments):
            say(f"measuring: {title}")
            chosen = {name: peers[name] for name in names if name in peers}
            limit = seconds / 10 if arguments.quick else seconds
            results[title] = measure(chosen, rounds, limit, processor, prepare, work)
    if is_wanted(CLIENTS, arguments):
        say(f"measuring: {CLIENTS}")
        chosen = {name: peers[name] for name in READ_PEERS if name in peers}
        results[CLIENTS] = measure_throughput(chosen, *((2, 0.5) if arguments.quick else (4, 1)), processor)
    return results


def add(results, others):
    """Put the peers of another server to the results, as multiples of the JSON-2 that was measured beside them."""
    for title, columns in others.items():
        for mine, theirs in zip(results[title], columns, strict=True):
            factor = statistics.median(mine["json2"]) / (statistics.median(theirs["json2"]) or 1)
            mine.update(
                {name: [value * factor for value in values] for name, values in theirs.items() if name not in mine}
            )
    return results


def report(results, paging, facts, arguments):
    """Print the tables, and write them to the file of results if nothing was left out."""
    at_most = {title: limit for title, _, _, _, limit, _, _ in OPERATIONS} | {CLIENTS: "at least 2.8"}
    rows, rows_used, spreads = [], [], []
    for title, (times, used) in results.items():
        base_format = "{:.0f} per second ±{:.0f} %" if title == CLIENTS else "{:.1f} ±{:.0f} %"
        rows.append(make_row(title, at_most[title], times, base_format))
        rows_used.append(make_row(title, "" if title == CLIENTS else at_most[title], used))
        spreads += map(spread, times.values())
    text = f"""# Inbound requests compared

JSON-2 in milliseconds, the others as multiples of it; 4 clients in requests per second and multiples of it.

{make_table(rows)}

The same in processor time of Odoo and PostgreSQL together, which other work on the machine hardly changes. With 4
clients it contains what is done after the answers, such as writing logs:

{make_table(rows_used)}

Deep paging over {PAGED:,} records, milliseconds:

| | first page | at depth {PAGED - 100:,} | ratio |
|---|---|---|---|
{paging}

{facts}
- Half the distance of the quartiles is {statistics.median(spreads or [0]):.0f} % of the median in the typical cell, and
  {max(spreads, default=0):.0f} % in the noisiest one.
- {PARTNERS:,} partners, two workers, one client but where said, `X-Odoo-Database` sent by all, logging of ours at its
  default. JSON-2, `/jsonrpc` and fastapi check the same API key, the two controllers none.
- OCA fastapi was measured beside JSON-2 on a server of its own: its addons cost every request of a server a query.
"""
    print(f"\n{text}")
    if not (arguments.quick or arguments.without_fastapi or arguments.operations):
        Path(RESULTS).write_text(text)
        say(f"wrote {RESULTS.relative_to(ROOT.parent)}")


def grow(cursor, total):
    """Copy the seeded partners until there are so many active ones."""
    cursor.execute(
        "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid = 'res_partner'::regclass "
        "AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('id', 'ref', 'commercial_partner_id')"
    )
    [columns] = cursor.fetchone()
    cursor.execute("SELECT count(*), count(*) FILTER (WHERE ref LIKE 'P%') FROM res_partner WHERE active")
    active, seeded = cursor.fetchone()
    cursor.execute(GROW.format(columns=columns, seeded=seeded, missing=total - active))
    cursor.execute("ANALYZE")


def page_deep(home, cursor, peers, rounds):
    say(f"making it {PAGED:,} partners")
    grow(cursor, PAGED)
    say("measuring: deep paging")
    chosen = {name: peers[name] for name in ("json2", "ours")}
    medians = measure_paging(chosen, rounds)
    return "\n".join(
        f"| {name} | {first:.1f} | {deep:.1f} | {deep / first:.2f} |" for name, (first, deep) in medians.items()
    )


if __name__ == "__main__":
    main()
