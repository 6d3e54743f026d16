import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from unittest.mock import patch

import psycopg2

from odoo.modules import module
from odoo.sql_db import db_connect
from odoo.tests import BaseCase, TransactionCase, tagged
from odoo.tools import mute_logger

from ..tools import transaction
from .common_server import OdooServer, database_copy, needs_template
from .receiver import Receiver, Reply


@tagged("-at_install", "post_install")
@needs_template
class TestConcurrency(BaseCase):
    """What a test transaction cannot show: a started server, two workers, requests at the same time."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        database = cls.enterClassContext(database_copy("workers"))
        cls.server = cls.enterClassContext(OdooServer(database, "--workers", "2", "--max-cron-threads", "0"))
        cls.call = cls.server.call

    def at_once(self, count, function):
        with ThreadPoolExecutor(6) as pool:  # what Odoo's queue of connections takes with two workers
            return list(pool.map(function, range(count)))

    def found(self, ref):
        return self.server.sql(f"SELECT count(*) FROM res_partner WHERE ref = '{ref}'")[0][0]

    def test_upserts_of_one_identifier(self):
        """However many create the same identifier, one record is left, and nobody waits at random."""
        started, logged = time.monotonic(), len(self.server.read_log())
        answers = self.at_once(60, lambda n: self.call("POST", "/partners", {"code": "RACE-1", "name": f"Racer {n}"}))
        self.assertEqual(Counter(status for status, _headers, _body in answers), {201: 1, 200: 59})
        self.assertEqual(self.found("RACE-1"), 1)
        log = self.server.read_log()[logged:]
        self.assertNotIn("tries left, try again", log, f"{time.monotonic() - started:.1f} s")

    def test_lists_that_overlap(self):
        """Lists with common identifiers, in any order, neither duplicate nor lock each other out."""

        def send(number):
            codes = [f"LIST-{(number * 7 + place) % 20}" for place in range(12)]
            items = [{"code": code, "name": f"{code} of {number}"} for code in codes]
            return self.call("POST", "/partners", items if number % 2 else items[::-1])

        answers = self.at_once(20, send)
        self.assertLessEqual({status for status, _headers, _body in answers}, {200, 201})
        self.assertEqual([self.found(f"LIST-{number}") for number in range(20)], [1] * 20)

    def test_upserts_by_two_configurations(self):
        """A record is one, whichever configuration of its model it comes by."""

        def send(number):
            payload = {"code": "TWO-1", "name": f"Racer {number}", "is_company": True}
            if number % 2:
                return self.call("POST", "/partners", payload)
            return self.call("POST", "/companies", payload, "demo-token-companies")

        answers = self.at_once(40, send)
        self.assertEqual(Counter(status for status, _headers, _body in answers), {201: 1, 200: 39})
        self.assertEqual(self.found("TWO-1"), 1)

    def test_writes_by_path_and_by_identifier(self):
        """A record is one, whether its database id or its identifier names it."""
        _status, _headers, body = self.call("POST", "/partners", {"code": "WAY-1", "name": "Before"})
        path, logged = f"/partners/{body['data']['id']}", len(self.server.read_log())

        def send(number):
            if number % 2:
                return self.call("POST", "/partners", {"code": "WAY-1", "name": f"Racer {number}"})
            return self.call("PATCH", path, {"name": f"Racer {number}"})

        answers = self.at_once(40, send)
        self.assertEqual(Counter(status for status, _headers, _body in answers), {200: 40})
        self.assertNotIn("tries left, try again", self.server.read_log()[logged:])

    def test_nested_records_that_are_new(self):
        """What several requests create below different records is created once as well."""

        def send(number):
            tags = [{"name": f"Race tag {tag}"} for tag in range(3)]
            return self.call("POST", "/partners", {"code": f"NEST-{number}", "name": "N", "tags": tags})

        answers = self.at_once(30, send)
        self.assertEqual(Counter(status for status, _headers, _body in answers), {201: 30})
        query = "SELECT count(*) FROM res_partner_category WHERE name->>'en_US' LIKE 'Race tag %'"
        self.assertEqual(self.server.sql(query)[0][0], 3)

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

    def test_one_key_of_a_request_that_fails(self):
        """The answer is stored before anybody else may try."""
        for turn in range(15):
            key = {"Idempotency-Key": f"fails-{turn}"}
            answers = self.at_once(
                6, lambda _n, key=key: self.call("POST", "/partners", {"code": "NO", "name": None}, **key)
            )
            worked = [body for status, headers, body in answers if status != 409 and not headers["Idempotent-Replayed"]]
            self.assertEqual([body["code"] for body in worked], [400], answers)

    def test_pull_of_what_is_posted_meanwhile(self):
        """What is created while a page is on its way is found, although the pull began before."""

        def answer(_request):
            self.call("POST", "/partners", {"code": "PULLED-1", "name": "Posted"})
            return Reply(body={"code": "PULLED-1", "name": "Pulled"})

        config_id, model = self.server.find("demo_config_member_pull"), "bj.api.sync.config"
        code, name = (self.server.find(f"field_res_partner__{name}", "base") for name in ("ref", "name"))
        lines = [
            [5],
            [0, 0, {"field_id": code, "external_key": "code", "is_record_identifier": True}],
            [0, 0, {"field_id": name, "external_key": "name"}],
        ]
        with Receiver() as receiver:
            receiver.on("/members", body=answer)
            self.server.rpc("ir.config_parameter", "set_param", "bj_api_sync.allowed_hosts", "127.0.0.1")
            values = {"request_url": f"{receiver.url}/members", "pull_paging": "none", "pull_items_key": False}
            self.server.rpc(model, "write", [config_id], values | {"line_ids": lines})
            self.server.rpc(model, "action_pull", [config_id])
        query = "SELECT name FROM res_partner WHERE ref = 'PULLED-1'"
        self.assertEqual(self.server.sql(query), [("Pulled",)])

    def test_scheduled_push_of_what_somebody_saves(self):
        """Odoo does not do a scheduled action again that meets with a change: the push does by itself."""
        action = {"model_id": self.server.find("model_res_partner", "base"), "state": "bj_api_sync", "name": "Push"}
        config_id = self.server.find("demo_config_partner_out")
        [cron] = self.server.rpc("ir.cron", "create", [action | {"bj_api_sync_config_id": config_id}])
        with closing(psycopg2.connect(dbname=self.server.database)) as connection, ThreadPoolExecutor(1) as pool:
            with connection.cursor() as cr:
                cr.execute("UPDATE res_partner SET comment = 'Saved' WHERE ref IS NOT NULL")
            run = pool.submit(self.server.rpc, "ir.cron", "method_direct_trigger", [cron])
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FOR SHARE'"
            while not self.server.sql(waiting)[0][0]:
                self.assertFalse(run.done())
                time.sleep(0.1)
            connection.commit()
            run.result()
        query = f"SELECT count(*) > 0 FROM bj_api_delivery WHERE config_id = {config_id}"
        self.assertTrue(self.server.sql(query)[0][0])

    def test_reads_are_logged(self):
        """Logs of reads are written by a thread of the worker, within a second."""
        self.call("GET", "/partners?limit=1", **{"X-Request-ID": "read-1"})
        query = "SELECT count(*) FROM bj_api_log WHERE trace_id = 'read-1'"
        for _try in range(30):
            if self.server.sql(query)[0][0]:
                return
            time.sleep(0.1)
        self.fail("no log after three seconds")


@tagged("-at_install", "post_install")
class TestLocks(TransactionCase):
    """Locks on connections of their own."""

    NAME = ("res.partner", "ref", "LOCKED")

    def setUp(self):
        super().setUp()
        self.enterContext(patch.object(module, "current_test", None))  # as in earnest
        self.one, self.other = (self.enterContext(db_connect(self.env.cr.dbname).cursor()) for _ in range(2))

    def count_locks(self):
        self.other.rollback()
        self.other.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = %s",
            [self.one.connection.get_backend_pid()],
        )
        return self.other.fetchone()[0]

    def test_gone_with_the_transaction(self):
        """One for each identifier, for the field of all, and for the key."""
        for end in (self.one.commit, self.one.rollback):
            self.assertTrue(transaction.lock(self.one, [self.NAME, self.NAME, ("res.partner", "ref", 7)], "key"))
            self.assertEqual(self.count_locks(), 4)
            end()
            self.assertEqual(self.count_locks(), 0)
        self.assertTrue(transaction.lock(self.one, []))
        self.assertEqual(self.count_locks(), 0)

    def test_what_comes_behind_is_seen(self):
        """The transaction begins after the wait, not with it."""
        self.one.execute("SELECT pg_current_snapshot()")  # it has begun
        self.other.execute("SELECT pg_current_xact_id()")
        [[number]] = self.other.fetchall()
        self.other.commit()
        transaction.lock(self.one, [self.NAME])
        self.one.execute("SELECT pg_visible_in_snapshot(%s::text::xid8, pg_current_snapshot())", [number])
        self.assertTrue(self.one.fetchone()[0])
        self.one.execute("SHOW transaction_isolation")
        self.assertEqual(self.one.fetchone()[0], "repeatable read")

    def test_lists(self):
        """Lists of different identifiers do not wait for each other, unless one is so large that it locks the field."""
        few, others, many = (
            [("res.partner", "ref", f"{name}{number}") for number in range(count)]
            for name, count in (("a", 200), ("b", 200), ("c", transaction.ONE_BY_ONE + 1))
        )
        self.other.execute("SET lock_timeout = '50ms'")
        self.other.commit()
        transaction.lock(self.one, few)
        self.assertTrue(transaction.lock(self.other, others))
        self.assertTrue(transaction.lock(self.other, [("res.partner", "name", value) for *_, value in many]))
        self.other.rollback()
        for held, wanted in ((few, others[:10] + few[-1:]), (few, many), (many, others), (many, many)):
            self.one.rollback()
            transaction.lock(self.one, held)
            with self.assertRaises(psycopg2.errors.LockNotAvailable), mute_logger("odoo.sql_db"):
                transaction.lock(self.other, wanted)

    def test_key_that_somebody_has(self):
        transaction.lock(self.other, [], "key")
        self.assertFalse(transaction.lock(self.one, [self.NAME], "key"))
        self.assertEqual(self.count_locks(), 0)  # has ended the other's transaction, too
        self.assertTrue(transaction.lock(self.one, [self.NAME], "key"))

    def test_failed_wait_leaves_no_lock(self):
        transaction.lock(self.other, [self.NAME])
        self.one.execute("SET lock_timeout = '50ms'")
        self.one.commit()
        with self.assertRaises(psycopg2.errors.LockNotAvailable), mute_logger("odoo.sql_db"):
            transaction.lock(self.one, [("res.partner", "ref", 7), self.NAME], "key")
        self.assertEqual(self.count_locks(), 0)
