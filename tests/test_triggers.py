from datetime import datetime, timedelta
from unittest.mock import patch

from odoo.exceptions import AccessError, UserError, ValidationError
from odoo.fields import Command
from odoo.tests import Form, new_test_user, tagged

from ..models import bj_api_sync_push
from ..tools import signature, transaction
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

    def test_rule_watches_what_may_be_sent(self):
        """A record that enters the filter domain; what a script or a computed field depends on may be any field."""
        self.config.filter_domain = "[('function', '=', 'Buyer'), ('country_id.code', '=', 'AT')]"
        rule = self.create_trigger(kind="base.automation")
        watched = {"ref", "name", "city", "function", "country_id"}
        self.assertEqual(set(rule.trigger_field_ids.mapped("name")), watched)
        self.partner.country_id = self.env.ref("base.at")
        self.partner.function = "Buyer"
        self.assertEqual(self.found().mapped("record_id"), self.partner.ids)
        for field, values in (
            ("contact_address", {}),
            ("street", {"value_type": "script", "script": "record.street"}),
            (False, {"value_type": "script", "script_mode": "exec", "external_key": False, "script": "pass"}),
        ):
            field_id = field and self.env["ir.model.fields"]._get("res.partner", field).id
            line = self.config.line_ids.create(
                {"config_id": self.config.id, "field_id": field_id, "external_key": "any"} | values
            )
            with self.subTest(values=values):
                self.assertFalse(self.env["bj.api.sync.trigger"].create({"config_id": self.config.id}).field_ids)
            line.unlink()
        self.read_back(self.config, barcode="id")
        wizard = self.env["bj.api.sync.trigger"].create({"config_id": self.config.id})
        self.assertEqual(set(wizard.field_ids.mapped("name")), watched, "what is only read is not sent")

    def test_before_and_after(self):
        self.create_trigger(
            kind="base.automation", before_domain="[('city', '=', 'Graz')]", after_domain="[('city', '=', 'Linz')]"
        )
        self.partner.city = "Wien"
        self.partner.city = "Linz"
        self.assertFalse(self.found())
        self.partners[1].city = "Linz"
        self.assertEqual(self.found().mapped("record_id"), self.partners[1].ids)

    def test_domains_are_no_code(self):
        """The rule evaluates them as superuser, and managers need not be those who may write code."""
        manager = new_test_user(self.env, "manager", "bj_api_sync.group_manager")
        wizards = self.env["bj.api.sync.trigger"].with_user(manager)
        code = "[('id', '!=', user.env['ir.config_parameter'].sudo().set_param('owned', user.login) and 0)]"
        for domain in (code, "[('id', '=', uid)]", "['{0.real}'.format(1)]", "x(", "[('nothing', '=', 1)]", "1 + 1"):
            for trigger, fname in (
                ("on_create_or_write", "before_domain"),
                ("on_create_or_write", "after_domain"),
                ("on_unlink", "after_domain"),
            ):
                wizard = wizards.create({"config_id": self.config.id, "trigger": trigger, fname: domain})
                with (
                    self.subTest(domain=domain, trigger=trigger, fname=fname),
                    self.assertRaisesRegex(UserError, "(Before|After) the Change” is not valid"),
                ):
                    wizard.action_create()
        self.assertFalse(self.env["base.automation"].search([("model_id", "=", self.config.model_id.id)]))

    def test_change_of_a_child(self):
        """It is none of its parent: a rule on the children's model tells the parent's configuration of it."""
        self.create_trigger(kind="base.automation")
        child = self.partner.create({"name": "Child", "parent_id": self.partner.id})
        self.config.filter_domain = "[('parent_id', '=', False)]"
        self.env["bj.api.delivery"].search([]).unlink()
        child.name = "Changed"
        self.assertFalse(self.found())
        code = f"env['bj.api.sync.config'].browse({self.config.id})._enqueue(records.parent_id)"
        action = self.make_action()
        action.write({"state": "code", "code": code})
        self.make_rule(action, filter_domain="[('parent_id', '!=', False)]")
        child.name = "Changed again"
        self.assertEqual(self.found().mapped("record_id"), self.partner.ids)

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

    def test_deletion_behind_what_other_configurations_have_to_tell(self):
        """Else the record would be there again."""
        elsewhere = self.make_config(path="http://127.0.0.2:9/partners", is_paused=True)
        gone = self.make_config(method="DELETE", path="/partners/{code}", name="Gone")
        self.receiver.on("/partners", status=503, times=1)
        for config in (self.config, elsewhere):
            config._enqueue(self.partner)
        self.config._enqueue(self.partners[1])
        self.dispatch()
        for record in self.partners[:2]:
            gone._enqueue(record, "unlink")
        self.receiver.clear()
        self.dispatch()
        self.assertEqual([request.path for request in self.receiver.requests], ["/partners/P2"])
        self.receiver.clear()
        self.pass_time()
        self.dispatch()
        self.assertEqual([request.method for request in self.receiver.requests], ["POST", "DELETE"])

    def test_deletions_do_not_wait_for_each_other(self):
        """Each configuration tells the change and the deletion, and only what is newest."""
        other = self.make_config(path="/others", name="Other")
        for config in (self.config, other):
            config.write({"coalesce_pending": True, "deletion_url": f"{self.receiver.url}/gone/{{code}}"})
            config._enqueue(self.partner)
        record, keys = self.partner, {"code": "P1"}
        self.partner.unlink()
        for config in (self.config, other):
            request = self.env["bj.api.sync.outbound"]._prepare_deletion(config, record, keys)
            self.env["bj.api.delivery"]._insert(config, [request], "unlink")
        self.dispatch()
        self.assertEqual([request.method for request in self.receiver.requests], ["DELETE", "DELETE"])

    def test_deletion_behind_what_is_paused(self):
        gone = self.make_config(method="DELETE", path="/partners/{code}", name="Gone")
        self.enqueue()
        self.config.is_paused = True
        deletion = gone._enqueue(self.partner, "unlink")
        with patch.object(type(self.env["bj.api.dispatcher"]), "_plan_next") as plan_next:
            self.dispatch()
        self.assertEqual((deletion.state, plan_next.call_args.args), ("pending", (60,)))
        self.config.action_resume()
        self.dispatch()
        self.assertEqual([request.method for request in self.receiver.requests], ["POST", "DELETE"])

    def test_deletion_is_looked_at_again_whenever_others_are_due(self):
        """Hours until another delivery of its configuration is tried again are not its own."""
        gone = self.make_config(method="DELETE", path="/partners/{code}", name="Gone")
        gone._enqueue(self.partners[1], "unlink").next_attempt = datetime.now() + timedelta(hours=1)
        self.config.is_paused = True
        self.enqueue()
        gone._enqueue(self.partner, "unlink")
        waiting = gone._enqueue(self.partners[1], "unlink")  # for the one before
        for is_blocked in (True, False):
            with patch.object(type(self.env["bj.api.dispatcher"]), "_plan_next") as plan_next:
                self.dispatch()
            self.assertEqual(plan_next.call_args.args, (60,), is_blocked)
            waiting.action_cancel()

    def test_deletion_behind_what_is_archived(self):
        """What will perhaps never be sent is not waited for, unless it is on the way."""
        gone = self.make_config(method="DELETE", path="/partners/{code}", name="Gone")
        delivery, deletion = self.enqueue(), gone._enqueue(self.partner, "unlink")
        delivery.write({"state": "sending", "claim": "other", "next_attempt": datetime.now() + timedelta(minutes=1)})
        self.config.active = False
        self.dispatch()
        self.assertEqual(deletion.state, "pending")
        delivery.next_attempt = datetime.now()
        self.dispatch()
        self.assertEqual((delivery.state, deletion.state), ("sending", "sent"))

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

    def test_manager(self):
        """Who may not open what was made is told of it."""
        manager = new_test_user(self.env, "manager", "bj_api_sync.group_manager")
        for kind, label in (
            ("base.automation", "Automation Rule"),
            ("ir.cron", "Scheduled Action"),
            ("ir.actions.server", "Server Action"),
        ):
            values = {"config_id": self.config.id, "kind": kind}
            with self.subTest(kind=kind):
                answer = self.env["bj.api.sync.trigger"].with_user(manager).create(values).action_create()
                self.assertEqual((answer["tag"], answer["params"]["title"]), ("display_notification", label))
                self.assertEqual(answer["params"]["message"], "Push to Partners out was created.")
                self.assertEqual((self.config.trigger_action_model, bool(self.config.trigger_action)), (kind, True))


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

    def test_nobody_asked_for_the_others(self):
        """What is outside the filter domain is neither logged nor counted, nor what the user may not see."""
        hidden = "[('ref', '!=', 'P5')]"
        self.env["ir.rule"].create({"name": "P5", "model_id": self.config.model_id.id, "domain_force": hidden})
        with patch.object(bj_api_sync_push, "PAGE", 2):
            self.assertEqual(self.run_cron(), ["P1", "P2", "P3", "P4"])
            self.touch(self.partners[0], datetime.now() + timedelta(seconds=1))
            self.touch(self.partners[4], datetime.now() + timedelta(seconds=1))
            self.assertEqual(self.run_cron(), ["P1"])
        self.assertEqual(set(self.logs().mapped("status")), {"success"})

    def break_config(self, **values):
        """Change the configuration as nobody may: what it needs is gone."""
        self.env.flush_all()
        names = ", ".join(f"{name} = %s" for name in values)
        self.env.cr.execute(f"UPDATE bj_api_sync_config SET {names} WHERE id = %s", [*values.values(), self.config.id])
        self.env.invalidate_all()

    def test_what_changes_while_it_cannot_send(self):
        """The place stays where it was, and the form says why."""
        self.run_cron()
        other = self.env["res.company"].create({"name": "Other"})
        works = self.config.read(["active", "request_type", "filter_domain", "company_id"], load="")[0]
        works.pop("id")
        for second, values, status in (
            (1, {"active": False}, "skipped"),
            (2, {"filter_domain": "[('x_gone', '=', 1)]"}, "error"),
            (3, {"company_id": other.id}, "error"),
            (4, {"request_type": "in"}, "skipped"),
        ):
            with self.subTest(values=values):
                since, count = self.config.push_state["since"], len(self.logs())
                self.touch(self.partner, datetime.fromisoformat(since) + timedelta(seconds=second))
                self.break_config(**values)
                self.assertEqual(self.run_cron(), [])
                self.assertEqual(self.config.push_state["since"], since)
                [log] = self.logs()[count:]
                self.assertEqual((log.status, log.record_count), (status, 0))
                self.assertIn(f"Stopped: {log.error_message}", self.config.push_progress)
                self.break_config(**{name: value or None for name, value in works.items()})
                self.assertEqual(self.run_cron(), ["P1"])
                self.assertNotIn("Stopped", self.config.push_progress)

    def test_user_who_may_not_read_any(self):
        access = self.env["ir.model.access"].search([("model_id", "=", self.config.model_id.id)])
        access.active = False
        self.assertEqual(self.run_cron(), [])
        self.assertIn("Stopped: ", self.config.push_progress)
        access.active = True
        self.assertEqual(len(self.run_cron()), 5)

    def test_first_run_that_cannot_send(self):
        self.config.active = False
        self.assertEqual(self.run_cron(), [])
        self.assertIn("First run: 0 records queued. Stopped: ", self.config.push_progress)
        self.config.active = True
        self.assertEqual(len(self.run_cron()), 5)

    def test_archived_between_two_pages(self):
        def archive(_env, done=0, _left=False):
            self.config.active = not done

        partners = self.env["res.partner"].with_context(active_test=False)
        page = partners.search_count([("id", "<=", self.partners[1].id)])
        with (
            patch.object(bj_api_sync_push, "PAGE", page),
            patch.object(transaction, "commit_progress", archive),
        ):
            self.cron.ir_actions_server_id.run()
        self.assertIn("First run: 2 records queued. Stopped: ", self.config.push_progress)
        self.config.active = True
        self.assertEqual(self.run_cron(), ["P1", "P2", "P3", "P4", "P5"], "the first two wait already")


