"""OAuth 2.0 client credentials (RFC 6749, section 4.4): the request for a token, and what its answer says.

Plain Python over oauthlib, which sends nothing itself: no model, no cursor, so it runs in any thread.
"""

import re
from base64 import b64encode
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, quote_plus

from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error

#: what a header can carry, and more than RFC 6750, section 2.1, wants of a token
TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
#: what is kept of a server's own words
DETAIL = 300


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, and the seconds it lives from its answer on; None where the server does not say."""

    value: str
    expires_in: int | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What one user of a token gets: the ``token`` there is, ``request`` if it is to ask for a new one first, and
    the seconds to ``wait`` where it has neither: somebody else asks, or the server is given a rest."""

    token: str = ""
    request: object = None
    wait: float = 0


def prepare_request(client_id, client_secret, in_body=False, scope="", parameters=""):
    """Return what a token is asked for with.

    :param bool in_body: whether the client's credentials go into the body, or into the header (RFC 6749,
        section 2.3.1, which has them form-encoded there)
    :param str scope: scopes, separated by spaces
    :param str parameters: what else the server wants, form-encoded, such as ``audience=…``
    :return: headers, body
    :rtype: tuple[dict, bytes]
    """
    more = dict(parse_qsl(parameters)) | ({"client_secret": client_secret} if in_body else {})
    body = BackendApplicationClient(client_id).prepare_request_body(scope=scope, include_client_id=in_body, **more)
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()
    return ({} if in_body else {"Authorization": f"Basic {b64encode(pair).decode()}"}), body.encode()


def read_answer(exchange):
    """Find the token in what a token endpoint answered, or in ``detail`` the server's words for having none.

    :param Exchange exchange: it is changed
    """
    if exchange.failure:
        return
    try:
        found = BackendApplicationClient("").parse_request_body_response(exchange.text)
        if 200 <= exchange.status_code < 300 and TOKEN.fullmatch(found["access_token"]):
            life = found.get("expires_in")
            is_number = isinstance(life, (int, float)) and not isinstance(life, bool)
            exchange.token = Token(found["access_token"], life if is_number else None)
    except OAuth2Error as exc:
        words = (str(word) for word in (exc.error, exc.description) if word and exc.error != "missing_token")
        exchange.detail = ": ".join(words)[:DETAIL]
    except Exception as exc:  # noqa: BLE001  the parser expects no answer but a good one
        exchange.detail = str(exc)[:DETAIL]


def authorize(call, token):
    """Return a call with a token (RFC 6750, section 2.1)."""
    return replace(call, private_headers=call.private_headers | {"Authorization": f"Bearer {token}"})


def get_token(call):
    """Return the token a call has, empty without one."""
    return call.private_headers.get("Authorization", "").partition(" ")[2]
