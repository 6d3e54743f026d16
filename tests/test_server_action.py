from odoo.exceptions import UserError, ValidationError
from odoo.tests import Form, new_test_user, tagged

from .common_outbound import OutboundCase


@tagged("post_install", "-at_install")
class TestServerAction(OutboundCase):
    """The server action type "Push to API", and calls from code."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.action = cls.make_action(state="bj_api_sync", bj_api_sync_config_id=cls.config.id)

    @classmethod
    def make_action(cls, **values):
        model = cls.env["ir.model"]._get_id("res.partner")
        return cls.env["ir.actions.server"].create({"name": "Push", "model_id": model, **values})

    def run_action(self, records, action=None):
        context = {"active_model": records._name, "active_ids": records.ids, "active_id": records[:1].id}
        return (action or self.action).with_context(**context).run()

    def test_many_records(self):
        self.config.filter_domain = "[('ref', '!=', 'P5')]"
        answer = self.run_action(self.partners)
        self.assertFalse(self.receiver.requests, "nothing is sent before the commit")
        self.assertEqual((answer["tag"], answer["params"]["type"]), ("display_notification", "success"))
        self.assertIn("4 queued, 1 skipped.", answer["params"]["message"])
        self.env["bj.api.delivery"]._cron_dispatch()
        self.assertEqual(len(self.receiver.requests), 4)

    def test_pages(self):
        self.config.is_paginated = True
        self.run_action(self.partners)
        self.env["bj.api.delivery"]._cron_dispatch()
        self.assertEqual([len(request.json) for request in self.receiver.requests], [5])

    def test_users_without_api_groups_may_run_it(self):
        clerk = new_test_user(self.env, "clerk", "base.group_user,base.group_partner_manager")
        action = self.action.with_user(clerk)
        self.run_action(self.partner.with_user(clerk), action)
        self.env["bj.api.delivery"]._cron_dispatch()
        self.assertEqual(len(self.receiver.requests), 1)
        self.assertEqual(self.logs().user_id, clerk)

    def test_action_menu(self):
        self.action.create_action()
        bindings = self.env["ir.actions.actions"].get_bindings("res.partner")
        self.assertIn(self.action.id, [binding["id"] for binding in bindings["action"]])

    def test_scheduled_action(self):
        self.config.filter_domain = "[('ref', 'in', ['P1', 'P2'])]"
        cron = self.env["ir.cron"].create(
            {
                "name": "Push partners",
                "model_id": self.action.model_id.id,
                "state": "bj_api_sync",
                "bj_api_sync_config_id": self.config.id,
            }
        )
        cron.with_user(self.env.ref("base.user_root")).ir_actions_server_id.run()
        self.env["bj.api.delivery"]._cron_dispatch()
        self.assertEqual(sorted(request.json["code"] for request in self.receiver.requests), ["P1", "P2"])

    def test_execute_code_in_both_forms(self):
        for call in (
            "configs._make_outbound_http_request(record_ids=records, config_id_ref=%d)",
            "configs.browse(%d)._make_outbound_http_request(records.ids)",
        ):
            self.receiver.clear()
            code = f"configs = env['bj.api.sync.config']\nresult = {call % self.config.id}\n"
            code += "if not result.success or result['status_code'] != 200: raise UserError(result.error)"
            self.run_action(self.partners[:2], self.make_action(state="code", code=code))
            self.assertEqual(len(self.receiver.requests), 2)

    def test_form(self):
        with Form(self.env["ir.actions.server"].with_context(default_model_id=self.action.model_id.id)) as form:
            form.state = "bj_api_sync"
            form.bj_api_sync_config_id = self.config
            self.assertEqual(form.name, "Push to Partners out")
        action = form.save()
        self.assertFalse(action.warning)
        action.model_id = self.env["ir.model"]._get("res.users")
        self.assertFalse(action.bj_api_sync_config_id)

    def test_configuration_that_cannot_send(self):
        for values, message in (
            ({"request_type": "in", "endpoint": "test-action"}, "inbound"),
            ({"model_id": self.env["ir.model"]._get_id("res.country"), "line_ids": False}, "not of res.partner"),
        ):
            config = self.make_config(**values)
            action = self.make_action(state="bj_api_sync", bj_api_sync_config_id=config.id)
            with self.subTest(values=values), self.assertRaisesRegex(UserError, message):
                self.run_action(self.partner, action)

    def test_configuration_in_use(self):
        with self.assertRaisesRegex(ValidationError, f"used by: {self.action.name}"):
            self.config.unlink()
        self.action.unlink()
        self.config.unlink()
