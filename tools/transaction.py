"""Transactions beside that of the environment, locks that come before what a transaction sees, and who may commit.

Odoo's cursors are REPEATABLE READ: what others committed since a transaction began is invisible to it. Who waits for a
lock inside of the transaction sees, once it has the lock, what was there before the wait. So one transaction waits,
with locks that outlive it; the next one begins behind them, takes them for itself, which waits for nobody, and is rid
of them when it ends, whichever way. All of that is one round trip.

Source: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
"""

import zlib
from collections import defaultdict
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_READ_COMMITTED

from odoo import SUPERUSER_ID
from odoo.modules import module
from odoo.service.model import retrying

#: identifiers of one field that are locked one by one; of more, the field is locked as a whole, because PostgreSQL has
#: room for 64 locks per connection on average
ONE_BY_ONE = 256
LOCK = """
    SELECT CASE WHEN shared THEN pg_advisory_lock_shared(number) ELSE pg_advisory_lock(number) END
    FROM unnest(%(numbers)s::bigint[], %(shared)s::boolean[]) AS lock (number, shared);
    ROLLBACK;
    BEGIN ISOLATION LEVEL REPEATABLE READ;
    SELECT CASE WHEN shared THEN pg_advisory_xact_lock_shared(number) ELSE pg_advisory_xact_lock(number) END
    FROM unnest(%(numbers)s::bigint[], %(shared)s::boolean[]) AS lock (number, shared);
    SELECT pg_advisory_unlock_all()
"""


_rehearsing = ContextVar("bj_api_sync_rehearsing", default=False)


def lock(cr, identifiers, *names):
    """Wait for everybody else who writes records of the same identifiers, until the end of the transaction.

    :param cr: a cursor that has written nothing yet; its transaction begins anew
    :param identifiers: what tells the records apart: model, field and value of each
    :type identifiers: Iterable[tuple]
    :param names: what is locked besides, unless somebody has it
    :return: whether that was free; else nothing is locked
    :rtype: bool
    """
    if module.current_test:  # there is but one connection, which never ends its transaction
        return True
    taken = [_number(names)] if names else []
    locks = _get_locks(identifiers) + [(number, False) for number in taken]
    try:
        if taken and not _ask(cr, "SELECT pg_try_advisory_lock(%s)", taken):
            return False
        if locks:
            numbers, shared = zip(*locks, strict=True)
            cr.clear()
            cr.execute(LOCK, {"numbers": list(numbers), "shared": list(shared)})
    except psycopg2.Error:
        cr.connection.rollback()
        cr.execute("SELECT pg_advisory_unlock_all()")
        raise
    return True


def _get_locks(identifiers):
    """Return the numbers to lock and whether others may share each, in one order for everybody: nobody waits in a ring.

    A field's lock is shared by those who lock its identifiers one by one.
    """
    values = defaultdict(set)
    for model, field, value in identifiers:
        values[model, field].add(str(value))
    wholes, singles = [], []
    for place, some in values.items():
        is_shared = len(some) <= ONE_BY_ONE
        wholes.append((_number(place), is_shared))
        singles += [(_number((*place, value)), False) for value in some if is_shared]
    return sorted(wholes) + sorted(singles)


def try_hold(cr, *names):
    """Take a lock until the end of the transaction as it is, unless another transaction has it.

    :param cr: a cursor; what it sees is as old as its first query
    :param names: what is locked
    :return: whether it was taken
    :rtype: bool
    """
    return _ask(cr, "SELECT pg_try_advisory_xact_lock(%s)", [_number(names)])


@contextmanager
def bookkeeping(env):
    """Give an environment on a short transaction of its own, which is committed at the end.

    READ COMMITTED, because claims and counters are shared with others who change them all the time. Tests have
    one transaction for everything.

    :raises psycopg2.OperationalError: if the database is gone
    """
    if module.current_test:
        env.flush_all()
        yield env(su=True)
        env.invalidate_all()
        return
    try:
        cursor = env.registry.cursor()
    except psycopg2.DatabaseError as exc:  # that of a connection which was lost in the pool is of no subclass
        raise psycopg2.OperationalError(str(exc)) from exc
    with cursor as cr:
        cr.connection.set_isolation_level(ISOLATION_LEVEL_READ_COMMITTED)
        yield env(cr=cr, user=SUPERUSER_ID, context={})


@contextmanager
def rehearsal(env):
    """Give the environment on a cursor that is never committed.

    A savepoint would not do: what is to be done after a commit survives its rollback. No e-mails go out.

    :param odoo.api.Environment env: any
    """
    cr, token = env.registry.cursor(), _rehearsing.set(True)
    try:
        yield env(cr=cr)
    finally:
        _rehearsing.reset(token)
        cr.rollback()
        cr.close()
        env.registry.reset_changes()


def is_rehearsing():
    """Tell whether this thread is in a :func:`rehearsal`."""
    return _rehearsing.get()


def may_commit(env):
    """Tell whether this is a scheduled action, or the caller says so; else all of it is one transaction."""
    return _is_scheduled(env) or bool(env.context.get("bj_api_sync_commit"))


def commit_progress(env, done=0, left=False):
    """Commit a page, where that is allowed, and tell the scheduled action how far it is.

    :param odoo.api.Environment env: any
    :param int done: what this page had
    :param bool left: whether there is more
    """
    if may_commit(env):
        env["ir.cron"]._commit_progress(done, remaining=int(left))


def retry_if_scheduled(env, work, *args):
    """Do work in pages; again, from the last one on, if it meets with a change of the same records.

    Requests are done again by Odoo, scheduled actions are not.
    """
    return retrying(partial(work, *args), env) if _is_scheduled(env) else work(*args)


def _is_scheduled(env):
    return bool(env.context.get("ir_cron_progress_id"))


def _ask(cr, query, parameters):
    cr.execute(query, parameters)
    return cr.fetchone()[0]


def _number(names):
    text = "\0".join(["bj_api_sync", *map(str, names)]).encode("utf-8", "replace")
    return zlib.crc32(text) << 31 | zlib.adler32(text) >> 1
