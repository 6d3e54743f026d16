import re

from odoo import api, fields, models
from odoo.exceptions import ValidationError
from odoo.fields import Domain

from ..tools import signature
from ..tools.secret import EncryptedChar
from ..tools.transport import is_absolute
from .bj_api_sync_header import HEADER_VALUE_FORBIDDEN
from .bj_api_sync_outbound import PLACEHOLDER

#: Basic authentication is encoded, so any other character can be in it
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
ENDPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MANAGER = "bj_api_sync.group_manager"
#: the endpoint names the API itself answers
RESERVED_ENDPOINTS = ("openapi.json", "docs")
#: the field of each authorization type without which it cannot work
REQUIRED_BY_AUTHORIZATION = {
    "basic": ("login", "password"),
    "bearer": ("bearer_token",),
    "hmac": ("signing_style", "signing_secret"),
    "oauth2": ("token_url", "client_id", "client_secret"),
}
AUTHORIZATION_FIELDS = [name for names in REQUIRED_BY_AUTHORIZATION.values() for name in names]


class BjApiSyncConfig(models.Model):
    """One connection of an Odoo model with another system, inbound or outbound."""

    _name = "bj.api.sync.config"
    _description = "API Configuration"
    _inherit = ["mail.thread", "mail.activity.mixin", "bj.api.sync.cached", "bj.api.sync.secret"]
    _order = "sequence, name, id"

    name = fields.Char(required=True, tracking=True)
    active = fields.Boolean(default=True, tracking=True)
    sequence = fields.Integer(default=10)
    request_type = fields.Selection(
        [("in", "In"), ("out", "Out")],
        required=True,
        default="in",
        tracking=True,
        help="In: other systems call an endpoint of this Odoo. Out: Odoo calls another system.",
    )
    http_method_ids = fields.Many2many(
        "bj.http.method",
        string="HTTP Methods",
        help="In: the methods the endpoint answers. Out: the one method the requests are sent with.",
    )
    endpoint = fields.Char(
        copy=False,
        tracking=True,
        help="The last part of the URL others call. Leave it empty for a configuration that only serves as "
        "Mapping Model of another one: it is not exposed then.",
    )
    endpoint_url = fields.Char("Endpoint URL", compute="_compute_endpoint_url")
    request_url = fields.Char(
        "Request URL",
        tracking=True,
        help="The absolute URL the requests are sent to. {external key} is replaced by the record's mapped value.",
    )
    connection_timeout = fields.Integer("Connection Timeout in Seconds", default=5)
    read_timeout = fields.Integer(
        "Read Timeout in Seconds",
        default=15,
        help="Deliveries are sent by a scheduled action, which Odoo ends after its time limit (limit_time_real_cron, "
        "by default 120 seconds): they wait 15 seconds less than that for an answer, at most.",
    )
    authorization_type = fields.Selection(
        [
            ("none", "No Auth"),
            ("basic", "Basic Auth"),
            ("bearer", "Bearer Token"),
            ("header", "Custom Headers"),
            ("odoo", "Odoo API Key"),
            ("oauth2", "OAuth 2.0 client credentials"),
            ("hmac", "Signed Webhook"),
        ],
        required=True,
        default="bearer",
        tracking=True,
        help="How the caller proves who it is (in), or how Odoo does to the other system (out). "
        "Odoo API Key: a key of an Odoo user, who is also the one the request runs as. "
        "OAuth 2.0 client credentials: a token that a token server gives for an id and a secret. "
        "Signed Webhook: a signature over the body, made with a secret that both sides know.",
    )
    authorization_types = fields.Json(compute="_compute_authorization_types")
    login = EncryptedChar(groups=MANAGER)
    password = EncryptedChar(groups=MANAGER)
    bearer_token = EncryptedChar("Bearer Token", groups=MANAGER)
    signing_style = fields.Selection(
        [("standard", "Standard Webhooks"), ("github", "GitHub"), ("stripe", "Stripe"), ("shopify", "Shopify")],
        default="standard",
        tracking=True,
        help="Which headers carry the signature, and what it is made of.",
    )
    signing_secret = EncryptedChar(
        groups=MANAGER, help="The secret both sides know. Standard Webhooks: base64, usually whsec_ before it."
    )
    signing_secret_previous = EncryptedChar(
        "Previous Secret",
        groups=MANAGER,
        help="While a secret is replaced: put the old one here, the new one above, and empty this one when "
        "nobody signs with the old one any more.",
    )
    limit = fields.Integer(default=100, help="The most records one request reads or writes.")
    is_paginated = fields.Boolean(
        "Is paginated?",
        help="In: lists are answered in pages, with their total. Out: records are sent in lists, not one by one.",
    )
    page_size = fields.Integer(default=100)
    model_id = fields.Many2one(
        "ir.model", required=True, ondelete="cascade", domain=[("transient", "=", False)], tracking=True
    )
    model_name = fields.Char("Model Name", related="model_id.model")
    filter_domain = fields.Char(
        default="[]",
        tracking=True,
        help="Only records that match are read, changed or sent. "
        "It may use datetime, timedelta, relativedelta, context_today() and uid.",
    )
    company_id = fields.Many2one(
        "res.company", default=lambda self: self.env.company, help="The company the work is done in.", tracking=True
    )
    user_id = fields.Many2one(
        "res.users",
        "Run as",
        default=lambda self: self.env.user,
        ondelete="restrict",
        tracking=True,
        help="Requests read and write with the access rights of this user, never with more. Out: what is sent is what "
        "this user sees, in this user's language.",
    )
    trigger_action_model = fields.Selection(
        [
            ("ir.cron", "Scheduled Action"),
            ("base.automation", "Automation Rule"),
            ("ir.actions.server", "Server Action"),
        ],
        help="What starts the requests.",
    )
    trigger_action = fields.Many2oneReference(
        model_field="trigger_action_model", copy=False, help="The record that starts the requests."
    )
    line_ids = fields.One2many("bj.api.sync.config.line", "config_id", "Configuration Lines", copy=True)
    header_ids = fields.One2many("bj.api.sync.header", "config_id", "Headers", copy=True)
    param_ids = fields.One2many("bj.api.sync.param", "config_id", "Parameters", copy=True)
    record_id_type = fields.Selection(
        [("database", "Database ID"), ("identifier", "Record Identifier")],
        "Record ID in URL",
        required=True,
        default="database",
    )
    existing_policy = fields.Selection(
        [("update", "Update It"), ("error", "Refuse (409)")],
        "If the Record Exists",
        required=True,
        default="update",
        help="What a POST does when a record with the same identifier is there already.",
    )
    delete_policy = fields.Selection(
        [("unlink", "Delete"), ("archive", "Archive")],
        "On Delete",
        required=True,
        default="unlink",
        help="Archive: an archived record is found by its identifier again only if the field Active is mapped.",
    )
    all_or_nothing = fields.Boolean(
        "All or Nothing", help="One bad item of a list and nothing of the list is kept. Else the good ones are."
    )
    strict_keys = fields.Boolean("Refuse Unknown Keys", help="Keys without a configuration line are an error.")
    tracking_disable = fields.Boolean(
        "Without Change Tracking",
        help="Skip Odoo's field tracking and creation messages: faster, no trace in the chatter.",
    )
    log_policy = fields.Selection(
        [("all", "Everything"), ("errors", "Errors Only"), ("none", "Nothing")], "Log", required=True, default="all"
    )
    log_ids = fields.One2many("bj.api.log", "config_id", "Logs")
    log_count = fields.Integer(compute="_compute_log_count")

    _endpoint_uniq = models.UniqueIndex(
        "(endpoint) WHERE request_type = 'in'",
        "Another API configuration, perhaps an archived one or one of another company, has this endpoint already: "
        "choose another one.",
    )

    # ------------------------------------------------------------------
    # Computed fields
    # ------------------------------------------------------------------

    @api.depends("endpoint", "request_type")
    def _compute_endpoint_url(self):
        for config in self:
            exposed = config.request_type == "in" and config.endpoint
            config.endpoint_url = exposed and f"{config.get_base_url()}/bj_api_sync/v1/{config.endpoint}"

    def _compute_log_count(self):
        counts = dict(self.env["bj.api.log"]._read_group([("config_id", "in", self.ids)], ["config_id"], ["__count"]))
        for config in self:
            config.log_count = counts.get(config, 0)

    @api.depends("request_type")
    def _compute_authorization_types(self):
        for config in self:
            config.authorization_types = sorted(config._get_authorization_types())

    @api.onchange("request_type")
    def _onchange_request_type(self):
        if self.authorization_type not in self.authorization_types:
            self.authorization_type = "bearer"

    @api.onchange("trigger_action_model")
    def _onchange_trigger_action_model(self):
        self.trigger_action = False

    @api.onchange("model_id")
    def _onchange_model_id(self):
        """Fields of another model mean nothing: start over with the lines, parameters and filter."""
        if self.model_id != self._origin.model_id:
            self.line_ids = self.param_ids = False
            self.filter_domain = "[]"

    # ------------------------------------------------------------------
    # Constraints
    # ------------------------------------------------------------------

    @api.constrains("request_type", "http_method_ids", "endpoint")
    def _check_http_methods(self):
        for config in self:
            count = len(config.http_method_ids)
            if config.request_type == "out" and count != 1:
                raise config._refusal(self.env._("choose exactly one HTTP method to send the requests with."))
            if config.request_type == "in" and config.endpoint and not count:
                raise config._refusal(self.env._("choose the HTTP methods the endpoint answers."))

    @api.constrains("endpoint", "request_type")
    def _check_endpoint(self):
        for config in self.filtered("endpoint"):
            if not ENDPOINT.fullmatch(config.endpoint) or config.endpoint in RESERVED_ENDPOINTS:
                raise config._refusal(
                    self.env._(
                        "the endpoint “%(endpoint)s” cannot be used in a URL: take letters, digits, dots, "
                        "hyphens and underscores, a letter or digit first, and none of %(reserved)s.",
                        endpoint=config.endpoint,
                        reserved=", ".join(RESERVED_ENDPOINTS),
                    )
                )

    @api.constrains("request_url", "request_type", "line_ids")
    def _check_request_url(self):
        for config in self.filtered(lambda config: config.request_type == "out"):
            config._check_url("request_url", "https://example.com/orders")
            keys = set(config.line_ids.mapped("external_key"))
            unknown = set(PLACEHOLDER.findall(config.request_url)) - keys
            if keys and unknown:
                raise config._refusal(
                    self.env._(
                        "the Request URL asks for %(keys)s, but no configuration line has that External API Key.",
                        keys=", ".join(f"{{{key}}}" for key in sorted(unknown)),
                    )
                )

    @api.constrains("connection_timeout", "read_timeout", "limit", "page_size")
    def _check_ranges(self):
        for config in self:
            config._check_range("connection_timeout", 1, 60)
            config._check_range("read_timeout", 1, 300)
            config._check_range("limit", 1)
            config._check_range("page_size", 1)

    @api.constrains("active", "authorization_type", "request_type", "endpoint", *AUTHORIZATION_FIELDS)
    def _check_authorization(self):
        self.header_ids._check_header()
        for config in self.sudo():
            if config.authorization_type not in config._get_authorization_types():
                raise config._refusal(
                    self.env._(
                        "the authorization type %(type)s is not available for the request type %(request)s.",
                        type=config._get_choice("authorization_type"),
                        request=config._get_choice("request_type"),
                    )
                )
            if config.active and config._needs_user():
                config._check_required("authorization_type", REQUIRED_BY_AUTHORIZATION)

    @api.constrains("active", "authorization_type", "request_type", "endpoint", "header_ids")
    def _check_required_headers(self):
        for config in self.filtered(lambda config: config.authorization_type == "header"):
            is_exposed = config.active and config.request_type == "in" and config.endpoint
            if is_exposed and "require" not in config.header_ids.mapped("purpose"):
                raise config._refusal(
                    self.env._(
                        "add a header that is required of the request, “Custom Headers” needs it: else nobody may call."
                    )
                )

    @api.constrains("authorization_type", "login", "password", "bearer_token")
    def _check_credentials(self):
        """Refuse what no request can show: RFC 7617, section 2, and RFC 9110, section 5.5."""
        for config in self.sudo().filtered(lambda config: config.authorization_type in ("basic", "bearer")):
            if config.authorization_type == "basic" and ":" in (config.login or ""):
                raise config._refusal(self.env._("a Login of “Basic Auth” has no colon."))
            for name in REQUIRED_BY_AUTHORIZATION[config.authorization_type]:
                pattern = CONTROL if config.authorization_type == "basic" else HEADER_VALUE_FORBIDDEN
                if pattern.search(config[name] or ""):
                    raise config._refusal(
                        self.env._(
                            "%(field)s has a line break or another character that no request can show.",
                            field=config._get_label(name),
                        )
                    )

    @api.constrains("authorization_type", "signing_style", "signing_secret", "signing_secret_previous")
    def _check_signing_secrets(self):
        for config in self.sudo().filtered(lambda config: config.authorization_type == "hmac"):
            try:
                for secret in config._get_signing_secrets():
                    signature.parse_secret(config.signing_style, secret)
            except ValueError:
                raise config._refusal(
                    self.env._("a signing secret of Standard Webhooks is base64, such as whsec_c2VjcmV0.")
                ) from None

    @api.constrains("user_id", "company_id", "authorization_type", "endpoint", "request_type")
    def _check_user(self):
        for config in self.sudo().filtered(lambda config: config._needs_user()):
            user, company = config.user_id, config.company_id
            if not user and config.authorization_type != "odoo":
                raise config._refusal(self.env._("choose the user the requests run as."))
            if user and company and company not in user.company_ids:
                raise config._refusal(
                    self.env._(
                        "%(user)s has no access to the company %(company)s: choose another user to run as.",
                        user=user.name,
                        company=company.name,
                    )
                )
            if user and user._is_superuser():
                raise config._refusal(self.env._("requests cannot run as the superuser. Choose another user."))

    @api.constrains("filter_domain", "model_id")
    def _check_filter_domain(self):
        for config in self:
            try:
                self.env["bj.api.sync.script"]._check_domain(config.filter_domain, self.env[config.model_name])
            except Exception as exc:  # whatever a typed domain may raise, the form must say it
                raise ValidationError(
                    self.env._("The Filter Domain of %(config)s is not valid: %(error)s", config=config.name, error=exc)
                ) from exc

    @api.constrains("line_ids")
    def _check_lines(self):
        """No key twice, none that is an object and a value at once (address and address.city), one identifier."""
        for config in self:
            keys = config.line_ids.filtered(lambda line: line.external_key and not line._is_exec()).mapped(
                "external_key"
            )
            for key in keys:
                if keys.count(key) > 1:
                    raise config._refusal(self.env._("the External API Key “%(key)s” is used twice.", key=key))
                if inner := next((other for other in keys if other.startswith(f"{key}.")), None):
                    raise config._refusal(
                        self.env._(
                            "the External API Key “%(key)s” cannot be both a value and the object of “%(inner)s”.",
                            key=key,
                            inner=inner,
                        )
                    )
            if len(config.line_ids.filtered("is_record_identifier")) > 1:
                raise config._refusal(self.env._("only one line can be the record identifier."))

    @api.constrains("line_ids", "endpoint", "request_type", "is_pull", "counterpart_id")
    def _check_record_identifier(self):
        self.line_ids._check_external_key()
        for config in self:
            is_used = config._needs_user() and (config.line_ids or config.is_pull)
            if is_used and len(config.line_ids.filtered("is_record_identifier")) != 1:
                raise config._refusal(
                    self.env._(
                        "switch on “Is Record Identifier” on exactly one line, the one whose value tells records apart."
                    )
                )

    @api.constrains("delete_policy", "model_id")
    def _check_delete_policy(self):
        for config in self.filtered(lambda config: config.delete_policy == "archive"):
            if not self.env[config.model_name]._active_name:
                raise config._refusal(
                    self.env._("records of %(model)s cannot be archived: choose Delete.", model=config.model_id.name)
                )

    @api.constrains("model_id")
    def _check_model(self):
        for config in self:
            model = self.env.get(config.model_name)
            if model is None or model._abstract or model._transient:
                raise config._refusal(
                    self.env._(
                        "%(model)s has no records to synchronize: choose another model.", model=config.model_name
                    )
                )
            config.line_ids._check_field()
            config.param_ids._check_field()
            self.env["bj.api.sync.config.line"].search([("mapping_config_id", "=", config.id)])._check_mapping_config()

    def _check_range(self, fname, low, high=1_000_000):
        """Refuse a number that is too small or too large."""
        if not low <= self[fname] <= high:
            values = {"field": self._get_label(fname), "low": low, "high": high, "value": self[fname]}
            raise self._refusal(self.env._("%(field)s must be between %(low)s and %(high)s, not %(value)s.", **values))

    def _check_url(self, fname, example):
        """Refuse a URL that cannot be called, whatever its placeholders are filled with."""
        url = self[fname] or ""
        if not is_absolute(PLACEHOLDER.sub("x", url)):
            values = {"field": self._get_label(fname), "url": url, "example": example}
            raise self._refusal(
                self.env._(
                    "the %(field)s “%(url)s” must be absolute and without spaces, such as %(example)s.", **values
                )
            )

    def _check_required(self, fname, required):
        """Refuse a choice without what it takes.

        :param str fname: a selection field
        :param dict required: value -> names of the fields that must be filled in then
        """
        for name in required.get(self[fname], ()):
            if not self[name]:
                label, choice = self._get_label(name), self._get_choice(fname)
                raise self._refusal(self.env._("fill in %(field)s, “%(choice)s” needs it.", field=label, choice=choice))

    # ------------------------------------------------------------------
    # CRUD
    # ------------------------------------------------------------------

    @api.model_create_multi
    def create(self, vals_list):
        return super().create([self._prepare_values(vals) for vals in vals_list])

    def write(self, vals):
        # lines are written one by one: what they are together is checked when the last one is there
        records = self.with_context(bj_api_sync_lines_follow=True) if "line_ids" in vals else self
        return super(BjApiSyncConfig, records).write(self._prepare_values(vals))

    def unlink(self):
        # first: lines hold on to their Mapping Models, which may go with them
        self.line_ids.unlink()
        return super().unlink()

    @api.ondelete(at_uninstall=False)
    def _unlink_except_used(self):
        """Name what holds on to them: the database would name its constraint."""
        for config in self:
            lines = self.env["bj.api.sync.config.line"].sudo().search([("mapping_config_id", "=", config.id)])
            actions = self.env["ir.actions.server"].sudo().search([("bj_api_sync_config_id", "=", config.id)])
            names = [f"{line.config_id.name} / {line.display_name}" for line in lines] + actions.mapped("display_name")
            if names:
                raise config._refusal(
                    self.env._("it cannot be deleted while it is used by: %(names)s.", names=", ".join(names))
                )

    def copy_data(self, default=None):
        default = dict(default or {})
        # secrets are not copied: until somebody fills them in, a copy must not run
        default.setdefault("active", False)
        vals_list = super().copy_data(default)
        if "name" in default:
            return vals_list
        return [
            dict(vals, name=self.env._("%s (copy)", config.name)) for config, vals in zip(self, vals_list, strict=True)
        ]

    @api.model
    def _prepare_values(self, vals):
        """Normalize what people paste: spaces around URLs and endpoints, the word "Bearer" before a token."""
        vals = dict(vals)
        for fname in ("endpoint", "request_url"):
            if isinstance(vals.get(fname), str):
                vals[fname] = vals[fname].strip() or False
        if isinstance(vals.get("bearer_token"), str):
            vals["bearer_token"] = re.sub(r"(?i)^\s*bearer\s+", "", vals["bearer_token"]).strip() or False
        return vals

    # ------------------------------------------------------------------
    # Actions
    # ------------------------------------------------------------------

    def action_open_logs(self):
        """Open the logs of this configuration."""
        action = self._open_list("bj_api_sync.action_bj_api_log", default_config_id=self.id)
        return action | {"name": self.env._("Logs")}

    def action_open_documentation(self):
        """Open the page that describes the endpoint, and lets people try it."""
        self.ensure_one()
        url = f"/bj_api_sync/v1/docs#endpoint-{self.endpoint}"
        return {"type": "ir.actions.act_url", "url": url, "target": "new"}

    def action_create_trigger(self):
        """Ask what is to start the requests, and set that up."""
        self.ensure_one()
        kind = self.trigger_action_model or ("ir.cron" if self.is_pull else "base.automation")
        return self._open_wizard(self.env._("Create Trigger"), "bj.api.sync.trigger", default_kind=kind)

    def action_preview(self):
        """Show what would be sent of a record, or what a payload would change."""
        self.ensure_one()
        domain = self.env["bj.api.sync.script"]._eval_domain(self.filter_domain)
        model, identifier = self.env[self.model_name], self.line_ids.filtered("is_record_identifier").field_id.name
        # an example that can be found again
        record = model.search(domain & Domain(identifier, "!=", False), limit=1) if identifier else model
        record = record or model.search(domain, limit=1)
        return self._open_wizard(
            self.env._("Preview"),
            "bj.api.sync.preview",
            default_record=f"{record._name},{record.id}" if record else False,
        )

    def action_sample(self):
        """Ask for a sample of the other system's data, to make lines of."""
        self.ensure_one()
        return self._open_wizard(self.env._("Lines from a Sample"), "bj.api.sync.sample")

    def _open_list(self, xml_id, **context):
        """Return a window action for those of its records that are of this configuration."""
        self.ensure_one()
        action = self.env["ir.actions.actions"]._for_xml_id(xml_id)
        return action | {"domain": [("config_id", "=", self.id)], "context": context}

    def _open_wizard(self, name, model, **context):
        return {
            "type": "ir.actions.act_window",
            "name": name,
            "res_model": model,
            "view_mode": "form",
            "target": "new",
            "context": {"default_config_id": self.id, **context},
        }

    # ------------------------------------------------------------------
    # Business methods
    # ------------------------------------------------------------------

    def _get_credentials(self):
        """Return the secrets that a caller, or Odoo, must show, in the order of the authorization type.

        :rtype: tuple[str]
        """
        self.ensure_one()
        names = REQUIRED_BY_AUTHORIZATION.get(self.authorization_type, ())
        return tuple(self[name] or "" for name in names)

    def _get_signing_secrets(self):
        """Return the secrets a webhook may be signed with, the current one first.

        :rtype: tuple[str]
        """
        self.ensure_one()
        return tuple(filter(None, (self.signing_secret, self.signing_secret_previous)))

    # ------------------------------------------------------------------
    # Hooks
    # ------------------------------------------------------------------

    def _needs_user(self):
        """Tell whether records are read or written for the other system, which nobody does as superuser.

        :rtype: bool
        """
        self.ensure_one()
        return self.request_type == "out" or bool(self.endpoint)

    def _get_trigger_name(self):
        """Return the name of what starts the requests.

        :rtype: str
        """
        return self.env._("Push to %(config)s", config=self.name)

    def _get_authorization_types(self):
        """Return the authorization types this configuration's request type offers.

        An addon that adds a type to the selection extends this as well.

        :rtype: set[str]
        """
        self.ensure_one()
        common = {"none", "basic", "bearer", "header", "hmac"}
        return common | {"odoo" if self.request_type == "in" else "oauth2"}
