import functools
import json
import logging
import re
import threading
from typing import NamedTuple

import psycopg2
from lxml import etree
from psycopg2.errors import ForeignKeyViolation
from psycopg2.extensions import ISOLATION_LEVEL_READ_COMMITTED

from odoo import SUPERUSER_ID, api, fields, models
from odoo.modules import module
from odoo.modules.registry import Registry
from odoo.tools import SQL, ormcache
from odoo.tools.constants import GC_UNLINK_LIMIT

from ..tools import redact
from ..tools.batch import Batch
from ..tools.secret import EncryptedChar, decrypt, digest, encrypt

_logger = logging.getLogger(__name__)

BODY_LIMIT = "bj_api_sync.log_body_limit"
RETENTION_DAYS = "bj_api_sync.log_retention_days"
#: headers of a configuration whose values are no credentials
HARMLESS_HEADERS = re.compile(
    r"(accept|content)(-.*)?|cache-control|host|origin|prefer|referer|user-agent|x-requested-with", re.I
)
#: the most of the answer to a successful read that is kept, in bytes: the whole is in the database anyway
READ_LIMIT = 4 * 1024
#: a body above this size is cut at once, lest the queue of logs takes too much memory
LARGE = 1024 * 1024


class ConfigData(NamedTuple):
    """What logging needs to know of a configuration; its secrets are kept encrypted in memory."""

    log_policy: str
    company_id: int | bool
    secret_headers: tuple[str, ...]
    secrets: str


class Masked(dict):
    """Values of a log that are fit to be stored."""


