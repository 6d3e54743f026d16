from base64 import b64encode
from datetime import timedelta

from odoo import fields
from odoo.fields import Command
from odoo.tests import tagged
from odoo.tools import mute_logger

from .common import TOKEN, ApiHttpCase


@tagged("-at_install", "post_install")
class TestAuth(ApiHttpCase):
    """Who may call an endpoint, and as whom the call runs."""

    def setUp(self):
        super().setUp()
        self.runner = self.new_user("runner", "base.group_user,base.group_partner_manager")

    def endpoint(self, authorization_type, *headers, **values):
        """Expose /who, which answers who the request runs as."""
        lines = self.lines(
            "res.users",
            ("login", "login"),
            (
                False,
                "me",
                {"value_type": "script", "field_id": self.field("res.users", "name"), "script": "env.user.login"},
            ),
        )
        return self.config(
            "res.users",
            endpoint="who",
            authorization_type=authorization_type,
            line_ids=lines,
            header_ids=[Command.create({"key": key, "value": value, "purpose": "require"}) for key, value in headers],
            filter_domain="[('id', '=', uid)]",
            **{"user_id": self.runner.id, "bearer_token": False, "http_method_ids": self.methods("GET")} | values,
        )

    def who(self, **headers):
        return self.call(
            "GET", "/who", token=None, headers={key.replace("_", "-"): value for key, value in headers.items()}
        )

    def assert_runs_as(self, login, **headers):
        body = self.assert_answer(self.who(**headers), 200)
        self.assertEqual([item["me"] for item in body["data"]], [login])

    def assert_refused(self, scheme, **headers):
        response = self.who(**headers)
        self.assert_answer(response, 401)
        self.assertRegex(response.headers["WWW-Authenticate"], f'^{scheme} .*realm="')

    def basic(self, text):
        return "Basic " + b64encode(text if isinstance(text, bytes) else text.encode()).decode()

    # No Auth

    def test_none(self):
        self.endpoint("none")
        self.assert_runs_as("runner")
        self.assert_runs_as("runner", Authorization="Bearer whatever")

    # Bearer

    def test_bearer(self):
        self.endpoint("bearer", bearer_token=TOKEN)
        for good in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN}"):
            self.assert_runs_as("runner", Authorization=good)
        for bad in (
            "",
            "Bearer",
            "Bearer ",
            TOKEN,
            f"Token {TOKEN}",
            f"Bearer {TOKEN}x",
            f"Bearer x{TOKEN}",
            "Bearer \xff",
        ):
            with self.subTest(bad=bad):
                self.assert_refused("Bearer", Authorization=bad)
        self.assert_refused("Bearer")
        self.assert_refused("Bearer", Authorization=self.basic(f"x:{TOKEN}"))
        self.assert_refused("Bearer", Authorization=f"Bearer {TOKEN[:-1]}")

    def test_bearer_is_no_query_parameter(self):
        self.endpoint("bearer", bearer_token=TOKEN)
        for query in (f"bearer_token={TOKEN}", f"access_token={TOKEN}", f"token={TOKEN}"):
            self.assert_answer(self.call("GET", f"/who?{query}", token=None), 401)

    def test_the_word_bearer_is_no_part_of_the_token(self):
        config = self.endpoint("bearer", bearer_token="Bearer xyz")
        self.assertEqual(config.bearer_token, "xyz")
        self.assert_runs_as("runner", Authorization="Bearer xyz")
        self.assert_refused("Bearer", Authorization="Bearer Bearer xyz")

    def test_a_new_token_counts_at_once(self):
        config = self.endpoint("bearer", bearer_token=TOKEN)
        self.assert_runs_as("runner", Authorization=f"Bearer {TOKEN}")
        config.bearer_token = "new"
        self.assert_runs_as("runner", Authorization="Bearer new")
        self.assert_refused("Bearer", Authorization=f"Bearer {TOKEN}")
        config.write({"authorization_type": "basic", "login": "a", "password": "b"})
        self.assert_refused("Basic", Authorization="Bearer new")
        self.assert_runs_as("runner", Authorization=self.basic("a:b"))

    # Basic

    def test_basic(self):
        self.endpoint("basic", login="shop", password="pass:wörd €")
        self.assert_runs_as("runner", Authorization=self.basic("shop:pass:wörd €"))
        for bad in ("shop:", ":pass:wörd €", "shop:pass", "Shop:pass:wörd €", "shop", "", ":", "shop:pass:wörd € "):
            with self.subTest(bad=bad):
                self.assert_refused("Basic", Authorization=self.basic(bad))
        for bad in (
            "",
            "Basic",
            "Basic ",
            "Basic ???",
            "Basic c2hvcA",
            f"Bearer {TOKEN}",
            self.basic(b"\xff\xfe:\xff"),
            "\xff",
        ):
            with self.subTest(bad=bad):
                self.assert_refused("Basic", Authorization=bad)
        self.assert_refused("Basic")

    # Odoo API Key

    def api_key(self, user, days=1, scope="rpc"):
        until = fields.Datetime.now() + timedelta(days=days)
        return self.env["res.users.apikeys"].with_user(user)._generate(scope, "test", until)

    def test_odoo_api_key(self):
        self.endpoint("odoo", user_id=False)
        key = self.api_key(self.runner)
        self.assert_runs_as("runner", Authorization=f"Bearer {key}")
        other = self.new_user("other", "base.group_user")
        self.assert_runs_as("other", Authorization=f"Bearer {self.api_key(other)}")
        for bad in (
            "",
            "Bearer ",
            f"Bearer {key[:-1]}",
            f"Bearer {key}x",
            f"Bearer {key[:8]}",
            f"Bearer {key.upper()}",
            "Bearer \xff",
            "Bearer \0",
        ):
            with self.subTest(bad=bad):
                self.assert_refused("Bearer", Authorization=bad)
        self.assert_refused("Bearer", Authorization=self.basic(f"runner:{key}"))
        self.assert_refused("Bearer", Authorization=f"Bearer {self.api_key(self.runner, days=-1)}")
        self.assert_refused("Bearer", Authorization=f"Bearer {self.api_key(self.runner, scope='other')}")
        self.runner.active = False
        self.assert_refused("Bearer", Authorization=f"Bearer {key}")

    def test_a_revoked_api_key(self):
        self.endpoint("odoo", user_id=False)
        key = self.api_key(self.runner)
        self.env["res.users.apikeys"].search([("user_id", "=", self.runner.id)]).sudo().unlink()
        self.assert_refused("Bearer", Authorization=f"Bearer {key}")

    def test_an_api_key_opens_no_other_endpoint(self):
        self.endpoint("bearer", bearer_token=TOKEN)
        self.assert_refused("Bearer", Authorization=f"Bearer {self.api_key(self.runner)}")

    # Custom Headers

    def test_headers_alone(self):
        self.endpoint("header", ("X-Key", "kéy"), ("X-Shop", "one"))
        good = {"X_Key": "kéy", "X_Shop": "one"}
        self.assert_runs_as("runner", **good)
        self.assert_runs_as("runner", x_KEY="kéy", x_shop="one")
        for bad in ({}, {"X_Key": "kéy"}, good | {"X_Key": "key"}, good | {"X_Key": ""}, good | {"X_Shop": "One"}):
            with self.subTest(bad=bad):
                self.assert_refused("Header", **bad)

    def test_custom_headers_without_any(self):
        """Somebody removed the last header: nobody may come in, rather than everybody."""
        config = self.endpoint("header", ("X-Key", "key"))
        config.header_ids.unlink()
        self.assert_refused("Header")

    def test_headers_on_top(self):
        for kind, authorization, values in (
            ("bearer", f"Bearer {TOKEN}", {"bearer_token": TOKEN}),
            ("basic", self.basic("a:b"), {"login": "a", "password": "b"}),
            ("odoo", f"Bearer {self.api_key(self.runner)}", {"user_id": False}),
        ):
            with self.subTest(kind=kind):
                config = self.endpoint(kind, ("X-Key", "key"), **values)
                self.assert_runs_as("runner", X_Key="key", Authorization=authorization)
                self.assert_answer(self.who(X_Key="key"), 401)
                self.assert_answer(self.who(Authorization=authorization), 401)
                self.assert_answer(self.who(Authorization=authorization, X_Key="Key"), 401)
                config.unlink()

    def test_headers_on_top_of_no_auth(self):
        self.endpoint("none", ("X-Key", "key"))
        self.assert_refused("Header")
        self.assert_runs_as("runner", X_Key="key")

    def test_a_changed_header_counts_at_once(self):
        config = self.endpoint("header", ("X-Key", "key"))
        self.assert_runs_as("runner", X_Key="key")
        config.header_ids.value = "new"
        self.assert_refused("Header", X_Key="key")
        self.assert_runs_as("runner", X_Key="new")
        config.header_ids.purpose = "answer"
        self.assert_refused("Header", X_Key="new")

    # secrets that are empty, or whose key is missing

    def lose_key(self, config):
        """Have all secrets of a configuration look as after a restore without the key file."""
        self.env.flush_all()
        for table, names, where in (
            ("bj_api_sync_config", ("login", "password", "bearer_token", "signing_secret"), "id"),
            ("bj_api_sync_header", ("value",), "config_id"),
        ):
            for name in names:
                self.env.cr.execute(f"UPDATE {table} SET {name} = 'lost' WHERE {where} = %s", [config.id])
        self.env.invalidate_all()
        self.env.registry.clear_cache()

    @mute_logger("odoo.addons.bj_api_sync.tools.secret")
    def test_nothing_is_equal_to_a_secret_that_is_lost(self):
        headers = {"X_Key": "", "X_Signature": ""}
        for kind, scheme, values, received in (
            ("none", "Header", {}, ("",)),
            ("header", "Header", {}, ("",)),
            ("basic", "Basic", {"login": "shop", "password": TOKEN}, (self.basic(":"), self.basic("shop:"), "")),
            ("bearer", "Bearer", {"bearer_token": TOKEN}, ("Bearer ", "Bearer", "")),
            ("hmac", "Signature", {"signing_style": "github", "signing_secret": TOKEN}, ("",)),
        ):
            required = [] if kind in ("basic", "bearer", "hmac") else [("X-Key", "key")]
            config = self.endpoint(kind, *required, **values)
            self.lose_key(config)
            with self.subTest(kind=kind):
                for text in received:
                    self.assert_refused(scheme, Authorization=text)
                    self.assert_refused(scheme, Authorization=text, **headers)
                    document = self.call("GET", "/openapi.json", token=None, headers={"Authorization": text})
                    self.assertNotIn("/who", document.json()["paths"])
                self.assert_refused(scheme)
            config.unlink()

    @mute_logger("odoo.addons.bj_api_sync.tools.secret")
    def test_the_log_says_that_a_secret_is_lost(self):
        config = self.endpoint("basic", ("X-Key", "k-1"), login="shop", password=TOKEN)

        def refuse(trace_id):
            self.assert_refused("(Basic|Header)", Authorization=self.basic(":"), X_Request_ID=trace_id)
            self.env["bj.api.log"]._flush_later()
            return self.env["bj.api.log"].search([("trace_id", "=", trace_id)]).error_message

        self.assertNotIn("encryption key", refuse("qa-2"))
        self.lose_key(config)
        self.assertIn("encryption key is missing", refuse("qa-3"))
        config.header_ids.value = "k-1"
        self.assertIn("encryption key is missing", refuse("qa-4"))
        config.write({"login": "shop", "password": TOKEN})
        self.assertNotIn("encryption key", refuse("qa-5"))

    # order of the checks

    def test_order(self):
        """404, then 401, then 405, then 415 and 400."""
        config = self.endpoint("bearer", bearer_token=TOKEN)
        bad = {"data": b"{", "headers": {"Content-Type": "application/json"}}
        self.assert_answer(self.call("POST", "/nothing", token=None, **bad), 404)
        self.assert_answer(self.call("POST", "/who", token=None, **bad), 401)
        self.assert_answer(self.call("POST", "/who", token="wrong", **bad), 401)
        self.assert_answer(self.call("POST", "/who", **bad), 405)
        config.http_method_ids = self.methods("GET", "POST")
        self.assert_answer(self.call("POST", "/who", token=None, data=b"x", headers={"Content-Type": "image/png"}), 401)
        self.assert_answer(self.call("POST", "/who", data=b"x", headers={"Content-Type": "image/png"}), 415)
        self.assert_answer(self.call("POST", "/who", **bad), 400)
        self.assert_answer(self.call("GET", "/who?unknown=1", token="wrong"), 401)
        self.assert_answer(self.call("GET", "/who/0", token="wrong"), 401)

    def test_401_for_every_method(self):
        self.endpoint("bearer", bearer_token=TOKEN)
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"):
            with self.subTest(method=method):
                response = self.call(method, "/who", token="wrong")
                self.assertEqual(response.status_code, 401)
                self.assertIn("WWW-Authenticate", response.headers)

    def test_refusals_tell_nothing(self):
        self.endpoint("basic", login="shop", password=TOKEN)
        messages = {
            self.who(Authorization=text).json()["message"]
            for text in ("", self.basic("shop:x"), self.basic("x:y"), f"Bearer {TOKEN}")
        }
        self.assertEqual(len(messages), 1)
        self.assertNotIn("shop", messages.pop())

    # who is gone, and who is logged in

    def test_archived_configuration(self):
        config = self.endpoint("bearer", bearer_token=TOKEN)
        config.active = False
        self.assert_answer(self.who(Authorization=f"Bearer {TOKEN}"), 404)
        config.active = True
        self.assert_runs_as("runner", Authorization=f"Bearer {TOKEN}")

    def test_archived_user(self):
        """Who left the company runs nothing any more."""
        self.endpoint("bearer", bearer_token=TOKEN)
        self.assert_runs_as("runner", Authorization=f"Bearer {TOKEN}")
        self.runner.active = False
        self.assert_answer(self.who(Authorization=f"Bearer {TOKEN}"), 403)
        self.assert_refused("Bearer", Authorization="Bearer wrong")
        self.runner.active = True
        self.assert_runs_as("runner", Authorization=f"Bearer {TOKEN}")

    def test_a_session_changes_nothing(self):
        self.endpoint("bearer", bearer_token=TOKEN)
        self.authenticate("admin", "admin")
        self.assert_refused("Bearer")
        self.assert_runs_as("runner", Authorization=f"Bearer {TOKEN}")
        response = self.who(Authorization=f"Bearer {TOKEN}")
        self.assertNotIn("Set-Cookie", response.headers)

    def test_language_and_time_zone_are_those_of_the_user(self):
        """Neither a browser's session nor its Accept-Language changes what an integrator reads or writes."""
        self.env["res.lang"]._activate_lang("fr_FR")
        self.runner.write({"lang": "en_US", "tz": "Pacific/Kiritimati"})
        config = self.endpoint("bearer", bearer_token=TOKEN)
        config.line_ids[1].script = "str(env.context.get('lang')) + ' ' + str(env.context.get('tz'))"
        self.env.ref("base.user_admin").lang = "fr_FR"
        self.authenticate("admin", "admin")
        self.assert_runs_as("en_US Pacific/Kiritimati", Authorization=f"Bearer {TOKEN}", Accept_Language="fr-FR")

    def test_two_endpoints_have_their_own_credentials(self):
        self.endpoint("bearer", bearer_token=TOKEN)
        self.partner_config(bearer_token="other")
        self.assert_answer(self.call("GET", "/people"), 401)
        self.assert_answer(self.call("GET", "/people", token="other"), 200)
        self.assert_refused("Bearer", Authorization="Bearer other")

    def test_both_prefixes_are_guarded(self):
        self.endpoint("bearer", bearer_token=TOKEN)
        for prefix in ("/bj_api_sync/v1", "/api/sync/v1"):
            self.assert_answer(self.call("GET", "/who", token="wrong", prefix=prefix), 401)
            self.assert_answer(self.call("GET", "/who", prefix=prefix), 200)

    def test_failures_are_logged_without_credentials(self):
        self.endpoint("basic", login="shop", password="hunter2hunter2")
        self.assert_refused("Basic", Authorization=self.basic("shop:hunter2hunter2x"), X_Request_ID="qa-1")
        self.env["bj.api.log"]._flush_later()
        log = self.env["bj.api.log"].search([("trace_id", "=", "qa-1")])
        self.assertEqual((log.response_code, log.status), (401, "error"))
        self.assertNotIn(self.basic("shop:hunter2hunter2x")[6:], log.request_headers)
        self.assertNotIn("hunter2", log.request_headers)
