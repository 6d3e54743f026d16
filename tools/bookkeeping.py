"""Locks that outlive a rollback, and so come before what a transaction sees.

Odoo's cursors are REPEATABLE READ: what others committed since a transaction began is invisible to it. Who waits for a
lock inside of the transaction sees, once it has the lock, what was there before the wait. So the locks are taken for
the session, the transaction begins anew behind them, and they are given back when it ends, whichever way.
"""

import functools
import zlib

from odoo.modules import module

#: how many locks the identifiers of one configuration share: a transaction never holds more of them, however many
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
    cr.execute("SELECT pg_try_advisory_lock(%s)", [number])
    taken = cr.fetchone()[0]
    if taken:
        _begin_anew(cr, [number])
    return taken


def lock_identifiers(cr, config_id, identifiers):
    """Wait for everybody else who writes records of the same identifiers, until the end of the transaction.

    :param cr: a cursor that has written nothing yet; its transaction begins anew
    :param int config_id: the configuration
    :param identifiers: what tells the records apart
    :type identifiers: Iterable
    """
    buckets = {zlib.crc32(str(identifier).encode("utf-8", "replace")) % BUCKETS for identifier in identifiers}
    numbers = sorted(_number((config_id, "identifier", bucket)) for bucket in buckets)
    if numbers and not module.current_test:  # in one order for everybody, so that nobody waits for each other
        cr.execute("SELECT pg_advisory_lock(number) FROM unnest(%s) AS number", [numbers])
        _begin_anew(cr, numbers)


def _begin_anew(cr, numbers):
    """Begin a transaction that sees what those who had the locks left, and gives them back at its end."""
    cr.clear()
    cr.connection.rollback()  # past the cursor's hooks, which may hold earlier locks
    unlock = functools.partial(_unlock, cr.connection, numbers)
    cr.postcommit.add(unlock)
    cr.postrollback.add(unlock)


def _unlock(connection, numbers):
    if connection.closed:  # and the locks with it
        return
    with connection.cursor() as cr:
        cr.execute("SELECT pg_advisory_unlock(number) FROM unnest(%s) AS number", [numbers])
    connection.rollback()


def _number(names):
    text = "\0".join(["bj_api_sync", *map(str, names)]).encode("utf-8", "replace")
    return zlib.crc32(text) << 31 | zlib.adler32(text) >> 1
