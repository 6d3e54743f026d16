import base64
import hashlib
import hmac
import time

from odoo.exceptions import ValidationError
from odoo.tests import tagged
from odoo.tests.common import BaseCase

from ..tools.signature import STYLES, SignatureError, parse_secret, sign, verify
from .common import ApiHttpCase

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1614265330


class TestSignature(BaseCase):
    """The signatures themselves, against the examples of those who defined them."""

    def assert_refused(self, reason, *arguments):
        with self.assertRaises(SignatureError) as caught:
            verify(*arguments)
        self.assertEqual(caught.exception.reason, reason)

    def test_published_examples(self):
        headers = sign("standard", SECRET, b'{"test": 2432232314}', "msg_p5jXN8AQM9LWM0D4loKWxJek", NOW)
        self.assertEqual(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        headers = sign("github", "It's a Secret to Everybody", b"Hello, World!")
        digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        self.assertEqual(headers["X-Hub-Signature-256"], f"sha256={digest}")

    def test_round_trip(self):
        for style in STYLES:
            headers, body = sign(style, SECRET, b"{}", "msg_1", NOW), b"{}"
            message = verify(style, [SECRET], headers, body, NOW)
            with self.subTest(style=style):
                self.assertEqual(message == "msg_1", style != "stripe")
                self.assertEqual(
                    verify(style, ["d3Jvbmc=", SECRET], headers, body, NOW + 299) == "msg_1", message == "msg_1"
                )
                self.assert_refused("wrong", style, [SECRET], headers, b"{} ", NOW)
                self.assert_refused("wrong", style, ["d3Jvbmc="], headers, body, NOW)
                self.assert_refused("missing", style, [SECRET], {}, body, NOW)

    def test_time(self):
        for style in ("standard", "stripe"):
            for moment in (NOW - 301, NOW + 301):
                with self.subTest(style=style, moment=moment):
                    self.assert_refused("expired", style, [SECRET], sign(style, SECRET, b"x", "m", NOW), b"x", moment)

    def test_several_signatures(self):
        """While a secret is rotated the sender signs with both."""
        for style in ("standard", "stripe"):
            headers = sign(style, [SECRET, "b2xk"], b"x", "m", NOW)
            with self.subTest(style=style):
                self.assertTrue(verify(style, ["b2xk"], headers, b"x", NOW))

    def test_order_of_signatures_makes_no_new_message(self):
        headers = sign("stripe", SECRET, b"x", "", NOW)
        first = verify("stripe", [SECRET], headers, b"x", NOW)
        headers["Stripe-Signature"] = headers["Stripe-Signature"].replace(",v1=", ",v1=00,v0=ff,v1=")
        self.assertEqual(verify("stripe", [SECRET], headers, b"x", NOW), first)

    def test_malformed(self):
        good = sign("standard", SECRET, b"x", "m", NOW)
        for name, value in (
            ("webhook-id", ""),
            ("webhook-timestamp", "soon"),
            ("webhook-timestamp", "²"),
            ("webhook-timestamp", "-1"),
            ("webhook-timestamp", "9" * 5000),
            ("webhook-signature", "v2,abc v1a,abc ,"),
        ):
            with self.subTest(name=name, value=value[:9]):
                self.assert_refused("missing", "standard", [SECRET], good | {name: value}, b"x", NOW)
        self.assert_refused("wrong", "standard", [SECRET], good | {"webhook-signature": "v1,\udcff é"}, b"x", NOW)
        self.assert_refused("missing", "stripe", [SECRET], {"Stripe-Signature": "v1=00"}, b"x", NOW)
        self.assert_refused("missing", "github", [SECRET], {"X-Hub-Signature-256": "sha1=00"}, b"x", NOW)

    def test_nothing_to_sign(self):
        """The signature of an empty body never changes where no time is signed."""
        for style in ("github", "shopify"):
            self.assert_refused("missing", style, [SECRET], sign(style, SECRET, b"", "m"), b"", NOW)
        self.assertEqual(verify("standard", [SECRET], sign("standard", SECRET, b"", "m", NOW), b"", NOW), "m")

    def test_secrets(self):
        self.assertEqual(parse_secret("standard", "whsec_c2VjcmV0"), b"secret")
        self.assertEqual(parse_secret("standard", "c2VjcmV0"), b"secret")
        self.assertEqual(parse_secret("stripe", "whsec_c2VjcmV0"), b"whsec_c2VjcmV0")
        for style, secret in (("standard", "not base64!"), ("standard", ""), ("github", "")):
            with self.subTest(style=style, secret=secret), self.assertRaises(ValueError):
                parse_secret(style, secret)


@tagged("-at_install", "post_install")
class TestSignedWebhook(ApiHttpCase):
    """Signed webhooks through HTTP."""

    def setUp(self):
        super().setUp()
        self.hook = self.partner_config(
            endpoint="hook",
            authorization_type="hmac",
            bearer_token=False,
            signing_secret=SECRET,
            http_method_ids=self.methods("GET", "POST"),
        )

    def send(self, headers, body=b'{"code": "W-1", "name": "Wanda"}', method="POST"):
        headers = {"Content-Type": "application/json"} | headers
        return self.call(method, "/hook", data=body, headers=headers, token=None)

    def signed(self, body=b'{"code": "W-1", "name": "Wanda"}', message_id="msg_1", seconds=0, secret=SECRET):
        style = self.hook.signing_style
        return sign(style, secret, body, message_id, int(time.time()) + seconds)

    def test_styles(self):
        for style in STYLES:
            self.hook.signing_style = style
            with self.subTest(style=style):
                self.assertIn(self.send(self.signed(message_id=style)).status_code, (200, 201))
                answer = self.send(self.signed(secret="d3Jvbmc="))
                self.assert_answer(answer, 401)
                self.assertIn("Signature", answer.headers["WWW-Authenticate"])
                self.assert_answer(self.send({}), 401)
        self.assertEqual(self.env["res.partner"].search([("ref", "=", "W-1")]).name, "Wanda")

    def test_signature_written_by_hand(self):
        body, stamp = '{"code": "W-2", "name": "Größe"}'.encode(), str(int(time.time()))
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        digest = hmac.new(key, b"msg_hand." + stamp.encode() + b"." + body, hashlib.sha256).digest()
        signature = "v1," + base64.b64encode(digest).decode()
        headers = {"Webhook-Id": "msg_hand", "Webhook-Timestamp": stamp, "Webhook-Signature": signature}
        self.assert_answer(self.send(headers, body), 201)

    def test_replay(self):
        headers = self.signed()
        self.assert_answer(self.send(headers), 201)
        self.assert_answer(self.send(headers), 409)
        self.assert_answer(self.send(self.signed(seconds=1)), 409)  # a later attempt at the same message
        self.assert_answer(self.send(self.signed(message_id="msg_2")), 200)
        self.hook.signing_style = "stripe"
        headers = self.signed()
        self.assert_answer(self.send(headers), 200)
        self.assert_answer(self.send(headers), 409)

    def test_failed_message_may_come_again(self):
        body = b'{"code": "W-3", "name": "x", "color": "red"}'
        for _ in range(2):
            response = self.send(self.signed(body) | {"Idempotency-Key": "key-1"}, body)
            self.assert_answer(response, 400)
            self.assertNotIn("Idempotent-Replayed", response.headers)
        self.assert_answer(self.send(self.signed()), 201)

    def test_dry_run_takes_no_message(self):
        headers = self.signed()
        for _ in range(2):
            self.assert_answer(self.send(headers | {"Prefer": "tx=rollback"}), 201)
        self.assert_answer(self.send(headers), 201)
        self.assert_answer(self.send(headers), 409)

    def test_same_message_for_two_endpoints(self):
        other = self.hook.copy({"endpoint": "hook2", "signing_secret": SECRET, "active": True})
        headers = self.signed() | {"Content-Type": "application/json"}
        self.assert_answer(self.send(headers), 201)
        self.assert_answer(
            self.call("POST", f"/{other.endpoint}", data=b'{"code": "W-1", "name": "Wanda"}', headers=headers), 200
        )

    def test_time(self):
        for seconds in (-310, 310):
            self.assert_answer(self.send(self.signed(seconds=seconds)), 401)
        self.assert_answer(self.send(self.signed(seconds=-290)), 201)

    def test_rotation(self):
        self.hook.write({"signing_secret": "whsec_bmV3", "signing_secret_previous": SECRET})
        self.assert_answer(self.send(self.signed()), 201)
        self.assert_answer(self.send(self.signed(secret="whsec_bmV3", message_id="msg_2")), 200)
        self.hook.signing_secret_previous = False
        self.assert_answer(self.send(self.signed(message_id="msg_3")), 401)

    def test_reading(self):
        headers = self.signed(b"")
        for _ in range(2):
            self.assert_answer(self.send(headers, None, "GET"), 200)

    def test_secret_is_not_in_the_cache_or_logs(self):
        self.assert_answer(self.send(self.signed()), 201)
        endpoint = self.env["bj.api.sync.inbound"]._endpoint("hook")
        self.assertNotIn(SECRET, repr(endpoint))
        log = self.env["bj.api.log"].search([("config_id", "=", self.hook.id)], limit=1)
        self.assertTrue(log.request_headers)
        self.assertNotIn(SECRET.removeprefix("whsec_"), str(log.read()))

    def test_form_asks_for_a_secret_of_the_style(self):
        with self.assertRaisesRegex(ValidationError, "Signing Secret"):
            self.hook.signing_secret = False
        with self.assertRaisesRegex(ValidationError, "base64"):
            self.hook.signing_secret = "not base64!"
        self.hook.write({"signing_style": "github", "signing_secret": "not base64!"})
        with self.assertRaisesRegex(ValidationError, "base64"):
            self.hook.signing_style = "standard"

    def test_old_messages_are_forgotten(self):
        self.assert_answer(self.send(self.signed()), 201)
        messages = self.env["bj.api.sync.message"]
        messages._gc_messages()
        message = messages.search([("config_id", "=", self.hook.id)])
        self.assertEqual(len(message), 1)
        message.create_date = "2020-01-01"
        self.env.flush_all()
        messages._gc_messages()
        self.assertFalse(message.exists())
