import os
import threading
import time
from datetime import timedelta
from unittest.mock import patch

from cryptography.fernet import Fernet

from odoo import SUPERUSER_ID, api, fields
from odoo.exceptions import AccessError, ValidationError
from odoo.fields import Command
from odoo.modules import module
from odoo.modules.registry import DummyRLock, Registry
from odoo.sql_db import db_connect
from odoo.tests import BaseCase, new_test_user, tagged
from odoo.tools import mute_logger

from ..tools.batch import Batch
from .common import TOKEN, ApiCase
from .test_secret import KeyMixin

BATCH = "odoo.addons.bj_api_sync.tools.batch"


@tagged("post_install", "-at_install")
class TestLog(KeyMixin, ApiCase):
    def setUp(self):
        super().setUp()
        self.record = self.partner_config(
            endpoint="logged-people",
            login="robot",
            password="pass-phrase",
            header_ids=[
                Command.create({"key": "X-Shop", "value": "shop-key-1"}),
                Command.create({"key": "Accept", "value": "application/json"}),
            ],
        )
        self.Log = self.env["bj.api.log"]

    def values(self, **values):
        return {"name": "GET Partners", "status": "success", "config_id": self.record.id} | values

    def logs(self):
        return self.Log.search([("config_id", "=", self.record.id)])

    def set_parameter(self, name, value):
        self.env["ir.config_parameter"].set_param(f"bj_api_sync.{name}", value)

    # what is written

    def test_masked(self):
        log = self.Log._record(
            self.values(
                name=f"GET {TOKEN}",
                url=f"https://robot:pass-phrase@example.com/?token=abc&x={TOKEN}",
                request_headers={
                    "Authorization": "Bearer abc",
                    "X-Shop": "wrong-key",
                    "Accept": "application/json",
                },
                request_body=b'{"name": "Ada", "password": "abc", "note": "my shop-key-1"}',
                response_headers=[("Set-Cookie", "a=abc"), ("Content-Type", "application/json")],
                response_body={"echo": [TOKEN, "cm9ib3Q6cGFzcy1waHJhc2U="]},
                error_message=f"Refused: {TOKEN}",
            )
        )
        self.assertEqual(log.name, "GET ***")
        self.assertEqual(log.url, "https://***@example.com/?token=***&x=***")
        self.assertEqual(log.request_headers, "Authorization: Bearer ***\nX-Shop: ***\nAccept: application/json")
        self.assertEqual(log.request_body, '{"name": "Ada", "password": "***", "note": "my ***"}')
        self.assertEqual(log.response_headers, "Set-Cookie: ***\nContent-Type: application/json")
        self.assertEqual(log.response_body, '{"echo": ["***", "***"]}')
        self.assertEqual(log.error_message, "Refused: ***")

    def test_changed_secrets_are_masked_too(self):
        self.Log._record(self.values())
        self.record.bearer_token = "changed-token"
        self.record.header_ids[0].value = "changed-key"
        log = self.Log._record(self.values(request_body="changed-token changed-key"))
        self.assertEqual(log.request_body, "*** ***")

    def test_another_key_does_not_stop_logging(self):
        self.use_keys(Fernet.generate_key().decode())
        with mute_logger("odoo.addons.bj_api_sync.tools.secret"):
            self.env.invalidate_all()
            log = self.Log._record(self.values(request_headers={"X-Shop": "a", "Authorization": "Basic b"}))
        self.assertEqual(log.request_headers, "X-Shop: ***\nAuthorization: Basic ***")

    def test_given_secrets(self):
        log = self.Log._record(self.values(request_body="given-one", further_secrets=["given-one"]))
        self.assertEqual(log.request_body, "***")

    def test_cut(self):
        self.set_parameter("log_body_limit", "10")
        log = self.Log._record(self.values(response_body=b"0123456789abc"))
        self.assertEqual(log.response_body, "0123456789\n[cut: the whole has 13 bytes]")
        self.set_parameter("log_body_limit", "a typing error")
        self.assertEqual(self.Log._record(self.values(response_body="abc")).response_body, "abc")

    def test_answer_to_a_read_is_kept_in_part(self):
        """What was read is in the database; what was refused, or what others answered, is not."""
        values = {"direction": "in", "method": "GET", "response_body": b"x" * 10_000}
        cases = [({}, 4096), ({"status": "error"}, 10_000), ({"direction": "out"}, 10_000), ({"method": "PUT"}, 10_000)]
        for case, kept in cases:
            with self.subTest(case=case):
                log = self.Log._record(self.values(**values | case))
                self.assertEqual(log.response_body.count("x"), kept)

    def test_errors_reach_automation_rules(self):
        rule = self.env["base.automation"].create(
            {
                "name": "Errors of APIs",
                "model_id": self.env["ir.model"]._get_id("bj.api.log"),
                "trigger": "on_create",
                "filter_domain": "[('status', '=', 'error')]",
            }
        )
        code = "record.write({'error_message': 'noticed'})"
        rule.action_server_ids = [
            Command.create({"name": "Notice", "model_id": rule.model_id.id, "state": "code", "code": code})
        ]
        self.assertEqual(self.Log._record(self.values(status="error")).error_message, "noticed")

    def test_nul_and_binary(self):
        log = self.Log._record(self.values(name="a\0b", request_body="a\0b", response_body=b"\x89PNG\0"))
        self.assertEqual((log.name, log.request_body), ("ab", "ab"))
        self.assertEqual(log.response_body, "[5 bytes that are not text]")

    def test_policy(self):
        for policy, logged in [("all", ["error", "skipped", "success"]), ("errors", ["error"]), ("none", [])]:
            for record in (self.Log._record, self.Log._record_own_cursor, self.Log._record_later):
                with self.subTest(policy=policy, how=record.__name__):
                    self.logs().unlink()
                    self.record.log_policy = policy
                    for status in ("success", "skipped", "error"):
                        record(self.values(status=status))
                    self.assertEqual(sorted(self.logs().mapped("status")), logged)

    def test_defaults(self):
        company = self.env["res.company"].create({"name": "Logged"})
        self.record.user_id.company_ids += company
        self.record.company_id = company
        log = self.Log._record(self.values())
        self.assertEqual((log.company_id, log.user_id), (company, self.env.user))
        self.assertAlmostEqual(log.create_date, fields.Datetime.now(), delta=timedelta(minutes=1))
        self.assertEqual(self.Log._record(self.values(config_id=False)).company_id, self.env.company)

    def test_later(self):
        with self.assertQueryCount(6):
            self.Log._write_batch([self.values(url=f"/{i}") for i in range(50)])
        self.assertEqual(len(self.logs()), 50)
        self.assertEqual(self.logs()[0].company_id, self.env.company)

    def test_later_of_what_is_gone(self):
        gone = self.env["res.users"].browse(2**31 - 1)
        self.Log._write_batch([self.values(user_id=gone.id, config_id=2**31 - 1, trace_id="gone")])
        log = self.Log.search([("trace_id", "=", "gone")])
        self.assertEqual((len(log), log.user_id.id, log.config_id.id), (1, False, False))

    def test_later_on_a_read_only_cursor(self):
        with patch.object(type(self.env.cr), "readonly", True):
            self.Log._record_later(self.values())
            self.Log._record_own_cursor(self.values(status="error"))
        self.assertFalse(self.logs())
        self.Log._flush_later()
        self.assertEqual(self.logs().mapped("status"), ["error", "success"])

    def test_write_costs_one_query(self):
        self.Log._record(self.values())
        self.env.flush_all()
        with self.assertQueryCount(1):
            self.Log._record(self.values(request_body={"a": 1}))
            self.env.flush_all()

    # who may what

    def test_scripts_of_anybody_may_log(self):
        user = new_test_user(self.env, "log_employee", "base.group_user")
        values = self.values(request_body=f'{{"a": "{TOKEN}"}}', user_id=SUPERUSER_ID)
        log = self.Log.with_user(user).create(values)
        self.assertEqual(log.sudo().request_body, '{"a": "***"}')
        self.assertEqual(log.sudo().user_id, user, "who made a log cannot be made up")
        for call in (
            lambda: log.read(["name"]),
            lambda: log.search([]),
            lambda: log.write({"name": "x"}),
            log.unlink,
        ):
            with self.assertRaises(AccessError):
                call()
        with self.assertRaises(AccessError):
            self.Log.with_user(new_test_user(self.env, "log_portal", "base.group_portal")).create(self.values())

    def test_nobody_changes_logs(self):
        log = self.Log._record(self.values())
        manager = new_test_user(self.env, "log_manager", "bj_api_sync.group_manager")
        user = new_test_user(self.env, "log_user", "bj_api_sync.group_user")
        for reader in (manager, user):
            self.assertTrue(log.with_user(reader).read())
            with self.assertRaises(AccessError):
                log.with_user(reader).write({"status": "error"})
        with self.assertRaises(AccessError):
            log.with_user(user).unlink()
        log.with_user(manager).unlink()

    def test_companies(self):
        ours, theirs = self.env.company, self.env["res.company"].create({"name": "Theirs"})
        shared = self.partner_config(endpoint="shared-people", company_id=False)
        foreign = self.partner_config(endpoint="foreign-people", company_id=False)
        self.env.cr.execute("UPDATE bj_api_sync_config SET company_id = %s WHERE id = %s", [theirs.id, foreign.id])
        self.env.invalidate_all()
        visible = {
            "ours": self.Log.create(self.values(company_id=ours.id)),
            "shared": self.Log.create(self.values(config_id=shared.id, company_id=False)),
            "nobody's": self.Log.create(self.values(config_id=False, company_id=False)),
        }
        hidden = {
            "theirs": self.Log.create(self.values(company_id=theirs.id)),
            "of their configuration": self.Log.create(self.values(config_id=foreign.id, company_id=False)),
        }
        user = new_test_user(self.env, "log_company", "bj_api_sync.group_user", company_ids=[Command.set(ours.ids)])
        mine = self.Log.with_user(user).search([])
        for name, log in visible.items():
            self.assertIn(log, mine, name)
        for name, log in hidden.items():
            self.assertNotIn(log, mine, name)

    # what is shown

    def test_pretty(self):
        log = self.Log._record(self.values(request_body='{"a":[1]}', response_body="<a><b>é</b></a>"))
        self.assertEqual(log.request_body_pretty, '{\n  "a": [\n    1\n  ]\n}')
        self.assertEqual(log.response_body_pretty, "<a>\n  <b>é</b>\n</a>\n")
        for text in (
            "{not JSON",
            "<not XML",
            "plain",
            '{"a": 1}\n[cut: the whole has 99 bytes]',
            "[" * 100_000,
        ):
            log = self.Log._record(self.values(request_body=text))
            self.assertEqual(log.request_body_pretty, log.request_body)

    def test_error_summary(self):
        for message, summary in [
            ("first\nsecond", "first"),
            ("Traceback (most recent call last):\n  File\nKeyError: 'x'\n", "KeyError: 'x'"),
            (False, False),
        ]:
            self.assertEqual(self.Log._record(self.values(error_message=message)).error_summary or False, summary)

    def test_record(self):
        partner = self.env["res.partner"].create({"name": "Logged Partner"})
        log = self.Log._record(self.values(model="res.partner", record_id=partner.id))
        self.assertEqual(log.record_name, "Logged Partner")
        self.assertEqual(log.action_open_record()["res_id"], partner.id)
        partner.unlink()
        self.assertFalse(log.record_exists)
        self.assertFalse(log.action_open_record())
        self.assertFalse(self.Log._record(self.values(model="no.such.model", record_id=1)).record_exists)

    # retention

    def test_retention(self):
        days = {"old": 91, "young": 89}
        logs = {
            name: self.Log._record(self.values(create_date=fields.Datetime.now() - timedelta(days=age)))
            for name, age in days.items()
        }
        self.set_parameter("log_retention_days", "0")
        self.assertEqual(self.Log._gc_logs(), (0, 0))
        self.set_parameter("log_retention_days", "90")
        with patch("odoo.addons.bj_api_sync.models.bj_api_log.GC_UNLINK_LIMIT", 1):
            done, remaining = self.Log._gc_logs()
        self.assertEqual((done, bool(remaining)), (1, True))
        while remaining:
            done, remaining = self.Log._gc_logs()
        self.assertFalse(logs["old"].exists())
        self.assertTrue(logs["young"].exists())

    def test_settings(self):
        Settings = self.env["res.config.settings"]
        self.set_parameter("log_retention_days", "90")
        self.assertEqual(Settings.create({}).bj_api_sync_log_retention_days, 90)
        Settings.create({"bj_api_sync_log_retention_days": 0, "bj_api_sync_allowed_hosts": " a.internal "}).execute()
        get_param = self.env["ir.config_parameter"].get_param
        self.assertEqual(get_param("bj_api_sync.log_retention_days"), "0")
        self.assertEqual(get_param("bj_api_sync.allowed_hosts"), "a.internal")
        self.assertEqual(Settings.create({}).bj_api_sync_log_retention_days, 0)
        with self.assertRaises(ValidationError):
            Settings.create({"bj_api_sync_log_body_limit": -1})
        self.assertEqual(Settings.create({}).action_bj_api_sync_rotate_secrets()["tag"], "display_notification")


