import base64

from odoo.fields import Command
from odoo.tests import BaseCase, tagged

from ..tools import paging
from .common import ApiHttpCase


@tagged("-at_install", "post_install")
class TestPaging(ApiHttpCase):
    """Pages of a list, and walking them while the table is written to."""

    def setUp(self):
        super().setUp()
        self.config_in = self.partner_config(filter_domain="[('ref', '=like', 'P-%')]", limit=3)
        self.add(range(10))

    def add(self, numbers):
        return self.env["res.partner"].create(
            [
                {
                    "name": f"Name {number}",
                    "ref": f"P-{number}",
                    "city": [False, "Bern", "Ulm"][number % 3],
                    "is_company": number % 2,
                    "color": number // 4,
                }
                for number in numbers
            ]
        )

    def walk(self, query, between=None, endpoint="people"):
        """Follow the links to the end; return the codes seen."""
        codes, url = [], f"/bj_api_sync/v1/{endpoint}?{query}"
        for _page in range(20):
            response = self.call("GET", url, prefix="")
            codes += [item["code"] for item in self.assert_answer(response, 200)["data"]]
            if "next" not in response.links:
                return codes
            url = response.links["next"]["url"].removeprefix(self.base_url())
            if between:
                between()
        return self.fail("The links never end")

    def test_walks(self):
        expected = [f"P-{number}" for number in range(10)]
        for query in ("", "cursor=", "offset=0", "page=1", "limit=1", "limit=2&cursor="):
            with self.subTest(query=query):
                self.assertEqual(self.walk(query), expected)

    def test_sorted_walks_are_the_sorted_list(self):
        for sort in (
            "address.city",
            "-address.city",
            "company,-name",
            "-color,address.city,-company",
            "create_date",
            "-id",
            "-write_date,name",
        ):
            with self.subTest(sort=sort):
                self.config_in.limit = 100
                body = self.assert_answer(self.call("GET", f"/people?sort={sort}"), 200)
                self.config_in.limit = 3
                self.assertEqual(self.walk(f"sort={sort}"), [item["code"] for item in body["data"]])
                self.assertEqual(self.walk(f"sort={sort}&offset=0"), [item["code"] for item in body["data"]])

    def test_walk_sorted_by_a_related_field(self):
        """A field that is another record's column brings its table to the query, also for the cursor."""
        users = self.env["res.users"].create([{"name": f"Name {n % 2}", "login": f"walk-{n}"} for n in range(7)])
        fields = [("login", "code"), ("name", "name")]
        self.config("res.users", *fields, endpoint="users", filter_domain="[('login', '=like', 'walk-%')]", limit=2)
        for sort, reverse in (("name", False), ("-name", True)):
            expected = [user.login for user in users.sorted("name", reverse=reverse)]
            for mode in ("", "&offset=0"):
                with self.subTest(sort=sort, mode=mode):
                    self.assertEqual(self.walk(f"sort={sort}{mode}", endpoint="users"), expected)

    def test_no_cursor_among_related_records(self):
        """Where no cursor can stand, none is taken: the links would lead to the first page again and again."""
        line = {"field_id": self.field("res.partner", "country_id"), "external_key": "country"}
        self.config_in.line_ids = [Command.create(line)]
        self.assert_answer(self.call("GET", "/people?sort=country&cursor="), 400)
        self.assertEqual(len(set(self.walk("sort=country"))), 10)

    def test_sorted_by_the_model_in_its_own_way(self):
        """Devices are sorted by a field that has no column: the current one first."""
        identifiers = ("a" * 42, "b" * 42)
        self.env["res.device.log"].create([{"session_identifier": identifier} for identifier in identifiers])
        lines = [("session_identifier", "code"), ("is_current", "current")]
        self.config("res.device.log", *lines, endpoint="devices", limit=1)
        self.assert_answer(self.call("GET", "/devices?sort=current&cursor="), 400)
        self.assertLessEqual(set(identifiers), set(self.walk("sort=current", endpoint="devices")))

    def test_numbers(self):
        for number in ("1" + "0" * 5000, "9" * 22, "9223372036854775808", "-1", "1.5", "٣", "x", ""):
            for name in ("limit", "offset", "page"):
                with self.subTest(name=name, number=number[:30]):
                    self.assert_answer(self.call("GET", "/people", params={name: number}), 400)
        for query in ("page=999999999999999999", "offset=999999999999999999", "page=999999999999999999&limit=1"):
            self.assertEqual(self.assert_answer(self.call("GET", f"/people?{query}"), 200)["data"], [])

    def test_updated_since(self):
        """Who has no time yet, as an empty parameter, gets all."""
        self.assertEqual(len(self.walk("updated_since=")), 10)
        self.assertEqual(len(self.walk("updated_since=2000-01-01T00:00:00Z")), 10)
        self.assertEqual(self.walk("updated_since=2100-01-01T00:00:00Z"), [])

    def test_walks_of_models_that_search_in_their_own_way(self):
        """Those may take records out of what they were limited to."""
        self.env["ir.attachment"].create([{"name": f"Walk {number}", "raw": b"x"} for number in range(10)])
        partner = self.env["res.partner"].create({"name": "Talkative"})
        for number in range(10):
            partner.message_post(body=f"Walk {number}")
        for model, field, domain in (
            ("ir.attachment", "name", [("name", "like", "Walk ")]),
            ("mail.message", "body", [("model", "=", "res.partner"), ("res_id", "=", partner.id)]),
        ):
            endpoint = model.replace(".", "-")
            self.config(
                model, ("id", "code"), (field, "text"), endpoint=endpoint, filter_domain=str(domain), limit=3
            ).line_ids.is_record_identifier = False
            expected = self.env[model].search(domain, order="id").ids
            self.assertGreaterEqual(len(expected), 10)
            for query in ("cursor=", "page=1", "offset=0", "sort=-id"):
                with self.subTest(model=model, query=query):
                    walked = self.walk(query, endpoint=endpoint)
                    self.assertEqual(walked, expected[::-1] if "-id" in query else expected)

    def test_walk_while_written(self):
        """Records come and go; those that are there throughout are seen exactly once."""
        gone = self.env["res.partner"].search([("ref", "in", ("P-0", "P-1", "P-4"))], order="id")
        going, coming = iter(gone), iter(range(10, 13))

        def write():
            next(going, self.env["res.partner"]).unlink()
            self.add([number for number in [next(coming, None)] if number])

        codes = self.walk("limit=3", between=write)
        stable = [f"P-{number}" for number in (2, 3, 5, 6, 7, 8, 9)]
        self.assertEqual([code for code in codes if code in stable], stable)
        self.assertEqual(len(codes), len(set(codes)))

    def test_meta_and_links(self):
        response = self.call("GET", "/people?page=2&count=true&company=false")
        self.assertEqual(self.assert_answer(response, 200)["meta"], {"limit": 3, "offset": 3, "count": 2, "total": 5})
        self.assertEqual(set(response.links), {"first", "prev", "last"})
        self.assertTrue(response.links["prev"]["url"].endswith("/people?page=1&count=true&company=false"))
        response = self.call("GET", "/people?cursor=")
        meta = self.assert_answer(response, 200)["meta"]
        self.assertEqual((meta["limit"], meta["count"], "offset" in meta), (3, 3, False))
        self.assertIn(meta["next_cursor"], response.links["next"]["url"])
        response = self.call("GET", "/people?offset=9")
        self.assertEqual(set(response.links), {"first", "prev"})
        self.assertNotIn("next_cursor", self.assert_answer(response, 200)["meta"])

    def test_bad_cursors(self):
        other = paging.encode("name asc, id asc", ["x", 1])
        odd = [paging.encode("id asc", values) for values in ([], [1, 2], [None], ["x"], [{}], ["1\x00"], [True])]
        deep = base64.urlsafe_b64encode(b"[" * 1200).decode()
        for cursor in ("x", "*", "e30", "%00", other, deep, *odd):
            with self.subTest(cursor=cursor):
                self.assert_answer(self.call("GET", f"/people?cursor={cursor}"), 400)
        for text in ("1\x00", "\ud800"):
            cursor = paging.encode("name asc, id asc", [text, 1])
            self.assert_answer(self.call("GET", f"/people?sort=name&cursor={cursor}"), 400)
        self.assert_answer(self.call("GET", "/people?cursor=&offset=1"), 400)


