from odoo import api, models
from odoo.exceptions import UserError


class IrModelFields(models.Model):
    """A field that tells records apart stays as long as a configuration needs it."""

    _inherit = "ir.model.fields"

    @api.ondelete(at_uninstall=False)
    def _unlink_except_record_identifiers(self):
        domain = [("field_id", "in", self.ids), ("is_record_identifier", "=", True)]
        lines = self.env["bj.api.sync.config.line"].sudo().search(domain)
        if lines:
            raise UserError(
                self.env._(
                    "The field %(field)s is the record identifier of %(configs)s: choose another one there first.",
                    field=lines[0].field_id.display_name,
                    configs=", ".join(lines.config_id.mapped("name")),
                )
            )
