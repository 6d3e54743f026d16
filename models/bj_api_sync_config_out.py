from psycopg2.extras import Json

from odoo import api, fields, models
from odoo.exceptions import UserError
from odoo.tools import SQL

from ..tools import transaction
from ..tools.notification import notify
from ..tools.secret import EncryptedChar
from .bj_api_delivery import OPEN
from .bj_api_sync_config import MANAGER
from .bj_api_sync_outbound import PLACEHOLDER

PAUSE_DAYS = "bj_api_sync.pause_after_days"
#: minutes after which a scheduled action that should run every five does not run
STALLED_MINUTES = 10
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
    """Sending: what only an outbound configuration has, besides where to and what."""

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

    coalesce_pending = fields.Boolean(
        "Only the Newest State",
        help="A record that changed again before it was sent is sent once, as it is last. Else every state is sent, "
        "as are all lists of several records.",
    )
    is_paused = fields.Boolean(
        "Paused", copy=False, tracking=True, help="Deliveries wait until sending is resumed. Nothing is lost."
    )
    failing_since = fields.Datetime(
        copy=False,
        readonly=True,
        help="Since when all deliveries fail; counted anew after 30 hours without a failure.",
    )
    last_failure = fields.Datetime(copy=False, readonly=True, help="When a delivery failed last, to the hour.")
    push_state = fields.Json(copy=False, help="How far the scheduled push has come: see bj.api.sync.push.")
    push_progress = fields.Char("Scheduled Push", compute="_compute_push_progress")
    delivery_ids = fields.One2many("bj.api.delivery", "config_id", "Deliveries")
    delivery_count = fields.Integer(compute="_compute_delivery_count")
    is_stalled = fields.Boolean(compute="_compute_is_stalled")

    def _compute_delivery_count(self):
        """Count what is not done: the others only tell how long deliveries are kept."""
        domain = [("config_id", "in", self.ids), ("state", "not in", ("sent", "cancelled"))]
        counts = dict(self.env["bj.api.delivery"]._read_group(domain, ["config_id"], ["__count"]))
        for config in self:
            config.delivery_count = counts.get(config, 0)

    def _compute_is_stalled(self):
        """Tell where deliveries wait and nobody sends: a run puts the next call of its scheduled action off."""
        deliveries = self.env["bj.api.delivery"]
        limit = fields.Datetime.subtract(fields.Datetime.now(), minutes=STALLED_MINUTES)
        waiting = self.browse()
        if all(cron.nextcall < limit for cron in deliveries._find_dispatchers()):
            domain = [("config_id", "in", self.ids), ("state", "in", OPEN)]
            waiting = waiting.union(*(config for [config] in deliveries._read_group(domain, ["config_id"])))
        for config in self:
            config.is_stalled = config in waiting

    @api.depends("push_state")
    def _compute_push_progress(self):
        for config in self:
            state, progress = config.push_state or {}, False
            if "last_id" in state:
                progress = self.env._("First run: %(count)s records queued", count=state["count"])
            elif state:
                progress = self.env._("Queued all changes until %(since)s (UTC)", since=state["since"][:19])
            if "error" in state:
                progress = self.env._("%(progress)s. Stopped: %(error)s", progress=progress, error=state["error"])
            config.push_progress = progress

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

    # ------------------------------------------------------------------
    # CRUD
    # ------------------------------------------------------------------

    def write(self, vals):
        if "model_id" in vals:
            self.filtered(lambda config: config.model_id.id != vals["model_id"])._forget_records()
        result = super().write(vals)
        if {"request_url", "deletion_url"} & vals.keys():
            self.env["bj.api.delivery"]._retarget(self)
        if vals.get("active") or not vals.get("is_paused", True):
            self.env["bj.api.delivery"]._wake_up()
        return result

    # ------------------------------------------------------------------
    # Actions
    # ------------------------------------------------------------------

    def action_open_deliveries(self):
        """Open the deliveries of this configuration, those first that are not done."""
        context = {"search_default_open": self.delivery_count > 0, "default_config_id": self.id}
        return self._open_list("bj_api_sync.action_bj_api_delivery", **context)

    def action_test_connection(self):
        """Reach the other system without sending it any data, and tell in plain words what happened.

        HEAD, which changes nothing (RFC 9110, section 9.2.1), with the configured headers and credentials, to the
        Request URL up to its first placeholder; GET where the other system does not know HEAD.
        """
        self.ensure_one()
        self.check_access("write")
        kind, message = self.env["bj.api.sync.outbound"]._test_connection(self)
        return notify(kind, message, title=self.env._("Test Connection"), sticky=True)

    def action_push_again(self):
        """Have the scheduled push send everything once more."""
        self.push_state = False

    def action_pause(self):
        """Let deliveries wait."""
        self.is_paused = True

    def action_resume(self):
        """Send again, at once."""
        self.write({"is_paused": False, "failing_since": False})

    # ------------------------------------------------------------------
    # Business methods
    # ------------------------------------------------------------------

    def _forget_records(self):
        """Forget what was exchanged: ids of another model's records mean other records."""
        self.push_state = False
        self.env["bj.api.sync.pushed"].search([("config_id", "in", self.ids)]).unlink()

    def _keep_place(self, fname, state, done=0, left=False):
        """Commit what was done with the place that was reached, and show the progress.

        :param str fname: the field of the state
        :param dict state: see ``bj.api.sync.push`` and ``bj.api.sync.pull``
        :param int done: what was done since
        :param bool left: whether there is more
        """
        self.flush_recordset()
        query = "UPDATE bj_api_sync_config SET %s = %s WHERE id = %s"
        self.env.cr.execute(SQL(query, SQL.identifier(fname), Json(state), self.id))
        self.invalidate_recordset()
        transaction.commit_progress(self.env, done, left)

    @api.model
    def _make_outbound_http_request(self, record_ids, config_id_ref=None, timeout=None):
        """Send records to the other system now, and return what came of it.

        Two forms: on a configuration, or on the empty model with `config_id_ref`. A failed exchange is a result and
        a log, never an exception.

        :param record_ids: a recordset of the configuration's model, an id, or a list of ids
        :param config_id_ref: the configuration: its id, record or XML id; default: this record
        :param float timeout: seconds to wait for an answer, instead of the configuration's read timeout
        :rtype: odoo.addons.bj_api_sync.tools.result.Result
        :raises UserError: for wrong use: no such configuration, an inbound one, records of another model
        """
        config = self._get_outbound_config(config_id_ref)
        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
            raise UserError(
                self.env._("The timeout must be a number of seconds above 0, not %(value)s.", value=timeout)
            )
        records = config._get_outbound_records(record_ids)
        return self.env["bj.api.sync.outbound"]._push(config, records, timeout)

    def _enqueue(self, record_ids, operation="write"):
        """Queue records: their payloads are taken now, and sent when this transaction is committed, not before.

        :param record_ids: a recordset of the configuration's model, an id, or a list of ids
        :param str operation: what happened to them: ``create``, ``write``, or ``unlink``, before they are deleted
        :return: `bj.api.delivery` records; none for records outside the filter domain, nor while records come in, for
            then they are queued at the end of the transaction
        :rtype: odoo.models.BaseModel
        :raises UserError: for wrong use, as :meth:`_make_outbound_http_request`
        """
        config = self._get_outbound_config()
        return self.env["bj.api.delivery"]._enqueue(config, config._get_outbound_records(record_ids), operation)

    def _enqueue_at_commit(self, record_ids):
        """Queue records once, as they are at the end of this transaction, however often it is asked for.

        :param record_ids: see :meth:`_enqueue`
        :raises UserError: for wrong use, as :meth:`_make_outbound_http_request`
        """
        config = self._get_outbound_config()
        self.env["bj.api.delivery"]._enqueue_at_commit(config, config._get_outbound_records(record_ids), "write")

    def _notify_dead(self, error):
        """Tell the responsible user that a delivery was given up; once, until that is dealt with."""
        message = self.env._("A delivery was given up: %(error)s", error=error)
        self._notify_responsible(self.env._("Deliveries were given up"), message)

    def _pause_failing(self):
        """Pause those configurations that failed for days without any success, and say so."""
        days = self.env["bj.api.log"]._get_number(PAUSE_DAYS, 5)
        limit = fields.Datetime.subtract(fields.Datetime.now(), days=days)
        for config in self:
            if days and config.failing_since and config.failing_since < limit and not config.is_paused:
                config.is_paused = True
                message = self.env._(
                    "Sending is paused: all deliveries failed since %(since)s (UTC). Nothing is lost: once the other "
                    "system is well again, resume.",
                    since=config.failing_since,
                )
                config._notify_responsible(self.env._("Sending is paused"), message)

    def _notify_responsible(self, summary, message):
        """Tell the responsible user by a note and an activity; not again as long as such an activity is open."""
        self.ensure_one()
        if summary in self.activity_ids.mapped("summary"):
            return
        users = (self.user_id | self.create_uid | self.env.ref("base.user_admin")).filtered(
            lambda user: user.active and user.has_group("bj_api_sync.group_user")
        )
        self.message_post(body=message)
        self.activity_schedule("mail.mail_activity_data_warning", summary=summary, note=message, user_id=users[:1].id)

    def _get_outbound_config(self, config_id_ref=None):
        """Return the outbound configuration a reference means, or this one, readable whoever asks.

        :raises UserError: where there is none
        """
        config = self
        if isinstance(config_id_ref, str):
            config = self.env.ref(config_id_ref, raise_if_not_found=False)
        elif isinstance(config_id_ref, models.BaseModel):
            config = config_id_ref
        elif config_id_ref:
            config = self.browse(config_id_ref)
        if config is None or config._name != self._name or len(config.sudo().exists()) != 1:
            raise UserError(
                self.env._("There is no API configuration %(reference)s.", reference=config_id_ref or self or "")
            )
        config = config.sudo()
        if config.request_type != "out":
            raise UserError(self.env._("%(config)s is an inbound configuration: it cannot send.", config=config.name))
        return config

    def _get_outbound_records(self, record_ids):
        """Return the records a caller means: a recordset, an id, or a list of ids.

        :raises UserError: for records of another model, or what is no id
        """
        if isinstance(record_ids, models.BaseModel):
            if record_ids._name != self.model_name:
                raise UserError(
                    self.env._(
                        "%(config)s sends records of %(model)s, not of %(other)s.",
                        config=self.name,
                        model=self.model_name,
                        other=record_ids._name,
                    )
                )
            return record_ids
        ids = [record_ids] if isinstance(record_ids, (int, float)) else list(record_ids or [])
        if not all(isinstance(record_id, int) and record_id > 0 for record_id in ids):
            raise UserError(self.env._("%(value)s is no list of record ids.", value=record_ids))
        return self.env[self.model_name].browse(ids)
