import hashlib
import json
import logging
import math
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from odoo import fields, models
from odoo.exceptions import ConcurrencyError, UserError
from odoo.tools import SQL

from ..tools import backoff, paging, transaction
from ..tools.transport import MAX_ANSWER, get_host, is_same_origin
from .bj_api_delivery import NOW
from .bj_api_sync_inbound import TRACKING_DISABLED

_logger = logging.getLogger(__name__)

#: seconds of one run; the next one follows at once, after other scheduled actions had their turn
SECONDS = 10
#: seconds that later pulls look back: clocks differ, and what began before was committed after
SINCE_MARGIN = 300
#: seconds after the longest possible request when a run is taken for dead
LEASE = 60
#: failures in a row at one cursor or URL after which it is taken for expired
EXPIRED_AFTER = 3
#: characters of a cursor or URL that is kept
MAX_PLACE = 8000
COUNTS = ("pages", "created", "updated", "failed")


@dataclass
class Pulled:
    """What came of one run: pages, records created and updated (unchanged ones too), items that failed.

    ``is_complete`` tells whether the last page was reached, ``error`` why the run stopped before.
    """

    pages: int = 0
    created: int = 0
    updated: int = 0
    failed: int = 0
    is_complete: bool = False
    error: str = ""

    @property
    def is_settled(self):
        """Whether there is nothing more to do for now."""
        return self.is_complete or bool(self.error)


