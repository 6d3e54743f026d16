from odoo import api, models
from odoo.exceptions import UserError


class ResUsers(models.Model):
    _inherit = "res.users"

    @api.ondelete(at_uninstall=False)
    def _unlink_except_run_as(self):
        """Name the configurations that run as a user: the database would name its constraint."""
        configs = self.env["bj.api.sync.config"].sudo().with_context(active_test=False)
        if found := configs.search([("user_id", "in", self.ids)]):
            raise UserError(
                self.env._(
                    "API configurations run as %(users)s: %(configs)s. Choose another user there, or archive this one.",
                    users=", ".join(found.user_id.mapped("name")),
                    configs=", ".join(found.mapped("name")),
                )
            )