@tagged("-at_install", "post_install")
class TestWalking(BaseCase):
    """The ways into other systems' answers."""

    def test_next_link(self):
        for header, target in (
            (None, ""),
            ("", ""),
            ("</2>; rel=next", "/2"),
            ('<https://a.example/?x=1,2;3>; rel="next"', "https://a.example/?x=1,2;3"),
            ('</1>; rel="prev", </3>; title="a, <b>; rel=no"; REL="last Next"', "/3"),
            ('</1>; rel="nextish", </2>; rel="prev"', ""),
            ("</1>", ""),
            ("rubbish", ""),
        ):
            with self.subTest(header=header):
                self.assertEqual(paging.parse_next_link(header), target)

    def test_pick(self):
        data = {"a": {"b": [{"id": 1}, {"id": 2}], "x.y": 3}, "@odata.nextLink": "url"}
        for key, value in {"": data, "a.b.0.id": 1, "a.b.-1.id": 2, "a.x.y": 3, "@odata.nextLink": "url"}.items():
            self.assertEqual(paging.pick(data, key), value)
        for key in ("z", "a.z", "a.b.2", "a.b.id", "a.b.0.id.x", "@odata.count", "a."):
            with self.subTest(key=key), self.assertRaises(LookupError):
                paging.pick(data, key)
