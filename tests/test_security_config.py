from odoo.exceptions import AccessError, ValidationError
from odoo.fields import Command
from odoo.tests import Form, new_test_user, tagged

from .common import ApiCase

SECRETS = ("login", "password", "bearer_token")


@tagged("-at_install", "post_install")
class TestSecurityConfig(ApiCase):
    """Who sees and changes configurations."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.user = new_test_user(cls.env, "api_user", "bj_api_sync.group_user")
        cls.manager = new_test_user(cls.env, "api_manager", "bj_api_sync.group_manager")
        cls.stranger = new_test_user(cls.env, "stranger", "base.group_user")

    def setUp(self):
        super().setUp()
        self.config_in = self.partner_config(
            header_ids=[Command.create({"key": "X-Key", "value": "hidden", "purpose": "require"})]
        )

    def as_user(self, user, record=None):
        return (record or self.config_in).with_user(user)

    def test_user_reads_without_secrets(self):
        config = self.as_user(self.user)
        self.assertEqual(config.line_ids[0].field_id.sudo().name, "ref")
        self.assertTrue(config.endpoint_url)
        for name in SECRETS:
            with self.subTest(name=name), self.assertRaises(AccessError):
                config.read([name])
            self.assertNotIn(name, config.fields_get())
        with self.assertRaises(AccessError):
            config.header_ids.read(["value"])
        self.assertNotIn("hidden", str(config.header_ids.read()))

    def test_user_finds_no_secret(self):
        with self.assertRaises(AccessError):
            self.env["bj.api.sync.config"].with_user(self.user).search([("bearer_token", "=like", "s%")])

    def test_user_changes_nothing(self):
        config = self.as_user(self.user)
        for records, values in (
            (config, {"name": "x"}),
            (config.line_ids, {"external_key": "x"}),
            (config.header_ids, {"key": "x"}),
        ):
            with self.subTest(model=records._name), self.assertRaises(AccessError):
                records.write(values)
        with self.assertRaises(AccessError):
            config.copy()

    def test_user_sees_the_form(self):
        views = self.env["bj.api.sync.config"].with_user(self.user).get_views([(False, "form"), (False, "list")])
        self.assertNotIn('name="bearer_token"', views["views"]["form"]["arch"])
        self.assertNotIn('name="value"', views["views"]["form"]["arch"])
        Form(self.as_user(self.user))

    def test_manager(self):
        config = self.as_user(self.manager)
        self.assertEqual(config.bearer_token, "s3cret-token")
        self.assertEqual(config.header_ids.value, "hidden")
        with Form(config) as form:
            form.name = "Changed"
            form.endpoint = "changed"
            with form.line_ids.new() as line:
                line.field_id = (
                    self.env["ir.model.fields"]
                    .with_user(self.manager)
                    .search([("model", "=", "res.partner"), ("name", "=", "function")])
                )
                line.external_key = "role"
        self.assertEqual(config.line_ids[-1].external_key, "role")
        config.unlink()

    def test_administrator(self):
        administrator = new_test_user(self.env, "admin2", "base.group_system")
        self.assertEqual(self.as_user(administrator).bearer_token, "s3cret-token")

    def test_stranger(self):
        with self.assertRaises(AccessError):
            self.as_user(self.stranger).read(["name"])

    def test_company(self):
        company = self.env["res.company"].create({"name": "Elsewhere"})
        admin = self.env.ref("base.user_admin")
        admin.company_ids += company
        self.config_in.company_id = company
        visible = self.env["bj.api.sync.config"].with_user(self.manager).search([])
        self.assertNotIn(self.config_in, visible)
        with self.assertRaises(AccessError):
            self.as_user(self.manager).read(["name"])
        for records in (self.config_in.line_ids, self.config_in.header_ids):
            with self.subTest(model=records._name), self.assertRaises(AccessError):
                records.with_user(self.manager).read(["config_id"])
        self.manager.company_ids += company
        self.assertTrue(self.as_user(self.manager).with_context(allowed_company_ids=company.ids).read(["name"]))
        self.config_in.company_id = False
        self.assertTrue(self.as_user(self.user).read(["name"]))

    def test_company_of_all_that_belongs_to_a_configuration(self):
        """Who may read a model at all reads nothing of another company's configurations."""
        company = self.env["res.company"].create({"name": "Elsewhere"})
        self.env.ref("base.user_admin").company_ids += company
        self.config_in.company_id = company
        stored = {"status": 200, "headers": "{}", "body": "hidden", "fingerprint": "x"}
        values = {"config_id": self.config_in.id, "key": "k", "user_id": self.manager.id}
        key = self.env["bj.api.idempotency.key"].create(values | stored)
        with self.assertRaises(AccessError):
            key.with_user(self.manager).read(["body"])
        for name, model in self.registry.items():
            own = (
                name.startswith("bj.api") and not (model._abstract or model._transient) and "config_id" in model._fields
            )
            if own and self.env[name].with_user(self.manager).has_access("read"):
                with self.subTest(model=name):
                    self.assertTrue(self.env["ir.rule"].search_count([("model_id.model", "=", name)]))
        wizard = self.env["bj.api.sync.redrive"].with_user(self.manager).create({"config_id": self.config_in.id})
        with self.assertRaises(AccessError):
            wizard.read(["count"])

    def test_configurations_of_another_company(self):
        """Who guesses the id of one can neither nest nor preview it."""
        company = self.env["res.company"].create({"name": "Elsewhere"})
        self.env.ref("base.user_admin").company_ids += company
        mapping = self.mapping("res.country", ("code", "code"), company_id=company.id)
        with self.assertRaises(AccessError):
            self.as_user(self.manager, self.config_in.line_ids[0]).write(
                {
                    "field_id": self.field("res.partner", "country_id"),
                    "is_record_identifier": False,
                    "value_type": "relational",
                    "mapping_config_id": mapping.id,
                }
            )
        country = {"field_id": self.field("res.partner", "country_id"), "external_key": "country"}
        lines = self.env["bj.api.sync.config.line"].with_user(self.manager)
        with self.assertRaises(AccessError):
            lines.with_context(default_mapping_config_id=mapping.id).create(
                country | {"config_id": self.config_in.id, "value_type": "relational"}
            )
        self.config_in.company_id = company
        record = self.env.user.partner_id
        wizards = self.env["bj.api.sync.preview"].with_user(self.manager)
        with self.assertRaises(AccessError):
            wizards.create({"config_id": self.config_in.id, "record": f"res.partner,{record.id}"}).read(["payload"])

    def test_scripts(self):
        """Who writes scripts writes server code: a manager alone may not."""
        values = {
            "config_id": self.config_in.id,
            "field_id": self.field("res.partner", "vat"),
            "external_key": "vat",
            "value_type": "script",
            "script": "record.vat",
        }
        lines = self.env["bj.api.sync.config.line"]
        with self.assertRaisesRegex(AccessError, "server actions"):
            lines.with_user(self.manager).create(values)
        line = lines.with_user(self.env.ref("base.user_admin")).create(values)
        with self.assertRaisesRegex(AccessError, "server actions"):
            line.with_user(self.manager).script = "env.cr"
        with self.assertRaisesRegex(AccessError, "server actions"):
            self.as_user(self.manager).write({"line_ids": [Command.update(line.id, {"script": "env.cr"})]})
        line.with_user(self.manager).external_key = "tax_id"

    def test_scripts_by_default(self):
        """Nor by what a new record begins with: of the context, or kept by the user."""
        values = {
            "config_id": self.config_in.id,
            "field_id": self.field("res.partner", "vat"),
            "external_key": "vat",
            "value_type": "script",
        }
        lines = self.env["bj.api.sync.config.line"].with_user(self.manager)
        with self.assertRaisesRegex(AccessError, "server actions"):
            lines.with_context(default_script="env.cr").create(values)
        with self.assertRaisesRegex(AccessError, "server actions"):
            self.as_user(self.manager).with_context(default_script="env.cr").line_ids = [Command.create(values)]
        self.env["ir.default"].with_user(self.manager).set(lines._name, "script", "env.cr", user_id=True)
        with self.assertRaisesRegex(AccessError, "server actions"):
            lines.create(values)
        configs = self.env["bj.api.sync.config"].with_user(self.manager).with_context(default_header_script="1")
        with self.assertRaisesRegex(AccessError, "server actions"):
            configs.create({"name": "Out", "model_id": self.config_in.model_id.id})

    def test_filter_domain_is_no_code(self):
        """Requests evaluate it, and what it says it is wrong with tells more than a manager may know."""
        config = self.as_user(self.manager)
        for domain in (
            "[('name', '=', '{0.__globals__}'.format(context_today))]",
            "[('name', '=', '{0.real}'.format_map({}))]",
            "[('id', 'in', [x for x in (1, 2)])]",
            "(lambda: [])()",
            "[('name', '=', f'{uid}')]",
        ):
            with self.subTest(domain=domain), self.assertRaisesRegex(ValidationError, "cannot be used here"):
                config.filter_domain = domain

    def test_menus(self):
        for user, found in ((self.user, True), (self.manager, True), (self.stranger, False)):
            menus = self.env["ir.ui.menu"].with_user(user)._visible_menu_ids()
            with self.subTest(user=user.login):
                self.assertEqual(self.env.ref("bj_api_sync.menu_config").id in menus, found)
