import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
import unittest
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import psycopg2

from odoo.tests import BaseCase, tagged

TOKEN = "demo-token-partners"


@tagged("-at_install", "post_install")
@unittest.skipUnless("BJ_DEV_TEMPLATE" in os.environ, "./dev test tells which database to copy")
class TestConcurrency(BaseCase):
    """What a test transaction cannot show: a started server, two workers, requests at the same time."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        template = os.environ["BJ_DEV_TEMPLATE"]
        cls.database = f"{template}_workers_{os.getpid()}"
        cls.sql(f'CREATE DATABASE "{cls.database}" TEMPLATE "{template}"')
        cls.addClassCleanup(cls.sql, f'DROP DATABASE IF EXISTS "{cls.database}" WITH (FORCE)')
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            cls.port = probe.getsockname()[1]
        odoo, arguments = (json.loads(os.environ[name]) for name in ("BJ_DEV_ODOO", "BJ_DEV_DB_ARGS"))
        options = ["-d", cls.database, *arguments, "--addons-path", os.environ["BJ_DEV_ADDONS"], "--workers", "2"]
        options += ["--http-port", str(cls.port), "--max-cron-threads", "0"]
        cls.log = cls.enterClassContext(tempfile.TemporaryFile())
        cls.process = subprocess.Popen([*odoo, *options], stdout=cls.log, stderr=cls.log)
        cls.addClassCleanup(cls.stop)
        cls.wait()

    @classmethod
    def stop(cls):
        cls.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            cls.process.wait(20)
        cls.process.kill()
        cls.process.wait()

    @classmethod
    def wait(cls):
        for _second in range(120):
            with suppress(OSError, http.client.HTTPException):
                if cls.call("GET", "/partners?limit=1")[0] == 200:
                    return
            time.sleep(0.5)
        cls.log.seek(0)
        raise AssertionError(cls.log.read()[-2000:].decode(errors="replace"))

    @classmethod
    def sql(cls, query, database="postgres"):
        with closing(psycopg2.connect(dbname=database)) as connection:
            connection.autocommit = True
            with connection.cursor() as cr:
                cr.execute(query)
                return cr.fetchall() if cr.description else None

    @classmethod
    def call(cls, method, path, payload=None, **headers):
        """Send one request on a connection of its own; return status, headers and body."""
        headers |= {"Authorization": f"Bearer {TOKEN}", "X-Odoo-Database": cls.database}
        if payload is not None:
            headers["Content-Type"] = "application/json"
        with closing(http.client.HTTPConnection("127.0.0.1", cls.port, timeout=60)) as connection:
            body = json.dumps(payload) if payload is not None else None
            connection.request(method, f"/bj_api_sync/v1{path}", body, headers)
            response = connection.getresponse()
            return response.status, response.headers, json.loads(response.read() or "null")

    def at_once(self, count, function):
        with ThreadPoolExecutor(6) as pool:  # what Odoo's queue of connections takes with two workers
            return list(pool.map(function, range(count)))

    def found(self, ref):
        return self.sql(f"SELECT count(*) FROM res_partner WHERE ref = '{ref}'", self.database)[0][0]

    def test_upserts_of_one_identifier(self):
        """However many create the same identifier, one record is left, and nobody waits at random."""
        started = time.monotonic()
        answers = self.at_once(60, lambda n: self.call("POST", "/partners", {"code": "RACE-1", "name": f"Racer {n}"}))
        self.assertEqual(Counter(status for status, _headers, _body in answers), {201: 1, 200: 59})
        self.assertEqual(self.found("RACE-1"), 1)
        self.log.seek(0)
        self.assertNotIn(b"tries left, try again", self.log.read(), f"{time.monotonic() - started:.1f} s")

    def test_lists_that_overlap(self):
        """Lists with common identifiers, in any order, neither duplicate nor lock each other out."""

        def send(number):
            codes = [f"LIST-{(number * 7 + place) % 20}" for place in range(12)]
            items = [{"code": code, "name": f"{code} of {number}"} for code in codes]
            return self.call("POST", "/partners", items if number % 2 else items[::-1])

        answers = self.at_once(20, send)
        self.assertLessEqual({status for status, _headers, _body in answers}, {200, 201})
        self.assertEqual([self.found(f"LIST-{number}") for number in range(20)], [1] * 20)

    def test_one_idempotency_key(self):
        """Of the same request sent at once one is done; the others get its answer, or are told to come back."""

        def send(_number):
            return self.call("POST", "/partners", {"name": "Once", "code": "ONCE-1"}, **{"Idempotency-Key": "once"})

        answers = self.at_once(30, send)
        done = [body for status, headers, body in answers if status == 201 and "Idempotent-Replayed" not in headers]
        self.assertEqual(len(done), 1)
        for status, headers, body in answers:
            if status == 409:
                self.assertTrue(headers["Retry-After"])
            else:
                self.assertEqual((status, body), (201, done[0]))
        self.assertEqual(self.found("ONCE-1"), 1)

    def test_lost_update(self):
        """Of those who change the same version of a record one succeeds."""
        _status, _headers, body = self.call("POST", "/partners", {"code": "ETAG-1", "name": "Before"})
        path = f"/partners/{body['data']['id']}"
        etag = self.call("GET", path)[1]["ETag"]
        answers = self.at_once(12, lambda n: self.call("PATCH", path, {"name": f"After {n}"}, **{"If-Match": etag}))
        self.assertEqual(Counter(status for status, _headers, _body in answers), {200: 1, 412: 11})

    def test_reads_are_logged(self):
        """Logs of reads are written by a thread of the worker, within a second."""
        self.call("GET", "/partners?limit=1", **{"X-Request-ID": "read-1"})
        query = "SELECT count(*) FROM bj_api_log WHERE trace_id = 'read-1'"
        for _try in range(30):
            if self.sql(query, self.database)[0][0]:
                return
            time.sleep(0.1)
        self.fail("no log after three seconds")
