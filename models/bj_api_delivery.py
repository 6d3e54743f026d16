import base64
from contextlib import contextmanager

from psycopg2.extras import Json

from odoo import api, fields, models
from odoo.exceptions import UserError
from odoo.fields import Domain
from odoo.tools import SQL, ormcache
from odoo.tools.constants import GC_UNLINK_LIMIT

from ..tools.transport import get_target
from .bj_api_sync_outbound import read_payload

#: waiting, or on the way: what a later delivery of the same record must wait for
OPEN = ("pending", "failed", "sending")
OPEN_SQL = "state IN ('pending', 'failed', 'sending')"
#: and what was cancelled on the way: it keeps its claim until its answer comes
CLAIMED_SQL = f"({OPEN_SQL} OR claim IS NOT NULL)"
#: the time of the statement: not that of the transaction, nor one that changes from row to row, which no index knows
NOW_SQL = "(statement_timestamp() AT TIME ZONE 'UTC')"
NOW = SQL(NOW_SQL)
#: what others of its record wait for: open ones, and what was cancelled on the way until its lease ends
HOLDING_SQL = f"({OPEN_SQL} OR claim IS NOT NULL AND next_attempt > {NOW_SQL})"
#: deletions of which is known what the other system knows the record by
DELETION_SQL = "operation = 'unlink' AND identifier IS NOT NULL"
#: the code of the scheduled actions that send
DISPATCH = "model._cron_dispatch()"
RETENTION_DAYS = "bj_api_sync.delivery_retention_days"
#: where the cursor keeps what is held back, see `_hold`
HELD = "bj.api.delivery.held"


def after(seconds):
    """Return the time so many seconds from now."""
    return SQL("%s + interval '1s' * %s", NOW, seconds)


class IntegerArray(fields.Json):
    """A list of integers in a column that PostgreSQL can search for overlaps."""

    _column_type = ("int4[]", "int4[]")

    def convert_to_column(self, value, record, values=None, validate=True):
        return list(value) if value else None


#: whether a later delivery of one of the records was sent or is on the way, or a later state of one came in, written or
#: waiting for a decision, or was sent at once; that what the last delivery told came in again is no later state;
#: "OFFSET 0" and "+ 0" have the planner look each record up, instead of comparing all with all
OVERTAKEN = """
    (EXISTS (SELECT FROM bj_api_delivery AS e
              WHERE (e.record_id = ANY(d.record_ids) OR e.record_id IS NULL AND e.record_ids && d.record_ids)
                AND e.config_id + 0 = d.config_id AND e.model = d.model AND e.id + 0 > d.id
                AND (e.state = 'sent' OR e.claim IS NOT NULL) %s OFFSET 0)
     OR EXISTS (SELECT FROM bj_api_link AS l LEFT JOIN bj_api_delivery AS last ON last.id = l.delivery_id
                 WHERE l.config_id = d.config_id AND l.record_id = ANY(d.record_ids)
                   AND (greatest(l.in_date, l.payload_date) > d.create_date
                        AND (last.state = 'sent' AND l.in_hash = l.out_hash) IS NOT TRUE
                        OR l.conflict_date IS NOT NULL) OFFSET 0))"""
#: what sends again: what was cancelled on the way is on the way once more
AGAIN = SQL(
    """state = CASE WHEN claim IS NULL THEN 'pending' ELSE 'sending' END, attempt_count = 0, done_date = NULL,
       -- the same for all: their order is that of their ids
       next_attempt = CASE WHEN claim IS NULL THEN %s ELSE next_attempt END""",
    NOW,
)


