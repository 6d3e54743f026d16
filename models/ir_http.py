import hmac
import re
import time

from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, NotFound, Unauthorized
from werkzeug.routing import PathConverter

from odoo import models
from odoo.http import request

from ..tools.edge import is_inside
from ..tools.secret import decrypt, digest
from ..tools.signature import SignatureError, verify

ENDPOINT_PATH = re.compile(r"/(?:bj_api_sync|api/sync)/v1/([^/]+)")
#: has a space, so that it is quoted: RFC 9110 section 11.5 demands that of realms, werkzeug does it where it must
REALM = "BJ API"
BEARER = re.compile(r"bearer\s+([^\0]+)", re.IGNORECASE)


class RecordRefConverter(PathConverter):
    """A record in a path: anything, slashes and line breaks too, as record identifiers may be any text."""

    regex = "(?s:.+?)"
    part_isolating = False


class IrHttp(models.AbstractModel):
    """Authentication of inbound requests: path -> configuration -> credentials -> user and company."""

    _inherit = "ir.http"

    @classmethod
    def _get_converters(cls):
        return super()._get_converters() | {"bj_record_ref": RecordRefConverter}

    @classmethod
    def _auth_method_bj_api_sync(cls):
        """Find the configuration of the path, check the caller's credentials, become its user.

        :raises NotFound: if nothing is exposed at the path
        :raises Forbidden: if the caller's address is not one of the allowed networks, or the user is archived
        :raises Unauthorized: if a credential is missing or wrong (RFC 9110 section 15.5.2)
        """
        httprequest, dispatcher, inbound = request.httprequest, request.dispatcher, request.env["bj.api.sync.inbound"]
        match = ENDPOINT_PATH.match(httprequest.path)
        endpoint = match and inbound._endpoint(match[1])
        if not endpoint:
            raise NotFound(request.env._("There is no such endpoint."))
        dispatcher.endpoint = endpoint
        cls._auth_method_none()  # nobody yet: what is logged of a refusal is not flushed as anybody
        if not cls._bj_is_near(endpoint):
            raise Forbidden(request.env._("Requests from your address are not accepted."))
        if dispatcher.is_preflight():
            return  # the browser asks before it sends credentials; only the dispatcher's answer to OPTIONS follows
        cls._bj_check_headers(endpoint)
        user_id = getattr(cls, f"_bj_authenticate_{endpoint.authorization_type}")(endpoint) or endpoint.user_id
        if not user_id:
            raise Forbidden(request.env._("The user of this endpoint is archived."))
        context = inbound._get_context(user_id, endpoint.company_id)
        request.update_env(user=user_id, context=context)
        if not context:
            raise Forbidden(request.env._("The user has no access to the company of this endpoint."))

    @classmethod
    def _bj_accepts(cls, endpoint):
        """Tell whether a request to another path has the credentials of an endpoint.

        :param Endpoint endpoint: the compiled configuration
        :rtype: bool
        """
        if endpoint.authorization_type == "hmac" or not cls._bj_is_near(endpoint):
            return False  # a signature is for one message to one endpoint
        try:
            cls._bj_check_headers(endpoint)
            getattr(cls, f"_bj_authenticate_{endpoint.authorization_type}")(endpoint)
        except Unauthorized:
            return False
        return True

    @classmethod
    def _bj_is_near(cls, endpoint):
        """Tell whether the caller's address is one of the allowed networks."""
        networks = endpoint.networks
        return not networks or is_inside(request.httprequest.remote_addr or "", networks)

    @classmethod
    def _bj_check_headers(cls, endpoint):
        """Check the required headers: credentials by themselves, or on top of an authorization type."""
        received = request.httprequest.headers
        valid = [cls._bj_is(received.get(name, ""), expected) for name, expected in endpoint.required_headers]
        if not all(valid):
            raise cls._bj_unauthorized("Header")

    @classmethod
    def _bj_is(cls, received, expected):
        """Compare a received credential with the digest of the expected one, in constant time."""
        return hmac.compare_digest(digest(received), expected)

    @classmethod
    def _bj_unauthorized(cls, scheme, message=None, **values):
        """Make the exception that asks for credentials of a scheme (RFC 9110 section 11.6.1)."""
        challenge = WWWAuthenticate(scheme, {"realm": REALM, **values})
        return Unauthorized(message or request.env._("Credentials are missing or wrong."), www_authenticate=challenge)

    @classmethod
    def _bj_get_bearer(cls):
        match = BEARER.fullmatch(request.httprequest.headers.get("Authorization", "").strip())
        return match[1] if match else ""

    # One method per authorization type: it returns a user id, or None for the configuration's user.

    @classmethod
    def _bj_authenticate_none(cls, endpoint):
        return None

    @classmethod
    def _bj_authenticate_header(cls, endpoint):
        if not endpoint.required_headers:
            raise cls._bj_unauthorized("Header")

    @classmethod
    def _bj_authenticate_basic(cls, endpoint):
        received = request.httprequest.authorization
        is_basic = bool(received) and received.type == "basic"
        credentials = (received.username or "", received.password or "") if is_basic else ("", "")
        valid = [cls._bj_is(text, expected) for text, expected in zip(credentials, endpoint.credentials, strict=True)]
        if not is_basic or not all(valid):
            raise cls._bj_unauthorized("Basic", charset="UTF-8")

    @classmethod
    def _bj_authenticate_bearer(cls, endpoint):
        token = cls._bj_get_bearer()
        if not token or not all(cls._bj_is(token, expected) for expected in endpoint.credentials):
            raise cls._bj_unauthorized("Bearer")

    @classmethod
    def _bj_authenticate_odoo(cls, endpoint):
        token = cls._bj_get_bearer()
        user_id = token and request.env["res.users.apikeys"]._check_credentials(scope="rpc", key=token)
        if not user_id:
            raise cls._bj_unauthorized("Bearer")
        return user_id

    @classmethod
    def _bj_authenticate_hmac(cls, endpoint):
        """Check the signature over the raw body; that the message is new is checked when it is worked on."""
        style, body = endpoint.signing_style, request.dispatcher.body
        secrets = [decrypt(secret) for secret in endpoint.signing_secrets]
        try:
            request.dispatcher.message = verify(style, secrets, request.httprequest.headers, body, time.time())
        except SignatureError as exc:
            reasons = {
                "missing": request.env._("The signature is missing, or has nothing to sign."),
                "wrong": request.env._("The signature is wrong: another secret, or the body was changed."),
                "expired": request.env._("The signature is too old, or its time is in the future."),
            }
            raise cls._bj_unauthorized("Signature", reasons[exc.reason], style=style) from exc