@tagged("post_install", "-at_install")
class TestLogCursors(ApiCase):
    """Logs on real cursors of their own: found and deleted by their trace id, for they are committed."""

    TRACE = "test-log-cursors"

    def setUp(self):
        super().setUp()
        self.startPatcher(patch.object(module, "current_test", None))
        self.startPatcher(patch.object(Registry, "_lock", DummyRLock()))  # held while tests run
        self.addCleanup(self.committed, delete=True)
        self.values = {
            "name": "Real",
            "status": "success",
            "trace_id": self.TRACE,
            "request_body": '{"token": "a"}',
        }

    def committed(self, delete=False):
        with db_connect(self.env.cr.dbname).cursor() as cr:
            logs = api.Environment(cr, SUPERUSER_ID, {})["bj.api.log"].search([("trace_id", "=", self.TRACE)])
            found = logs.mapped("request_body")
            if delete:
                logs.unlink()
            return found

    def test_own_cursor_survives_rollback(self):
        self.env["bj.api.log"]._record_own_cursor(self.values)
        self.assertEqual(self.committed(), ['{"token": "***"}'])

    def test_own_cursor_does_not_know_a_new_configuration(self):
        config = self.partner_config(endpoint="uncommitted-people")
        log = self.env["bj.api.log"]._record_own_cursor(self.values | {"config_id": config.id})
        self.assertEqual(log.config_id, config)
        self.assertFalse(self.committed())

    def test_batch_is_written_within_half_a_second(self):
        for _ in range(3):
            self.env["bj.api.log"]._record_later(self.values)
        self.assertFalse(self.committed(), "the request does not wait")
        time.sleep(0.6)
        deadline = time.monotonic() + 10
        while len(self.committed()) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(self.committed(), ['{"token": "***"}'] * 3)

    def test_flush(self):
        self.env["bj.api.log"]._record_later(self.values | {"request_body": "x" * 2_000_000})
        self.env["bj.api.log"]._flush_later()
        self.assertTrue(self.committed()[0].endswith("[cut: the whole has 2000000 bytes]"))

    @mute_logger(BATCH, "odoo.sql_db")
    def test_failing_batch_raises_nothing(self):
        self.env["bj.api.log"]._record_later(self.values | {"status": "no such status"})
        self.env["bj.api.log"]._flush_later()
        self.assertFalse(self.committed())


