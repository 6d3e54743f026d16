"""Deliveries under fault, counted: ./dev chaos [senders] [database] [queue] [jobs] [--changes 600] [--seed N]

senders   two Odoo servers send from one database; one is killed (kill -9) while it sends, again and again, and the
          receiver drops, stalls, and answers 429, 500 and garbage
database  PostgreSQL itself is killed while two hosts with worker processes send, and comes back
queue     10,000 deliveries wait for a receiver that is down; then it is well
jobs      the deliveries are jobs of OCA's queue_job, its runner's workers are killed, and the receiver is as above

Two dispatchers work side by side in all but the last, with access tokens that expire (OAuth 2.0). Transactions are
rolled back all the time, and the clock of retries is moved forward so that they come soon. In the end what arrived is
counted against a ledger that a trigger of the database keeps of what was committed: none lost, no ghost, each
record's order kept, repetitions only with the same id and before anything later of that record. PostgreSQL is a
cluster of its own. Takes about four minutes.
"""

import argparse
import contextlib
import functools
import http.client
import json
import os
import random
import signal
import statistics
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from itertools import groupby

import psutil
from _house import JOB_ENVIRONMENT, JOB_OPTIONS, house, install_queue_job, own_cluster, say
from common_server import sql
from receiver import Receiver, Reply

SETUP = """
from odoo.fields import Command
env["ir.config_parameter"].set_param("bj_api_sync.allowed_hosts", "127.0.0.1")
model = env["ir.model"]._get_id("res.partner")
names = {"ref": "code", "name": "name"}
config = env["bj.api.sync.config"].create({
    "name": "Chaos", "request_type": "out", "authorization_type": "oauth2", "model_id": model,
    "http_method_ids": [Command.set(env.ref("bj_api_sync.http_method_post").ids)],
    "token_url": "TOKENS/token", "client_id": "chaos", "client_secret": "secret",
    "request_url": "URL/in", "read_timeout": 2, "user_id": env.ref("base.user_admin").id,
    "line_ids": [Command.create({
        "field_id": env["ir.model.fields"]._get("res.partner", name).id, "external_key": key,
        "is_record_identifier": name == "ref"}) for name, key in names.items()],
})
wizard = env["bj.api.sync.trigger"].create({"config_id": config.id})
wizard.action_create()
env.ref("bj_api_sync.cron_dispatch").copy()
env["res.partner"].create([{"name": "0", "ref": f"CHAOS{number}"} for number in range(30)])
env["res.partner"].create([{"name": "0", "ref": f"QUEUE{number}"} for number in range(1000)])
env.cr.flush()
env["bj.api.delivery"].search([]).unlink()
if "queue.job" in env:
    env["queue.job"].search([]).unlink()
env.cr.commit()
"""
#: what was committed, by a witness that is none of ours
LEDGER = """
CREATE TABLE chaos_ledger (id serial, code text, name text);
CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO chaos_ledger (code, name) VALUES (NEW.ref, NEW.name); RETURN NEW; END$$;
CREATE TRIGGER chaos_note AFTER UPDATE ON res_partner FOR EACH ROW
    WHEN (NEW.name IS DISTINCT FROM OLD.name AND NEW.ref IS NOT NULL) EXECUTE FUNCTION chaos_note()
"""
QUEUE = """
partners = env["res.partner"].search([("ref", "=like", "QUEUE%")])
for number in range(10):
    partners.write({"name": f"queued {number}"})
    env.cr.commit()
"""
HURRY = """
UPDATE bj_api_delivery SET next_attempt = next_attempt - interval '2 h' WHERE state = 'failed';
-- who lives renews a claim before it has less than 40 seconds
UPDATE bj_api_delivery SET next_attempt = next_attempt - interval '60 s'
 WHERE state = 'sending' AND next_attempt < (now() AT TIME ZONE 'UTC') + interval '35 s';
UPDATE bj_api_target SET paused_until = paused_until - interval '60 s';
UPDATE bj_api_target SET probe_until = NULL WHERE probe_until < (now() AT TIME ZONE 'UTC') + interval '35 s';
INSERT INTO ir_cron_trigger (cron_id, call_at) SELECT c.id, now() AT TIME ZONE 'UTC' FROM ir_cron AS c
  JOIN ir_act_server AS a ON a.id = c.ir_actions_server_id WHERE a.code = 'model._cron_dispatch()'
"""
FAULTS = (
    {"status": 500},
    {"status": 429, "headers": {"Retry-After": "2"}},
    {"drop": True},
    {"garbage": True},
    {"delay": 3},
)
HURRY_JOBS = "UPDATE queue_job SET eta = NULL WHERE state = 'pending' AND eta IS NOT NULL"
THREADS = ("--max-cron-threads", "2")
WORKERS = ("--max-cron-threads", "2", "--workers", "1")


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


