"""HTTP on the wire: one request, one answer, in time, and only to addresses that are allowed.

Plain Python over urllib3: no model, no cursor, nothing that touches the database, so it runs in any thread.
``requests`` would double the processor time of a small request, cannot bound the time of a whole answer, and
looks host names up a second time after they were checked.
"""

import functools
import http.client
import io
import ipaddress
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, ProxyError, SSLError
from urllib3.exceptions import TimeoutError as WireTimeout
from urllib3.util.connection import create_connection

from . import redact

MAX_REDIRECTS = 5
#: what is kept of an answer, in bytes
MAX_ANSWER = 10 * 2**20
#: connections kept open per host
KEPT_ALIVE = 16
#: neither link-local nor loopback, but of the machine or its cloud: "this network" (RFC 1122), and the
#: metadata services of AWS over IPv6, Alibaba, Oracle and Azure
REFUSED_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        ("0.0.0.0/8", "fd00:ec2::/32", "100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32"),
    )
)
#: IPv4 addresses inside IPv6 ones: NAT64 (RFC 6052) and the deprecated IPv4-compatible form (RFC 4291)
EMBEDDING_NETWORKS = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))


@dataclass(frozen=True)
class Call:
    """One request, ready for the wire. ``private_headers``, credentials, never follow to another origin.

    Timeouts are seconds. The whole attempt, with redirects and the last byte of the answer, may take the sum.
    """

    method: str
    url: str
    headers: dict = field(default_factory=dict)
    private_headers: dict = field(default_factory=dict, repr=False)
    body: bytes | None = None
    connect_timeout: float = 5
    read_timeout: float = 15
    #: hosts, or ``host:port``, that the guard lets pass
    allowed_hosts: frozenset = frozenset()
    #: what is asked for an access token first, a call itself
    token_call: "Call | None" = None
    #: the names of headers whose values no log shows
    masked: tuple = ()
    #: why it must not be sent, and which :attr:`Exchange.failure` that is
    refusal: str = ""
    failure: str = ""

    @property
    def shown_headers(self):
        """All headers, without the values that no log shows."""
        return {**self.headers, **self.private_headers, **dict.fromkeys(self.masked, redact.MASK)}


@dataclass
class Exchange:
    """What came of one call. ``status_code`` is 0 where no answer came, 408 where it did not come in time."""

    call: Call
    status_code: int = 0
    #: case-insensitive
    headers: Mapping = field(default_factory=dict)
    content: bytes = b""
    #: the address that answered, after redirects
    url: str = ""
    #: seconds
    duration: float = 0.0
    truncated: bool = False
    #: why no answer came: timeout, dns, refused, tls, guard, proxy, url, broken, or of a call that must not be sent
    #: script, credentials; empty for every answer
    failure: str = ""
    detail: str = ""
    #: how an access token was asked for on the way; the exchange itself, where that was as far as it came
    grant: "Exchange | None" = field(default=None, repr=False, compare=False)
    token: object = field(default=None, repr=False)
    #: success, retry or final, and the message for people: the client's decision
    outcome: str = ""
    error: str = ""

    @property
    def is_grant(self):
        """Tell whether there was no token to send the call with."""
        return self.grant is self

    @property
    def text(self):
        """The body as text, by the charset of its content type, else UTF-8."""
        return redact.decode(self.content, self.headers.get("Content-Type", ""))

    def json(self):
        """Parse the body.

        :raises ValueError: when it is no JSON
        """
        return json.loads(self.content)


class WireError(HTTPError):
    """No connection; ``failure`` says why, in the words of :attr:`Exchange.failure`."""

    def __init__(self, failure, detail):
        super().__init__(detail)
        self.failure = failure


