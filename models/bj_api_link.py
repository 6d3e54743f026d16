import json
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256

from psycopg2.extras import Json

from odoo import api, fields, models
from odoo.exceptions import UserError
from odoo.tools import SQL, groupby, ormcache

from ..exceptions import RecordConflict, StillUnderWay
from ..tools import codec
from ..tools.plan import ABSENT, Batch, Links, Row
from .bj_api_delivery import DELETION_SQL, HOLDING_SQL, NOW

#: they tell when and by whom a record was changed, not how it is
STAMPS = ("write_date", "write_uid")
#: ours, not on the way
WAITING = ("pending", "failed")
#: ours, not received by the other system: what it sent may not know of it
UNSENT = (*WAITING, "dead")
#: what arrived, or may have, after the last values, in the order it did; "+ 0" has the planner look the records up
ARRIVED = """
    SELECT l.record_id, d.id, d.state = 'sent', d.done_date
      FROM bj_api_delivery AS d
      JOIN bj_api_link AS l ON l.config_id = d.config_id + 0 AND l.record_id = ANY(d.record_ids)
     WHERE l.id = ANY(%(links)s) AND d.model = l.model AND d.operation <> 'unlink'
       AND (d.record_id = ANY(%(ids)s) AND d.attempt_count > 0
            OR d.record_id IS NULL AND d.record_ids && %(ids)s AND (d.state = 'sent' OR d.claim IS NOT NULL))
       AND (d.done_date IS NULL OR l.payload_date IS NULL OR d.done_date > l.payload_date)
     ORDER BY d.done_date, d.id"""
#: how often a state is sent again in a row because of what comes in meanwhile, see `_is_agreed`
RESENDS = 3
#: seconds that a state waits at most whose record is on its way already, see `_note_queued`
BACKOFF = 1


