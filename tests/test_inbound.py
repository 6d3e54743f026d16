from hashlib import sha256
from unittest.mock import patch

from odoo.fields import Command
from odoo.modules import module
from odoo.tests import tagged
from odoo.tools import mute_logger

from ..tools import transaction
from .common import ApiHttpCase


@tagged("-at_install", "post_install")
class TestInbound(ApiHttpCase):
    """The contract of inbound requests, operation by operation."""

    def setUp(self):
        super().setUp()
        self.config_in = self.partner_config(filter_domain="[('ref', '=like', 'T-%')]", limit=50)
        self.ann, self.bob = self.env["res.partner"].create(
            [
                {"name": "Ann", "ref": "T-1", "city": "Ulm", "color": 3},
                {"name": "Bob", "ref": "T-2", "is_company": True},
            ]
        )
        self.outside = self.env["res.partner"].create({"name": "Zoe", "ref": "X-1"})

    def item(self, code, **values):
        return {"code": code, "name": f"Name {code}"} | values

    # GET

    def test_get_list(self):
        body = self.assert_answer(self.call("GET", "/people"), 200)
        self.assertEqual(body["meta"], {"limit": 50, "offset": 0, "count": 2})
        self.assertEqual(
            body["data"][0],
            {
                "id": self.ann.id,
                "code": "T-1",
                "name": "Ann",
                "email": None,
                "address": {"city": "Ulm", "street": None},
                "color": 3,
                "company": False,
            },
        )

    def test_get_one(self):
        body = self.assert_answer(self.call("GET", f"/people/{self.bob.id}"), 200)
        self.assertEqual((body["data"]["code"], body["data"]["company"]), ("T-2", True))
        self.assertNotIn("meta", body)

    def test_second_prefix(self):
        self.assert_answer(self.call("GET", "/people", prefix="/api/sync/v1"), 200)

    def test_get_one_outside_domain(self):
        for ref in (self.outside.id, 2**31, 2**40, "abc", "-1", "0", "%00"):
            with self.subTest(ref=ref):
                self.assert_answer(self.call("GET", f"/people/{ref}"), 404)

    def test_get_by_identifier(self):
        self.config_in.record_id_type = "identifier"
        self.ann.ref = "T-1/a b"
        body = self.assert_answer(self.call("GET", "/people/T-1%2Fa%20b"), 200)
        self.assertEqual(body["data"]["id"], self.ann.id)
        self.assert_answer(self.call("GET", "/people/X-1"), 404)
        self.bob.ref = "T-2\nb"
        self.assert_answer(self.call("GET", "/people/T-2%0Ab"), 200)
        self.bob.ref = self.ann.ref
        self.assert_answer(self.call("GET", "/people/T-1%2Fa%20b"), 409)

    def test_window(self):
        def names(query):
            body = self.assert_answer(self.call("GET", f"/people?{query}"), 200)
            return [item["name"] for item in body["data"]]

        self.assertEqual(names("limit=1"), ["Ann"])
        self.assertEqual(names("limit=1&offset=1"), ["Bob"])
        self.assertEqual(names("limit=1&page=2"), ["Bob"])
        self.assertEqual(names("limit=999"), ["Ann", "Bob"])
        self.assertEqual(names("limit=0"), ["Ann", "Bob"])
        self.assertEqual(names("sort=-name"), ["Bob", "Ann"])
        self.assertEqual(names("sort=company,-create_date"), ["Ann", "Bob"])
        self.assertEqual(names("offset=10"), [])
        for query in ("limit=-1", "limit=x", "limit=²", "offset=-1", "page=0", "page=1&offset=1", "offset=" + "9" * 30):
            with self.subTest(query=query):
                self.assert_answer(self.call("GET", f"/people?{query}"), 400)

    def test_limit_is_lowered(self):
        self.config_in.limit = 1
        body = self.assert_answer(self.call("GET", "/people?limit=5"), 200)
        self.assertEqual((body["meta"]["limit"], body["meta"]["count"]), (1, 1))

    def test_total(self):
        body = self.assert_answer(self.call("GET", "/people?count=true&limit=1"), 200)
        self.assertEqual(body["meta"]["total"], 2)
        self.config_in.write({"is_paginated": True, "page_size": 1})
        body = self.assert_answer(self.call("GET", "/people"), 200)
        self.assertEqual((body["meta"]["limit"], body["meta"]["total"]), (1, 2))
        for query in ("count=false", "cursor="):  # a page behind a cursor costs the same at any depth
            self.assertNotIn("total", self.assert_answer(self.call("GET", f"/people?{query}"), 200)["meta"])
        body = self.assert_answer(self.call("GET", "/people?cursor=&count=true"), 200)
        self.assertEqual(body["meta"]["total"], 2)

    def test_sort_refused(self):
        for key in ("password", "unknown", "child_ids", "-"):
            self.assert_answer(self.call("GET", f"/people?sort={key}"), 400)

    def test_fields(self):
        body = self.assert_answer(self.call("GET", "/people?fields=code,address.city"), 200)
        self.assertEqual(body["data"][0], {"id": self.ann.id, "code": "T-1", "address": {"city": "Ulm"}})
        body = self.assert_answer(self.call("GET", f"/people/{self.ann.id}?fields=address"), 200)
        self.assertEqual(body["data"], {"id": self.ann.id, "address": {"city": "Ulm", "street": None}})
        body = self.assert_answer(self.call("GET", "/people?fields=secret"), 400)
        self.assertIn("secret", body["message"])

    def test_mapped_key_is_equality(self):
        body = self.assert_answer(self.call("GET", "/people?address.city=Ulm"), 200)
        self.assertEqual([item["code"] for item in body["data"]], ["T-1"])
        body = self.assert_answer(self.call("GET", "/people?company=true&color=0"), 200)
        self.assertEqual([item["code"] for item in body["data"]], ["T-2"])
        body = self.assert_answer(self.call("GET", "/people?address.city="), 200)
        self.assertEqual([item["code"] for item in body["data"]], ["T-2"])
        self.assertIn("color", self.assert_answer(self.call("GET", "/people?color=red"), 400)["message"])

    def test_mapped_key_with_several_values(self):
        """Any of them, each as it is."""
        self.ann.name, self.bob.color = "Ann, a", 3
        for query, codes in (
            ("name=Ann,%20a&name=x", ["T-1"]),
            ("name=Ann&name=Bob", ["T-2"]),
            ("color=3&color=7", ["T-1", "T-2"]),
            ("address.city=&address.city=Ulm", ["T-1", "T-2"]),
        ):
            with self.subTest(query=query):
                body = self.assert_answer(self.call("GET", f"/people?{query}"), 200)
                self.assertEqual([item["code"] for item in body["data"]], codes)

    def test_unknown_parameter(self):
        body = self.assert_answer(self.call("GET", "/people?colour=1"), 400)
        self.assertIn("colour", body["message"])
        self.assert_answer(self.call("GET", f"/people/{self.ann.id}?limit=1"), 400)
        self.assert_answer(self.call("POST", "/people?limit=1", self.item("T-3")), 400)

    def test_parameters(self):
        partner = "res.partner"
        for key, name, operator in (
            ("like", "name", "ilike"),
            ("unlike", "name", "not ilike"),
            ("wild", "name", "=ilike"),
            ("not_city", "city", "!="),
            ("above", "color", ">"),
            ("upto", "color", "<="),
            ("refs", "ref", "in"),
            ("no_refs", "ref", "not in"),
            ("has_city", "city", "set"),
            ("since", "create_date", ">="),
            ("parent", "parent_id", "="),
        ):
            self.env["bj.api.sync.param"].create(
                {
                    "config_id": self.config_in.id,
                    "key": key,
                    "field_id": self.field(partner, name),
                    "domain_operator": operator,
                }
            )
        self.bob.parent_id = self.outside
        for query, expected in (
            ("like=an", ["T-1"]),
            ("unlike=an", ["T-2"]),
            ("wild=b%25", ["T-2"]),
            ("not_city=Ulm", ["T-2"]),
            ("above=1", ["T-1"]),
            ("upto=1", ["T-2"]),
            ("refs=T-1,T-2", ["T-1", "T-2"]),
            ("refs=T-1&refs=T-9", ["T-1"]),
            ("no_refs=T-1", ["T-2"]),
            ("has_city=true", ["T-1"]),
            ("has_city=false", ["T-2"]),
            ("since=2020-01-01T00:00:00%2B02:00", ["T-1", "T-2"]),
            ("since=2999-01-01T00:00:00Z", []),
            (f"parent={self.outside.id}", ["T-2"]),
            ("above=1&like=bob", []),
            ("updated_since=2999-01-01T00:00:00Z", []),
        ):
            with self.subTest(query=query):
                body = self.assert_answer(self.call("GET", f"/people?{query}"), 200)
                self.assertEqual([item["code"] for item in body["data"]], expected)
        for query in (
            "above=x",
            "above=",
            "since=",
            "has_city=maybe",
            "since=yesterday",
            "parent=abc",
            "updated_since=1",
            "like=%00",
        ):
            with self.subTest(query=query):
                body = self.assert_answer(self.call("GET", f"/people?{query}"), 400)
                self.assertIn(query.split("=")[0], body["message"])

    def test_filter_by_relation(self):
        """A relation is compared with the related record's identifier; what is said of a bad one names the key sent."""
        boss = self.mapping("res.partner", ("id", "number"), ("name", "name"))
        values = {"value_type": "relational", "mapping_config_id": boss.id}
        self.config_in.line_ids = self.lines(
            "res.partner", ("parent_id", "boss", values | {"is_record_identifier": False})
        )
        self.bob.parent_id = self.outside
        body = self.assert_answer(self.call("GET", f"/people?boss={self.outside.id}"), 200)
        self.assertEqual([item["code"] for item in body["data"]], ["T-2"])
        body = self.assert_answer(self.call("GET", "/people?boss=abc"), 400)
        self.assertIn("boss", body["message"])
        for query, codes in (("boss=", ["T-1"]), (f"boss=&boss={self.outside.id}", ["T-1", "T-2"])):
            body = self.assert_answer(self.call("GET", f"/people?{query}"), 200)
            self.assertEqual([item["code"] for item in body["data"]], codes)

    def test_filter_by_tags(self):
        tag = self.mapping("res.partner.category", ("name", "name"))
        values = {"value_type": "relational", "mapping_config_id": tag.id, "is_record_identifier": False}
        self.config_in.line_ids = self.lines("res.partner", ("category_id", "tags", values))
        self.bob.category_id = self.env["res.partner.category"].create([{"name": "T-Gold"}, {"name": "T-New"}])
        for query, codes in (("tags=", ["T-1"]), ("tags=T-Gold", ["T-2"]), ("tags=T-New&tags=x", ["T-2"])):
            body = self.assert_answer(self.call("GET", f"/people?{query}"), 200)
            self.assertEqual([item["code"] for item in body["data"]], codes)

    def test_models_without_dates(self):
        """Of records that Odoo keeps no dates of, none can be asked for."""
        self.config("mail.followers", ("id", "id"), ("res_model", "model"), endpoint="followers")
        self.assert_answer(self.call("GET", "/followers?sort=model,-id&updated_since="), 200)
        for query in ("sort=create_date", "sort=-write_date", "updated_since=2000-01-01T00:00:00Z"):
            with self.subTest(query=query):
                body = self.assert_answer(self.call("GET", f"/followers?{query}"), 400)
                self.assertIn(query.split("=")[0], body["message"])

    def test_head_and_options(self):
        response = self.call("HEAD", "/people")
        self.assertEqual((response.status_code, response.content), (200, b""))
        response = self.call("OPTIONS", "/people")
        self.assert_answer(response, 204)
        self.assertEqual(response.headers["Allow"], "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS")

    # POST

    def test_post_creates(self):
        payload = self.item("T-3", email="c@example.com", address={"city": "Bern"}, color="7", company=True)
        response = self.call("POST", "/people", payload)
        body = self.assert_answer(response, 201)
        partner = self.env["res.partner"].browse(body["data"]["id"])
        self.assertEqual(
            (partner.ref, partner.name, partner.email, partner.city, partner.color, partner.is_company),
            ("T-3", "Name T-3", "c@example.com", "Bern", 7, True),
        )
        self.assertEqual(response.headers["Location"], f"/bj_api_sync/v1/people/{partner.id}")
        self.assert_answer(self.call("GET", response.headers["Location"], prefix=""), 200)

    def test_location_by_identifier(self):
        self.config_in.write({"record_id_type": "identifier", "filter_domain": "[]"})
        response = self.call("POST", "/people", self.item("T/3 ä"))
        self.assert_answer(response, 201)
        self.assert_answer(self.call("GET", response.headers["Location"], prefix=""), 200)
        for payload in ({"name": "Nameless"}, {"name": "Nameless", "code": None}):
            response = self.call("POST", "/people", payload)
            self.assert_answer(response, 201)
            self.assertNotIn("Location", response.headers)

    def test_post_updates_the_same_identifier(self):
        response = self.call("POST", "/people", {"code": "T-1", "address": {"street": "Way 1"}})
        body = self.assert_answer(response, 200)
        self.assertEqual(body["data"]["id"], self.ann.id)
        self.assertEqual((self.ann.street, self.ann.city, self.ann.name), ("Way 1", "Ulm", "Ann"))
        self.assertNotIn("Location", response.headers)

    def test_post_refuses_existing(self):
        self.config_in.existing_policy = "error"
        body = self.assert_answer(self.call("POST", "/people", self.item("T-1")), 409)
        self.assertEqual(body["errors"][0]["pointer"], "/code")
        self.assertEqual(self.ann.name, "Ann")

    def test_post_ambiguous_identifier(self):
        self.bob.ref = "T-1"
        self.assert_answer(self.call("POST", "/people", self.item("T-1")), 409)

    def test_null_clears_absent_keeps(self):
        self.assert_answer(self.call("POST", "/people", {"code": "T-1", "address": {"city": None}}), 200)
        self.assertEqual((self.ann.city, self.ann.color), (False, 3))

    def test_all_faults_are_told(self):
        payload = {"code": "T-9", "name": 5, "color": "red", "address": {"city": ["x"]}, "company": "yes"}
        body = self.assert_answer(self.call("POST", "/people", payload), 400)
        lines = {line.external_key: line.id for line in self.config_in.line_ids}
        self.assertEqual(
            {error["pointer"]: error["line_id"] for error in body["errors"]},
            {
                "/name": lines["name"],
                "/color": lines["color"],
                "/address/city": lines["address.city"],
                "/company": lines["company"],
            },
        )
        self.assertNotIn("index", body["errors"][0])
        self.assertFalse(self.env["res.partner"].search([("ref", "=", "T-9")]))

    def test_strict_keys(self):
        self.assert_answer(self.call("POST", "/people", self.item("T-5", extra=1)), 201)
        self.config_in.strict_keys = True
        body = self.assert_answer(self.call("POST", "/people", self.item("T-6", extra=1)), 400)
        self.assertEqual(body["errors"][0]["pointer"], "/extra")

    def test_missing_value(self):
        body = self.assert_answer(self.call("POST", "/people", {"code": "T-7"}), 400)
        self.assertIn("name", str(body).lower())

    def test_outside_domain_is_not_created(self):
        self.assert_answer(self.call("POST", "/people", self.item("Q-1")), 400)
        self.assertFalse(self.env["res.partner"].search([("ref", "=", "Q-1")]))

    def test_bad_bodies(self):
        for data in (b"{", b"[1", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000):
            self.assert_answer(
                self.call("POST", "/people", data=data, headers={"Content-Type": "application/json"}), 400
            )
        for payload in ("text", 5, True):
            self.assert_answer(self.call("POST", "/people", payload), 400)
        self.assert_answer(self.call("POST", "/people", headers={"Content-Type": "application/json"}), 400)
        self.assert_answer(self.call("POST", "/people", data={"a": 1}), 415)
        self.assert_answer(self.call("POST", "/people", {"code": "T-8", "name": "\ud800"}), 400)
        self.assert_answer(self.call("POST", "/people", {"code": "T-8", "name": "a\x00b"}), 400)

    def test_any_json_is_answered(self):
        """What scripts make is answered as it is, also what has no place in 64 bits or in UTF-8."""
        values = {"value_type": "script", "script": "{'n': 2**70, 3: ['\\ud800', 1.5, None]}", "external_key": "odd"}
        self.config_in.line_ids = [Command.create(values | {"field_id": self.field("res.partner", "comment")})]
        self.env["res.partner"].create({"name": "Odd", "ref": "T-9"})
        text = self.call("GET", "/people?code=T-9&fields=odd").text
        self.assertIn('"odd":{"n":1180591620717411303424,"3":["\\ud800",1.5,null]}', text)

    # lists

    def test_post_list(self):
        body = self.assert_answer(self.call("POST", "/people", [self.item("T-3"), self.item("T-4")]), 201)
        self.assertEqual([item["code"] for item in body["data"]], ["T-3", "T-4"])
        self.assertEqual(body["meta"], {"created": 2, "updated": 0, "failed": 0})
        body = self.assert_answer(self.call("POST", "/people", [self.item("T-3"), self.item("T-5")]), 200)
        self.assertEqual(body["meta"], {"created": 1, "updated": 1, "failed": 0})
        self.assert_answer(self.call("POST", "/people", []), 200)

    def test_post_list_keeps_the_good_items(self):
        payload = [self.item("T-3"), self.item("T-4", color="x"), {"code": "T-5"}, 7, self.item("T-6")]
        body = self.assert_answer(self.call("POST", "/people", payload), 207)
        self.assertEqual([item["code"] for item in body["data"]], ["T-3", "T-6"])
        self.assertEqual(body["meta"], {"created": 2, "updated": 0, "failed": 3})
        self.assertEqual([error["index"] for error in body["errors"]], [1, 2, 3])
        self.assertEqual(body["errors"][0]["pointer"], "/color")
        self.assertEqual({error["code"] for error in body["errors"]}, {400})

    def test_all_or_nothing(self):
        payload = [self.item("T-3"), self.item("T-4", color="x")]
        body = self.assert_answer(self.call("POST", "/people?atomic=true", payload), 400)
        self.assertEqual(body["errors"][0]["index"], 1)
        self.config_in.all_or_nothing = True
        self.assert_answer(self.call("POST", "/people", [self.item("T-3"), {"code": "T-4"}]), 400)
        self.assertFalse(self.env["res.partner"].search([("ref", "in", ("T-3", "T-4"))]))

    def test_twice_in_one_request(self):
        body = self.assert_answer(self.call("POST", "/people", [self.item("T-3"), self.item("T-3")]), 207)
        self.assertEqual([error["code"] for error in body["errors"]], [409, 409])
        self.assertEqual(body["data"], [])

    def test_too_many_items(self):
        self.config_in.limit = 2
        self.assert_answer(self.call("POST", "/people", [self.item(f"T-{n}") for n in range(3, 6)]), 413)

    # PUT and PATCH

    def test_update_one(self):
        for method, name in (("PUT", "Anna"), ("PATCH", "Annie")):
            body = self.assert_answer(self.call(method, f"/people/{self.ann.id}", {"name": name}), 200)
            self.assertEqual((body["data"]["name"], self.ann.name, self.ann.city), (name, name, "Ulm"))
        self.assert_answer(self.call("PUT", f"/people/{self.outside.id}", {"name": "x"}), 404)
        self.assert_answer(self.call("PUT", f"/people/{self.ann.id}", [{"name": "x"}]), 400)
        self.assert_answer(self.call("PUT", f"/people/{self.ann.id}", {"code": "T-2"}), 409)
        self.assertEqual(self.outside.name, "Zoe")

    def test_update_by_identifier_in_body(self):
        self.assert_answer(self.call("PUT", "/people", {"code": "T-1", "name": "Anna"}), 200)
        self.assertEqual(self.ann.name, "Anna")
        self.assert_answer(self.call("PUT", "/people", {"code": "T-99", "name": "x"}), 404)
        self.assert_answer(self.call("PUT", "/people", {"name": "x"}), 400)
        body = self.assert_answer(
            self.call("PATCH", "/people", [{"code": "T-1", "color": 1}, {"code": "T-99"}, {"code": "T-2", "color": 2}]),
            207,
        )
        self.assertEqual(body["meta"], {"created": 0, "updated": 2, "failed": 1})
        self.assertEqual((body["errors"][0]["index"], body["errors"][0]["code"]), (1, 404))
        self.assertEqual((self.ann.color, self.bob.color), (1, 2))

    # DELETE

    def test_delete_one(self):
        body = self.assert_answer(self.call("DELETE", f"/people/{self.ann.id}"), 200)
        self.assertEqual(body["data"], {"id": self.ann.id})
        self.assertFalse(self.ann.exists())
        self.assert_answer(self.call("DELETE", f"/people/{self.outside.id}"), 404)
        self.assertTrue(self.outside.exists())

    def test_delete_listed(self):
        self.assert_answer(self.call("DELETE", "/people"), 400)
        self.assert_answer(self.call("DELETE", "/people", []), 400)
        body = self.assert_answer(self.call("DELETE", "/people", ["T-1", {"code": "T-2"}, "X-1"]), 207)
        self.assertEqual(body["data"], [{"id": self.ann.id}, {"id": self.bob.id}])
        self.assertEqual((body["errors"][0]["index"], body["errors"][0]["code"]), (2, 404))
        self.assertFalse((self.ann + self.bob).exists())

    def test_delete_archives(self):
        self.config_in.delete_policy = "archive"
        self.assert_answer(self.call("DELETE", "/people", {"code": "T-1"}), 200)
        self.assertEqual((self.ann.exists(), self.ann.active), (self.ann, False))
        self.assert_answer(self.call("GET", f"/people/{self.ann.id}"), 404)

    def test_text_that_no_index_can_hold(self):
        """PostgreSQL says so with an error of its own kind."""
        name = "".join(sha256(bytes([number])).hexdigest() for number in range(100))  # nothing compresses that
        with mute_logger("odoo.http"):
            self.assert_answer(self.call("POST", "/people", {"code": "T-8", "name": name}), 400)
        items = [{"code": "T-8", "name": name}, {"code": "T-9", "name": "Nine"}]
        body = self.assert_answer(self.call("POST", "/people", items), 207)
        self.assertEqual([(error["index"], error["code"]) for error in body["errors"]], [(0, 400)])

    def test_delete_in_use(self):
        self.env["res.users"].create({"name": "U", "login": "in-use", "partner_id": self.ann.id})
        self.assert_answer(self.call("DELETE", f"/people/{self.ann.id}"), 409)
        body = self.assert_answer(self.call("DELETE", "/people", ["T-1", "T-2"]), 207)
        self.assertEqual([error["code"] for error in body["errors"]], [409])
        self.assertEqual((self.ann.exists(), self.bob.exists()), (self.ann, self.env["res.partner"]))

    def test_delete_what_the_database_keeps(self):
        """Which model uses the record is told, in words."""
        self.config("res.country", ("code", "iso"), ("name", "name"), endpoint="lands", record_id_type="identifier")
        land = self.env["res.country"].create({"code": "ZZ", "name": "Zedland"})
        self.env["res.country.state"].create({"code": "Z", "name": "Z", "country_id": land.id})
        with mute_logger("odoo.sql_db"):
            single = self.assert_answer(self.call("DELETE", "/lands/ZZ"), 409)
            listed = self.assert_answer(self.call("DELETE", "/lands", ["ZZ"]), 207)
        for message in (single["message"], listed["errors"][0]["message"]):
            self.assertIn("Country state", message)
            for word in ("violates", "DETAIL", "fkey"):
                self.assertNotIn(word, message)

    # transport

    def test_unknown_endpoint(self):
        for path in ("", "/", "/nothing", "/nothing/1", "/peopl"):
            self.assert_answer(self.call("GET", path), 404)
        self.config_in.active = False
        self.assert_answer(self.call("GET", "/people"), 404)

    def test_unknown_endpoints_are_not_kept(self):
        """Nobody can make Odoo's cache forget what it has by asking for names that are none."""
        cache = self.env.registry._Registry__caches["default"]
        self.assert_answer(self.call("GET", "/people"), 200)
        self.assert_answer(self.call("GET", "/nothing"), 404)
        count = len(cache)
        for number in range(3):
            self.assert_answer(self.call("GET", f"/nothing-{number}"), 404)
        self.assertEqual(len(cache), count)

    def test_mapping_only_is_not_exposed(self):
        self.config_in.endpoint = False
        self.assert_answer(self.call("GET", "/people"), 404)

    def test_method_not_allowed(self):
        self.config_in.http_method_ids = self.methods("GET")
        response = self.call("POST", "/people", self.item("T-3"))
        self.assert_answer(response, 405)
        self.assertEqual(response.headers["Allow"], "GET, HEAD, OPTIONS")
        self.assert_answer(self.call("TRACE", "/people"), 405)

    def test_nothing_is_created_below_a_record(self):
        response = self.call("POST", f"/people/{self.ann.id}", self.item("T-3"))
        self.assert_answer(response, 405)
        self.assertEqual(response.headers["Allow"], "GET, PUT, PATCH, DELETE, HEAD, OPTIONS")
        self.assertFalse(self.env["res.partner"].search([("ref", "=", "T-3")]))

    def test_request_id(self):
        response = self.call("GET", "/people", headers={"X-Request-ID": "abc-1"})
        self.assertEqual(response.headers["X-Request-ID"], "abc-1")
        self.env["bj.api.log"]._flush_later()
        log = self.env["bj.api.log"].search([("trace_id", "=", "abc-1")])
        self.assertEqual((log.status, log.response_code, log.record_count), ("success", 200, 2))
        response = self.call("GET", "/people", headers={"X-Request-ID": "no spaces"})
        self.assertNotEqual(response.headers["X-Request-ID"], "no spaces")

    def test_only_errors_are_logged(self):
        """A list with failed items is one, as its log says where everything is logged."""
        self.config_in.log_policy = "errors"
        for items, status in (([self.item("T-3")], 201), ([self.item("T-4"), {"code": "T-5"}], 207)):
            self.assert_answer(self.call("POST", "/people", items), status)
        logs = self.env["bj.api.log"].search([("config_id", "=", self.config_in.id)])
        self.assertEqual([(log.status, log.response_code) for log in logs], [("error", 207)])
        self.assertTrue(logs.error_summary.startswith("Failed items: 1. The first: "), logs.error_summary)

    def test_the_log_of_a_bad_body_is_short(self):
        """What the caller did wrong is told without the traceback of our parser."""
        headers = {"Content-Type": "application/json", "X-Request-ID": "bad-body"}
        self.assert_answer(self.call("POST", "/people", data="{", headers=headers), 400)
        log = self.env["bj.api.log"].search([("trace_id", "=", "bad-body")])
        self.assertIn("The body is not valid application/json", log.error_message)
        self.assertNotIn("Traceback", log.error_message)

    def test_not_acceptable(self):
        self.assert_answer(self.call("GET", "/people", headers={"Accept": "image/png"}), 406)
        for accept in ("application/json; charset=utf-8", "image/png, application/json;v=1;q=0.5", "*/*;q=0.1"):
            self.assert_answer(self.call("GET", "/people", headers={"Accept": accept}), 200)

    def test_compressed_bodies_are_refused(self):
        payload = {"code": "T-9", "name": "Zip"}
        for encoding, status in (("gzip", 415), ("br", 415), ("identity", 201)):
            with self.subTest(encoding=encoding):
                response = self.call("POST", "/people", payload, headers={"Content-Encoding": encoding})
                self.assert_answer(response, status)

    def test_problem_details(self):
        response = self.call("GET", "/people/0", headers={"Accept": "application/problem+json"})
        self.assertEqual(response.headers["Content-Type"], "application/problem+json; charset=utf-8")
        self.assertEqual(response.json()["status"], 404)

    def test_answer_headers(self):
        self.env["bj.api.sync.header"].create({"config_id": self.config_in.id, "key": "X-Shop", "value": "one"})
        self.assertEqual(self.call("GET", "/people").headers["X-Shop"], "one")

    def test_no_cookie(self):
        self.assertNotIn("Set-Cookie", self.call("GET", "/people").headers)

    def test_refusals_of_the_database_tell_no_row(self):
        """What a constraint refuses may have fields that nobody mapped."""
        secret = self.env["res.users"].create({"name": "Secret", "login": "secret-row", "street": "Hidden 5"})
        self.config("res.users", ("login", "login"), ("name", "name"), endpoint="users")
        for headers in ({}, {"Prefer": "tx=rollback"}):
            with mute_logger("odoo.sql_db"):
                response = self.call("PATCH", "/users", {"login": secret.login, "name": None}, headers=headers)
            self.assertEqual(self.assert_answer(response, 400)["message"], "Contacts require a name")
            self.assertNotIn("Hidden", response.text)

    def test_filters_by_restricted_fields(self):
        """What a field can be compared with would tell its value."""
        user = self.new_user("without-settings", "base.group_partner_manager")
        line = self.config_in.line_ids.filtered(lambda line: line.external_key == "color")
        self.config_in.param_ids = [
            Command.create({"key": "from", "field_id": line.field_id.id, "domain_operator": ">="})
        ]
        self.config_in.user_id = user
        self.assert_answer(self.call("GET", "/people?from=1&color=3"), 200)
        with patch.object(type(self.ann)._fields["color"], "groups", "base.group_system"):
            self.env.registry.clear_cache()
            for query in ("from=1", "color=3", "sort=color"):
                self.assertIn(self.call("GET", f"/people?{query}").status_code, (400, 403), query)

    def test_what_cannot_be_searched_for(self):
        line = {"field_id": self.field("res.partner", "create_date"), "external_key": "made"}
        self.config_in.line_ids = [Command.create(line)]
        body = self.assert_answer(self.call("GET", "/people?made=9999-12-31T23:59:59Z"), 400)
        self.assertIn("cannot be searched", body["message"])
        self.assert_answer(self.call("GET", "/people?made=9998-12-31T23:59:59Z"), 200)

    def test_equality_is_exact(self):
        self.ann.ref = "T-1 "
        self.env["res.partner"].create({"name": "Eve", "ref": "T-1"})
        for query, name in (("T-1%20", "Ann"), ("T-1", "Eve")):
            [item] = self.assert_answer(self.call("GET", f"/people?code={query}"), 200)["data"]
            self.assertEqual(item["name"], name)

    def test_paths(self):
        for name in ("peo%00ple", "people%00junk"):
            self.assert_answer(self.call("GET", f"/{name}"), 404)
        self.config_in.record_id_type = "identifier"
        self.config_in.filter_domain = "[]"
        response = self.call("POST", "/people", self.item("/x"))
        self.assert_answer(response, 201)
        location = response.headers["Location"]
        self.assertEqual(self.assert_answer(self.call("GET", location, prefix=""), 200)["data"]["code"], "/x")

    def test_archived_by_the_caller(self):
        """Who maps Active archives and restores, and finds what is archived by its identifier."""
        self.config_in.record_id_type = "identifier"
        active = {"field_id": self.field("res.partner", "active"), "external_key": "active"}
        self.config_in.line_ids = [Command.create(active)]
        for status in (201, 200):
            self.assert_answer(self.call("POST", "/people", self.item("T-7", active=False)), status)
        self.assertFalse(self.assert_answer(self.call("GET", "/people/T-7"), 200)["data"]["active"])
        self.assertNotIn("T-7", self.call("GET", "/people").text)
        self.assert_answer(self.call("PATCH", "/people/T-7", {"active": True}), 200)
        self.assertIn("T-7", self.call("GET", "/people").text)

    def test_no_mail_of_a_dry_run(self):
        def is_off():
            with patch.object(module, "current_test", None):  # in tests it always is
                return type(self.env["ir.mail_server"])._disable_send()

        self.assertFalse(is_off())
        with transaction.rehearsal(self.env):
            self.assertTrue(is_off())
        self.assertFalse(is_off())

    def test_passwords_under_other_names(self):
        """A value is masked because of its field, whatever its key."""
        self.config("res.users", ("login", "login"), ("name", "name"), ("password", "kennwort"), endpoint="users")
        payload = {"login": "masked", "name": "M", "kennwort": "Sup3rS3cret!x"}
        response = self.call("POST", "/users", payload, headers={"X-Request-ID": "masked"})
        self.assert_answer(response, 201)
        log = self.env["bj.api.log"].search([("trace_id", "=", "masked")])
        self.assertIn('"kennwort": "***"', log.request_body)
        self.assertNotIn("Sup3rS3cret!x", log.request_body)

    def test_charset_that_is_none(self):
        """A body that cannot be read as it is declared keeps nothing out of the logs."""
        self.config("res.country", ("code", "code"), ("name", "name"), endpoint="lands")
        headers = {"Content-Type": "application/json; charset=undefined", "X-Request-ID": "charset"}
        response = self.call("POST", "/lands", {"code": "X"}, headers=headers, token="guessed")
        self.assert_answer(response, 401)
        log = self.env["bj.api.log"].search([("trace_id", "=", "charset")])
        self.assertEqual((log.response_code, log.request_body), (401, '{"code": "X"}'))

    @mute_logger("odoo.addons.bj_api_sync.models.bj_api_sync_inbound")
    def test_values_that_odoo_fails_on(self):
        """No password cannot be hashed: Odoo's code raises a TypeError. That concerns one item, not the server."""
        self.config("res.users", ("login", "login"), ("name", "name"), ("password", "password"), endpoint="users")
        wrong = {"login": "none", "name": "None", "password": None}
        body = self.assert_answer(self.call("POST", "/users", wrong), 400)
        self.assertIn("Odoo failed on these values: TypeError", body["message"])
        body = self.assert_answer(self.call("POST", "/users", [wrong, {"login": "some", "name": "Some"}]), 207)
        self.assertEqual([(error["index"], error["code"]) for error in body["errors"]], [(0, 400)])
        self.assertEqual(self.env["res.users"].search([("login", "in", ["none", "some"])]).login, "some")

    def test_messages_of_refused_values(self):
        """They name what is missing, and show what came as the caller wrote it."""
        self.config("res.currency", ("name", "code"), ("symbol", "mark"), ("rounding", "rounding"), endpoint="money")
        self.config("res.country", ("code", "code"), ("name", "name"), ("phone_code", "phone"), endpoint="lands")
        for path, payload, pointer, message in (
            ("/money", {"code": "ZZZ"}, "/mark", "Symbol is required."),
            ("/people", {"code": True}, "/code", "Expected a string of storable characters, not true."),
            ("/people", {"code": "ü\x00"}, "/code", 'Expected a string of storable characters, not "ü\\u0000".'),
            ("/people", {"code": "\ud800"}, "/code", 'Expected a string of storable characters, not "\\ud800".'),
            ("/lands", {"code": "ZZ", "phone": 2**31}, "/phone", "Expected an integer of 32 bits, not 2147483648."),
            ("/money", {"code": "ZZZ", "rounding": 1e308}, "/rounding", "Expected a number up to 1e300, not 1e+308."),
        ):
            with self.subTest(payload=payload), mute_logger("odoo.sql_db"):
                [error] = self.assert_answer(self.call("POST", path, payload), 400)["errors"]
                self.assertEqual((error["pointer"], error["message"]), (pointer, message))
