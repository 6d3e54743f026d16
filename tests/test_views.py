from lxml import etree

from odoo.tests import Form, tagged

from .common import ApiCase


@tagged("-at_install", "post_install")
class TestViews(ApiCase):
    """The form shows what the chosen types need, and asks for it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.env = cls.env(user=cls.env.ref("base.user_admin"))

    def form(self, request_type, **values):
        form = Form(self.env["bj.api.sync.config"])
        form.name = "Contacts"
        form.request_type = request_type
        form.model_id = self.env["ir.model"]._get("res.partner")
        for name, value in values.items():
            form[name] = value
        return form

    def visible(self, form, *names):
        return [name for name in names if not form._get_modifier(name, "invisible")]

    def required(self, form, *names):
        return [name for name in names if form._get_modifier(name, "required")]

    def test_in(self):
        form = self.form("in", endpoint="test-in")
        names = (
            "endpoint",
            "request_url",
            "read_timeout",
            "trigger_action_model",
            "user_id",
            "strict_keys",
            "page_size",
        )
        self.assertEqual(self.visible(form, *names), ["endpoint", "user_id", "strict_keys"])
        self.assertEqual(
            self.required(form, "http_method_ids", "bearer_token", "login", "user_id", "request_url"),
            ["http_method_ids", "bearer_token", "user_id"],
        )
        form.is_paginated = True
        self.assertEqual(self.visible(form, "page_size"), ["page_size"])
        form.http_method_ids.add(self.env.ref("bj_api_sync.http_method_get"))
        form.bearer_token = "Bearer abc"
        config = form.save()
        self.assertEqual((config.bearer_token, config.user_id), ("abc", self.env.user))

    def test_signed_webhook_and_limits(self):
        names = ("bearer_token", "signing_style", "signing_secret", "signing_secret_previous", "rate_limit")
        form = self.form("in")
        self.assertEqual(self.visible(form, *names), ["bearer_token"])
        form.endpoint = "test-hook"
        form.authorization_type = "hmac"
        self.assertEqual(self.visible(form, *names), list(names[1:]))
        self.assertEqual(self.required(form, *names), ["signing_style", "signing_secret"])

    def test_mapping_only(self):
        form = self.form("in")
        self.assertFalse(self.required(form, "http_method_ids", "bearer_token", "user_id"))
        self.assertTrue(form.save())

    def test_out(self):
        form = self.form("out")
        names = (
            "endpoint",
            "request_url",
            "read_timeout",
            "trigger_action_model",
            "trigger_action",
            "user_id",
            "strict_keys",
        )
        self.assertEqual(self.visible(form, *names), ["request_url", "read_timeout", "trigger_action_model", "user_id"])
        names = ["http_method_ids", "request_url", "user_id"]
        self.assertEqual(self.required(form, *names), names)
        form.http_method_ids.add(self.env.ref("bj_api_sync.http_method_post"))
        form.request_url = "https://example.com"
        form.bearer_token = "abc"
        self.assertEqual(form.save().request_url, "https://example.com")

    def test_authorization_types(self):
        form = self.form("in", authorization_type="odoo")
        self.assertIn("odoo", form.authorization_types)
        self.assertFalse(self.visible(form, "user_id", "login", "password", "bearer_token"))
        form.request_type = "out"
        self.assertNotIn("odoo", form.authorization_types)
        self.assertEqual(form.authorization_type, "bearer")
        form.authorization_type = "basic"
        self.assertEqual(self.visible(form, "login", "password", "bearer_token"), ["login", "password"])
        self.assertEqual(self.required(form, "login", "password", "bearer_token"), ["login", "password"])
        form.authorization_type = "none"
        self.assertFalse(self.visible(form, "login", "password", "bearer_token"))

    def test_trigger(self):
        form = self.form("out", trigger_action_model="ir.cron")
        self.assertEqual(self.visible(form, "trigger_action"), ["trigger_action"])
        form.trigger_action = self.env.ref("base.autovacuum_job").id
        form.trigger_action_model = "ir.actions.server"
        self.assertFalse(form.trigger_action)

    def test_lines(self):
        mapping = self.mapping("res.country", ("code", "code"))
        form = self.form("in")
        with form.line_ids.new() as line:
            line.field_id = self.env["ir.model.fields"]._get("res.partner", "country_id")
            line.external_key = "country"
            self.assertFalse(line._get_modifier("mapping_config_id", "required"))
            line.value_type = "relational"
            self.assertTrue(line._get_modifier("mapping_config_id", "required"))
            line.mapping_config_id = mapping
        with form.line_ids.new() as line:
            line.value_type = "script"
            self.assertFalse(line._get_modifier("field_id", "required"), "its dialog opens first")
            line.external_key = "vat"
            line.field_id = self.env["ir.model.fields"]._get("res.partner", "vat")
        config = self.mapping(
            "res.partner", ("vat", "vat", {"value_type": "script", "script": "1", "is_record_identifier": False})
        )
        with Form(config.line_ids, "bj_api_sync.view_bj_api_sync_config_line_form") as line:
            self.assertTrue(line._get_modifier("script", "required"))
            self.assertTrue(line._get_modifier("field_id", "required"))
            line.script_mode = "exec"
            line.script = "x = 1"
            self.assertFalse(line._get_modifier("external_key", "required"))

    def test_another_model(self):
        config = self.partner_config(filter_domain="[('ref', '!=', False)]")
        with Form(config) as form:
            form.model_id = self.env["ir.model"]._get("res.country")
            self.assertFalse(len(form.line_ids))
            self.assertEqual(form.filter_domain, "[]")
            with form.line_ids.new() as line:
                line.field_id = self.env["ir.model.fields"]._get("res.country", "code")
                line.external_key = "code"
                line.is_record_identifier = True
        self.assertEqual(config.line_ids.field_id.name, "code")

    def test_everything_has_a_name(self):
        """Others inherit the views by the names of their groups, pages and buttons."""
        views = self.env["ir.ui.view"].search([("model", "=like", "bj.api%"), ("inherit_id", "=", False)])
        self.assertTrue(views)
        for view in views:
            tree = view._get_combined_arch()
            for node in tree.xpath("//group[not(ancestor::search)] | //page | //button | //filter"):
                self.assertTrue(node.get("name"), f"{view.name}: {node.tag} {node.get('string')}")

    def test_search_of_logs(self):
        self.assertIn('<field name="url"', self.env["bj.api.log"].get_view(view_type="search")["arch"])

    def test_what_comes_first(self):
        """Lines and parameters are of a model: without one the form says what is missing, instead of nothing."""
        arch = etree.fromstring(self.env["bj.api.sync.config"].get_view(view_type="form")["arch"])
        for name in ("lines_model", "params_model"):
            [hint] = arch.xpath(f"//p[@name='{name}']")
            self.assertEqual(hint.get("invisible"), "model_id")
            self.assertIn("Choose the Model first", hint.text)