class BjApiLink(models.Model):
    """What this Odoo and another system last told each other of a record.

    Two states are compared by what would be sent of them: our own serialization, then and now. What the other system
    rounds, trims or computes is in it already, and so never a difference.

    * An **echo** is a state that just came in: ``direction`` is ``in``, and the hash the same. As soon as another one
      is queued, not when it arrives, ``direction`` is ``out`` and nothing counts as an echo any more: a change and
      its reversal (A, B, A) are both sent, whatever becomes of B. To send a state twice is harmless, to keep it
      back is not.
    * Both **agree** if the record is as it came in, or as it was sent with success: here it is the arrival that
      counts. Else it was changed here since.
    * What comes in then is **no news** if it is the last values, which they told or got at once, each as of the last
      time, or what arrived there, or may have, after that: they changed nothing, and ours stays. All else meets the
      conflict policy.
    * A hash has the shape of the mapping before it: what another mapping made cannot be compared, and is neither an
      echo nor a conflict.
    """

    _name = "bj.api.link"
    _description = "API Link"
    _rec_name = "external_id"
    _order = "id desc"
    _log_access = False

    config_id = fields.Many2one("bj.api.sync.config", "API Configuration", required=True, ondelete="cascade")
    model = fields.Char("Model Name", required=True)
    record_id = fields.Many2oneReference("Record", model_field="model", required=True)
    external_id = fields.Char("External ID", help="The record identifier, as it was last exchanged.")
    direction = fields.Selection([("in", "Came In"), ("out", "Went Out")], "Last Exchange", required=True)
    in_date = fields.Datetime("Came in on")
    in_hash = fields.Char("Hash of What Came In")
    payload_hashes = fields.Json(
        "Hashes of the Last Values", help="Of what came in last, or was sent at once since: one for each field."
    )
    payload_date = fields.Datetime("Date of the Last Values")
    out_date = fields.Datetime("Went out on", help="When it was queued.")
    out_hash = fields.Char("Hash of What Went Out")
    delivery_id = fields.Many2one(
        "bj.api.delivery",
        "Last Delivery",
        ondelete="set null",
        index="btree_not_null",
        help="Of what went out; none if that was sent at once.",
    )
    resent = fields.Integer("Sent Again", aggregator=None, help="In a row, because of what came in before it arrived.")
    conflict_date = fields.Datetime("Conflict since", index="btree_not_null")
    # text: a jsonb column holds neither NUL nor halves of surrogate pairs, not even escaped
    conflict_payload = fields.Text("What the Other System Has")
    theirs = fields.Text(compute="_compute_sides")
    ours = fields.Text(compute="_compute_sides")

    _record_uniq = models.UniqueIndex("(config_id, record_id)")

    @api.depends("conflict_payload")
    def _compute_sides(self):
        """Show both states; ours as it would be sent."""
        outbound = self.env["bj.api.sync.outbound"]
        for link in self:
            link.theirs = link.conflict_payload and _dump(json.loads(link.conflict_payload))
            record = self.env[link.model].browse(link.record_id).exists()
            if link.conflict_payload and record:
                config = link.sudo().config_id
                [(_record, payload, problem)] = outbound._serialize(config, outbound._run_as(config, record))
                link.ours = problem or _dump(payload)
            else:
                link.ours = link.conflict_payload and self.env._("The record was deleted here.")

    # ------------------------------------------------------------------
    # Actions
    # ------------------------------------------------------------------

    def action_take_theirs(self):
        """Settle conflicts by writing what the other system has; what comes of it is sent: that may be but a part."""
        self.check_access("write")
        for link in self.filtered("conflict_date"):
            link._apply(json.loads(link.conflict_payload))
        self.action_keep_ours()

    def action_keep_ours(self):
        """Settle conflicts by sending what is here."""
        self.check_access("write")
        self.filtered("conflict_date")._send()

    def _send(self):
        """Queue the records as they are when this transaction ends, whatever was told of them; no conflict is left."""
        for link in self:
            is_settled = link.direction == "in" or link.delivery_id.state in (False, "sent")
            link.resent = 0 if is_settled else link.resent + 1
        self.write({"direction": "out", "out_hash": False, "conflict_date": False, "conflict_payload": False})
        for config, links in self.grouped("config_id").items():
            records = self.env[config.model_name].browse(links.mapped("record_id"))
            self.env["bj.api.delivery"]._enqueue_at_commit(config, records, "write")

    def _apply(self, payload):
        """Write a payload to the record, through the mapping it came by and as the user it came in as.

        :raises UserError: if that is not possible
        """
        self.ensure_one()
        counterpart = self.sudo().config_id.counterpart_id
        if not counterpart:
            raise UserError(self.env._("%s is not two-way any more: only Keep Ours is left.", self.config_id.name))
        record = self.env[self.model].browse(self.record_id)
        if not record.exists():
            raise UserError(self.env._("The record was deleted here: only Keep Ours is left."))
        record = self.env["bj.api.sync.outbound"]._run_as(counterpart, record)
        mapper = record.env["bj.api.sync.mapper"]
        batch = Batch.of([payload])
        rows = mapper._parse(mapper._plan(counterpart.id, "in"), batch, record._ids)
        if batch.errors:
            raise UserError("\n".join(fault["message"] for faults in batch.errors.values() for fault in faults))
        record.env["bj.api.sync.inbound"]._save(rows)

    # ------------------------------------------------------------------
    # Pairs and states
    # ------------------------------------------------------------------

    @ormcache("config_id")
    def _get_pair_ids(self, config_id):
        """Return the ids of the outbound configurations that are two-way with a configuration, archived ones too.

        :param int config_id: the configuration by which records come in
        :rtype: tuple[int]
        """
        configs = self.env["bj.api.sync.config"].sudo().with_context(active_test=False)
        pairs = configs.search([("counterpart_id", "=", config_id)])
        # what one of them keeps from being written, the others must not withdraw theirs for
        return pairs.sorted(lambda pair: (pair.conflict_policy == "remote", pair.conflict_policy == "newest"))._ids

    @api.model
    def _get_pairs(self, config_id):
        """Return those of them that tell how records are."""
        pairs = self.env["bj.api.sync.config"].sudo().browse(self._get_pair_ids(config_id))
        return pairs.filtered(lambda config: config._is_two_way())

    @api.model
    def _find(self, config, record_ids):
        return self.sudo().search([("config_id", "=", config.id), ("record_id", "in", list(record_ids))])

    @api.model
    def _get_states(self, config, record_ids):
        """Return the states of records as they are now; of those that would be sent.

        :return: record id -> hash, record identifier
        :rtype: dict[int, tuple[str, str | None]]
        """
        outbound = self.env["bj.api.sync.outbound"]
        records = outbound._run_as(config, self.env[config.model_name].browse(record_ids))
        records = records and outbound._filter(config, records)
        return self._condense(config, outbound._serialize(config, records) if records else [])

    @api.model
    def _condense(self, config, items):
        """Return the states of records that are serialized already.

        :param items: (record, payload, problem)
        :rtype: dict[int, tuple[str, str | None]]
        """
        plan = self.env["bj.api.sync.mapper"]._plan(config.id)
        stamps = set(_find_stamps(plan))
        shape, states = _hash(_describe(plan))[:8], {}
        for record, payload, _problem in items:
            if payload is None:
                continue
            key = self.env["bj.api.sync.outbound"]._get_identifier(config, payload) or None
            states[record.id] = (f"{shape}:{_hash(_without(payload, stamps))}", key)
        return states

    @api.model
    def _note(self, config, direction, states, delivery_ids=(), hashes=()):
        """Note what came in or goes out; one statement, which waits for nobody but who exchanges the same record.

        :param states: from :meth:`_get_states`
        :param delivery_ids: record id -> id of the delivery
        :param hashes: record id -> hashes of the values that came in, or were sent at once; former ones of other fields
            are known as long as nothing went out since
        """
        if not states:
            return
        self.flush_model()
        delivery_ids, hashes = dict(delivery_ids), dict(hashes)
        rows = SQL(", ").join(
            SQL(
                "(%s, %s, %s, %s, %s, %s, %s, %s::int, %s::jsonb, %s)",
                *(config.id, config.model_name, record_id, key, direction, state, NOW),
                delivery_ids.get(record_id) or None,
                *((Json(hashes[record_id]), NOW) if record_id in hashes else (None, None)),
            )
            for record_id, (state, key) in sorted(states.items())  # so that nobody waits for each other
        )
        names = {"hash": SQL.identifier(f"{direction}_hash"), "date": SQL.identifier(f"{direction}_date")}
        self.env.cr.execute(
            SQL(
                """INSERT INTO bj_api_link AS l (config_id, model, record_id, external_id, direction,
                                                 %(hash)s, %(date)s, delivery_id, payload_hashes, payload_date)
                   VALUES %(rows)s
                   ON CONFLICT (config_id, record_id) DO UPDATE
                   SET model = excluded.model, external_id = coalesce(excluded.external_id, l.external_id),
                       direction = excluded.direction, %(hash)s = excluded.%(hash)s, %(date)s = excluded.%(date)s,
                       payload_hashes = coalesce(
                           CASE l.direction WHEN 'in' THEN l.payload_hashes || excluded.payload_hashes END,
                           excluded.payload_hashes, l.payload_hashes),
                       payload_date = coalesce(excluded.payload_date, l.payload_date),
                       delivery_id = CASE excluded.direction WHEN 'in' THEN l.delivery_id ELSE excluded.delivery_id END,
                       conflict_date = NULL, conflict_payload = NULL""",
                rows=rows,
                **names,
            )
        )
        self.invalidate_model()

    # ------------------------------------------------------------------
    # Out
    # ------------------------------------------------------------------

    @api.model
    def _select_news(self, config, items, operation):
        """Leave out what the other system just told us, and what waits for somebody's decision.

        :param items: (record, payload, problem)
        :return: those to send, and their states where they are to be noted
        :rtype: tuple[list, dict]
        """
        if operation == "unlink" or not config._is_two_way():
            return items, {}
        states = self._condense(config, items)
        for link in self._find(config, states):
            if link.conflict_date or (link.direction == "in" and link.in_hash == states[link.record_id][0]):
                del states[link.record_id]
            elif link.out_hash and link.resent:  # a change here; `_send` leaves no hash
                link.resent = 0
        return [item for item in items if item[0].id in states or item[1] is None], states

    @api.model
    def _note_queued(self, config, states, requests, deliveries):
        """Note what was queued.

        A state whose record is on its way already waits a random time, a longer one each time it is sent again: where
        both sides change a record at once, and each answers the other, this has one of them be first, as with a
        collision on a wire.
        """
        if not states:
            return
        self.flush_model(["resent"])
        self.env.cr.execute(
            SQL(
                """UPDATE bj_api_delivery AS d
                      SET next_attempt = d.next_attempt
                                       + interval '1s' * random() * %s * power(2, coalesce(l.resent, 0))
                     FROM bj_api_link AS l JOIN bj_api_delivery AS e ON e.id = l.delivery_id
                    WHERE l.config_id = %s AND l.record_id = ANY(d.record_ids) AND e.state = 'sending'
                      AND l.record_id = ANY(%s) AND d.id = ANY(%s)""",
                *(BACKOFF, config.id, list(states), list(deliveries._ids)),
            )
        )
        pairs = zip(requests, deliveries._ids, strict=True)
        ids = {record_id: delivery_id for request, delivery_id in pairs for record_id in request.record_ids}
        self._note(config, "out", states, ids)

    @api.model
    def _read_pushed(self, config, items):
        """Read what is to be sent at once, all together and before it is: then nothing fails that was sent.

        :param items: (record, payload, problem)
        :return: record id -> hash, record identifier, hashes of the values
        :rtype: dict[int, tuple[str, str | None, dict]]
        """
        if not config._is_two_way():
            return {}
        states = self._condense(config, items)
        known = self._read_sent(config, [(item[0].id, item[1]) for item in items if item[0].id in states])
        return {record_id: (*states[record_id], _get_hashes(row)) for record_id, [row] in known.items()}

    @api.model
    def _note_pushed(self, config, told, is_sent):
        """Note what was sent at once, without a delivery.

        Without success, nobody knows what the other system has, unless it is what was exchanged last or is asked about.

        :param told: from :meth:`_read_pushed`
        """
        states = {record_id: (state, key) for record_id, (state, key, _values) in told.items()}
        hashes = {record_id: values for record_id, (_state, _key, values) in told.items()} if is_sent else {}
        if not is_sent:
            for link in self._find(config, states):
                if link.conflict_date or link[f"{link.direction}_hash"] == states[link.record_id][0]:
                    del states[link.record_id]
            # a state that none is equal to
            states = {record_id: (f"{state.partition(':')[0]}:", key) for record_id, (state, key) in states.items()}
        self._note(config, "out", states, hashes=hashes)

    @contextmanager
    def _following(self, config, records):
        """Let what an answer writes to records become part of what was sent, if they are as they were sent."""
        before = self._get_states(config, records._ids) if config._is_two_way() else {}
        links = self._find(config, before) if before else self
        sent = {link.record_id: link.delivery_id.id for link in links if link.out_hash == before[link.record_id][0]}
        yield
        if sent:
            self._note(config, "out", self._get_states(config, list(sent)), sent)

    # ------------------------------------------------------------------
    # In
    # ------------------------------------------------------------------

    @contextmanager
    def _receiving(self, plan, rows, payloads):
        """Surround the writing of rows that came in.

        Before, decide on those whose record was changed here since both sides agreed: a row that is not to be written
        gets the reason (``kept``). After, note what was written, before anything is queued of it.

        :param Plan plan: the configuration by which they come in
        :param list payloads: one per row, as they came
        """
        if not self._get_pair_ids(plan.config_id):
            yield
            return
        pairs = self._get_pairs(plan.config_id)
        self._keep_deleted(plan, rows)
        hashes = [_get_hashes(row) for row in rows]  # before it is stored, which puts rows of the same record together
        with self.env["bj.api.delivery"]._hold():
            open_ids = {config: self._weigh(config, plan, rows, payloads) if config.active else () for config in pairs}
            yield
            came = {row.record_id: told for row, told in zip(rows, hashes, strict=True) if not row.kept}
            undone = self._take_back_deletions(plan, rows)
            for config, ids in open_ids.items():
                states = self._get_states(config, [record_id for record_id in came if record_id not in ids])
                self._note(config, "in", states, hashes=came)
                if undone and config.active:  # else they would delete what they told, and nobody tell them of it
                    self._find(config, undone)._send()
                # what is not agreed on was told all the same
                for link in self._find(config, came.keys() & ids) if ids else ():
                    link.payload_hashes = (link.payload_hashes or {}) | came[link.record_id]

    @api.model
    def _keep_deleted(self, plan, rows):
        """Leave out of a pulled page what was deleted here, and was not told when the page was asked for.

        :param Plan plan: the configuration by which they come in
        """
        asked = self.env.context.get("bj_api_sync_asked")
        new = {str(row.key): row for row in rows if not row.record_id and row.key is not None}
        if asked and new:
            untold = SQL("%s OR d.state = 'sent' AND d.done_date > %s", SQL(HOLDING_SQL), asked)
            for deletion in self._find_deletions(plan, new, untold):
                row = new[deletion.identifier]
                row.kept = self.env._("Not written: it was deleted here, which this page does not know.")

    @api.model
    def _find_deletions(self, plan, keys, condition):
        """Return the deletions of records of some identifiers, by the configurations that are two-way with a plan's.

        :param SQL condition: which of the deliveries ``d``
        """
        query = (
            "SELECT d.id FROM bj_api_delivery AS d WHERE %s AND config_id = ANY(%s) AND identifier = ANY(%s) AND (%s)"
        )
        ids = list(self._get_pair_ids(plan.config_id))
        rows = self.env.execute_query(SQL(query, SQL(DELETION_SQL), ids, list(keys), condition))
        return self.env["bj.api.delivery"].sudo().browse(row[0] for row in rows)

    @api.model
    def _take_back_deletions(self, plan, rows):
        """Cancel the deletion of records that come in once more, and what was to be told of them before it.

        :param Plan plan: the configuration by which they come in
        :param rows: stored rows
        :return: the ids of the new records of whose former ones something may arrive all the same
        :rtype: set[int]
        """
        new = {str(row.key): row.record_id for row in rows if row.created and row.key is not None}
        deletions = new and self._find_deletions(plan, new, SQL("%s OR d.state = 'dead'", SQL(HOLDING_SQL)))
        if not deletions:
            return set()
        deletions._change(UNSENT, self._get_overruled())
        late = set()
        for config in self._get_pairs(plan.config_id):
            late |= self._withdraw(config, deletions.mapped("record_id"))
        return {new[each.identifier] for each in deletions if each.claim or each.record_id in late}

    @api.model
    def _weigh(self, config, plan, rows, payloads):
        """Apply the conflict policy.

        :return: the ids of records that are not agreed on, even when the rows are written
        :rtype: set[int]
        """
        by_id = {
            row.record_id: (row, payload)
            for row, payload in zip(rows, payloads, strict=True)
            if row.record_id and not row.kept
        }
        links = self._find(config, by_id)._filter_told(by_id) if by_id else self
        states = self._get_states(config, links.mapped("record_id")) if links else {}
        links = links.filtered(lambda link: not link._is_agreed(states))
        if not links:
            return set()
        changing = self._get_changing([by_id[link.record_id][0] for link in links])
        own = self.env["bj.api.sync.mapper"]._plan(config.id)
        whole = {link.record_id for link in links if self._is_whole(own, plan, [by_id[link.record_id][1]])}
        # who tells all of what is here settles an open conflict, who tells a part adds to it
        waiting = {link.record_id for link in links if link.conflict_date}
        open_ids = set(links.mapped("record_id")) - (waiting & whole - changing)
        disputed = links.filtered(lambda link: link.record_id in changing | waiting & open_ids)
        disputed = disputed._filter_news(config, by_id)
        records = self.env[plan.model].browse(disputed.mapped("record_id"))
        verdicts = {
            link: link._decide(config, plan, by_id[record.id][1], record)
            for link, record in zip(disputed, records, strict=True)
        }
        for verdict, same in groupby(disputed, verdicts.get):
            links = self.sudo().concat(*same)
            items = {link: by_id[link.record_id] for link in links}
            open_ids -= getattr(links, f"_resolve_{verdict}")(config, items, states, whole)
        return open_ids

    def _is_agreed(self, states):
        """Tell whether both sides have the record as it is here, as far as that is known.

        What still comes in when ours was sent again a few times is what the other system makes of it: some post that
        back before they answer, or whenever they refuse something. It would never end.

        :param dict states: from :meth:`_get_states`
        """
        state = self.delivery_id.state
        has_arrived = state not in WAITING if self.resent >= RESENDS else state in (False, "sent")
        if self.conflict_date or (self.direction == "out" and not has_arrived):
            return False
        known, (state, _key) = self[f"{self.direction}_hash"] or "", states.get(self.record_id, ("", None))
        return state in ("", known) or known.partition(":")[0] != state.partition(":")[0]

    @api.model
    def _get_changing(self, rows):
        """Return the ids of the records that rows would change, or records they link to."""
        mapper, changing = self.env["bj.api.sync.mapper"], set()
        nested = [(row, each) for row in rows for each in (row, *mapper._linked([row]))]
        for _model, same in groupby(nested, lambda pair: pair[1].plan.model):
            records = mapper._matched(same[0][1].plan, [each for _row, each in same])
            for (row, each), record in zip(same, records, strict=True):
                if not record or mapper._get_changes(each, record):
                    changing.add(row.record_id)
        return changing

    @api.model
    def _is_whole(self, own, plan, payloads):
        """Tell whether payloads have everything we would send: then nothing of ours is left when they are written.

        :param Plan own: how it would be sent
        :param Plan plan: how it comes in
        """
        mapper, model, batch = self.env["bj.api.sync.mapper"], self.env[plan.model], Batch.of(payloads)
        told = {line.field_name: line for line in plan.lines if ABSENT not in batch.column(line.path)}
        if plan.identifier:
            told[plan.identifier.field_name] = plan.identifier
        # a script without a field may tell of any
        lines = [
            line
            for line in (*own.lines, *own.exec_lines)
            if not line.field_name or mapper._is_writable(model._fields[line.field_name])
        ]
        return all(line.field_name in told for line in lines) and all(
            self._is_nested_whole(line, told[line.field_name], batch) for line in lines if line.mapping
        )

    @api.model
    def _is_nested_whole(self, own, line, batch):
        """Tell the same of the records that lines link to; of those that are but linked, there is nothing to tell."""
        if line.field_type != "one2many" and line.relation_policy != "upsert":
            return True
        if not line.mapping or (line.field_type == "one2many" and not line.remove_missing):
            return False
        values = [value if isinstance(value, list) else [value] for value in batch.column(line.path)]
        nested = [value for some in values for value in some if value is not None]
        return all(isinstance(value, dict) for value in nested) and self._is_whole(own.mapping, line.mapping, nested)

    def _filter_told(self, by_id):
        """Return those of which nothing arrived there since a pull asked: its page does not know what did.

        What it does not know is not overwritten; the next pull brings what became of it.

        :param by_id: record id -> row, payload
        """
        asked = self.env.context.get("bj_api_sync_asked")
        if not asked or not self:
            return self
        late = {record_id for record_id, _id, is_sent, date in self._fetch_arrived() if is_sent and date > asked}
        late |= {  # sent at once
            link.record_id for link in self if link.direction == "out" and (link.payload_date or asked) > asked
        }
        for record_id in late:
            row, _payload = by_id[record_id]
            row.kept = self.env._("Not written: what was sent arrived after this page was asked for.")
        return self.filtered(lambda link: link.record_id not in late)

    def _filter_news(self, config, by_id):
        """Return those of which news comes in; what is none is not written.

        None is what the other system told last or, if something of ours arrived after that, what it was, or what may
        have arrived since. So it is with each pull of all records, and with systems that post back what they get. What
        is here because of them, and sent again, is no change to keep from them: two that collide would end with each
        other's state.

        :param by_id: record id -> row, payload
        """
        links = self.filtered(lambda link: not link.conflict_date and not link.resent)
        if not links:
            return self
        replaced, known = links._read_arrived(config)
        for link in links:
            row, _payload = by_id[link.record_id]
            is_last = _get_hashes(row).items() <= (link.payload_hashes or {}).items()
            if (is_last and link.record_id not in replaced) or self._is_repeated(row, known[link.record_id]):
                row.kept = self.env._("Not written: nothing is new but what was changed here since.")
        return self.filtered(lambda link: not by_id[link.record_id][0].kept)

    def _fetch_arrived(self):
        return self.env.execute_query(SQL(ARRIVED, links=list(self._ids), ids=self.mapped("record_id")))

    def _read_arrived(self, config):
        """Read what arrived there since the values that are known, or may have.

        :return: the ids of the records whose known values it replaced, record id -> what did
        :rtype: tuple[set, dict[int, list[Row]]]
        """
        replaced, arrived = set(), defaultdict(list)
        for record_id, delivery_id, is_sent, _date in self._fetch_arrived():
            if is_sent:
                replaced.add(record_id)
                arrived[record_id].clear()
            arrived[record_id].append(delivery_id)
        places = [(record_id, delivery_id) for record_id, ids in arrived.items() for delivery_id in ids]
        deliveries = self.env["bj.api.delivery"].sudo().browse(delivery_id for _record_id, delivery_id in places)
        items = [(place[0], each._get_payload(place[0])) for place, each in zip(places, deliveries, strict=True)]
        return replaced, self._read_sent(config, items)

    @api.model
    def _is_repeated(self, row, sent):
        """Tell whether what a row would change is as it was sent.

        :param sent: from :meth:`_read_sent`
        """
        record = self.env[row.plan.model].browse(row.record_id)
        changes = self.env["bj.api.sync.mapper"]._get_changes(row, record) if sent else {}
        vals = {name: each for name, each in row.vals.items() if name in changes or isinstance(each, Links)}
        return any(_repeats(Row(row.plan, row.item, vals=vals), known) for known in sent)

    @api.model
    def _read_sent(self, config, items):
        """Read what was sent as if it came in, by our own keys.

        :param items: (record id, payload)
        :return: record id -> a row for each of its payloads
        :rtype: dict[int, list[Row]]
        """
        mapper, known = self.sudo().env["bj.api.sync.mapper"], defaultdict(list)  # the same whoever asks
        plan = _readable(mapper._plan(config.id), mapper._plan(config.counterpart_id.id, "in"))
        rows = [Row(plan, item, record_id=record_id) for item, (record_id, _payload) in enumerate(items)]
        mapper._fill(plan, Batch.of([payload for _record_id, payload in items]), rows)
        for row in rows:
            known[row.record_id].append(row)
        return known

    def _decide(self, config, plan, payload, record):
        """Return the policy that applies to a record: *Newest* is one of the others."""
        if config.conflict_policy != "newest":
            return config.conflict_policy
        line = next((line for line in plan.lines if line.field_name == "write_date"), None)
        try:
            theirs = line and codec.parse("datetime", Batch.of([payload]).column(line.path)[0])
        except ValueError:
            theirs = None
        if not theirs:
            return "ask"
        return "remote" if theirs >= record.write_date.replace(microsecond=0) else "odoo"

    def _resolve_remote(self, config, items, states, whole):
        """What comes in is written. What remains of ours, or may still arrive there after it, is sent once more.

        :param items: link -> row, payload
        :param states: record id -> hash and identifier, as it is here
        :param whole: ids of the records of which the payload tells all
        :return: ids of the records that are agreed on when they are written
        :rtype: set[int]
        """
        ids = set(self.mapped("record_id"))
        agreed = (ids & whole) - self._withdraw(config, ids)
        self.filtered(lambda link: link.record_id not in agreed)._send()
        return agreed

    def _resolve_odoo(self, config, items, states, whole):
        """What comes in is not written, and our state is sent, unless it waits for that anyway."""
        for link, (row, _payload) in items.items():
            row.kept = self.env._("Not written: the record was changed here too, and that is what counts.")
            waits = link.direction == "out" and link.delivery_id.state in WAITING
            if not waits or link.out_hash != states.get(link.record_id, ("",))[0]:
                link._send()
        return set()

    def _resolve_ask(self, config, items, states, whole):
        """What comes in is kept until somebody decides; nothing is sent of the record until then."""
        self._withdraw(config, self.mapped("record_id"))
        for link, (row, payload) in items.items():
            row.kept = self.env._("Not written yet: the record was changed here too, and somebody has to decide.")
            link.conflict_payload = json.dumps(_merge(json.loads(link.conflict_payload or "{}"), payload))
            link.conflict_date = link.conflict_date or fields.Datetime.now()
        names = ", ".join(self.mapped(lambda link: link.external_id or str(link.record_id))[:10])
        message = self.env._("Changed on both sides, see the Links of this configuration: %s", names)
        config._notify_responsible(self.env._("Conflicts wait for a decision"), message)
        return set()

    @api.model
    def _withdraw(self, config, record_ids):
        """Cancel what was not sent of records.

        :return: the ids of those of which something may arrive all the same
        :rtype: set[int]
        """
        domain = [("config_id", "=", config.id), ("record_id", "in", list(record_ids)), ("operation", "!=", "unlink")]
        deliveries = self.env["bj.api.delivery"].sudo().search([*domain, ("state", "in", UNSENT)])
        deliveries._change(UNSENT, self._get_overruled())
        query = """
            SELECT DISTINCT unnest(record_ids) FROM bj_api_delivery
             WHERE config_id = %(config)s AND %(open)s
               AND (record_id = ANY(%(ids)s) OR record_id IS NULL AND record_ids && %(ids)s)"""
        rows = self.env.execute_query(SQL(query, config=config.id, ids=list(record_ids), open=SQL(HOLDING_SQL)))
        return {row[0] for row in rows} & set(record_ids)

    def _get_overruled(self):
        return SQL(
            "state = 'cancelled', last_error = %s, done_date = %s", self.env._("Overruled by what came in."), NOW
        )

    @contextmanager
    def _removing(self, config_id, records):
        """Surround the deletion or archiving of records because the other system did so: it is not told.

        That holds for these very records: what is deleted along with them it may not know.

        :param int config_id: the configuration by which it came in
        :return: the records, to work on
        :raises RecordConflict: if one was changed here since, and that counts
        :raises StillUnderWay: if a change may arrive there after their deletion, and the record would be there again
        """
        if not self._get_pair_ids(config_id):
            yield records
            return
        pairs = self._get_pairs(config_id)
        for config in pairs:
            links = self._find(config, records._ids)
            states = self._get_states(config, links.mapped("record_id")) if config.active else {}
            disputed = links.filtered(lambda link, states=states: not link._is_agreed(states))
            ids = disputed.mapped("record_id")
            late = ids and self._withdraw(config, ids)
            if late and config.active:
                raise StillUnderWay(self.env._("A change of it is on its way to you."))
            if ids and config.active and config.conflict_policy != "remote":
                raise RecordConflict(self.env._("it was changed here since you last heard of it."))
        with self.env["bj.api.delivery"]._hold():
            yield records.with_context(bj_api_sync_removed=(config_id, records._ids))
            for config in pairs:  # those that are archived
                self._note(config, "in", self._get_states(config, records._ids))

    @api.model
    def _skip_removed(self, config, records):
        """Return the records without those whose deletion came in from the configuration's other system."""
        config_id, ids = self.env.context.get("bj_api_sync_removed", (None, ()))
        if config.counterpart_id.id != config_id:
            return records
        return records.filtered(lambda record: record.id not in ids)

    # ------------------------------------------------------------------
    # Keeping
    # ------------------------------------------------------------------

    @api.autovacuum
    def _gc_links(self):
        """Delete the links of records that are gone."""
        configs = self.env["bj.api.sync.config"].with_context(active_test=False)
        for config in configs.search([("link_ids", "!=", False)]):
            model = self.env[config.model_name]
            if model._auto and not model._table_query:
                self.env.cr.execute(
                    SQL(
                        "DELETE FROM bj_api_link AS l WHERE config_id = %s"
                        " AND NOT EXISTS (SELECT FROM %s AS r WHERE r.id = l.record_id)",
                        *(config.id, SQL.identifier(model._table)),
                    )
                )


