from psycopg2.extensions import ISOLATION_LEVEL_READ_COMMITTED

from odoo import api, fields, models
from odoo.sql_db import db_connect
from odoo.tools import SQL

from ..tools.edge import Quota


class BjApiSyncRate(models.Model):
    """How many requests an endpoint got in its current window of one minute, counted over all workers and hosts."""

    _name = "bj.api.sync.rate"
    _description = "API Requests of the Minute"
    _log_access = False
    _rec_name = "config_id"

    config_id = fields.Integer("API Configuration ID", required=True)  # no foreign key: counting locks nothing else
    started = fields.Datetime(required=True)
    used = fields.Integer(required=True)

    _config_uniq = models.UniqueIndex("(config_id)")

    @api.model
    def _take(self, config_id, limit):
        """Count one request, in one statement that is committed at once, whatever becomes of the request.

        The window is fixed: it begins with the first request after the one before has passed, so that what
        ``RateLimit`` and ``Retry-After`` say is exact. Across its border up to twice the limit may come
        within a minute. A counter need not survive a crash: nobody waits for the disk.

        :param int config_id: the configuration
        :param int limit: requests per minute
        :rtype: Quota
        """
        query = SQL(
            """
            SET LOCAL synchronous_commit TO off;
            INSERT INTO %(table)s AS rate (config_id, started, used)
                 VALUES (%(config_id)s, clock_timestamp() AT TIME ZONE 'UTC', 1)
            ON CONFLICT (config_id) DO UPDATE
                    SET (started, used) = (
                        SELECT CASE WHEN now_in THEN rate.started ELSE EXCLUDED.started END,
                               CASE WHEN now_in THEN LEAST(rate.used, %(limit)s) + 1 ELSE 1 END
                          FROM (SELECT EXCLUDED.started - rate.started BETWEEN %(low)s AND %(high)s AS now_in) AS _)
              RETURNING used, EXTRACT(EPOCH FROM started + %(high)s - clock_timestamp() AT TIME ZONE 'UTC')
            """,
            table=SQL.identifier(self._table),
            config_id=config_id,
            limit=limit,
            low=SQL("INTERVAL '-1 minute'"),  # of several that wait for the row, a later one may be served first
            high=SQL("INTERVAL '1 minute'"),
        )
        with db_connect(self.env.cr.dbname).cursor() as cr:
            cr.connection.set_isolation_level(ISOLATION_LEVEL_READ_COMMITTED)
            cr.execute(query)
            used, seconds = cr.fetchone()
        return Quota(limit, used, float(seconds))

    @api.autovacuum
    def _gc_rates(self):
        """Forget the windows of endpoints that nobody called since yesterday."""
        self.env.cr.execute(
            SQL(
                "DELETE FROM %s WHERE started < now() AT TIME ZONE 'UTC' - INTERVAL '1 day'",
                SQL.identifier(self._table),
            )
        )
