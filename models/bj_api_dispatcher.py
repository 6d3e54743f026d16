import base64
import logging
import random
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from math import ceil
from operator import attrgetter, methodcaller
from uuid import uuid4

import psycopg2
from psycopg2.extras import Json

from odoo import api, fields, models
from odoo.exceptions import UserError
from odoo.fields import Domain
from odoo.tools import SQL, config, groupby

from ..tools import backoff
from ..tools.lanes import Lanes, ring
from ..tools.transaction import bookkeeping, try_hold
from ..tools.transport import Call, Exchange, get_target
from .bj_api_delivery import HOLDING_SQL, NOW, NOW_SQL, OPEN_SQL, after
from .bj_api_sync_outbound import PreparedRequest

_logger = logging.getLogger(__name__)

CONNECTIONS = "bj_api_sync.connections_per_host"
#: seconds after which a claim that is not renewed may be taken over
LEASE = 60
#: deliveries a run has at hand per connection: enough to keep it busy, few enough to give back
AT_HAND = 25
#: seconds after which what waits for a configuration, or for another delivery, is looked at again
PAUSED = 60
#: seconds after which bookkeeping is tried again: a server that restarts is back before leases end
PAUSES = (0.5, 1, 2, 4, 8, 16)
#: seconds to wait for those who edit records that answers are written to: all that are noted together
PATIENCE = 5
#: seconds without a failure after which a configuration begins anew to fail: longer than any wait between attempts
SILENCE = 30 * 3600
#: how a database that is gone for a moment shows
GONE = (psycopg2.OperationalError, psycopg2.InterfaceError)
#: seconds a run goes on to look for work at least, before other scheduled actions have their turn
RUN = 10

