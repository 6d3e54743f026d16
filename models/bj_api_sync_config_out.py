from odoo import api, fields, models
from odoo.exceptions import ValidationError

from ..tools.secret import EncryptedChar
from ..tools.transport import is_absolute
from .bj_api_sync_config import MANAGER


class BjApiSyncConfig(models.Model):
    """What only an outbound configuration has, besides where to and what."""

    _inherit = "bj.api.sync.config"

    token_url = fields.Char(
        "Token URL", tracking=True, help="Where the other system's token server gives access tokens."
    )
    client_id = fields.Char("Client ID", tracking=True)
    client_secret = EncryptedChar(groups=MANAGER)
    client_authentication = fields.Selection(
        [("client_secret_basic", "In the Header (Basic)"), ("client_secret_post", "In the Body")],
        required=True,
        default="client_secret_basic",
        tracking=True,
        help="How the token server wants the client's id and secret.",
    )
    token_scope = fields.Char("Scope", tracking=True, help="The scopes to ask for, separated by spaces.")
    token_parameters = fields.Char(
        tracking=True, help="What else the token server wants, such as audience=https://api.example.com&resource=orders"
    )

    @api.constrains("token_url", "authorization_type")
    def _check_token_url(self):
        for config in self.filtered(lambda config: config.authorization_type == "oauth2" and config.token_url):
            if not is_absolute(config.token_url):
                raise ValidationError(
                    self.env._(
                        "The Token URL “%(url)s” must be absolute, such as https://example.com/oauth/token.",
                        url=config.token_url,
                    )
                )
