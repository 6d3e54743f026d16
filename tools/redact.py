"""Masks secrets and cuts bodies, before anything is logged.

A body is masked as text, not as a parsed document: words such as "token" are looked for, and what follows a
name with such a word is masked, whether it is JSON, a form, XML, a header or a setting. That costs next to
nothing where no such word is, and it works on half a document as well, so that a huge body is cut first and
its rest never looked at.
"""

import base64
import codecs
import functools
import html
import json
import re
from urllib.parse import quote, quote_plus

MASK = "***"
#: default size limit of a body, in bytes
LIMIT = 64 * 1024

#: what tells the name of a secret; compounds may be joined by "-", "_", "." or a space, or not at all
PARTS = ("passw", "passphrase", "pwd", "secret", "token", "authoriz", "credential", "cookie")
COMPOUNDS = ("api key", "access key", "private key", "signing key", "encryption key", "session id")

_MASK = MASK.encode()
_FOLD = bytes(range(256)).lower()
_FOLDED_PARTS = tuple(part.replace(" ", "").encode() for part in PARTS + COMPOUNDS)
#: fewer words to look for, of which each part has one
_HINTS = (b"pass", b"pwd", b"secret", b"token", b"authoriz", b"credential", b"cookie", b"key", b"session")
_PARTS_BY_HINT = tuple((hint, tuple(part for part in _FOLDED_PARTS if hint in part)) for hint in _HINTS)
_PART = re.compile("|".join((*PARTS, *COMPOUNDS)).replace(" ", "[-_. ]?").replace("ret", "ret(?!ar)").encode())
_HEADER = re.compile(_PART.pattern.decode() + "|^auth$|[-_]auth$")
_SCHEME = re.compile(r"(?:basic|bearer|digest|negotiate|token)(?= )", re.I)

# What may follow such a word. Repetitions are bounded: a hostile body must not cost quadratic time.
_QUOTED_NAME = re.compile(rb"""[^"'\\\r\n<>=&]{0,64}(\\*["'])\s*:\s*""")
_ASSIGNED_NAME = re.compile(rb"[\w.\-\[\]]{0,64}[ \t]*=[ \t]*")
_LINE_NAME = re.compile(rb"[\w.\-]{0,64}[ \t]*:[ \t]*")
_ELEMENT_NAME = re.compile(rb"([\w.:\-]{0,64})((?:\s[^<>]{0,1000})?)>")
_PART_NAME = re.compile(rb'[^"\r\n]{0,64}"?[^\r\n]{0,200}(?:\r?\n[^\r\n]{1,500}){0,10}\r?\n\r?\n')
# What may come before it.
_LINE_START = re.compile(rb"(?:^|[\r\n])[ \t]*[\w.\-]*\Z")
_ELEMENT_START = re.compile(rb"<([\w.:\-]*)\Z")
_PART_START = re.compile(rb'\bname="?[^"\r\n]*\Z')

_STRING = {
    b'"': re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.S),
    b"'": re.compile(rb"'[^'\\]*(?:\\.[^'\\]*)*(?:'|\\?\Z)", re.S),
}
_OPENING_QUOTE = re.compile(rb"""\\*["']""")
_SCALAR = re.compile(rb"""[^\s,}\]"'\\]*""")
_ASSIGNED = re.compile(rb"""[^\s&"'<>\\]*""")
_LINE = re.compile(rb"[^\r\n]*")
#: what needs no mask, because it is nothing or has one
_MASKED = re.compile(rb"(?:null|true|false|([A-Za-z]+ )?\*\*\*)?")

_USERINFO = re.compile(rb"""(/\\?/)[^/\s@"'<>\\?#]{1,256}@""")
_URL_KEY = re.compile(rb"([?&;](?:key|sig|signature)=)[^&#\s]+", re.I)
_ESCAPED_LETTER = re.compile(rb"\\u00([46][1-9a-f]|[57][0-9a]|5f|2d)|%([46][1-9a-f]|[57][0-9a]|5f|2d)", re.I)
_TEXT_TYPE = re.compile(r"^(?:text|multipart)/|json|xml|urlencoded|javascript|yaml|graphql|csv", re.I)
_BINARY_TYPE = re.compile(r"^(?:image|audio|video|font)/(?!svg)|octet-stream|pdf|zip|officedocument", re.I)
#: charsets of texts; Python decodes by others too, some of which are no charset, or slow
_CHARSET = re.compile(
    r"""charset=["']?((?:utf|us-ascii|ascii|iso|latin|windows|cp|koi8|mac|gb|big5|shift|euc)[\w.:-]*)""", re.I
)


