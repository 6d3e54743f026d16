import base64
from contextlib import contextmanager
from datetime import date, datetime
from unittest.mock import patch

from odoo.exceptions import UserError, ValidationError
from odoo.fields import Command
from odoo.tests import new_test_user, tagged
from odoo.tools import mute_logger

from ..exceptions import BadPayload
from ..tools import codec
from ..tools.plan import Operation
from .common import ApiCase


class MappingCase(ApiCase):
    """The engine as a request uses it, without the request."""

    def as_admin(self, model):
        return self.env[model].with_user(self.env.ref("base.user_admin"))

    def handle(self, config, method, payload=None, ref="", **args):
        inbound = self.as_admin("bj.api.sync.inbound")
        endpoint = inbound._endpoint(config.endpoint)
        args = {key: [text] for key, text in args.items()}
        answer = inbound._handle(endpoint, Operation(method, ref, args, payload))
        self.env.flush_all()
        return answer

    def post(self, config, payload):
        """Post one object; return its record and what is answered."""
        answer = self.handle(config, "POST", payload)
        data = answer.body["data"]
        return self.env[config.model_name].browse(data["id"]), data

    def read(self, config, record):
        """Return what a GET answers of a record, without its id."""
        data = self.handle(config, "GET", ref=str(record.id)).body["data"]
        return {key: value for key, value in data.items() if key != "id"}

    @contextmanager
    def refused(self, *pointers, status=400, message=""):
        """Expect a refusal with exactly these pointers."""
        with self.assertRaises(BadPayload) as caught, self.env.cr.savepoint():
            yield caught
        errors = caught.exception.errors
        self.assertEqual(sorted(error["pointer"] for error in errors), sorted(pointers), errors)
        self.assertEqual(caught.exception.http_status, status)
        self.assertIn(message, " ".join(error["message"] for error in errors))

    @contextmanager
    def counted(self, model, method="write"):
        """Collect the calls of a method of a model, as (records, values); it runs as ever."""
        calls = []
        cls = type(self.env[model])
        original = getattr(cls, method)

        def spy(records, values):
            calls.append((records, values))
            return original(records, values)

        with patch.object(cls, method, spy):
            yield calls


