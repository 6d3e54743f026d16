import http.client
import os
import time
from base64 import b64encode
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import requests

from odoo import api, models
from odoo.exceptions import UserError

from ..exceptions import ScriptError
from ..tools import oauth, signature, transport

#: the codes another attempt may cure; of the 5xx all but 501 and 505 besides
RETRYABLE_CODES = (408, 425, 429)
FINAL_SERVER_CODES = (501, 505)
AGENT = "Odoo bj_api_sync"
CA_FILE = os.environ.get("REQUESTS_CA_BUNDLE") or requests.certs.where()


class BjApiSyncClient(models.AbstractModel):
    """The way out: sends prepared requests, and knows nothing of records.

    :meth:`_send` is the template; each of its steps is a hook. Only :meth:`_transmit` waits for the network,
    and it needs no database: a sender may run it in threads.
    """

    _name = "bj.api.sync.client"
    _description = "API Client"

    @api.model
    def _send(self, config, request, timeout=None):
        """Send one request for an outbound configuration.

        :param config: `bj.api.sync.config` record
        :param request: :class:`~.bj_api_sync_outbound.PreparedRequest`
        :param float timeout: seconds, instead of the configuration's read timeout
        :return: the exchange with its ``outcome`` and ``error``; what goes wrong on the way is in there
        :rtype: odoo.addons.bj_api_sync.tools.transport.Exchange
        """
        exchange = self._judge(config, self._transmit(self._prepare_call(config, request, timeout)))
        if exchange.outcome == "renew":
            exchange = self._judge(config, self._transmit(self._prepare_call(config, request, timeout)))
        return exchange

    @api.model
    def _prepare_call(self, config, request, timeout=None, grant=None):
        """Turn a request into what goes over the wire; the credentials come in here, just before sending.

        :param oauth.Grant grant: the access token where the configuration needs one; without it, it is waited for
        """
        config = config.sudo()
        auth = getattr(self, f"_get_auth_{config.authorization_type}")
        try:
            private_headers = auth(config, request) | self._build_private_headers(config, request)
        except UserError as exc:
            return transport.Call(
                request.method, request.url, body=request.body, refusal=str(exc), failure="credentials"
            )
        call = transport.Call(
            request.method,
            request.url,
            headers=self._build_headers(config, request),
            private_headers=private_headers,
            body=request.body,
            connect_timeout=config.connection_timeout,
            read_timeout=timeout or config.read_timeout,
            allowed_hosts=self._get_allowed_hosts(),
        )
        if config.header_script:
            call = self._add_computed_headers(config, request, call)
        if config.authorization_type == "oauth2" and not call.refusal:
            grant = grant or self.env["bj.api.sync.token"]._wait(config)
            call = replace(oauth.authorize(call, grant.token) if grant.token else call, token_call=grant.request)
        return call

    @api.model
    def _add_computed_headers(self, config, request, call):
        """Return the call with the headers of the configuration's script, which replace any of the same name."""
        try:
            computed = self.env["bj.api.sync.script"]._compute_headers(config, call, request.trace_id)
        except ScriptError as exc:
            return replace(call, refusal=str(exc), failure="script")
        names = {name.lower() for name in computed}
        public, private = (
            {name: value for name, value in headers.items() if name.lower() not in names}
            for headers in (call.headers, call.private_headers)
        )
        return replace(call, headers=public, private_headers=private | computed, masked=tuple(computed))

    @api.model
    def _prepare_token_call(self, config):
        """Return the call that asks for an access token (RFC 6749, section 4.4.2)."""
        config = config.sudo()
        headers, body = oauth.prepare_request(
            config.client_id or "",
            config.client_secret or "",
            config.client_authentication == "client_secret_post",
            config.token_scope or "",
            config.token_parameters or "",
        )
        return transport.Call(
            "POST",
            config.token_url or "",
            {"User-Agent": AGENT, "Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"},
            headers,
            body,
            allowed_hosts=self._get_allowed_hosts(),
        )

    @api.model
    def _transmit(self, call):
        """Send a call, behind the one for its token if it has one, and wait for the answer.

        Needs the name of the database only, no cursor.
        """
        if call.refusal:
            return transport.Exchange(call, url=call.url, failure=call.failure, detail=call.refusal)
        connections = transport.get_connections(self.env.cr.dbname, call.allowed_hosts, CA_FILE)
        grant = None
        if call.token_call:
            grant = transport.send(call.token_call, connections)
            oauth.read_answer(grant)
            if grant.token:
                call = oauth.authorize(call, grant.token.value)
            elif not oauth.get_token(call):
                grant.grant = grant
                return grant
        exchange = transport.send(call, connections)
        exchange.grant = grant
        return exchange

    @api.model
    def _judge(self, config, exchange):
        """Set the outcome and the message for people, and keep the token that was brought."""
        tokens = self.env["bj.api.sync.token"]
        if exchange.grant:
            exchange.grant.outcome = self._get_outcome(config, exchange.grant)
            tokens._keep(config, exchange.grant, exchange.status_code == 401)
        exchange.outcome = self._get_outcome(config, exchange)
        if exchange.status_code == 401 and config.authorization_type == "oauth2" and tokens._drop(config, exchange):
            exchange.outcome = "renew"
        if exchange.outcome != "success":
            token = oauth.get_token(exchange.call)
            exchange.error = self.env["bj.api.log"]._mask(config.id, self._get_error(config, exchange), (token,))
        return exchange

    # ------------------------------------------------------------------
    # Hooks
    # ------------------------------------------------------------------

    @api.model
    def _build_headers(self, config, request):
        """Return the headers everybody may see; they follow a redirect to another host.

        :rtype: dict[str, str]
        """
        headers = {"User-Agent": AGENT, "Accept": "application/json", "X-Request-ID": request.trace_id}
        if request.method not in ("GET", "HEAD"):
            headers["Idempotency-Key"] = request.trace_id
        if request.content_type:
            headers["Content-Type"] = request.content_type
        names = {header.key.lower() for header in config.header_ids}
        return {name: value for name, value in headers.items() if name.lower() not in names}

    @api.model
    def _build_private_headers(self, config, request):
        """Return the headers of the configuration. Any may be a key, so they stay with the host they are for.

        :rtype: dict[str, str]
        """
        self._check_readable(config.header_ids, "value")
        if config.header_script:
            self._check_readable(config, "header_secret")
        return {header.key: header.value or "" for header in config.header_ids}

    @api.model
    def _check_readable(self, records, fname):
        """Check that secrets which may be empty are, and do not only look so because their key is missing.

        :raises UserError: if one cannot be read
        """
        empty = records.sudo().filtered(lambda record: not record[fname]).with_context(active_test=False)
        if empty and empty.search_count([("id", "in", empty.ids), (fname, "!=", False)]):
            raise self._get_unreadable(records, fname)

    @api.model
    def _get_auth_none(self, config, request):
        """Return the credentials of an authorization type, as headers. One method per type, found by name.

        :rtype: dict[str, str]
        :raises UserError: where there are none for now: nothing is sent, and a delivery tries again later
        """
        return {}

    @api.model
    def _get_auth_header(self, config, request):
        """The configured headers are the credentials: :meth:`_build_private_headers`."""
        return {}

    @api.model
    def _get_auth_basic(self, config, request):
        """RFC 7617, in UTF-8."""
        credentials = f"{self._read_secret(config, 'login')}:{self._read_secret(config, 'password')}".encode()
        return {"Authorization": f"Basic {b64encode(credentials).decode()}"}

    @api.model
    def _get_auth_bearer(self, config, request):
        """RFC 6750."""
        return {"Authorization": f"Bearer {self._read_secret(config, 'bearer_token')}"}

    @api.model
    def _get_auth_hmac(self, config, request):
        """Sign the body as of now; with Standard Webhooks once more with the former secret, while it is rotated."""
        secrets, body = config._get_signing_secrets(), request.body or b""
        if not secrets:
            raise self._get_unreadable(config, "signing_secret")
        return signature.sign(config.signing_style, secrets, body, request.trace_id, int(time.time()))

    @api.model
    def _get_auth_oauth2(self, config, request):
        """The access token is added last, or only when it was brought: :meth:`_prepare_call`, :meth:`_transmit`."""
        self._read_secret(config, "client_secret")
        return {}

    @api.model
    def _read_secret(self, config, fname):
        """Return a credential; what the configuration's form requires is only empty where it cannot be read.

        :raises UserError: if it is empty
        """
        if secret := config[fname]:
            return secret
        raise self._get_unreadable(config, fname)

    @api.model
    def _get_unreadable(self, records, fname):
        label = records._get_label(fname)
        return UserError(self.env._("%(field)s cannot be read: its encryption key is missing.", field=label))

    @api.model
    def _get_allowed_hosts(self):
        """Return the hosts that are sent to although their addresses are the machine's own or its network's.

        :rtype: frozenset[str]
        """
        parameter = self.env["ir.config_parameter"].sudo().get_param("bj_api_sync.allowed_hosts")
        return transport.parse_allowed_hosts(parameter)

    @api.model
    def _get_outcome(self, config, exchange):
        """Classify an exchange.

        :return: ``success``, ``retry`` (another attempt may work) or ``final`` (it would end the same way); ``renew``,
            retry at once with a new access token, comes from :meth:`_judge` alone
        """
        code = exchange.status_code
        if exchange.failure:
            return "final" if exchange.failure in ("guard", "url", "script") else "retry"
        if 200 <= code < 300:
            return "retry" if exchange.is_grant else "success"
        if code in RETRYABLE_CODES or (code >= 500 and code not in FINAL_SERVER_CODES):
            return "retry"
        return "final"

    @api.model
    def _get_error(self, config, exchange):
        """Say in plain words what went wrong."""
        if exchange.call.refusal:
            return exchange.detail
        message = self._describe_refusal(exchange) or self._describe(exchange)
        if exchange.is_grant:
            message = self.env._("There is no access token. %(reason)s", reason=message)
        shown = exchange.is_grant or exchange.failure in ("tls", "proxy", "url", "refused", "broken")
        return f"{message} ({exchange.detail})" if shown and exchange.detail else message

    @api.model
    def _describe_refusal(self, exchange):
        """Say why a token server that answers gives no token; empty for everything else."""
        host, code = transport.get_host(exchange.url), exchange.status_code
        if exchange.is_grant and code in (400, 401):
            return self.env._("%(host)s refuses the client's credentials or scope with %(code)s.", host=host, code=code)
        if exchange.is_grant and 200 <= code < 300:
            return self.env._("What %(host)s answered has none: is the Token URL right?", host=host)
        return ""

    @api.model
    def _describe(self, exchange):
        host = transport.get_host(exchange.url)
        messages = {
            "": self.env._("%(host)s answered %(code)s.", host=host, code=exchange.status_code),
            "timeout": self.env._("%(host)s did not answer in time.", host=host),
            "dns": self.env._("There is no host named %(host)s, or its name could not be looked up.", host=host),
            "refused": self.env._("%(host)s could not be reached, or refused the connection.", host=host),
            "tls": self.env._("The secure connection to %(host)s could not be made.", host=host),
            "proxy": self.env._("The proxy did not connect us with %(host)s.", host=host),
            "url": self.env._("The address or a header of the request is not valid."),
            "guard": self.env._(
                "%(host)s is an address of this server or of its closest network: nothing is sent there. "
                "If it is meant, add it to the system parameter bj_api_sync.allowed_hosts.",
                host=host,
            ),
        }
        broken = self.env._("%(host)s broke the connection off, or did not answer in HTTP.", host=host)
        return messages.get(exchange.failure, broken)

    # ------------------------------------------------------------------
    # Scripts
    # ------------------------------------------------------------------

    @api.model
    def _script_requests(self):
        """Return what scripts know as ``requests``: get, post, put, patch, delete, head, request.

        The arguments are those of ``requests`` (params, data, json, headers, auth, files, timeout), the
        answer is a ``requests.Response``, and what fails raises the exceptions of ``requests``. It goes
        through the same guard, always has a timeout, always verifies TLS, and never leaves a neutralized copy.
        """
        methods = ("get", "post", "put", "patch", "delete", "head")
        names = ("RequestException", "HTTPError", "ConnectionError", "Timeout")
        return SimpleNamespace(
            request=self._script_request,
            exceptions=SimpleNamespace(**{name: getattr(requests.exceptions, name) for name in names}),
            **{name: partial(self._script_request, name) for name in methods},
        )

    @api.model
    def _script_request(self, method, url, *, timeout=None, headers=None, **kwargs):
        prepared = requests.Request(method.upper(), url, headers=headers, **kwargs).prepare()
        if self.env["ir.config_parameter"].sudo().get_param("database.is_neutralized"):
            message = self.env._("This is a neutralized copy of a database: its scripts call nobody.")
            raise requests.exceptions.ConnectionError(message, request=prepared)
        connect, read = timeout if isinstance(timeout, (tuple, list)) else (None, timeout)
        given = {"connect_timeout": connect, "read_timeout": read}
        body = prepared.body
        exchange = self._transmit(
            transport.Call(
                prepared.method,
                prepared.url,
                private_headers=dict(prepared.headers),
                body=body.encode() if isinstance(body, str) else body,
                allowed_hosts=self._get_allowed_hosts(),
                **{name: seconds for name, seconds in given.items() if seconds},
            )
        )
        if exchange.failure:
            kind = requests.exceptions.Timeout if exchange.failure == "timeout" else requests.exceptions.ConnectionError
            raise kind(self._get_error(None, exchange), request=prepared)
        response = requests.Response()
        response.status_code, response.url, response.request = exchange.status_code, exchange.url, prepared
        response.reason = http.client.responses.get(exchange.status_code, "")
        response.headers.update(exchange.headers)
        response.encoding = requests.utils.get_encoding_from_headers(response.headers)
        response._content = exchange.content
        return response