class World:
    """A database that hosts send from, the external system, and who changes records."""

    def __init__(self, place, receiver, authority):
        self.place, self.receiver, self.authority = place, receiver, authority
        self.acknowledged = []  # what a caller was told is done
        authority.on("/token", body=self.give_token)
        script = SETUP.replace("URL", receiver.url).replace("TOKENS", authority.url)
        place.odoo("--no-http", command=["shell"], script=script)
        self.sql(LEDGER)
        self.has_jobs = bool(
            self.sql("SELECT 1 FROM ir_module_module WHERE name = 'queue_job' AND state = 'installed'")
        )
        self.partners = self.sql("SELECT id, ref FROM res_partner WHERE ref LIKE 'CHAOS%' ORDER BY id")

    def sql(self, query, database=None):
        return sql(query, database or self.place.database)

    def give_token(self, _request):
        """Answer as a token server, whose tokens live 20 seconds (RFC 6749, section 5.1)."""
        body = {"access_token": f"token-{time.monotonic()}", "token_type": "Bearer", "expires_in": 20}
        return Reply(body=body, delay=random.choice((0, 0.5)))

    def change(self, client, partner, name):
        """Change a partner; whether it was done is told by the ledger if it is not told to the caller."""
        client.call("res.partner", "write", [partner[0]], {"name": name})
        self.acknowledged.append((partner[1], name))

    def fail(self, client, partner):
        """Change something in transactions that are rolled back."""
        for method, *arguments in (
            ("create", [{"name": "Ghost", "ref": "C"}, {"ref": "C"}]),
            ("write", [partner[0]], {"name": "Ghost", "parent_id": 2**30}),
        ):
            with contextlib.suppress(ValueError):
                client.call("res.partner", method, *arguments)

    def hurry(self):
        """Move time forward for what waits, and wake the senders: Odoo listens in the database postgres."""
        self.sql(HURRY)
        if self.has_jobs:
            self.sql(HURRY_JOBS)
        self.sql(f"SELECT pg_notify('cron_trigger', '{self.place.database}')", "postgres")

    def count_open(self):
        [[count]] = self.sql("SELECT count(*) FROM bj_api_delivery WHERE state NOT IN ('sent', 'cancelled')")
        return count

    def heal(self):
        """Let the receiver be well, and wait until everything is sent."""
        self.receiver._scripts.clear()
        healed, count = time.monotonic(), self.count_open()
        while (left := self.count_open()) and time.monotonic() < healed + 120:
            self.hurry()
            time.sleep(1)
        seconds = time.monotonic() - healed
        say(f"of {count} that were open when the receiver was well, {left} are left {seconds:.0f} s after")