@tagged("-at_install", "post_install")
class TestPlain(MappingCase):
    """Plain values and dotted keys on real fields."""

    def test_reference(self):
        """A reference is to a record that exists, of a model the field allows: the ORM checks neither kindly."""
        config = self.config("ir.ui.menu", ("name", "name"), ("action", "action"), endpoint="menus")
        action = self.env.ref("bj_api_sync.action_bj_api_log")
        menu, data = self.post(config, {"name": "Reference", "action": f"ir.actions.act_window,{action.id}"})
        self.assertEqual((menu.action, data["action"]), (action, f"ir.actions.act_window,{action.id}"))
        for value in ("ir.actions.act_window,2147483647", "res.partner,1", "no.model,1", "ir.actions.act_window,0"):
            with self.refused("/action"):
                self.handle(config, "POST", {"name": "Reference", "action": value})
        self.handle(config, "POST", {"name": "Reference", "action": None})
        self.assertFalse(menu.action)

    def test_every_type_both_ways(self):
        config = self.config(
            "res.partner",
            ("ref", "code"),
            ("name", "name"),
            ("comment", "note"),
            ("color", "color"),
            ("partner_latitude", "geo.lat"),
            ("is_company", "company"),
            ("type", "kind"),
            ("image_1920", "image"),
            ("country_id", "country"),
            ("category_id", "tags"),
            ("child_ids", "children"),
            endpoint="t-types",
        )
        tag = self.env["res.partner.category"].create({"name": "Gold"})
        image = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
        payload = {
            "code": "T-1",
            "name": "Ann",
            "note": "<p>Hello</p>",
            "color": 7,
            "geo": {"lat": 1.5},
            "company": True,
            "kind": "invoice",
            "image": image,
            "country": self.env.ref("base.be").id,
            "tags": [tag.id],
            "children": [],
        }
        partner, data = self.post(config, payload)
        self.assertEqual((partner.color, partner.partner_latitude, partner.category_id), (7, 1.5, tag))
        self.assertEqual(base64.b64decode(partner.image_1920)[:4], b"\x89PNG")
        self.assertEqual(data | {"image": image}, payload | {"id": partner.id})
        self.assertEqual(base64.b64decode(data["image"])[:4], b"\x89PNG")

    def test_dates(self):
        config = self.config(
            "res.currency.rate", ("currency_id", "currency"), ("name", "day"), ("create_date", "at"), endpoint="t-rates"
        )
        currency = self.env["res.currency"].create({"name": "QQQ", "symbol": "Q"})
        rate, data = self.post(config, {"currency": currency.id, "day": "2026-01-31"})
        self.assertEqual((rate.name, data["day"]), (date(2026, 1, 31), "2026-01-31"))
        self.assertRegex(data["at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")

    def test_datetime_is_stored_as_utc(self):
        config = self.config("ir.cron", ("cron_name", "code"), ("nextcall", "next"), endpoint="t-crons")
        cron = self.env.ref("base.autovacuum_job")
        self.handle(config, "PUT", {"next": "2031-01-31T15:05:00+02:00"}, ref=str(cron.id))
        self.assertEqual(cron.nextcall, datetime(2031, 1, 31, 13, 5))
        self.assertEqual(self.read(config, cron)["next"], "2031-01-31T13:05:00Z")

    def test_moments_of_the_database(self):
        """PostgreSQL writes moments as the codec does."""
        config = self.config("ir.cron", ("lastcall", "last"), endpoint="t-moments")
        plan = self.env["bj.api.sync.mapper"]._plan(config.id)
        cron = self.env.ref("base.autovacuum_job")
        for moment in ("2031-01-31 13:05:09.999999", "0042-02-03 00:00:00", "9999-12-31 23:59:59.5", None):
            self.env.cr.execute("UPDATE ir_cron SET lastcall = %s WHERE id = %s", [moment, cron.id])
            cron.invalidate_recordset()
            [data] = self.env["bj.api.sync.mapper"]._serialize(plan, cron)
            self.assertEqual([data["last"]], codec.serialize_column("datetime", [cron.lastcall]))

    def test_binary_that_is_no_base64(self):
        """Some of Odoo's fields hold bytes, and some no bytes at all."""
        png = base64.b64encode(b"\x89PNG").decode()
        for value, expected in ((b"\x89PNG", png), (png.encode(), png), ({"total": 3}, None), (False, None)):
            self.assertEqual(codec.serialize_column("binary", [value]), [expected])

    def test_content_of_attachments(self):
        """Odoo has it as bytes, which may look like base64; what is exchanged is base64."""
        config = self.config("ir.attachment", ("name", "name"), ("raw", "content"), ("datas", "same"), endpoint="t-raw")
        for content in (b"hello", b"test", b"\xff\x00"):
            text = base64.b64encode(content).decode()
            attachment, data = self.post(config, {"name": "t-raw.txt", "content": text})
            self.assertEqual((attachment.raw, data["content"], data["same"]), (content, text, text))
        with self.counted("ir.attachment") as writes:
            self.post(config, {"name": "t-raw.txt", "content": text})
        self.assertEqual(writes, [])
        with self.refused("/content", message="a base64 string"):
            self.post(config, {"name": "t-raw.txt", "content": "hello"})

    def test_types_of_addons(self):
        """What they make of records is answered, also of a field whose column could be read."""

        def serialize(room, line, records):
            return [record[line.field_name].upper() for record in records]

        config = self.config("res.partner", ("ref", "code"), ("name", "name"), endpoint="people")
        record = self.env["res.partner"].create({"ref": "c-1", "name": "Ada"})
        with patch.object(self.registry["bj.api.sync.value.plain"], "_serialize", serialize):
            self.env.registry.clear_cache()
            self.assertEqual(self.read(config, record), {"code": "C-1", "name": "ADA"})
        self.env.registry.clear_cache()

    def test_properties_are_refused(self):
        with self.assertRaisesRegex(ValidationError, "properties are not exchanged"):
            self.config("res.partner", ("ref", "code"), ("properties", "more"), endpoint="t-properties")

    def test_null_clears_absent_keeps(self):
        config = self.partner_config(
            endpoint="t-null",
            line_ids=self.lines(
                "res.partner",
                ("ref", "code"),
                ("name", "name"),
                ("city", "address.city"),
                ("street", "address.street"),
                ("color", "color"),
                ("is_company", "company"),
                ("country_id", "country"),
                ("category_id", "tags"),
                ("image_1920", "image"),
            ),
        )
        tag = self.env["res.partner.category"].create({"name": "Gold"})
        values = {"name": "Ann", "ref": "T-1", "city": "Ulm", "street": "Way 1", "color": 3, "is_company": True}
        partner = self.env["res.partner"].create(
            values | {"country_id": self.env.ref("base.be").id, "category_id": [Command.link(tag.id)]}
        )
        self.post(config, {"code": "T-1", "address": {}})
        self.assertEqual((partner.city, partner.color, partner.category_id), ("Ulm", 3, tag))
        cleared = {"color": None, "company": None, "country": None, "tags": None, "image": None}
        _partner, data = self.post(config, {"code": "T-1", "address": {"city": None}} | cleared)
        self.assertEqual((partner.city, partner.street), (False, "Way 1"))
        self.assertEqual((partner.color, partner.is_company, partner.country_id.id), (0, False, False))
        self.assertFalse(partner.category_id)
        self.assertEqual(data["address"], {"city": None, "street": "Way 1"})
        self.assertEqual((data["color"], data["company"], data["country"], data["tags"]), (0, False, None, []))

    def test_null_clears_a_nested_object(self):
        config = self.partner_config(endpoint="t-nullobject")
        partner = self.env["res.partner"].create({"name": "Ann", "ref": "T-1", "city": "Ulm", "street": "Way 1"})
        self.post(config, {"code": "T-1", "address": None})
        self.assertEqual((partner.city, partner.street), (False, False))

    def test_dotted_key_needs_an_object(self):
        config = self.partner_config(endpoint="t-dotted")
        for value in ("Ulm", 5, ["Ulm"], True):
            with self.subTest(value=value), self.refused("/address", message="object"):
                self.post(config, {"code": "T-1", "name": "Ann", "address": value})

    def test_dotted_identifier_and_depth(self):
        config = self.config(
            "res.partner", ("ref", "keys.shop.code"), ("name", "name"), ("email", "keys.mail"), endpoint="t-deep"
        )
        payload = {"keys": {"shop": {"code": "T-1"}, "mail": "a@b.c"}, "name": "Ann"}
        partner, data = self.post(config, payload)
        self.assertEqual((partner.ref, partner.email), ("T-1", "a@b.c"))
        self.assertEqual(data, payload | {"id": partner.id})
        self.assertEqual(self.post(config, payload)[0], partner)
        with self.refused("/keys/shop/code"):
            self.post(config, {"keys": {"shop": {"code": 5}}})

    def test_strict_looks_into_dotted_objects(self):
        config = self.partner_config(endpoint="t-strict", strict_keys=True)
        with self.refused("/address/zip", "/extra~1a"):
            self.post(config, {"code": "T-1", "name": "Ann", "address": {"city": "Ulm", "zip": "1"}, "extra/a": 1})

    def test_texts_longer_than_their_field(self):
        """Odoo would cut them, and with an identifier find the record never again."""
        config = self.config("res.country", ("code", "iso"), ("name", "name"), endpoint="t-sizes")
        script = {"value_type": "script", "script": "request_data['iso']"}
        scripted = self.config("res.country", ("name", "name"), ("code", "iso", script), endpoint="t-sizes-script")
        for each in (config, scripted):
            with self.refused("/iso", message='a string of at most 2 characters, not "ZZZ"'):
                self.post(each, {"iso": "ZZZ", "name": "Zedland"})
        self.post(config, {"iso": "ZZ", "name": "Zedland"})

    def test_plain_relations(self):
        config = self.config(
            "res.partner",
            ("ref", "code"),
            ("name", "name"),
            ("country_id", "country"),
            ("category_id", "tags"),
            ("child_ids", "children"),
            endpoint="t-ids",
        )
        tag = self.env["res.partner.category"].create({"name": "Gold"})
        gone = self.env["res.partner.category"].create({"name": "Gone"}).id
        self.env["res.partner.category"].browse(gone).unlink()
        good = {"code": "T-1", "name": "Ann"}
        for key, value, pointer in (
            ("country", 2**31 - 1, "/country"),
            ("country", "1", "/country"),
            ("country", "BE", "/country"),
            ("country", True, "/country"),
            ("country", [1], "/country"),
            ("country", {"id": 1}, "/country"),
            ("tags", tag.id, "/tags"),
            ("tags", [str(tag.id)], "/tags/0"),
            ("tags", [tag.id, gone], "/tags/1"),
            ("tags", [[tag.id]], "/tags/0"),
            ("tags", [2**40], "/tags/0"),
            ("children", ["T-1"], "/children/0"),
        ):
            with self.subTest(key=key, value=value), self.refused(pointer):
                self.post(config, good | {key: value})
        with self.refused("/tags/0", "/tags/2", message='Expected the id of a record, not "1".'):
            self.post(config, good | {"tags": ["1", tag.id, None]})
        child = self.env["res.partner"].create({"name": "Bea"})
        partner, data = self.post(config, good | {"country": 1, "tags": [tag.id], "children": [child.id]})
        self.assertEqual((partner.country_id.id, partner.category_id, child.parent_id), (1, tag, partner))
        self.assertEqual((data["country"], data["tags"], data["children"]), (1, [tag.id], [child.id]))
        self.post(config, good | {"tags": []})
        self.assertFalse(partner.category_id)

    def test_all_faults_of_all_levels(self):
        child = self.mapping("res.partner", ("ref", "code"), ("name", "name"), ("color", "color"))
        config = self.config(
            "res.partner",
            ("ref", "code"),
            ("color", "color"),
            ("child_ids", "lines", {"value_type": "relational", "mapping_config_id": child.id}),
            endpoint="t-faults",
        )
        lines = [{"code": "A", "color": "x"}, {"code": "B"}, {"code": 3, "name": 4}, "Z", None]
        with self.refused("/color", "/lines/0/color", "/lines/2/code", "/lines/2/name", "/lines/3", "/lines/4"):
            self.post(config, {"code": "T-1", "color": "red", "lines": lines})
        with self.refused("/color", "/lines/0/color", "/lines/2/code", "/lines/2/name") as caught:
            self.post(config, {"code": "T-1", "color": "red", "lines": lines[:3]})
        by_pointer = {error["pointer"]: error["line_id"] for error in caught.exception.errors}
        self.assertEqual(by_pointer["/lines/2/name"], child.line_ids[1].id)
        self.assertEqual(by_pointer["/color"], config.line_ids[1].id)

    def test_the_list_index_is_no_part_of_the_pointer(self):
        config = self.partner_config(endpoint="t-list")
        answer = self.handle(config, "POST", [{"code": "T-1", "name": "Ann"}, {"code": "T-2", "name": 5}])
        [error] = answer.body["errors"]
        self.assertEqual((error["index"], error["pointer"]), (1, "/name"))

    def test_computed_fields_are_answered_and_not_written(self):
        config = self.config("res.partner", ("ref", "code"), ("name", "name"), ("display_name", "x"), endpoint="t-comp")
        partner, data = self.post(config, {"code": "T-1", "name": "Ann", "x": "other"})
        self.assertEqual((partner.name, data["x"]), ("Ann", "Ann"))

    def test_identifier_zero_is_one(self):
        """0 is a value, no missing one: an item without identifier must not take the record that has 0."""
        config = self.config("res.partner", ("color", "number"), ("name", "name"), endpoint="t-zero")
        config.filter_domain = "[('ref', '=', 'ZERO')]"
        zero = self.env["res.partner"].create({"name": "Zero", "color": 0, "ref": "ZERO"})
        answer = self.handle(config, "PATCH", [{"number": 0, "name": "Null"}, {"name": "Nobody"}])
        self.assertEqual(zero.name, "Null")
        self.assertEqual([error["index"] for error in answer.body["errors"]], [1])


@tagged("-at_install", "post_install")
class TestRelational(MappingCase):
    """Nested objects: res.partner > child_ids > category_id > parent_id, and country_id."""

    def setUp(self):
        super().setUp()
        self.group = self.mapping("res.partner.category", ("name", "name"), ("color", "color"), name="Group")
        self.tag = self.mapping(
            "res.partner.category",
            ("name", "name"),
            ("color", "color"),
            ("parent_id", "group", self.relation(self.group, "upsert")),
            name="Tag",
        )
        self.country = self.mapping("res.country", ("code", "iso"), ("name", "name"), name="Country")
        self.person = self.mapping(
            "res.partner",
            ("ref", "code"),
            ("name", "name"),
            ("type", "kind"),  # a contact would take over its company's address
            ("category_id", "tags", self.relation(self.tag, "upsert")),
            ("country_id", "address.country", self.relation(self.country)),
            name="Person",
        )
        self.company = self.config(
            "res.partner",
            ("ref", "code"),
            ("name", "name"),
            ("country_id", "country", self.relation(self.country) | {"relation_output": "identifier"}),
            ("child_ids", "people", self.relation(self.person)),
            endpoint="t-companies",
            name="Company",
        )

    def relation(self, mapping, policy="link"):
        return {"value_type": "relational", "mapping_config_id": mapping.id, "relation_policy": policy}

    def line(self, config, key):
        return config.line_ids.filtered(lambda line: line.external_key == key)

    def person_data(self, code, **values):
        return {"code": code, "name": f"Name {code}", "kind": "other"} | values

    def payload(self):
        gold = {"name": "T-Gold", "color": 1, "group": {"name": "T-Metal", "color": 9}}
        return {
            "code": "T-1",
            "name": "Acme",
            "country": "BE",
            "people": [
                self.person_data("P-1", tags=[gold, {"name": "T-New", "color": 2, "group": None}]),
                self.person_data("P-2", tags=[gold], address={"country": {"iso": "DE"}}),
                self.person_data("P-3", tags=[], address={"country": "FR"}),
            ],
        }

    def tags(self, name):
        return self.env["res.partner.category"].search([("name", "=", name)])

    # out and in

    def test_four_levels_in_and_out(self):
        company, data = self.post(self.company, self.payload())
        first, second, third = company.child_ids.sorted("ref")
        self.assertEqual(company.country_id.code, "BE")
        self.assertEqual(sorted(first.category_id.mapped("name")), ["T-Gold", "T-New"])
        self.assertEqual(second.category_id.parent_id.color, 9)
        self.assertEqual((second.country_id.code, third.country_id.code), ("DE", "FR"))
        self.assertEqual(data["country"], "BE")
        people = {item["code"]: item for item in data["people"]}
        self.assertEqual(
            people["P-2"]["tags"], [{"name": "T-Gold", "color": 1, "group": {"name": "T-Metal", "color": 9}}]
        )
        self.assertEqual(people["P-2"]["address"], {"country": {"iso": "DE", "name": "Germany"}})
        self.assertEqual(people["P-1"]["address"], {"country": None})
        self.assertNotIn("id", people["P-1"])

    def test_what_is_answered_can_be_sent_back(self):
        company, data = self.post(self.company, self.payload())
        with self.counted("res.partner") as partners, self.counted("res.partner.category") as tags:
            again, same = self.post(self.company, {key: value for key, value in data.items() if key != "id"})
        self.assertEqual((again, same), (company, data))
        self.assertEqual((partners, tags), ([], []))

    def test_the_same_new_record_in_two_items_is_created_once(self):
        self.post(self.company, self.payload())
        self.assertEqual((len(self.tags("T-Gold")), len(self.tags("T-Metal")), len(self.tags("T-New"))), (1, 1, 1))
        other = [
            {"code": f"T-{n}", "name": "x", "people": [self.person_data(f"Q-{n}", tags=[{"name": "T-Both"}])]}
            for n in (2, 3)
        ]
        answer = self.handle(self.company, "POST", other)
        self.assertEqual((answer.status, len(self.tags("T-Both"))), (201, 1))

    def test_the_same_new_record_when_one_item_is_bad(self):
        good, bad = (
            {"code": f"T-{n}", "name": name, "people": [self.person_data(f"Q-{n}", tags=[{"name": "T-Both"}])]}
            for n, name in ((2, "x"), (3, 7))
        )
        answer = self.handle(self.company, "POST", [bad, good])
        self.assertEqual((answer.status, answer.body["errors"][0]["index"]), (207, 0))
        self.assertEqual(len(self.tags("T-Both")), 1)

    def family(self, **values):
        """Make an endpoint of partners with their parents, mapped by another configuration."""
        parent = self.mapping(
            "res.partner",
            ("ref", "code"),
            ("name", "name"),
            ("is_company", "company"),
            ("child_ids", "people", self.relation(self.person)),
            name="Parent",
            **values,
        )
        lines = ("ref", "code"), ("name", "name"), ("parent_id", "parent", self.relation(parent, "upsert"))
        return self.config("res.partner", *lines, endpoint="t-family", name="Family")

    def test_the_same_new_record_by_two_configurations(self):
        """One item is what another one links to."""
        items = [
            {"code": "S-1", "name": "Parent"},
            {"code": "S-2", "name": "Child", "parent": {"code": "S-1", "name": "P"}},
        ]
        self.handle(self.family(), "POST", items)
        [parent] = self.env["res.partner"].search([("ref", "=", "S-1")])
        self.assertEqual((parent.name, parent.child_ids.mapped("ref")), ("Parent", ["S-2"]))

    def test_the_filter_domain_of_what_is_nested_as_well(self):
        config = self.family()
        config.filter_domain = "[('name', '!=', 'No')]"
        items = [
            {"code": "S-1", "name": "No"},
            {"code": "S-2", "name": "Child", "parent": {"code": "S-1", "name": "P"}},
        ]
        answer = self.handle(config, "POST", items)
        self.assertEqual([error["index"] for error in answer.body["errors"]], [0])
        self.assertEqual(self.env["res.partner"].search([("ref", "=", "S-1")]).name, "P")
        items = [item | {"code": f"R{item['code']}", "name": "Yes"} for item in items]
        items[1]["parent"]["code"] = "RS-1"
        answer = self.handle(config, "POST", items)
        self.assertEqual((answer.status, answer.body["meta"]["created"]), (201, 2))

    def test_children_without_identifier_in_a_filter_domain(self):
        """They are told apart by nothing but their values, and only those inside are looked at."""
        self.person.filter_domain = "[('type', '=', 'other')]"
        self.person.line_ids.is_record_identifier = False
        company, _data = self.post(self.company, {"code": "T-1", "name": "A"})
        outside = {"type": "contact", "name": "Name P-1", "ref": "P-1", "parent_id": company.id}
        self.env["res.partner"].create(outside)
        for _time in range(2):
            self.post(
                self.company, {"code": "T-1", "people": [self.person_data("P-1"), {"name": "B", "kind": "other"}]}
            )
            self.assertEqual(sorted(company.child_ids.mapped("name")), ["B", "Name P-1", "Name P-1"])
        with self.refused("/people/0"):
            self.post(self.company, {"code": "T-1", "people": ["P-1"]})

    def test_archived_children(self):
        """They are found by their identifier where Active is mapped."""
        child = self.mapping("res.partner.category", ("name", "name"), ("color", "color"), ("active", "active"))
        child.filter_domain = "[('color', '=', 7)]"
        lines = ("name", "name"), ("child_ids", "children", self.relation(child))
        config = self.config("res.partner.category", *lines, endpoint="t-groups", name="Groups")
        for is_active in (True, False, False, True):
            payload = {"name": "T-Up", "children": [{"name": "T-Down", "color": 7, "active": is_active}]}
            self.post(config, payload)
            [tag] = self.env["res.partner.category"].with_context(active_test=False).search([("name", "=", "T-Down")])
            self.assertEqual(tag.active, is_active)

    def test_lines_that_a_later_item_replaces(self):
        self.person.filter_domain = "[('type', '=', 'other')]"
        config = self.family()
        config.line_ids.mapping_config_id.line_ids.filtered("mapping_config_id").remove_missing = True
        items = [
            {
                "code": f"C-{n}",
                "name": "x",
                "parent": {"code": "S-1", "name": "P", "people": [self.person_data(f"K-{n}")]},
            }
            for n in range(3)
        ]
        self.assertEqual(self.handle(config, "POST", items).status, 201)
        self.assertEqual(self.env["res.partner"].search([("ref", "like", "K-%")]).mapped("ref"), ["K-2"])

    def test_lines_of_one_parent_in_two_items(self):
        """They come together; what comes later counts where both say something."""
        config = self.family()
        for name in ("new", "changed"):
            items = [
                {"code": f"C-{n}", "name": "x", "parent": {"code": "S-1", "name": "P", "people": people}}
                for n, people in (
                    (1, [self.person_data("K-1", name=name), self.person_data("K-2", name="first")]),
                    (2, [self.person_data("K-2", name=name)]),
                )
            ]
            self.handle(config, "POST", items)
            children = self.env["res.partner"].search([("parent_id.ref", "=", "S-1")], order="ref")
            self.assertEqual(children.mapped("ref"), ["C-1", "C-2", "K-1", "K-2"])
            self.assertEqual(children[2:].mapped("name"), [name, name])

    def test_nested_records_outside_of_their_filter_domain(self):
        """Nobody would find them again: each request would make another one."""
        config = self.family(filter_domain="[('is_company', '=', True)]")
        payload = {"code": "C-1", "name": "x", "parent": {"code": "S-1", "name": "P", "company": False}}
        with self.assertRaises(BadPayload) as caught, self.env.cr.savepoint():
            self.handle(config, "POST", payload)
        self.assertIn("outside", caught.exception.args[0])
        payload["parent"]["company"] = True
        self.post(config, payload)
        self.post(config, payload)
        self.assertEqual(self.env["res.partner"].search_count([("ref", "=", "S-1")]), 1)

    def test_children_outside_of_their_filter_domain(self):
        """They are neither found nor created."""
        self.person.filter_domain = "[('type', '=', 'other')]"
        company, _data = self.post(self.company, {"code": "T-1", "name": "A", "people": [self.person_data("P-1")]})
        company.child_ids.type = "contact"
        with self.assertRaises(BadPayload), self.env.cr.savepoint():
            self.post(self.company, {"code": "T-1", "people": [{"code": "P-1", "name": "Changed", "kind": "invoice"}]})
        self.assertEqual(company.child_ids.mapped("name"), ["Name P-1"])

    def test_duplicates_in_one_list(self):
        company, _data = self.post(
            self.company, {"code": "T-1", "name": "A", "people": [self.person_data("P-1", tags=[{"name": "T-X"}] * 2)]}
        )
        self.assertEqual(company.child_ids.category_id, self.tags("T-X"))
        self.assertEqual(len(self.tags("T-X")), 1)

    def test_identifier_output(self):
        self.line(self.company, "people").relation_output = "identifier"
        self.line(self.company, "country").relation_output = "object"
        _company, data = self.post(self.company, self.payload())
        self.assertEqual(sorted(data["people"]), ["P-1", "P-2", "P-3"])
        self.assertEqual(data["country"], {"iso": "BE", "name": "Belgium"})
        self.person.line_ids.is_record_identifier = False
        with self.assertRaisesRegex(BadPayload, "Person has no record identifier"):
            self.post(self.company, {"code": "T-2", "name": "B", "people": [self.person_data("P-4")]})

    # many2one and many2many policies

    def test_link_never_writes(self):
        belgium = self.env.ref("base.be")
        name = belgium.name
        company, _data = self.post(
            self.company, {"code": "T-1", "name": "A", "country": {"iso": "BE", "name": "Other"}}
        )
        self.assertEqual((company.country_id, belgium.name), (belgium, name))
        with self.refused("/country/iso", message="XX"):
            self.post(self.company, {"code": "T-2", "name": "A", "country": {"iso": "XX", "name": "New"}})
        with self.refused("/country", message="XX"):
            self.post(self.company, {"code": "T-2", "name": "A", "country": "XX"})

    def test_create_links_or_creates(self):
        self.line(self.person, "tags").relation_policy = "create"
        gold = self.env["res.partner.category"].create({"name": "T-Gold", "color": 1})
        tags = [{"name": "T-Gold", "color": 5}, {"name": "T-New", "color": 6}]
        company, _data = self.post(
            self.company, {"code": "T-1", "name": "A", "people": [self.person_data("P-1", tags=tags)]}
        )
        self.assertEqual((gold.color, self.tags("T-New").color), (1, 6))
        self.assertEqual(company.child_ids.category_id, gold | self.tags("T-New"))

    def test_upsert_updates(self):
        gold = self.env["res.partner.category"].create({"name": "T-Gold", "color": 1})
        tags = [{"name": "T-Gold", "color": 5}]
        self.post(self.company, {"code": "T-1", "name": "A", "people": [self.person_data("P-1", tags=tags)]})
        self.assertEqual(gold.color, 5)

    def test_many2many_is_replaced(self):
        company, _data = self.post(self.company, self.payload())
        self.post(
            self.company, {"code": "T-1", "people": [{"code": "P-1", "tags": ["T-New"]}, {"code": "P-2", "tags": None}]}
        )
        first, second, _third = company.child_ids.sorted("ref")
        self.assertEqual((first.category_id, second.category_id), (self.tags("T-New"), self.tags("none")))

    def test_null_clears_a_relation(self):
        company, _data = self.post(self.company, self.payload())
        self.post(
            self.company, {"code": "T-1", "country": None, "people": [{"code": "P-2", "address": {"country": None}}]}
        )
        self.assertFalse(company.country_id)
        self.assertFalse(company.child_ids.filtered(lambda person: person.ref == "P-2").country_id)

    def test_null_leaves_alone_what_is_answered_as_null(self):
        """Sending back what was read cuts no link to a record without identifier, or out of reach."""
        boss = self.mapping("res.partner", ("ref", "code"))
        elsewhere = self.env["res.company"].create({"name": "Elsewhere"})
        user = new_test_user(self.env, "reach", "base.group_user,base.group_partner_manager")
        for output in ("identifier", "object"):
            config = self.config(
                "res.partner",
                ("ref", "code"),
                ("parent_id", "boss", self.relation(boss) | {"relation_output": output}),
                endpoint=f"t-{output}",
                user_id=user.id,
            )
            inbound = self.env["bj.api.sync.inbound"].with_user(user)
            for values, is_answered in (
                ({"ref": False}, output == "object"),
                ({"ref": "B-2"}, True),
                ({"ref": "B-3", "company_id": elsewhere.id}, False),
            ):
                with self.subTest(output=output, values=values):
                    parent = self.env["res.partner"].create({"name": "Boss", "is_company": True} | values)
                    partner = self.env["res.partner"].create({"name": "A", "parent_id": parent.id, "ref": "T-9"})
                    endpoint, ref = inbound._endpoint(config.endpoint), str(partner.id)
                    data = inbound._handle(endpoint, Operation("GET", ref)).body["data"]
                    self.assertEqual(data["boss"] is not None, is_answered)
                    inbound._handle(endpoint, Operation("PUT", ref, payload=data | {"boss": None}))
                    self.assertEqual(bool(partner.parent_id), not is_answered)
                    partner.unlink()

    def test_shapes(self):
        for key, value, pointer in (
            ("country", ["BE"], "/country"),
            ("country", True, "/country"),
            ("country", 5, "/country"),
            ("country", {}, "/country/iso"),
            ("country", {"iso": None}, "/country/iso"),
            ("country", {"iso": ["BE"]}, "/country/iso"),
            ("people", {"code": "P-1"}, "/people"),
            ("people", "P-1", "/people"),
            ("people", [None], "/people/0"),
            ("people", [["P-1"]], "/people/0"),
            ("people", [{"code": "P-1", "name": "x"}, "P-unknown"], "/people/1"),
            ("people", [{"code": "P-1", "name": "x", "address": "Ulm"}], "/people/0/address"),
            ("people", [{"code": "P-1", "name": "x", "tags": [{"color": 1}]}], "/people/0/tags/0/name"),
        ):
            with self.subTest(value=value), self.refused(pointer) as caught:
                self.post(self.company, {"code": "T-1", "name": "A", key: value})
            if pointer != "/people/0/address":  # that is the concern of several lines
                self.assertTrue(caught.exception.errors[0]["line_id"])

    def test_related_record_without_identifier(self):
        """Of what is answered, the object of a linked record that has no identifier stands for that record."""
        customer = self.mapping("res.partner", ("ref", "code"), ("name", "name"), name="Customer")
        for policy in ("link", "create", "upsert"):
            line = {"value_type": "relational", "mapping_config_id": customer.id, "relation_policy": policy}
            config = self.config(
                "res.partner", ("ref", "code"), ("name", "name"), ("parent_id", "parent", line), endpoint=f"t-{policy}"
            )
            parent = self.env["res.partner"].create({"name": "Nameless"})
            record, data = self.post(config, {"code": f"T-{policy}", "name": "A"})
            with self.refused("/parent/code"):
                self.post(config, {"code": f"T-{policy}", "parent": {"code": None, "name": "Other"}})
            record.parent_id = parent
            _record, data = self.post(config, {"code": f"T-{policy}"})
            self.assertEqual(data["parent"], {"code": None, "name": "Nameless"})
            self.post(config, data)
            self.post(config, {"code": f"T-{policy}", "parent": {"name": "Other"}})
            self.assertEqual((record.parent_id, parent.name), (parent, "Other" if policy == "upsert" else "Nameless"))

    def test_related_record_without_identifier_that_may_not_be_found(self):
        """Neither the filter domain of the Mapping Model nor record rules can be passed by."""
        customer = self.mapping("res.partner", ("ref", "code"), ("name", "name"), name="Customer")
        line = {"value_type": "relational", "mapping_config_id": customer.id, "relation_policy": "upsert"}
        config = self.config(
            "res.partner", ("ref", "code"), ("name", "name"), ("parent_id", "parent", line), endpoint="t-x"
        )
        parent = self.env["res.partner"].create({"name": "Nameless", "is_company": True})
        record, _data = self.post(config, {"code": "T-1", "name": "A"})
        record.parent_id = parent
        customer.filter_domain = "[('is_company', '=', False)]"
        with self.refused("/parent/code"):
            self.post(config, {"code": "T-1", "parent": {"name": "Changed"}})
        customer.filter_domain = "[]"
        rule = {"name": "Hidden", "domain_force": f"[('id', '!=', {parent.id})]", "perm_read": True}
        self.env["ir.rule"].create(rule | {"model_id": self.env["ir.model"]._get_id("res.partner")})
        with self.refused("/parent/code"):
            self.post(config, {"code": "T-1", "parent": {"name": "Changed"}})
        self.assertEqual(parent.name, "Nameless")

    def test_identifier_that_odoo_computes(self):
        """It finds records; what does not lead to it is not created: each request would create another one."""
        config = self.config(
            "res.partner", ("email_normalized", "key"), ("email", "email"), ("name", "name"), endpoint="t-x"
        )
        record, _data = self.post(config, {"key": "a@example.com", "email": "A@example.com", "name": "A"})
        again, _data = self.post(config, {"key": "a@example.com", "name": "B"})
        self.assertEqual((again, again.name), (record, "B"))
        with self.refused("/key") as caught:
            self.post(config, {"key": "b@example.com", "email": "c@example.com", "name": "B"})
        self.assertIn("b@example.com", caught.exception.errors[0]["message"])

    def test_identifier_that_others_share(self):
        """The path tells the record: its identifier may be in the body, as it was read, although others have it too."""
        config = self.config("res.partner", ("ref", "code"), ("name", "name"), endpoint="t-x")
        one, other, third = self.env["res.partner"].create([{"name": "A", "ref": ref} for ref in ("T-1", "T-1", "T-2")])
        self.handle(config, "PATCH", {"code": "T-1", "name": "B"}, ref=str(other.id))
        self.assertEqual((one.name, other.name), ("A", "B"))
        with self.refused("/code", status=409):
            self.handle(config, "PATCH", {"code": "T-1"}, ref=str(third.id))

    def test_bare_identifiers(self):
        """They stand for records that are there, whatever the policy, and say nothing else about them."""
        person = self.person_data("P-1", tags=[{"name": "T-X", "color": 3}, "T-X"])
        self.env["res.partner.category"].create({"name": "T-X"})
        company, _data = self.post(self.company, {"code": "T-1", "name": "A", "people": [person]})
        self.assertEqual((company.child_ids.category_id.name, self.tags("T-X").color), ("T-X", 3))
        people = ["P-1", {"code": "P-1", "name": "Changed"}, "P-1"]
        self.post(self.company, {"code": "T-1", "people": people})
        self.assertEqual(company.child_ids.mapped("name"), ["Changed"])
        for policy in ("link", "create", "upsert"):
            self.line(self.person, "tags").relation_policy = policy
            for unknown in ("T-None", 5, ""):
                people = [{"code": "P-1", "tags": ["T-X", unknown]}]
                with self.subTest(policy=policy, unknown=unknown), self.refused("/people/0/tags/1"):
                    self.post(self.company, {"code": "T-1", "people": people})

    def test_ambiguous_identifiers(self):
        self.env["res.partner.category"].create([{"name": "T-Twice"}, {"name": "T-Twice"}])
        for tag in ("T-Twice", {"name": "T-Twice"}):
            with self.subTest(tag=tag), self.assertRaises(BadPayload) as caught:
                self.post(self.company, {"code": "T-1", "name": "A", "people": [self.person_data("P-1", tags=[tag])]})
            self.assertEqual(caught.exception.http_status, 409)
            self.assertIn("T-Twice", caught.exception.errors[0]["message"])

    def test_the_mapping_models_filter_domain(self):
        self.country.filter_domain = "[('code', '!=', 'DE')]"
        with self.refused("/country"):
            self.post(self.company, {"code": "T-1", "name": "A", "country": "DE"})

    # one2many

    def test_children_are_created_updated_and_kept(self):
        company, _data = self.post(self.company, self.payload())
        first, second, third = company.child_ids.sorted("ref")
        with self.counted("res.partner") as writes:
            people = [{"code": "P-1", "name": "Changed"}, {"code": "P-2"}, self.person_data("P-4")]
            _company, data = self.post(self.company, {"code": "T-1", "people": people})
        self.assertEqual((first.name, second.name), ("Changed", "Name P-2"))
        self.assertEqual([item["code"] for item in data["people"] if item["code"] == "P-4"], ["P-4"])
        self.assertEqual(len(company.child_ids), 4)
        renamed = [record for records, values in writes if "name" in values for record in records]
        self.assertEqual(renamed, [first])
        self.assertTrue(third.exists())

    def test_remove_missing(self):
        company, _data = self.post(self.company, self.payload())
        first, second, third = company.child_ids.sorted("ref")
        self.line(self.company, "people").remove_missing = True
        self.post(self.company, {"code": "T-1", "people": [{"code": "P-1"}, "P-3"]})
        self.assertEqual((company.child_ids, second.exists()), (first | third, self.env["res.partner"]))
        self.post(self.company, {"code": "T-1", "name": "no people"})
        self.assertEqual(company.child_ids, first | third)
        self.post(self.company, {"code": "T-1", "people": []})
        self.assertFalse((first | third).exists())

    def test_null_removes_no_more_than_an_empty_list(self):
        company, _data = self.post(self.company, self.payload())
        for nothing in ([], None):
            self.post(self.company, {"code": "T-1", "people": nothing})
            self.assertEqual(len(company.child_ids), 3)
        self.line(self.company, "people").remove_missing = True
        self.post(self.company, {"code": "T-1", "people": None})
        self.assertFalse(company.child_ids)

    def test_children_of_others_are_not_taken(self):
        other, _data = self.post(self.company, {"code": "T-9", "name": "B", "people": [self.person_data("P-1")]})
        company, _data = self.post(self.company, self.payload())
        self.assertEqual((len(other.child_ids), len(company.child_ids)), (1, 3))
        self.assertNotEqual(other.child_ids, company.child_ids.filtered(lambda person: person.ref == "P-1"))

    def test_child_twice(self):
        with self.refused("/people/1/code", status=409):
            self.post(self.company, {"code": "T-1", "name": "A", "people": [self.person_data("P-1")] * 2})

    def test_children_without_identifier_are_new(self):
        self.person.line_ids[0].is_record_identifier = False
        company, _data = self.post(self.company, {"code": "T-1", "name": "A", "people": [{"name": "x"}]})
        self.post(self.company, {"code": "T-1", "people": [{"name": "y"}]})
        self.assertEqual(sorted(company.child_ids.mapped("name")), ["x", "y"])

    def test_children_without_identifier_that_are_there(self):
        """Sending back what was read doubles nothing, whether there is an identifier that is empty, or none at all."""
        people = [{"name": "x"}, {"name": "x"}, {"name": "y", "kind": "other"}, self.person_data("P-1")]
        for has_identifier in (True, False):
            self.person.line_ids[0].is_record_identifier = has_identifier
            code = f"T-{has_identifier}"
            company, data = self.post(self.company, {"code": code, "name": "A", "people": people})
            children = company.child_ids
            for sent in (data["people"], people, people[::-1]):
                self.post(self.company, {"code": code, "people": sent})
                self.assertEqual(company.child_ids, children)
            self.post(self.company, {"code": code, "people": [{"name": "x"}] * 3})
            self.assertEqual(sorted(company.child_ids.mapped("name")), ["Name P-1", "x", "x", "x", "y"])
            self.line(self.company, "people").remove_missing = True
            kept = children.filtered(lambda child: child.name == "y")
            self.post(self.company, {"code": code, "people": [{"name": "y"}, {"name": "z"}]})
            self.assertEqual(company.child_ids & children, kept)
            self.assertEqual(sorted(company.child_ids.mapped("name")), ["y", "z"])
            self.line(self.company, "people").remove_missing = False

    def test_several_parents_in_one_request(self):
        payloads = [
            {"code": f"T-{n}", "name": "A", "people": [self.person_data("P-1", tags=[{"name": f"T-{n}"}])]}
            for n in range(3)
        ]
        self.handle(self.company, "POST", payloads)
        with self.counted("res.partner", "create") as created:
            answer = self.handle(
                self.company,
                "PATCH",
                [{"code": f"T-{n}", "people": [{"code": "P-1", "name": f"New {n}"}]} for n in range(3)],
            )
        self.assertEqual(created, [])
        names = [item["people"][0]["name"] for item in answer.body["data"]]
        self.assertEqual(names, ["New 0", "New 1", "New 2"])

    # cycles

    def test_cycle_refused(self):
        with self.assertRaisesRegex(ValidationError, "back to itself"):
            self.env["bj.api.sync.config.line"].create(
                {
                    "config_id": self.group.id,
                    "field_id": self.field("res.partner.category", "child_ids"),
                    "external_key": "below",
                    "value_type": "relational",
                    "mapping_config_id": self.tag.id,
                }
            )


@tagged("-at_install", "post_install")
class TestUnchanged(MappingCase):
    """What does not change is not written."""

    def test_unchanged_record_is_not_written(self):
        config = self.config(
            "res.partner",
            ("ref", "code"),
            ("name", "name"),
            ("comment", "note"),
            ("partner_latitude", "lat"),
            ("is_company", "company"),
            ("country_id", "country"),
            ("category_id", "tags"),
            ("email", "mail"),
            endpoint="t-same",
        )
        tags = self.env["res.partner.category"].create([{"name": "A"}, {"name": "B"}])
        payload = {
            "code": "T-1",
            "name": "Ann",
            "note": "<p>Hi</p>",
            "lat": "1.123456789",
            "company": True,
            "country": 1,
            "tags": tags.ids,
            "mail": "",
        }
        self.post(config, payload)
        with self.counted("res.partner") as writes:
            self.post(config, payload)
            self.post(config, payload | {"tags": list(reversed(tags.ids)), "mail": None})
        self.assertEqual(writes, [])

    def test_only_what_differs_is_written(self):
        config = self.partner_config(endpoint="t-diff")
        partners = self.env["res.partner"].create([{"name": "Ann", "ref": f"T-{n}", "color": n} for n in range(4)])
        with self.counted("res.partner") as writes:
            self.handle(config, "PATCH", [{"code": f"T-{n}", "name": "Ann", "color": 3} for n in range(4)])
        self.assertEqual([(records._ids, values) for records, values in writes], [(partners[:3]._ids, {"color": 3})])

    def test_equal_values_that_odoo_would_compute_anew(self):
        """What was sent counts, as with Odoo's own write, not what Odoo makes of the other values."""
        kinds = self.env["mail.activity.type"].create([{"name": "A", "summary": "a"}, {"name": "B", "summary": "b"}])
        then = self.env["mail.activity.type"].create({"name": "Then"})
        fields = (
            ("sequence", "position"),
            ("activity_type_id", "kind"),
            ("summary", "summary"),
            ("next_activity_ids", "next"),
            ("delay_count", "days"),
        )
        step = self.mapping("mail.activity.plan.template", *fields, name="Step")
        steps = {"value_type": "relational", "mapping_config_id": step.id}
        plans = self.config(
            "mail.activity.plan",
            ("name", "name"),
            ("res_model", "model"),
            ("template_ids", "steps", steps),
            endpoint="t-plans",
        )
        alone = self.config("mail.activity.plan.template", ("id", "id"), *fields, endpoint="t-steps")
        own = {"kind": kinds[0].id, "summary": "own", "next": then.ids}
        plan, _data = self.post(
            plans, {"name": "P", "model": "res.partner", "steps": [{"position": n, **own} for n in (1, 2)]}
        )
        first, second = plan.template_ids
        self.handle(plans, "PUT", {"name": "P", "steps": [{"position": 1, **own, "kind": kinds[1].id}]})
        self.handle(alone, "PUT", own | {"kind": kinds[1].id}, ref=str(second.id))
        for template in (first, second):
            self.assertEqual((template.activity_type_id, template.summary), (kinds[1], "own"))
            self.assertEqual(template.next_activity_ids, then)
        with self.counted("mail.activity.plan.template") as writes:
            self.handle(alone, "PUT", {"summary": "own", "days": 5}, ref=str(second.id))
        self.assertEqual([values for _records, values in writes], [{"delay_count": 5}])

    def test_equal_values_of_lines_that_odoo_would_compute_anew(self):
        """Also where it is the record they belong to that makes it compute them; what cannot be kept is refused."""
        thread = self.mapping("discuss.channel", ("name", "name"), ("group_public_id", "group"), name="Thread")
        threads = {"value_type": "relational", "mapping_config_id": thread.id}
        fields = (("name", "name"), ("group_public_id", "group"), ("sub_channel_ids", "threads", threads))
        config = self.config("discuss.channel", *fields, endpoint="t-channels")
        groups = self.env["res.groups"].create([{"name": "A"}, {"name": "B"}])
        channels = self.env["discuss.channel"]
        channel = channels.create({"name": "C", "channel_type": "channel", "group_public_id": groups[0].id})
        values = {"name": "T", "parent_channel_id": channel.id, "group_public_id": groups[0].id}
        channels.create(values | {"channel_type": "channel"})
        threads = [{"name": "T", "group": groups[0].id}]
        with self.assertRaisesRegex(UserError, "Cannot change authorized group of sub-channel"):
            self.handle(config, "PUT", {"name": "C", "group": groups[1].id, "threads": threads})


@tagged("-at_install", "post_install")
class TestScripts(MappingCase):
    """Python scripts, which run as the user of the request."""

    def setUp(self):
        super().setUp()
        self.base = [("ref", "code"), ("name", "name")]
        self.count = 0

    def scripted(self, *lines, **values):
        """Make a configuration with scripts: (field, key, script) or (field, key, script, values)."""
        self.count += 1
        specs = []
        for name, key, script, *more in lines:
            specs.append((name, key, {"value_type": "script", "script": script} | (more[0] if more else {})))
        return self.config("res.partner", *self.base, *specs, **{"endpoint": f"t-script-{self.count}"} | values)

    def exec_line(self, script):
        return (False, False, script, {"script_mode": "exec"})

    # evaluate

    def test_evaluate_in(self):
        config = self.scripted(
            ("city", "place", "request_data['place'].upper() if record else 'new ' + request_data['place']")
        )
        partner, _data = self.post(config, {"code": "T-1", "name": "A", "place": "ulm"})
        self.assertEqual(partner.city, "new ulm")
        self.post(config, {"code": "T-1", "place": "ulm"})
        self.assertEqual(partner.city, "ULM")

    def test_evaluate_out(self):
        config = self.scripted(("city", "place", "(record.city or '') + '!'"))
        partner = self.env["res.partner"].create({"name": "A", "ref": "T-1", "city": "Ulm"})
        self.assertEqual(self.read(config, partner)["place"], "Ulm!")

    def test_a_script_that_reads_the_payload_is_not_run_on_reading(self):
        config = self.scripted(("city", "place", "request_data.get('place')"))
        partner, data = self.post(config, {"code": "T-1", "name": "A", "place": "Ulm"})
        self.assertEqual((data["place"], self.read(config, partner)["place"]), ("Ulm", "Ulm"))

    def test_what_the_database_refuses(self):
        """It is a fault of its item, told without the row; the transaction goes on for the others."""
        script = "'rate' in request_data and env['res.currency.rate'].create(" + (
            "{'name': '2033-01-01', 'rate': request_data['rate'], 'currency_id': env.company.currency_id.id})"
        )
        for number, line in enumerate(
            ((False, False, script, {"script_mode": "exec"}), ("city", "x", f"({script}) and 'x'"))
        ):
            config = self.scripted(line)
            items = [{"code": f"T-{number}{n}", "name": "A"} | ({"rate": -1} if n == 1 else {}) for n in range(3)]
            with mute_logger("odoo.sql_db"):
                answer = self.handle(config, "POST", items)
            [error] = answer.body["errors"]
            self.assertEqual((answer.status, error["index"], len(answer.body["data"])), (207, 1, 2))
            self.assertNotIn("Failing row", error["message"])

    def test_names(self):
        for expression, expected in (
            ("datetime.now() <= datetime.datetime.now()", "True"),
            ("isinstance(datetime.now(), datetime)", "True"),
            ("datetime.datetime(2026, 1, 31).strftime('%Y')", "2026"),
            ("datetime.date(2026, 1, 31) + timedelta(days=1)", "2026-02-01"),
            ("datetime.strptime('2026', '%Y').year", "2026"),
            ("datetime(2026, 1, 31) + relativedelta(months=1)", "2026-02-28 00:00:00"),
            ("timezone('UTC')", "UTC"),
            ("dateutil.parser.parse('2026-01-31').day", "31"),
            ("time.strptime('2026', '%Y').tm_year", "2026"),
            ("re.sub('a', 'b', 'aa')", "bb"),
            ("json.loads(json.dumps({'a': 1}))['a']", "1"),
            ("float_compare(0.1 + 0.2, 0.3, precision_digits=2)", "0"),
            ("b64decode(b64encode(b'x')).decode()", "x"),
            ("Command.set([1])", "(<Command.SET: 6>, 0, [1])"),
            ("model._name + config.name + env.user.login", "res.partnerTest res.partneradmin"),
            ("records == record", "True"),
            ("len([requests.get, requests.post, requests.put, requests.delete, log, UserError])", "6"),
            ("env.su", "False"),
        ):
            with self.subTest(expression=expression):
                config = self.scripted(("city", "x", f"str({expression})"))
                partner, _data = self.post(config, {"code": expression, "name": "A"})
                self.assertEqual(partner.city, expected)

    def test_values_are_checked(self):
        for name, script, expected in (
            ("color", "'7'", 7),
            ("color", "None", 0),
            ("is_company", "True", True),
            ("city", "''", False),
            ("partner_latitude", "1", 1.0),
            ("country_id", "env.ref('base.be')", lambda: self.env.ref("base.be")),
            ("country_id", "env.ref('base.be').id", lambda: self.env.ref("base.be")),
            ("country_id", "env['res.country']", lambda: self.env["res.country"]),
            ("category_id", "env['res.partner.category']", lambda: self.env["res.partner.category"]),
        ):
            with self.subTest(name=name, script=script):
                config = self.scripted((name, "x", script))
                partner, _data = self.post(config, {"code": f"V-{name}-{script}", "name": "A"})
                self.assertEqual(partner[name], expected() if callable(expected) else expected)
        for name, script in (
            ("color", "'x'"),
            ("color", "1.5"),
            ("city", "5"),
            ("city", "{'a': 1}"),
            ("city", "datetime.now()"),
            ("is_company", "'true'"),
            ("type", "'nothing'"),
            ("country_id", "'BE'"),
            ("country_id", "2**31 - 1"),
            ("country_id", "env.user"),
            ("category_id", "[2**31 - 1]"),
        ):
            with self.subTest(name=name, script=script):
                config = self.scripted((name, "x", script))
                with self.refused("/x"):
                    self.post(config, {"code": "V", "name": "A"})

    def test_aware_datetimes_are_converted(self):
        config = self.config(
            "ir.cron",
            ("cron_name", "code"),
            (
                "nextcall",
                "next",
                {
                    "value_type": "script",
                    "script": "timezone('Europe/Berlin').localize(datetime.strptime(request_data['next'], '%d.%m.%Y'))",
                },
            ),
            endpoint="t-aware",
        )
        cron = self.env.ref("base.autovacuum_job")
        self.handle(config, "PUT", {"next": "31.01.2031"}, ref=str(cron.id))
        self.assertEqual(cron.nextcall, datetime(2031, 1, 30, 23, 0))

    # execute

    def test_execute_in_changes_the_payload(self):
        config = self.scripted(
            self.exec_line(
                "request_data['name'] = request_data['name'].strip()\nif record:\n    request_data['city'] = 'again'"
            ),
            ("city", "city", "request_data.get('city')"),
        )
        partner, _data = self.post(config, {"code": "T-1", "name": "  Ann "})
        self.assertEqual((partner.name, partner.city), ("Ann", False))
        self.post(config, {"code": "T-1", "name": "Ann"})
        self.assertEqual(partner.city, "again")

    def test_execute_may_replace_the_payload(self):
        config = self.scripted(
            self.exec_line("request_data = {'code': request_data['id'], 'name': request_data['title']}")
        )
        partner, _data = self.post(config, {"id": "T-1", "title": "Ann"})
        self.assertEqual((partner.ref, partner.name), ("T-1", "Ann"))
        again, _data = self.post(config, {"id": "T-1", "title": "Anna"})
        self.assertEqual((again, partner.name), (partner, "Anna"))

    def test_execute_must_leave_an_object(self):
        for value in ("None", "[1]", "'text'"):
            with self.subTest(value=value):
                config = self.scripted(self.exec_line(f"request_data = {value}"))
                with self.refused("", message="object"):
                    self.post(config, {"code": "T-1", "name": "Ann"})

    def test_execute_runs_once_whatever_fails_beside_it(self):
        """Items are tried together, then again without the bad ones: a script must not see its own changes."""
        config = self.scripted(self.exec_line("request_data['name'] += '!'\nrequest_data['tags'].append(1)"))
        payloads = [{"code": f"T-{n}", "name": name, "tags": []} for n, name in enumerate(("a", "b", "", "c"))]
        payloads[1]["code"] = 7
        before = [dict(payload, tags=[]) for payload in payloads]
        answer = self.handle(config, "POST", payloads)
        self.assertEqual([item["name"] for item in answer.body["data"]], ["a!", "!", "c!"])
        self.assertEqual(payloads, before)

    def test_execute_changes_the_identifier(self):
        config = self.scripted(self.exec_line("request_data['code'] = request_data['code'].upper()"))
        partner = self.env["res.partner"].create({"name": "Ann", "ref": "T-1"})
        lower = self.env["res.partner"].create({"name": "Low", "ref": "t-2"})
        self.assertEqual(self.post(config, {"code": "t-1", "name": "Anna"})[0], partner)
        created, _data = self.post(config, {"code": "t-2", "name": "Bob"})
        self.assertEqual((created.ref, lower.ref, lower.name), ("T-2", "t-2", "Low"))
        answer = self.handle(config, "POST", [{"code": "t-7", "name": "a"}, {"code": "T-7", "name": "b"}])
        self.assertEqual([error["code"] for error in answer.body["errors"]], [409, 409])

    def test_execute_does_not_redirect_the_path(self):
        """PUT /e/1 is about record 1, whatever identifier a script puts into the payload."""
        config = self.scripted(self.exec_line("request_data['code'] = 'T-2'"))
        first, second = self.env["res.partner"].create([{"name": "Ann", "ref": "T-1"}, {"name": "Bob", "ref": "T-2"}])
        with self.refused("/code", status=409):
            self.handle(config, "PUT", {"name": "New"}, ref=str(first.id))
        self.assertEqual((first.name, second.name), ("Ann", "Bob"))

    def test_execute_in_a_child_stays_among_the_parents_children(self):
        child = self.config(
            "res.partner",
            *self.base,
            (False, False, {"value_type": "script", "script_mode": "exec", "script": "request_data['code'] = 'C-1'"}),
            endpoint=False,
            http_method_ids=False,
        )
        config = self.config(
            "res.partner",
            *self.base,
            ("child_ids", "lines", {"value_type": "relational", "mapping_config_id": child.id}),
            endpoint="t-children",
        )
        other = self.env["res.partner"].create(
            {"name": "Other", "child_ids": [Command.create({"name": "x", "ref": "C-1"})]}
        )
        partner, _data = self.post(config, {"code": "T-1", "name": "A", "lines": [{"name": "y"}]})
        self.assertEqual((other.child_ids.name, partner.child_ids.name), ("x", "y"))
        self.post(config, {"code": "T-1", "lines": [{"name": "z"}]})
        self.assertEqual((other.child_ids.name, partner.child_ids.mapped("name")), ("x", ["z"]))

    def test_execute_is_not_run_on_reading(self):
        config = self.scripted(self.exec_line("raise UserError('not now')"))
        partner = self.env["res.partner"].create({"name": "Ann", "ref": "T-1"})
        self.assertEqual(self.read(config, partner)["name"], "Ann")

    def test_execute_out_changes_the_payload(self):
        config = self.scripted(
            self.exec_line("request_data['extra'] = record.name + str(request_data['n'])\nrequest_data.pop('code')"),
            ("color", "n", "len(records)"),
            request_type="out",
            endpoint=False,
            request_url="https://example.com/x",
            http_method_ids=self.methods("POST"),
        )
        partners = self.env["res.partner"].create([{"name": "Ann", "ref": "T-1"}, {"name": "Bob", "ref": "T-2"}])
        mapper = self.as_admin("bj.api.sync.mapper")
        self.assertEqual(
            mapper._serialize(mapper._plan(config.id), partners.with_env(mapper.env)),
            [{"name": "Ann", "n": 1, "extra": "Ann1"}, {"name": "Bob", "n": 1, "extra": "Bob1"}],
        )

    # failures

    def test_user_error(self):
        line = self.scripted(("city", "city", "x")).line_ids[-1]
        line.write({"script_mode": "exec", "script": "raise UserError('No such town')"})
        with self.assertRaises(BadPayload) as caught:
            self.post(line.config_id, {"code": "T-1", "name": "A"})
        self.assertEqual(caught.exception.http_status, 400)
        [error] = caught.exception.errors
        self.assertEqual((error["message"], error["line_id"]), ("No such town", line.id))

    @mute_logger("odoo.addons.bj_api_sync.models.bj_api_sync_script")
    def test_other_errors_name_line_number_and_exception(self):
        scripts = {
            "eval": ("1 / 0", "city failed in line 1: ZeroDivisionError"),
            "exec": ("x = 1\ny = [][5]", "failed in line 2: IndexError"),
        }
        for mode, (script, expected) in scripts.items():
            with self.subTest(mode=mode):
                config = self.scripted(("city", "city", script, {"script_mode": mode}))
                with self.assertRaises(BadPayload) as caught:
                    self.post(config, {"code": "T-1", "name": "A"})
                [error] = caught.exception.errors
                self.assertRegex(error["message"], expected)
                self.assertEqual(error["line_id"], config.line_ids[-1].id)
                self.assertNotIn("Traceback", str(caught.exception))
                self.assertNotIn(script, str(caught.exception))

    @mute_logger("odoo.addons.bj_api_sync.models.bj_api_sync_script")
    def test_the_line_of_a_function(self):
        script = "def f(value):\n    return int(value)\n\nrequest_data['color'] = f('x')"
        config = self.scripted(("city", "city", script, {"script_mode": "exec"}))
        with self.refused("/city", message="line 2: ValueError: invalid literal"):
            self.post(config, {"code": "T-1", "name": "A"})

    @mute_logger("odoo.addons.bj_api_sync.models.bj_api_sync_script")
    def test_a_bad_item_leaves_the_good_ones(self):
        config = self.scripted(("city", "city", "request_data['city'].upper()"))
        answer = self.handle(
            config, "POST", [{"code": "T-1", "name": "a", "city": "x"}, {"code": "T-2", "name": "b", "city": 5}]
        )
        self.assertEqual((len(answer.body["data"]), [error["index"] for error in answer.body["errors"]]), (1, [1]))
        self.assertIn("AttributeError", answer.body["errors"][0]["message"])

    def test_out_errors(self):
        config = self.scripted(("city", "place", "1 / 0"))
        partner = self.env["res.partner"].create({"name": "Ann", "ref": "T-1"})
        with mute_logger("odoo.addons.bj_api_sync.models.bj_api_sync_script"), self.refused("/place", message="Zero"):
            self.read(config, partner)

    def test_out_error_of_a_key_with_a_slash(self):
        config = self.scripted(("city", "a/b", "1 / 0"))
        partner = self.env["res.partner"].create({"name": "Ann", "ref": "T-1"})
        with mute_logger("odoo.addons.bj_api_sync.models.bj_api_sync_script"), self.refused("/a~1b"):
            self.read(config, partner)

    def test_values_no_json_can_hold(self):
        for script in ("{1, 2}", "record", "float('nan')", "[datetime.now()]", "object"):
            with self.subTest(script=script):
                config = self.scripted(("city", "place", script))
                partner = self.env["res.partner"].create({"name": "Ann", "ref": "T-1"})
                if script == "record":
                    self.assertEqual(self.read(config, partner)["place"], partner.id)
                else:
                    with mute_logger("odoo.addons.bj_api_sync.models.bj_api_sync_script"), self.refused("/place"):
                        self.read(config, partner)

    def test_log(self):
        config = self.scripted(("city", "city", "log('seen ' + request_data['code']) or 'x'"))
        self.post(config, {"code": "T-1", "name": "A"})
        log = self.env["bj.api.log"].search([("config_id", "=", config.id), ("name", "=", "seen T-1")])
        self.assertEqual((len(log), log.status), (1, "success"))

    # relational scripts

    def test_relational_script(self):
        tags = self.env["res.partner.category"].create([{"name": "T-A"}, {"name": "T-B"}])
        both = tags.ids
        for name, script, expected in (
            ("country_id", "env['res.country'].search([('code', '=', request_data['x'])])", "BE"),
            ("country_id", "env['res.country'].search([('code', '=', request_data['x'])]).ids", "BE"),
            ("country_id", "env['res.country'].search([('code', '=', request_data['x'])]).id", "BE"),
            ("country_id", "False", False),
            ("category_id", f"env['res.partner.category'].browse({both})", tags),
            ("category_id", f"{both}", tags),
            ("category_id", f"[Command.set({both})]", tags),
            ("category_id", f"[(4, {both[0]}), (4, {both[1]})]", tags),
            ("category_id", "[]", tags.browse()),
            ("category_id", "None", tags.browse()),
        ):
            with self.subTest(name=name, script=script):
                config = self.scripted((name, "x", script, {"value_type": "relational_script"}))
                partner, _data = self.post(config, {"code": f"R-{name}-{script}", "name": "A", "x": "BE"})
                found = partner.country_id.code if name == "country_id" else partner.category_id
                self.assertEqual(found, expected)

    def test_relational_script_for_lines_of_a_known_record(self):
        script = "[Command.create({'name': request_data['x'], 'type': 'other'})]"
        config = self.scripted(("child_ids", "x", script, {"value_type": "relational_script"}))
        for names in (["B"], ["B", "C"]):
            partner, _data = self.post(config, {"code": "R", "name": "A", "x": names[-1]})
            self.assertEqual(sorted(partner.child_ids.mapped("name")), names)

    def test_relational_script_wrong_values(self):
        for name, script in (
            ("country_id", "'BE'"),
            ("country_id", "[1, 2]"),
            ("country_id", "env.user"),
            ("country_id", "2**31 - 1"),
            ("category_id", "5"),
            ("category_id", "'x'"),
            ("category_id", "[2**31 - 1]"),
            ("category_id", "env['res.country'].browse(1)"),
        ):
            with self.subTest(name=name, script=script):
                config = self.scripted((name, "x", script, {"value_type": "relational_script"}))
                with self.refused("/x"):
                    self.post(config, {"code": "R", "name": "A"})

    def test_relational_script_out(self):
        config = self.scripted(
            ("category_id", "x", "record.category_id[:1]", {"value_type": "relational_script"}), endpoint="t-relout"
        )
        tags = self.env["res.partner.category"].create([{"name": "T-A"}, {"name": "T-B"}])
        partner = self.env["res.partner"].create({"name": "A", "category_id": [Command.set(tags.ids)]})
        self.assertEqual(self.read(config, partner)["x"], partner.category_id[:1].ids)


@tagged("-at_install", "post_install")
class TestReadable(MappingCase):
    """What the user of the request may not read is not sent."""

    def test_restricted_fields_are_left_out(self):
        restricted = next(
            name
            for name, field in self.env["res.users"]._fields.items()
            if field.groups in ("base.group_erp_manager", "base.group_system") and field.type not in codec.TO_MANY
        )
        with self.assertRaisesRegex(ValidationError, "Allow Restricted Field"):
            self.config("res.users", ("login", "login"), (restricted, "x"), endpoint="t-refused")
        config = self.config(
            "res.users", ("login", "login"), (restricted, "x", {"allow_restricted": True}), endpoint="t-users"
        )
        user = new_test_user(self.env, "limited", "base.group_user")
        mapper = self.env["bj.api.sync.mapper"]
        plan = mapper._plan(config.id)
        [data] = mapper._serialize(plan, user.with_user(user))
        self.assertEqual(data, {"login": "limited"})
        [data] = mapper._serialize(plan, user.with_user(self.env.ref("base.user_admin")))
        self.assertIn("x", data)

    def test_related_records_out_of_reach_are_left_out(self):
        person = self.mapping("res.partner", ("ref", "code"))
        config = self.config(
            "res.partner",
            ("ref", "code"),
            ("child_ids", "people", {"value_type": "relational", "mapping_config_id": person.id}),
            ("parent_id", "parent", {"value_type": "relational", "mapping_config_id": person.id}),
            endpoint="t-reach",
        )
        company = self.env["res.company"].create({"name": "Elsewhere"})
        partner = self.env["res.partner"].create(
            {
                "name": "A",
                "ref": "T-1",
                "child_ids": [
                    Command.create({"name": "x", "ref": "P-1"}),
                    Command.create({"name": "y", "ref": "P-2", "company_id": company.id}),
                ],
            }
        )
        user = new_test_user(self.env, "limited", "base.group_user")
        mapper = self.env["bj.api.sync.mapper"]
        [data] = mapper._serialize(mapper._plan(config.id), partner.with_user(user))
        self.assertEqual(data, {"code": "T-1", "people": [{"code": "P-1"}], "parent": None})
