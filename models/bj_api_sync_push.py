from datetime import datetime

from odoo import api, models
from odoo.tools import SQL

from ..exceptions import CannotSend
from ..tools import transaction

#: records that are queued, and committed, together
PAGE = 1000


class BjApiSyncPush(models.AbstractModel):
    """The scheduled push: everything at first, then what changed since.

    ``write_date`` is when the transaction of a change began, not when it was committed. What began before we looked
    and was committed after is not missed because the next run begins where the oldest transaction began that was
    still open; what was queued already in that overlap is remembered.

    The state, kept on the configuration: ``since`` (ISO 8601), ``seen`` (record id -> ``write_date``, as queued in
    the overlap), during the first run ``last_id`` and ``count``, and ``error``: why the last run stopped at this place.
    """

    _name = "bj.api.sync.push"
    _description = "API Scheduled Push"

    @api.model
    def _enqueue_changes(self, config):
        """Queue what changed since the last run, and what is gone, page by page; each is committed with its place.

        Where the configuration cannot send, the place stays, so that nothing is missed when it can again.

        :param config: an outbound configuration
        """
        transaction.retry_if_scheduled(self.env, self._enqueue_changed, config)
        if config.active and config.deletion_url:
            transaction.retry_if_scheduled(self.env, self._enqueue_gone, config)

    @api.model
    def _enqueue_changed(self, config):
        try:
            self._enqueue_from_place(config)
        except CannotSend as exc:
            outbound = self.env["bj.api.sync.outbound"]
            request = outbound._prepare_request(config, self.env[config.model_name])
            outbound._log(config, request, status=exc.status, error_message=str(exc))
            if config.push_state:
                config._keep_place("push_state", config.push_state | {"error": str(exc)})

    @api.model
    def _enqueue_from_place(self, config):
        model = self.env[config.model_name].sudo()
        if not model._log_access:
            self._enqueue_inside(config, model.with_context(active_test=False).search([]).ids)
            return
        horizon = self._get_horizon()
        # what we see from here on has all that was committed before we looked at the clock
        transaction.commit_progress(self.env)
        state = {key: value for key, value in (config.push_state or {}).items() if key != "error"}
        if not state:
            state = {"since": horizon.isoformat(), "last_id": 0, "count": 0, "seen": {}}
            config._keep_place("push_state", state)
        if "last_id" in state:
            state = self._enqueue_all(config, model, state)
        self._enqueue_since(config, model, state, horizon)

    @api.model
    def _get_horizon(self):
        """Return the time from which on changes may still be committed that nobody sees yet.

        :rtype: datetime.datetime
        """
        self.env.cr.execute(
            "SELECT least(min(xact_start), now()) AT TIME ZONE 'UTC' FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return self.env.cr.fetchone()[0]

    @api.model
    def _enqueue_all(self, config, model, state):
        """The first run: all records, by id. Stopped, it goes on where it was."""
        while rows := self._fetch(model, SQL("id > %s", state["last_id"]), SQL("id")):
            _new, seen = self._skip_seen(rows, state)
            count = self._enqueue_inside(config, [record_id for record_id, _date in rows], "create")
            state = dict(state, last_id=rows[-1][0], count=state["count"] + count, seen=seen)
            config._keep_place("push_state", state, len(rows), len(rows) == PAGE)
        return {"since": state["since"], "seen": state["seen"]}

    @api.model
    def _enqueue_since(self, config, model, state, horizon):
        place = (datetime.fromisoformat(state["since"]), 0)
        while rows := self._fetch(model, SQL("(write_date, id) > %s", place), SQL("write_date, id")):
            record_id, date = rows[-1]
            place = (date, record_id)
            new, seen = self._skip_seen(rows, state)
            if new:
                self._enqueue_inside(config, new)
            state = dict(state, seen=seen)
            config._keep_place("push_state", state, len(new), len(rows) == PAGE)
        floor = horizon.isoformat()
        seen = {key: date for key, date in state["seen"].items() if date >= floor}
        config._keep_place("push_state", {"since": floor, "seen": seen})

    @api.model
    def _enqueue_inside(self, config, record_ids, operation="write"):
        """Queue records that are inside the filter domain; nobody asked for the others, so no log tells of them.

        :return: how many are
        :rtype: int
        :raises CannotSend: if the configuration sends nothing
        """
        outbound = self.env["bj.api.sync.outbound"]
        kept = outbound._choose(config, outbound._run_as(config, self.env[config.model_name].browse(record_ids)))
        if kept:
            self.env["bj.api.delivery"]._enqueue_chosen(config, kept, operation)
        return len(kept)

    @api.model
    def _enqueue_gone(self, config):
        """Tell of records that were queued once and were deleted: what is told is forgotten, in one transaction."""
        pushed, outbound = self.env["bj.api.sync.pushed"], self.env["bj.api.sync.outbound"]
        model, deliveries = self.env[config.model_name].sudo(), self.env["bj.api.delivery"]
        while rows := pushed._find_gone(config, model, PAGE):
            requests = [outbound._prepare_deletion(config, model.browse(key), keys) for key, keys in rows]
            deliveries._insert(config, requests, "unlink")
            pushed._forget(config, [key for key, _keys in rows])
            deliveries._wake_up()
            transaction.commit_progress(self.env, len(rows), len(rows) == PAGE)

    @api.model
    def _skip_seen(self, rows, state):
        """Tell which records were not queued as they are now, and remember those that may come again.

        :param rows: id and date of records
        :rtype: tuple[list[int], dict[str, str]]
        """
        dates, seen = {str(record_id): date.isoformat() for record_id, date in rows}, state["seen"]
        new = [int(key) for key, date in dates.items() if seen.get(key) != date]
        return new, seen | {key: date for key, date in dates.items() if date >= state["since"]}

    @api.model
    def _fetch(self, model, place, order):
        """Return id and date of a page of records: to the microsecond, which domains do not know."""
        model.flush_model(["write_date"])
        table = SQL.identifier(model._table)
        query = "SELECT id, coalesce(write_date, create_date, 'epoch') FROM %s WHERE %s ORDER BY %s LIMIT %s"
        return self.env.execute_query(SQL(query, table, place, order, PAGE))
