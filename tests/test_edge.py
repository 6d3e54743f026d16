import threading

from odoo.exceptions import ValidationError
from odoo.sql_db import db_connect
from odoo.tests import tagged
from odoo.tests.common import BaseCase
from odoo.tools import config as odoo_config

from ..controllers.dispatcher import LINGER
from ..tools.edge import get_cors_headers, is_inside, parse_networks, parse_origins
from .common import ApiHttpCase

SHOP = "https://shop.example.com"


class TestNetworks(BaseCase):
    """Addresses and networks, IPv4 and IPv6."""

    def test_inside(self):
        networks = parse_networks("192.0.2.0/24\n 2001:db8::/32 198.51.100.7\r\n")
        for address in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::5", "198.51.100.7"):
            self.assertTrue(is_inside(address, networks), address)
        for address in ("192.0.3.1", "::ffff:192.0.3.1", "2001:db9::5", "198.51.100.8", "::c000:201", "", "<local>"):
            self.assertFalse(is_inside(address, networks), address)

    def test_mapped_network(self):
        networks = parse_networks("::ffff:192.0.2.0/120")
        self.assertTrue(is_inside("192.0.2.9", networks))
        self.assertTrue(is_inside("::ffff:192.0.2.9", networks))
        self.assertFalse(is_inside("192.0.3.9", networks))
        self.assertFalse(is_inside("2001:db8::1", parse_networks("0.0.0.0/0")))

    def test_typed_wrongly(self):
        for text in ("192.0.2.1/24", "example.com", "192.0.2.0/33", "192.0.2.0/24, 10.0.0.0/8"):
            with self.subTest(text=text), self.assertRaises(ValueError):
                parse_networks(text)
        for text in ("example.com", "https://example.com/path", "https://*.example.com", "null"):
            with self.subTest(text=text), self.assertRaises(ValueError):
                parse_origins(text)

    def test_origins(self):
        origins = parse_origins(f"{SHOP}/\ncapacitor://localhost")
        self.assertEqual(get_cors_headers(origins, SHOP)["Access-Control-Allow-Origin"], SHOP)
        for origin in ("", "null", "https://shop.example.com.evil.test", "http://shop.example.com"):
            self.assertEqual(get_cors_headers(origins, origin), {"Vary": "Accept, Origin"})
        self.assertEqual(get_cors_headers(parse_origins("*"), "null")["Access-Control-Allow-Origin"], "*")


