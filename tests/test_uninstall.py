from odoo.tests import BaseCase, tagged

from .common_server import OdooServer, database_copy, needs_template


@tagged("-at_install", "post_install")
@needs_template
class TestUninstall(BaseCase):
    """The addon goes, and nothing that it started stays."""

    def test_triggers(self):
        with (
            database_copy("uninstall") as database,
            OdooServer(database, "--max-cron-threads", "0") as server,
        ):
            config_id = server.find("demo_config_partner_out")
            for kind in ("base.automation", "ir.cron", "ir.actions.server"):
                [wizard_id] = server.rpc("bj.api.sync.trigger", "create", [{"config_id": config_id, "kind": kind}])
                server.rpc("bj.api.sync.trigger", "action_create", [wizard_id])
            [module_id] = server.rpc("ir.module.module", "search", [("name", "=", "bj_api_sync")])
            server.rpc("ir.module.module", "button_immediate_uninstall", [module_id])
            self.assertTrue(server.rpc("res.partner", "create", {"name": "Saved"}))
            for query in (
                "SELECT id FROM ir_act_server WHERE state = 'bj_api_sync'",
                "SELECT id FROM ir_cron WHERE cron_name LIKE 'Push to%'",
                "SELECT id FROM base_automation",
                "SELECT relname FROM pg_class WHERE relname LIKE 'bj\\_%'",
                "SELECT model FROM ir_model WHERE model LIKE 'bj.%'",
                "SELECT name FROM ir_model_data WHERE module = 'bj_api_sync'",
            ):
                with self.subTest(query=query):
                    self.assertEqual(server.sql(query), [])
