from odoo import api, fields, models
from odoo.exceptions import UserError

from ..tools.notification import notify


class IrActionsServer(models.Model):
    """The server action type "Push to API"."""

    _inherit = "ir.actions.server"

    state = fields.Selection(
        selection_add=[("bj_api_sync", "Push to API"), ("multi",)],
        ondelete={"bj_api_sync": lambda actions: actions._unlink_with_triggers()},
    )
    bj_api_sync_config_id = fields.Many2one(
        "bj.api.sync.config",
        "API Configuration",
        compute="_compute_bj_api_sync_config_id",
        store=True,
        readonly=False,
        ondelete="restrict",
        domain="[('request_type', '=', 'out'), ('model_id', '=', model_id)]",
        help="The outbound configuration the records are sent with.",
    )

    @api.depends("model_id", "state")
    def _compute_bj_api_sync_config_id(self):
        """A configuration is of one model: another model needs another one."""
        for action in self:
            config = action.bj_api_sync_config_id.sudo()
            if action.state != "bj_api_sync" or config.model_id != action.model_id:
                action.bj_api_sync_config_id = False

    def _name_depends(self):
        return [*super()._name_depends(), "bj_api_sync_config_id"]

    def _generate_action_name(self):
        self.ensure_one()
        if self.state == "bj_api_sync" and self.bj_api_sync_config_id:
            return self.bj_api_sync_config_id.sudo()._get_trigger_name()
        return super()._generate_action_name()

    def _unlink_with_triggers(self):
        """Delete actions, and what starts them: the addon goes, and with it what they do.

        A scheduled action holds on to its server action; an automation rule may have others.
        """
        self.env["ir.cron"].with_context(active_test=False).search([("ir_actions_server_id", "in", self.ids)]).unlink()
        rules = self.base_automation_id
        self.unlink()
        rules.filtered(lambda rule: not rule.action_server_ids).unlink()

    def _run_action_bj_api_sync_multi(self, eval_context):
        """Queue the records of the action; a scheduled action queues all in the filter domain. Or pull."""
        config = self.bj_api_sync_config_id.sudo()
        if not config:
            raise UserError(self.env._("%(action)s: choose the API configuration.", action=self.name))
        if self.env.context.get("bj_api_sync_from") == config.id:
            return False  # the change is what this configuration's other system just answered
        if config.is_pull:
            return self._run_pull(config)
        records = eval_context.get("records") or eval_context.get("record") or eval_context["model"]
        records = self.env["bj.api.link"]._skip_removed(config, records)
        if rule := self.base_automation_id:
            return self._queue_for_rule(config, rule, records)
        if not records and self.usage == "ir_cron":
            self.env["bj.api.sync.push"]._enqueue_changes(config)
            return False
        queued = sum(config._enqueue(records).mapped("record_count"))
        message = self.env._("%(queued)s queued, %(skipped)s skipped.", queued=queued, skipped=len(records) - queued)
        close = {"type": "ir.actions.act_window_close"}
        return notify("success" if queued else "warning", message, title=config.name, next=close)

    def _run_pull(self, config):
        """Pull, and tell what came of it.

        A rule runs in the transaction of somebody who should not wait for another system: where there is a
        scheduled action for it, that is woken.
        """
        if self.base_automation_id:
            crons = self.env["ir.cron"].sudo().search([("bj_api_sync_config_id", "=", config.id)])
            for cron in crons:
                cron._trigger()
            if crons:
                return False
            config = config.with_context(ir_cron_progress_id=False)  # nor may it commit what others are at
        result = config._pull()
        return self.usage != "ir_cron" and config._notify_pulled(result)

    def _queue_for_rule(self, config, rule, records):
        """Queue what an automation rule was started for.

        It comes once for each record, and again for stored fields that are computed from a change: what was
        created or changed is put together at the end of the transaction. What is deleted cannot wait.
        """
        if rule.trigger != "on_unlink":
            is_creation = "old_values" in self.env.context and self.env.context["old_values"] is None
            operation = "create" if is_creation else "write"
            self.env["bj.api.delivery"]._enqueue_at_commit(config, records, operation)
            return False
        now = self.env.cr.now()  # when this transaction began, to the microsecond, as in its records
        # nobody knows what was created in this very transaction
        known = records.filtered(lambda record: not record._log_access or record.create_date < now)
        self.env["bj.api.delivery"]._enqueue(config, known, "unlink")
        return False