def _hash(value):
    return sha256(json.dumps(value, default=str).encode()).hexdigest()


def _get_hashes(row):
    """Return a hash of each value of a row."""
    return {name: _hash(_tell(value))[:16] for name, value in row.vals.items()}


def _dump(value):
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _tell(value):
    """Return the values of a row, nested ones included, so that they can be compared, however lines are sorted."""
    if isinstance(value, Row):
        return {name: _tell(each) for name, each in sorted(value.vals.items())}
    if isinstance(value, Links):
        return [(target.key, _tell(target)) if isinstance(target, Row) else target for target in value.targets]
    return value


def _repeats(value, known):
    """Tell whether a value is a known one; what a row does not tell of is no difference, nested ones included."""
    if isinstance(value, Row) and isinstance(known, Row):
        return value.key == known.key and all(
            name in known.vals and _repeats(each, known.vals[name]) for name, each in value.vals.items()
        )
    if isinstance(value, Links) and isinstance(known, Links):
        return len(value.targets) == len(known.targets) and all(map(_repeats, value.targets, known.targets))
    return value == known


def _readable(own, plan):
    """Return an outbound plan that reads what it made, and takes of it what another plan would.

    :param Plan own: how it was sent; scripts have but one direction
    :param Plan plan: how it comes in
    """
    taken = {line.field_name: line for line in plan.lines}
    lines = []
    for line in own.lines:
        other = taken.get(line.field_name)
        if other and not line.script:
            nested = line.mapping and other.mapping and _readable(line.mapping, other.mapping)
            lines.append(replace(line, relation_policy=other.relation_policy, mapping=nested or line.mapping))
    return replace(own, lines=tuple(lines), exec_lines=(), strict=False)


def _describe(plan):
    """Return what decides on the shape of a plan's payloads."""
    return [
        (line.key, line.field_name, line.value_type, line.script, line.relation_output, line.digits)
        + ((_describe(line.mapping),) if line.mapping else ())
        for line in (*plan.lines, *plan.exec_lines)
    ]


def _find_stamps(plan, above=()):
    """Return the paths of what is no difference, nested ones included."""
    for line in plan.lines:
        path = (*above, *line.path)
        if line.field_name in STAMPS:
            yield path
        elif line.mapping:
            yield from _find_stamps(line.mapping, path)


def _without(value, paths, path=()):
    """Return a value without some paths; the items of a list are at the path of the list."""
    if isinstance(value, list):
        return [_without(item, paths, path) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _without(item, paths, (*path, key)) for key, item in value.items() if (*path, key) not in paths}


def _merge(known, news):
    """Return an object with what is new in another one, nested objects included."""
    return known | {
        key: _merge(known[key], value) if isinstance(value, dict) and isinstance(known.get(key), dict) else value
        for key, value in news.items()
    }
