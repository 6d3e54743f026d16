from datetime import datetime, timedelta
from unittest.mock import patch

from odoo.exceptions import AccessError
from odoo.tests import Form, new_test_user, tagged

from ..models import bj_api_sync_push
from ..tools import signature
from .test_delivery import DeliveryCase


@tagged("post_install", "-at_install")
class TestTriggers(DeliveryCase):
    """Create Trigger, and what it makes."""

    def create_trigger(self, config=None, **values):
        config = config or self.config
        wizard = self.env["bj.api.sync.trigger"].create({"config_id": config.id, **values})
        answer = wizard.action_create()
        trigger = self.env[answer["res_model"]].browse(answer["res_id"])
        self.assertEqual((config.trigger_action_model, config.trigger_action), (trigger._name, trigger.id))
        return trigger

    def found(self, config=None):
        self.env.cr.flush()
        return self.env["bj.api.delivery"].search([("config_id", "=", (config or self.config).id)], order="id")

    def test_rule_watches_what_is_sent(self):
        rule = self.create_trigger(kind="base.automation")
        self.assertEqual(set(rule.trigger_field_ids.mapped("name")), {"ref", "name", "city"})
        self.partner.comment = "Nobody is told"
        self.assertFalse(self.found())
        self.partner.city = "Linz"
        self.assertEqual(self.found().mapped("operation"), ["write"])

    def test_before_and_after(self):
        self.create_trigger(
            kind="base.automation", before_domain="[('city', '=', 'Graz')]", after_domain="[('city', '=', 'Linz')]"
        )
        self.partner.city = "Wien"
        self.partner.city = "Linz"
        self.assertFalse(self.found())
        self.partners[1].city = "Linz"
        self.assertEqual(self.found().mapped("record_id"), self.partners[1].ids)

    def test_archive(self):
        self.create_trigger(kind="base.automation", trigger="on_archive")
        self.partner.active = False
        self.assertEqual(self.found().mapped("record_id"), self.partner.ids)

    def test_deletion(self):
        config = self.make_config(method="DELETE", path="/partners/{code}", name="Gone")
        self.assertEqual(self.create_trigger(config, kind="base.automation").trigger, "on_unlink")
        self.env.cr.execute("UPDATE res_partner SET create_date = '2020-01-01' WHERE id = ANY(%s)", [self.partners.ids])
        self.partners.invalidate_recordset()
        self.partners.unlink()
        self.assertEqual(self.found(config).mapped("operation"), ["unlink"] * 5)
        self.dispatch()
        self.assertEqual({request.path for request in self.receiver.requests}, {f"/partners/P{n}" for n in range(1, 6)})

    def test_server_action_in_the_menu(self):
        action = self.create_trigger(kind="ir.actions.server")
        self.assertEqual(action.binding_model_id.model, "res.partner")

    def test_form_and_rights(self):
        with Form(self.env["bj.api.sync.trigger"].with_context(default_config_id=self.config.id)) as form:
            form.kind = "ir.cron"
        self.assertEqual(form.save().interval_type, "hours")
        reader = new_test_user(self.env, "reader", "bj_api_sync.group_user")
        with self.assertRaises(AccessError):
            self.env["bj.api.sync.trigger"].with_user(reader).create({"config_id": self.config.id})
        manager = new_test_user(self.env, "manager", "bj_api_sync.group_manager")
        wizard = self.env["bj.api.sync.trigger"].with_user(manager).create({"config_id": self.config.id})
        self.assertEqual(wizard.action_create()["res_model"], "base.automation")


@tagged("post_install", "-at_install")
class TestScheduledPush(DeliveryCase):
    """The first run sends everything, later ones what changed, and nothing that committed late is lost."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.config.filter_domain = "[('ref', '=like', 'P_')]"
        wizard = cls.env["bj.api.sync.trigger"].create({"config_id": cls.config.id, "kind": "ir.cron"})
        cls.cron = cls.env["ir.cron"].browse(wizard.action_create()["res_id"])

    def run_cron(self):
        """Return the codes that were sent."""
        self.receiver.clear()
        self.cron.with_user(self.env.ref("base.user_root")).ir_actions_server_id.run()
        self.dispatch()
        return sorted(request.json["code"] for request in self.receiver.requests)

    def touch(self, record, date):
        self.env.cr.execute("UPDATE res_partner SET write_date = %s WHERE id = %s", [date, record.id])
        record.invalidate_recordset()

    def test_everything_then_changes(self):
        self.assertIs(self.config.push_progress, False, "nothing to show yet")
        with patch.object(bj_api_sync_push, "PAGE", 2):
            self.assertEqual(self.run_cron(), ["P1", "P2", "P3", "P4", "P5"])
        self.assertIn("until", self.config.push_progress)
        state = self.config.push_state
        self.assertNotIn("last_id", state)
        later = datetime.fromisoformat(state["since"]) + timedelta(seconds=1)
        for record in self.partners[:2]:  # the same time
            self.touch(record, later)
        with patch.object(bj_api_sync_push, "PAGE", 1):
            self.assertEqual(self.run_cron(), ["P1", "P2"])
        self.assertEqual(self.run_cron(), [], "what was queued in the overlap is remembered")
        self.touch(self.partners[0], later + timedelta(seconds=1))
        self.assertEqual(self.run_cron(), ["P1"])

    def test_late_commit(self):
        """A transaction that is open while we look, and commits what it wrote before."""
        horizon = datetime(2026, 1, 1)
        self.run_cron()
        with patch.object(type(self.env["bj.api.sync.push"]), "_get_horizon", return_value=horizon):
            self.run_cron()
        self.assertEqual(self.config.push_state["since"], horizon.isoformat())
        self.touch(self.partners[2], horizon + timedelta(seconds=1))
        self.assertIn("P3", self.run_cron())

    def test_first_run_is_resumed(self):
        self.config.push_state = {
            "since": "2026-01-01T00:00:00",
            "last_id": self.partners[2].id,
            "count": 3,
            "seen": {},
        }
        self.assertIn("3", self.config.push_progress)
        self.assertEqual(self.run_cron()[-2:], ["P4", "P5"])

    def test_again(self):
        self.run_cron()
        self.config.action_push_again()
        self.assertEqual(len(self.run_cron()), 5)


@tagged("post_install", "-at_install")
class TestSigning(DeliveryCase):
    """Signed webhooks, as inbound verifies them."""

    def test_standard(self):
        secrets = [f"whsec_{'A' * 32}", f"whsec_{'B' * 32}"]
        self.config.write(
            {
                "authorization_type": "hmac",
                "signing_style": "standard",
                "signing_secret": secrets[0],
                "signing_secret_previous": secrets[1],
            }
        )
        self.receiver.on("/partners", status=500, times=1)
        delivery = self.enqueue()
        self.dispatch()
        self.pass_time(10)
        self.dispatch()
        self.assertEqual(delivery.state, "sent")
        for request in self.receiver.requests:
            self.assertEqual(request.headers["webhook-id"], delivery.idempotency_key)
            for secret in secrets:
                signature.verify("standard", [secret], request.headers, request.body.encode(), request.at)
