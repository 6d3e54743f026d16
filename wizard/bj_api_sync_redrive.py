from odoo import api, fields, models
from odoo.exceptions import UserError
from odoo.tools import SQL

from ..tools.notification import notify

#: the count goes so far: it is shown anew with each change of the form
MOST_COUNTED = 1000


class BjApiSyncRedrive(models.TransientModel):
    """Sends what was queued from a point in time on again: in its order, under its ids."""

    _name = "bj.api.sync.redrive"
    _description = "Send API Deliveries Again"

    config_id = fields.Many2one(
        "bj.api.sync.config",
        "API Configuration",
        required=True,
        ondelete="cascade",
        domain=[("request_type", "=", "out")],
    )
    date_from = fields.Datetime(
        "Queued from",
        required=True,
        default=lambda self: fields.Datetime.subtract(fields.Datetime.now(), days=1),
    )
    date_to = fields.Datetime("Queued before", help="Empty: until now.")
    is_dead = fields.Boolean("Gave Up", default=True)
    is_cancelled = fields.Boolean("Cancelled")
    is_sent = fields.Boolean("Sent", help="They arrive once more, with the Idempotency-Key they had.")
    only_newest = fields.Boolean(
        "Not What Was Overtaken",
        default=True,
        help="Leave out an older state of a record that was sent, or came in, since: it would replace the newer one.",
    )
    count = fields.Integer("Deliveries", compute="_compute_count")
    has_more = fields.Boolean(compute="_compute_count")

    @api.depends("config_id", "date_from", "date_to", "is_dead", "is_cancelled", "is_sent", "only_newest")
    def _compute_count(self):
        for wizard in self:
            if not wizard.config_id or not wizard.date_from:
                wizard.count = wizard.has_more = 0
                continue
            wizard.config_id.check_access("read")
            chosen = self.env["bj.api.delivery"]._get_redrive_query(*wizard._get_choice())
            query = SQL("SELECT FROM bj_api_delivery AS d WHERE %s LIMIT %s", chosen, MOST_COUNTED + 1)
            count = len(self.env.execute_query(query))
            wizard.count, wizard.has_more = min(count, MOST_COUNTED), count > MOST_COUNTED

    def action_send(self):
        """Put the deliveries back to those that wait."""
        self.ensure_one()
        self.config_id.check_access("write")
        self.env["bj.api.delivery"].check_access("write")
        count = self.env["bj.api.delivery"]._redrive(*self._get_choice())
        if not count:
            raise UserError(self.env._("There is no such delivery."))
        close = {"type": "ir.actions.act_window_close"}
        return notify("success", self.env._("%(count)s deliveries are sent again.", count=count), next=close)

    def _get_choice(self):
        states = [state for state in ("dead", "cancelled", "sent") if self[f"is_{state}"]]
        return self.config_id, states, self.date_from, self.date_to, self.only_newest
