import base64
import hashlib
import hmac
import json
import time

from odoo.exceptions import AccessError, ValidationError
from odoo.tests import Form, new_test_user, tagged
from odoo.tools import mute_logger

from ..models.bj_api_sync_config_out import HEADER_TEMPLATES
from .test_delivery import DeliveryCase

SECRET = b"sh4red secret"


@tagged("post_install", "-at_install")
class TestHeaderScript(DeliveryCase):
    """Headers that a script computes for each attempt."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.config.header_secret = SECRET.decode()

    def send(self, script, **values):
        """Send a record with a script; return the request as it arrived."""
        self.config.write({"header_script": script, **values})
        result = self.push()
        self.assertTrue(result, result.error)
        return self.receiver.requests[-1]

    def sign(self, data):
        return hmac.digest(SECRET, data, "sha256")

    def test_template_hmac(self):
        request = self.send(HEADER_TEMPLATES["hmac"])
        self.assertEqual(request.headers["x-signature"], self.sign(request.body.encode()).hex())

    def test_template_timestamp(self):
        request = self.send(HEADER_TEMPLATES["timestamp"])
        stamp, nonce = request.headers["x-timestamp"], request.headers["x-nonce"]
        self.assertAlmostEqual(int(stamp), time.time(), delta=5)
        signed = f"POST\n/partners\n{stamp}\n{nonce}\n{request.body}".encode()
        self.assertEqual(request.headers["x-signature"], base64.b64encode(self.sign(signed)).decode())
        self.assertNotEqual(self.send(HEADER_TEMPLATES["timestamp"]).headers["x-nonce"], nonce)

    def test_template_basic(self):
        request = self.send(HEADER_TEMPLATES["basic"], authorization_type="bearer", bearer_token="replaced")
        scheme, _space, credentials = request.headers["authorization"].partition(" ")
        self.assertEqual(
            (scheme, base64.b64decode(credentials).decode()),
            ("Basic", f"{self.config.company_id.name}:{SECRET.decode()}"),
        )

    def test_template_digest(self):
        request = self.send(HEADER_TEMPLATES["digest"])
        digest = base64.b64encode(hashlib.sha256(request.body.encode()).digest()).decode()
        self.assertEqual(request.headers["content-digest"], f"sha-256=:{digest}:")

    def test_template_jwt(self):
        token = self.send(HEADER_TEMPLATES["jwt"]).headers["authorization"].removeprefix("Bearer ")
        parts = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split(".")]
        self.assertEqual(json.loads(parts[0]), {"alg": "HS256", "typ": "JWT"})
        self.assertEqual(json.loads(parts[1])["iss"], self.config.company_id.name)
        self.assertEqual(parts[2], self.sign(token.rpartition(".")[0].encode()))

    def test_every_template_is_offered(self):
        self.assertEqual(
            set(HEADER_TEMPLATES), {key for key, _label in self.config._fields["header_template"].selection}
        )
        with Form(self.config) as form:
            form.header_template = "digest"
            self.assertEqual((form.header_script, form.header_template), (HEADER_TEMPLATES["digest"], False))

    def test_names(self):
        """What a script knows, and that what it sets replaces headers of the same name, in any case."""
        request = self.send(
            'headers["user-agent"] = "mine"\n'
            'headers["X-About"] = " ".join([method, url, request_id, str(len(body)), config.name])\n'
            'headers["X-Bytes"] = b64encode(b"raw")\n'
            'headers["X-Number"] = 5\n'
            'headers["X-512"] = hmac_sha512(secret, "text")[:8]\n'
            'headers["X-Day"] = datetime.now().strftime("%Y")\n'
        )
        length = len(request.body.encode())
        self.assertEqual(request.headers["user-agent"], "mine")
        self.assertEqual(
            request.headers["x-about"],
            f"POST {self.config.request_url} {request.headers['x-request-id']} {length} Partners out",
        )
        self.assertEqual((request.headers["x-bytes"], request.headers["x-number"]), ("cmF3", "5"))
        self.assertEqual(request.headers["x-512"], hmac.digest(SECRET, b"text", "sha512").hex()[:8])

    def test_each_attempt(self):
        self.config.header_script = 'headers["X-Nonce"] = token_hex(8)'
        delivery = self.enqueue()
        self.receiver.on("/partners", status=503, times=1)
        self.dispatch()
        self.pass_time()
        self.dispatch()
        self.assertEqual(delivery.state, "sent")
        nonces = {request.headers["x-nonce"] for request in self.receiver.requests}
        self.assertEqual(len(nonces), 2)
        ids = {request.headers["idempotency-key"] for request in self.receiver.requests}
        self.assertEqual(ids, {delivery.idempotency_key})

    def test_private(self):
        """To another origin they do not follow, and logs do not show them."""
        with type(self.receiver)() as other:
            self.receiver.on("/partners", status=307, headers={"Location": f"{other.url}/taken"})
            self.config.header_script = 'headers["X-Visible"] = "computed-value"'
            self.assertTrue(self.push())
            self.assertIn("x-visible", self.receiver.requests[0].headers)
            self.assertNotIn("x-visible", other.requests[0].headers)
        self.assertIn("X-Visible: ***", self.logs().request_headers)
        self.assertNotIn("computed-value", self.logs().request_headers)

    def test_failure(self):
        """Nothing is sent, the message says why, and other deliveries of the same moment go out."""
        other = self.make_config(path="/other", name="Other")
        for script, words in (
            ('x = 1\nheaders["X"] = 1 / 0', "failed in line 2: ZeroDivisionError"),
            ('raise UserError("No contract")', "refuses: No contract"),
            ('headers["X Y"] = "1"', "“X Y” and its value are no header"),
            ('headers["X"] = "a\\nb"', "no header"),
            ('config.env.cr.execute("SELECT nothing FROM nowhere")', "nowhere"),
            ("headers = 5", "AttributeError"),
        ):
            with self.subTest(script=script), self.mute():
                self.receiver.clear()
                self.config.header_script = script
                result = self.push()
                self.assertIn(words, result.error)
                self.assertIn("Python Script for Headers", result.error)
                self.assertEqual((result.success, result.status_code, self.receiver.requests), (False, 0, []))
                deliveries = self.enqueue() | self.enqueue(config=other)
                self.dispatch()
                self.assertEqual(deliveries.mapped("state"), ["dead", "sent"])
                self.assertIn(words, deliveries[0].last_error)
                self.assertIn(words, self.logs()[-1].error_message)
                self.assertEqual(self.env["bj.api.sync.outbound"]._test_connection(self.config)[0], "danger")

    def test_failure_keeps_no_token_from_others(self):
        self.config.write(
            {
                "authorization_type": "oauth2",
                "token_url": f"{self.receiver.url}/token",
                "client_id": "odoo",
                "client_secret": "secret",
                "header_script": 'if b"P1" in body: headers["X"] = 1 / 0',
            }
        )
        self.receiver.on("/token", body={"access_token": "token"})
        deliveries = self.enqueue(self.partners)
        with self.mute():
            self.dispatch()
        self.assertEqual(deliveries.mapped("state"), ["dead"] + ["sent"] * 4)

    def mute(self):
        return mute_logger("odoo.addons.bj_api_sync.models.bj_api_sync_script", "odoo.sql_db")

    def test_who_may_write_it(self):
        manager = new_test_user(self.env, "manager", "bj_api_sync.group_manager")
        config = self.config.with_user(manager)
        with self.assertRaises(AccessError):
            config.header_script = HEADER_TEMPLATES["hmac"]
        with self.assertRaises(AccessError):
            config.copy({"header_script": HEADER_TEMPLATES["hmac"]})
        config.header_secret = "theirs to change"
        administrator = new_test_user(self.env, "admin2", "bj_api_sync.group_manager,base.group_system")
        self.config.with_user(administrator).header_script = HEADER_TEMPLATES["hmac"]
        with self.assertRaisesRegex(ValidationError, "not valid"):
            self.config.header_script = "headers["
