import threading
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from math import ceil
from types import SimpleNamespace
from unittest.mock import Mock, patch

from cryptography.fernet import Fernet
from psycopg2 import DatabaseError, InterfaceError, OperationalError

from odoo.exceptions import AccessError, UserError
from odoo.fields import Command
from odoo.modules import module
from odoo.tests import BaseCase, new_test_user, tagged
from odoo.tools import config as odoo_config
from odoo.tools import mute_logger

from ..models import bj_api_dispatcher
from ..models.bj_api_dispatcher import LEASE, _Run
from ..tools import backoff, secret
from ..tools.lanes import Lanes, ring
from ..tools.transaction import bookkeeping
from .common_outbound import OutboundCase


class DeliveryCase(OutboundCase):
    """Deliveries are queued, and sent in the test's own transaction."""

    def setUp(self):
        super().setUp()
        self.enterContext(patch.object(backoff.random, "uniform", return_value=0))

    def enqueue(self, records=None, config=None, operation="write"):
        return (config or self.config)._enqueue(self.partner if records is None else records, operation)

    def dispatch(self):
        self.env["bj.api.delivery"]._cron_dispatch()

    def pass_time(self, seconds=30 * 3600):
        """Let what waits be due."""
        self.env.flush_all()
        interval = f"{seconds} seconds"
        self.env.cr.execute("UPDATE bj_api_delivery SET next_attempt = next_attempt - %s::interval", [interval])
        self.env.cr.execute(
            "UPDATE bj_api_target SET paused_until = paused_until - %s::interval,"
            " probe_until = probe_until - %s::interval",
            [interval, interval],
        )
        self.env.invalidate_all()

    def get_wait(self, delivery):
        """Return the seconds until the next attempt, rounded."""
        return round((delivery.next_attempt - datetime.now(timezone.utc).replace(tzinfo=None)).total_seconds())

    def make_rule(self, action, trigger="on_create_or_write", fields=("name",), **values):
        """An automation rule that runs a server action when some fields change."""
        watched = [Command.link(self.env["ir.model.fields"]._get("res.partner", name).id) for name in fields]
        return self.env["base.automation"].create(
            {
                "name": "Push",
                "model_id": self.config.model_id.id,
                "trigger": trigger,
                "trigger_field_ids": watched if "write" in trigger else [],
                "action_server_ids": [Command.link(action.id)],
                **values,
            }
        )

    def make_action(self, config=None):
        config = config or self.config
        return self.env["ir.actions.server"].create(
            {
                "name": "Push",
                "model_id": config.model_id.id,
                "state": "bj_api_sync",
                "bj_api_sync_config_id": config.id,
            }
        )


