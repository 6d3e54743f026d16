"""What the benchmarks share: a database of their own, Odoo run on it, and the facts of the machine.

`./dev bench` tells by environment variables how to start Odoo and which database to copy.
"""

import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from common_server import database_copy, free_port

ROOT = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("BJ_DEV_CACHE") or ROOT.parent / ".dev").expanduser().resolve()  # as ./dev has it
ODOO = json.loads(os.environ["BJ_DEV_ODOO"])
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
        server = json.loads(os.environ["BJ_DEV_DB_ARGS"])
        self.options = ["-d", database, *server, "--addons-path", addons_path]
        self.environment = os.environ | {"PYTHONPATH": str(pythonpath)}

    def odoo(self, *options, command=(), script=None):
        """Run Odoo to its end, with a script for its shell; return what it printed."""
        with self.log.open("a") as log:
            start = log.tell()
            arguments = [*ODOO, *command, *self.options, *map(str, options)]
            result = subprocess.run(
                arguments, input=script, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        if result.returncode or b"CRITICAL" in self.log.read_bytes()[start:]:
            sys.exit(f"Odoo failed with {' '.join(map(str, options))}, see {self.log}")
        return result.stdout

    @contextlib.contextmanager
    def serve(self, *options, is_supervised=False):
        """A started server for the time of the block; gives its port.

        With worker processes Odoo ends itself when it wants to start one while PostgreSQL is away: what keeps services
        running, such as systemd, then starts it again, and so does this one if it is supervised.
        """
        port, gevent_port = free_port(), free_port()
        arguments = [*ODOO, *self.options, "--http-port", str(port), "--gevent-port", str(gevent_port)]
        arguments += ["--max-cron-threads", "0", *map(str, options)]
        deadline = time.monotonic() + 200
        process = self._start(arguments)
        self.pid, done = process.pid, threading.Event()

        def supervise():
            nonlocal process
            while not done.wait(1):
                if process.poll() is not None:
                    say("a server ended itself, and is started again")
                    process = self._start(arguments)

        supervisor = threading.Thread(target=supervise)
        try:
            while True:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"Odoo does not answer, see {self.log}")
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            if is_supervised:
                supervisor.start()
            yield port
        finally:
            done.set()
            if supervisor.ident:
                supervisor.join()
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, arguments):
        with self.log.open("a") as log:
            return subprocess.Popen(arguments, env=self.environment, stdout=log, stderr=log)


@contextlib.contextmanager
def house(purpose, **options):
    """A copy of the template for the time of the block."""
    with database_copy(purpose) as database:
        yield House(database, **options)


#: a server whose workers do the jobs of OCA's queue_job, and its runner
JOB_OPTIONS = ("--workers", "4", "--max-cron-threads", "1", "--load", "base,rpc,web,queue_job")
JOB_ENVIRONMENT = {"ODOO_QUEUE_JOB_CHANNELS": "root:4"}


def install_queue_job():
    """Fetch OCA's queue_job into a folder of the cache, once; return what a house with it needs."""
    folder = CACHE / "bench-queue_job"
    if not (folder / "complete").exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--upgrade", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, "odoo-addon-queue_job==19.0.*", "openupgradelib"], check=True)
        (folder / "complete").touch()
    return {"addons": [ROOT / "addons", folder / "odoo/addons"], "pythonpath": folder}


class Cluster:
    """A PostgreSQL server of its own, that may be killed.

    What is committed has been written to its files by then; not to the disk, because it is processes that are
    killed here, and not the machine.
    """

    SETTINGS = ("listen_addresses=", "synchronous_commit=on", "fsync=off", "max_connections=200")

    def __init__(self, folder):
        self.folder, self.data = Path(folder), Path(folder) / "data"
        self.data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self.data, "nobody")
        options = ["--username=odoo", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        command = [*self.program("initdb"), "-D", self.data, *options]
        subprocess.run(command, cwd="/", stdout=subprocess.DEVNULL, check=True)

    @staticmethod
    def program(name):
        *prefix, path = json.loads(os.environ["BJ_DEV_POSTGRES"])
        return [*prefix, str(Path(path).with_name(name))]

    def start(self):
        settings = [part for setting in self.SETTINGS for part in ("-c", setting)]
        command = [*self.program("postgres"), "-D", self.data, "-k", self.folder, *settings]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, cwd="/", stdout=log, stderr=log)
        self.wait()

    def wait(self):
        """Wait until it can be worked with."""
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(psycopg2.OperationalError):
                return psycopg2.connect(dbname="postgres", host=str(self.folder), user="odoo").close()
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit(f"PostgreSQL does not start: {(self.folder / 'log').read_text()[-500:]}")
            time.sleep(0.05)

    def stop(self, signum=signal.SIGINT):
        """End it: SIGINT in order, SIGQUIT at once, SIGKILL without its knowledge."""
        self.process.send_signal(signum)
        self.process.wait(60)

    def copy(self, database):
        """Fetch a database from the server that is used until now."""
        dump = [self.program("pg_dump")[-1], "--no-owner", database]
        load = [self.program("psql")[-1], "-q", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-U", "odoo", "-d"]
        subprocess.run([*load, "postgres", "-c", f'CREATE DATABASE "{database}"'], check=True)
        with subprocess.Popen(dump, stdout=subprocess.PIPE) as source:
            subprocess.run([*load, database], stdin=source.stdout, stdout=subprocess.DEVNULL, check=True)


@contextlib.contextmanager
def own_cluster():
    """A PostgreSQL server of our own with a copy of the template, for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="bj_chaos_") as folder:
        cluster = Cluster(folder)
        cluster.start()
        try:
            cluster.copy(os.environ["BJ_DEV_TEMPLATE"])
            os.environ |= {"PGHOST": folder, "PGPORT": "5432", "PGUSER": "odoo"}
            os.environ["BJ_DEV_DB_ARGS"] = json.dumps([f"--db_host={folder}", "--db_port=5432", "--db_user=odoo"])
            yield cluster
        finally:
            cluster.stop(signal.SIGQUIT)


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