class _Budget(threading.local):
    """What the connections of this thread's current call must respect."""

    deadline = 0.0
    allowed_hosts = frozenset()

    def left(self, timeout):
        """Return the smaller of a timeout and what is left of the budget, in seconds.

        :raises TimeoutError: when nothing is left
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for this attempt is spent")
        return left if timeout is None else min(timeout, left)


_budget = _Budget()


class _BudgetReader(io.RawIOBase):
    """Reads a socket and watches the clock: a server that trickles bytes cannot hold us."""

    def __init__(self, sock):
        self._sock = sock
        self._timeout = sock.gettimeout()
        self._file = sock.makefile("rb", buffering=0)

    def readable(self):
        return True

    def readinto(self, buffer):
        self._sock.settimeout(_budget.left(self._timeout))
        return self._file.readinto(buffer)

    def close(self):
        self._file.close()
        super().close()


class _BudgetSocket:
    """All that ``http.client`` asks of a socket to read an answer."""

    def __init__(self, sock):
        self._sock = sock

    def makefile(self, _mode):
        return io.BufferedReader(_BudgetReader(self._sock))


class _GuardedConnection:
    """A connection that is made to an address that was checked, not to a name that is looked up again."""

    def response_class(self, sock, **kwargs):
        return http.client.HTTPResponse(_BudgetSocket(sock), **kwargs)

    def _new_conn(self):
        if self.proxy:  # the administrator's choice; the target was checked before
            return super()._new_conn()
        error, options = None, (self.source_address, self.socket_options)
        for address in resolve(self._dns_host, self.port, _budget.allowed_hosts):
            try:
                return create_connection((address, self.port), _budget.left(self.timeout), *options)
            except OSError as exc:
                error = exc
        raise WireError("timeout" if isinstance(error, TimeoutError) else "refused", str(error)) from error

    def send(self, data):
        """Send with what is left of the budget; the socket still has an older timeout."""
        if self.sock is None:
            self.connect()
        self.sock.settimeout(_budget.left(None))
        super().send(data)


class _HTTPConnection(_GuardedConnection, urllib3.connection.HTTPConnection):
    pass


class _HTTPSConnection(_GuardedConnection, urllib3.connection.HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Connections:
    """The connections of one process and database: kept alive per host, TLS always verified, no cookies.

    The environment's proxies (``HTTPS_PROXY``, ``HTTP_PROXY``, ``NO_PROXY``) are honoured, ``.netrc`` is not.
    """

    def __init__(self, ca_file):
        self._ca_file, self._proxies, self._managers = ca_file, getproxies(), {}

    def get_manager(self, url):
        """Return the urllib3 manager for a URL; a name that a proxy will look up is checked too.

        :raises WireError: ``proxy`` or ``tls`` where the environment has no usable proxy or file of authorities
        """
        parts = _parse_url(url)
        proxy = self._proxies.get(parts.scheme)
        if not proxy or proxy_bypass(parts.netloc):
            return self._get_manager("")
        try:
            resolve(parts.hostname, _get_port(parts), _budget.allowed_hosts)
        except WireError as exc:
            if exc.failure == "guard":
                raise
        return self._get_manager(proxy)

    def _get_manager(self, proxy):
        if manager := self._managers.get(proxy):
            return manager
        context = ssl.create_default_context()
        try:
            if self._ca_file:
                context.load_verify_locations(self._ca_file)
        except OSError as exc:
            raise WireError("tls", f"{self._ca_file}: {exc}") from exc
        options = {"num_pools": 64, "maxsize": KEPT_ALIVE, "ssl_context": context}
        try:
            manager = urllib3.ProxyManager(**_read_proxy(proxy), **options) if proxy else urllib3.PoolManager(**options)
        except ValueError as exc:  # its message has the URL, which may have a password
            raise WireError("proxy", "its address in the environment is not one of HTTP or HTTPS") from exc
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return self._managers.setdefault(proxy, manager)


#: one URL is called again and again
_parse_url = functools.lru_cache(maxsize=256)(urllib3.util.parse_url)


def _read_proxy(url):
    """Return the address of a proxy and what it is to be greeted with."""
    parts = _parse_url(url if "://" in url else f"http://{url}")
    user, _colon, password = (parts.auth or "").partition(":")
    login = f"{unquote(user)}:{unquote(password)}" if user else None
    return {"proxy_url": parts._replace(auth=None).url, "proxy_headers": urllib3.make_headers(proxy_basic_auth=login)}


def get_connections(database, allowed_hosts, ca_file):
    """Return the connections of this process for a database; other allowed hosts begin with new ones.

    A connection that was made while its host was allowed must not outlive that; one from before a fork is not
    ours.
    """
    return _get_connections(os.getpid(), database, allowed_hosts, ca_file)


@functools.lru_cache(maxsize=256)
def _get_connections(_process, _database, _allowed_hosts, ca_file):
    return _Connections(ca_file)


def send(call, connections):
    """Send a call and return its :class:`Exchange`; what goes wrong on the way is in there, never raised."""
    start = time.monotonic()
    _budget.deadline = start + call.connect_timeout + call.read_timeout
    _budget.allowed_hosts = call.allowed_hosts
    exchange = Exchange(call, url=call.url)
    try:
        _follow(call, connections, exchange)
    except (HTTPError, OSError, ValueError, http.client.HTTPException) as exc:
        failure = _get_failure(exc)
        code = 408 if failure == "timeout" else 0
        exchange = Exchange(call, code, url=exchange.url, failure=failure, detail=str(exc))
    exchange.duration = time.monotonic() - start
    return exchange


def is_refused(address):
    """Tell whether the guard refuses an IP address: loopback, link-local, metadata and what is no host.

    IPv4 addresses inside IPv6 ones (mapped, NAT64, 6to4, Teredo) count as what they lead to. Private networks
    are not refused: much of what a company connects is in its own network.

    :param str address: as text, a scope id after ``%`` is ignored
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6:
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if not inner and int(ip) > 1 and any(ip in network for network in EMBEDDING_NETWORKS):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    flags = (ip.is_loopback, ip.is_link_local, ip.is_unspecified, ip.is_multicast, ip.is_reserved)
    return any(flags) or any(ip.version == network.version and ip in network for network in REFUSED_NETWORKS)