@tagged("post_install", "-at_install")
class TestQueue(DeliveryCase):
    """What is queued, and when."""

    def test_payload_as_of_then(self):
        delivery = self.enqueue()
        self.partner.name = "Later"
        self.assertEqual((delivery.state, delivery.method, delivery.record_id), ("pending", "POST", self.partner.id))
        self.assertFalse(self.receiver.requests)
        self.dispatch()
        self.assertEqual(self.receiver.requests[0].json["name"], "Partner 1")
        self.assertEqual((delivery.state, delivery.last_code, delivery.attempt_count), ("sent", 200, 1))
        self.assertTrue(delivery.done_date)
        self.assertEqual(self.receiver.requests[0].headers["idempotency-key"], delivery.idempotency_key)

    def test_attempts_and_logs(self):
        delivery = self.enqueue()
        self.dispatch()
        self.assertEqual(delivery.attempt_ids.mapped("code"), [200])
        log = self.logs()
        self.assertEqual((log.delivery_id, log.trace_id), (delivery, delivery.idempotency_key))
        self.assertEqual((log.status, log.record_id, log.user_id), ("success", self.partner.id, self.env.user))

    def test_secrets_are_added_when_sending(self):
        self.config.write({"authorization_type": "bearer", "bearer_token": "first"})
        self.enqueue()
        self.config.bearer_token = "second"
        self.dispatch()
        self.assertEqual(self.receiver.requests[0].headers["authorization"], "Bearer second")
        self.env.cr.execute("SELECT d::text FROM bj_api_delivery AS d")
        self.assertNotIn("first", str(self.env.cr.fetchall()))

    def test_domain_and_archived(self):
        self.config.filter_domain = "[('ref', '=', 'P2')]"
        deliveries = self.enqueue(self.partners)
        self.assertEqual(deliveries.mapped("record_id"), self.partners[1].ids)
        self.assertEqual(self.logs().mapped("status"), ["skipped"] * 4)
        self.config.active = False
        self.assertFalse(self.enqueue(self.partners))
        self.dispatch()
        self.assertFalse(self.receiver.requests)
        self.config.active = True
        self.dispatch()
        self.assertEqual(len(self.receiver.requests), 1)

    def test_lists(self):
        self.config.write({"is_paginated": True, "page_size": 2})
        deliveries = self.enqueue(self.partners)
        self.assertEqual(deliveries.mapped("record_count"), [2, 2, 1])
        self.dispatch()
        self.assertEqual(sorted(len(request.json) for request in self.receiver.requests), [1, 2, 2])
        self.assertEqual(deliveries.mapped("state"), ["sent"] * 3)

    def test_what_cannot_be_sent_is_kept(self):
        self.config.request_url = f"{self.receiver.url}/{{code}}"
        self.partner.ref = False
        deliveries = self.enqueue(self.partners[:2])
        self.assertEqual(deliveries.mapped("state"), ["dead", "pending"])
        self.assertIn("{code}", deliveries[0].last_error)
        self.assertTrue(self.config.activity_ids)

    def test_configuration_that_does_not_fit_any_more(self):
        """Who saves a record does not suffer from it; the responsible user is told."""
        other = self.env["res.company"].create({"name": "Other"})
        self.make_rule(self.make_action())
        for query, values in (
            ("filter_domain = %s", ["[('x_gone', '=', 1)]"]),
            ("filter_domain = %s", ["[('id', '=', 1 / 0)]"]),
            ("filter_domain = '[]', company_id = %s", other.ids),
        ):
            with self.subTest(values=values):
                self.config.activity_ids.unlink()
                self.env.flush_all()
                self.env.cr.execute(f"UPDATE bj_api_sync_config SET {query} WHERE id = %s", [*values, self.config.id])
                self.env.invalidate_all()
                self.partner.name = f"Saved {values}"
                self.env.cr.flush()
                self.assertFalse(self.env["bj.api.delivery"].search([]))
                self.assertEqual((self.logs()[-1].status, self.logs()[-1].record_id), ("error", self.partner.id))
                self.assertEqual(self.config.activity_ids.summary, "Records are not sent")
                result = self.push()
                self.assertFalse(result.success)
                self.assertIn("Partners out", result.error)

    def test_configuration_that_does_not_send_any_more(self):
        """Who saves or deletes a record does not suffer from it, and what waits goes on waiting."""
        waiting = self.enqueue(self.partners[1])
        self.make_rule(self.make_action())
        self.make_rule(self.make_action(), "on_unlink")
        self.env.cr.execute("UPDATE res_partner SET create_date = '2020-01-01' WHERE id = ANY(%s)", [self.partners.ids])
        self.partners.invalidate_recordset()
        country = self.env["ir.model"]._get_id("res.country")
        methods = self.env["bj.http.method"].search([]).ids
        for partner, values in (
            (self.partners[2], {"request_type": "in", "endpoint": "test", "http_method_ids": [Command.set(methods)]}),
            (self.partners[3], {"line_ids": False, "model_id": country}),
        ):
            with self.subTest(values=values), self.env.cr.savepoint() as savepoint:
                self.config.write(values)
                partner.name = "Saved"
                self.env.cr.flush()
                partner.unlink()
                self.assertEqual(self.env["bj.api.delivery"].search([]), waiting)
                self.assertEqual(self.logs().mapped("status"), ["skipped"] * 2)
                self.assertIn("inbound or of another model", self.logs()[0].error_message)
                savepoint.rollback()
        self.config.write({"request_type": "in", "endpoint": "test"})
        self.dispatch()
        self.assertEqual(waiting.state, "pending")
        self.config.request_type = "out"
        self.dispatch()
        self.assertEqual(waiting.state, "sent")

    def test_script_whose_data_is_no_json(self):
        deep = "x = []\nfor i in range(5000):\n    x = [x]\nrequest_data['a'] = x"
        for script in ("request_data['a'] = request_data", deep, "request_data['a'] = {(1, 2): 3}"):
            config = self.make_config(name=script)
            config.line_ids = [
                Command.create({"value_type": "script", "script_mode": "exec", "script": code, "sequence": sequence})
                for sequence, code in enumerate((script, "request_data['b'] = 1"))
            ]
            delivery = self.enqueue(config=config)
            self.assertEqual(delivery.state, "dead", script)
            self.assertIn("no JSON", delivery.last_error)

    def test_script_that_writes_its_own_record(self):
        """A rule without fields to watch is not started by it."""
        field = self.env["ir.model.fields"]._get("res.partner", "comment").id
        script = "record.write({'comment': str(time.time())}) and 'written'"
        line = {"external_key": "odd", "field_id": field, "value_type": "script", "script": script}
        self.config.line_ids = [Command.create(line)]
        self.make_rule(self.make_action(), fields=())
        self.partner.name = "Changed"
        self.env.cr.flush()
        self.assertEqual(len(self.env["bj.api.delivery"].search([])), 1)
        self.assertTrue(self.partner.comment)

    def test_rule_queues_once_per_transaction(self):
        self.make_rule(self.make_action(), fields=("name", "city"))
        self.partners.write({"name": "Changed"})
        self.partner.city = "Linz"
        deliveries = self.env["bj.api.delivery"]
        self.assertFalse(deliveries.search([]))
        self.env.cr.flush()
        found = deliveries.search([], order="id")
        self.assertEqual(found.mapped("record_id"), self.partners.ids)
        self.assertEqual(set(found.mapped("operation")), {"write"})
        self.dispatch()
        self.assertEqual({request.json["address"]["city"] for request in self.receiver.requests}, {"Graz", "Linz"})

    def test_rolled_back_savepoint(self):
        self.make_rule(self.make_action())
        with self.assertRaises(ZeroDivisionError), self.env.cr.savepoint():
            self.partner.name = "Ghost"
            raise ZeroDivisionError
        self.env.cr.flush()
        self.assertFalse(self.env["bj.api.delivery"].search([]))

    def test_creation_and_deletion(self):
        action = self.make_action()
        self.make_rule(action)
        self.make_rule(self.make_action(), trigger="on_unlink")
        partner = self.partner.create({"name": "New", "ref": "N"})
        self.env.cr.flush()
        self.assertEqual(self.env["bj.api.delivery"].search([]).operation, "create")
        partner.unlink()  # created in this very transaction: nobody knows it
        self.env.cr.execute("UPDATE res_partner SET create_date = '2020-01-01' WHERE id = %s", self.partner.ids)
        self.partner.invalidate_recordset()
        self.partner.unlink()
        deletion = self.env["bj.api.delivery"].search([("operation", "=", "unlink")])
        self.dispatch()
        self.assertEqual([request.json["code"] for request in self.receiver.requests], ["N", "P1"])
        self.assertEqual(deletion.state, "sent")

    def test_rule_and_read_back_do_not_loop(self):
        self.read_back(self.config, barcode="id")
        self.make_rule(self.make_action(), fields=("name", "barcode"))
        self.partner.name = "Changed"
        self.env.cr.flush()
        self.dispatch()
        self.assertTrue(self.partner.barcode)
        self.env.cr.flush()
        self.dispatch()
        self.assertEqual(len(self.receiver.requests), 1)

    def test_read_back_of_a_list(self):
        self.config.write({"is_paginated": True})
        self.read_back(self.config, barcode="ids.id")
        self.receiver.on("/partners", body={"ids": [{"id": number} for number in range(101, 106)]})
        self.enqueue(self.partners)
        self.dispatch()
        self.assertEqual(self.partners.mapped("barcode"), ["101", "102", "103", "104", "105"])

    def test_read_back_of_a_list_without_what_was_deleted_meanwhile(self):
        self.config.is_paginated = True
        self.read_back(self.config, barcode="id")
        self.receiver.on("/partners", body=[{"id": number} for number in range(101, 106)])
        delivery = self.enqueue(self.partners)
        self.partners[1].unlink()
        self.dispatch()
        self.assertEqual((self.partners - self.partners[1]).mapped("barcode"), ["101", "103", "104", "105"])
        self.assertEqual((delivery.state, delivery.last_error), ("sent", False))

    def test_read_back_of_a_former_model(self):
        """The answer tells nothing of records that the configuration is not of any more."""
        tags = "res.partner.category"
        delivery = self.enqueue()
        line = {"field_id": self.env["ir.model.fields"]._get(tags, "name").id, "is_record_identifier": True}
        line |= {"external_key": "name", "response_key": "name"}
        values = {"line_ids": [Command.clear(), Command.create(line)]}
        self.config.write({"model_id": self.env["ir.model"]._get_id(tags)} | values)
        self.receiver.on("/partners", body={"name": "Theirs"})
        self.dispatch()
        self.assertEqual((delivery.state, self.logs().status), ("sent", "success"))
        self.assertFalse(self.logs().error_message)
        self.assertEqual(self.partner.name, "Partner 1")

    def test_answer_whose_charset_is_none(self):
        self.receiver.on("/partners", body={"id": 7}, headers={"Content-Type": "application/json; charset=undefined"})
        delivery = self.enqueue()
        self.dispatch()
        self.assertEqual((delivery.state, self.logs().status), ("sent", "success"))

    def test_wake_up(self):
        trigger = self.env["ir.cron.trigger"].search([("cron_id", "=", self.env.ref("bj_api_sync.cron_dispatch").id)])
        trigger.unlink()
        self.enqueue()
        self.enqueue(self.partners)
        self.env.cr.flush()
        self.assertEqual(self.env["ir.cron.trigger"].search_count([("cron_id.code", "=", "model._cron_dispatch()")]), 1)

    def test_wake_up_of_who_sends_again(self):
        triggers = self.env["ir.cron.trigger"]
        for stop, go in (("action_pause", "action_resume"), ("action_archive", "action_unarchive")):
            getattr(self.config, stop)()
            self.env.cr.flush()
            self.env.cr.postcommit.data.clear()
            triggers.search([]).unlink()
            getattr(self.config, go)()
            self.assertEqual(triggers.search([]).cron_id, self.env.ref("bj_api_sync.cron_dispatch"))

    def test_who_may(self):
        delivery = self.enqueue()
        user = new_test_user(self.env, "reader", "bj_api_sync.group_user")
        self.assertEqual(delivery.with_user(user).state, "pending")
        with self.assertRaises(AccessError):
            delivery.with_user(user).action_cancel()
        nobody = new_test_user(self.env, "nobody", "base.group_user")
        with self.assertRaises(AccessError):
            delivery.with_user(nobody).read(["state"])
        other = self.env["res.company"].create({"name": "Other"})
        self.config.user_id.company_ids |= other
        self.config.company_id = other
        hidden = self.enqueue(self.partners[1])
        self.assertFalse(self.env["bj.api.delivery"].with_user(user).search([("id", "=", hidden.id)]))


