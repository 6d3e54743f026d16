import json

from odoo.fields import Command
from odoo.tests import HttpCase, TransactionCase, new_test_user

TOKEN = "s3cret-token"


class ConfigMixin:
    """Configurations to test with, made as an administrator makes them."""

    def methods(self, *names):
        return [Command.set(self.env["bj.http.method"].search([("name", "in", names)]).ids)]

    def field(self, model, name):
        return self.env["ir.model.fields"]._get(model, name).id

    def lines(self, model, *lines):
        """Make line commands of (field, key) or (field, key, values); the first one is the identifier."""
        commands = []
        for sequence, (name, key, *values) in enumerate(lines):
            vals = {
                "sequence": sequence,
                "field_id": self.field(model, name) if name else False,
                "external_key": key,
                "is_record_identifier": sequence == 0,
            }
            commands.append(Command.create(vals | (values[0] if values else {})))
        return commands

    def config(self, model, *lines, **values):
        vals = {
            "name": f"Test {model}",
            "request_type": "in",
            "model_id": self.env["ir.model"]._get_id(model),
            "authorization_type": "bearer",
            "bearer_token": TOKEN,
            "http_method_ids": self.methods("GET", "POST", "PUT", "PATCH", "DELETE"),
            "line_ids": self.lines(model, *lines),
            "user_id": self.env.ref("base.user_admin").id,
        }
        return self.env["bj.api.sync.config"].create(vals | values)

    def mapping(self, model, *lines, **values):
        """Make a configuration that only serves as Mapping Model."""
        return self.config(model, *lines, endpoint=False, http_method_ids=False, **values)

    def partner_config(self, **values):
        return self.config(
            "res.partner",
            ("ref", "code"),
            ("name", "name"),
            ("email", "email"),
            ("city", "address.city"),
            ("street", "address.street"),
            ("color", "color"),
            ("is_company", "company"),
            **{"endpoint": "people", "name": "Partners"} | values,
        )


class ApiCase(ConfigMixin, TransactionCase):
    """Tests without HTTP."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.env = cls.env(context=dict(cls.env.context, tracking_disable=True))


class ApiHttpCase(ConfigMixin, HttpCase):
    """Tests through real HTTP."""

    def new_user(self, login, groups, **values):
        return new_test_user(self.env, login=login, groups=groups, **values)

    def call(
        self, method, path, payload=None, headers=None, token=TOKEN, data=None, prefix="/bj_api_sync/v1", **options
    ):
        """Call the API as an integrator does; return the response of ``requests``."""
        headers = dict(headers or {})
        if token:
            headers.setdefault("Authorization", f"Bearer {token}")
        if payload is not None:
            data = json.dumps(payload)
            headers.setdefault("Content-Type", "application/json")
        self.env.flush_all()
        try:
            return self.url_open(f"{prefix}{path}", data, method=method, headers=headers, **options)
        finally:
            self.env.invalidate_all()

    def assert_answer(self, response, status):
        """Check status, content type and envelope; return the body."""
        self.assertEqual(response.status_code, status, response.text)
        if status == 204:
            self.assertFalse(response.content)
            return None
        self.assertEqual(response.headers["Content-Type"], "application/json; charset=utf-8")
        self.assertTrue(response.headers["X-Request-ID"])
        body = response.json()
        if status < 400:
            self.assertEqual(body["status"], "success")
        else:
            self.assertEqual(body["status"], "error")
            self.assertEqual(body["code"], status)
            self.assertTrue(body["message"])
            self.assertEqual(body["trace_id"], response.headers["X-Request-ID"])
            self.assertNotIn("Traceback", response.text)
        return body
