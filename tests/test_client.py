import os
import socket
import time
from base64 import b64decode, b64encode
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from odoo.fields import Command
from odoo.tests import tagged
from odoo.tools.safe_eval import safe_eval

from ..models import bj_api_sync_client
from ..tools import transport
from .common_outbound import OutboundCase, tls_receiver, trickling_server
from .receiver import Receiver


@contextmanager
def fresh_connections():
    """Begin without connections, and leave none: the environment is read with the first of them."""
    transport._get_connections.cache_clear()
    try:
        yield
    finally:
        transport._get_connections.cache_clear()


@tagged("post_install", "-at_install")
class TestTransport(OutboundCase):
    """The wire itself: time, size, redirects, addresses."""

    def send(self, url, method="GET", allowed="127.0.0.1", **values):
        call = transport.Call(method, url, allowed_hosts=transport.parse_allowed_hosts(allowed), **values)
        connections = transport.get_connections(self.env.cr.dbname, call.allowed_hosts, None)
        return transport.send(call, connections)

    def test_connection_is_kept_alive(self):
        for _number in range(3):
            self.assertEqual(self.send(f"{self.receiver.url}/x").status_code, 200)
        self.assertEqual(len({request.connection_id for request in self.receiver.requests}), 1)

    def test_cookies_are_not_kept(self):
        self.receiver.on("/login", headers={"Set-Cookie": "session=1"})
        self.send(f"{self.receiver.url}/login")
        self.send(f"{self.receiver.url}/x")
        self.assertNotIn("cookie", self.receiver.requests[-1].headers)

    def test_read_timeout(self):
        exchange = self.send(f"{self.receiver.url}/slow/5", connect_timeout=0.2, read_timeout=0.3)
        self.assertEqual((exchange.status_code, exchange.failure), (408, "timeout"))
        self.assertLess(exchange.duration, 1)

    def test_trickling_servers_do_not_outlast_the_budget(self):
        for content in (
            b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 1000,
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"a" * 1000,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 300,
        ):
            with self.subTest(content=content[:50]), trickling_server(content) as url:
                exchange = self.send(url, connect_timeout=0.2, read_timeout=0.3)
                self.assertEqual((exchange.status_code, exchange.failure), (408, "timeout"))
                self.assertLess(exchange.duration, 1)

    def test_timeouts_of_one_request_do_not_touch_the_next(self):
        """A kept socket still has the timeout of what was left of the last budget."""
        with patch.object(transport._budget.__class__, "left", lambda self, timeout: 0.05):
            self.send(f"{self.receiver.url}/x")
        self.assertEqual(self.send(f"{self.receiver.url}/slow/0.3", "POST", body=b"x" * 10**6).status_code, 200)
        self.assertEqual(len({request.connection_id for request in self.receiver.requests}), 1)

    def test_answer_is_cut(self):
        with patch.object(transport, "MAX_ANSWER", 1000):
            exchange = self.send(f"{self.receiver.url}/large/1000000")
        self.assertEqual((exchange.status_code, len(exchange.content), exchange.truncated), (200, 1000, True))

    def test_nobody_answers(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.receiver.on("/garbage", garbage=True)
        for url, failure in (
            (f"http://127.0.0.1:{port}/", "refused"),
            ("http://does-not-exist.invalid/", "dns"),
            (f"https://127.0.0.1:{self.receiver.port}/", "tls"),
            (f"{self.receiver.url}/drop", "broken"),
            (f"{self.receiver.url}/garbage", "broken"),
            ("http://exa mple/", "url"),
            ("http://127.0.0.1:99999/", "url"),
        ):
            with self.subTest(url=url):
                exchange = self.send(url)
                self.assertEqual((exchange.status_code, exchange.failure), (0, failure))

    def test_tls_is_verified(self):
        with tls_receiver() as (receiver, certificate):
            call = transport.Call(
                "POST", f"https://127.0.0.1:{receiver.port}/x", allowed_hosts=frozenset(["127.0.0.1"])
            )
            self.assertEqual(transport.send(call, transport._Connections(None)).failure, "tls")
            trusting = transport._Connections(certificate)
            self.assertEqual(transport.send(call, trusting).status_code, 200)
            self.assertEqual(transport.send(call, trusting).status_code, 200)
            self.assertEqual(len({request.connection_id for request in receiver.requests}), 1)
            self.receiver.on("/up", status=307, headers={"Location": call.url})
            up = replace(call, url=f"{self.receiver.url}/up", private_headers={"Authorization": "Bearer x"})
            self.assertEqual(transport.send(up, trusting).status_code, 200)
            self.assertNotIn("authorization", receiver.requests[-1].headers)  # another port
            receiver.on("/down", status=307, headers={"Location": f"{self.receiver.url}/x"})
            down = replace(call, url=f"https://127.0.0.1:{receiver.port}/down")
            self.assertEqual(transport.send(down, trusting).status_code, 307)

    def test_guard_refuses_loopback_in_all_its_forms(self):
        port = self.receiver.port
        hosts = (
            "127.0.0.1",
            "localhost",
            "127.1",
            "2130706433",
            "0x7f000001",
            "017700000001",
            "0",
            "0.0.0.0",  # noqa: S104
        )
        for host in (*hosts, "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "LOCALHOST."):
            with self.subTest(host=host):
                self.assertEqual(self.send(f"http://{host}:{port}/", allowed="").failure, "guard")
        self.assertFalse(self.receiver.requests)

    def test_guard_knows_addresses(self):
        refused = (
            "169.254.169.254",
            "fe80::1%eth0",
            "fd00:ec2::254",
            "100.100.100.200",
            "168.63.129.16",
            "::7f00:1",
        )
        refused += (
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "::ffff:169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
        )
        for address in refused:
            self.assertTrue(transport.is_refused(address), address)
        for address in (
            "10.0.0.1",
            "192.168.1.1",
            "8.8.8.8",
            "fd12::1",
            "2606:4700::1111",
            "64:ff9b::808:808",
        ):
            self.assertFalse(transport.is_refused(address), address)

    def test_guard_lets_listed_hosts_pass(self):
        port = self.receiver.port
        for allowed, host, passes in (
            (f"127.0.0.1:{port}", "127.0.0.1", True),
            (f"other, 127.0.0.1:{port} ", "127.0.0.1", True),
            ("127.0.0.1:1", "127.0.0.1", False),
            ("127.0.0.1", "127.1", False),
            ("LOCALHOST", "localhost", True),
        ):
            with self.subTest(allowed=allowed, host=host):
                exchange = self.send(f"http://{host}:{port}/", allowed=allowed)
                self.assertEqual(exchange.failure, "" if passes else "guard")

    def test_guard_holds_for_connections_kept_alive(self):
        url = f"{self.receiver.url}/x"
        self.assertEqual(self.send(url).status_code, 200)
        self.assertEqual(self.send(url, allowed="").failure, "guard")

    def test_guard_holds_for_redirects(self):
        with Receiver() as other:
            self.receiver.on("/go", status=307, headers={"Location": f"http://localhost:{other.port}/"})
            exchange = self.send(f"{self.receiver.url}/go", "POST")
            self.assertEqual(exchange.failure, "guard")
            self.assertFalse(other.requests)

    def test_the_address_that_was_checked_is_the_one_connected_to(self):
        """A name that resolves to another address the second time (DNS rebinding) is not asked again."""
        real, answers = socket.getaddrinfo, iter(["203.0.113.1", "127.0.0.1"])

        def rebinding(host, *args, **kwargs):
            return real(next(answers) if host == "rebinding.test" else host, *args, **kwargs)

        with patch("socket.getaddrinfo", rebinding):
            exchange = self.send(f"http://rebinding.test:{self.receiver.port}/", connect_timeout=0.2, read_timeout=0.2)
        self.assertTrue(exchange.failure)
        self.assertFalse(self.receiver.requests)

    def test_redirects(self):
        cases = (
            ("GET", 301, 200), ("GET", 302, 200), ("GET", 303, 200), ("GET", 307, 200),
            ("POST", 307, 200), ("PUT", 308, 200), ("POST", 301, 301), ("POST", 302, 302), ("POST", 303, 303),
        )  # fmt: skip
        for method, code, expected in cases:
            with self.subTest(method=method, code=code):
                self.receiver.clear()
                self.receiver.on("/go", status=code, headers={"Location": "/there?x=1"})
                exchange = self.send(f"{self.receiver.url}/go", method, body=b"[1]")
                self.assertEqual(exchange.status_code, expected)
                if expected == 200:
                    request = self.receiver.requests[-1]
                    self.assertEqual((request.method, request.path, request.body), (method, "/there", "[1]"))

    def test_endless_redirects_end(self):
        self.receiver.on("/go", status=302, headers={"Location": "/go"})
        self.assertEqual(self.send(f"{self.receiver.url}/go").status_code, 302)
        self.assertEqual(len(self.receiver.requests), transport.MAX_REDIRECTS + 1)

    def test_redirects_leave_http_never(self):
        self.receiver.on("/go", status=302, headers={"Location": "file:///etc/passwd"})
        self.assertEqual(self.send(f"{self.receiver.url}/go").status_code, 302)

    def test_credentials_stay_with_their_origin(self):
        headers = {
            "headers": {"X-Public": "1"},
            "private_headers": {"Authorization": "Bearer x", "X-Key": "y"},
        }
        with Receiver() as other:
            self.receiver.on("/go", status=307, headers={"Location": f"{other.url}/there"})
            self.receiver.on("/stay", status=307, headers={"Location": "/there"})
            self.send(f"{self.receiver.url}/go", "POST", **headers)
            self.send(f"{self.receiver.url}/stay", "POST", **headers)
            self.assertEqual(other.requests[0].headers["x-public"], "1")
            # read in two ways: the parser that connects finds the other host in it
            here = self.receiver.url.removeprefix("http://")
            self.receiver.on("/trick", status=307, headers={"Location": f"{other.url}\\@{here}/there"})
            self.send(f"{self.receiver.url}/trick", "POST", **headers)
            self.assertEqual(len(other.requests), 2)
            for request in other.requests:
                self.assertFalse({"authorization", "x-key"} & request.headers.keys())
        self.assertEqual(self.receiver.requests[-1].headers["authorization"], "Bearer x")

    def test_proxy_of_the_environment(self):
        with (
            patch.dict(os.environ, {"http_proxy": self.receiver.url.replace("//", "//us%40er:p%3Ass@")}),
            fresh_connections(),
        ):
            exchange = self.send("http://partner.invalid/orders")
            self.assertEqual(exchange.status_code, 200)
            self.assertEqual(self.receiver.requests[-1].headers["host"], "partner.invalid")
            login = self.receiver.requests[-1].headers["proxy-authorization"].removeprefix("Basic ")
            self.assertEqual(b64decode(login), b"us@er:p:ss")
            self.assertEqual(self.send("http://169.254.169.254/latest").failure, "guard")
            self.send("http://me:s3cret@partner.invalid/orders")
            self.assertNotIn("s3cret", str(self.receiver.requests[-1]))

    def test_environment_that_cannot_be_used(self):
        """It fails what needs it, as a result."""
        for proxy in ("socks5h://me:s3cret@127.0.0.1:1080", "http://me:s3cret@[bad", "http://me:s3cret@proxy:port"):
            with (
                self.subTest(proxy),
                patch.dict(os.environ, {"https_proxy": proxy}),
                fresh_connections(),
            ):
                exchange = self.send("https://partner.invalid/orders")
                self.assertEqual(exchange.failure, "proxy")
                self.assertNotIn("s3cret", exchange.detail)
                self.assertEqual(self.send(f"{self.receiver.url}/x").status_code, 200)
        self.patch(bj_api_sync_client, "CA_FILE", "/nowhere.pem")
        with fresh_connections():
            result = self.push()
        self.assertFalse(result.success)
        self.assertIn("/nowhere.pem", result.error)


@tagged("post_install", "-at_install")
class TestClient(OutboundCase):
    """From a configuration to headers, outcome and message."""

    def test_authorization_types(self):
        basic = b64encode("jörg:pa:ss".encode()).decode()
        for values, expected in (
            ({"authorization_type": "none"}, None),
            ({"authorization_type": "basic", "login": "jörg", "password": "pa:ss"}, f"Basic {basic}"),
            ({"authorization_type": "bearer", "bearer_token": "Bearer abc"}, "Bearer abc"),
        ):
            with self.subTest(values=values):
                self.config.write(values)
                self.assertTrue(self.push().success)
                self.assertEqual(self.receiver.requests[-1].headers.get("authorization"), expected)

    def test_headers(self):
        self.config.write(
            {
                "authorization_type": "header",
                "header_ids": [
                    Command.create({"key": "X-Api-Key", "value": "k1"}),
                    Command.create({"key": "accept", "value": "application/vnd.x+json"}),
                ],
            }
        )
        self.push()
        headers = self.receiver.requests[-1].headers
        self.assertEqual((headers["x-api-key"], headers["accept"]), ("k1", "application/vnd.x+json"))
        self.assertEqual(headers["content-type"], "application/json")
        self.assertEqual(headers["x-request-id"], self.logs()[-1].trace_id)

    def test_outcomes(self):
        client = self.env["bj.api.sync.client"]
        for code, outcome in (
            (200, "success"), (201, "success"), (204, "success"), (301, "final"), (304, "final"),
            (400, "final"),
            (401, "final"), (404, "final"), (409, "final"), (408, "retry"), (425, "retry"), (429, "retry"),
            (500, "retry"), (501, "final"), (502, "retry"), (503, "retry"), (504, "retry"), (505, "final"),
        ):  # fmt: skip
            exchange = transport.Exchange(None, status_code=code, url="https://example.com/x")
            self.assertEqual(client._get_outcome(self.config, exchange), outcome, code)
        for failure, outcome in (
            ("timeout", "retry"),
            ("dns", "retry"),
            ("tls", "retry"),
            ("guard", "final"),
        ):
            exchange = transport.Exchange(None, failure=failure)
            self.assertEqual(client._get_outcome(self.config, exchange), outcome, failure)

    def test_scripts_have_requests(self):
        code = """
answer = requests.post(url + "/orders", json={"a": 1}, params={"page": 2}, headers={"X-Key": "k"}, timeout=3)
result = {"code": answer.status_code, "id": answer.json()["id"], "ok": answer.ok, "text": answer.text}
try:
    requests.get(url + "/status/404").raise_for_status()
except requests.exceptions.HTTPError as error:
    result["missing"] = str(error)
"""
        context = {"requests": self.env["bj.api.sync.client"]._script_requests(), "url": self.receiver.url}
        safe_eval(code, context, mode="exec")
        self.assertEqual((context["result"]["code"], context["result"]["ok"]), (200, True))
        self.assertIn("404 Client Error: Not Found for url", context["result"]["missing"])
        request = self.receiver.requests[0]
        self.assertEqual((request.json, request.query, request.headers["x-key"]), ({"a": 1}, {"page": ["2"]}, "k"))

    def test_scripts_call_nobody_from_a_neutralized_copy(self):
        self.env["ir.config_parameter"].set_param("database.is_neutralized", True)
        script_requests = self.env["bj.api.sync.client"]._script_requests()
        with self.assertRaisesRegex(script_requests.exceptions.ConnectionError, "neutralized copy"):
            script_requests.post(f"{self.receiver.url}/orders")
        self.assertFalse(self.receiver.requests)

    def test_scripts_are_guarded_and_timed(self):
        script_requests = self.env["bj.api.sync.client"]._script_requests()
        started = time.monotonic()
        with self.assertRaises(script_requests.exceptions.Timeout):
            script_requests.get(f"{self.receiver.url}/slow/5", timeout=(0.2, 0.2))
        self.assertLess(time.monotonic() - started, 2)
        self.allow("")
        with self.assertRaises(script_requests.exceptions.ConnectionError):
            script_requests.get(f"{self.receiver.url}/x")
        with self.assertRaises(TypeError):
            script_requests.get("https://example.com", verify=False)
