from contextlib import contextmanager
from unittest.mock import patch

from odoo.sql_db import Cursor
from odoo.tests import tagged

from ..tools.plan import Batch
from .test_mapping import MappingCase

FEW, MANY = 10, 100


@tagged("-at_install", "post_install")
class TestQueries(MappingCase):
    """The queries of a request do not grow with its records, beyond those of Odoo's own create and write."""

    def setUp(self):
        super().setUp()
        self.country = self.mapping("res.country", ("code", "iso"), ("name", "name"))
        self.tag = self.mapping("res.partner.category", ("name", "name"), ("color", "color"))
        self.person = self.mapping(
            "res.partner",
            ("ref", "code"),
            ("name", "name"),
            ("type", "kind"),  # a contact would take over its company's address
            ("category_id", "tags", self.relation(self.tag, "upsert")),
            ("country_id", "country", self.relation(self.country)),
        )
        self.flat = self.partner_config(endpoint="q-flat", filter_domain="[('ref', '=like', 'Q%')]")
        self.nested = self.config(
            "res.partner",
            ("ref", "code"),
            ("name", "name"),
            ("country_id", "country", self.relation(self.country)),
            ("user_id", "seller"),
            ("child_ids", "people", self.relation(self.person)),
            ("city", "place", {"value_type": "script", "script": "(record.city or '').upper()"}),
            endpoint="q-nested",
            filter_domain="[('ref', '=like', 'Q%')]",
        )

    def relation(self, mapping, policy="link"):
        return {"value_type": "relational", "mapping_config_id": mapping.id, "relation_policy": policy}

    def item(self, number):
        return {"code": f"Q{number}", "name": f"Name {number}", "address": {"city": "Ulm"}, "color": number % 10}

    def document(self, number, people=2):
        return {
            "code": f"Q{number}",
            "name": f"Company {number}",
            "country": {"iso": ("BE", "DE")[number % 2]},
            "people": [
                {
                    "code": f"P{number}-{child}",
                    "name": f"Person {child}",
                    "kind": "other",
                    "tags": [{"name": f"Q-Tag {number % 3}", "color": 1}, {"name": "Q-Both"}],
                    "country": "FR",
                }
                for child in range(people)
            ],
        }

    @contextmanager
    def statements(self):
        """Collect the SQL that is run, by its first words; it runs as ever."""
        found = []
        original = Cursor.execute

        def spy(cursor, query, *args, **kwargs):
            text = query.code if hasattr(query, "code") else query
            found.append(" ".join(str(text).split())[:300])
            return original(cursor, query, *args, **kwargs)

        with patch.object(Cursor, "execute", spy):
            yield found

    def count(self, work):
        """Return the statements of some work on an empty cache, its compiled plans being there already."""
        self.env.flush_all()
        self.env.invalidate_all()
        with self.statements() as found:
            work()
        self.assertTrue(found)
        return found

    def assert_as_few(self, few, many):
        """Compare the statements for FEW records with those for MANY."""
        self.assertEqual(len(few), len(many), "\n".join(["", *few, "---- many ----", *many]))

    def make(self, config, make_item):
        for start in range(0, MANY, FEW):
            self.handle(config, "POST", [make_item(number) for number in range(start, start + FEW)])

    # reading

    def test_list(self):
        self.make(self.flat, self.item)
        self.handle(self.flat, "GET", limit="1")
        few = self.count(lambda: self.handle(self.flat, "GET", limit=str(FEW)))
        many = self.count(
            lambda: self.assertEqual(len(self.handle(self.flat, "GET", limit=str(MANY)).record_ids), MANY)
        )
        self.assert_as_few(few, many)
        self.assertLessEqual(len(many), 4, many)  # two of them are this test's own

    def test_nested_list(self):
        self.make(self.nested, self.document)
        self.handle(self.nested, "GET", limit="1")
        few = self.count(lambda: self.handle(self.nested, "GET", limit=str(FEW)))
        answer = []
        many = self.count(lambda: answer.append(self.handle(self.nested, "GET", limit=str(MANY))))
        self.assert_as_few(few, many)
        body = answer[0].body
        self.assertEqual(sum(len(item["people"]) for item in body["data"]), 2 * MANY)
        self.assertEqual(body["data"][0]["people"][0]["country"]["iso"], "FR")

    def test_outbound_payloads(self):
        self.make(self.nested, self.document)
        partners = self.as_admin("res.partner").search([("ref", "=like", "Q%")])
        self.assertEqual(len(partners), MANY)
        mapper = self.as_admin("bj.api.sync.mapper")
        plan = mapper._plan(self.nested.id, "out")
        mapper._serialize(plan, partners[:1])
        few = self.count(lambda: mapper._serialize(plan, partners[:FEW].with_prefetch()))
        many = self.count(lambda: mapper._serialize(plan, partners))
        self.assert_as_few(few, many)

    # writing: what the engine asks before anything is written

    def parse(self, config, payloads):
        mapper = self.as_admin("bj.api.sync.mapper")
        plan = mapper._plan(config.id)
        batch = Batch.of(payloads)
        rows = mapper._parse(plan, batch)
        self.assertFalse(batch.errors)
        return rows

    def assert_parsing_as_few(self, config, make_item):
        self.parse(config, [make_item(0)])
        few = self.count(lambda: self.parse(config, [make_item(n) for n in range(FEW)]))
        many = self.count(lambda: self.parse(config, [make_item(n) for n in range(MANY)]))
        self.assert_as_few(few, many)

    def test_mapping_of_new_records(self):
        self.assert_parsing_as_few(self.flat, self.item)
        self.assert_parsing_as_few(self.nested, self.document)

    def test_mapping_of_existing_records(self):
        for config, make_item in ((self.flat, self.item), (self.nested, self.document)):
            self.make(config, make_item)
            self.assert_parsing_as_few(config, make_item)

    def test_creating_is_one_create_a_model(self):
        for number in (FEW, MANY):
            payloads = [self.document(n) | {"code": f"Q{number}-{n}"} for n in range(number)]
            with (
                self.counted("res.partner", "create") as partners,
                self.counted("res.partner.category", "create") as tags,
            ):
                self.handle(self.nested, "POST", payloads)
            with self.subTest(number=number):
                self.assertEqual(len(partners[0][1]), number)
                self.assertLessEqual(len(partners), 2)  # the companies, and all their people in one more call
                self.assertLessEqual(len(tags), 1)

    def test_inserts_do_not_grow(self):
        def inserts(number, prefix):
            payloads = [self.item(n) | {"code": f"Q{prefix}{n}"} for n in range(number)]
            found = self.count(lambda: self.handle(self.flat, "POST", payloads))
            return [text for text in found if text.startswith("INSERT INTO")]

        inserts(1, "w")
        self.assert_as_few(inserts(FEW, "a"), inserts(MANY, "b"))

    def assert_only_read(self, config, make_item):
        self.make(config, make_item)
        self.handle(config, "POST", [make_item(0)])
        few = self.count(lambda: self.handle(config, "POST", [make_item(n) for n in range(FEW)]))
        many = self.count(lambda: self.handle(config, "POST", [make_item(n) for n in range(MANY)]))
        self.assert_as_few(few, many)
        self.assertEqual([text for text in many if text.split()[0] in ("INSERT", "UPDATE", "DELETE")], [])

    def test_unchanged_records_are_only_read(self):
        self.assert_only_read(self.flat, self.item)

    def test_unchanged_nested_records_are_only_read(self):
        self.assert_only_read(self.nested, self.document)

    def test_equal_changes_are_one_write(self):
        self.make(self.flat, self.item)
        with self.counted("res.partner") as writes:
            self.handle(self.flat, "PATCH", [{"code": f"Q{n}", "address": {"city": "Bern"}} for n in range(MANY)])
        self.assertEqual([(len(records), values) for records, values in writes], [(MANY, {"city": "Bern"})])

    def test_bare_identifiers(self):
        """Scalars are looked up together as well."""
        self.person.line_ids.filtered(lambda line: line.external_key == "tags").relation_policy = "link"
        self.env["res.partner.category"].create([{"name": f"Q-Tag {n}"} for n in range(MANY)])
        payloads = [
            {
                "code": f"Q{n}",
                "name": "x",
                "country": "BE",
                "people": [{"name": "y", "kind": "other", "tags": [f"Q-Tag {n}"]}],
            }
            for n in range(MANY)
        ]
        self.parse(self.nested, payloads[:1])
        few = self.count(lambda: self.parse(self.nested, payloads[:FEW]))
        many = self.count(lambda: self.parse(self.nested, payloads))
        self.assert_as_few(few, many)
