import re

from odoo import api, fields, models

from ..tools.secret import EncryptedChar

#: a token of RFC 9110, section 5.6.2
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: what a field value may not have: RFC 9110, section 5.5
HEADER_VALUE_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")
#: what the sender makes of the message itself: another one would break it
FRAMING = (
    *("connection", "content-encoding", "content-length", "date", "expect", "keep-alive", "te", "trailer"),
    *("transfer-encoding", "upgrade"),
)


class BjApiSyncHeader(models.Model):
    """A header that is sent, or required of the caller."""

    _name = "bj.api.sync.header"
    _inherit = ["bj.api.sync.cached", "bj.api.sync.secret"]
    _description = "API Header"
    _order = "id"
    _rec_name = "key"

    config_id = fields.Many2one(
        "bj.api.sync.config", "API Configuration", required=True, ondelete="cascade", index=True
    )
    key = fields.Char(required=True)
    value = EncryptedChar(groups="bj_api_sync.group_manager")
    purpose = fields.Selection(
        [("answer", "Sent with the Answer"), ("require", "Required of the Request")],
        compute="_compute_purpose",
        store=True,
        readonly=False,
        required=True,
        precompute=True,
        help="In: whether the header is part of every answer, or a credential without which a request is refused.",
    )

    @api.depends("config_id")
    def _compute_purpose(self):
        for header in self:
            required = header.config_id.authorization_type == "header"
            header.purpose = header.purpose or ("require" if required else "answer")

    @api.constrains("key", "value", "purpose", "config_id")
    def _check_header(self):
        for header in self.sudo():
            if not HEADER_NAME.fullmatch(header.key):
                raise header._refusal(self.env._("this is not a valid header name: no spaces, colons or accents."))
            if HEADER_VALUE_FORBIDDEN.search(header.value or ""):
                raise header._refusal(self.env._("the value has characters no header can carry."))
            config = header.config_id
            is_sent = config.request_type == "out" or header.purpose == "answer"
            if is_sent and header.key.lower() in FRAMING:
                raise header._refusal(self.env._("this header is made with each message, it cannot be chosen."))
            if config.active and config.request_type == "in" and header.purpose == "require" and not header.value:
                raise header._refusal(self.env._("this header is required of the request, fill in its value."))
