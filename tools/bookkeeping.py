"""Cursors beside the one of the business.

Odoo's cursors are REPEATABLE READ: what others committed since a transaction began is invisible to it. Locks and
look-ups that must know of it run on cursors of their own, in READ COMMITTED.
"""

import zlib

from psycopg2.extensions import ISOLATION_LEVEL_READ_COMMITTED, STATUS_IN_TRANSACTION

from odoo.modules import module

#: how many locks the identifiers of one configuration share: a transaction never holds more of them, however many
#: records it writes (PostgreSQL has room for 64 locks per connection)
BUCKETS = 256


def companion_cursor(env):
    """Open a cursor that lives as long as the transaction of an environment, which begins anew.

    In tests it is that environment's cursor itself, because they have but one connection.

    :param env: the environment of the business, which has written nothing yet
    :return: a cursor in READ COMMITTED; nobody needs to close it
    """
    if module.current_test:
        return env.cr
    if env.cr.connection.status == STATUS_IN_TRANSACTION:
        env.cr.rollback()  # what the business sees must not be older than the locks it waited for
    companion = env.registry.cursor()
    companion.connection.set_isolation_level(ISOLATION_LEVEL_READ_COMMITTED)
    env.cr.postcommit.add(companion.close)
    env.cr.postrollback.add(companion.close)
    return companion


def try_lock(cr, *names):
    """Take a lock until the end of the cursor's transaction, unless somebody has it.

    :param names: what is locked
    :return: whether it was taken
    :rtype: bool
    """
    cr.execute("SELECT pg_try_advisory_xact_lock(%s)", [_number(names)])
    return cr.fetchone()[0]


def lock_identifiers(cr, config_id, identifiers):
    """Wait for everybody else who writes records of the same identifiers, until the end of the cursor's transaction.

    :param cr: a companion cursor
    :param int config_id: the configuration
    :param identifiers: what tells the records apart
    :type identifiers: Iterable
    """
    buckets = sorted({_number((config_id, "identifier", _bucket(identifier))) for identifier in identifiers})
    if buckets:  # in one order for everybody, so that nobody waits for each other
        cr.execute("SELECT pg_advisory_xact_lock(number) FROM unnest(%s) AS number", [buckets])


def _bucket(identifier):
    return zlib.crc32(str(identifier).encode("utf-8", "replace")) % BUCKETS


def _number(names):
    text = "\0".join(["bj_api_sync", *map(str, names)]).encode("utf-8", "replace")
    return zlib.crc32(text) << 31 | zlib.adler32(text) >> 1