class BjApiDelivery(models.Model):
    """The outbox: one request that will be sent, or was.

    It is inserted in the transaction of the change it tells of, and from then on only changes its state. What
    it sends is here as it was then, but for the secrets, which are added when it is sent, and for the address, if the
    configuration has another one by then.
    """

    _name = "bj.api.delivery"
    _description = "API Delivery"
    _order = "id desc"
    _rec_name = "idempotency_key"
    _log_access = False

    create_date = fields.Datetime("Queued on", readonly=True)
    config_id = fields.Many2one("bj.api.sync.config", "API Configuration", required=True, ondelete="cascade")
    company_id = fields.Many2one("res.company", "Company", ondelete="set null")
    user_id = fields.Many2one("res.users", "User", ondelete="set null", help="Who made the change.")
    state = fields.Selection(
        [
            ("pending", "Pending"),
            ("sending", "Sending"),
            ("sent", "Sent"),
            ("failed", "Will Retry"),
            ("dead", "Gave Up"),
            ("cancelled", "Cancelled"),
        ],
        required=True,
        default="pending",
    )
    operation = fields.Selection([("create", "Creation"), ("write", "Change"), ("unlink", "Deletion")], required=True)
    target = fields.Char(help="Host and port: what is paused together when the other system asks for a rest.")
    method = fields.Char(required=True)
    url = fields.Char("URL")
    url_source = fields.Json(help="What the URL was made of: made anew if the configuration has another one by then.")
    content_type = fields.Char()
    body = fields.Binary(attachment=False)
    body_text = fields.Text("Body Text", compute="_compute_body_text")
    model = fields.Char("Model Name", required=True)
    record_id = fields.Many2oneReference("Record", model_field="model", help="Empty for a list of records.")
    record_ids = IntegerArray("Record IDs")
    record_count = fields.Integer("Records")
    identifier = fields.Char("Record Identifier", help="What the other system knows the record by.")
    idempotency_key = fields.Char(
        "Delivery ID",
        required=True,
        help="Sent as Idempotency-Key with every attempt, so that the other system can tell a repetition.",
    )
    attempt_count = fields.Integer("Attempts")
    next_attempt = fields.Datetime(help="While it is being sent: when another worker may take it over.")
    done_date = fields.Datetime("Done on")
    last_code = fields.Integer(aggregator=None)
    last_error = fields.Text()
    claim = fields.Char(help="The run of the dispatcher that sends it.")
    attempt_ids = fields.One2many("bj.api.delivery.attempt", "delivery_id", "History")
    log_ids = fields.One2many("bj.api.log", "delivery_id", "Logs")

    # what is due, for each target and configuration; as few entries as there are open deliveries
    _due_index = models.Index(f"(target, config_id, next_attempt, id) WHERE {OPEN_SQL}")
    # what a delivery must wait for: earlier ones of its record, and lists its record is in
    _order_index = models.Index(f"(config_id, record_id, id) WHERE {CLAIMED_SQL} AND record_id IS NOT NULL")
    _list_index = models.Index(f"USING gin (record_ids) WHERE {CLAIMED_SQL} AND record_id IS NULL")
    _deletion_index = models.Index(f"(identifier) WHERE {DELETION_SQL}")
    _config_index = models.Index("(config_id, id)")
    # what may have overtaken another one
    _sent_list_index = models.Index(
        "USING gin (record_ids) WHERE (state = 'sent' OR claim IS NOT NULL) AND record_id IS NULL"
    )
    _record_index = models.Index("(record_id, model) WHERE record_id IS NOT NULL")

    @api.depends("body")
    def _compute_body_text(self):
        for delivery in self.with_context(bin_size=False):
            delivery.body_text = base64.b64decode(delivery.body or b"").decode(errors="replace")

    # ------------------------------------------------------------------
    # Actions
    # ------------------------------------------------------------------

    def action_retry(self):
        """Send deliveries that were given up, cancelled, or wait for their next attempt, now.

        :raises UserError: if later ones of the same records have arrived, or later states came in: the other system
            would end with an old state
        """
        self.check_access("write")
        self.env.flush_all()
        query = SQL(
            "SELECT d.id FROM bj_api_delivery AS d WHERE d.id = ANY(%s) AND %s", self.ids, SQL(OVERTAKEN, SQL())
        )
        late = self.browse(row[0] for row in self.env.execute_query(query))
        if late and late == self:
            raise UserError(
                self.env._(
                    "Later deliveries of the records, or of some of them, have arrived, or the other system told of "
                    "them since. To send them all the same, use Send Again without “Not What Was Overtaken”."
                )
            )
        for config, deliveries in (self - late).grouped("config_id").items():
            changes = SQL("%s, target = %s", AGAIN, self._get_target(config))
            deliveries._change(("dead", "cancelled", "failed"), changes)
        self._wake_up()

    def action_cancel(self):
        """Take deliveries back that are not sent yet; what is on the way may still arrive, and others wait for it."""
        self._change(OPEN, SQL("state = 'cancelled', done_date = %s", NOW))

    def action_redrive(self):
        """Ask what to send again, of the configuration whose deliveries are shown or chosen."""
        action = self.env["ir.actions.actions"]._for_xml_id("bj_api_sync.action_bj_api_sync_redrive")
        config_id = self.env.context.get("default_config_id") or self[:1].config_id.id
        return action | {"context": {"default_config_id": config_id}}

    def action_open_record(self):
        """Open the record, if it is there and may be read."""
        self.ensure_one()
        record = self.env[self.model].browse(self.record_id or ()).exists()._filtered_access("read")
        if not record:
            raise UserError(self.env._("The record does not exist any more, or you may not read it."))
        return record.get_formview_action()

    def _get_payload(self, record_id):
        """Return what a delivery tells of a record; empty where its body does not tell that.

        :rtype: dict
        """
        body = base64.b64decode(self.with_context(bin_size=False).body or b"")
        return read_payload(self.url_source, body, self.record_ids.index(record_id))

    def _change(self, former, changes):
        """Change those that are in one of the former states, by what follows SET in SQL."""
        self.check_access("write")
        self.env.flush_all()
        query = "UPDATE bj_api_delivery SET %s WHERE id = ANY(%s) AND state = ANY(%s)"
        self.env.cr.execute(SQL(query, changes, list(self.ids), list(former)))
        self.invalidate_recordset()

    @api.model
    def _get_redrive_query(self, config, states, start, end=None, only_newest=True):
        """Return what finds the deliveries to send again, as the table ``d``.

        :param config: a configuration
        :param states: those of ``dead``, ``cancelled`` and ``sent`` that are meant
        :param datetime start: queued from then on
        :param datetime end: and before, None for all until now
        :param bool only_newest: leave out what was overtaken: a record of it was sent later, and that is not repeated,
            or came in
        :rtype: SQL
        """

        def chosen(alias):
            query = "%(d)s.state = ANY(%(states)s) AND %(d)s.create_date >= %(start)s AND %(d)s.create_date < %(end)s"
            return SQL(query, d=SQL.identifier(alias), states=list(states), start=start, end=end or "infinity")

        overtaken = SQL(OVERTAKEN, SQL("AND NOT (%s)", chosen("e")))
        return SQL(
            "d.config_id = %s AND d.url_source IS NOT NULL AND %s AND NOT %s",
            *(config.id, chosen("d"), overtaken if only_newest else SQL("false")),
        )

    @api.model
    def _redrive(self, config, *args, **kwargs):
        """Send deliveries again, in their order and under their ids; the parameters are those of the query.

        :return: how many
        :rtype: int
        """
        self.env.flush_all()
        query = "UPDATE bj_api_delivery AS d SET %s, target = %s WHERE %s"
        chosen = self._get_redrive_query(config, *args, **kwargs)
        self.env.cr.execute(SQL(query, AGAIN, self._get_target(config), chosen))
        count = self.env.cr.rowcount
        self.invalidate_model()
        self._wake_up()
        return count

    @api.model
    def _get_target(self, config):
        """Return where a configuration's deliveries go by now; those whose host is a placeholder tell when they do.

        :rtype: SQL
        """
        query = "CASE url_source ->> 'field' WHEN 'deletion_url' THEN %s ELSE %s END"
        config = config.sudo()
        return SQL(query, get_target(config.deletion_url or ""), get_target(config.request_url or ""))

    @api.model
    def _retarget(self, configs):
        """Let what is open wait for the host that its configuration has by now, not for the former one."""
        self.env.flush_all()
        for config in configs:
            query = "UPDATE bj_api_delivery SET target = %s WHERE config_id = %s AND state = ANY(%s)"
            self.env.cr.execute(SQL(query, self._get_target(config), config.id, list(OPEN)))
        self.invalidate_model(["target"])

    # ------------------------------------------------------------------
    # Queueing
    # ------------------------------------------------------------------

    @api.model
    def _enqueue(self, config, records, operation="write"):
        """Queue records: their payloads are taken now, and sent after the transaction is committed.

        :param config: an outbound `bj.api.sync.config`
        :param records: records of its model
        :param str operation: ``create``, ``write`` or ``unlink``: what happened to them
        :return: the deliveries; none of what has to wait for the end of the transaction, see :meth:`_hold`
        :rtype: odoo.models.BaseModel
        """
        kept, _skipped, _message = self.env["bj.api.sync.outbound"]._select(config, records)
        return self._enqueue_chosen(config, kept, operation) if kept else self.sudo().browse()

    @api.model
    def _enqueue_chosen(self, config, records, operation):
        """Queue records that were chosen already, as :meth:`_enqueue` does."""
        outbound, links = self.env["bj.api.sync.outbound"], self.env["bj.api.link"]
        if operation != "unlink" and HELD in self.env.cr.cache:
            self._enqueue_at_commit(config, records, operation)
            return self.sudo().browse()
        self._lock_records(records)
        items = outbound._serialize(config, records)
        items, states = links._select_news(config, items, operation)
        if not items:
            return self.sudo().browse()
        requests = outbound._prepare_requests(config, items)
        deliveries = self._insert(config, requests, operation)
        links._note_queued(config, states, requests, deliveries)
        self.env["bj.api.sync.pushed"]._note(config, items, requests, operation)
        deliveries._wake_up()
        return deliveries

    @api.model
    def _enqueue_at_commit(self, config, records, operation):
        """Queue records once, at the end of the transaction, however often they change until then.

        Automation rules come with one record at a time: here they are put together again. A savepoint does what is to
        be done before a commit, and so this, too.
        """
        precommit, waiting = self.env.cr.precommit, self.env.cr.cache.get(HELD)
        if waiting is None:
            waiting = precommit.data.setdefault("bj.api.delivery", {})
            if not waiting:
                precommit.add(self._enqueue_waiting)
        known = waiting.setdefault((config.sudo(), records.browse()), {})
        for record_id in records._ids:
            known.setdefault(record_id, operation)

    @contextmanager
    def _hold(self):
        """Queue nothing within a block that waits for the commit: savepoints do what is to be done before it, too."""
        waiting = self.env.cr.cache[HELD] = {}
        try:
            yield
        finally:
            self.env.cr.cache.pop(HELD, None)
        for (config, model), operations in waiting.items():
            for record_id, operation in operations.items():
                self._enqueue_at_commit(config, model.browse(record_id), operation)

    @api.model
    def _enqueue_waiting(self):
        waiting = self.env.cr.precommit.data.pop("bj.api.delivery", {})
        for (config, model), operations in waiting.items():
            for operation in ("create", "write"):
                records = model.browse(key for key, value in operations.items() if value == operation)
                self._enqueue(config, records.exists(), operation)

    @api.model
    def _lock_records(self, records):
        """Let nobody change the records until we commit.

        Else a change that commits first, though after we read, would be sent first, and our older state last.
        If that has happened already PostgreSQL says so here, and Odoo does everything again.
        """
        if records._auto and not records._table_query:
            table = SQL.identifier(records._table)
            records.flush_model()
            self.env.cr.execute(SQL("SELECT 1 FROM %s WHERE id = ANY(%s) FOR SHARE", table, list(records._ids)))

    @api.model
    def _insert(self, config, requests, operation):
        """Insert deliveries with one statement."""
        [[now]] = self.env.execute_query(SQL("SELECT %s", NOW))
        rows = [self._prepare_row(config, request, operation, now) for request in requests]
        columns = SQL(", ").join(map(SQL.identifier, rows[0]))
        values = SQL(", ").join(tuple(row.values()) for row in rows)
        query = SQL("INSERT INTO bj_api_delivery (%s) VALUES %s RETURNING id", columns, values)
        deliveries = self.sudo().browse(row[0] for row in self.env.execute_query(query))
        if error := next((request.error for request in requests if request.error), ""):
            config._notify_dead(error)
        return deliveries

    @api.model
    def _prepare_row(self, config, request, operation, now):
        ids = list(request.record_ids)
        return {
            "create_date": now,
            "config_id": config.id,
            "company_id": config.company_id.id or None,
            "user_id": self.env.uid,
            "state": "dead" if request.error else "pending",
            "operation": operation,
            "target": get_target(request.url),
            "method": request.method,
            "url": request.url,
            "url_source": request.source and Json(request.source),
            "content_type": request.content_type,
            "body": base64.b64encode(request.body) if request.body else None,
            "model": request.model,
            "record_id": ids[0] if len(ids) == 1 else None,
            "record_ids": ids,
            "record_count": len(ids),
            "identifier": request.identifier or None,
            "idempotency_key": request.trace_id,
            "attempt_count": 0,
            "next_attempt": now,
            "last_error": request.error or None,
            "done_date": now if request.error else None,
        }

    # ------------------------------------------------------------------
    # Sending
    # ------------------------------------------------------------------

    @api.model
    def _find_dispatchers(self, is_active=(True,)):
        """Return the scheduled actions that send."""
        model = self.env["ir.model"]._get_id(self._name)
        domain = [("model_id", "=", model), ("code", "=", DISPATCH), ("active", "in", is_active)]
        return self.env["ir.cron"].sudo().search(domain, order="active desc, id")

    @ormcache()
    def _get_dispatcher_ids(self):
        """Return the ids of the scheduled actions that send.

        :rtype: tuple[int]
        """
        return self._find_dispatchers()._ids

    @api.model
    def _set_dispatchers(self, count):
        """Have so many scheduled actions send: make or archive some.

        :raises UserError: if one that is to be archived is at work
        """
        crons = self._find_dispatchers((True, False))
        for _missing in range(count - len(crons)):
            crons |= crons[:1].copy({"name": crons[:1].name})
        crons[:count].filtered(lambda cron: not cron.active).active = True
        crons[count:].filtered("active").active = False
        self.env.registry.clear_cache()

    def _wake_up(self):
        """Have the dispatchers run once this transaction is committed; once is enough."""
        data = self.env.cr.postcommit.data
        triggers = data.get("bj.api.delivery")
        if not triggers or not triggers.exists():  # a savepoint may have taken them back
            crons = self.env["ir.cron"].browse(self._get_dispatcher_ids())
            data["bj.api.delivery"] = self.env["ir.cron.trigger"].sudo().union(*(cron._trigger() for cron in crons))

    @api.model
    def _cron_dispatch(self):
        """Send what is due."""
        self.env["bj.api.dispatcher"]._run()

    # ------------------------------------------------------------------
    # Keeping
    # ------------------------------------------------------------------

    @api.autovacuum
    def _gc_deliveries(self):
        """Delete what was sent or cancelled longer ago than the retention time; what was given up stays."""
        days = self.env["bj.api.log"]._get_number(RETENTION_DAYS, 30)
        if days <= 0:
            return 0, 0
        limit = fields.Datetime.subtract(fields.Datetime.now(), days=days)
        domain = Domain("state", "in", ("sent", "cancelled")) & Domain("done_date", "<", limit)
        deliveries = self.search(domain, limit=GC_UNLINK_LIMIT, order="id")
        deliveries.unlink()
        return len(deliveries), int(len(deliveries) == GC_UNLINK_LIMIT)


class BjApiDeliveryAttempt(models.Model):
    """One attempt to send a delivery, as it ended."""

    _name = "bj.api.delivery.attempt"
    _description = "API Delivery Attempt"
    _order = "id desc"
    _log_access = False

    delivery_id = fields.Many2one("bj.api.delivery", required=True, ondelete="cascade", index=True)
    create_date = fields.Datetime("Ended on")
    code = fields.Integer(aggregator=None)
    duration = fields.Float("Duration (s)", digits=(12, 4))
    error = fields.Text()


class BjApiTarget(models.Model):
    """A host that failed, or asked for a rest: shared by all workers, so that all of them leave it alone."""

    _name = "bj.api.target"
    _description = "API Target"
    _log_access = False

    name = fields.Char(required=True, readonly=True)
    failures = fields.Integer("Failures in a Row", required=True, default=0)
    paused_until = fields.Datetime()
    probe_until = fields.Datetime(help="Somebody tries whether it is well again.")

    _name_uniq = models.UniqueIndex("(name)")