def run_senders(world, arguments):
    """Kill one of two servers again and again."""
    with world.place.serve(*THREADS) as port:
        client = Client(world.place.database, port)
        measure_start(world, client)
        for round_number in range(4):
            with world.place.serve(*THREADS):
                victim = world.place.pid
                for number in range(arguments.changes // 4):
                    if number % 25 == 0:
                        world.receiver.on("/in", times=random.randint(1, 4), **random.choice(FAULTS))
                    partner = random.choice(world.partners)
                    world.change(client, partner, f"{round_number}.{number}")
                    if number % 20 == 0:
                        world.fail(client, partner)
                world.receiver.on("/in", times=20, delay=1)
                for partner in world.partners:
                    world.change(client, partner, f"{round_number}.slow")
                os.kill(victim, signal.SIGKILL)
            say(f"round {round_number}: a sender killed, {world.count_open()} deliveries open")
        world.heal()


def measure_start(world, client):
    """Tell how long a single change takes from its commit to its arrival."""
    waits, requests = [], world.receiver.requests
    for number in range(5):
        count = len(requests)
        world.change(client, world.partners[0], f"quick {number}")
        start = time.time()
        world.receiver.wait_for(count + 1)
        waits.append(requests[count].at - start if len(requests) > count else 99)
        time.sleep(1.5)
    say(f"a change arrives after {statistics.median(waits):.2f} s, the slowest of five after {max(waits):.2f} s")


def run_database(world, arguments):
    """Kill PostgreSQL while two hosts send; they go on by themselves."""
    done = threading.Event()

    def work():
        for number in range(10**6):
            if done.is_set():
                return
            partner = random.choice(world.partners)
            with contextlib.suppress(ValueError, OSError, http.client.HTTPException):  # PostgreSQL is gone
                world.change(clients[number % 2], partner, f"db {number}")
                if number % 10 == 0:
                    world.fail(clients[0], partner)

    injuries = {"one of its processes": kill_backend, "PostgreSQL": kill_server, "PostgreSQL in a hurry": stop_server}
    host = functools.partial(world.place.serve, *WORKERS, is_supervised=True)
    with host() as one, host() as other:
        clients = [Client(world.place.database, port) for port in (one, other)]
        for client in clients:  # its port is open before it can work
            client.call("res.partner", "search_count", [])
        writer = threading.Thread(target=work)
        writer.start()
        try:
            for injured, injure in injuries.items():
                world.receiver.on("/in", delay=0.3)  # so that some are on the way
                time.sleep(random.uniform(4, 6))
                world.receiver._scripts.clear()
                injure(world, arguments.cluster)
                seconds = wait_for_more(world)
                say(f"killed {injured}: the next delivery arrived {seconds:.1f} s after it was back")
        finally:
            done.set()
            writer.join()
        world.heal()


def kill_backend(world, cluster):
    """PostgreSQL then ends all others too, and recovers."""
    query = f"SELECT pid FROM pg_stat_activity WHERE datname = '{world.place.database}' AND pid <> pg_backend_pid()"
    os.kill(random.choice(world.sql(query))[0], signal.SIGKILL)
    time.sleep(0.5)  # until it has noticed
    cluster.wait()


def kill_server(world, cluster, signum=signal.SIGKILL):
    cluster.stop(signum)
    time.sleep(random.uniform(0, 2))
    cluster.start()


def stop_server(world, cluster):
    kill_server(world, cluster, signal.SIGQUIT)


def wait_for_more(world):
    """Wait until something arrives that was not there; return the seconds."""
    start, known = time.monotonic(), {request.body for request in list(world.receiver.requests)}
    while time.monotonic() < start + 90:
        if any(request.body not in known for request in list(world.receiver.requests)[len(known) :]):
            break
        time.sleep(0.1)
    return time.monotonic() - start


def run_queue(world, arguments):
    """Let 10,000 wait."""
    receiver = world.receiver
    receiver.__exit__()
    with world.place.serve(*THREADS), world.place.serve(*THREADS):
        start = time.monotonic()
        world.place.odoo("--no-http", command=["shell"], script=QUEUE)
        say(f"{world.count_open()} deliveries queued in {time.monotonic() - start:.0f} s, nobody listens")
        time.sleep(5)
        world.receiver = Receiver(receiver.port)
        world.receiver.requests = receiver.requests
        with world.receiver:
            world.heal()


def run_jobs(world, arguments):
    """Kill the workers that do the jobs."""
    with world.place.serve(*JOB_OPTIONS) as port:
        server, client = psutil.Process(world.place.pid), Client(world.place.database, port)
        world.change(client, world.partners[0], "first")
        world.receiver.wait_for(1, 60)
        for number in range(arguments.changes // 3):
            if number % 25 == 0:
                world.receiver.on("/in", times=random.randint(1, 4), **random.choice(FAULTS))
            partner = random.choice(world.partners)
            with contextlib.suppress(ValueError, OSError, http.client.HTTPException):  # its worker was killed
                world.change(client, partner, f"job {number}")
            if number % 20 == 10:
                random.choice(server.children()).kill()
        time.sleep(5)
        query = (
            "SELECT state || CASE WHEN eta IS NULL THEN '' ELSE ' until later' END, count(*) FROM queue_job GROUP BY 1"
        )
        say(f"jobs: {', '.join(f'{count} {state}' for state, count in world.sql(query))}")
        world.heal()
        say(f"jobs: {', '.join(f'{count} {state}' for state, count in world.sql(query))}")


def judge(world):
    """Compare what arrived with what was committed; return how many faults there are."""
    committed, arrived, keys, repeated, faults = defaultdict(list), defaultdict(list), {}, 0, 0
    for code, name in world.sql("SELECT code, name FROM chaos_ledger ORDER BY id"):
        committed[code].append(name)
    for request in world.receiver.requests:
        code, name, key = request.json["code"], request.json["name"], request.headers["idempotency-key"]
        if keys.setdefault((code, name), key) != key:
            faults += 1
            print(f"{code} {name} came with two ids")
        repeated += name in arrived[code]
        arrived[code].append(name)
    forgotten = [change for change in world.acknowledged if change[1] not in committed[change[0]]]
    lost = [(code, name) for code, names in committed.items() for name in set(names) - set(arrived[code])]
    ghosts = [(code, name) for code, names in arrived.items() for name in set(names) - set(committed[code])]
    disorder = [code for code, names in committed.items() if [name for name, _ in groupby(arrived[code])] != names]
    print(world.sql("SELECT state, count(*), max(attempt_count) FROM bj_api_delivery GROUP BY state"))
    print(f"\ncommitted {sum(map(len, committed.values()))}, arrived {len(keys)}, repeated with the same id {repeated}")
    tokens = {request.headers.get("authorization") for request in world.receiver.requests}
    print(f"access tokens asked for {len(world.authority.requests)}, sent {len(tokens)}")
    print(f"lost {len(lost)}, ghosts {len(ghosts)}, records out of order {len(disorder)}, forgotten {len(forgotten)}")
    for found in (lost, ghosts, disorder, forgotten):
        print(*found[:5], sep="\n", end="\n" if found else "")
    for code in disorder[:2]:
        print(code, committed[code], arrived[code], sep="\n")
    return faults + sum(map(len, (lost, ghosts, disorder, forgotten)))


PARTS = {"senders": run_senders, "database": run_database, "queue": run_queue, "jobs": run_jobs}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", choices=[[], *PARTS], help="default: all")
    parser.add_argument("--changes", type=int, default=600, help="of records, while senders are killed")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    say(f"seed {arguments.seed}")
    parts = arguments.parts or list(PARTS)
    with own_cluster() as arguments.cluster:
        faults = play([part for part in parts if part != "jobs"], arguments)
        if "jobs" in parts:
            faults += play(["jobs"], arguments, **install_queue_job())
    return min(faults, 100)


def play(parts, arguments, **options):
    """Run parts on one database, and judge; return how many faults there are."""
    if not parts:
        return 0
    with house("chaos", **options) as place, Receiver() as receiver, Receiver() as authority:
        if options:
            place.odoo("-i", "queue_job", "--stop-after-init", "--no-http")
            place.environment |= JOB_ENVIRONMENT
        world = World(place, receiver, authority)
        for part in parts:
            say(f"-- {part}")
            PARTS[part](world, arguments)
        return judge(world)


if __name__ == "__main__":
    sys.exit(main())
