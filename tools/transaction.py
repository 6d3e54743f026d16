"""Transactions beside that of the environment, and locks that come before what a transaction sees.

Odoo's cursors are REPEATABLE READ: what others committed since a transaction began is invisible to it. Who waits for a
lock inside of the transaction sees, once it has the lock, what was there before the wait. So one transaction waits,
with locks that outlive it; the next one begins behind them, takes them for itself, which waits for nobody, and is rid
of them when it ends, whichever way. All of that is one round trip.

Source: https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
"""

import zlib
from contextlib import contextmanager

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_READ_COMMITTED

from odoo import SUPERUSER_ID
from odoo.modules import module

#: how many locks the identifiers of one field share: a transaction never holds more of them, however many
#: records it writes (PostgreSQL has room for 64 locks per connection)
BUCKETS = 256
LOCK = """
    SELECT pg_advisory_lock(number) FROM unnest(%(numbers)s::bigint[]) AS number;
    ROLLBACK;
    BEGIN ISOLATION LEVEL REPEATABLE READ;
    SELECT pg_advisory_xact_lock(number) FROM unnest(%(numbers)s::bigint[] || %(taken)s::bigint[]) AS number;
    SELECT pg_advisory_unlock(number) FROM unnest(%(numbers)s::bigint[] || %(taken)s::bigint[]) AS number
"""


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
    places = {
        (model, field, zlib.crc32(str(value).encode("utf-8", "replace")) % BUCKETS)
        for model, field, value in identifiers
    }
    numbers, taken = sorted(map(_number, places)), [_number(names)] if names else []
    try:
        if taken and not _ask(cr, "SELECT pg_try_advisory_lock(%s)", taken):
            return False
        if numbers or taken:  # in one order for everybody, so that nobody waits for each other
            cr.clear()
            cr.execute(LOCK, {"numbers": numbers, "taken": taken})
    except psycopg2.Error:
        cr.connection.rollback()
        cr.execute("SELECT pg_advisory_unlock_all()")
        raise
    return True


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
    """
    if module.current_test:
        env.flush_all()
        yield env(su=True)
        env.invalidate_all()
        return
    with env.registry.cursor() as cr:
        cr.connection.set_isolation_level(ISOLATION_LEVEL_READ_COMMITTED)
        yield env(cr=cr, user=SUPERUSER_ID, context={})


@contextmanager
def rehearsal(env):
    """Give the environment on a cursor that is never committed.

    A savepoint would not do: what is to be done after a commit survives its rollback.

    :param odoo.api.Environment env: any
    """
    cr = env.registry.cursor()
    try:
        yield env(cr=cr)
    finally:
        cr.rollback()
        cr.close()
        env.registry.reset_changes()


def _ask(cr, query, parameters):
    cr.execute(query, parameters)
    return cr.fetchone()[0]


def _number(names):
    text = "\0".join(["bj_api_sync", *map(str, names)]).encode("utf-8", "replace")
    return zlib.crc32(text) << 31 | zlib.adler32(text) >> 1
