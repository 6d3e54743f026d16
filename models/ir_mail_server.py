from odoo import models

from ..tools.transaction import is_rehearsing


class IrMailServer(models.Model):
    _inherit = "ir.mail_server"

    @classmethod
    def _disable_send(cls):
        return is_rehearsing() or super()._disable_send()
