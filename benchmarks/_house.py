"""What the benchmarks share: a database of their own, Odoo run on it, and the facts of the machine.

`./dev bench` tells by environment variables how to start Odoo and which database to copy.
"""

import contextlib
import datetime
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg2

ROOT = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("BJ_DEV_CACHE") or ROOT.parent / ".dev").expanduser().resolve()  # as ./dev has it
ODOO = json.loads(os.environ["BJ_DEV_ODOO"])
DB_ARGS = json.loads(os.environ["BJ_DEV_DB_ARGS"])
STARTED = time.monotonic()

# The exit runs the clean-up of every open block.
signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))


def say(text):
    print(f"[{time.monotonic() - STARTED:4.0f} s] {text}", flush=True)


def connect(database):
    connection = psycopg2.connect(dbname=database)
    connection.autocommit = True
    return connection


class House:
    """One database and the addons that Odoo gets on top of its own."""

    def __init__(self, database, addons=(), pythonpath=""):
        self.database, self.log = database, Path(tempfile.gettempdir()) / f"{database}.log"
        addons_path = ",".join([os.environ["BJ_DEV_ADDONS"], *map(str, addons)])
        self.options = ["-d", database, *DB_ARGS, "--addons-path", addons_path]
        self.environment = os.environ | {"PYTHONPATH": str(pythonpath)}

    def odoo(self, *options, command=(), script=None):
        """Run Odoo to its end, with a script for its shell; return what it printed."""
        with self.log.open("a") as log:
            arguments = [*ODOO, *command, *self.options, *map(str, options)]
            result = subprocess.run(
                arguments, input=script, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        if result.returncode or "CRITICAL" in self.log.read_text():
            sys.exit(f"Odoo failed with {' '.join(map(str, options))}, see {self.log}")
        return result.stdout

    @contextlib.contextmanager
    def serve(self, *options):
        """A started server for the time of the block; gives its port."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        arguments = [*ODOO, *self.options, "--http-port", str(port), "--max-cron-threads", "0", *map(str, options)]
        with self.log.open("a") as log:
            process = subprocess.Popen(arguments, env=self.environment, stdout=log, stderr=log)
        self.pid = process.pid
        try:
            while True:
                if process.poll() is not None or time.monotonic() - STARTED > 200:
                    sys.exit(f"Odoo does not answer, see {self.log}")
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def house(purpose, **options):
    """A copy of the template for the time of the block."""
    template = os.environ["BJ_DEV_TEMPLATE"]
    database = f"{template.replace('_addon_', f'_{purpose}_')}_{os.getpid()}"
    with contextlib.closing(connect("postgres")) as connection, connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        try:
            yield House(database, **options)
        finally:
            cursor.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')


def get_facts(cursor):
    """Describe the machine and the software, one fact per line."""
    cpu = next((line.split(":")[1].strip() for line in _read("/proc/cpuinfo") if "model name" in line), "?")
    memory = next((int(line.split()[1]) for line in _read("/proc/meminfo") if "MemTotal" in line), 0)
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "?"
    version = subprocess.run([*ODOO, "--version"], capture_output=True, text=True).stdout.split()[-1]
    cursor.execute("SHOW server_version")
    return "\n".join(
        [
            f"- Machine: {cpu}, {os.cpu_count()} cores, {memory / 2**20:.0f} GB RAM, {platform.system()}",
            f"- Odoo {version}, Python {platform.python_version()}, PostgreSQL {cursor.fetchone()[0].split()[0]}",
            f"- {datetime.date.today()}, commit {commit}, load average {os.getloadavg()[1]:.1f}",
        ]
    )


def _read(path):
    path = Path(path)
    return path.read_text().splitlines() if path.exists() else []
