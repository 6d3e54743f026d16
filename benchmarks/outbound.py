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

from _house import connect, get_facts, house, say

PEERS = {
    "webhook": "Odoo's webhook action on a rule, inside the call",
    "session": "a `requests.Session`",
    "pool8": "a pool of 8 threads, a Session each",
    "urllib3": "bare urllib3 pool",
    "ours": "**deliveries, attempts and logs kept**",
    "lists": "**deliveries in lists of 100**",
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


def tell(results, facts):
    print(f"\n# Deliveries, measured\n\n{facts}\n")
    for (latency, count), rows in results.items():
        base = statistics.median(row["seconds"] for row in rows if row["peer"] == "webhook")
        print(f"\n## {count} records, receiver answers after {latency} ms\n")
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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="500 records, one round")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--growth", action="store_true", help="time per delivery with 1,000 and 100,000 queued")
    arguments = parser.parse_args()
    if arguments.serve is not None:
        return asyncio.run(receive(arguments.serve))
    results = {}
    with house("outbound") as place:
        with contextlib.closing(connect(place.database)) as connection, connection.cursor() as cursor:
            facts = get_facts(cursor)
        if arguments.growth:
            with receiver(0) as port:
                for row in measure(place, {"port": port, "growth": True}):
                    print(row)
            return None
        for latency in (0, 20):
            for count in (500,) if arguments.quick else (500, 5000):
                with receiver(latency) as port:
                    say(f"{count} records, {latency} ms")
                    rounds = 1 if arguments.quick or count > 500 else 3
                    options = {"port": port, "count": count, "rounds": rounds, "latency": latency}
                    results[latency, count] = measure(place, options)
    return tell(results, facts)


if __name__ == "__main__":
    sys.exit(main())
