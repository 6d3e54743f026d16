"""Locks that outlive a rollback, and so come before what a transaction sees.

Odoo's cursors are REPEATABLE READ: what others committed since a transaction began is invisible to it. Who waits for a
lock inside of the transaction sees, once it has the lock, what was there before the wait. So the locks are taken for
the session, the transaction begins anew behind them, and they are given back when it ends, whichever way.
"""

import functools
import zlib

from odoo.modules import module

#: how many locks the identifiers of one field share: a transaction never holds more of them, however many
#: records it writes (PostgreSQL has room for 64 locks per connection)
BUCKETS = 256


def try_lock(cr, *names):
    """Take a lock until the end of the transaction, unless somebody has it.

    :param cr: a cursor that has written nothing yet; its transaction begins anew
    :param names: what is locked
    :return: whether it was taken
    :rtype: bool
    """
    if module.current_test:  # there is but one connection, which never ends its transaction
        return True
    number = _number(names)
    _end(cr)
    [[taken]] = _outside(cr.connection, "SELECT pg_try_advisory_lock(%s)", number)
    if taken:
        _unlock_at_end(cr, [number])
    return taken


def try_hold(cr, *names):
    """Take a lock until the end of the transaction as it is, unless another transaction has it.

    :param cr: a cursor; what it sees is as old as its first query
    :param names: what is locked
    :return: whether it was taken
    :rtype: bool
    """
    cr.execute("SELECT pg_try_advisory_xact_lock(%s)", [_number(names)])
    return cr.fetchone()[0]


def lock_identifiers(cr, identifiers):
    """Wait for everybody else who writes records of the same identifiers, until the end of the transaction.

    :param cr: a cursor that has written nothing yet; its transaction begins anew
    :param identifiers: what tells the records apart: model, field and value of each
    :type identifiers: Iterable[tuple]
    """
    places = {
        (model, field, zlib.crc32(str(value).encode("utf-8", "replace")) % BUCKETS)
        for model, field, value in identifiers
    }
    numbers = sorted(map(_number, places))
    if numbers and not module.current_test:  # in one order for everybody, so that nobody waits for each other
        _end(cr)
        _outside(cr.connection, "SELECT pg_advisory_lock(number) FROM unnest(%s) AS number", numbers)
        _unlock_at_end(cr, numbers)


def _end(cr):
    """End the transaction: the next query begins one that sees what those who had the locks left."""
    cr.clear()
    cr.connection.rollback()  # past the cursor's hooks, which may hold earlier locks


def _unlock_at_end(cr, numbers):
    unlock = functools.partial(_unlock, cr.connection, numbers)
    cr.postcommit.add(unlock)
    cr.postrollback.add(unlock)


def _unlock(connection, numbers):
    if not connection.closed:  # else the locks are gone with it
        _outside(connection, "SELECT pg_advisory_unlock(number) FROM unnest(%s) AS number", numbers)


def _outside(connection, query, parameter):
    """Run a query in no transaction, as there is none now."""
    connection.autocommit = True
    try:
        with connection.cursor() as cr:
            cr.execute(query, [parameter])
            return cr.fetchall()
    finally:
        connection.autocommit = False


def _number(names):
    text = "\0".join(["bj_api_sync", *map(str, names)]).encode("utf-8", "replace")
    return zlib.crc32(text) << 31 | zlib.adler32(text) >> 1
