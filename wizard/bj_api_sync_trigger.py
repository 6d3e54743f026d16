from odoo import api, fields, models
from odoo.exceptions import UserError
from odoo.fields import Command

from ..tools.notification import notify


class BjApiSyncTrigger(models.TransientModel):
    """Makes what starts the requests of an outbound configuration, and links it."""

    _name = "bj.api.sync.trigger"
    _description = "Create API Trigger"

    config_id = fields.Many2one("bj.api.sync.config", "API Configuration", required=True, ondelete="cascade")
    model_id = fields.Many2one(related="config_id.model_id")
    model_name = fields.Char(related="config_id.model_name")
    is_pull = fields.Boolean(related="config_id.is_pull")
    kind = fields.Selection(
        [
            ("base.automation", "Automation Rule"),
            ("ir.cron", "Scheduled Action"),
            ("ir.actions.server", "Server Action"),
        ],
        "What Starts It",
        required=True,
        default="base.automation",
    )
    trigger = fields.Selection(
        [
            ("on_create_or_write", "Created or changed"),
            ("on_unlink", "Deleted"),
            ("on_archive", "Archived"),
            ("on_unarchive", "Unarchived"),
        ],
        "When a Record Is",
        compute="_compute_trigger",
        store=True,
        readonly=False,
    )
    field_ids = fields.Many2many(
        "ir.model.fields",
        string="Watched Fields",
        compute="_compute_trigger",
        store=True,
        readonly=False,
        domain="[('model_id', '=', model_id), ('store', '=', True)]",
        help="A change of any of these is sent. Empty: any change, also of what Odoo computes.",
    )
    before_domain = fields.Char("Before the Change", default="[]")
    after_domain = fields.Char("After the Change", default="[]")
    interval_number = fields.Integer("Every", default=1)
    interval_type = fields.Selection(
        [("minutes", "Minutes"), ("hours", "Hours"), ("days", "Days")], "Interval Unit", default="hours"
    )
    add_to_menu = fields.Boolean("In the Action Menu", default=True)

    @api.depends("config_id")
    def _compute_trigger(self):
        """Deletions are told by DELETE; changes are those of what is sent."""
        for wizard in self:
            config = wizard.config_id
            wizard.trigger = "on_unlink" if config.http_method_ids.name == "DELETE" else "on_create_or_write"
            wizard.field_ids = self._find_watched(config)

    @api.model
    def _find_watched(self, config):
        """Return the fields whose change may change what is sent, or whether it is; none if that may be any.

        What a script or a field that is not stored depends on is not known here.
        """
        lines = config.line_ids.filtered(lambda line: line.external_key or line._is_exec())
        domain = self.env["bj.api.sync.script"]._eval_domain(config.filter_domain)
        names = {condition.field_expr.partition(".")[0] for condition in domain.iter_conditions()}
        filtered = self.env["ir.model.fields"].search([("model_id", "=", config.model_id.id), ("name", "in", names)])
        watched = lines.field_id | filtered
        is_known = {"plain", "relational"}.issuperset(lines.mapped("value_type")) and all(watched.mapped("store"))
        return watched if is_known else watched.browse()

    def action_create(self):
        """Make the trigger; open it, or tell who may not read it what was made."""
        self.ensure_one()
        self.config_id.check_access("write")
        if self.config_id.request_type != "out":
            raise UserError(
                self.env._("%(config)s is an inbound configuration: it cannot send.", config=self.config_id.name)
            )
        # managers may not be the administrators who edit automation: all they get is this one action
        wizard = self.sudo()
        trigger = getattr(wizard, f"_create_{self.kind.replace('.', '_')}")()
        wizard.config_id.write({"trigger_action_model": self.kind, "trigger_action": trigger.id})
        if not trigger.sudo(False).has_access("read"):
            close = {"type": "ir.actions.act_window_close"}
            message = self.env._("%(trigger)s was created.", trigger=trigger.display_name)
            return notify("success", message, title=self._fields["kind"].convert_to_export(self.kind, self), next=close)
        return {"type": "ir.actions.act_window", "res_model": trigger._name, "res_id": trigger.id, "view_mode": "form"}

    def _prepare_action(self):
        return {
            "name": self.config_id._get_trigger_name(),
            "model_id": self.model_id.id,
            "state": "bj_api_sync",
            "bj_api_sync_config_id": self.config_id.id,
        }

    def _create_ir_actions_server(self):
        action = self.env["ir.actions.server"].create(self._prepare_action())
        if self.add_to_menu:
            action.create_action()
        return action

    def _create_ir_cron(self):
        interval = {"interval_number": self.interval_number, "interval_type": self.interval_type}
        root = self.env.ref("base.user_root")
        return self.env["ir.cron"].create(self._prepare_action() | interval | {"user_id": root.id})

    def _create_base_automation(self):
        values = {"name": self._prepare_action()["name"], "model_id": self.model_id.id, "trigger": self.trigger}
        if self.trigger == "on_create_or_write":
            values |= {
                "trigger_field_ids": [Command.set(self.field_ids.ids)],
                "filter_pre_domain": self._get_domain("before_domain"),
                "filter_domain": self._get_domain("after_domain"),
            }
        elif self.trigger == "on_unlink":
            values["filter_domain"] = self._get_domain("after_domain")
        rule = self.env["base.automation"].create(values)
        self.env["ir.actions.server"].create(
            self._prepare_action() | {"base_automation_id": rule.id, "usage": "base_automation"}
        )
        return rule

    def _get_domain(self, fname):
        """Return a domain for the rule, which evaluates it as superuser, with all that code can reach.

        :raises UserError: if it is more than values, or no domain of the model
        """
        try:
            self.env["bj.api.sync.script"]._check_domain(self[fname], self.env[self.model_name], names=())
        except Exception as exc:  # whatever a typed domain may raise, the form must say it
            label = self._fields[fname]._description_string(self.env)
            raise UserError(
                self.env._("The domain “%(field)s” is not valid: %(error)s", field=label, error=exc)
            ) from exc
        return self[fname]
