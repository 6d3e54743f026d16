"""What is checked of a request before anything is done for it: where it comes from, and how large it may be."""

import ipaddress
import math
import re
from dataclasses import dataclass

#: an origin of RFC 6454, section 6.2
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@*]+")
#: any origin
ANY = "*"
#: the IPv6 addresses that stand for IPv4 ones (RFC 4291 section 2.5.5.2)
MAPPED = ipaddress.ip_network("::ffff:0:0/96")
#: request headers that pages of other origins may send, besides those every page may
CORS_REQUEST_HEADERS = (
    "accept",
    "authorization",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "prefer",
    "x-request-id",
)
#: answer headers that such pages may read
CORS_ANSWER_HEADERS = (
    "Allow, ETag, Idempotent-Replayed, Link, Location, Preference-Applied, RateLimit, RateLimit-Policy, "
    "Retry-After, X-Request-ID"
)
#: how long a browser may remember a preflight, in seconds; some take no more than this
CORS_MAX_AGE = 7200


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left of the requests of a minute."""

    limit: int
    #: with this request; more than the limit for one that is refused
    used: int
    #: until the next minute begins
    seconds: float

    @property
    def is_exceeded(self):
        """Whether the request is one too many."""
        return self.used > self.limit

    @property
    def wait(self):
        """Seconds after which there is a new quota, whole and at least one."""
        return max(1, math.ceil(self.seconds))

    def get_headers(self):
        """Return the fields of draft-ietf-httpapi-ratelimit-headers-10.

        :rtype: dict[str, str]
        """
        left = max(0, self.limit - self.used)
        return {
            "RateLimit-Policy": f'"minute";q={self.limit};w=60',
            "RateLimit": f'"minute";r={left};t={self.wait}',
        }


def parse_networks(text):
    """Parse addresses and networks, one per line, such as ``192.0.2.0/24`` or ``2001:db8::1``.

    :param str text: what was typed
    :rtype: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    :raises ValueError: if one is neither; it says which
    """
    return tuple(_unmap(ipaddress.ip_network(line)) for line in text.split())


def is_inside(address, networks):
    """Tell whether an address is in one of the networks.

    :param str address: an IPv4 or IPv6 address; anything else is in none
    :param networks: see :func:`parse_networks`
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(parsed in network for network in networks)


def parse_origins(text):
    """Parse origins, one per line, such as ``https://shop.example.com``, or ``*`` for any.

    :param str text: what was typed
    :rtype: frozenset[str]
    :raises ValueError: if one is no origin; it says which
    """
    origins = frozenset(line.lower().rstrip("/") for line in text.split())
    for origin in origins:
        if origin != ANY and not ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is no origin")
    return frozenset({ANY}) if ANY in origins else origins


def get_cors_headers(origins, origin):
    """Return the headers by which a browser lets a page of an origin read an answer (Fetch, section 3.3.3).

    :param frozenset origins: see :func:`parse_origins`
    :param str origin: the ``Origin`` of the request, empty if there is none
    :rtype: dict[str, str]
    """
    vary = {} if ANY in origins else {"Vary": "Accept, Origin"}
    if not origin or not origins & {ANY, origin}:
        return vary
    allowed = ANY if ANY in origins else origin
    return vary | {"Access-Control-Allow-Origin": allowed, "Access-Control-Expose-Headers": CORS_ANSWER_HEADERS}


def get_preflight_headers(origins, origin, methods, requested, known):
    """Return the headers that answer a browser's question before its request (Fetch, section 3.3.2).

    :param frozenset origins: see :func:`parse_origins`
    :param str origin: the ``Origin`` of the question
    :param methods: what the endpoint answers
    :type methods: Iterable[str]
    :param str requested: ``Access-Control-Request-Headers``
    :param known: headers the endpoint knows besides ``CORS_REQUEST_HEADERS``
    :type known: Iterable[str]
    :rtype: dict[str, str]
    """
    headers = get_cors_headers(origins, origin)
    if "Access-Control-Allow-Origin" not in headers:
        return headers
    allowed = {*CORS_REQUEST_HEADERS, *(name.lower() for name in known)}
    names = [name for name in re.split(r"[\s,]+", requested) if name.lower() in allowed]
    headers["Access-Control-Allow-Methods"] = ", ".join(methods)
    headers["Access-Control-Max-Age"] = str(CORS_MAX_AGE)
    return headers | ({"Access-Control-Allow-Headers": ", ".join(names)} if names else {})


def _unmap(network):
    """Write an IPv6 network of IPv4 addresses as the IPv4 network it is."""
    if network.version == 6 and network.subnet_of(MAPPED):
        return ipaddress.ip_network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network