@tagged("post_install", "-at_install")
class TestDispatch(DeliveryCase):
    """What is sent when, and what becomes of it."""

    def test_odd_answers_harm_nobody(self):
        """An answer that is too deep to read back, an error that cannot be stored: each is noted for what it is."""
        self.read_back(self.config, comment="id")
        self.receiver.on("/partners", body=b"[" * 100_000)
        deep = self.enqueue()
        self.dispatch()
        self.assertEqual((deep.state, len(self.receiver.requests)), ("sent", 1))
        script = "raise UserError('\\ud800 \\x00 odd')"
        config = self.make_config(name="Odd", header_script=script)
        odd = self.enqueue(config=config)
        with mute_logger("odoo.addons.bj_api_sync.models.bj_api_sync_script"):
            self.dispatch()
        self.assertEqual(odd.state, "dead")
        self.assertIn("odd", odd.last_error)

    def test_script_values_that_text_cannot_hold(self):
        """Half of a surrogate pair is sent escaped; a number without end is a fault of its record."""
        field = self.env["ir.model.fields"]._get("res.partner", "comment").id
        for method, script in (("POST", "'\\ud800'"), ("GET", "'\\ud800'"), ("POST", "10**5000")):
            line = {"external_key": "odd", "field_id": field, "value_type": "script", "script": script}
            config = self.make_config(method, name=script)
            config.line_ids = [Command.create(line)]
            delivery = self.enqueue(config=config)
            self.dispatch()
            self.assertEqual(delivery.state, "dead" if "*" in script else "sent", script)
        self.assertEqual(self.receiver.requests[0].json["odd"], "\ud800")

    def test_what_cannot_be_noted(self):
        """It is not sent again, and the others are noted."""
        good, bad = self.enqueue(self.partners[1]), self.enqueue()
        cls, original = type(self.env["bj.api.dispatcher"]), type(self.env["bj.api.dispatcher"])._read_back

        def read_back(room, job, patience):
            if job.id == bad.id:
                raise ZeroDivisionError
            return original(room, job, patience)

        self.read_back(self.config, comment="id")
        with (
            patch.object(cls, "_read_back", read_back),
            mute_logger("odoo.addons.bj_api_sync.models.bj_api_dispatcher"),
        ):
            self.dispatch()
        self.assertEqual((good.state, bad.state, bad.last_error), ("sent", "dead", "ZeroDivisionError: "))
        self.pass_time()
        self.dispatch()
        self.assertEqual(len(self.receiver.requests), 2)

    def test_cancelled_on_the_way(self):
        """What has arrived nevertheless is sent, and Retry does not send it again."""
        delivery = self.enqueue()
        client = type(self.env["bj.api.sync.client"])
        original = client._judge

        def judge(room, config, exchange):
            delivery.action_cancel()
            return original(room, config, exchange)

        with patch.object(client, "_judge", judge):
            self.dispatch()
        self.assertEqual(delivery.state, "sent")

    def test_cancelled_on_the_way_is_waited_for(self):
        """Never two of a record are on the way, whatever is cancelled and retried."""
        for values in ({}, {"coalesce_pending": True}, {"coalesce_pending": False, "is_paginated": True}):
            for status, retried in ((200, False), (503, False), (200, True)):
                with self.subTest(values=values, status=status, retried=retried):
                    self.receiver.clear()
                    self.receiver.on("/partners", status=status, delay=0.2, times=1)
                    self.config.write(values)
                    records, run = self.partners[: 1 + self.config.is_paginated], self.make_run()
                    delivery = self.enqueue(records)
                    self.claim(run)
                    delivery.action_cancel()
                    if retried:
                        delivery.action_retry()
                        self.assertEqual(delivery.state, "sending")
                    self.env["bj.api.dispatcher"]._renew(run)
                    newer = self.enqueue(records[:1])
                    self.dispatch()
                    self.assertEqual((newer.state, delivery.attempt_count), ("pending", 0 if retried else 1))
                    self.finish(run)
                    self.assertEqual(delivery.state, "sent" if status == 200 else "cancelled")
                    self.pass_time()
                    self.dispatch()
                    self.assertEqual((newer.state, len(self.receiver.requests)), ("sent", 2))

    def test_cancelled_on_the_way_of_a_process_that_was_killed(self):
        """It is waited for as long as its lease lasts, and what was not begun is given back."""
        run = self.make_run()
        delivery = self.enqueue()
        self.env["bj.api.dispatcher"]._claim(run)
        delivery.action_cancel()
        newer = self.enqueue()
        self.dispatch()
        self.assertEqual(newer.state, "pending")
        with self.env.cr.savepoint() as savepoint:
            self.env["bj.api.dispatcher"]._release(run, run.claimed)
            self.dispatch()
            self.assertEqual((delivery.state, newer.state), ("cancelled", "sent"))
            savepoint.rollback()
        self.env.invalidate_all()
        self.pass_time(61)
        self.dispatch()
        self.assertEqual((delivery.state, newer.state), ("cancelled", "sent"))

    def test_user_who_may_not_read_the_model(self):
        """Whoever saves a record does not suffer from it."""
        user = new_test_user(self.env, "no-contacts", groups="base.group_portal")
        self.config.user_id = user
        self.assertFalse(self.enqueue())

    def test_schedule(self):
        delivery = self.enqueue()
        self.receiver.on("/partners", status=503)
        waits = []
        for _attempt in range(10):
            self.dispatch()
            if delivery.state == "failed":
                waits.append(self.get_wait(delivery))
            self.pass_time()
        self.assertEqual(waits, list(backoff.SCHEDULE))
        self.assertEqual((delivery.state, delivery.attempt_count, delivery.last_code), ("dead", 10, 503))
        self.assertEqual(len(delivery.attempt_ids), 10)
        self.assertEqual(
            {request.headers["idempotency-key"] for request in self.receiver.requests}, {delivery.idempotency_key}
        )
        self.assertEqual(self.config.activity_ids.user_id, self.env.ref("base.user_admin"))
        self.assertIn("503", self.config.message_ids[0].body)

    def test_final_answers_are_not_repeated(self):
        self.receiver.on("/partners", status=422)
        deliveries = self.enqueue(self.partners)
        self.dispatch()
        self.assertEqual(deliveries.mapped("state"), ["dead"] * 5)
        self.assertEqual(len(self.config.activity_ids), 1)

    def test_credentials_that_cannot_be_read(self):
        """They wait for their key: nothing is sent without them, and others are not held up."""
        other = self.make_config(path="/other", name="Other")
        for values in (
            {"authorization_type": "hmac", "signing_style": "github", "signing_secret": "s3cret"},
            {"authorization_type": "bearer", "bearer_token": "s3cret"},
            {"authorization_type": "basic", "login": "me", "password": "s3cret"},
            {"authorization_type": "oauth2", "token_url": self.receiver.url, "client_id": "me", "client_secret": "s3"},
        ):
            with self.subTest(values["authorization_type"]):
                self.receiver.clear()
                self.config.write(values)
                deliveries = self.enqueue() | self.enqueue(config=other)
                self.env.flush_all()
                key = {secret.OPTION: Fernet.generate_key().decode()}
                with patch.dict(odoo_config._runtime_options, key), mute_logger("odoo.addons.bj_api_sync.tools.secret"):
                    self.env.invalidate_all()
                    self.dispatch()
                    self.assertEqual(deliveries.mapped("state"), ["failed", "sent"])
                    self.assertIn("cannot be read", deliveries[0].last_error)
                    self.assertEqual([request.path for request in self.receiver.requests], ["/other"])
                self.env.invalidate_all()
                self.assertFalse(self.env["bj.api.target"].search([("failures", ">", 0)]), "the API itself is well")
                deliveries[0].action_cancel()

    def test_order_of_a_record(self):
        first = self.enqueue()
        self.partner.name = "Second"
        second = self.enqueue()
        other = self.enqueue(self.partners[1])
        self.receiver.on("/partners", status=500, times=1)
        self.receiver.on("/partners", status=200)
        self.dispatch()
        states = (first | second | other).mapped("state")
        if states[0] == "failed":
            self.assertEqual(states, ["failed", "pending", "sent"])
        else:
            self.assertEqual(states, ["sent", "sent", "failed"])
        self.pass_time(10)
        self.dispatch()
        self.assertEqual((first | second | other).mapped("state"), ["sent"] * 3)
        names = [request.json["name"] for request in self.receiver.requests if request.json["code"] == "P1"]
        self.assertEqual(list(dict.fromkeys(names)), ["Partner 1", "Second"])

    def test_order_of_lists(self):
        self.config.is_paginated = True
        first, second = self.enqueue(self.partners[:3]), self.enqueue(self.partners[2:])
        apart = self.enqueue(self.partners[3:4])
        self.receiver.on("/partners", status=500)
        self.dispatch()
        self.assertEqual((first | second | apart).mapped("attempt_count"), [1, 0, 0])
        self.config.is_paginated = False
        single = self.enqueue(self.partners[2])
        free = self.enqueue(self.partner.copy({"ref": "free"}))
        self.dispatch()
        self.assertEqual((single | free).mapped("attempt_count"), [0, 1])

    def test_only_the_newest(self):
        self.config.coalesce_pending = True
        deliveries = self.enqueue()
        for name in ("Second", "Third"):
            self.partner.name = name
            deliveries |= self.enqueue()
        self.dispatch()
        self.assertEqual([request.json["name"] for request in self.receiver.requests], ["Third"])
        self.assertEqual(deliveries.mapped("state"), ["cancelled", "cancelled", "sent"])

    def test_retry_after_pauses_the_target(self):
        for header, wait in (("120", 120), (self.http_date(3600), 3600), ("999999", 6 * 3600), ("soon", 5)):
            self.receiver.clear()
            self.receiver.on("/partners", status=429, headers={"Retry-After": header}, times=1)
            delivery = self.enqueue()
            self.dispatch()
            self.assertAlmostEqual(self.get_wait(delivery), wait, delta=2)
            other = self.enqueue(self.partners[1])
            self.dispatch()
            self.assertEqual(other.state, "sent" if header == "soon" else "pending")
            self.pass_time()
            self.dispatch()
            self.assertEqual((delivery.state, other.state), ("sent", "sent"))

    def http_date(self, seconds):
        return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)

    def test_breaker(self):
        partners = self.partner.create([{"name": f"{number}", "ref": f"X{number}"} for number in range(40)])
        self.env["ir.config_parameter"].set_param("bj_api_sync.connections_per_host", "1")
        self.receiver.on("/partners", status=500)
        deliveries = self.enqueue(partners)
        self.dispatch()
        begun = len(self.receiver.requests)
        self.assertLess(begun, 40)
        self.assertEqual(deliveries.mapped("attempt_count").count(1), begun)
        target = self.env["bj.api.target"].search([("name", "=", f"127.0.0.1:{self.receiver.port}")])
        self.assertEqual(target.failures, 5, "those on the way together are no more")
        self.assertLess(target.paused_until, datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(seconds=7))
        self.dispatch()
        self.assertEqual(len(self.receiver.requests), begun, "it has a rest")
        self.pass_time(61)
        self.dispatch()
        self.assertEqual(len(self.receiver.requests), begun + 1, "one probes it")
        self.assertEqual(target.failures, 6)
        self.receiver.clear()
        self.pass_time(61)
        self.dispatch()
        self.pass_time(30 * 3600)
        self.dispatch()
        self.assertEqual(set(deliveries.mapped("state")), {"sent"})
        self.assertEqual(target.failures, 0)

    def test_claims_are_kept_while_answers_are_read_back(self):
        """Each may wait for somebody who edits the record; all of them together wait as long as one."""
        self.read_back(self.config, barcode="id")
        self.enqueue(self.partners)
        room, waits = type(self.env["bj.api.dispatcher"]), []
        with (
            patch.object(_Run, "is_renewal_due", return_value=True),
            patch.object(room, "_renew", autospec=True) as renew,
            patch.object(room, "_read_back", lambda room, job, patience: waits.append(patience) or ""),
        ):
            self.dispatch()
        self.assertGreaterEqual(renew.call_count, 5)
        self.assertEqual(waits, sorted(waits, reverse=True))

    def test_resting_target(self):
        """What was on the way when its rest began makes that no longer, but whoever sends leaves it alone."""
        failure = SimpleNamespace(retry_after=0, exchange=SimpleNamespace(outcome="retry"))
        dispatcher = self.env["bj.api.dispatcher"]
        rests = [dispatcher._note_target("resting:80", [failure]) for _attempt in range(7)]
        self.assertEqual(rests, [False] * 4 + [True] * 3)
        self.assertEqual(self.env["bj.api.target"].search([("name", "=", "resting:80")]).failures, 5)

    def test_dead_targets_do_not_hold_up_others(self):
        dead = self.make_config(path="http://127.0.0.1:1/none", name="Dead")
        waiting = self.enqueue(self.partners, dead)
        self.enqueue(self.partners)
        self.dispatch()
        self.assertEqual(len(self.receiver.requests), 5)
        self.assertNotIn("sent", waiting.mapped("state"))
        self.assertIn("127.0.0.1", next(filter(None, waiting.mapped("last_error"))))

    def send_one(self, delivery):
        """What a job of queue_job does with its delivery: its state, and the seconds it must wait."""
        state, _message, wait = self.env["bj.api.dispatcher"]._send_one(delivery.id)
        self.env.invalidate_all()
        return state, wait and round(wait)

    def test_one_by_one(self):
        first = self.enqueue()
        self.partner.name = "Second"
        second, other = self.enqueue(), self.enqueue(self.partners[1])
        self.receiver.on("/partners", status=503, times=1)
        self.assertEqual(self.send_one(first), ("failed", 5))
        self.assertEqual(self.send_one(second), ("pending", 5), "it waits for the first")
        self.assertEqual(self.send_one(other), ("sent", None))
        self.pass_time(6)
        self.assertEqual(self.send_one(second), ("pending", 1))
        self.assertEqual(self.send_one(first), ("sent", None))
        self.assertEqual(self.send_one(second), ("sent", None))
        self.assertEqual(self.send_one(second), ("sent", None))
        self.assertEqual([request.json["name"] for request in self.receiver.requests][-2:], ["Partner 1", "Second"])
        self.assertEqual(len(self.receiver.requests), 4)

    def test_one_deletion_behind_another_configuration(self):
        gone = self.make_config(method="DELETE", path="/partners/{code}", name="Gone")
        delivery, deletion = self.enqueue(), gone._enqueue(self.partner, "unlink")
        self.assertEqual(self.send_one(deletion), ("pending", 60))
        delivery.next_attempt = datetime.now() + timedelta(hours=1)
        self.assertEqual(self.send_one(deletion), ("pending", 60), "it may be sent before, by Retry")
        delivery.next_attempt = datetime.now()
        self.assertEqual(self.send_one(delivery), ("sent", None))
        self.assertEqual(self.send_one(deletion), ("sent", None))
        self.assertEqual([request.method for request in self.receiver.requests], ["POST", "DELETE"])

    def test_one_that_must_not_be_sent(self):
        delivery = self.enqueue()
        self.config.action_pause()
        self.assertEqual(self.send_one(delivery), ("pending", 60))
        self.config.action_resume()
        delivery.action_cancel()
        self.assertEqual(self.send_one(delivery), ("cancelled", None))
        gone = self.env["bj.api.delivery"].browse(2**31 - 1)
        self.assertEqual(self.send_one(gone), ("deleted", None))
        self.receiver.on("/partners", status=429, headers={"Retry-After": "100"}, times=1)
        self.assertEqual(self.send_one(self.enqueue()), ("failed", 100))
        state, wait = self.send_one(self.enqueue(self.partners[1]))
        self.assertEqual((state, 100 <= wait <= 200), ("pending", True), "the target rests")
        self.assertEqual(len(self.receiver.requests), 1)

    def test_lease_is_taken_over(self):
        delivery = self.enqueue()
        self.env.cr.execute(
            "UPDATE bj_api_delivery SET state = 'sending', claim = 'killed', attempt_count = 1,"
            " next_attempt = next_attempt + interval '60 s' WHERE id = %s",
            delivery.ids,
        )
        self.dispatch()
        self.assertFalse(self.receiver.requests)
        self.pass_time(61)
        self.dispatch()
        self.assertEqual((delivery.state, delivery.attempt_count), ("sent", 2))
        self.assertEqual(delivery.attempt_ids.sorted("id").mapped("code"), [0, 200])

    def make_run(self):
        return _Run(self.env["bj.api.sync.client"], 10)

    def claim(self, run):
        self.env["bj.api.dispatcher"]._claim(run)
        run.send_claimed()

    def finish(self, run):
        """Wait for what a run has on the way, and note it."""
        while run.lanes.load:
            self.env["bj.api.dispatcher"]._settle(run, run.lanes.take(5))
        run.lanes.close()

    def test_lease_is_not_taken_over_by_its_own_run(self):
        """A clock that jumps must not let one run send the same twice at once."""
        delivery, run = self.enqueue(), self.make_run()
        self.receiver.on("/partners", delay=0.3)
        for _time in range(2):
            self.claim(run)
            self.pass_time(61)
        self.assertEqual((run.lanes.load, delivery.attempt_count), (1, 1))
        self.finish(run)
        self.assertEqual((delivery.state, len(self.receiver.requests)), ("sent", 1))

    def test_deleted_while_on_the_way(self):
        """The results of others are noted all the same."""
        other = self.make_config(name="Other")
        kept, deleted, _gone = self.enqueue(), self.enqueue(self.partners[1]), self.enqueue(config=other)
        run = self.make_run()
        self.claim(run)
        deleted.unlink()
        other.unlink()
        self.finish(run)
        self.assertEqual((kept.state, kept.attempt_ids.mapped("code")), ("sent", [200]))

    def test_configuration_deleted_between_answer_and_result(self):
        other = self.make_config(name="Other")
        kept, _gone = self.enqueue(), self.enqueue(config=other)
        run = self.make_run()
        self.claim(run)
        room = type(self.env["bj.api.dispatcher"])
        decide = room._decide

        def delete(*args):
            other.exists().unlink()
            return decide(*args)

        self.patch(room, "_decide", delete)
        self.finish(run)
        self.assertEqual((kept.state, kept.attempt_ids.mapped("code")), ("sent", [200]))

    def test_database_gone_for_a_moment(self):
        """What was sent is noted when it is back."""
        pauses, failures = [], [OperationalError, InterfaceError]

        def work(room):
            if failures:
                raise failures.pop(0)
            return room

        self.patch(bj_api_dispatcher.time, "sleep", pauses.append)
        self.assertEqual(self.env["bj.api.dispatcher"]._insist(work)._name, "bj.api.dispatcher")
        self.assertEqual(pauses, [0.5, 1])
        with self.assertRaises(OperationalError):
            failures[:] = [OperationalError] * 7
            self.env["bj.api.dispatcher"]._insist(work)
        self.assertLess(sum(pauses[2:]), LEASE - 10, "what is not noted by then may be sent by others")

    def test_claim_that_is_not_committed(self):
        """Nothing is sent before its claim is: others would send it, too."""
        run = self.make_run()
        delivery = self.enqueue()
        with self.assertRaises(OperationalError), self.env.cr.savepoint():
            self.env["bj.api.dispatcher"]._claim(run)
            raise OperationalError
        self.assertFalse(run.lanes.load)
        self.claim(run)
        self.finish(run)
        self.assertEqual((delivery.state, len(self.receiver.requests)), ("sent", 1))

    def run_cron(self):
        cron = self.env.ref("bj_api_sync.cron_dispatch")
        self.env["ir.cron.trigger"].search([("cron_id", "=", cron.id)]).unlink()
        with self.enter_registry_test_mode():
            cron.method_direct_trigger()
        self.env.invalidate_all()
        return cron

    def test_nobody_sends(self):
        """Deliveries that wait for scheduled actions that do not run are no secret of the server's log."""
        crons = self.env["bj.api.delivery"]._find_dispatchers()
        now = datetime.now()
        other = self.make_config(name="Other")
        for minutes, state, is_stalled in ((11, "pending", True), (9, "pending", False), (11, "sent", False)):
            delivery = self.enqueue()
            delivery.write({"state": state, "next_attempt": now})
            crons.nextcall = now - timedelta(minutes=minutes)
            (self.config | other).invalidate_recordset(["is_stalled"])
            self.assertEqual((self.config.is_stalled, other.is_stalled), (is_stalled, False), (minutes, state))
            delivery.unlink()

    def test_progress_is_told(self):
        """Else Odoo would put a dispatcher off that was killed three times, however much it had sent."""
        self.enqueue(self.partners)
        cron = self.run_cron()
        progress = self.env["ir.cron.progress"].search([("cron_id", "=", cron.id)], order="id desc", limit=1)
        self.assertGreaterEqual(progress.done, 1)
        self.assertFalse(progress.remaining)

    def test_runs_leave_no_threads(self):
        """However often it is woken while a target rests, those who wait for the end of the rest are no more."""
        self.receiver.on("/partners", status=503, headers={"Retry-After": "30"})
        others = set(threading.enumerate())
        for _run in range(4):
            self.enqueue(self.partners)
            self.run_cron()
        time.sleep(0.2)
        threads = {thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)}
        self.assertLessEqual(len(threads - others), 2)  # one for each second that it may end in
        self.assertFalse([thread for thread in threading.enumerate() if thread.name.startswith("bj_api_sync.lane")])

    def test_connection_lost_in_the_pool(self):
        """It tells of it by an error of no subclass; what was sent meanwhile is noted once the database is back."""
        lost = SimpleNamespace(registry=SimpleNamespace(cursor=Mock(side_effect=DatabaseError("server closed"))))
        with patch.object(module, "current_test", None), self.assertRaises(OperationalError), bookkeeping(lost):
            pass

    def test_ring(self):
        """A call is never lost to another one; a single thread waits for those of the same second."""
        rung, others, now = [], set(threading.enumerate()), ceil(time.time())
        for due in (now + 1, now, now + 1):
            ring("test", due, lambda: rung.append(time.time()))
        self.assertEqual(len(set(threading.enumerate()) - others), 2)
        time.sleep(now + 1.5 - time.time())
        self.assertEqual([int(at) for at in rung], [now, now + 1])
        ring("test", now, lambda: rung.append(time.time()))
        time.sleep(0.2)
        self.assertEqual(len(rung), 3)

    def test_run_that_breaks_off(self):
        """It comes back when its claims lapse, and begins nothing more."""
        self.enqueue(self.partners)
        self.patch(type(self.env["bj.api.dispatcher"]), "_settle", lambda *_args: 1 / 0)
        self.env["ir.config_parameter"].set_param("bj_api_sync.connections_per_host", "1")
        self.receiver.on("/partners", delay=0.2)
        with mute_logger("odoo.addons.base.models.ir_cron"):
            cron = self.run_cron()
        trigger = self.env["ir.cron.trigger"].search([("cron_id", "=", cron.id)])
        self.assertAlmostEqual((trigger.call_at - datetime.now()).total_seconds(), 61, delta=3)
        time.sleep(0.6)
        self.assertLessEqual(len(self.receiver.requests), 2)

    def test_cancel_and_retry(self):
        delivery = self.enqueue()
        delivery.action_cancel()
        self.dispatch()
        self.assertEqual((delivery.state, len(self.receiver.requests)), ("cancelled", 0))
        delivery.action_retry()
        self.dispatch()
        self.assertEqual(delivery.state, "sent")
        delivery.action_retry()
        self.assertEqual(delivery.state, "sent", "what arrived is not sent again")

    def test_retry_of_what_was_overtaken(self):
        """The other system must not end with an old state."""
        self.receiver.on("/partners", status=422, times=1)
        old = self.enqueue()
        self.dispatch()
        new = self.enqueue()
        self.dispatch()
        self.assertEqual((old.state, new.state), ("dead", "sent"))
        with self.assertRaisesRegex(UserError, "Later deliveries"):
            old.action_retry()
        other = self.enqueue(self.partners[1])
        other.action_cancel()
        (old | other).action_retry()
        self.assertEqual((old.state, other.state), ("dead", "pending"))

    def test_pause(self):
        self.config.action_pause()
        delivery = self.enqueue()
        self.dispatch()
        self.assertEqual(delivery.state, "pending")
        self.config.action_resume()
        self.dispatch()
        self.assertEqual(delivery.state, "sent")

    def test_what_fails_for_days_is_paused(self):
        self.receiver.on("/partners", status=500)
        self.enqueue(self.partners[:1])
        self.dispatch()
        self.assertTrue(self.config.failing_since)
        self.config.failing_since = datetime.now() - timedelta(days=6)
        self.pass_time()
        self.dispatch()
        self.assertTrue(self.config.is_paused)
        self.assertIn("paused", self.config.activity_ids.mapped("summary")[0])
        self.receiver.clear()
        self.config.action_resume()
        self.pass_time()
        self.dispatch()
        self.assertFalse(self.config.failing_since)

    def test_failures_with_a_long_silence_between_them_do_not_pause(self):
        self.receiver.on("/partners", status=400, times=1)
        self.receiver.on("/partners", status=500)
        self.enqueue(self.partners[:1])
        self.dispatch()
        for hours, is_kept in ((9 * 24, False), (29, True)):
            before = datetime.now() - timedelta(hours=hours)
            since = before - timedelta(days=1)
            self.config.write({"failing_since": since, "last_failure": before})
            self.enqueue(self.partners[1:2])
            self.pass_time()
            self.dispatch()
            self.env.invalidate_all()
            self.assertFalse(self.config.is_paused)
            self.assertEqual(self.config.failing_since == since, is_kept)
            self.assertAlmostEqual(self.config.last_failure, datetime.now(), delta=timedelta(minutes=1))

    def test_gc(self):
        self.enqueue()
        self.receiver.on("/partners", status=400, times=1)
        self.dispatch()
        sent = self.enqueue()
        self.dispatch()
        self.env.cr.execute("UPDATE bj_api_delivery SET done_date = done_date - interval '31 days'")
        self.env.invalidate_all()
        self.env["bj.api.delivery"]._gc_deliveries()
        self.assertFalse(sent.exists())
        self.assertEqual(self.env["bj.api.delivery"].search([]).state, "dead")


