import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
import unittest
from contextlib import closing, contextmanager, suppress

import psycopg2

TOKEN = "demo-token-partners"
needs_template = unittest.skipUnless("BJ_DEV_TEMPLATE" in os.environ, "./dev test tells which database to copy")


def sql(query, database="postgres"):
    """Run SQL and commit it; return the rows."""
    with closing(psycopg2.connect(dbname=database)) as connection:
        connection.autocommit = True
        with connection.cursor() as cr:
            cr.execute(query)
            return cr.fetchall() if cr.description else None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def database_copy(name):
    """A copy of the template, with the addon and its demo data, for the time of the block."""
    template = os.environ["BJ_DEV_TEMPLATE"]
    # ./dev test drops those whose process was killed
    database = f"{template.replace('_addon_', '_test_')}_{name}_{os.getpid()}"
    sql(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
    try:
        yield database
    finally:
        sql(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')


class OdooServer:
    """A started Odoo on a database, for the time of a block."""

    def __init__(self, database, *options, port=None):
        self.database, self.options, self.port = database, options, port or free_port()

    def __enter__(self):
        self.log = tempfile.TemporaryFile()
        odoo, arguments = (json.loads(os.environ[name]) for name in ("BJ_DEV_ODOO", "BJ_DEV_DB_ARGS"))
        options = ["-d", self.database, *arguments, "--addons-path", os.environ["BJ_DEV_ADDONS"], *self.options]
        command = [*odoo, *options, "--http-port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        try:
            self.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info):
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()
        self.process.wait()
        self.log.close()

    def wait(self):
        for _second in range(120):
            with suppress(OSError, http.client.HTTPException):
                if self.call("GET", "/partners?limit=1")[0] == 200:
                    return
            time.sleep(0.5)
        raise AssertionError(self.read_log()[-2000:])

    def read_log(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def sql(self, query):
        return sql(query, self.database)

    def rpc(self, model, method, *args, **options):
        """Call a method of a model as the administrator."""
        arguments = [self.database, 2, "admin", model, method, args, options]
        params = {"service": "object", "method": "execute_kw", "args": arguments}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/jsonrpc", json.dumps({"jsonrpc": "2.0", "params": params}), headers)
            answer = json.loads(connection.getresponse().read())
        if "error" in answer:
            raise AssertionError(answer["error"]["data"]["debug"])
        return answer.get("result")

    def find(self, name, module="bj_api_sync"):
        """Return the id of a record of the demo data, or of another module."""
        return self.rpc("ir.model.data", "check_object_reference", module, name)[1]

    def send_to(self, receiver, **values):
        """Let the demo's push of partners go to ``/in`` of a receiver."""
        self.rpc("ir.config_parameter", "set_param", "bj_api_sync.allowed_hosts", "127.0.0.1")
        values = {"request_url": f"{receiver.url}/in", **values}
        self.rpc("bj.api.sync.config", "write", [self.find("demo_config_partner_out")], values)

    def push(self, refs):
        """Create partners and push them with the demo's server action; return their ids."""
        ids = self.rpc("res.partner", "create", [{"name": f"Partner {ref}", "ref": ref} for ref in refs])
        context = {"active_model": "res.partner", "active_ids": ids, "active_id": ids[0]}
        self.rpc("ir.actions.server", "run", [self.find("demo_action_push_partner")], context=context)
        return ids

    def call(self, method, path, payload=None, token=TOKEN, **headers):
        """Send one request on a connection of its own; return status, headers and body."""
        headers |= {"Authorization": f"Bearer {token}", "X-Odoo-Database": self.database}
        if payload is not None:
            headers["Content-Type"] = "application/json"
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            body = json.dumps(payload) if payload is not None else None
            connection.request(method, f"/bj_api_sync/v1{path}", body, headers)
            response = connection.getresponse()
            return response.status, response.headers, json.loads(response.read() or "null")
