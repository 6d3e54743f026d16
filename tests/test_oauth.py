import time
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch
from urllib.parse import parse_qs

from odoo import SUPERUSER_ID, api
from odoo.exceptions import AccessError, ValidationError
from odoo.modules import module
from odoo.modules.registry import DummyRLock, Registry
from odoo.tests import BaseCase, new_test_user, tagged

from ..tools import oauth
from ..tools.transport import Call, Exchange
from .common_server import OdooServer, database_copy, needs_template
from .receiver import Receiver, Reply
from .test_delivery import DeliveryCase

SECRET = "s/cr+t & more"


class OAuthCase(DeliveryCase):
    """The receiver is the other system and its token server."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.config.write(
            {
                "authorization_type": "oauth2",
                "token_url": f"{cls.receiver.url}/token",
                "client_id": "odoo:1",
                "client_secret": SECRET,
                "token_scope": "orders.read orders.write",
            }
        )

    def give(self, token, times=1, expires_in=3600, **reply):
        """Have the token server give a token."""
        body = {"access_token": token, "token_type": "Bearer", "expires_in": expires_in}
        self.receiver.on("/token", **{"body": body, "times": times} | reply)

    def asked(self):
        return [request for request in self.receiver.requests if request.path == "/token"]

    def sent(self):
        """The tokens of the requests to the API."""
        return [request.headers.get("authorization") for request in self.receiver.requests if request.path != "/token"]

    def age_token(self, seconds):
        """Let time pass for the token."""
        self.env.cr.execute(
            "UPDATE bj_api_sync_token SET (suspect_until, renewal_date, expiry_date, busy_until, rest_until) ="
            " (SELECT suspect_until - i, renewal_date - i, expiry_date - i, busy_until - i, rest_until - i"
            " FROM (SELECT %s * interval '1s' AS i) AS _)",
            [seconds],
        )


@tagged("post_install", "-at_install")
class TestToken(OAuthCase):
    """Sending at once."""

    def test_asked_once(self):
        self.give("first")
        self.assertTrue(self.push(self.partners))
        self.assertEqual(self.sent(), ["Bearer first"] * 5)
        [request] = self.asked()
        self.assertEqual(request.headers["content-type"], "application/x-www-form-urlencoded")
        self.assertEqual(
            parse_qs(request.body), {"grant_type": ["client_credentials"], "scope": ["orders.read orders.write"]}
        )
        credentials = b64decode(request.headers["authorization"].partition(" ")[2])
        self.assertEqual(credentials, b"odoo%3A1:s%2Fcr%2Bt+%26+more")

    def test_credentials_in_the_body(self):
        self.config.write(
            {
                "client_authentication": "client_secret_post",
                "token_scope": False,
                "token_parameters": "audience=https://api.example.com&resource=a b",
            }
        )
        self.give("first")
        self.assertTrue(self.push())
        [request] = self.asked()
        self.assertNotIn("authorization", request.headers)
        self.assertEqual(
            parse_qs(request.body),
            {
                "grant_type": ["client_credentials"],
                "client_id": ["odoo:1"],
                "client_secret": [SECRET],
                "audience": ["https://api.example.com"],
                "resource": ["a b"],
            },
        )

    def test_encrypted_and_masked(self):
        self.give("very-secret-token")
        self.receiver.on("/partners", body={"seen": "Bearer very-secret-token", "ok": True})
        self.push()
        self.env.cr.execute("SELECT t::text FROM bj_api_sync_token AS t")
        self.assertNotIn("very-secret", str(self.env.cr.fetchall()))
        self.assertEqual(self.env["bj.api.sync.token"].search([]).access_token, "very-secret-token")
        log = self.logs()
        self.assertNotIn("very-secret", f"{log.request_headers} {log.response_body}")
        self.assertIn("Authorization: Bearer ***", log.request_headers)
        self.config.client_authentication = "client_secret_post"
        self.receiver.on("/token", status=400, body={"error": "invalid_scope"})
        self.push()
        log = self.logs()[-1]
        self.assertEqual((log.url, log.method, log.response_code), (self.config.token_url, "POST", 400))
        self.assertIn("client_id=odoo%3A1", log.request_body)
        self.assertNotIn("cr%2Bt", log.request_body)
        manager = new_test_user(self.env, "reader", "bj_api_sync.group_user")
        with self.assertRaises(AccessError):
            self.env["bj.api.sync.token"].with_user(manager).search([])

    def test_renewed_before_it_expires(self):
        for life, early, late in ((3600, 3500, 3541), (100, 80, 91), (None, 10**6, None)):
            with self.subTest(life=life):
                self.env["bj.api.sync.token"].search([]).unlink()
                self.receiver.clear()
                self.give("first", expires_in=life)
                self.give("second")
                self.push()
                self.age_token(early)
                self.push()
                self.assertEqual(self.sent(), ["Bearer first"] * 2)
                if late:
                    self.age_token(late - early)
                    self.push()
                    self.assertEqual(self.sent()[2:], ["Bearer second"])

    def test_the_former_one_will_do(self):
        """The token server is down when the token should be renewed, and up again when it is expired."""
        self.give("first")
        self.push()
        self.age_token(3550)
        self.receiver.on("/token", status=503, times=2)
        self.assertTrue(self.push())
        self.assertTrue(self.push())
        self.assertEqual(len(self.asked()), 2, "it has a rest")
        self.age_token(60)
        result = self.push()
        self.assertEqual((result.success, result.status_code), (False, 503))
        self.give("second")
        self.assertTrue(self.push(), "people need not wait for the rest")
        self.assertEqual(self.sent(), ["Bearer first"] * 3 + ["Bearer second"])

    def test_refused_once(self):
        """401 for a token that was accepted before, however new it is: it is renewed, once."""
        self.give("first")
        self.push()
        self.give("second")
        self.receiver.on("/partners", status=401, times=1)
        self.assertTrue(self.push())
        self.assertEqual(self.sent(), ["Bearer first", "Bearer first", "Bearer second"])
        self.receiver.on("/partners", status=401)
        self.give("third")
        self.assertEqual(self.push().status_code, 401)
        self.assertEqual(self.sent()[3:], ["Bearer second", "Bearer third"])
        self.assertEqual(self.push().status_code, 401)
        self.assertEqual(len(self.asked()), 3, "the third was never accepted: another would be no better")
        self.age_token(11)
        self.give("fourth", times=None)
        self.push()
        self.assertEqual(self.sent()[5:], ["Bearer third", "Bearer third", "Bearer fourth"])

    def test_other_credentials(self):
        self.give("first", times=None)
        self.push()
        for values in (
            {"client_secret": "other"},
            {"client_id": "other"},
            {"token_scope": "all"},
            {"token_url": f"{self.receiver.url}/token?tenant=1"},
            {"client_authentication": "client_secret_post"},
            {"token_parameters": "audience=x"},
        ):
            with self.subTest(values=values):
                before = len(self.asked())
                self.config.write(values)
                self.push()
                self.push()
                self.assertEqual(len(self.asked()), before + 1)
        self.config.write({"authorization_type": "none"})
        self.env.flush_all()
        self.env["bj.api.sync.token"]._gc_tokens()
        self.assertFalse(self.env["bj.api.sync.token"].search([]))

    def test_what_goes_wrong(self):
        refusal = {"error": "invalid_client", "error_description": "Unknown client."}
        for reply, code, words in (
            ({"status": 401, "body": refusal}, 401, "credentials or scope with 401. (invalid_client: Unknown client.)"),
            ({"status": 400, "body": {"error": "invalid_scope"}}, 400, "(invalid_scope)"),
            ({"status": 503}, 503, "There is no access token. 127.0.0.1 answered 503."),
            ({"status": 200, "body": "<html>Welcome</html>"}, 200, "is the Token URL right?"),
            ({"status": 200, "body": []}, 200, "is the Token URL right?"),
            ({"status": 200, "body": {"access_token": "a\nb"}}, 200, "is the Token URL right?"),
            ({"status": 204}, 204, "is the Token URL right?"),
            ({"drop": True}, 0, "There is no access token. 127.0.0.1 broke the connection off"),
        ):
            with self.subTest(reply=reply):
                self.receiver.clear()
                self.receiver.on("/token", **reply)
                result = self.push()
                self.assertEqual((result.success, result.status_code), (False, code))
                self.assertIn(words, result.error)
                self.assertEqual((self.sent(), len(self.asked())), ([], 1))
                [kind, message] = self.env["bj.api.sync.outbound"]._test_connection(self.config)
                self.assertEqual(kind, "danger")
                self.assertIn(words, message)
        secret = self.config.client_secret
        self.receiver.clear()
        self.receiver.on("/token", status=400, body={"error": "invalid_client", "error_description": f"Not {secret}."})
        self.assertIn("(invalid_client: Not ***.)", self.push().error)
        self.config.token_url = "http://169.254.169.254/token"
        self.assertIn("169.254.169.254 is an address of this server", self.push().error)

    def test_test_connection(self):
        self.give("first")
        [kind, message] = self.env["bj.api.sync.outbound"]._test_connection(self.config)
        self.assertEqual((kind, self.sent()), ("success", ["Bearer first"]), message)

    def test_token_stays_with_its_host(self):
        """Neither the API's redirect nor the token server's takes a credential to another origin."""
        with type(self.receiver)() as other:
            self.give("first")
            self.receiver.on("/partners", status=307, headers={"Location": f"{other.url}/taken"})
            self.push()
            self.assertNotIn("authorization", other.requests[0].headers)
            self.config.token_scope = "x"
            self.receiver.clear()
            self.receiver.on("/token", status=307, headers={"Location": f"{other.url}/token"})
            self.push()
            self.assertNotIn("authorization", other.requests[1].headers)

    def test_form(self):
        with self.assertRaisesRegex(ValidationError, "Token URL"):
            self.config.token_url = "example.com/token"
        with self.assertRaisesRegex(ValidationError, "Client Secret"):
            self.config.client_secret = False
        with self.assertRaisesRegex(ValidationError, "not available"):
            self.config.write({"request_type": "in"})

    def test_answers(self):
        """What a parser may stumble over is no token, and never an exception."""
        for content in (b"1", b"[1]", b'{"error": null}', b'{"access_token": 1}', b'{"scope": 1}', b"\xff", b""):
            exchange = Exchange(Call("POST", "http://x"), 200, content=content)
            oauth.read_answer(exchange)
            self.assertIsNone(exchange.token, content)
        for content, life in (
            (b"access_token=t&expires_in=60", 60),
            (b'{"access_token": "t", "expires_in": "60"}', 60),
            (b'{"access_token": "t", "expires_in": null, "scope": "less"}', None),
        ):
            exchange = Exchange(Call("POST", "http://x"), 200, content=content)
            oauth.read_answer(exchange)
            self.assertEqual(exchange.token, oauth.Token("t", life))


@tagged("post_install", "-at_install")
class TestTokenOfDeliveries(OAuthCase):
    """What is queued waits for a token, and does not die of the lack of one."""

    def test_asked_once(self):
        self.give("first")
        deliveries = self.enqueue(self.partners)
        self.dispatch()
        self.assertEqual((len(self.asked()), self.sent()), (1, ["Bearer first"] * 5))
        self.assertEqual(set(deliveries.mapped("state")), {"sent"})
        self.assertEqual(deliveries.mapped("attempt_count"), [1] * 5)

    def test_refused_once(self):
        self.give("first")
        self.enqueue()
        self.dispatch()
        self.receiver.on("/partners", status=401, times=1)
        self.give("second")
        delivery = self.enqueue()
        self.dispatch()
        self.assertEqual((delivery.state, delivery.attempt_count), ("sent", 2))
        self.assertEqual(delivery.attempt_ids.sorted("id").mapped("code"), [401, 200])
        self.assertEqual(self.sent(), ["Bearer first"] * 2 + ["Bearer second"])

    def test_refused_for_good(self):
        self.give("first")
        self.enqueue()
        self.dispatch()
        self.receiver.on("/partners", status=401)
        self.give("second", times=None)
        deliveries = self.enqueue(self.partners)
        self.dispatch()
        self.assertEqual(set(deliveries.mapped("state")), {"dead"})
        self.assertLessEqual(set(deliveries.mapped("attempt_count")), {1, 2})
        self.assertEqual(len(self.asked()), 2, "not once for each delivery")
        self.give("third")
        self.receiver.clear()
        deliveries.action_retry()
        self.dispatch()
        self.assertEqual(set(deliveries.mapped("state")), {"sent"})

    def test_token_server_is_down(self):
        self.receiver.on("/token", status=503)
        deliveries = self.enqueue(self.partners)
        self.dispatch()
        self.assertEqual(sorted(deliveries.mapped("state")), ["failed"] + ["pending"] * 4)
        failed = deliveries.filtered(lambda delivery: delivery.state == "failed")
        self.assertIn("There is no access token", failed.last_error)
        self.assertEqual((failed.last_code, len(self.asked())), (503, 1))
        self.assertFalse(self.env["bj.api.target"].search([("failures", ">", 0)]), "the API itself is well")
        self.receiver.clear()
        self.give("first")
        self.dispatch()
        self.assertFalse(self.asked(), "it has a rest")
        self.age_token(6)
        self.pass_time(6)
        self.dispatch()
        self.assertEqual(set(deliveries.mapped("state")), {"sent"})
        self.assertEqual((len(self.asked()), len(self.sent())), (1, 5))

    def test_token_server_asks_for_a_rest(self):
        self.receiver.on("/token", status=429, headers={"Retry-After": "600"}, times=1)
        delivery = self.enqueue()
        self.dispatch()
        self.assertAlmostEqual(self.get_wait(delivery), 600, delta=2)
        self.age_token(590)
        self.assertGreater(self.env["bj.api.sync.token"]._take(self.config, is_patient=True).wait, 5)

    def test_wrong_credentials(self):
        """The one that was refused is given up; the others wait, and go out with better credentials at once."""
        self.receiver.on("/token", status=401, body={"error": "invalid_client"}, times=1)
        deliveries = self.enqueue(self.partners)
        self.dispatch()
        self.assertEqual(sorted(deliveries.mapped("state")), ["dead"] + ["pending"] * 4)
        self.assertTrue(self.config.activity_ids)
        self.dispatch()
        self.assertEqual(len(self.asked()), 1)
        self.give("first")
        self.config.client_secret = "better"
        self.dispatch()
        self.assertEqual(sorted(deliveries.mapped("state")), ["dead"] + ["sent"] * 4)

    def test_others_are_not_held_up(self):
        """A token server that takes its time costs other configurations nothing."""
        other = self.make_config(path="/other", name="Other")
        self.receiver.on("/token", body={"access_token": "late"}, delay=1)
        waiting, free = self.enqueue(), self.enqueue(self.partners, other)
        self.dispatch()
        self.assertEqual(set((waiting | free).mapped("state")), {"sent"})
        times = {request.path: request.at for request in self.receiver.requests}
        self.assertLess(times["/other"], times["/partners"] - 0.5)

    def test_nobody_asks_for_nothing(self):
        """Deliveries that wait for others of their record do not keep the token from being asked for."""
        delivery = self.enqueue()
        self.env.cr.execute(
            "UPDATE bj_api_delivery SET state = 'sending', next_attempt = next_attempt + interval '60 s'"
        )
        self.enqueue()
        self.dispatch()
        self.assertFalse(self.asked())
        self.assertFalse(self.env["bj.api.sync.token"].search([]).busy_until)
        self.assertEqual(delivery.state, "sending")


@tagged("post_install", "-at_install")
class TestTokenIsShared(OAuthCase):
    """Several users of one token at the same time, each in a transaction of its own."""

    def setUp(self):
        super().setUp()
        self.enterContext(patch.object(module, "current_test", None))  # bookkeeping as in earnest
        self.enterContext(patch.object(Registry, "_lock", DummyRLock()))  # the test runner's thread has it
        self.addCleanup(self.forget)
        self.call = self.env["bj.api.sync.client"]._prepare_token_call(self.config)
        # the configuration is of the test's transaction: all the others need of it is its id and the call
        self.enterContext(
            patch.object(type(self.env["bj.api.sync.client"]), "_prepare_token_call", return_value=self.call)
        )

    def forget(self):
        with self.registry.cursor() as cr:
            cr.execute("DELETE FROM bj_api_sync_token")

    def at_once(self, count, function):
        def run(number):
            with self.registry.cursor() as cr:
                env = api.Environment(cr, SUPERUSER_ID, {})
                return function(env, env["bj.api.sync.config"].browse(self.config.id), number)

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, range(count)))

    def use(self, env, config, _number=0):
        """What the client does, but for the request of the API."""
        client, tokens = env["bj.api.sync.client"], env["bj.api.sync.token"]
        grant = tokens._wait(config)
        if not grant.request:
            return grant.token
        exchange = client._transmit(grant.request)
        oauth.read_answer(exchange)
        tokens._keep(config, exchange)
        return exchange.token and exchange.token.value

    def change(self, assignment):
        with self.registry.cursor() as cr:
            cr.execute(f"UPDATE bj_api_sync_token SET {assignment}")
        self.receiver.clear()

    def test_first_use(self):
        self.give("first", delay=0.5)
        self.assertEqual(self.at_once(6, self.use), ["first"] * 6)
        self.assertEqual(len(self.asked()), 1)

    def test_expired(self):
        self.give("first")
        self.at_once(1, self.use)
        self.change("expiry_date = '2020-01-01', renewal_date = '2020-01-01'")
        self.give("second", delay=0.5)
        self.assertEqual(self.at_once(6, self.use), ["second"] * 6, "nobody uses what is expired")
        self.assertEqual(len(self.asked()), 1)

    def test_renewal(self):
        self.give("first")
        self.at_once(1, self.use)
        self.change("renewal_date = '2020-01-01'")
        self.give("second", delay=0.5)
        tokens = self.at_once(6, self.use)
        self.assertEqual((sorted(tokens), len(self.asked())), (["first"] * 5 + ["second"], 1), "the others go on")

    def test_who_asked_is_dead(self):
        self.give("first")
        self.assertTrue(self.at_once(1, lambda env, config, _number: env["bj.api.sync.token"]._take(config))[0].request)
        waiting = self.at_once(2, lambda env, config, _number: env["bj.api.sync.token"]._take(config, is_patient=True))
        for grant in waiting:
            self.assertFalse(grant.request or grant.token)
            self.assertAlmostEqual(grant.wait, 30, delta=2)
        self.change("busy_until = '2020-01-01'")
        self.give("second")
        self.assertEqual(self.at_once(3, self.use), ["second"] * 3)

    def test_refused_at_once(self):
        """Several notice at once that a token was taken back: it is forgotten once, and what is new stays."""
        self.give("first")
        self.at_once(1, self.use)
        used = Exchange(oauth.authorize(Call("POST", self.config.request_url), "first"), 401)

        def drop(env, config, _number):
            return env["bj.api.sync.token"]._drop(config, used)

        self.change("suspect_until = '2999-01-01'")
        self.assertEqual(self.at_once(3, drop), [False] * 3)
        self.change("suspect_until = '2020-01-01'")
        self.assertEqual(self.at_once(3, drop), [True] * 3)
        self.give("second")
        self.assertEqual(self.at_once(1, self.use), ["second"])
        self.assertEqual(self.at_once(3, drop), [True] * 3)
        self.assertEqual((self.at_once(1, self.use), len(self.asked())), (["second"], 1))


@tagged("post_install", "-at_install")
@needs_template
class TestTokenOfServers(BaseCase):
    """Two servers with several processes and threads each, one configuration, one token."""

    def test_asked_once_and_renewed_once(self):
        with database_copy("oauth") as database, Receiver() as receiver:
            self.receiver, self.revoked = receiver, set()
            receiver.on("/token", body=self.give)
            receiver.on("/in", body=self.take)
            with (
                OdooServer(database, "--workers", "1", "--max-cron-threads", "2") as one,
                OdooServer(database, "--max-cron-threads", "2") as other,
            ):
                self.configure(one)
                self.push(one, other)
                self.assertEqual(self.asked(), 1)
                self.revoked.add("token-1")
                self.push(one, other)
                self.assertEqual(self.asked(), 2)
                [[refused]] = one.sql("SELECT count(*) FROM bj_api_delivery_attempt WHERE code = 401")
                self.assertGreater(refused, 0)
                self.assertEqual(one.sql("SELECT DISTINCT state FROM bj_api_delivery"), [("sent",)])

    def asked(self):
        return sum(request.path == "/token" for request in self.receiver.requests)

    def give(self, _request):
        """Answer as the token server does."""
        body = {"access_token": f"token-{self.asked()}", "token_type": "Bearer", "expires_in": 3600}
        return Reply(body=body, delay=0.3)

    def take(self, request):
        """Answer as the API does."""
        token = request.headers["authorization"].removeprefix("Bearer ")
        return Reply(status=401 if token in self.revoked else 200, body={}, delay=0.02)

    def configure(self, server):
        settings = server.rpc("res.config.settings", "create", [{"bj_api_sync_dispatchers": 3}])
        server.rpc("res.config.settings", "execute", settings)
        server.send_to(
            self.receiver,
            authorization_type="oauth2",
            token_url=f"{self.receiver.url}/token",
            client_id="odoo",
            client_secret=SECRET,
        )

    def push(self, *servers):
        """Queue 60 records on each server, and wait until all are sent."""
        for server in servers:
            server.push(f"T{number}" for number in range(60))
        query = "SELECT count(*) FROM bj_api_delivery WHERE state IN ('pending', 'failed', 'sending')"
        deadline = time.monotonic() + 40
        while (left := servers[0].sql(query)[0][0]) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertFalse(left)