@functools.lru_cache(maxsize=16)
def parse_allowed_hosts(text):
    """Read the system parameter: hosts or ``host:port``, by commas; IPv6 with or without brackets."""
    return frozenset(re.sub(r"[\[\]]", "", host.lower()) for host in re.split(r"[,\s]+", text or "") if host)


def resolve(host, port, allowed_hosts):
    """Return the addresses of a host that may be connected to, as text.

    :raises WireError: ``dns`` when it has none, ``guard`` when it has none that is allowed
    """
    host = host.strip("[]").rstrip(".").lower()
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise WireError("dns", f"{host}: {exc}") from exc
    addresses = list(dict.fromkeys(info[4][0] for info in found))
    if not {host, f"{host}:{port}"} & allowed_hosts:
        addresses = [address for address in addresses if not is_refused(address)]
    if not addresses:
        raise WireError("guard", f"{host}:{port}")
    return addresses


def _follow(call, connections, exchange):
    """Send, follow redirects, and fill the exchange with the answer."""
    headers = {**call.headers, **call.private_headers}
    for hop in range(MAX_REDIRECTS + 1):
        response = connections.get_manager(exchange.url).urlopen(
            call.method,
            _strip_login(exchange.url),
            body=call.body,
            headers=headers,
            timeout=urllib3.Timeout(connect=call.connect_timeout, read=call.read_timeout),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        target = hop < MAX_REDIRECTS and _get_redirect(call.method, exchange.url, response)
        if not target:
            _read(response, exchange)
            break
        response.close()
        if not is_same_origin(exchange.url, target):
            headers = call.headers
        exchange.url = target


def _read(response, exchange):
    """Read the answer up to the limit; what is cut leaves no usable connection behind."""
    exchange.status_code, exchange.headers = response.status, response.headers
    content, exchange.truncated = bytearray(), True
    try:
        for chunk in response.stream(2**16):
            content += chunk
            if len(content) > MAX_ANSWER:
                break
        else:
            exchange.truncated = False
    finally:
        if exchange.truncated:
            response.close()
    exchange.content = bytes(content[:MAX_ANSWER])


def _get_redirect(method, url, response):
    """Return the URL to go on with, or None where the answer is final.

    Only redirects that keep the method and the body are followed: 307 and 308 always, 301, 302 and 303 for
    GET (RFC 9110, section 15.4); not for HEAD, which tries what a POST will meet. Never from https to http, where
    others could read along.
    """
    location = response.get_redirect_location()
    if not location or (method != "GET" and response.status not in (307, 308)):
        return None
    target = urljoin(url, location)
    old, new = urlsplit(url).scheme, urlsplit(target).scheme
    return target if new == "https" or (new == "http" and old == "http") else None


def is_same_origin(url, other):
    """Same host, scheme and port; or from http to https of the same host on their standard ports.

    Read by the parser that connects: another one sees another host in ``http://evil\\@good/``.

    :raises urllib3.exceptions.LocationParseError: for what is no URL
    """
    old, new = _parse_url(url), _parse_url(other)
    ports = (_get_port(old), _get_port(new))
    same = old.scheme == new.scheme and ports[0] == ports[1]
    return old.host == new.host and (same or ports == (80, 443))


def _strip_login(url):
    """Return a URL without user and password, which a proxy would be told with it."""
    parts = _parse_url(url)
    return parts._replace(auth=None).url if parts.auth else url


def _get_port(parts):
    return parts.port or (443 if parts.scheme == "https" else 80)


def _get_failure(exc):
    if isinstance(exc, WireError):
        return exc.failure
    if isinstance(exc, (WireTimeout, TimeoutError)):
        return "timeout"
    if isinstance(exc, (SSLError, ssl.SSLError)):
        return "tls"
    if isinstance(exc, ProxyError):
        return "proxy"
    return "url" if isinstance(exc, (LocationParseError, ValueError)) else "broken"


def get_host(url):
    """Return the host of a URL, for messages; the URL itself where it has none."""
    try:
        return urlsplit(url).hostname or url
    except ValueError:
        return url


def get_target(url):
    """Return host and port of a URL, what is reached together and fails together; empty where it has none."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname}:{_get_port(parts)}" if parts.hostname else ""
    except ValueError:
        return ""


def is_absolute(url):
    """Tell whether a URL is one that can be called."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(valid) and not re.search(r"[\s\x00-\x1f]", url)