@tagged("post_install", "-at_install")
class TestScheduledDeletions(TestScheduledPush):
    """What was queued once and is gone is told with DELETE."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.config.deletion_url = f"{cls.receiver.url}/people/{{address.city}}/{{code}}"

    def run_cron(self):
        """Return the paths that were deleted behind the codes that were sent."""
        self.receiver.clear()
        self.cron.with_user(self.env.ref("base.user_root")).ir_actions_server_id.run()
        self.dispatch()
        sent = [request.json for request in self.receiver.requests if request.json]
        codes = sorted(item["code"] for body in sent for item in (body if isinstance(body, list) else [body]))
        return codes + sorted(request.path for request in self.receiver.requests if request.method == "DELETE")

    def test_deleted(self):
        self.run_cron()
        ids = self.partners[:2].ids
        self.partners[0].city = "Linz"  # never told of
        self.partners[2].active = False
        self.partners[3].ref = "elsewhere"  # outside the filter domain
        self.partners[:2].unlink()
        self.assertEqual([path for path in self.run_cron() if "/" in path], ["/people/Graz/P1", "/people/Graz/P2"])
        deliveries = self.env["bj.api.delivery"].search([("operation", "=", "unlink")], order="id")
        self.assertEqual(deliveries.mapped("record_id"), ids)
        self.assertEqual(set(deliveries.mapped("state")), {"sent"})
        self.assertEqual({request.body for request in self.receiver.requests if request.method == "DELETE"}, {""})
        self.assertFalse([path for path in self.run_cron() if "/" in path], "told once")

    def test_deleted_with_odd_keys(self):
        """What JSON can hold and a jsonb column cannot."""
        field = self.env["ir.model.fields"]._get("res.partner", "ref").id
        line = {"external_key": "odd", "field_id": field, "value_type": "script", "script": "'\\x00\\ud800'"}
        self.config.line_ids = [Command.create(line)]
        self.config.deletion_url = f"{self.receiver.url}/{{odd}}/{{code}}"
        self.run_cron()
        self.partner.unlink()
        self.assertEqual(self.run_cron(), ["/%00%3F/P1"])

    def test_deleted_in_pages(self):
        self.run_cron()
        self.partners.unlink()
        with patch.object(bj_api_sync_push, "PAGE", 2):
            self.assertEqual(self.run_cron(), [f"/people/Graz/P{number}" for number in range(1, 6)])

    def test_queries_of_many(self):
        """The cost is that of pages, not of records."""
        self.run_cron()
        self.partners.unlink()
        push = self.env["bj.api.sync.push"]
        self.env["bj.api.delivery"]._wake_up()
        with self.assertQueryCount(10):  # for five records
            push._enqueue_gone(self.config)

    def test_what_was_told_last(self):
        """Also by another trigger, in lists, and once more when it changed."""
        self.run_cron()
        self.partner.city = "Wien"
        self.config.is_paginated = True
        self.enqueue(self.partners)
        self.partner.unlink()
        self.assertEqual([path for path in self.run_cron() if "/" in path], ["/people/Wien/P1"])

    def test_behind_what_is_open(self):
        self.run_cron()
        self.receiver.on("/partners", status=503)
        self.partner.name = "Last words"
        self.enqueue()
        self.dispatch()
        self.partner.unlink()
        self.cron.with_user(self.env.ref("base.user_root")).ir_actions_server_id.run()
        self.dispatch()
        self.assertFalse([request for request in self.receiver.requests if request.method == "DELETE"])
        self.receiver.clear()
        self.pass_time()
        self.dispatch()
        self.assertEqual([request.method for request in self.receiver.requests], ["POST", "DELETE"])

    def test_nothing_to_name_it_by(self):
        self.partner.city = False
        self.run_cron()
        self.partner.unlink()
        self.run_cron()
        delivery = self.env["bj.api.delivery"].search([("operation", "=", "unlink")])
        self.assertEqual(delivery.state, "dead")
        self.assertIn("{address.city}", delivery.last_error)

    def test_told_by_a_rule(self):
        self.run_cron()
        self.env.cr.execute("UPDATE res_partner SET create_date = '2020-01-01' WHERE id = %s", self.partner.ids)
        self.partner.invalidate_recordset()
        self.make_rule(self.make_action(), trigger="on_unlink")
        self.partner.unlink()
        self.assertEqual(self.run_cron(), ["P1"], "not told twice")

    def test_archived_configuration(self):
        self.run_cron()
        self.partner.unlink()
        self.config.active = False
        self.assertEqual(self.run_cron(), [])
        self.config.active = True
        self.assertEqual(self.run_cron(), ["/people/Graz/P1"])

    def test_another_model(self):
        """What was sent of the former one says nothing of it."""
        self.run_cron()
        tags = self.env["res.partner.category"].create([{"name": f"P{number}"} for number in range(1, 4)])
        self.config.write(
            {
                "model_id": self.env["ir.model"]._get_id("res.partner.category"),
                "filter_domain": "[('name', '=like', 'P_')]",
                "deletion_url": f"{self.receiver.url}/tags/{{code}}",
                "line_ids": [
                    Command.clear(),
                    Command.create(
                        {
                            "field_id": self.env["ir.model.fields"]._get("res.partner.category", "name").id,
                            "external_key": "code",
                            "is_record_identifier": True,
                        }
                    ),
                ],
            }
        )
        wizard = self.env["bj.api.sync.trigger"].create({"config_id": self.config.id, "kind": "ir.cron"})
        self.cron = self.env["ir.cron"].browse(wizard.action_create()["res_id"])
        self.assertEqual(self.run_cron(), ["P1", "P2", "P3"])
        tags[0].unlink()
        self.config.model_id = self.config.model_id  # no change
        self.assertEqual(self.run_cron(), ["/tags/P1"])

    def test_urls(self):
        for url in ("/people/{code}", "http://example.com/people", "http://example.com/people/{unknown}"):
            with self.subTest(url=url), self.assertRaisesRegex(ValidationError, "Deletion URL"):
                self.config.deletion_url = url


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
