import requests

from odoo import models


class ResPartner(models.Model):
    _inherit = "res.partner"

    def _bench_push(self, url):
        """What a job of one's own does: one record, one request."""
        payload = {"code": self.ref, "name": self.name, "city": self.city, "street": self.street, "email": self.email}
        requests.post(url, json=payload, timeout=10).raise_for_status()