def literals(secrets):
    """Return secrets as they may be written in a text, escaped or not, the longest first.

    :param secrets: values that are masked wherever they occur: strings, and ``(login, password)`` pairs,
        these also the way Basic authentication sends them (RFC 7617)
    :rtype: tuple[bytes, ...]
    """
    found = set()
    for secret in secrets:
        if isinstance(secret, tuple) and any(secret):
            pair = ":".join(part or "" for part in secret).encode()
            found |= {base64.b64encode(pair), base64.urlsafe_b64encode(pair)}
        for text in filter(None, secret if isinstance(secret, tuple) else (secret,)):
            found.update(form.encode(errors="replace") for form in _escape(text))
    return tuple(sorted(found, key=len, reverse=True))


def _escape(text):
    yield text
    if not (text.isascii() and text.isalnum()):
        for ensure_ascii in (True, False):
            written = json.dumps(text, ensure_ascii=ensure_ascii)[1:-1]
            yield from (written, written.replace("/", r"\/"))  # as PHP does
        yield from (quote(text), quote(text, safe=""), quote_plus(text), html.escape(text))


def headers(pairs, secret_names=(), secrets=()):
    """Write headers as text, one ``Name: value`` per line, without their secrets.

    :param pairs: names and values
    :param secret_names: names of further headers whose values are secrets, in any case
    :param secrets: see :func:`literals`
    :rtype: str
    """
    names = {name.lower() for name in secret_names}
    return url("\n".join(f"{name}: {_header(name.lower(), str(value), names)}" for name, value in pairs), secrets)


def _header(name, value, names):
    if name not in names and not tells(name):
        return value
    scheme = _SCHEME.match(value)
    return f"{scheme[0]} {MASK}" if scheme else MASK


@functools.lru_cache(maxsize=512)
def tells(name):
    """Tell whether the name of a header or field tells that its value is a secret."""
    return bool(_HEADER.search(name))


def url(text, secrets=()):
    """Mask user and password of a URL, and the query parameters that are secrets.

    :param str text: a URL, or text with URLs
    :param secrets: see :func:`literals`
    :rtype: str
    """
    data = _mask(text.encode(errors="replace"), secrets)
    return _URL_KEY.sub(rb"\1" + _MASK, data).decode(errors="replace").replace("\0", "")


def body(data, content_type="", secrets=(), limit=LIMIT):
    """Turn a body into text that can be kept: secrets masked, cut at the limit.

    :param data: the body as it was on the wire (bytes), text, or any value that becomes JSON
    :param str content_type: its media type; only its charset, and whether it is text at all, matter
    :param secrets: see :func:`literals`
    :param int limit: the most bytes to keep, without the note that something was cut
    :rtype: str
    """
    if data is None or data == b"" or data == "":
        return ""
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        data = json.dumps(data, ensure_ascii=False, default=str)
    # A secret that the window's end cuts in two is in its last bytes only: these are never shown.
    margin = len(secrets[0]) if secrets else 0
    if isinstance(data, str):
        size, window = len(data.encode(errors="replace")), data[: limit + margin].encode(errors="replace")
    else:
        size, window = len(data), _decode(bytes(data[: limit + margin]), content_type or "")
    if window is None:
        return f"[{size} bytes that are not text]"
    complete = size <= limit + margin
    masked = _mask(window, secrets)
    if complete and len(masked) <= limit:
        return masked.decode(errors="replace").replace("\0", "")
    kept = masked[: limit if complete else max(0, min(limit, len(masked) - margin))].decode(errors="ignore")
    note = f"[cut: the whole has {size} bytes]"
    return kept.replace("\0", "") + "\n" + note


def decode(content, content_type):
    """Read a text by the charset that its content type declares, as far as that goes; else as UTF-8.

    :param bytes content: the text
    :param str content_type: of RFC 9110 section 8.3
    :rtype: str
    """
    charset = _CHARSET.search(content_type)
    try:
        return content.decode(charset[1] if charset else "utf-8", "replace")
    except (LookupError, ValueError):
        return content.decode("utf-8", "replace")


