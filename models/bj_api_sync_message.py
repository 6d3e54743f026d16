import hashlib

from odoo import api, fields, models
from odoo.tools import SQL

#: longer than the senders we know try again, and than the tolerance of any timestamp
DAYS = 7


class BjApiSyncMessage(models.Model):
    """A signed webhook that was received: it is not taken twice."""

    _name = "bj.api.sync.message"
    _description = "API Webhook Received"
    _log_access = False
    _rec_name = "key"

    config_id = fields.Many2one("bj.api.sync.config", "API Configuration", required=True, ondelete="cascade")
    key = fields.Char(required=True)
    create_date = fields.Datetime("Received on", required=True, index=True)

    _message_uniq = models.UniqueIndex("(config_id, key)")

    @api.model
    def _claim(self, config_id, message):
        """Note a message in the transaction that works on it: if that fails, the message may come again.

        Of two at once the second waits for the first, whichever worker or host it is on.

        :param int config_id: the configuration it came to
        :param str message: what tells it from all others
        :return: False if it was received before
        :rtype: bool
        """
        key = hashlib.sha256(message.encode(errors="surrogateescape")).hexdigest()
        query = SQL(
            "INSERT INTO %s (config_id, key, create_date) VALUES (%s, %s, now() AT TIME ZONE 'UTC')"
            " ON CONFLICT DO NOTHING",
            SQL.identifier(self._table),
            config_id,
            key,
        )
        self.env.cr.execute(query, log_exceptions=False)  # of two at once, Odoo tries the second again
        return bool(self.env.cr.rowcount)

    @api.autovacuum
    def _gc_messages(self):
        self.env.cr.execute(
            SQL(
                "DELETE FROM %s WHERE create_date < now() AT TIME ZONE 'UTC' - make_interval(days => %s)",
                SQL.identifier(self._table),
                DAYS,
            )
        )