#: what others of its record wait for
HOLDING = f"(SELECT * FROM bj_api_delivery WHERE {HOLDING_SQL})"  # noqa: S608
#: what another configuration has to tell holds a delivery up; but what an archived one has may never be told, unless it
#: is on the way
HOLDS = f"""
    FROM {HOLDING} AS e JOIN bj_api_sync_config AS f ON f.id = e.config_id
   WHERE e.model = d.model AND e.target = d.target AND e.id < d.id
     AND (f.active OR e.claim IS NOT NULL AND e.next_attempt > {NOW_SQL})
"""
#: a deletion comes behind what others have to tell there of the record, or it would be there again; but not if they
#: tell its deletion as well, or they would wait for each other. What tells of a record comes behind the deletion of
#: another one with its identifier, or that would delete it
UNTOLD = f"""
    d.operation = 'unlink' AND EXISTS (
        SELECT {HOLDS} AND e.record_id = d.record_id AND e.operation <> 'unlink'
           AND NOT EXISTS (SELECT FROM bj_api_delivery AS g
                            WHERE g.config_id = e.config_id AND g.record_id = e.record_id AND g.model = e.model
                              AND g.operation = 'unlink' AND g.id > e.id AND g.{OPEN_SQL}))
    OR d.operation <> 'unlink' AND EXISTS (
        SELECT {HOLDS} AND e.identifier = d.identifier AND e.operation = 'unlink'
           AND e.record_id IS DISTINCT FROM d.record_id)
"""  # noqa: S608  made of constants
#: open deliveries of a pair of target and configuration
OF_PAIR = f"FROM bj_api_delivery AS d WHERE {OPEN_SQL} AND d.target = pair.target AND d.config_id = pair.config_id"
#: what there is to know of a pair
FACTS = f"""
    SELECT pair.target, pair.config_id, c.coalesce_pending, c.authorization_type, t.failures,
           c.connection_timeout + c.read_timeout AS patience,
           date_part('epoch', greatest(t.paused_until - {NOW_SQL}, t.probe_until - {NOW_SQL}, interval '0')) AS pause,
           -- until one more is due, or those are looked at again that are due and wait for others
           date_part('epoch', least(
               (SELECT min(next_attempt) {OF_PAIR} AND next_attempt > {NOW_SQL}),
               (SELECT {NOW_SQL} + interval '{PAUSED}s' {OF_PAIR} AND next_attempt <= {NOW_SQL} LIMIT 1)
           ) - {NOW_SQL}) AS wait,
           EXISTS (SELECT {OF_PAIR} AND next_attempt <= {NOW_SQL} AND NOT ({UNTOLD})) AS is_due
      FROM pair
      JOIN bj_api_sync_config AS c ON c.id = pair.config_id AND c.active AND c.is_paused IS NOT TRUE
       AND c.request_type = 'out' AND c.is_pull IS NOT TRUE
      LEFT JOIN bj_api_target AS t ON t.name = pair.target
"""  # noqa: S608  made of constants
#: the pair of one delivery
PAIR = f"WITH pair AS (SELECT target, config_id FROM bj_api_delivery WHERE {OPEN_SQL} AND id = %s) {FACTS}"  # noqa: S608
#: the targets and configurations that have open deliveries, found by one index probe each
PAIRS = f"""
    WITH RECURSIVE pair AS (
        (SELECT target, config_id FROM bj_api_delivery WHERE {OPEN_SQL} ORDER BY target, config_id LIMIT 1)
        UNION ALL
        SELECT following.* FROM pair, LATERAL (
            SELECT target, config_id FROM bj_api_delivery AS d
             WHERE {OPEN_SQL} AND (d.target, d.config_id) > (pair.target, pair.config_id)
             ORDER BY target, config_id LIMIT 1) AS following
    )
    {FACTS}
"""  # noqa: S608  made of constants
#: an earlier delivery of the same record is open: the order of a record is kept
BLOCKED = f"""
    EXISTS (SELECT FROM {HOLDING} AS e
             WHERE e.config_id = d.config_id AND e.record_id = d.record_id AND e.id < d.id)
"""
#: only the newest of a record is sent, but never beside one that is on the way
SUPERSEDED = f"""
    EXISTS (SELECT FROM {HOLDING} AS e
             WHERE e.config_id = d.config_id AND e.record_id = d.record_id
               AND CASE WHEN e.id < d.id THEN e.claim IS NOT NULL ELSE e.id > d.id AND d.state <> 'sending' END)
"""
#: the same between lists, and between lists and single records; "+ 0" keeps the planner from any index but that
#: of the lists, in which few have a record in common
BLOCKED_BY_LIST = f"""
    EXISTS (SELECT FROM {HOLDING} AS e
             WHERE e.record_ids && d.record_ids AND e.record_id IS NULL
               AND e.config_id + 0 = d.config_id AND e.id + 0 < d.id)
    OR d.record_id IS NULL AND EXISTS (
        SELECT FROM {HOLDING} AS e
         WHERE e.config_id = d.config_id AND e.record_id = ANY(d.record_ids) AND e.id < d.id)
"""  # noqa: S608  made of constants
#: how long one delivery must wait at least, for itself and for what is to be tried again before it
WAIT = f"""
    SELECT d.state, d.last_error, CASE WHEN d.{OPEN_SQL} THEN date_part('epoch', greatest(
               d.next_attempt, (SELECT max(e.next_attempt) FROM bj_api_delivery AS e
                                 WHERE e.config_id = d.config_id AND e.record_id = d.record_id AND e.id < d.id
                                   AND e.{OPEN_SQL} AND e.state = 'failed'),
               CASE WHEN {UNTOLD} THEN {NOW_SQL} + interval '{PAUSED}s' END) - {NOW_SQL}) END
      FROM bj_api_delivery AS d WHERE d.id = %s
"""  # noqa: S608  made of constants
#: the columns are those of a request, then those of a job, see `Job.read`
CLAIM = f"""
    WITH due AS (
        SELECT d.id, d.state FROM bj_api_delivery AS d
         WHERE d.target = %(target)s AND d.config_id = %(config)s AND d.{OPEN_SQL} AND d.next_attempt <= {NOW_SQL}
           AND d.claim IS DISTINCT FROM %(claim)s AND %(which)s AND NOT (%(blocked)s OR {BLOCKED_BY_LIST} OR {UNTOLD})
         ORDER BY d.next_attempt, d.id
         LIMIT %(limit)s
           FOR UPDATE SKIP LOCKED
    )
    UPDATE bj_api_delivery AS d
       SET state = 'sending', claim = %(claim)s, attempt_count = attempt_count + 1, next_attempt = %(lease)s
      FROM due
     WHERE d.id = due.id
    RETURNING d.method, d.model, d.record_ids, d.idempotency_key, d.url, d.body, d.content_type,
              d.url_source, d.id, d.target, d.config_id, d.attempt_count, d.user_id, due.state = 'sending',
              d.attempt_count > 1 AND d.last_code = 401
"""  # noqa: S608  made of constants