def _decode(window, content_type):
    """Return the beginning of a body as UTF-8, None if it is not text."""
    if _BINARY_TYPE.search(content_type) or (b"\0" in window and "utf-16" not in content_type.lower()):
        return None
    if _CHARSET.search(content_type) or _TEXT_TYPE.search(content_type):
        return decode(window, content_type).encode(errors="replace")
    try:  # a character that the window's end cuts in two is no error
        return codecs.getincrementaldecoder("utf-8")().decode(window).encode()
    except UnicodeDecodeError:
        return None


def _mask(data, secrets):
    """Mask all secrets in some UTF-8 text.

    :param bytes data: the text
    :param secrets: see :func:`literals`
    :rtype: bytes
    """
    if b"\\u00" in data or b"%" in data:  # letters that are written in a roundabout way
        data = _ESCAPED_LETTER.sub(lambda match: bytes.fromhex((match[1] or match[2]).decode()), data)
    for secret in secrets:
        if secret in data:
            if len(secret) >= 8:
                data = data.replace(secret, _MASK)
            else:  # "api" may be a login, but it is no secret within "capital"
                data = re.sub(rb"(?<!\w)%s(?!\w)" % re.escape(secret), _MASK, data)
    if b"@" in data and (b"//" in data or b"/\\/" in data):
        data = _USERINFO.sub(rb"\1" + _MASK + b"@", data)
    folded = data.translate(_FOLD, b"-_. ")
    for hint, parts in _PARTS_BY_HINT:
        if hint in folded and any(part in folded for part in parts):
            return _mask_named(data)
    return data


def _mask_named(data):
    """Mask the values whose names tell that they are secrets."""
    pieces, done = [], 0
    for match in _PART.finditer(data.translate(_FOLD)):
        if match.start() < done:
            continue
        span = _find_value(data, match.start(), match.end())
        if span and not _MASKED.fullmatch(data, *span[:2]):
            start, end, mask = span
            pieces += data[done:start], mask
            done = end
    return b"".join((*pieces, data[done:]))


def _find_value(data, start, end):
    """Find the value that belongs to a name with a telling word.

    :param int start: where the word starts
    :param int end: where it ends
    :return: start and end of the value, and its mask; None if the word is not (part of) a name
    :rtype: tuple[int, int, bytes] | None
    """
    before = data[max(0, start - 80) : start]
    if match := _QUOTED_NAME.match(data, end):
        return _find_json_value(data, match.end(), match[1])
    if match := _ASSIGNED_NAME.match(data, end):
        return _find_assigned_value(data, match.end())
    if (first := _ELEMENT_START.search(before)) and (match := _ELEMENT_NAME.match(data, end)):
        name = first[1] + data[start:end] + match[1]
        if match[2].endswith(b"/"):
            return match.start(2), match.end(2) - 1, b" " + _MASK
        close = data.find(b"</" + name, match.end())
        return match.start(2), len(data) if close < 0 else close, b">" + _MASK
    if _PART_START.search(before) and (match := _PART_NAME.match(data, end)):
        close = data.find(b"\n--", match.end())
        return match.end(), len(data) if close < 0 else close, _MASK
    if _LINE_START.search(before) and (match := _LINE_NAME.match(data, end)):
        return match.end(), _LINE.match(data, match.end()).end(), _MASK
    return None


def _find_json_value(data, start, quote_mark):
    """Find a JSON value, the longest it can be where the text ends before it.

    :param bytes quote_mark: the quote around its name, with backslashes if it is JSON within a JSON string
    """
    if data.startswith(quote_mark, start):
        return start, _find_quote_end(data, start, quote_mark), quote_mark + _MASK + quote_mark
    if data[start : start + 1] not in (b"{", b"["):
        return start, _SCALAR.match(data, start).end(), b'"' + _MASK + b'"'
    try:
        text = data[start:].decode(errors="replace")
        end = start + len(text[: json.JSONDecoder().raw_decode(text)[1]].encode())
    except (ValueError, RecursionError):
        end = len(data)
    return start, end, b'"' + _MASK + b'"'


def _find_quote_end(data, start, quote_mark):
    if len(quote_mark) == 1:
        return _STRING[quote_mark].match(data, start).end()
    end = re.compile(rb"(?<!\\)" + re.escape(quote_mark)).search(data, start + len(quote_mark))
    return end.end() if end else len(data)


def _find_assigned_value(data, start):
    if match := _OPENING_QUOTE.match(data, start):
        return start, _find_quote_end(data, start, match[0]), match[0] + _MASK + match[0]
    return start, _ASSIGNED.match(data, start).end(), _MASK
