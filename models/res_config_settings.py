from odoo import api, fields, models
from odoo.exceptions import ValidationError

from ..tools.notification import notify
from .bj_api_log import BODY_LIMIT, RETENTION_DAYS

#: each of them takes a thread of Odoo's scheduled actions while it works
MOST_DISPATCHERS = 8


class ResConfigSettings(models.TransientModel):
    _inherit = "res.config.settings"

    bj_api_sync_log_retention_days = fields.Integer(
        "Keep Logs for Days",
        config_parameter=RETENTION_DAYS,
        help="Older logs of API exchanges are deleted. 0 keeps them for ever.",
    )
    bj_api_sync_log_body_limit = fields.Integer(
        "Bytes Logged per Body",
        config_parameter=BODY_LIMIT,
        help="Longer bodies of requests and responses are cut in the logs.",
    )
    bj_api_sync_allowed_hosts = fields.Char(
        "Allowed Internal Hosts",
        config_parameter="bj_api_sync.allowed_hosts",
        help="Host names and addresses, with a port if only that one is meant, separated by commas, that may be called "
        "although they are on this machine, link-local or of cloud metadata.",
    )

    bj_api_sync_dispatchers = fields.Integer(
        "Senders of Deliveries", help="How many scheduled actions send deliveries side by side."
    )

    @api.constrains("bj_api_sync_log_retention_days", "bj_api_sync_log_body_limit")
    def _check_bj_api_sync_log(self):
        for settings in self:
            if settings.bj_api_sync_log_retention_days < 0 or settings.bj_api_sync_log_body_limit < 0:
                raise ValidationError(self.env._("The settings of API logs cannot be negative."))

    @api.model
    def get_values(self):
        count = len(self.env["bj.api.delivery"]._find_dispatchers())
        return super().get_values() | {"bj_api_sync_dispatchers": count}

    def set_values(self):
        """Keep a zero as such: the base class deletes the parameter, and the default would be back."""
        result = super().set_values()
        deliveries, count = self.env["bj.api.delivery"], self.bj_api_sync_dispatchers
        if count != len(deliveries._find_dispatchers()):
            if not 1 <= count <= MOST_DISPATCHERS:
                raise ValidationError(
                    self.env._("Between 1 and %(most)s scheduled actions send deliveries.", most=MOST_DISPATCHERS)
                )
            deliveries._set_dispatchers(count)
        parameters = self.env["ir.config_parameter"].sudo()
        for fname in ("bj_api_sync_log_retention_days", "bj_api_sync_log_body_limit"):
            if not self[fname]:
                parameters.set_param(self._fields[fname].config_parameter, "0")
        return result

    def action_bj_api_sync_rotate_secrets(self):
        """Encrypt all secrets again with the first of the configured keys."""
        self.check_access("write")
        rotated, failed = self.env["bj.api.sync.secret"]._rotate_secrets()
        message = self.env._("%(count)s secrets are encrypted with the current key.", count=rotated)
        if failed:
            message += " " + self.env._("%(count)s were left alone: no configured key fits them.", count=failed)
        return notify("warning" if failed else "success", message)
