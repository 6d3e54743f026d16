from odoo.fields import Command, Domain

from .common import ApiCase


class TestQuery(ApiCase):
    """Compiled conditions are kept only as long as they hold."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.user = cls.env["res.users"].create(
            {"name": "Q", "login": "q", "group_ids": [Command.link(cls.env.ref("base.group_user").id)]}
        )
        cls.partners = cls.env["res.partner"].create([{"name": name, "ref": f"Q-{name}"} for name in "abc"])

    def names(self, filter_domain="[('ref', '=like', 'Q-%')]", **context):
        config = self.partner_config(filter_domain=filter_domain, endpoint=f"q{self.env.cr.now().timestamp()}")
        query = self.env["bj.api.sync.query"].with_user(self.user).with_context(**context)
        plan = query.env["bj.api.sync.mapper"]._plan(config.id)
        names = "".join(query.env["res.partner"].browse(query._search(plan, order="id")).mapped("name"))
        config.unlink()
        return names

    def kept(self, filter_domain="[]"):
        return (
            self.env["bj.api.sync.query"].with_user(self.user)._get_conditions("res.partner", filter_domain) is not None
        )

    def test_follows_record_rules(self):
        self.assertEqual(self.names(), "abc")
        rule = self.env["ir.rule"].create(
            {
                "name": "not a",
                "model_id": self.env["ir.model"]._get_id("res.partner"),
                "domain_force": "[('name', '!=', 'a')]",
            }
        )
        self.assertEqual(self.names(), "bc")
        rule.domain_force = "[('name', '!=', 'b')]"
        self.assertEqual(self.names(), "ac")
        rule.unlink()
        self.assertEqual(self.names(), "abc")

    def test_follows_groups(self):
        group = self.env["res.groups"].create({"name": "Q"})
        self.env["ir.rule"].create(
            {
                "name": "only b",
                "model_id": self.env["ir.model"]._get_id("res.partner"),
                "domain_force": "[('name', '=', 'b')]",
                "groups": group.ids,
            }
        )
        self.assertEqual(self.names(), "abc")
        self.user.group_ids += group
        self.assertEqual(self.names(), "b")
        self.user.group_ids -= group
        self.assertEqual(self.names(), "abc")

    def test_follows_companies(self):
        other = self.env["res.company"].create({"name": "Q"})
        self.user.company_ids += other
        self.partners[0].company_id = other
        self.partners[1].company_id = self.user.company_id
        self.assertEqual(self.names(allowed_company_ids=self.user.company_id.ids), "bc")
        self.assertEqual(self.names(allowed_company_ids=other.ids), "ac")
        branch = self.env["res.company"].create({"name": "Q branch", "parent_id": other.id})
        self.user.company_ids += branch
        self.assertEqual(self.names(allowed_company_ids=branch.ids), "ac")

    def test_follows_archiving(self):
        self.partners[0].active = False
        self.assertEqual(self.names(), "bc")
        self.assertEqual(self.names("[('ref', '=like', 'Q-%'), ('active', 'in', [True, False])]"), "abc")

    def test_access_is_checked_every_time(self):
        self.assertEqual(self.names(), "abc")
        access = self.env["ir.model.access"].search([("model_id.model", "=", "res.partner")])
        access.active = False
        with self.assertRaises(Exception) as caught:
            self.names()
        self.assertEqual(type(caught.exception).__name__, "AccessError")

    def test_what_is_kept(self):
        for text in ("[]", "[('ref', '!=', False)]", "[('user_id', '=', uid)]", "[('country_id', 'in', [1, 2])]"):
            self.assertTrue(self.kept(text), text)
        for text in (
            "[('create_date', '>', datetime.now())]",
            "[('create_date', '>', '-1H')]",
            "[('create_date', '>=', 'today')]",
            "[('write_date', 'in', [False, '=monday'])]",
            "[('create_date', '>', context_today() - relativedelta(days=1))]",
            "[('country_id.code', '=', 'BE')]",
            "[('country_id', '=', 'Belgium')]",
            "[('category_id', 'in', [1])]",
            "[('parent_id', 'child_of', 1)]",
        ):
            self.assertFalse(self.kept(text), text)

    def test_follows_the_clock(self):
        """A time that is told from now is another one with each request; in record rules, too."""
        relative = "[('create_date', '>', '-1H')]"
        self.assertEqual((self.kept(relative), self.kept()), (False, True))
        model_id = self.env["ir.model"]._get_id("res.partner")
        self.env["ir.rule"].create({"name": "new", "model_id": model_id, "domain_force": relative})
        self.assertFalse(self.kept())

    def test_values(self):
        """A search by values finds what a domain finds, also what the database has as nothing."""
        config = self.partner_config(filter_domain="[('ref', '=like', 'Q-%')]", endpoint="q-values")
        query = self.env["bj.api.sync.query"].with_user(self.user)
        plan = query.env["bj.api.sync.mapper"]._plan(config.id)
        self.partners[1:].write({"color": 7, "function": "Smith", "country_id": self.env.ref("base.at").id})
        self.env.flush_all()
        self.env.cr.execute("UPDATE res_partner SET color = NULL WHERE id = %s", [self.partners[0].id])
        cases = {
            "color": [[7], [0], [0, 7]],
            "ref": [["Q-a", "Q-c"], ["nothing"], []],
            "country_id": [self.env.ref("base.at").ids],
            "id": [self.partners[:2].ids],
        }
        for name, several in cases.items():
            for values in several:
                with self.subTest(name=name, values=values):
                    found = set(query._search_values(query.env[plan.model], name, values, plan))
                    self.assertEqual(found, set(query._search(plan, Domain(name, "in", values))))

    def test_columns_follow_language_and_company(self):
        """Columns are kept, but one for each language of a translated field, and for each company of others."""
        self.env["res.lang"]._activate_lang("fr_FR")
        category = self.env["res.partner.category"].create({"name": "Blue"})
        category.with_context(lang="fr_FR").name = "Bleu"
        other = self.env["res.company"].create({"name": "Other"})
        self.user.company_ids += other
        partner = self.partners[0]
        partner.with_company(other).barcode, partner.barcode = "other", "own"

        configs = {
            record: self.config(record._name, ("id", "key"), (name, "value"), endpoint=f"q-{name}")
            for record, name in ((category, "name"), (partner, "barcode"))
        }

        def read(record, **context):
            mapper = self.env["bj.api.sync.mapper"].with_user(self.user).with_context(**context)
            return mapper._serialize(mapper._plan(configs[record].id), record.with_env(mapper.env))[0]["value"]

        mine, others = self.user.company_id.ids, other.ids
        for _time in range(2):
            self.assertEqual(read(category, lang="en_US"), "Blue")
            self.assertEqual(read(category, lang="fr_FR"), "Bleu")
            self.assertEqual(read(partner, allowed_company_ids=mine), "own")
            self.assertEqual(read(partner, allowed_company_ids=others), "other")
