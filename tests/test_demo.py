from odoo.tests import tagged
from odoo.tools import convert_file

from .common import ApiHttpCase


@tagged("-at_install", "post_install")
class TestDemo(ApiHttpCase):
    """The demo data does what the documentation shows."""

    def setUp(self):
        super().setUp()
        if not self.env.ref("bj_api_sync.demo_config_partner", raise_if_not_found=False):
            self.skipTest("without demo data")

    def test_partners(self):
        token = "demo-token-partners"
        body = self.assert_answer(self.call("GET", "/partners?name=bakery&is_company=true", token=token), 200)
        self.assertEqual([item["code"] for item in body["data"]], ["C-1001"])
        item = {
            "code": "DEMO-1",
            "name": "Ada Lovelace",
            "email": " Ada@Example.com",
            "address": {"city": "London", "country": "GB"},
            "tags": [{"name": "Wholesale"}, {"name": "Newcomer"}],
        }
        body = self.assert_answer(self.call("POST", "/partners", item, token=token), 201)
        self.assertEqual(body["data"]["email"], "ada@example.com")
        self.assertEqual(body["data"]["address"]["country"], "GB")
        self.assertEqual(len(body["data"]["tags"]), 2)

    def test_companies(self):
        item = {"code": "C-1001", "contacts": [{"email": "max@sunrise-bakery.example.com", "name": "Max"}]}
        self.assert_answer(self.call("POST", "/companies", item, token="demo-token-companies"), 200)
        body = self.assert_answer(self.call("GET", "/companies/C-1001", token="demo-token-companies"), 200)
        self.assertEqual({contact["name"] for contact in body["data"]["contacts"]}, {"Max", "Nora Janssens"})

    def test_push(self):
        action = self.env.ref("bj_api_sync.demo_action_push_partner")
        self.assertEqual(action.binding_model_id.model, "res.partner")
        self.assertEqual(action.bj_api_sync_config_id, self.env.ref("bj_api_sync.demo_config_partner_out"))

    def test_orders(self):
        if "sale.order" not in self.env:
            self.skipTest("without sales")
        convert_file(self.env, "bj_api_sync", "demo/demo_sale.xml", {}, noupdate=True)
        product = {"sku": "BUN", "name": "Bun", "price": 0.5, "category": {"name": "Bakery"}}
        self.assert_answer(self.call("POST", "/products", product, token="demo-token-products"), 201)
        order = {
            "number": "SHOP-1",
            "customer": "C-1001",
            "ordered_at": "2026-01-31T10:00:00+01:00",
            "lines": [{"position": 1, "sku": "BUN", "quantity": 20}, {"position": 2, "sku": "BUN", "quantity": 5}],
        }
        self.assert_answer(self.call("POST", "/orders", order, token="demo-token-orders"), 201)
        order["lines"] = [{"position": 1, "quantity": 30}]
        self.assert_answer(self.call("POST", "/orders", order, token="demo-token-orders"), 200)
        body = self.assert_answer(self.call("GET", "/orders/SHOP-1", token="demo-token-orders"), 200)
        self.assertEqual(body["data"]["ordered_at"], "2026-01-31T09:00:00Z")
        self.assertEqual(body["data"]["lines"], [{"position": 1, "sku": "BUN", "quantity": 30.0, "price": 0.5}])
