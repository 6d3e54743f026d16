"""Where the time of an inbound request goes: ./dev bench profile_inbound [operation …]

The requests are served within this process, without a socket, by Odoo's WSGI application. Functions on the way are
wrapped; each stage is told without the stages it calls, in milliseconds, as its calmest tenth took at most.
"""

import argparse
import collections
import contextlib
import functools
import importlib
import io
import json
import statistics
import sys
import threading
import time

from _house import ROOT, connect, house, say
from addons.bj_bench_peers.operations import FIELDS
from inbound import PARTNERS, SEED, SEEDED, grow, load, make_half, make_values, some_refs

INBOUND, MAPPER = "bj.api.sync.inbound", "bj.api.sync.mapper"
# Not _fetch_query and _search of the model: the engine looks whether somebody overrides them.
#: (stage, module or model or class, names of functions)
STAGES = [
    ("Odoo: session", "odoo.http:Request", ["_get_session_and_dbname"]),
    ("Odoo: registry and its signaling", "odoo.orm.registry:Registry", ["cursor", "check_signaling"]),
    ("Odoo: cursor closed", "odoo.sql_db:Cursor", ["close", "rollback"]),
    ("Odoo: routing", "ir.http", ["_match"]),
    ("Odoo: authentication around ours", "ir.http", ["_authenticate"]),
    ("Odoo: before dispatch", "ir.http", ["_pre_dispatch"]),
    ("Odoo: after dispatch", "ir.http", ["_post_dispatch"]),
    ("Odoo: retrying, flush, commit", "odoo.service.model", ["retrying"]),
    ("Odoo: retrying, flush, commit", "odoo.sql_db:Cursor", ["commit"]),
    ("authentication", "ir.http", ["_auth_method_bj_api_sync", "_auth_method_bearer"]),
    ("endpoint and plan", INBOUND, ["_endpoint"]),
    ("endpoint and plan", MAPPER, ["_plan"]),
    ("dispatcher", "odoo.addons.bj_api_sync.controllers.dispatcher:BjApiSyncDispatcher", ["dispatch"]),
    ("operation", INBOUND, ["_handle"]),
    ("parameters, domain, order", INBOUND, ["_get_window", "_get_order", "_get_params_domain", "_get_terms"]),
    ("parameters, domain, order", MAPPER, ["_get_domain"]),
    ("search", "bj.api.sync.query", ["_search", "_search_values"]),
    ("ORM: fetch", "res.partner", ["fetch"]),
    ("ORM: create", "res.partner", ["create"]),
    ("ORM: write", "res.partner", ["write"]),
    ("ORM: flush", "odoo.orm.environments:Environment", ["flush_all"]),
    ("savepoint", "odoo.sql_db:Cursor", ["savepoint"]),
    ("flush before savepoint or commit: tracking", "odoo.sql_db:Cursor", ["flush"]),
    ("identifiers", MAPPER, ["_match", "_resolve", "_find"]),
    ("payload to values", MAPPER, ["_prepare_rows", "_fill"]),
    ("what differs", MAPPER, ["_update"]),
    ("records to objects", MAPPER, ["_read", "_serialize"]),
    ("answer", "odoo.addons.bj_api_sync.controllers.dispatcher:BjApiSyncDispatcher", ["_respond"]),
    ("JSON", "odoo.addons.bj_api_sync.controllers.dispatcher:BjApiSyncDispatcher", ["_parse_body"]),
    ("JSON", "odoo.addons.bj_api_sync.controllers.dispatcher", ["_dump"]),
    ("log", "odoo.addons.bj_api_sync.controllers.dispatcher:BjApiSyncDispatcher", ["_log"]),
]
SQL = "odoo.sql_db:Cursor", "execute"

stack, spent, queries = [], collections.Counter(), collections.Counter()


def watch(owner, name, stage):
    """Count the time between call and return of a function for its stage; that of inner stages is taken off."""
    function = getattr(owner, name, None)
    if function is None:
        return
    bound = isinstance(owner.__dict__.get(name), classmethod) if isinstance(owner, type) else False
    function = function.__func__ if bound else function
    requests = threading.current_thread()

    @functools.wraps(function)
    def watched(*args, **kwargs):
        if threading.current_thread() is not requests or not stack:
            return function(*args, **kwargs)
        own = f"{stack[-1][0]}: SQL" if stage == SQL else stage
        queries[own] += stage == SQL
        stack.append([own, 0.0])
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            taken = time.perf_counter() - started
            spent[own] += taken - stack.pop()[1]
            stack[-1][1] += taken

    setattr(owner, name, classmethod(watched) if bound else watched)