@dataclass(slots=True)
class Job:
    """A delivery that was claimed: what is needed to send it, what came of that, and what becomes of it then."""

    id: int
    target: str
    config_id: int
    attempts: int
    user_id: int | None
    #: another run had claimed it, and did not live to note what came of it
    is_lapsed: bool
    #: its last attempt was refused, and its access token was renewed for this one
    is_renewed: bool
    request: PreparedRequest
    #: ``time.monotonic()`` up to which it may begin
    lease: float
    call: Call | None = None
    #: none as long as it is on the way, and where it began too late
    exchange: Exchange | None = None
    #: ``sent``, ``failed`` (again after ``delay`` seconds) or ``dead``
    state: str = ""
    error: str = ""
    delay: float = 0
    #: seconds for which its target asked to be left alone
    retry_after: float = 0

    @classmethod
    def read(cls, row):
        """Return the job that a claimed row is."""
        method, model, record_ids, key, url, body, content_type, source, *columns = row
        body = body and base64.b64decode(bytes(body))
        values = {"url": url, "body": body, "content_type": content_type or "", "source": source}
        request = PreparedRequest(method, model, tuple(record_ids or ()), key, **values)
        return cls(*columns, request, time.monotonic() + LEASE - 10)

    def decide(self, state, error="", delay=0, retry_after=0):
        """Say what becomes of the delivery."""
        error = error.encode(errors="replace").decode().replace("\0", "")  # what others say can be anything
        self.state, self.error, self.delay, self.retry_after = state, error, delay, retry_after


