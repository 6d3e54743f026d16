from odoo import api, fields, models

from ..tools.secret import EncryptedChar
from .bj_api_sync_config import MANAGER
from .bj_api_sync_outbound import PLACEHOLDER

#: what a script for headers may begin with
HEADER_TEMPLATES = {
    "hmac": """# The body, signed with the secret
headers["X-Signature"] = hmac_sha256(secret, body)
""",
    "timestamp": """# Method, path, time, a random text and the body, signed with the secret
timestamp = str(int(time.time()))
nonce = token_hex(16)
signed = "\\n".join([method, urlsplit(url).path, timestamp, nonce, ""]).encode() + body
headers["X-Timestamp"] = timestamp
headers["X-Nonce"] = nonce
headers["X-Signature"] = hmac_sha256(secret, signed, "base64")
""",
    "basic": """# Basic authentication: the name of the company, and the secret
headers["Authorization"] = "Basic " + b64encode(f"{config.company_id.name}:{secret}".encode()).decode()
""",
    "digest": """# Content-Digest (RFC 9530)
headers["Content-Digest"] = "sha-256=:" + sha256(body, "base64") + ":"
""",
    "jwt": """# A JSON Web Token of five minutes, signed with the secret (RFC 7519, HS256)
def part(data):
    return b64encode(data, b"-_").decode().rstrip("=")

now = int(time.time())
claims = {"iss": config.company_id.name, "iat": now, "exp": now + 300, "jti": token_hex(16)}
signed = ".".join(part(json.dumps(value).encode()) for value in ({"alg": "HS256", "typ": "JWT"}, claims))
headers["Authorization"] = "Bearer " + signed + "." + part(hmac_sha256(secret, signed, "bytes"))
""",
}


class BjApiSyncConfig(models.Model):
    """What only an outbound configuration has, besides where to and what."""

    _inherit = "bj.api.sync.config"
    _script_field = "header_script"

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

    deletion_url = fields.Char(
        "Deletion URL",
        tracking=True,
        help="A scheduled push sends DELETE to this URL for each record that was queued once and is deleted since. "
        "{external key} is replaced by what was queued last. Empty: deletions are not told.",
    )
    header_script = fields.Text(
        "Python Script for Headers", help="It fills the dictionary headers, for each attempt just before it is sent."
    )
    header_secret = EncryptedChar("Secret of the Script", groups=MANAGER, help="What the script knows as secret.")
    header_template = fields.Selection(
        [
            ("hmac", "HMAC-SHA256 of the body"),
            ("timestamp", "HMAC-SHA256 with time and nonce"),
            ("basic", "Basic from a field"),
            ("digest", "Content-Digest (RFC 9530)"),
            ("jwt", "JSON Web Token (HS256)"),
        ],
        "Start with a Template",
        store=False,
        help="It replaces the script.",
    )

    @api.onchange("header_template")
    def _onchange_header_template(self):
        if self.header_template:
            self.header_script, self.header_template = HEADER_TEMPLATES[self.header_template], False

    @api.constrains("token_url", "authorization_type")
    def _check_token_url(self):
        for config in self.filtered(lambda config: config.authorization_type == "oauth2" and config.token_url):
            config._check_url("token_url", "https://example.com/oauth/token")

    @api.constrains("deletion_url", "line_ids")
    def _check_deletion_url(self):
        for config in self.filtered("deletion_url"):
            config._check_url("deletion_url", "https://example.com/contacts/{code}")
            keys = set(PLACEHOLDER.findall(config.deletion_url))
            if not keys or keys - set(config.line_ids.mapped("external_key")):
                raise config._refusal(
                    self.env._("the Deletion URL must name the record by an External API Key of the lines.")
                )

    @api.constrains("header_script")
    def _check_header_script(self):
        for config in self.filtered("header_script"):
            if error := self.env["bj.api.sync.script"]._check_syntax(config.header_script, "exec"):
                raise config._refusal(self.env._("the Python Script for Headers is not valid. %(error)s", error=error))
