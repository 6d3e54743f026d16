import time
from dataclasses import replace

from odoo import api, fields, models
from odoo.tools import SQL

from ..tools import backoff, oauth
from ..tools.secret import EncryptedChar, decrypt, digest, encrypt
from ..tools.transaction import bookkeeping
from .bj_api_delivery import NOW, after
from .bj_api_sync_config import MANAGER

#: seconds after which somebody else may ask for a token, because who wanted to must be dead
LEASE = 30
#: a token is renewed so many seconds before it expires, or this part of its life, whichever is less
RENEWAL, RENEWAL_PART = 60, 0.1
#: seconds a token server is left alone by deliveries after it failed, and after it refused the credentials
REST, REST_REFUSED = 5, 60
#: seconds for which no other token is asked for after one was refused that was new
SUSPICION = 10
#: what is stored of a life that has no end: a year
LONGEST = 365 * 86400


class BjApiSyncToken(models.Model):
    """The access token of an OAuth 2.0 configuration, shared by all workers.

    One of them asks for it at a time, for which it has a lease; the others use the one there is until it expires, or
    wait. What was asked for with other credentials, or elsewhere, has another fingerprint and is never used.
    """

    _name = "bj.api.sync.token"
    _description = "API Access Token"
    _inherit = ["bj.api.sync.secret"]
    _log_access = False
    _rec_name = "config_id"

    config_id = fields.Integer("API Configuration ID", required=True)  # no foreign key: it would lock the configuration
    fingerprint = fields.Char(required=True, help="Of the request for the token.")
    access_token = EncryptedChar(groups=MANAGER)
    suspect_until = fields.Datetime(help="It was refused when it was new: another would be no better.")
    renewal_date = fields.Datetime(help="From when on a new one is asked for.")
    expiry_date = fields.Datetime(help="Until when it is used; empty: until it is refused.")
    busy_until = fields.Datetime(help="Somebody asks for a new one.")
    rest_until = fields.Datetime(help="The token server failed: deliveries wait.")

    _config_uniq = models.UniqueIndex("(config_id)")

    @api.model
    def _wait(self, config):
        """Return a grant as soon as there is one. Who waited too long asks for a token beside the others.

        :param config: a configuration of the type OAuth 2.0
        :rtype: oauth.Grant
        """
        deadline = time.monotonic() + LEASE
        while (grant := self._take(config)).wait:
            if time.monotonic() > deadline:
                return oauth.Grant(request=self.env["bj.api.sync.client"]._prepare_token_call(config))
            time.sleep(0.1)
        return grant

    @api.model
    def _take(self, config, is_patient=False):
        """Return the token there is, or the right to ask for one, or how long to wait.

        :param config: a configuration of the type OAuth 2.0
        :param bool is_patient: whether a token server that failed a moment ago is left alone
        :rtype: oauth.Grant
        """
        request = self.env["bj.api.sync.client"]._prepare_token_call(config)
        is_good = SQL("t.access_token IS NOT NULL AND coalesce(t.expiry_date > %s, true)", NOW)
        with bookkeeping(self.env) as env:
            query = """
                INSERT INTO bj_api_sync_token AS t (config_id, fingerprint, busy_until)
                     VALUES (%(config)s, %(fingerprint)s, %(lease)s)
                ON CONFLICT (config_id) DO UPDATE
                        SET fingerprint = excluded.fingerprint, busy_until = excluded.busy_until,
                            access_token = CASE WHEN t.fingerprint = excluded.fingerprint THEN t.access_token END
                      WHERE t.fingerprint <> excluded.fingerprint
                         OR (NOT (%(is_good)s) OR t.renewal_date <= %(now)s)
                            AND coalesce(t.busy_until <= %(now)s, true)
                            AND (coalesce(t.rest_until <= %(now)s, true) OR %(rush)s AND NOT (%(is_good)s))"""
            fingerprint, rush = self._get_fingerprint(request), not is_patient
            values = {"config": config.id, "fingerprint": fingerprint, "lease": after(LEASE), "now": NOW}
            env.cr.execute(SQL(query, **values, is_good=is_good, rush=rush))
            is_ours = bool(env.cr.rowcount)
            query = """
                SELECT CASE WHEN %s THEN access_token END, date_part('epoch', greatest(busy_until, rest_until) - %s)
                  FROM bj_api_sync_token AS t WHERE config_id = %s"""
            [[token, wait]] = env.execute_query(SQL(query, is_good, NOW, config.id))
        grant = oauth.Grant(decrypt(token) if token else "", request if is_ours else None)
        return grant if token or is_ours else replace(grant, wait=max(wait or 0, 0.1))

    @api.model
    def _give_back(self, config_id):
        """Let somebody else ask for the token: there was nothing to send."""
        with bookkeeping(self.env) as env:
            env.cr.execute("UPDATE bj_api_sync_token SET busy_until = NULL WHERE config_id = %s", [config_id])

    @api.model
    def _keep(self, config, exchange, is_refused=False):
        """Store a token, or that the token server has none, for all workers.

        :param Exchange exchange: the judged exchange with the token server
        :param bool is_refused: whether the token was refused at its first use
        """
        values = {"busy_until": None}
        if token := exchange.token:
            life = None if token.expires_in is None else min(token.expires_in, LONGEST)
            early = life and life - min(RENEWAL, life * RENEWAL_PART)
            values |= {
                "access_token": encrypt(token.value),
                "suspect_until": after(SUSPICION) if is_refused else None,
                "expiry_date": life and after(life),
                "renewal_date": early and after(early),
                "rest_until": None,
            }
        else:
            least = REST_REFUSED if exchange.outcome == "final" else REST
            rest = max(least, backoff.parse_retry_after(exchange.headers.get("Retry-After")))
            values["rest_until"] = after(rest)
        changes = SQL(", ").join(SQL("%s = %s", SQL.identifier(name), value) for name, value in values.items())
        query = "UPDATE bj_api_sync_token SET %s WHERE config_id = %s AND fingerprint = %s"
        with bookkeeping(self.env) as env:
            env.cr.execute(SQL(query, changes, config.id, self._get_fingerprint(exchange.call)))

    @api.model
    def _drop(self, config, exchange):
        """Forget the token that was refused with 401.

        :return: whether another attempt makes sense: not if it was never accepted
        :rtype: bool
        """
        if exchange.is_grant or (exchange.grant and exchange.grant.token):
            return False
        query = "SELECT access_token, suspect_until > %s FROM bj_api_sync_token WHERE config_id = %s FOR UPDATE"
        with bookkeeping(self.env) as env:
            env.cr.execute(SQL(query, NOW, config.id))
            token, is_suspect = env.cr.fetchone() or (None, False)
            if not token or decrypt(token) != oauth.get_token(exchange.call):
                return True  # somebody else has renewed or forgotten it
            if not is_suspect:
                env.cr.execute("UPDATE bj_api_sync_token SET access_token = NULL WHERE config_id = %s", [config.id])
            return not is_suspect

    @api.model
    def _get_fingerprint(self, call):
        """Return what tells requests for tokens apart: any change of address or credentials."""
        return digest(repr((call.url, sorted(call.private_headers.items()), call.body))).hex()

    @api.autovacuum
    def _gc_tokens(self):
        """Forget the tokens of configurations that are gone, or do not need them any more."""
        self.env.cr.execute(
            "DELETE FROM bj_api_sync_token WHERE config_id NOT IN"
            " (SELECT id FROM bj_api_sync_config WHERE authorization_type = 'oauth2')"
        )
