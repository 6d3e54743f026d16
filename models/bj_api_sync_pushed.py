import json

from odoo import api, fields, models
from odoo.tools import SQL

from ..tools import paging
from .bj_api_sync_outbound import PLACEHOLDER


class BjApiSyncPushed(models.Model):
    """A record the other system was told of, and what its deletion is told with: by then it cannot be read."""

    _name = "bj.api.sync.pushed"
    _description = "API Pushed Record"
    _log_access = False
    _rec_name = "record_id"

    config_id = fields.Many2one("bj.api.sync.config", required=True, ondelete="cascade")
    record_id = fields.Integer(required=True)
    keys = fields.Text(help="As JSON: a jsonb column does not hold all that a URL can.")

    _record_uniq = models.UniqueIndex("(config_id, record_id)")

    @api.model
    def _note(self, config, items, requests, operation):
        """Remember the records of some requests, in the transaction that queues them; or forget what is deleted.

        :param config: an outbound configuration
        :param items: (record, payload, problem)
        :param requests: what became of them, :class:`~.bj_api_sync_outbound.PreparedRequest`
        :param str operation: ``create``, ``write`` or ``unlink``
        """
        if not config.deletion_url:
            return
        identifier = self.env["bj.api.sync.mapper"]._plan(config.id).identifier
        names = set(PLACEHOLDER.findall(config.deletion_url))
        if identifier and identifier.key:  # by it others are told apart that come after the deletion
            names.add(identifier.key)
        told = {record_id for request in requests if not request.error for record_id in request.record_ids}
        known = {
            record.id: json.dumps({name: paging.try_pick(payload, name) for name in sorted(names)})
            for record, payload, _problem in items
            if record.id in told
        }
        if operation == "unlink":
            self._forget(config, list(known))
        elif known:
            query = """
                INSERT INTO bj_api_sync_pushed AS p (config_id, record_id, keys) VALUES %s
                ON CONFLICT (config_id, record_id) DO UPDATE SET keys = excluded.keys
                 WHERE p.keys IS DISTINCT FROM excluded.keys"""
            self.env.cr.execute(SQL(query, SQL(", ").join((config.id, *item) for item in known.items())))

    @api.model
    def _find_gone(self, config, model, limit):
        """Return records that were queued once and do not exist any more.

        :return: ids and keys
        :rtype: list[tuple[int, dict]]
        """
        query = """
            SELECT record_id, keys FROM bj_api_sync_pushed AS p
             WHERE config_id = %s AND NOT EXISTS (SELECT FROM %s AS r WHERE r.id = p.record_id)
             ORDER BY record_id LIMIT %s"""
        rows = self.env.execute_query(SQL(query, config.id, SQL.identifier(model._table), limit))
        return [(record_id, json.loads(keys or "{}")) for record_id, keys in rows]

    @api.model
    def _forget(self, config, record_ids):
        query = "DELETE FROM bj_api_sync_pushed WHERE config_id = %s AND record_id = ANY(%s)"
        self.env.cr.execute(SQL(query, config.id, record_ids))
