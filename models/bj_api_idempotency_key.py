import json

from odoo import api, fields, models
from odoo.tools import SQL
from odoo.tools.constants import GC_UNLINK_LIMIT

from ..exceptions import KeyInUse, KeyReused
from ..tools import transaction

HOURS = 24


class BjApiIdempotencyKey(models.Model):
    """A key a caller gave to a write, and the answer: who asks again gets the answer again.

    The row is written in the transaction of the data, so that no crash leaves one without the other. A lock that
    comes before the transaction keeps two requests of one key apart.

    Source: draft-ietf-httpapi-idempotency-key-header.
    """

    _name = "bj.api.idempotency.key"
    _description = "API Idempotency Key"
    _log_access = False
    _rec_name = "key"

    key = fields.Char(required=True)
    config_id = fields.Many2one("bj.api.sync.config", required=True, ondelete="cascade")
    user_id = fields.Many2one("res.users", required=True, ondelete="cascade", index=True)
    fingerprint = fields.Char(required=True)
    status = fields.Integer(required=True)
    headers = fields.Text(required=True)
    body = fields.Text(required=True)
    create_date = fields.Datetime(default=fields.Datetime.now, required=True, index=True)

    _key_uniq = models.UniqueIndex("(config_id, user_id, key)")

    @api.model
    def _begin(self, config_id, key, fingerprint, identifiers):
        """Claim a key and records for the current transaction, or find the answer the key has.

        :param int config_id: the configuration
        :param str key: what the caller gave, empty if nothing
        :param str fingerprint: what tells the request from others with the key
        :param identifiers: see :func:`transaction.lock`
        :return: status, headers and body of the stored answer, None if there is none yet
        :rtype: tuple[int, dict, str] | None
        :raises KeyInUse: if a request with the key is still running
        :raises KeyReused: if the key belongs to another request
        """
        names = (config_id, self.env.uid, key) if key else ()
        if not transaction.lock(self.env.cr, identifiers, *names):
            raise KeyInUse(self.env._("A request with this Idempotency-Key is still running."))
        if not key:
            return None
        rows = self.env.execute_query(
            SQL(
                "SELECT fingerprint, status, headers, body FROM %s WHERE config_id = %s AND user_id = %s AND key = %s"
                " AND create_date > (now() at time zone 'UTC') - interval '1 hour' * %s",
                SQL.identifier(self._table),
                config_id,
                self.env.uid,
                key,
                HOURS,
            )
        )
        if not rows:
            return None
        [(known, status, headers, body)] = rows
        if known != fingerprint:
            raise KeyReused(self.env._("This Idempotency-Key was used for another request."))
        return status, json.loads(headers), body

    @api.model
    def _keep(self, config_id, key, fingerprint, status, headers, body):
        """Store an answer in the current transaction; an expired one gives way.

        :param dict headers: headers that belong to the answer
        :param str body: the answer's body
        """
        columns = ("config_id", "user_id", "key", "fingerprint", "status", "headers", "body", "create_date")
        values = (config_id, self.env.uid, key, fingerprint, status, json.dumps(headers), body, fields.Datetime.now())
        self.env.cr.execute(
            SQL(
                "INSERT INTO %s (%s) VALUES %s ON CONFLICT (config_id, user_id, key) DO UPDATE SET %s",
                SQL.identifier(self._table),
                SQL(", ").join(map(SQL.identifier, columns)),
                values,
                SQL(", ").join(
                    SQL("%s = excluded.%s", SQL.identifier(name), SQL.identifier(name)) for name in columns[3:]
                ),
            )
        )

    @api.autovacuum
    def _gc_keys(self):
        """Delete the keys that are older than a day."""
        limit = fields.Datetime.subtract(fields.Datetime.now(), hours=HOURS)
        keys = self.search([("create_date", "<", limit)], limit=GC_UNLINK_LIMIT)
        keys.unlink()
        return len(keys), int(len(keys) == GC_UNLINK_LIMIT)
