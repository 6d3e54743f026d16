import base64
import json
import time
from encodings import aliases

from odoo.tests import BaseCase

from ..tools import redact


class TestRedact(BaseCase):
    def test_json(self):
        payload = {
            "name": "Ada",
            "password": 'x"y\\',
            "nested": [{"apiKey": 12345, "X-Api-Key": "key-1", "tokens": ["tok-1", {"a": "tok-2 ]}"}]}],
            "access_token": "tok-3",
            "refreshToken": "tok-4",
            "CLIENT_SECRET": "tök-5",
            "passwd": None,
            "credentials": {"user": "u-1", "list": [1, 2]},
            "secretary_id": 7,
            "note": "the token of thanks",
        }
        masked = redact.body(payload)
        for hidden in ('x\\"y', "12345", "key-1", "tok-", "tök-5", "u-1"):
            self.assertNotIn(hidden, masked)
        result = json.loads(masked)
        self.assertEqual((result["name"], result["secretary_id"]), ("Ada", 7))
        self.assertEqual(result["note"], "the token of thanks")
        self.assertEqual(result["nested"][0]["apiKey"], redact.MASK)
        self.assertIsNone(result["passwd"], "that it is empty may be seen")

    def test_json_in_disguise(self):
        for body in (
            '{"p\\u0061ssword": "hidden"}',
            '{"password"\n :\t"hidden"}',
            '{"payload": "{\\"password\\": \\"a\\\\\\"hidden\\", \\"b\\": 1}"}',
            "{'password': 'hidden'}",
            '{"token": {"a": {"b": "hidden"',
            '{"token": "hidden',
            '{"token": "hidden\\',
            '{"token": ["not JSON" hidden]}',
            '[{"token": "x"}, {"token": "hidden"}]',
        ):
            with self.subTest(body):
                self.assertNotIn("hidden", redact.body(body))

    def test_form(self):
        self.assertEqual(
            redact.body(b"grant_type=x&client_secret=a%26b&p%61ssword=c&user[api_key]=d&name=e"),
            "grant_type=x&client_secret=***&password=***&user[api_key]=***&name=e",
        )

    def test_xml(self):
        masked = redact.body(
            '<a><ns:Password type="t">hidden<b>hidden</b></ns:Password><c token="hidden" d="shown"/>'
            '<api-key value="hidden"/><e>shown</e><secret>hidden'
        )
        self.assertNotIn("hidden", masked)
        self.assertEqual(masked.count("shown"), 2)

    def test_multipart_and_settings(self):
        part = '--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        masked = redact.body(part % ("my_password", "hidden\r\nhidden") + part % ("name", "shown") + "--b--")
        self.assertNotIn("hidden", masked)
        self.assertIn("shown", masked)
        masked = redact.body("Authorization: Bearer hidden\n  api_key:  hidden\npassword='hi hidden' x=shown\n")
        self.assertNotIn("hidden", masked)
        self.assertIn("shown", masked)

    def test_own_credentials_anywhere(self):
        secrets = redact.literals(["s3cr3t/välue+1", ("api", 'p"w & <x>'), "sekrit"])
        spellings = ["s3cr3t/välue+1", "s3cr3t%2Fv%C3%A4lue%2B1", "s3cr3t/v\\u00e4lue+1"]
        spellings += [json.dumps('p"w & <x>')[1:-1], "p%22w+%26+%3Cx%3E", "p&quot;w &amp; &lt;x&gt;"]
        spellings += [base64.b64encode(b'api:p"w & <x>').decode(), "sekrit"]
        for spelling in spellings:
            with self.subTest(spelling):
                masked = redact.body(f'{{"text": "before {spelling} after"}}', secrets=secrets)
                self.assertEqual(masked, '{"text": "before *** after"}')
        self.assertEqual(redact.body("api capital", secrets=secrets), "*** capital")
        self.assertEqual(redact.body("text", secrets=redact.literals([False, None, "", (False, False)])), "text")

    def test_cut(self):
        masked = redact.body("é" * 100, limit=51)
        self.assertEqual(masked, "é" * 25 + "\n[cut: the whole has 200 bytes]")
        self.assertEqual(redact.body(b"x" * 51, limit=51), "x" * 51)

    def test_cut_never_shows_half_a_secret(self):
        secret = "SECRETVALUE" * 3
        for offset in range(120):
            for body in (
                "x" * offset + secret + "y" * 200,
                '{"a": "' + "x" * offset + '", "password": "' + "SECRET" * 40 + '"}',
            ):
                self.assertNotIn("SE", redact.body(body, secrets=redact.literals([secret]), limit=100))

    def test_binary(self):
        self.assertEqual(redact.body(b"\x89PNG\0\1", "image/png"), "[6 bytes that are not text]")
        self.assertEqual(redact.body(b"%PDF-1.7 password", "application/pdf"), "[17 bytes that are not text]")
        self.assertEqual(redact.body(b"\xff\xfe\x01"), "[3 bytes that are not text]")
        self.assertEqual(redact.body("é".encode("latin-1"), "text/plain; charset=latin-1"), "é")
        self.assertEqual(
            redact.body('{"token": "é"}'.encode("utf-16"), "application/json; charset=utf-16"),
            '{"token": "***"}',
        )
        self.assertEqual(redact.body("a\0b"), "ab")
        for nothing in (None, b"", ""):
            self.assertEqual(redact.body(nothing), "")

    def test_charsets(self):
        """Whatever is declared as charset, by mistake or to keep something out of the logs."""
        names = {*aliases.aliases.values(), "undefined", "idna", "punycode", "nope", "utf-99", "é"}
        for name in names:
            with self.subTest(charset=name):
                content_type = f"application/json; charset={name}"
                self.assertIsInstance(redact.decode(bytes(range(256)), content_type), str)
                self.assertNotIn("hidden", redact.body(b'{"token": "hidden"}', content_type))
        self.assertEqual(redact.body(b'{"a": 1}', "application/json; charset=undefined"), '{"a": 1}')

    def test_headers(self):
        headers = {
            "Authorization": "Bearer hidden",
            "Proxy-Authorization": "Basic hidden",
            "Cookie": "session_id=hidden",
            "Set-Cookie": "a=hidden",
            "X-API-Key": "hidden",
            "X-Auth-Token": "hidden",
            "X-Shop": "hidden",
            "Referer": "https://u:hidden@example.com/?access_token=hidden&key=hidden&page=2",
            "Accept": "application/json",
        }
        text = redact.headers(headers.items(), ["x-shop"])
        self.assertNotIn("hidden", text)
        self.assertIn("Authorization: Bearer ***\n", text)
        self.assertIn("&page=2\nAccept: application/json", text)
        self.assertEqual(
            redact.headers([("A", "1"), ("A", "sekrit")], secrets=redact.literals(["sekrit"])), "A: 1\nA: ***"
        )

    def test_url(self):
        self.assertEqual(
            redact.url("https://user:pass@example.com/a?api_key=1&sig=2&name=x#token=3"),
            "https://***@example.com/a?api_key=***&sig=***&name=x#token=***",
        )
        self.assertEqual(redact.url("https://example.com/?mail=a@b.c"), "https://example.com/?mail=a@b.c")

    def test_cost(self):
        """An ordinary body takes next to nothing, a huge or hostile one no more than a moment."""
        body = json.dumps(
            [{"id": i, "name": f"Partner {i}", "city": "Zürich", "phone": "+41 44 123"} for i in range(400)]
        )
        self.assertLess(self.seconds(body), 0.02)
        self.assertLess(self.seconds(b'{"token": "hidden", "a": [1]}, ' * 1_600_000), 0.2)
        for hostile in (
            "token",
            '"token ',
            "<token ",
            "token=",
            'name="token',
            "token\n",
            '{"token":',
            '\\"token\\":\\"',
        ):
            self.assertLess(self.seconds(hostile * (64 * 1024 // len(hostile))), 2, hostile)

    def seconds(self, body):
        start = time.perf_counter()
        redact.body(body, secrets=redact.literals(["sekrit-value", ("user", "password")]))
        return time.perf_counter() - start