class BjApiDispatcher(models.AbstractModel):
    """Sends deliveries: claims what is due, has threads wait for the network, and notes what came of it.

    Any number of them may run, in any number of processes: a delivery is claimed by one of them, for a time.
    All they share is in the database.
    """

    _name = "bj.api.dispatcher"
    _description = "API Dispatcher"

    @api.model
    def _run(self):
        """Send what is due until nothing is, or until the time of a scheduled action is over."""
        run = _Run(self.env["bj.api.sync.client"], self.env["bj.api.log"]._get_number(CONNECTIONS, 10))
        wait = LEASE  # should this run break off, the next one finds what it had claimed
        try:
            while True:
                due = self._insist(lambda room: room._claim(run)) if run.may_claim() else 0
                run.send_claimed()
                if not run.lanes.load:
                    wait = due
                    break
                done = run.lanes.take(0.5)
                if done:
                    self._settle(run, done)
                    self._note_progress(run, done)
                if run.is_renewal_due():
                    self._insist(lambda room: room._renew(run))
        finally:
            run.lanes.close()
            self._plan_next(wait)

    @api.model
    def _send_one(self, delivery_id):
        """Send one delivery, if it may be sent now, and note what came of it.

        :return: its state, what is to be said about it, and the seconds it must wait, None if it is done
        :rtype: tuple[str, str, float | None]
        """
        run = _Run(self.env["bj.api.sync.client"], 1)
        with bookkeeping(self.env) as env:
            own = self.with_env(env)
            env.cr.execute(PAIR, [delivery_id])
            pair = env.cr.dictfetchone()
            may_send = pair and not pair["pause"]
            jobs, token_wait = own._take(run, pair, 1, delivery_id) if may_send else ([], 0)
        for job in jobs:
            _attempt(self.env["bj.api.sync.client"], job)
            self._settle(run, [job])
        with bookkeeping(self.env) as env:
            env.cr.execute(WAIT, [delivery_id])
            state, message, wait = env.cr.fetchone() or ("deleted", "", None)
        if wait is None:
            return state, message or "", None
        # those that wait for the end of a rest do not all come back in the same second
        rest = pair["pause"] * (1 + random.random()) if pair else PAUSED  # noqa: S311  no secret
        return state, message or "", max(wait, rest, token_wait, 1)

    # ------------------------------------------------------------------
    # Claims
    # ------------------------------------------------------------------

    @api.model
    def _claim(self, run):
        """Claim what is due and there is room for; it may be sent once that is committed.

        :return: seconds until something more is due, None if nothing will be
        :rtype: float | None
        """
        run.claimed, waits = [], []
        for pair in self.env.execute_query_dict(SQL(PAIRS)):
            rest, room = pair["pause"], run.get_room(pair["target"])
            waits.append(max(rest, 0 if pair["is_due"] else pair["wait"]))
            if waits[-1] or not room:
                continue
            jobs, token_wait = self._take(run, pair, room)
            waits[-1] = 0 if jobs else token_wait or max(pair["wait"], 1)
            run.claimed += jobs
        return min(waits, default=None)

    @api.model
    def _take(self, run, pair, room, delivery_id=None):
        """Claim due deliveries of one target and configuration, with all that is needed to send them.

        :return: the jobs, and the seconds to wait for an access token
        :rtype: tuple[list[Job], float]
        """
        config, tokens = self.env["bj.api.sync.config"].browse(pair["config_id"]), self.env["bj.api.sync.token"]
        grant = tokens._take(config, is_patient=True) if pair["authorization_type"] == "oauth2" else None
        if grant and grant.wait:
            return [], grant.wait
        # without a token, nothing is claimed but what asks for it
        jobs = self._claim_pair(run, pair, room if not grant or grant.token else 1, delivery_id)
        self._prepare(run, jobs, grant)
        if grant and grant.request and not any(job.call.token_call for job in jobs):
            tokens._give_back(config.id)
        return jobs, 0

    @api.model
    def _claim_pair(self, run, pair, room, delivery_id=None):
        """Claim due deliveries of one target and configuration; of a target that failed, one to probe it.

        :param int delivery_id: claim no other than this one
        :rtype: list[Job]
        """
        is_probe = (pair["failures"] or 0) >= backoff.BREAKER_FAILURES
        if is_probe and not self._may_probe(run, pair["target"]):
            return []
        # one claims at a time: what is newest is not known beside another
        if pair["coalesce_pending"] and not try_hold(self.env.cr, "claims", pair["config_id"]):
            return []
        claim = SQL(
            CLAIM,
            target=pair["target"],
            config=pair["config_id"],
            which=SQL("d.id = %s", delivery_id) if delivery_id else SQL("TRUE"),
            blocked=SQL(SUPERSEDED if pair["coalesce_pending"] else BLOCKED),
            limit=1 if is_probe else room,
            claim=run.claim,
            lease=after(LEASE + (pair["patience"] if delivery_id else 0)),  # a single one is not renewed
        )
        jobs = sorted(map(Job.read, self.env.execute_query(claim)), key=attrgetter("id"))
        if jobs and is_probe:
            probe = SQL("UPDATE bj_api_target SET probe_until = %s WHERE name = %s", after(LEASE), pair["target"])
            self.env.cr.execute(probe)
        if jobs and pair["coalesce_pending"]:
            self._supersede(jobs)
        self._note_lapsed([job for job in jobs if job.is_lapsed])
        return jobs

    @api.model
    def _may_probe(self, run, target):
        """Take the right to probe a target, until the end of the transaction; nobody else has it then."""
        query = """
            SELECT FROM bj_api_target WHERE name = %s AND greatest(paused_until, probe_until) <= %s
               FOR UPDATE SKIP LOCKED"""
        self.env.cr.execute(SQL(query, target, NOW))
        return self.env.cr.rowcount and not run.get_load(target)

    @api.model
    def _supersede(self, jobs):
        """Cancel what is older than the claimed deliveries of the same records."""
        message = self.env._("Replaced by a newer delivery of the same record.")
        query = """
            UPDATE bj_api_delivery AS d SET state = 'cancelled', last_error = %s, done_date = %s
              FROM bj_api_delivery AS newer
             WHERE newer.id = ANY(%s) AND d.config_id = newer.config_id AND d.record_id = newer.record_id
               AND d.id < newer.id AND d.state IN ('pending', 'failed')"""
        self.env.cr.execute(SQL(query, message, NOW, [job.id for job in jobs]))

    @api.model
    def _note_lapsed(self, jobs):
        message = self.env._("The process that sent it was stopped before an answer came. It may have arrived.")
        self._insert_attempts([(job.id, 0, 0, message) for job in jobs])

    @api.model
    def _prepare(self, run, jobs, grant):
        """Add the credentials; the first one asks for a new token, if need be."""
        client = self.env["bj.api.sync.client"]
        for job in jobs:
            config = self.env["bj.api.sync.config"].browse(job.config_id)
            try:
                self._readdress(config, job)
            except UserError as exc:
                job.call = Call(job.request.method, job.request.url, refusal=str(exc), failure="url")
                continue
            job.call, most = client._prepare_call(config, job.request, grant=grant), run.get_seconds_left()
            if job.call.token_call:
                grant, most = replace(grant, request=None), most / 2
            if job.call.read_timeout > most:
                job.call = replace(job.call, read_timeout=most)

    @api.model
    def _readdress(self, config, job):
        """Have a job go where its configuration points by now.

        :raises UserError: if that cannot be told
        """
        request = self.env["bj.api.sync.outbound"]._readdress(config, job.request)
        target = get_target(request.url)
        if request is not job.request or target != job.target:
            query = "UPDATE bj_api_delivery SET url = %s, url_source = %s, target = %s WHERE id = %s"
            self.env.cr.execute(SQL(query, request.url, Json(request.source), target, job.id))
            job.request, job.target = request, target

    @api.model
    def _renew(self, run):
        """Keep what we claimed, as long as we live; what was cancelled does not begin any more."""
        query = "UPDATE bj_api_delivery SET next_attempt = %s WHERE id = ANY(%s) AND claim = %s RETURNING id, state"
        renewed = self.env.execute_query(SQL(query, after(LEASE), list(run.jobs), run.claim))
        run.renew({delivery_id for delivery_id, state in renewed if state == "sending"})

    @api.model
    def _release(self, run, jobs):
        """Give claimed deliveries back that no thread began."""
        for job in jobs:
            run.jobs.pop(job.id, None)
        query = """
            UPDATE bj_api_delivery SET claim = NULL, next_attempt = %s, attempt_count = greatest(attempt_count - 1, 0),
                   state = CASE WHEN state = 'cancelled' THEN state WHEN attempt_count > 1 THEN 'failed'
                                ELSE 'pending' END
             WHERE id = ANY(%s) AND claim = %s"""
        self.env.cr.execute(SQL(query, NOW, [job.id for job in jobs], run.claim))

    # ------------------------------------------------------------------
    # Results
    # ------------------------------------------------------------------

    @api.model
    def _settle(self, run, jobs):
        """Note what came of some deliveries: in one transaction, whatever their number.

        What the answers bring is written before: if we are stopped in between, the delivery is sent once more,
        with the same id, but nothing is missed.
        """
        try:
            self._settle_together(run, jobs)
        except GONE:
            raise
        except Exception as exc:  # whatever it is: nothing must be sent again because of it, least of all others
            if len(jobs) > 1:
                for job in jobs:
                    self._settle(run, [job])
                return
            [job] = jobs
            if not job.exchange:
                raise
            _logger.exception("What came of a delivery could not be noted")
            job.decide("dead", f"{type(exc).__name__}: {exc}")
            self._insist(lambda room: room._update_states(run, jobs))
            run.jobs.pop(job.id, None)

    @api.model
    def _settle_together(self, run, jobs):
        late = [job for job in jobs if not job.exchange]
        done = [job for job in jobs if job.exchange]
        done, answers = self._insist(lambda room: room._judge(done))
        notes, patience = {}, time.monotonic() + PATIENCE
        for job in answers:
            notes[job.id] = self._insist(methodcaller("_read_back", job, patience - time.monotonic()))
            if run.is_renewal_due():
                self._insist(lambda room: room._renew(run))
        for job in done:
            self._decide(job, notes.get(job.id))
        self._insist(lambda room: room._note_results(run, done, late))
        for job in done:
            run.jobs.pop(job.id, None)
        self._notify(done)

    @api.model
    def _insist(self, work):
        """Do bookkeeping; again if the database is gone for a moment: what was sent must not be sent again.

        :param work: called with this room on a short transaction
        :raises psycopg2.Error: if the database does not come back before our claims are those of others
        """
        for pause in PAUSES:
            try:
                with bookkeeping(self.env) as env:
                    return work(self.with_env(env))
            except GONE:
                _logger.info("The database is gone; once more in %s s", pause, exc_info=True)
                time.sleep(pause)
        with bookkeeping(self.env) as env:
            return work(self.with_env(env))

    @api.model
    def _judge(self, jobs):
        """Judge the exchanges.

        :return: the jobs, and those whose answer is to be read back
        :rtype: tuple[list[Job], list[Job]]
        """
        jobs = self._filter_existing(jobs)
        for job in jobs:
            self.env["bj.api.sync.client"]._judge(self.env["bj.api.sync.config"].browse(job.config_id), job.exchange)
        plan = self.env["bj.api.sync.mapper"]._plan
        return jobs, [job for job in jobs if job.exchange.outcome == "success" and plan(job.config_id).answer_lines]

    @api.model
    def _filter_existing(self, jobs):
        """Return those whose configuration is there: one that was deleted meanwhile took its deliveries with it."""
        configs = self.env["bj.api.sync.config"].browse({job.config_id for job in jobs}).exists()
        return [job for job in jobs if job.config_id in configs._ids]

    @api.model
    def _read_back(self, job, patience):
        """Write what was answered to the records.

        :param float patience: seconds to wait for who edits them
        :return: what went wrong
        :rtype: str
        """
        self.env.cr.execute("SELECT set_config('lock_timeout', %s, true)", [f"{max(int(patience * 1000), 100)}ms"])
        outbound, config = self.env["bj.api.sync.outbound"], self.env["bj.api.sync.config"].browse(job.config_id)
        if not config.exists():
            return ""
        records = outbound._run_as(config, self.env[job.request.model].browse(job.request.record_ids))
        return outbound._read_back(config, records, job.exchange)

    @api.model
    def _decide(self, job, note):
        """Decide what becomes of a delivery.

        :param str note: what went wrong with an answer that was read back
        """
        exchange = job.exchange
        if exchange.outcome == "success":
            return job.decide("sent", note or "")
        if exchange.outcome == "renew" and not job.is_renewed:
            return job.decide("failed", exchange.error)
        retry_after = backoff.parse_retry_after(exchange.headers.get("Retry-After"))
        delay = backoff.get_delay(job.attempts) if exchange.outcome == "retry" else None
        if delay is None:
            return job.decide("dead", exchange.error)
        return job.decide("failed", exchange.error, max(delay, retry_after), retry_after)

    @api.model
    def _note_results(self, run, done, late):
        """Write attempts, states, logs, and how the targets fare."""
        done = self._filter_existing(done)
        self._insert_attempts([(job.id, job.exchange.status_code, job.exchange.duration, job.error) for job in done])
        if done:
            self._update_states(run, done)
            configs = self.env["bj.api.sync.config"].browse({job.config_id for job in done})
            configs.fetch(("name", "company_id", "authorization_type", "request_url"))  # not all there is of them
            self.env["bj.api.log"]._write_batch([self._prepare_log(job) for job in done])
        reached = [job for job in done if not job.exchange.is_grant and not job.exchange.call.refusal]
        # in one order for everybody, so that nobody waits for each other
        for target, same in sorted(groupby(reached, key=attrgetter("target"))):
            if self._note_target(target, same) or any(job.exchange.outcome == "renew" for job in same):
                late += run.lanes.withdraw(target)  # stays with the caller, should this be done once more
        for config_id, same in sorted(groupby(done, key=attrgetter("config_id"))):
            self._note_config(config_id, any(job.state == "sent" for job in same))
        if late:
            self._release(run, late)

    @api.model
    def _prepare_log(self, job):
        config, outbound = self.env["bj.api.sync.config"].browse(job.config_id), self.env["bj.api.sync.outbound"]
        log = outbound._prepare_exchange_log(config, job.request, job.exchange, job.error)
        return log | {"delivery_id": job.id, "user_id": job.user_id}

    @api.model
    def _update_states(self, run, jobs):
        rows = ((job.id, job.state, job.exchange.status_code, job.error or None, job.delay) for job in jobs)
        query = """
            UPDATE bj_api_delivery AS d
               SET state = CASE WHEN d.state = 'cancelled' AND v.state <> 'sent' THEN d.state ELSE v.state END,
                   last_code = v.code, last_error = v.error, claim = NULL,
                   next_attempt = CASE v.state WHEN 'failed' THEN %s + interval '1s' * v.delay END,
                   done_date = CASE WHEN v.state = 'failed' AND d.state <> 'cancelled' THEN NULL ELSE %s END
              FROM unnest(%s::int[], %s::text[], %s::int[], %s::text[], %s::float8[])
                   AS v (id, state, code, error, delay)
             WHERE d.id = v.id AND (d.claim = %s
                                    OR v.state = 'sent' AND d.state = 'cancelled')  -- it has arrived nevertheless"""
        self.env.cr.execute(SQL(query, NOW, NOW, *map(list, zip(*rows, strict=True)), run.claim))

    @api.model
    def _insert_attempts(self, rows):
        if rows:
            query = """
                INSERT INTO bj_api_delivery_attempt (create_date, delivery_id, code, duration, error)
                SELECT %s, d.id, v.code, v.duration, nullif(v.error, '')
                  FROM unnest(%s::int[], %s::int[], %s::float8[], %s::text[]) AS v (id, code, duration, error)
                  JOIN bj_api_delivery AS d ON d.id = v.id  -- some may have been deleted"""
            self.env.cr.execute(SQL(query, NOW, *map(list, zip(*rows, strict=True))))

    @api.model
    def _note_target(self, target, jobs):
        """Count the failures in a row of a target, and give it a rest if it needs one.

        :return: whether it is to be left alone
        :rtype: bool
        """
        retry_after = max(job.retry_after for job in jobs)
        failed = 0  # at the end of these results
        for job in jobs:
            failed = failed + 1 if job.exchange.outcome == "retry" else 0
        query = "SELECT failures, paused_until > %s FROM bj_api_target WHERE name = %s FOR UPDATE"
        self.env.cr.execute(SQL(query, NOW, target))
        known, is_resting = self.env.cr.fetchone() or (0, False)
        failures, rest = known if failed == len(jobs) else 0, retry_after
        if failed and not (failures and is_resting):  # what was on the way when the rest began says nothing new
            # those that were on the way together are one failure more, once it rests at all
            failures = max(failures + 1, min(failures + failed, backoff.BREAKER_FAILURES))
            rest = max(backoff.get_rest(failures), retry_after)
        if failures != known or rest:
            query = """
                INSERT INTO bj_api_target AS t (name, failures, paused_until) VALUES (%s, %s, %s)
                ON CONFLICT (name) DO UPDATE SET failures = excluded.failures, probe_until = NULL,
                    paused_until = greatest(t.paused_until, excluded.paused_until)"""
            self.env.cr.execute(SQL(query, target, failures, after(rest)))
        return bool(rest or (failed and is_resting))

    @api.model
    def _note_config(self, config_id, success):
        """Keep since when a configuration fails, without success or a long silence in between; after days it is paused.

        The row is written once an hour at most: people who save it must not meet with every failure.
        """
        if success:
            query = "UPDATE bj_api_sync_config SET failing_since = NULL WHERE id = %s AND failing_since IS NOT NULL"
            self.env.cr.execute(query, [config_id])
            return
        query = """
            UPDATE bj_api_sync_config SET last_failure = %(now)s, failing_since =
                   CASE WHEN last_failure > %(silence)s THEN coalesce(failing_since, %(now)s) ELSE %(now)s END
             WHERE id = %(id)s AND (failing_since IS NULL OR last_failure < %(hour)s)"""
        self.env.cr.execute(SQL(query, now=NOW, silence=after(-SILENCE), hour=after(-3600), id=config_id))

    @api.model
    def _notify(self, jobs):
        """Tell people what was given up, and pause what fails for days."""
        gave_up = [job for job in jobs if job.state == "dead"]
        failed = {job.config_id for job in jobs if job.state != "sent"}
        if not failed:
            return
        with bookkeeping(self.env) as env:
            configs = env["bj.api.sync.config"]
            for config_id, same in groupby(gave_up, key=attrgetter("config_id")):
                configs.browse(config_id)._notify_dead(same[-1].error)
            configs.browse(failed)._pause_failing()

    # ------------------------------------------------------------------
    # The next run
    # ------------------------------------------------------------------

    @api.model
    def _note_progress(self, run, done):
        """Tell Odoo once that this run does something: one killed three times with nothing done is put off."""
        if not run.is_useful and self.env.context.get("cron_id"):
            run.is_useful = True
            with suppress(*GONE):  # then it is told at the end, when nothing is on the way any more
                self.env["ir.cron"]._commit_progress(len(done), remaining=0)

    @api.model
    def _plan_next(self, wait):
        """Come back when something is due.

        Odoo looks at the clock of its scheduled actions once a minute. So that a retry after seconds is one, this
        process wakes itself; if it does not live that long, the minute it is.

        :param wait: seconds, or None
        """
        cron = self.env["ir.cron"].browse(self.env.context.get("cron_id"))
        if not cron:
            return
        if wait is not None:
            due = ceil(time.time() + wait)
            with bookkeeping(self.env) as env:  # whatever became of our own transaction
                self.with_env(env)._trigger_at(cron.id, datetime.fromtimestamp(due, timezone.utc).replace(tzinfo=None))
            if wait < 60:
                ring(self.env.cr.dbname, due, cron._notifydb)
        cron._commit_progress(remaining=0)

    @api.model
    def _trigger_at(self, cron_id, at):
        # what started this run is still there, and gone when it ends
        to_come = Domain("cron_id", "=", cron_id) & Domain("call_at", ">", fields.Datetime.now())
        if not self.env["ir.cron.trigger"].search_count(to_come & Domain("call_at", "<=", at), limit=1):
            self.env["ir.cron"].browse(cron_id)._trigger(at)