class TestLanes(BaseCase):
    """Threads: few where answers come at once, so many as are allowed where they take long."""

    def work_off(self, seconds, targets=("one",), count=40, width=8):
        """Do jobs that take so long; return the most that were done at the same time, by target."""
        running, most, lock = Counter(), Counter(), threading.Lock()

        def work(job):
            with lock:
                running[job.target] += 1
                most[job.target] = max(most[job.target], running[job.target])
            time.sleep(seconds[job.target])
            with lock:
                running[job.target] -= 1
            job.is_done = True

        lanes, done = Lanes(work, width), []
        for _number in range(count):
            for target in targets:
                lanes.put(SimpleNamespace(target=target, lease=time.monotonic() + 60))
        while lanes.load:
            done += lanes.take(5)
        lanes.close()
        self.assertEqual(Counter(job.target for job in done), dict.fromkeys(targets, count))
        self.assertTrue(all(job.is_done for job in done))
        return most

    def test_slow_answers_are_waited_for_side_by_side(self):
        self.assertEqual(self.work_off({"one": 0.03}), {"one": 8})

    def test_quick_answers_are_not(self):
        self.assertLess(self.work_off({"one": 0}, count=200)["one"], 4)

    def test_slow_beside_quick(self):
        most = self.work_off({"quick": 0.001, "slow": 0.05}, ("quick", "slow"), 30)
        self.assertEqual(most["slow"], 8)

    def test_what_begins_too_late_is_not_begun(self):
        done = []
        lanes, job = Lanes(done.append, 2), SimpleNamespace(target="one", lease=time.monotonic() - 1)
        lanes.put(job)
        self.assertEqual((lanes.take(5), done), ([job], []))
        self.assertEqual(lanes.take(0.05), [])
        lanes.close()