class BjApiLog(models.Model):
    """One exchange with another system, as it happened."""

    _name = "bj.api.log"
    _description = "API Log"
    _order = "create_date desc, id desc"  # ids follow the order of writing, not of the exchanges
    _log_access = False

    name = fields.Char(required=True)
    create_date = fields.Datetime("Created on", default=fields.Datetime.now, readonly=True, index=True)
    config_id = fields.Many2one("bj.api.sync.config", "API Configuration", ondelete="set null", index="btree_not_null")
    direction = fields.Selection([("in", "In"), ("out", "Out")])
    status = fields.Selection([("success", "Success"), ("error", "Error"), ("skipped", "Skipped")], required=True)
    method = fields.Char()
    url = fields.Char("URL")
    response_code = fields.Integer(aggregator=None)
    request_headers = fields.Text()
    request_body = fields.Text()
    response_headers = fields.Text()
    response_body = fields.Text()
    duration = fields.Float("Duration (s)", digits=(12, 4), aggregator="avg")
    error_message = fields.Text()
    error_summary = fields.Char("Error", compute="_compute_error_summary")
    trace_id = fields.Char("Trace ID", index="btree_not_null")
    model = fields.Char("Model Name", index="btree_not_null")
    record_id = fields.Many2oneReference(model_field="model")
    record_count = fields.Integer("Records")
    remote_address = fields.Char()
    user_id = fields.Many2one("res.users", ondelete="set null")
    company_id = fields.Many2one("res.company", ondelete="set null", index="btree_not_null")
    delivery_id = fields.Many2one("bj.api.delivery", ondelete="set null", index="btree_not_null")
    request_body_pretty = fields.Text("Request", compute="_compute_pretty")
    response_body_pretty = fields.Text("Response", compute="_compute_pretty")
    record_name = fields.Char(compute="_compute_record_name")
    record_exists = fields.Boolean(compute="_compute_record_name")

    # ------------------------------------------------------------------
    # Computed fields
    # ------------------------------------------------------------------

    @api.depends("request_body", "response_body")
    def _compute_pretty(self):
        for log in self:
            log.request_body_pretty = prettify(log.request_body)
            log.response_body_pretty = prettify(log.response_body)

    @api.depends("error_message")
    def _compute_error_summary(self):
        for log in self:
            lines = (log.error_message or "").strip().splitlines() or [""]
            log.error_summary = lines[-1] if lines[0].startswith("Traceback (") else lines[0]

    @api.depends("model", "record_id")
    @api.depends_context("uid")
    def _compute_record_name(self):
        for log in self:
            record = log._get_record()
            log.record_name = record.display_name
            log.record_exists = bool(record)

    # ------------------------------------------------------------------
    # CRUD
    # ------------------------------------------------------------------

    @api.model_create_multi
    def create(self, vals_list):
        if not self.env.su:  # a log says who made it
            vals_list = [dict(vals, user_id=self.env.uid) for vals in vals_list]
        return super().create([vals if isinstance(vals, Masked) else self._prepare_values(vals) for vals in vals_list])

    # ------------------------------------------------------------------
    # Actions
    # ------------------------------------------------------------------

    def action_open_record(self):
        """Open the record the exchange was about."""
        record = self._get_record()
        return record and record.get_formview_action()

    # ------------------------------------------------------------------
    # Business methods
    # ------------------------------------------------------------------

    def _get_record(self):
        """Return the record the exchange was about, empty if it is gone or not for the current user."""
        self.ensure_one()
        model = self.env.get(self.model or "")
        if model is None or not self.record_id:
            return self.browse()
        return model.browse(self.record_id).exists()._filtered_access("read")

    @api.model
    def _record(self, values):
        """Log an exchange in the current transaction: with its writes, or not at all.

        Only the logs of errors go through the ORM, so that automation rules can be about them: it would double
        the time of the others. Bodies may be bytes, text or JSON values, headers a mapping, pairs or text. Besides
        the fields, ``further_secrets`` may be given, texts to mask beside the secrets of the configuration.

        :param dict values: values of the fields
        :return: the log, empty if the configuration wants none
        """
        if not self._is_wanted(values):
            return self.browse()
        values = self._prepare_values(values)
        return self.sudo().create([values]) if values["status"] == "error" else self._insert([values])

    @api.model
    def _record_own_cursor(self, values):
        """Log an exchange in a transaction of its own: it happened, whatever becomes of the current one.

        Parameters as of :meth:`_record`. What only the current transaction knows yet (a configuration that
        was just created) is logged there.
        """
        if not self._is_wanted(values):
            return self.browse()
        values = self._prepare_values(values)
        if module.current_test and self.env.cr.readonly:
            _waiting_in_test.append(values)
            return self.browse()
        if module.current_test:
            return self.sudo().create([values])
        try:
            with self.env.registry.cursor() as cr:
                cr.connection.set_isolation_level(ISOLATION_LEVEL_READ_COMMITTED)
                own = self.with_env(self.env(cr=cr, su=True))
                config = own.env["bj.api.sync.config"].browse(values.get("config_id") or ())
                if config == config.exists():
                    return self.browse(own.create([values]).id)
        except psycopg2.IntegrityError as exc:
            _logger.info("Logged in the current transaction: %s", exc)
        return self.sudo().create([values])

    @api.model
    def _record_later(self, values):
        """Log a successful read within half a second, together with others: it costs the request nothing.

        Parameters as of :meth:`_record`. Such logs trigger no automation rules, and those of the last moment are
        lost if the process is killed. The current cursor may be read-only.
        """
        if not self._is_wanted(values):
            return
        values = dict(values)
        values.setdefault("create_date", fields.Datetime.now())
        values.setdefault("user_id", self.env.uid)
        values.setdefault("company_id", self.env.company.id)
        for fname in ("request_body", "response_body"):
            if isinstance(values.get(fname), (str, bytes)) and len(values[fname]) > LARGE:
                values = self._prepare_values(values)
        if not module.current_test:
            _get_batch(self.env.cr.dbname).add(values)
        elif self.env.cr.readonly:
            _waiting_in_test.append(values)
        else:
            self._write_batch([values])

    @api.model
    def _flush_later(self):
        """Write the logs that still wait, for whoever wants to see them at once."""
        if not module.current_test:
            return _get_batch(self.env.cr.dbname).flush()
        batch = _waiting_in_test[:]
        _waiting_in_test.clear()
        return self._write_batch(batch)

    @api.model
    def _write_batch(self, batch):
        """Insert logs with one statement.

        :param list[dict] batch: values as of :meth:`_record`
        """
        logs, wanted = self.sudo(), filter(self._is_wanted, batch)
        rows = [values if isinstance(values, Masked) else logs._prepare_values(values) for values in wanted]
        if not rows:
            return
        try:
            with self.env.cr.savepoint(flush=False):
                logs._insert(rows)
        except ForeignKeyViolation:  # seldom; asking for all of them before would take longer than to write them
            for field in logs._fields.values():
                if field.store and field.type == "many2one":
                    logs._drop_gone(field, rows)
            logs._insert(rows)

    @api.model
    def _insert(self, rows):
        """Insert logs with one statement, past the ORM.

        :param list[Masked] rows: their values
        :return: the logs
        """
        names = tuple(dict.fromkeys(name for row in rows for name in row))
        stored = [self._fields[name] for name in names]
        tuples = (tuple(field.convert_to_column_insert(row.get(field.name), self) for field in stored) for row in rows)
        query = SQL("%s VALUES %s RETURNING id", _insert_into(self._table, names), SQL(", ").join(tuples))
        self.env.cr.execute(query, log_exceptions=False)
        return self.browse(row[0] for row in self.env.cr.fetchall())

    @api.model
    def _drop_gone(self, field, rows):
        """Empty a many2one whose record was deleted since the log was recorded."""
        ids = {row[field.name] for row in rows if row.get(field.name)}
        gone = ids.difference(self.env[field.comodel_name].browse(ids).exists().ids)
        for row in rows:
            if row.get(field.name) in gone:
                row[field.name] = False

    @api.model
    def _is_wanted(self, values):
        policy = self._get_config_data(values.get("config_id") or 0).log_policy
        return policy == "all" or (policy == "errors" and values["status"] == "error")

    @api.model
    def _prepare_values(self, values):
        """Mask the secrets, cut the bodies, fill in what was not said.

        :rtype: Masked
        """
        values = Masked(values)
        config = self._get_config_data(values.get("config_id") or 0)
        secrets = self._get_literals(config, values.pop("further_secrets", ()))
        limit = self._get_number(BODY_LIMIT, redact.LIMIT)
        if values.get("direction") == "in" and values.get("method") == "GET" and values["status"] == "success":
            limit = min(limit, READ_LIMIT)
        for part in ("request", "response"):
            headers, content_type = values.get(f"{part}_headers"), ""
            if headers and not isinstance(headers, str):
                pairs = list(headers.items() if hasattr(headers, "items") else headers)
                content_type = next((value for name, value in pairs if name.lower() == "content-type"), "")
                values[f"{part}_headers"] = redact.headers(pairs, config.secret_headers, secrets)
            elif headers:
                values[f"{part}_headers"] = redact.body(headers, secrets=secrets, limit=limit)
            if values.get(f"{part}_body"):
                values[f"{part}_body"] = redact.body(values[f"{part}_body"], content_type, secrets, limit)
        for fname in ("name", "url", "error_message", "trace_id", "remote_address", "method"):
            if values.get(fname):
                values[fname] = redact.url(str(values[fname]), secrets)
        values.setdefault("create_date", fields.Datetime.now())
        values.setdefault("user_id", self.env.uid)
        values.setdefault("company_id", config.company_id or self.env.company.id)
        return values

    @api.model
    def _mask(self, config_id, text, further_secrets=()):
        """Mask the secrets in a text that quotes others, wherever it will be read.

        :param int config_id: id of the configuration whose exchange it tells of
        :param str text: what may have secrets in it
        :param further_secrets: texts to mask beside the secrets of the configuration
        :rtype: str
        """
        return redact.url(text, self._get_literals(self._get_config_data(config_id), further_secrets))

    @api.model
    def _get_literals(self, config, further_secrets=()):
        secrets, further = _read_literals(config.secrets), redact.literals(further_secrets)
        return tuple(sorted({*secrets, *further}, key=len, reverse=True)) if further else secrets

    @api.model
    def _get_config_data(self, config_id):
        """Return what logging needs to know of a configuration.

        :param int config_id: id of a configuration, or 0
        :rtype: ConfigData
        """
        return self._load_config_data(config_id, digest("which key encrypts"))

    @api.model
    @ormcache("config_id", "key")
    def _load_config_data(self, config_id, key):
        """Cache the data until a configuration changes, or the key its secrets are encrypted with in memory."""
        config = self.env["bj.api.sync.config"].sudo().browse(config_id or ()).exists()
        secret_headers = config.header_ids.filtered(lambda header: not HARMLESS_HEADERS.fullmatch(header.key))
        return ConfigData(
            log_policy=config.log_policy or "all",
            company_id=config.company_id.id,
            secret_headers=tuple(secret_headers.mapped("key")),
            secrets=encrypt(json.dumps(self._get_secrets(config) + secret_headers.mapped("value"))),
        )

    @api.model
    def _get_secrets(self, config):
        """Return what must not be found in any log of a configuration: the values of its encrypted fields.

        :param config: a configuration, or none
        :return: see :func:`redact.literals`
        :rtype: list
        """
        names = [name for name, field in config._fields.items() if isinstance(field, EncryptedChar)]
        secrets = [config[name] for name in names if name not in ("login", "password")]
        return [(config.login, config.password), *secrets]

    @api.model
    def _get_number(self, key, default):
        """Return a system parameter that should be a number: a typing error in it must not break requests."""
        value = str(self.env["ir.config_parameter"].sudo().get_param(key))
        return int(value) if value.isdecimal() else default

    @api.autovacuum
    def _gc_logs(self):
        """Delete the logs that are older than the retention time."""
        days = self._get_number(RETENTION_DAYS, 90)
        if days <= 0:
            return 0, 0
        limit = fields.Datetime.subtract(fields.Datetime.now(), days=days)
        logs = self.search([("create_date", "<", limit)], limit=GC_UNLINK_LIMIT, order="create_date")
        logs.unlink()
        return len(logs), int(len(logs) == GC_UNLINK_LIMIT)