class BjApiSyncPull(models.AbstractModel):
    """The pull: the other system's records, page after page, through the mapping into Odoo.

    The items of a page and the place behind it are committed together: stopped at any time, a pull goes on where it
    was, and a page that was written but not committed is fetched again, which changes nothing, for records are found
    by their identifier.

    The state, kept on the configuration, times being UTC: ``since`` (what a later pull asks for), the counts of this
    or the last pull, ``ended`` or, under way, ``started``, ``size`` (of the pages), ``place`` (page number, offset,
    cursor or URL, none on the first page), ``mark`` (what loops are found by) and ``due`` (when it goes on by
    itself); after a failure ``error``, ``attempts`` and ``not_before`` (``Retry-After``).
    """

    _name = "bj.api.sync.pull"
    _description = "API Pull"

    # ------------------------------------------------------------------
    # Runs
    # ------------------------------------------------------------------

    def _pull(self, config):
        """Pull until there is no more, something fails, or this run's time is up.

        :param config: an outbound `bj.api.sync.config` that pulls, as superuser
        :rtype: Pulled
        """
        result, end = Pulled(), time.monotonic() + SECONDS
        transaction.commit_progress(self.env)  # what we see from here on has what other runs left
        while (state := self._begin_page(config, result)) is not None:
            state = self._pull_page(config, state, result)
            is_late = time.monotonic() >= end
            if is_late and not result.is_settled:
                state = self._come_back(state, 0)
            config._keep_place("pull_state", state, 1)
            if is_late or result.is_settled:
                break
        return result

    def _cron_pull(self):
        """Go on with the pulls that are due, the longest waiting first, while there is time."""
        self.env.cr.execute(
            "SELECT id FROM bj_api_sync_config WHERE active AND is_pull AND pull_state->>'due' <= %s"
            " ORDER BY pull_state->>'due', id",
            [_stamp()],
        )
        config_ids, cron = [config_id for (config_id,) in self.env.cr.fetchall()], self.env["ir.cron"]
        for position, config_id in enumerate(config_ids):
            if not cron._commit_progress(remaining=len(config_ids) - position):
                return
            try:
                self.env["bj.api.sync.config"].browse(config_id)._pull()
            except Exception:  # whatever it is, it must not keep the others from their turn
                self.env.cr.rollback()
                _logger.exception("The pull of API configuration %s failed", config_id)
        cron._commit_progress(remaining=0)

    # ------------------------------------------------------------------
    # Pages
    # ------------------------------------------------------------------

    def _begin_page(self, config, result):
        """Take the lock of a pull, and return its state; None, and the result says why, if it cannot go on now."""
        if not transaction.try_hold(self.env.cr, "pull", config.id):
            result.error = self.env._("Another run pulls already.")
            return None
        config.invalidate_recordset(["pull_state"])
        state = self._start(config)
        if not config.active:
            result.error = self.env._("%(config)s is archived: nothing is pulled.", config=config.name)
        elif state.get("not_before", "") > _stamp():
            host = get_host(config.request_url)
            result.error = self.env._(
                "%(host)s asked to wait until %(time)s (UTC).", host=host, time=state["not_before"]
            )
        return None if result.error else state

    def _start(self, config):
        """Return the state of the pull that is under way, or of a new one."""
        state = dict(config.pull_state or {})
        if "started" not in state:
            since = {"since": state["since"]} if "since" in state else {}
            state = {"started": _stamp(), **dict.fromkeys(COUNTS, 0), **since}
        if "place" not in state or config.pull_paging != "page":  # page numbers mean nothing with another size
            state["size"] = min(config.page_size, config.limit)
        return state

    def _pull_page(self, config, state, result):
        """Fetch a page and write its items.

        :return: the state behind it, or what a failure made of it
        :rtype: dict
        """
        outbound, exchange = self.env["bj.api.sync.outbound"], None
        request = outbound._prepare_request(config, self.env[config.model_name], url=config.request_url)
        try:
            env = self._get_env(config)
            env["bj.api.sync.mapper"]._check_identifier(env["bj.api.sync.mapper"]._plan(config.id, "in"))
            request = replace(request, url=self._build_url(config, state))
            exchange = self.env["bj.api.sync.client"]._send(config, request)
            answer = self._parse(config, exchange)
            items = self._get_items(config, answer)
            place = self._get_next(config, state, exchange, answer, items)
            mark = self._check_loop(state, place, items)
        except UserError as exc:
            return self._fail(config, state, request, exchange, result, str(exc))
        self._lock(config, items)
        rows, errors = self._write(config, env, items)
        created, ids = sum(row.created for row in rows), tuple(row.record_id for row in rows if row.record_id)
        counts = {"pages": 1, "created": created, "updated": len(ids) - created, "failed": len(errors)}
        for name, count in counts.items():
            setattr(result, name, getattr(result, name) + count)
            state[name] += count
        self._log(config, replace(request, record_ids=ids), exchange, items, errors)
        return self._advance(config, state, place, mark, result)

    def _get_env(self, config):
        """Return the environment the records are written in: that of the configuration's user and company.

        :raises UserError: where that user may not work any more
        """
        user, company = config.user_id, config.company_id or config.user_id.company_id
        if not user.active or company not in user.company_ids:
            raise UserError(
                self.env._(
                    "%(user)s is archived, or has no access to %(company)s: choose another user to run as.",
                    user=user.name,
                    company=company.name,
                )
            )
        records = self.env["bj.api.sync.outbound"]._run_as(config, self.env[config.model_name])
        # what arrives there from now on is not known to the page
        [[now]] = self.env.execute_query(SQL("SELECT %s", NOW))
        # what is pulled comes from this configuration: its own triggers have nothing to tell
        context = {"bj_api_sync_from": config.id, "bj_api_sync_asked": now}
        context |= TRACKING_DISABLED if config.tracking_disable else {}
        return records.with_context(**context).env

    def _lock(self, config, items):
        """Keep others who write the same identifiers apart, and see what they wrote, in a transaction that begins here.

        Where the caller has the transaction, it cannot.
        """
        if not transaction.may_commit(self.env):
            return
        plan, former = self.env["bj.api.sync.mapper"]._plan(config.id, "in"), config.pull_state
        objects = [item for item in items if isinstance(item, dict)]
        identifiers = self.env["bj.api.sync.inbound"]._list_identifiers(plan, objects)
        transaction.lock(self.env.cr, identifiers, "pull", config.id)  # the latter is ours already
        if config.pull_state != former:
            raise ConcurrencyError(self.env._("%s was changed while a page was on its way.", config.name))

    def _write(self, config, env, items):
        """Create or update the records of a page; each that fails leaves nothing, and does not keep the others back.

        :return: the stored rows, the errors by index
        :rtype: tuple[list, dict]
        """
        inbound, plan = env["bj.api.sync.inbound"], env["bj.api.sync.mapper"]._plan(config.id, "in")
        # without identifier, an item would become another new record with every pull
        check = partial(inbound._check_rows, needs_key=True)
        work = partial(inbound._write_items, plan, items, check=check)
        return inbound._split(plan, list(range(len(items))), work, atomic=False)

    def _advance(self, config, state, place, mark, result):
        """Return the state behind a page."""
        for name in ("attempts", "error", "not_before", "due", "place"):
            state.pop(name, None)
        if place is not None:
            longest = config.connection_timeout + config.read_timeout
            return state | {"place": place, "mark": mark, "due": _stamp(longest + LEASE)}
        result.is_complete = True
        if state["failed"]:
            config._notify_responsible(
                self.env._("Pulled items failed"),
                self.env._("%(count)s items of a pull failed: the logs tell which, and why.", count=state["failed"]),
            )
        started = fields.Datetime.from_string(state["started"])
        since = fields.Datetime.to_string(started - timedelta(seconds=SINCE_MARGIN))
        return {name: state[name] for name in COUNTS} | {"since": since, "ended": _stamp()}

    def _fail(self, config, state, request, exchange, result, error):
        """Note why a page was not pulled, and when to try again; the place is kept.

        :return: the state
        :rtype: dict
        """
        result.error, attempts = error, state.get("attempts", 0) + 1
        if exchange:
            exchange.outcome = "final" if exchange.outcome == "success" else exchange.outcome
            self.env["bj.api.sync.outbound"]._log_exchange(config, request, exchange, error)
        else:
            self.env["bj.api.sync.outbound"]._log(config, request, status="error", error_message=error)
        state = state | {"attempts": attempts, "error": error}
        state.pop("due", None)
        if exchange and exchange.outcome == "retry":
            wait = backoff.parse_retry_after(exchange.headers.get("Retry-After"))
            if wait:
                state["not_before"] = _stamp(wait)
            if delay := wait or backoff.get_delay(attempts):
                return self._come_back(state, delay)
        config._notify_responsible(self.env._("Pulling failed"), error)
        if attempts >= EXPIRED_AFTER and config.pull_paging in ("cursor", "link"):
            state = {name: value for name, value in state.items() if name not in ("place", "mark")}
        return state

    def _come_back(self, state, seconds):
        """Have a pull go on by itself after some seconds.

        :return: the state
        :rtype: dict
        """
        due = _stamp(seconds)
        self.env.ref("bj_api_sync.cron_pull").sudo()._trigger(fields.Datetime.from_string(due))
        return state | {"due": due}

    def _log(self, config, request, exchange, items, errors):
        """Log a page with what was kept of it, and so with its writes or not at all."""
        identifier = self.env["bj.api.sync.mapper"]._plan(config.id, "in").identifier
        note = "\n".join(
            self.env._(
                "Item %(index)s (%(key)s) %(pointer)s: %(message)s",
                index=index,
                key=paging.try_pick(items[index], identifier.key, "?"),
                pointer=error.get("pointer") or "/",
                message=error["message"],
            )
            for index in sorted(errors)
            for error in errors[index]
        )
        values = self.env["bj.api.sync.outbound"]._prepare_exchange_log(config, request, exchange, note)
        self.env["bj.api.log"]._record(values | ({"status": "error"} if errors else {}))

    # ------------------------------------------------------------------
    # Hooks
    # ------------------------------------------------------------------

    def _build_url(self, config, state):
        """Return the URL of the page at the place of a state.

        :rtype: str
        """
        place, since = self._get_place(config, state), state.get("since")
        if config.pull_paging == "link" and place is not None:
            return place
        params = {
            config.pull_size_param: state["size"],
            config.pull_since_param: since and f"{since.replace(' ', 'T')}Z",
            config.pull_param: place,
        }
        params = {name: value for name, value in params.items() if name and value is not None}
        parts = urlsplit(config.request_url)
        query = [(name, value) for name, value in parse_qsl(parts.query, True) if name not in params]
        return urlunsplit(parts._replace(query=urlencode([*query, *params.items()]), fragment=""))

    def _parse(self, config, exchange):
        """Parse an answer.

        :return: a JSON value, None for 204
        :raises UserError: where the exchange failed, or the answer is no JSON
        """
        if exchange.outcome != "success":
            raise UserError(exchange.error)
        if exchange.truncated:
            advice, size = self._advise_smaller(config), MAX_ANSWER >> 20
            raise UserError(self.env._("The answer is larger than %(size)s MiB: %(advice)s", size=size, advice=advice))
        if exchange.status_code == 204:
            return None
        try:
            return exchange.json()
        except (ValueError, RecursionError) as exc:
            raise UserError(self.env._("The answer is no JSON: %(error)s", error=exc)) from exc

    def _get_items(self, config, answer):
        """Return the items of an answer.

        :rtype: list
        :raises UserError: where it has none, or more than the configuration's limit
        """
        key = config.pull_items_key
        try:
            items = None if answer is None else paging.pick(answer, key)
        except LookupError as exc:
            keys = json.dumps(list(answer) if isinstance(answer, dict) else answer)  # in ASCII, whatever it is
            raise UserError(
                self.env._("The answer has no items at “%(key)s”. It has: %(keys)s", key=key, keys=keys[:200])
            ) from exc
        items = [] if items is None else [items] if isinstance(items, dict) else items
        if not isinstance(items, list):
            raise UserError(self.env._("What the answer has at “%(key)s” is no list of items.", key=key or "/"))
        if len(items) > config.limit:
            raise UserError(
                self.env._(
                    "The page has %(count)s items, the Limit is %(limit)s: raise it, or %(advice)s",
                    count=len(items),
                    limit=config.limit,
                    advice=self._advise_smaller(config),
                )
            )
        return items

    def _advise_smaller(self, config):
        """Return what to do where a page is too large."""
        if config.pull_paging in ("page", "link"):  # whose next page is told by the size they began with
            return self.env._("ask for smaller pages with another Page Size, and press Start over.")
        return self.env._("ask for smaller pages with another Page Size.")

    def _get_next(self, config, state, exchange, answer, items):
        """Return the place of the next page: page number, offset, cursor or URL.

        An empty page is the end where pages are counted, and a short one is not: some systems have a smaller limit
        than was asked for.

        :return: None if there is no next page
        :raises UserError: for a URL of another host, or what is no place
        """
        key, kind, place = config.pull_next_key, config.pull_paging, self._get_place(config, state)
        following = paging.try_pick(answer, key) if key else None
        if kind == "link" and not key:
            following = paging.parse_next_link(exchange.headers.get("Link"))
        if kind in ("link", "cursor"):
            if not following:
                return None
            if (
                isinstance(following, (dict, list))
                or (isinstance(following, float) and not math.isfinite(following))  # no JSON, but Python reads it
                or len(str(following)) > MAX_PLACE
                or not str(following).isprintable()
            ):
                raise UserError(
                    self.env._("What the answer has at “%(key)s” is no place of a page.", key=key or "Link")
                )
            return following if kind == "cursor" else self._check_url(config, exchange, str(following))
        if kind == "none" or not items or (key and not following):
            return None
        return place + (1 if kind == "page" else len(items))

    def _get_place(self, config, state):
        """Return the place of the page that is asked for; None for the first one, where that is not a number."""
        return state.get("place", {"page": config.pull_first_page, "offset": 0}.get(config.pull_paging))

    def _check_url(self, config, exchange, target):
        """Return the absolute URL of the next page; the credentials are for one host only.

        :raises UserError: where it is another one
        """
        try:
            url = urljoin(exchange.url, target)
            if is_same_origin(config.request_url, url):
                return url
        except ValueError:
            url = target
        raise UserError(
            self.env._("The next page is said to be at another address, %(url)s: not asked.", url=url[:200])
        )

    def _check_loop(self, state, place, items):
        """Refuse a next place, or items, that were there before.

        What is compared with is kept at the first, second, fourth, eighth page and so on: that finds any loop within
        twice its length (R. P. Brent, "An improved Monte Carlo factorization algorithm", 1980).

        :return: what the next pages are compared with
        :rtype: list[str]
        :raises UserError: for a loop
        """
        mark, prints = state.get("mark"), [_digest(place), _digest(items) if items else ""]
        if mark and place is not None and any(old and old == new for old, new in zip(mark, prints, strict=True)):
            raise UserError(self.env._("The other system sends the same page again: its pages never end."))
        pages = state["pages"] + 1
        return mark if mark and pages & (pages - 1) else prints


def _stamp(seconds=0):
    """Return the time in some seconds, as text."""
    return fields.Datetime.to_string(fields.Datetime.now() + timedelta(seconds=seconds))


def _digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
