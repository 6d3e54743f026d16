"""Deliveries against what else sends records from Odoo: ./dev bench outbound [--quick]

One Odoo, one database, one receiver in a process of its own that answers at once or after 20 ms. The peers send
the same payloads and take turns in every round, so that a slower moment of the machine hits all alike. Times are
medians; ratios are to Odoo's own webhook action on an automation rule, which is 1.00.
"""

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

from _house import JOB_ENVIRONMENT, JOB_OPTIONS, connect, get_facts, house, install_queue_job, say

PEERS = {
    "webhook": "Odoo's webhook action on a rule, inside the call",
    "session": "a `requests.Session`",
    "pool8": "a pool of 8 threads, a Session each",
    "urllib3": "bare urllib3 pool",
    "ours": "**deliveries, attempts and logs kept**",
    "lists": "**deliveries in lists of 100**",
    "queue_job": "OCA queue_job, its runner, a job per record",
    "ours on queue_job": "**deliveries as jobs of queue_job**",
}


class Receiver(asyncio.Protocol):
    """Answers every request with 200, after a time; as little as it can be."""

    ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"ok": true}'
    delay = 0.0

    def connection_made(self, transport):
        self.transport, self.data = transport, b""

    def data_received(self, data):
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, rest = self.data.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.I)
            size = int(length[1]) if length else 0
            if len(rest) < size:
                return
            self.data = rest[size:]
            if self.delay:
                asyncio.get_running_loop().call_later(self.delay, self.transport.write, self.ANSWER)
            else:
                self.transport.write(self.ANSWER)


async def receive(delay):
    Receiver.delay = delay
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def receiver(milliseconds):
    command = [sys.executable, __file__, "--serve", str(milliseconds / 1000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


#: runs in Odoo's shell: prints one JSON line per measurement
PROGRAM = (Path(__file__).with_name("_outbound_program.py")).read_text()


def measure(place, options):
    script = f"OPTIONS = {options!r}\n{PROGRAM}\n"
    output = place.odoo("--no-http", "--log-level", "warn", command=["shell"], script=script)
    return [json.loads(line[1:]) for line in output.splitlines() if line.startswith("@")]


@contextlib.contextmanager
def job_house():
    """A database with OCA's queue_job, and a server whose runner and four workers do its jobs."""
    with house("outbound_jobs", **install_queue_job()) as place:
        place.odoo("-i", "bj_bench_queue", "--stop-after-init", "--no-http")
        place.environment |= JOB_ENVIRONMENT
        with place.serve(*JOB_OPTIONS):
            yield place


def tell(results, facts):
    print(f"\n# Deliveries, measured\n\n{facts}\n")
    for (latency, count, by), rows in results.items():
        base = statistics.median(row["seconds"] for row in rows if row["peer"] == "webhook")
        print(f"\n## {count} records{by}, receiver answers after {latency} ms\n")
        print("| | records/s | × webhook action | caller waits, ms a record |")
        print("|---|---|---|---|")
        for peer, label in PEERS.items():
            mine = [row for row in rows if row["peer"] == peer]
            if not mine:
                continue
            seconds = statistics.median(row["seconds"] for row in mine)
            caller = statistics.median(row.get("caller", row["seconds"]) for row in mine) * 1000 / count
            print(f"| {label} | {count / seconds:.0f} | {base / seconds:.2f} | {caller:.3f} |")
        extra = next((row for row in rows if row["peer"] == "ours" and "rows" in row), None)
        if extra:
            print(f"\nRows left by our {count} deliveries: {extra['rows']}. Peak memory {extra['memory']} MB.")


def grow():
    """Tell what a delivery costs the more there are in the outbox; return how many cases cost too much."""
    with house("growth") as place, receiver(0) as port:
        rows = measure(place, {"port": port, "growth": True})
    base = rows[0]
    print("\n| in the outbox | ms a delivery | × | processor time, ms | × |\n|---|---|---|---|---|")
    for row in rows:
        wall, cpu = row["seconds"] * 1000, row["cpu"] * 1000
        ratios = wall / base["seconds"] / 1000, cpu / base["cpu"] / 1000
        print(f"| {row['peer']} | {wall:.3f} | {ratios[0]:.2f} | {cpu:.3f} | {ratios[1]:.2f} |")
    return sum(row["cpu"] > 1.2 * base["cpu"] for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="500 records, one round")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--growth", action="store_true", help="time per delivery with 1,000 and 100,000 queued")
    parser.add_argument("--jobs", action="store_true", help="only OCA's queue_job, and deliveries on it")
    arguments = parser.parse_args()
    if arguments.serve is not None:
        return asyncio.run(receive(arguments.serve))
    with contextlib.closing(connect("postgres")) as connection, connection.cursor() as cursor:
        facts = get_facts(cursor)
    if arguments.growth:
        return grow()
    results = {}
    with job_house() as place:
        for latency in (0, 20):
            with receiver(latency) as port:
                say(f"500 records as jobs, {latency} ms")
                options = {"port": port, "count": 500, "rounds": 1 if arguments.quick else 3, "jobs": True}
                results[latency, 500, " by queue_job"] = measure(place, options)
    if arguments.jobs:
        return tell(results, facts)
    with house("outbound") as place:
        for latency in (0, 20):
            for count in (500,) if arguments.quick else (500, 5000):
                with receiver(latency) as port:
                    say(f"{count} records, {latency} ms")
                    rounds = 1 if arguments.quick or count > 500 else 3
                    options = {"port": port, "count": count, "rounds": rounds, "latency": latency}
                    results[latency, count, ""] = measure(place, options)
    return tell(results, facts)


if __name__ == "__main__":
    sys.exit(main())