@tagged("-at_install", "post_install")
class TestEdge(ApiHttpCase):
    """Limits of an endpoint through HTTP."""

    def setUp(self):
        super().setUp()
        self.people = self.partner_config(filter_domain="[('ref', '=like', 'E-%')]")

    # allowed networks

    def test_networks(self):
        self.people.allowed_networks = "192.0.2.0/24"
        self.assert_answer(self.call("GET", "/people"), 403)
        self.assert_answer(self.call("GET", "/people", token=None), 403)
        self.people.allowed_networks = "192.0.2.0/24\n127.0.0.0/8"
        self.assert_answer(self.call("GET", "/people"), 200)
        with self.assertRaisesRegex(ValidationError, "host bits"):
            self.people.allowed_networks = "192.0.2.1/24"

    def test_networks_behind_a_proxy(self):
        self.people.allowed_networks = "192.0.2.0/24"
        headers = {"X-Forwarded-For": "192.0.2.44", "X-Forwarded-Host": "example.com", "X-Forwarded-Proto": "https"}
        self.assert_answer(self.call("GET", "/people", headers=headers), 403)  # anybody can write these
        self.patch(odoo_config, "options", odoo_config.options.new_child({"proxy_mode": True}))
        self.assert_answer(self.call("GET", "/people", headers=headers), 200)
        headers["X-Forwarded-For"] = "192.0.2.44, 203.0.113.5"  # the proxy has added the last one
        self.assert_answer(self.call("GET", "/people", headers=headers), 403)

    # rate limit

    def test_rate_limit(self):
        response = self.call("GET", "/people")
        self.assertNotIn("RateLimit", response.headers)
        self.people.rate_limit = 2
        for left in (1, 0):
            response = self.call("GET", "/people")
            self.assert_answer(response, 200)
            self.assertEqual(response.headers["RateLimit-Policy"], '"minute";q=2;w=60')
            self.assertRegex(response.headers["RateLimit"], rf'^"minute";r={left};t=(60|5\d)$')
        for method in ("GET", "POST"):
            response = self.call(method, "/people")
            self.assertIn("2", self.assert_answer(response, 429)["message"])
            self.assertRegex(response.headers["RateLimit"], r'^"minute";r=0;t=(60|5\d)$')
            self.assertLessEqual(50, int(response.headers["Retry-After"]))
        self.assert_answer(self.call("GET", "/people", token="wrong"), 401)

    def test_only_those_who_may_use_up_the_quota(self):
        self.people.rate_limit = 1
        for _ in range(3):
            self.assertNotIn("RateLimit", self.call("GET", "/people", token="wrong").headers)
        self.assert_answer(self.call("GET", "/people"), 200)

    def test_failed_requests_count(self):
        self.people.rate_limit = 1
        self.assert_answer(self.call("POST", "/people", {"nothing": 1}), 400)
        self.assert_answer(self.call("GET", "/people"), 429)

    def test_window(self):
        rates, config_id = self.env["bj.api.sync.rate"], self.people.id
        quotas = [rates._take(config_id, 2) for _ in range(4)]
        self.assertEqual([quota.used for quota in quotas], [1, 2, 3, 3])
        self.assertEqual([quota.is_exceeded for quota in quotas], [False, False, True, True])
        self.shift(config_id, 61)
        self.assertEqual(rates._take(config_id, 2).used, 1)
        self.shift(config_id, -3600)  # the clock was set back
        self.assertEqual(rates._take(config_id, 2).used, 1)

    def shift(self, config_id, seconds):
        """Let the window have begun earlier; it is committed, unlike all else of a test."""
        with db_connect(self.env.cr.dbname).cursor() as cr:
            query = "UPDATE bj_api_sync_rate SET started = started - make_interval(secs => %s) WHERE config_id = %s"
            cr.execute(query, [seconds, config_id])

    def test_counting_at_once(self):
        """Of 200 requests at once, on cursors of their own, each has its own number."""
        rates, config_id, used = self.env["bj.api.sync.rate"], self.people.id, []

        def take():
            used.extend([rates._take(config_id, 1000).used for _ in range(25)])

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(used), list(range(1, 201)))

    # body size

    def test_body_size(self):
        self.people.max_body_size = 1
        item = b'{"code": "E-1", "name": "x"%s}'
        self.assert_answer(self.post(item % (b" " * (1024 - len(item) + 2))), 201)
        large = item % (b" " * 1024)
        for data in (large, large * 100, iter([large, b" "]), iter([large[:600], large[600:], b" "])):
            body = self.assert_answer(self.post(data), 413)
            self.assertIn("1 KiB", body["message"])
        self.assert_answer(self.post(b" " * (LINGER + 2048)), 413)
        self.assert_answer(self.post(iter([item % b""])), 200)
        log = self.env["bj.api.log"].search([("response_code", "=", 413)], limit=1)
        self.assertEqual(log.config_id, self.people)
        self.assertFalse(log.request_body)

    def test_body_size_of_strangers(self):
        self.people.max_body_size = 1
        self.assert_answer(self.post(b" " * 5000, token="wrong"), 401)

    def post(self, data, **options):
        return self.call("POST", "/people", data=data, headers={"Content-Type": "application/json"}, **options)

    # CORS

    def preflight(self, origin=SHOP, method="PUT", requested="authorization, x-evil, Content-Type", **headers):
        headers |= {"Origin": origin, "Access-Control-Request-Method": method}
        headers["Access-Control-Request-Headers"] = requested
        return self.call("OPTIONS", "/people", headers=headers, token=None)

    def test_preflight(self):
        self.assert_answer(self.preflight(), 401)
        self.people.write({"cors_origins": f"{SHOP}\nhttps://other.example.com", "rate_limit": 1})
        for _ in range(2):  # does not count
            response = self.preflight()
            self.assert_answer(response, 204)
        expected = {
            "Access-Control-Allow-Origin": SHOP,
            "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS",
            "Access-Control-Allow-Headers": "authorization, Content-Type",
            "Access-Control-Max-Age": "7200",
            "Vary": "Accept, Origin",
        }
        self.assertEqual({name: response.headers.get(name) for name in expected}, expected)
        response = self.preflight(origin="https://evil.example.com")
        self.assert_answer(response, 204)
        self.assertNotIn("Access-Control-Allow-Origin", response.headers)
        self.assertEqual(response.headers["Vary"], "Accept, Origin")
        self.people.allowed_networks = "192.0.2.0/24"
        self.assert_answer(self.preflight(), 403)

    def test_other_options_need_credentials(self):
        self.people.cors_origins = "*"
        self.assert_answer(self.call("OPTIONS", "/people", token=None), 401)
        self.assert_answer(self.call("OPTIONS", "/people", headers={"Origin": SHOP}), 204)

    def test_answers_and_errors_can_be_read(self):
        self.people.cors_origins = SHOP
        calls = [("GET", {}, 200), ("POST", {}, 400), ("GET", {"token": "wrong"}, 401), ("TRACE", {}, 405)]
        for method, options, status in calls:
            response = self.call(method, "/people", headers={"Origin": SHOP}, **options)
            self.assert_answer(response, status)
            self.assertEqual(response.headers["Access-Control-Allow-Origin"], SHOP)
            for name in ("Location", "Link", "ETag", "X-Request-ID", "RateLimit"):
                self.assertIn(name, response.headers["Access-Control-Expose-Headers"].split(", "))
            self.assertEqual(response.headers["Vary"], "Accept, Origin")
        response = self.call("GET", "/people", headers={"Origin": "https://evil.example.com"})
        self.assertNotIn("Access-Control-Allow-Origin", response.headers)
        self.people.cors_origins = "*"
        response = self.call("GET", "/people", headers={"Origin": "https://any.example.com"})
        self.assertEqual(response.headers["Access-Control-Allow-Origin"], "*")
        self.people.cors_origins = False
        response = self.call("GET", "/people", headers={"Origin": SHOP})
        self.assertEqual(response.headers["Vary"], "Accept")

    # the form

    def test_refused_on_saving(self):
        for values in (
            {"rate_limit": -1},
            {"max_body_size": 0},
            {"allowed_networks": "localhost"},
            {"cors_origins": "shop.example.com"},
        ):
            with self.subTest(values=values), self.assertRaises(ValidationError):
                self.people.write(values)