class TestBatch(BaseCase):
    def setUp(self):
        super().setUp()
        self.written, self.event = [], threading.Event()

    def collect(self, rows):
        self.written.append(rows)
        self.event.set()

    def test_rows_of_a_moment_go_together(self):
        batch = Batch(self.collect, delay=0.2)
        start = time.monotonic()
        for i in range(5):
            batch.add(i)
        self.assertTrue(self.event.wait(10))
        self.assertGreaterEqual(time.monotonic() - start, 0.15)
        self.assertEqual(self.written, [[0, 1, 2, 3, 4]])

    def test_many_rows_do_not_wait(self):
        batch = Batch(self.collect, delay=60, size=3)
        for i in range(3):
            batch.add(i)
        self.assertTrue(self.event.wait(10))
        batch.flush()
        self.assertEqual([row for rows in self.written for row in rows], [0, 1, 2])

    def test_full_queue_is_written_by_who_fills_it(self):
        batch = Batch(self.collect, delay=60, size=99, bound=4)
        for i in range(4):
            batch.add(i)
        self.assertEqual(self.written, [[0, 1, 2, 3]])

    def test_second_try(self):
        tries = []

        def write(rows):
            tries.append(rows)
            if len(tries) < 2:
                raise OSError("gone")

        batch = Batch(write, delay=60)
        batch.add(1)
        with self.assertLogs(BATCH, "ERROR") as logs:
            batch.flush()
        self.assertEqual(tries, [[1], [1]])
        self.assertEqual(len(logs.output), 1)

    def test_giving_up_is_said(self):
        batch = Batch(lambda rows: 1 / 0, delay=60)
        batch.add(1)
        with self.assertLogs(BATCH, "ERROR") as logs:
            batch.flush()
        self.assertIn("given up", logs.output[-1])
        batch.flush()

    def test_threads(self):
        batch = Batch(self.collect, delay=0.01, size=10, bound=50)
        threads = [threading.Thread(target=lambda: [batch.add(1) for _ in range(500)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        batch.flush()
        self.assertEqual(sum(map(len, self.written)), 2000)

    def test_a_fork_writes_its_own_rows_only(self):
        reading, writing = os.pipe()
        batch = Batch(lambda rows: os.write(writing, f"{os.getpid()}:{rows} ".encode()), delay=0.2)
        batch.add("parent")
        pid = os.fork()
        if not pid:  # as a worker does that was forked while the parent had rows
            try:
                batch.add("child")
                time.sleep(1)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        batch.flush()
        os.close(writing)
        with open(reading, encoding="ascii") as file:
            self.assertEqual(set(file.read().split()), {f"{os.getpid()}:['parent']", f"{pid}:['child']"})