class _Run:
    """What one run of the dispatcher has in hand. No environment: it outlives the transactions."""

    def __init__(self, client, width):
        self.claim, self.claimed, self.jobs = uuid4().hex, [], {}
        self.width = max(width, 1)
        self.lanes = Lanes(lambda job: _attempt(client, job), self.width)
        self.start, self.renewal = time.monotonic(), time.monotonic() + LEASE / 3
        limit = config["limit_time_real_cron"]
        limit = config["limit_time_real"] if limit < 0 else limit
        self.limit = limit or float("inf")
        self._late, self.is_useful = None, False

    def may_claim(self):
        """After the time of a run only those go on who did not cause it to last: others are waited for anyway."""
        elapsed = time.monotonic() - self.start
        if elapsed < RUN:
            return True
        busy = self.lanes.get_busy()
        self._late = busy if self._late is None else self._late & busy
        return bool(self._late) and elapsed < self.limit / 2

    def get_load(self, target):
        """Return how many deliveries of a target are at hand."""
        return self.lanes.get_load(target) + sum(job.target == target for job in self.claimed)

    def get_room(self, target):
        """Return how many deliveries of a target may be claimed now: none as long as enough are at hand."""
        load, most = self.get_load(target), self.width * AT_HAND
        return 0 if load > most / 2 or (self._late and target in self._late) else most - load

    def get_seconds_left(self):
        """Return how long an attempt may take at most, for it to end before Odoo ends this process."""
        return max(self.limit - (time.monotonic() - self.start) - 15, 1)

    def send_claimed(self):
        """Have sent what was claimed."""
        for job in self.claimed:
            self.jobs[job.id] = job
            self.lanes.put(job)
        self.claimed = []

    def is_renewal_due(self):
        return time.monotonic() > self.renewal

    def renew(self, ids):
        """Note which claims are still ours; the others must not begin any more."""
        now = self.renewal = time.monotonic()
        self.renewal += LEASE / 3
        for job in self.jobs.values():
            job.lease = now + LEASE - 10 if job.id in ids else 0


def _attempt(client, job):
    """Send, in a thread."""
    try:
        job.exchange = client._transmit(job.call)
    except Exception as exc:  # whatever it is, the thread must give its job back
        _logger.exception("Delivery %s", job.id)
        job.exchange = Exchange(job.call, url=job.call.url, failure="broken", detail=str(exc))
