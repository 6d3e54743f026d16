import itertools
import time

from lxml import etree

from odoo.tests import tagged
from odoo.tests.common import BaseCase

from ..tools import xml
from .common import ApiHttpCase

XSI_NIL = b' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:nil="true"'


class TestXml(BaseCase):
    """The convention, and what is refused."""

    def test_round_trip(self):
        value = {
            "null": None,
            "text": " a\r\n\t<&>]]> ",
            "empty": "",
            "list": ["a", None, [], ["b"], {"c": "d"}],
            "no list": [],
            "no object": {},
            "items": {"item": "x"},
            "one": ["x"],
            "deep": {"er": {"1st": "é", "": "no name", "a:b": "colon", "Größe": "L"}},
        }
        for wanted in (value, [value, value], [], {}, "text", None):
            self.assertEqual(xml.parse(xml.dump(wanted)), wanted)

    def test_scalars_become_text(self):
        self.assertEqual(xml.parse(xml.dump([True, False, 5, -1.5, 1e30])), ["true", "false", "5", "-1.5", "1e+30"])
        self.assertIn("a\ufffdb", xml.parse(xml.dump("a\x0bb")))

    def test_names(self):
        parts = ("_", "x", "0020", "005F", "A", " ", "é")
        keys = ["".join(chosen) for length in range(5) for chosen in itertools.product(parts, repeat=length)]
        keys += [chr(number) for number in (*range(1, 0x800), *range(0x800, 0x10FFFF, 997))]
        for key in keys:
            self.assertEqual(xml.unescape_name(xml.escape_name(key)), key)
        self.assertEqual(list(xml.parse(xml.dump(dict.fromkeys(keys, 1)))), list(dict.fromkeys(keys)))
        for key, name in (("address_xml", "address_xml"), ("2nd", "_x0032_nd"), ("_x0020_", "_x005F_x0020_")):
            self.assertEqual(xml.escape_name(key), name)

    def test_reading(self):
        for data, expected in (
            (b"<any><item>1</item></any>", ["1"]),
            (b"<any><item>1</item><b/></any>", {"item": "1", "b": ""}),
            (b'<any type="list"/>', []),
            (b"<any>\n  <a>1</a>\n</any>", {"a": "1"}),
            (b'<a><b nil="1"/><c null="true"/><d' + XSI_NIL + b"/></a>", {"b": None, "c": None, "d": None}),
            (b'<n:a xmlns:n="urn:n"><n:b z="1">t<!-- c -->u<?p i?>v<![CDATA[<w>]]></n:b></n:a>', {"b": "tuv<w>"}),
            ('<?xml version="1.0" encoding="iso-8859-1"?><a>é</a>'.encode("iso-8859-1"), "é"),
            ('<?xml version="1.0" encoding="utf-16"?><a>é</a>'.encode("utf-16"), "é"),
        ):
            with self.subTest(data=data):
                self.assertEqual(xml.parse(data), expected)

    def test_declared_charset(self):
        """A byte order mark says more than the sender of a document, who says more than the document (RFC 7303)."""
        declared = '<?xml version="1.0" encoding="%s"?><a>é</a>'
        for data, charset in (
            ("<a>é</a>".encode("iso-8859-1"), "ISO-8859-1"),
            (declared.replace("%s", "utf-8").encode("iso-8859-1"), "iso-8859-1"),
            (declared.replace("%s", "iso-8859-1").encode(), "utf-8"),
            ("<a>é</a>".encode("utf-8-sig"), "iso-8859-1"),
            ("<a>é</a>".encode("utf-16"), "iso-8859-1"),
            ("<a>é</a>".encode(), None),
        ):
            with self.subTest(data=data, charset=charset):
                self.assertEqual(xml.parse(data, charset), "é")
        for charset in ("nonsense", "utf-8\x00", "ü"):
            with self.subTest(charset=charset), self.assertRaises(ValueError):
                xml.parse(b"<a/>", charset)

    def test_refused(self):
        for data in (
            b"",
            b"text",
            b"<a/><b/>",
            b"<a>\x01</a>",
            b"<a>\xff</a>",
            b"<a>&unknown;</a>",
            b'<?xml version="1.0" encoding="nonsense"?><a/>',
            b"<a>text<b/></a>",
            b'<a nil="true">text</a>',
            b"<a><b/><b/></a>",
            b'<a type="list"><item/><b/></a>',
            b"<a><_x0062_/><b/></a>",
        ):
            with self.subTest(data=data), self.assertRaises(ValueError):
                xml.parse(data)

    def test_attacks(self):
        laughs = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 10))
        defaults = b"".join(b'<!ATTLIST b x%d CDATA "">' % n for n in range(1000))
        cases = [
            b'<!DOCTYPE a [<!ENTITY l0 "lol">' + laughs + b"]><a>&l9;</a>",
            b'<!DOCTYPE a [<!ENTITY l0 "lol">' + laughs + b']><a b="&l9;"/>',
            b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
            b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><a/>',
            b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:9/">%x;]><a/>',
            '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'.encode("utf-16"),
            b"<!DOCTYPE a [" + defaults + b"]><a>" + b"<b/>" * 40_000 + b"</a>",
            b"<a>" * 101 + b"</a>" * 101,
            b"<a>" * 1_000_000,
            b'<a b="' + b"x" * 11_000_000 + b'"/>',
        ]
        started = time.monotonic()
        for data in cases:
            with self.subTest(data=data[:60]), self.assertRaises(ValueError):
                xml.parse(data)
        self.assertLess(time.monotonic() - started, 5)
        included = b'<a xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="/etc/passwd" parse="text"/></a>'
        self.assertEqual(xml.parse(included), {"include": ""})


