from odoo import api, fields, models

from ..tools.edge import parse_networks, parse_origins


class BjApiSyncConfig(models.Model):
    """The limits of an endpoint: how often, how much, and from where it may be called."""

    _inherit = "bj.api.sync.config"

    rate_limit = fields.Integer(
        "Requests per Minute",
        tracking=True,
        help="More requests than this within a minute are refused (429), whoever sends them. 0: no limit.",
    )
    max_body_size = fields.Integer(
        "Largest Body in KiB", default=10240, tracking=True, help="A request with a larger body is refused (413)."
    )
    allowed_networks = fields.Text(
        tracking=True,
        help="One address or network per line, IPv4 or IPv6, such as 192.0.2.0/24. Requests from elsewhere are "
        "refused (403). Empty: from everywhere. Behind a proxy, Odoo must run in proxy mode.",
    )
    cors_origins = fields.Text(
        "Web Page Origins (CORS)",
        tracking=True,
        help="One origin per line, such as https://shop.example.com: its pages may call the endpoint from the "
        "browser. * for any. Empty: none.",
    )

    @api.constrains("rate_limit", "max_body_size")
    def _check_limits(self):
        for config in self:
            config._check_range("rate_limit", 0)
            config._check_range("max_body_size", 1, 1024 * 1024)

    @api.constrains("allowed_networks", "cors_origins")
    def _check_networks(self):
        for config in self:
            try:
                parse_networks(config.allowed_networks or "")
                parse_origins(config.cors_origins or "")
            except ValueError as exc:
                raise config._refusal(
                    self.env._(
                        "%(error)s. Networks look like 192.0.2.0/24 or 2001:db8::/32, origins like "
                        "https://shop.example.com; one per line.",
                        error=exc,
                    )
                ) from exc