@functools.lru_cache(maxsize=64)
def _insert_into(table, names):
    """Return the beginning of a statement; logs have few different sets of values."""
    return SQL("INSERT INTO %s (%s)", SQL.identifier(table), SQL(", ").join(map(SQL.identifier, names)))


@functools.lru_cache(maxsize=64)
def _read_literals(token):
    """Decrypt what is masked; not kept longer than a few configurations are busy."""
    secrets = json.loads(decrypt(token))
    return redact.literals(tuple(secret) if isinstance(secret, list) else secret for secret in secrets)


#: what a test's read-only cursor could not write
_waiting_in_test = []


@functools.cache
def _get_batch(dbname):
    return Batch(functools.partial(_write_logs, dbname))


def _write_logs(dbname, batch):
    threading.current_thread().dbname = dbname
    with Registry(dbname).cursor() as cr:
        cr.connection.set_isolation_level(ISOLATION_LEVEL_READ_COMMITTED)
        api.Environment(cr, SUPERUSER_ID, {})["bj.api.log"]._write_batch(batch)


def prettify(text):
    """Indent JSON or XML, leave anything else as it is."""
    try:
        if text and text.lstrip()[:1] in ("{", "["):
            return json.dumps(json.loads(text), indent=2, ensure_ascii=False).encode(errors="replace").decode()
        if text and text.lstrip()[:1] == "<":
            parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True)
            return etree.tostring(etree.fromstring(text.encode(), parser), pretty_print=True, encoding="unicode")
    except (ValueError, RecursionError, etree.XMLSyntaxError):
        return text
    return text
