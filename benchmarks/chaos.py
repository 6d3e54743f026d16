"""Deliveries under fault, counted: ./dev chaos [--changes 600]

Two Odoo servers send from one database. They are killed (kill -9) while they send, the receiver drops, stalls and
answers 429, 500 and garbage, transactions are rolled back, and time is moved forward so that retries come soon.
In the end what arrived is counted against what was committed: none lost, no ghost, order kept per record,
repetitions only with the same id. Takes about two minutes.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import time
import urllib.request
from collections import defaultdict

from _house import ROOT, connect, house, say

sys.path.insert(0, str(ROOT.parent / "tests"))
from receiver import Receiver

SETUP = """
from odoo.fields import Command
env["ir.config_parameter"].set_param("bj_api_sync.allowed_hosts", "127.0.0.1")
model = env["ir.model"]._get_id("res.partner")
names = {"ref": "code", "name": "name"}
config = env["bj.api.sync.config"].create({
    "name": "Chaos", "request_type": "out", "authorization_type": "none", "model_id": model,
    "http_method_ids": [Command.set(env.ref("bj_api_sync.http_method_post").ids)],
    "request_url": "URL/in", "read_timeout": 2, "user_id": env.ref("base.user_admin").id,
    "line_ids": [Command.create({
        "field_id": env["ir.model.fields"]._get("res.partner", name).id, "external_key": key,
        "is_record_identifier": name == "ref"}) for name, key in names.items()],
})
wizard = env["bj.api.sync.trigger"].create({"config_id": config.id})
wizard.action_create()
env["res.partner"].create([{"name": "0", "ref": f"CHAOS{number}"} for number in range(PARTNERS)])
env["bj.api.delivery"].search([]).unlink()
env.cr.commit()
"""
PARTNERS = 30
FAULTS = (
    {"status": 500},
    {"status": 429, "headers": {"Retry-After": "2"}},
    {"drop": True},
    {"garbage": True},
    {"delay": 3},
)


class Client:
    """Changes partners over JSON-RPC, as the administrator."""

    def __init__(self, database, port):
        self.database, self.url = database, f"http://127.0.0.1:{port}/jsonrpc"

    def call(self, model, method, *arguments):
        params = {"service": "object", "method": "execute_kw"}
        params["args"] = [self.database, 2, "admin", model, method, arguments]
        body = json.dumps({"jsonrpc": "2.0", "method": "call", "params": params}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = json.load(answer)
        if "error" in content:
            raise ValueError(content["error"]["data"]["message"])
        return content["result"]


def measure_start(client, receiver, partner):
    """Return the seconds from a commit to the arrival, of some single changes."""
    waits = []
    for number in range(5):
        count = len(receiver.requests)
        client.call("res.partner", "write", [partner], {"name": f"quick {number}"})
        start = time.time()
        receiver.wait_for(count + 1)
        waits.append(receiver.requests[count].at - start if len(receiver.requests) > count else 99)
        time.sleep(1.5)
    return waits


def hurry(cursor):
    """Move time forward for what waits."""
    cursor.execute(
        "UPDATE bj_api_delivery SET next_attempt = next_attempt - interval '2 h' WHERE state = 'failed';"
        "UPDATE bj_api_delivery SET next_attempt = next_attempt - interval '60 s' WHERE state = 'sending';"
        "UPDATE bj_api_target SET paused_until = paused_until - interval '60 s', probe_until = NULL;"
        "INSERT INTO ir_cron_trigger (cron_id, call_at) SELECT c.id, now() AT TIME ZONE 'UTC' FROM ir_cron AS c"
        "  JOIN ir_act_server AS a ON a.id = c.ir_actions_server_id WHERE a.code = 'model._cron_dispatch()';"
        "SELECT pg_notify('cron_trigger', current_database())"
    )


def count_open(cursor):
    cursor.execute("SELECT count(*) FROM bj_api_delivery WHERE state NOT IN ('sent', 'cancelled')")
    return cursor.fetchone()[0]


def work(place, receiver, cursor, cursor_notify, changes):
    """Change, roll back, kill; return what was committed: code -> names in order."""
    committed, options = defaultdict(list), ("--max-cron-threads", "2")
    with contextlib.ExitStack() as servers:
        port = servers.enter_context(place.serve(*options))
        client = Client(place.database, port)
        partners = client.call("res.partner", "search_read", [["ref", "=like", "CHAOS%"]], ["ref"])
        waits = measure_start(client, receiver, partners[0]["id"])
        committed.update({partner["ref"]: ["0"] for partner in partners})
        committed[partners[0]["ref"]] += [f"quick {number}" for number in range(5)]
        say(f"a change arrives after {statistics.median(waits):.2f} s, the slowest of five after {max(waits):.2f} s")
        for round_number in range(4):
            with place.serve(*options) as victim_port:
                victim = find_process(victim_port)
                for number in range(changes // 4):
                    if number % 25 == 0:
                        receiver.on("/in", times=random.randint(1, 4), **random.choice(FAULTS))
                    chosen = random.choice(partners)
                    name = f"{round_number}.{number}"
                    client.call("res.partner", "write", [chosen["id"]], {"name": name})
                    committed[chosen["ref"]].append(name)
                    if number % 20 == 0:
                        with contextlib.suppress(ValueError):  # the second is refused, both are rolled back
                            client.call("res.partner", "create", [{"name": "Ghost", "ref": "C"}, {"ref": "C"}])
                receiver.on("/in", times=20, delay=1)
                for number, partner in enumerate(partners):
                    name = f"{round_number}.slow.{number}"
                    client.call("res.partner", "write", [partner["id"]], {"name": name})
                    committed[partner["ref"]].append(name)
                os.kill(victim, 9)
            say(f"round {round_number}: a sender killed, {count_open(cursor)} deliveries open")
        receiver._scripts.clear()  # it is well again
        healed = time.monotonic()
        while (left := count_open(cursor)) and time.monotonic() < healed + 120:
            cursor_notify()
            time.sleep(1)
        say(f"{left} open {time.monotonic() - healed:.0f} s after the receiver was well again")
    return committed


def find_process(port):
    """Return the process that listens on a port of ours."""
    for line in os.popen("ps -eo pid,args").read().splitlines():
        if f"--http-port {port} " in f"{line} ":
            return int(line.split()[0])
    raise SystemExit(f"nothing listens on {port}")


def judge(receiver, committed):
    """Compare; return how many faults there are."""
    arrived, keys, repeated = defaultdict(list), {}, 0
    for request in receiver.requests:
        if not isinstance(request.json, dict):
            continue
        code, name, key = request.json["code"], request.json["name"], request.headers["idempotency-key"]
        if keys.setdefault((code, name), key) != key:
            print(f"{code} {name} came with two ids")
        if name in arrived[code]:
            repeated += 1
        else:
            arrived[code].append(name)
    lost = {code: set(names) - set(arrived[code]) for code, names in committed.items()}
    ghosts = {code: set(names) - set(committed[code]) for code, names in arrived.items()}
    disorder = [code for code, names in committed.items() if arrived[code] != names]
    print(
        f"\ncommitted {sum(map(len, committed.values()))}, arrived {sum(map(len, arrived.values()))}, "
        f"attempts repeated with the same id {repeated}"
    )
    print(
        f"lost {sum(map(len, lost.values()))}, ghosts {sum(map(len, ghosts.values()))}, "
        f"records out of order {len(disorder)}"
    )
    for code in disorder[:3]:
        print(code, committed[code], arrived[code])
    return sum(map(len, [*lost.values(), *ghosts.values()])) + len(disorder)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    say(f"seed {arguments.seed}")
    with house("chaos") as place, Receiver() as receiver:
        place.odoo(
            "--no-http", command=["shell"], script=SETUP.replace("URL", receiver.url).replace("PARTNERS", str(PARTNERS))
        )
        with contextlib.closing(connect(place.database)) as connection, connection.cursor() as cursor:
            committed = work(place, receiver, cursor, lambda: hurry(cursor), arguments.changes)
            cursor.execute("SELECT state, count(*), max(attempt_count) FROM bj_api_delivery GROUP BY state")
            print(cursor.fetchall())
        return judge(receiver, committed)


if __name__ == "__main__":
    sys.exit(main())