@tagged("-at_install", "post_install")
class TestXmlRequests(ApiHttpCase):
    """XML in and out through HTTP."""

    def setUp(self):
        super().setUp()
        self.tags = self.env["res.partner.category"].create([{"name": "Tag A"}, {"name": "Tag B"}])
        tag_map = self.mapping("res.partner.category", ("name", "label"), ("color", "color"))
        lines = self.lines(
            "res.partner",
            ("ref", "code"),
            ("name", "name"),
            ("city", "address.city"),
            ("color", "color"),
            ("partner_latitude", "lat"),
            ("is_company", "company"),
            ("country_id", "country"),
            ("category_id", "tags", {"value_type": "relational", "mapping_config_id": tag_map.id}),
            ("bank_ids", "banks"),
            ("comment", "2nd note"),
        )
        self.people = self.config("res.partner", endpoint="people", line_ids=lines)
        self.ann = self.env["res.partner"].create(
            {
                "name": "Ann <&> Ünal",
                "ref": "T-1",
                "city": "Ulm",
                "color": 3,
                "partner_latitude": 48.5,
                "is_company": True,
                "country_id": self.env.ref("base.de").id,
                "category_id": [(6, 0, self.tags.ids)],
            }
        )

    def send(self, method, path, data=None, accept="application/xml", content_type="application/xml", **headers):
        headers |= {"Accept": accept, "Content-Type": content_type}
        return self.call(method, path, data=data, headers=headers)

    def assert_xml(self, response, status, content_type="application/xml"):
        self.assertEqual(response.status_code, status, response.text)
        self.assertEqual(response.headers["Content-Type"], f"{content_type}; charset=utf-8")
        body = xml.parse(response.content)
        self.assertEqual(body["status"], "success" if status < 400 else "error")
        return body

    def test_get(self):
        body = self.assert_xml(self.send("GET", f"/people/{self.ann.id}"), 200)
        self.assertEqual(
            body["data"],
            {
                "id": str(self.ann.id),
                "code": "T-1",
                "name": "Ann <&> Ünal",
                "address": {"city": "Ulm"},
                "color": "3",
                "lat": "48.5",
                "company": "true",
                "country": str(self.env.ref("base.de").id),
                "tags": [
                    {"label": "Tag A", "color": str(self.tags[0].color)},
                    {"label": "Tag B", "color": str(self.tags[1].color)},
                ],
                "banks": [],
                "2nd note": None,
            },
        )
        body = self.assert_xml(self.send("GET", "/people?code=T-1", accept="text/xml"), 200, "text/xml")
        self.assertEqual(body["meta"]["count"], "1")
        self.assertEqual(body["data"][0]["code"], "T-1")

    def test_charset(self):
        data = "<any><code>T-9</code><name>Ünal</name></any>".encode("iso-8859-1")
        response = self.send("POST", "/people", data, content_type="application/xml; charset=iso-8859-1")
        self.assertEqual(self.assert_xml(response, 201)["data"]["name"], "Ünal")
        body = self.assert_xml(self.send("POST", "/people", data, content_type="text/xml; charset=nonsense"), 400)
        self.assertIn("nonsense", body["message"])

    def test_what_was_read_can_be_written(self):
        """The element ``data`` of an answer is sent back as it is, and changes nothing; then with changes."""
        response = self.send("GET", f"/people/{self.ann.id}")
        data = etree.fromstring(response.content).find("data")
        before = self.ann.read(["ref", "name", "city", "color", "partner_latitude", "is_company", "country_id"])
        written = self.send("PUT", f"/people/{self.ann.id}", etree.tostring(data))
        self.assert_xml(written, 200)
        self.assertEqual(self.ann.read(list(before[0])), before)
        self.assertEqual(self.ann.category_id, self.tags)
        self.assertEqual(self.send("GET", f"/people/{self.ann.id}").content, response.content)
        data.find("company").text = "false"
        data.find("color").text = " 5 "
        data.find("country").text = str(self.env.ref("base.fr").id)
        data.find("tags").remove(data.find("tags")[0])
        data.find("_x0032_nd_x0020_note").attrib.clear()
        data.find("_x0032_nd_x0020_note").text = "hello"
        self.assert_xml(self.send("PUT", f"/people/{self.ann.id}", etree.tostring(data)), 200)
        self.assertEqual((self.ann.is_company, self.ann.color, self.ann.country_id.code), (False, 5, "FR"))
        self.assertEqual((self.ann.category_id, self.ann.comment), (self.tags[1], "<span>hello</span>"))

    def test_list(self):
        item = "<item><code>%s</code><name>N</name><company>%s</company><country null='true'/></item>"
        body = f"<people>{item % ('T-2', 'true')}{item % ('T-3', 'yes')}</people>"
        answer = self.assert_xml(self.send("POST", "/people", body), 207)
        self.assertEqual(answer["meta"], {"created": "1", "updated": "0", "failed": "1"})
        self.assertEqual((answer["errors"][0]["index"], answer["errors"][0]["pointer"]), ("1", "/company"))
        self.assertTrue(self.env["res.partner"].search([("ref", "=", "T-2")]).is_company)
        answer = self.assert_xml(self.send("DELETE", "/people", "<codes><item>T-2</item></codes>"), 200)
        self.assertEqual(answer["meta"], {"deleted": "1", "failed": "0"})

    def test_ids(self):
        self.people.line_ids.filtered(lambda line: line.external_key == "tags").write(
            {"value_type": "plain", "mapping_config_id": False}
        )
        ids = "".join(f"<item>{tag.id}</item>" for tag in self.tags[0])
        self.assert_xml(self.send("PUT", f"/people/{self.ann.id}", f"<x><tags>{ids}</tags></x>"), 200)
        self.assertEqual(self.ann.category_id, self.tags[0])
        self.assert_xml(self.send("PUT", f"/people/{self.ann.id}", "<x><tags><item>A</item></tags></x>"), 400)
        self.assert_xml(self.send("PUT", f"/people/{self.ann.id}", "<x><tags type='list'/></x>"), 200)
        self.assertFalse(self.ann.category_id)

    def test_what_is_asked_for(self):
        data = b"<p><code>T-1</code><color>4</color></p>"
        self.assert_answer(self.send("POST", "/people", data, accept="*/*"), 200)
        self.assert_answer(self.send("POST", "/people", data, accept="application/json, application/xml;q=0.9"), 200)
        self.assert_xml(self.send("POST", "/people", data, accept="application/json;q=0.5, application/xml"), 200)
        self.assert_xml(self.send("POST", "/people", b'{"code": "T-1"}', content_type="application/json"), 200)
        self.assert_xml(self.send("POST", "/people", data, content_type="application/vnd.shop+xml"), 200)
        self.assert_answer(self.send("POST", "/people", data, accept="image/png"), 406)
        for content_type in ("application/x-www-form-urlencoded", "text/plain", "application/json+zip"):
            self.assert_answer(self.send("POST", "/people", data, accept="*/*", content_type=content_type), 415)
        self.assertEqual(self.ann.color, 4)

    def test_errors(self):
        body = self.assert_xml(self.send("GET", "/people/0"), 404)
        self.assertEqual(body["code"], "404")
        self.assert_xml(self.send("GET", "/nothing"), 404)
        self.assert_xml(self.call("GET", "/people", token="x", headers={"Accept": "application/xml"}), 401)
        for data in (b"<a>", b"<a/><b/>", b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', b'{"code": "T-1"}'):
            body = self.assert_xml(self.send("POST", "/people", data), 400)
            self.assertIn("application/xml", body["message"])
        body = self.assert_xml(self.send("POST", "/people", b"<a><code>T-9</code><color>red</color></a>"), 400)
        self.assertEqual([error["pointer"] for error in body["errors"]], ["/color"])
        response = self.send("GET", "/people/0", accept="application/xml, application/problem+json")
        self.assertEqual(response.headers["Content-Type"], "application/problem+json; charset=utf-8")
        self.assert_xml(
            self.send("GET", "/people?code=T-1", accept="application/problem+json, text/xml"), 200, "text/xml"
        )

    def test_idempotent_replay_keeps_the_type(self):
        data, headers = b"<p><code>T-7</code><name>N</name></p>", {"Idempotency-Key": "xml-1"}
        first = self.send("POST", "/people", data, **headers)
        self.assert_xml(first, 201)
        again = self.send("POST", "/people", data, accept="*/*", **headers)
        self.assertEqual(again.headers["Idempotent-Replayed"], "true")
        self.assert_xml(again, 201)
        self.assertEqual(again.content, first.content)