def watch_all(registry):
    for stage, where, names in STAGES:
        if where in registry:
            owners = [registry[where]]
        else:
            module, _, attribute = where.partition(":")
            owners = [importlib.import_module(module)]
            owners = [getattr(owners[0], attribute)] if attribute else owners
        for owner in owners:
            for name in names:
                watch(owner, name, stage)
    module, _, attribute = SQL[0].partition(":")
    watch(getattr(importlib.import_module(module), attribute), SQL[1], SQL)


class Server:
    """Odoo's WSGI application, called directly."""

    def __init__(self, home, key):
        from odoo.http import root
        from odoo.modules.registry import Registry
        from odoo.tools import config

        config.parse_config([*home.options, "--logfile", str(home.log)], setup_logging=True)
        self.registry, self.root, self.home, self.key = Registry(home.database), root, home, key

    def send(self, method, path, payload=None):
        """Serve one request; return its seconds."""
        body = b"" if payload is None else json.dumps(payload).encode()
        path, _, query = path.partition("?")
        environ = {
            "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1",
            "wsgi.input": io.BytesIO(body), "wsgi.errors": sys.stderr, "wsgi.url_scheme": "http",
            "HTTP_X_ODOO_DATABASE": self.home.database,
            "HTTP_AUTHORIZATION": f"Bearer {self.key if path.startswith('/json') else 'bench-token'}",
        }  # fmt: skip
        if body:
            environ |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body))}
        statuses = []
        started = time.perf_counter()
        answer = b"".join(self.root(environ, lambda status, *_: statuses.append(status)))
        taken = time.perf_counter() - started
        if not statuses[0].startswith("20"):
            sys.exit(f"{method} {path}: {statuses[0]} {answer.decode()[:1000]}")
        return taken


def make_operations(server):
    base, companies = "/bj_api_sync/v1/bench-partners", "/bj_api_sync/v1/bench-companies"
    search = {"domain": [], "fields": FIELDS, "limit": 100, "order": "id", "load": None}
    same = make_values(100)
    return {
        "json2": (300, lambda: server.send("POST", "/json/2/res.partner/search_read", search)),
        "list": (300, lambda: server.send("GET", f"{base}?sort=id&limit=100")),
        "one": (300, lambda: server.send("GET", f"{base}/{some_refs(1)[0]}")),
        "create": (100, lambda: server.send("POST", base, make_values(1)[0])),
        "create_off": (100, lambda: server.send("POST", f"{base}-off", make_values(1)[0])),
        "create100": (12, lambda: server.send("POST", base, make_values(100))),
        "upsert": (12, lambda: server.send("POST", base, make_half())),
        "nested": (20, lambda: server.send("POST", companies, make_values(1)[0] | {"children": make_values(10)})),
        "unchanged": (40, lambda: server.send("POST", base, same)),
    }


def profile(name, rounds, work):
    """Print the stages of an operation, the dearest first."""
    for _ in range(min(rounds, 10) if rounds > 20 else 2):
        work()
    samples, cpu, own = [], time.process_time(), time.thread_time()
    for _ in range(rounds):
        spent.clear(), queries.clear()
        stack[:] = [["Odoo: WSGI and the rest", 0.0]]
        taken = work()
        rest, inner = stack.pop()
        spent[rest] = taken - inner
        samples.append((taken, dict(spent), dict(queries)))
    cpu, own = time.process_time() - cpu, time.thread_time() - own
    stages = {stage for _, times, _ in samples for stage in times}
    calm = {stage: _calm([times.get(stage, 0.0) for _, times, _ in samples]) for stage in stages}
    total = statistics.median(taken for taken, *_ in samples) * 1000
    print(f"\n{name}: {sum(calm.values()):.2f} ms (median, with whatever else the machine did: {total:.2f} ms)")
    print(f"  CPU of the request {own / rounds * 1000:.2f} ms, of other threads {(cpu - own) / rounds * 1000:.2f} ms")
    for stage in sorted(calm, key=calm.get, reverse=True):
        count = samples[-1][2].get(stage, 0)
        print(f"  {calm[stage]:8.3f}  {stage}" + (f" ({count})" if count else ""))


def _calm(seconds):
    return sorted(seconds)[len(seconds) // 10] * 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("operations", nargs="*")
    chosen = parser.parse_args().operations
    with house("profile", addons=[ROOT / "addons"]) as home:
        key = home.odoo("--no-http", command=["shell"], script=f"SEEDED, FIELDS = {SEEDED}, {FIELDS}\n{SEED}")
        with contextlib.closing(connect(home.database)) as connection:
            grow(connection.cursor(), PARTNERS)
            load(connection.cursor())
        server = Server(home, key.split("KEY ")[1].split()[0])
        watch_all(server.registry)
        say("measuring")
        for name, (rounds, work) in make_operations(server).items():
            if not chosen or name in chosen:
                profile(name, rounds, work)


if __name__ == "__main__":
    main()
