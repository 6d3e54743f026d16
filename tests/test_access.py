from odoo.fields import Command
from odoo.tests import tagged

from .common import ApiHttpCase


@tagged("-at_install", "post_install")
class TestAccess(ApiHttpCase):
    """A request has the rights of its user in its company, no more."""

    def setUp(self):
        super().setUp()
        self.limited = self.new_user("limited", "base.group_user")
        self.partners = self.env["res.partner"].create(
            [{"name": "Ann", "ref": "T-1"}, {"name": "Bob", "ref": "T-2"}, {"name": "Zoe", "ref": "T-9"}]
        )
        self.config_in = self.partner_config(
            user_id=self.limited.id, filter_domain="[('ref', '=like', 'T-%')]", record_id_type="identifier"
        )

    def codes(self, query=""):
        body = self.assert_answer(self.call("GET", f"/people{query}"), 200)
        return [item["code"] for item in body["data"]]

    def rule(self, model, domain, **values):
        return self.env["ir.rule"].create(
            {"name": "Test", "model_id": self.env["ir.model"]._get_id(model), "domain_force": domain} | values
        )

    # rights

    def test_a_user_who_only_reads(self):
        self.assertEqual(self.codes(), ["T-1", "T-2", "T-9"])
        for method, path, payload in (
            ("POST", "/people", {"code": "T-3", "name": "New"}),
            ("POST", "/people", {"code": "T-1", "name": "Changed"}),
            ("PUT", "/people/T-1", {"name": "Changed"}),
            ("PATCH", "/people", {"code": "T-1", "name": "Changed"}),
            ("DELETE", "/people/T-1", None),
            ("DELETE", "/people", {"code": "T-1"}),
        ):
            with self.subTest(method=method, path=path):
                self.assert_answer(self.call(method, path, payload), 403)
        body = self.assert_answer(self.call("POST", "/people", [{"code": "T-1", "name": "x"}, {"code": "T-3"}]), 207)
        self.assertEqual([error["code"] for error in body["errors"]], [403, 403])
        self.assertEqual(self.partners.mapped("name"), ["Ann", "Bob", "Zoe"])
        self.assertFalse(self.env["res.partner"].search([("ref", "=", "T-3")]))

    def test_a_user_who_may_not_even_read(self):
        self.config("ir.cron", ("cron_name", "code"), endpoint="crons", user_id=self.limited.id)
        cron = self.env.ref("base.autovacuum_job")
        for path in ("/crons", f"/crons/{cron.id}"):
            with self.subTest(path=path):
                body = self.assert_answer(self.call("GET", path), 403)
                self.assertNotIn(cron.cron_name, str(body))

    def test_record_rules(self):
        self.limited.group_ids += self.env.ref("base.group_partner_manager")
        self.rule("res.partner", "[('ref', '!=', 'T-9')]")
        self.assertEqual(self.codes(), ["T-1", "T-2"])
        self.assertEqual(self.codes("?code=T-9"), [])
        self.assertEqual(self.assert_answer(self.call("GET", "/people?count=true"), 200)["meta"]["total"], 2)
        for method, path, payload in (
            ("GET", "/people/T-9", None),
            ("PUT", "/people/T-9", {"name": "Changed"}),
            ("PATCH", "/people", {"code": "T-9", "name": "Changed"}),
            ("DELETE", "/people/T-9", None),
            ("DELETE", "/people", "T-9"),
        ):
            with self.subTest(method=method, path=path):
                self.assert_answer(self.call(method, path, payload), 404)
        self.assert_answer(self.call("POST", "/people", {"code": "T-9", "name": "New"}), 403)
        self.assertEqual(self.partners.mapped("name"), ["Ann", "Bob", "Zoe"])
        self.assertEqual(self.env["res.partner"].search_count([("ref", "=", "T-9")]), 1)

    def test_rules_of_writing_only(self):
        self.limited.group_ids += self.env.ref("base.group_partner_manager")
        self.rule("res.partner", "[('ref', '!=', 'T-2')]", perm_read=False)
        self.assertEqual(self.codes(), ["T-1", "T-2", "T-9"])
        self.assert_answer(self.call("PUT", "/people/T-2", {"name": "Changed"}), 403)
        self.assert_answer(self.call("DELETE", "/people/T-2"), 403)
        payload = [{"code": "T-1", "name": "Anna"}, {"code": "T-2", "name": "Changed"}]
        body = self.assert_answer(self.call("PATCH", "/people", payload), 207)
        self.assertEqual((body["errors"][0]["index"], body["errors"][0]["code"]), (1, 403))
        self.assertEqual(self.partners.mapped("name"), ["Anna", "Bob", "Zoe"])

    def test_nested_records_need_rights_too(self):
        self.limited.group_ids += self.env.ref("base.group_partner_manager")
        tag = self.mapping("res.country", ("code", "code"), ("name", "name"))
        self.env["bj.api.sync.config.line"].create(
            {
                "config_id": self.config_in.id,
                "field_id": self.field("res.partner", "country_id"),
                "external_key": "country",
                "value_type": "relational",
                "mapping_config_id": tag.id,
                "relation_policy": "upsert",
            }
        )
        name = self.env.ref("base.be").name
        payload = {"code": "T-1", "country": {"code": "BE", "name": "Elsewhere"}}
        self.assert_answer(self.call("POST", "/people", payload), 403)
        self.assertEqual(self.env.ref("base.be").name, name)
        self.assert_answer(self.call("POST", "/people", {"code": "T-1", "country": {"code": "BE"}}), 200)
        self.assertEqual(self.partners[0].country_id, self.env.ref("base.be"))

    def test_fields_the_user_may_not_read(self):
        name = next(
            name
            for name, field in self.env["res.users"]._fields.items()
            if field.groups in ("base.group_erp_manager", "base.group_system") and not field.relational
        )
        self.config(
            "res.users",
            ("login", "login"),
            (name, "restricted", {"allow_restricted": True}),
            endpoint="users",
            user_id=self.limited.id,
            filter_domain="[('id', '=', uid)]",
        )
        body = self.assert_answer(self.call("GET", "/users"), 200)
        self.assertEqual(body["data"], [{"id": self.limited.id, "login": "limited"}])
        for query in ("restricted=1", "sort=restricted"):
            with self.subTest(query=query):
                self.assertIn(self.call("GET", f"/users?{query}").status_code, (400, 403))

    def test_never_superuser(self):
        lines = self.lines("res.partner", ("ref", "code"), ("name", "name"))
        script = "str(env.su) + ' ' + env.user.login + ' ' + str(record.env.su) + ' ' + str(model.env.su)"
        for values in (
            {"external_key": "seen", "field_id": self.field("res.partner", "city"), "script": f"{script}"},
            {"script_mode": "exec", "script": f"request_data['name'] = {script}"},
        ):
            lines.append(Command.create({"value_type": "script", "sequence": 9} | values))
        self.limited.group_ids += self.env.ref("base.group_partner_manager")
        self.partner_config(endpoint="su", line_ids=lines, user_id=self.limited.id)
        body = self.assert_answer(self.call("POST", "/su", {"code": "T-5"}), 201)
        self.assertEqual(body["data"]["name"], "False limited False False")
        self.assertEqual(body["data"]["seen"], "False limited False False")
        partner = self.env["res.partner"].browse(body["data"]["id"])
        self.assertEqual((partner.create_uid, partner.city), (self.limited, "False limited False False"))

    def test_a_script_that_writes_while_records_are_read(self):
        """Reading begins on a read-only cursor; what needs more gets it, from Odoo doing the request again."""
        script = {"value_type": "script", "script": "log('seen ' + record.ref) or record.city"}
        lines = self.lines("res.partner", ("ref", "code"), ("city", "city", script))
        config = self.partner_config(endpoint="seen", line_ids=lines, user_id=self.limited.id)
        self.assert_answer(self.call("GET", f"/seen/{self.partners[0].id}"), 200)
        self.assertEqual(
            self.env["bj.api.log"].search_count([("config_id", "=", config.id), ("name", "=", "seen T-1")]), 1
        )

    # the filter domain

    def test_filter_domain_of_the_user_and_day(self):
        self.partners[0].user_id = self.limited
        self.config_in.filter_domain = "[('user_id', '=', uid)]"
        self.assertEqual(self.codes(), ["T-1"])
        self.config_in.filter_domain = (
            "[('create_date', '>=', context_today()), ('create_date', '<', context_today() + relativedelta(days=1)), "
            "('ref', 'in', ('T-1', 'T-2'))]"
        )
        self.assertEqual(self.codes(), ["T-1", "T-2"])
        self.config_in.filter_domain = "[('create_date', '>', datetime.datetime.now() + timedelta(days=1))]"
        self.assertEqual(self.codes(), [])
        self.assert_answer(self.call("GET", "/people/T-1"), 404)

    def test_parameters_cannot_widen_the_domain(self):
        self.config_in.filter_domain = "[('ref', '=', 'T-1')]"
        self.assertEqual(self.codes("?code=T-2"), [])
        self.assertEqual(self.codes("?name=Bob"), [])
        self.assertEqual(self.codes("?updated_since=2000-01-01T00:00:00Z"), ["T-1"])


