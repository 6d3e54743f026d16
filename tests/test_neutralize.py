from odoo.fields import Command
from odoo.modules.neutralize import get_neutralization_queries
from odoo.tests import tagged

from .common import ApiCase


@tagged("post_install", "-at_install", "neutralize")
class TestNeutralize(ApiCase):
    def test_nothing_goes_out_of_a_copy(self):
        out = self.partner_config(
            request_type="out",
            endpoint=False,
            request_url="https://user:pw@shop.example.com:8443/orders?x=1",
            http_method_ids=self.methods("POST"),
            login="robot",
            password="out-password",
            client_secret="out-secret",
            header_secret="out-key",
            token_url="https://login.example.com/token",
            header_ids=[Command.create({"key": "X-Key", "value": "out-header"})],
        )
        out.pull_state = {"place": "https://shop.example.com:8443/orders?page=2"}
        inbound = self.partner_config(
            endpoint="copied-people", bearer_token="in-token", request_url="https://x.com/people"
        )
        self.env.flush_all()
        self.env.cr.execute(
            "INSERT INTO bj_api_sync_token (config_id, fingerprint, access_token) VALUES (%s, 'x', 'y')", out.ids
        )
        for query in get_neutralization_queries(["bj_api_sync"]):
            self.env.cr.execute(query)
        self.env.invalidate_all()
        self.assertFalse(out.active)
        self.assertEqual(out.request_url, "https://neutralized.invalid/orders?x=1")
        self.assertEqual([out.login, out.password, out.bearer_token, out.header_ids.value], [False] * 4)
        self.assertFalse(out.pull_state)
        self.assertEqual(inbound.request_url, "https://neutralized.invalid/people")
        self.assertEqual([out.client_secret, out.header_secret], [False] * 2)
        self.assertEqual(out.token_url, "https://neutralized.invalid/token")
        self.assertFalse(self.env["bj.api.sync.token"].search([]))
        self.assertTrue(inbound.active)
        self.assertEqual(inbound.bearer_token, "in-token")