@tagged("-at_install", "post_install")
class TestCompanies(ApiHttpCase):
    """Two companies in one database."""

    def setUp(self):
        super().setUp()
        self.home = self.env.company
        self.away = self.env["res.company"].create({"name": "Away"})
        self.runner = self.new_user(
            "runner",
            "base.group_user,base.group_partner_manager",
            company_id=self.home.id,
            company_ids=[Command.set((self.home + self.away).ids)],
        )
        self.here, self.there, self.shared = self.env["res.partner"].create(
            [
                {"name": "Here", "ref": "T-H", "company_id": self.home.id},
                {"name": "There", "ref": "T-A", "company_id": self.away.id},
                {"name": "Shared", "ref": "T-S"},
            ]
        )
        self.config_in = self.partner_config(
            user_id=self.runner.id,
            company_id=self.away.id,
            filter_domain="[('ref', '=like', 'T-%')]",
            record_id_type="identifier",
        )

    def codes(self):
        return [item["code"] for item in self.assert_answer(self.call("GET", "/people"), 200)["data"]]

    def test_records_of_the_other_company(self):
        self.assertEqual(self.codes(), ["T-A", "T-S"])
        for method, path, payload in (
            ("GET", "/people/T-H", None),
            ("PUT", "/people/T-H", {"name": "x"}),
            ("PATCH", "/people", {"code": "T-H", "name": "x"}),
            ("DELETE", "/people/T-H", None),
        ):
            with self.subTest(method=method):
                self.assert_answer(self.call(method, path, payload), 404)
        self.assertEqual(self.here.name, "Here")
        self.config_in.company_id = self.home
        self.assertEqual(self.codes(), ["T-H", "T-S"])

    def test_new_records_are_of_the_configured_company(self):
        lines = self.lines("res.partner", ("ref", "code"), ("name", "name"))
        lines.append(
            Command.create(
                {
                    "external_key": "company",
                    "field_id": self.field("res.partner", "company_id"),
                    "value_type": "relational_script",
                    "script": "env.company",
                }
            )
        )
        self.partner_config(endpoint="mine", line_ids=lines, user_id=self.runner.id, company_id=self.away.id)
        body = self.assert_answer(self.call("POST", "/mine", {"code": "T-N", "name": "New"}), 201)
        partner = self.env["res.partner"].browse(body["data"]["id"])
        self.assertEqual((partner.company_id, body["data"]["company"]), (self.away, self.away.id))

    def test_default_company(self):
        """A model whose company has a default gets the configured one."""
        self.env.ref("base.user_admin").company_ids += self.away
        for company in (self.away, self.home):
            lines = [("name", "name"), ("company_id", "company")]
            config = self.config("product.pricelist", *lines, endpoint="lists", company_id=company.id)
            body = self.assert_answer(self.call("POST", "/lists", {"name": company.name}), 201)
            self.assertEqual(body["data"]["company"], company.id)
            config.unlink()

    def test_company_dependent_fields(self):
        config = self.config(
            "res.partner",
            ("ref", "code"),
            ("name", "name"),
            ("barcode", "barcode"),
            endpoint="codes",
            user_id=self.runner.id,
            company_id=self.away.id,
        )
        self.assertTrue(self.env["res.partner"]._fields["barcode"].company_dependent)
        self.shared.with_company(self.home).barcode = "HOME"
        self.assert_answer(self.call("PATCH", "/codes", {"code": "T-S", "barcode": "AWAY"}), 200)
        self.assertEqual(self.shared.with_company(self.home).barcode, "HOME")
        self.assertEqual(self.shared.with_company(self.away).barcode, "AWAY")
        body = self.assert_answer(self.call("GET", "/codes?barcode=AWAY"), 200)
        self.assertEqual([item["code"] for item in body["data"]], ["T-S"])
        config.company_id = self.home
        body = self.assert_answer(self.call("GET", f"/codes/{self.shared.id}"), 200)
        self.assertEqual(body["data"]["barcode"], "HOME")

    def test_a_user_who_lost_the_company(self):
        self.runner.company_ids = self.home
        self.assert_answer(self.call("GET", "/people"), 403)

    def test_the_company_of_an_api_key(self):
        self.config_in.write({"authorization_type": "odoo", "user_id": False})
        stranger = self.new_user("stranger", "base.group_user", company_id=self.home.id)
        for user, status in ((self.runner, 200), (stranger, 403)):
            key = self.env["res.users.apikeys"].with_user(user).sudo()._generate("rpc", "test", False)
            with self.subTest(user=user.login):
                self.assert_answer(self.call("GET", "/people", token=key), status)

    def test_without_company_it_is_that_of_the_user(self):
        self.config_in.company_id = False
        self.assertEqual(self.codes(), ["T-H", "T-S"])

    def test_logs_are_of_the_company(self):
        self.assert_answer(self.call("GET", "/people/T-H", headers={"X-Request-ID": "qa-company"}), 404)
        self.env["bj.api.log"]._flush_later()
        log = self.env["bj.api.log"].search([("trace_id", "=", "qa-company")])
        self.assertEqual((log.company_id, log.user_id), (self.away, self.runner))
