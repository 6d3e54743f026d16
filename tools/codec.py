"""JSON values <-> ORM values, per field type, strictly.

Odoo's own conversions are made for its web client and take almost anything: the string ``"false"`` becomes True,
an object its ``repr``. What comes from another system is therefore checked here first.

Dates are those of RFC 3339, binary data is base64 (RFC 4648 section 4): in Odoo as well, but for the few fields of the
type ``bytes``, which is one of this module only.
"""

import base64
import binascii
import datetime
import json
import math
import re

import orjson
from dateutil.parser import isoparse

from odoo.tools import float_round

try:
    import resource
except ImportError:  # Windows
    resource = None

INT4 = range(-(2**31), 2**31)
NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
DATETIME = re.compile(r"\d{4}-?\d{2}-?\d{2}[T ]\d{2}.*")
REFERENCE = re.compile(r"[a-z_][a-z0-9_.]*,[0-9]{1,10}")
#: what no database can hold, and JSON can: NUL, and halves of surrogate pairs
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
TRUE, FALSE = ("true", "1"), ("false", "0")
#: the field types that hold one or several records
TO_MANY = ("one2many", "many2many")
#: how PostgreSQL writes the field types it can write as JSON has them, which takes less time than Python
PATTERNS = {"date": "YYYY-MM-DD", "datetime": 'YYYY-MM-DD"T"HH24:MI:SS"Z"'}

#: bytes that must be free; orjson asks for eight times a text, and for the double of what it has written so far
HEADROOM = 512 * 1024 * 1024


class Text(str):
    """A value from where everything is text: what it stands for is up to the field it goes to."""

    __slots__ = ()


def serialize_column(field_type, values, digits=None):
    """Turn ORM (or database) values into JSON values.

    :param str field_type: the type of an Odoo field
    :param values: ORM values; records are given as id, ids or None, moments as such or as :data:`PATTERNS` write them
    :type values: Sequence
    :param int digits: decimals of a float, None if it has no fixed number
    :return: one JSON value per value
    :rtype: Sequence
    """
    if field_type in TO_MANY:
        return [list(value) for value in values]
    if field_type in ("float", "monetary"):
        if digits is None:
            return [value or 0.0 for value in values]
        return [float_round(value or 0.0, precision_digits=digits) for value in values]
    if serialize := SERIALIZERS.get(field_type):
        return [serialize(value) if value else None for value in values]
    if all(values):
        return values
    empty = EMPTY.get(field_type)
    return [value or empty for value in values]


def _serialize_date(value):
    return value if isinstance(value, str) else value.isoformat()


def _serialize_datetime(value):
    return value if isinstance(value, str) else value.isoformat()[:19] + "Z"  # without the microseconds


def _serialize_binary(value):
    if not isinstance(value, (bytes, bytearray, memoryview, str)):
        return None  # Odoo keeps other things than bytes in some, such as totals of taxes
    data = value.encode() if isinstance(value, str) else bytes(value)
    return (data if data.isascii() else base64.b64encode(data)).decode()


def _serialize_bytes(value):
    return base64.b64encode(value).decode()


SERIALIZERS = {
    "date": _serialize_date,
    "datetime": _serialize_datetime,
    "binary": _serialize_binary,
    "bytes": _serialize_bytes,
    "html": str,
}
#: what no value is answered as where it is not null
EMPTY = {"integer": 0, "boolean": False}


def dump_json(value):
    """Write a JSON value, ten times as fast as ``json``.

    orjson does not survive that memory is refused: it takes the whole process along, and Odoo limits the memory of
    its processes. So where that limit is not far, what it may need is asked for first, and given back unused.

    :param value: any JSON value
    :rtype: bytes
    :raises MemoryError: if little memory is left
    :raises TypeError: if it is too deep, or has what only ``json`` can write
    """
    if _is_limit_near():
        bytes(HEADROOM)
    return orjson.dumps(value)


def parse_json(data, **options):
    """Read JSON, without the numbers that only Python knows.

    :param data: text or bytes
    :param options: those of ``json.loads``
    :raises ValueError: if it is none
    :raises RecursionError: if it is too deep
    """
    return json.loads(data, parse_constant=_refuse_constant, **options)


def parse_typed_json(text):
    """Read JSON that somebody typed, and whose keys are shown and kept: as :func:`parse_json`.

    :raises ValueError: also if a key cannot be kept
    """
    return parse_json(text, object_pairs_hook=_make_object)


def _refuse_constant(name):
    raise ValueError(f"{name} is no JSON number")


def _make_object(pairs):
    for key, _value in pairs:
        if UNSTORABLE.search(key):
            raise ValueError(f"no key can be {key!r}")
    return dict(pairs)


def _is_limit_near():
    """Tell whether a limit may be near: a process has mapped more than it uses, though seldom by a GiB."""
    if not resource:
        return False
    limit, used = resource.getrlimit(resource.RLIMIT_AS)[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return limit != resource.RLIM_INFINITY and limit < used + 3 * HEADROOM


def parse(field_type, value, selection=None, size=None):
    """Turn one JSON value into an ORM value.

    :param str field_type: the type of an Odoo field
    :param value: any JSON value but null
    :param selection: the values of a selection field, the models of a reference field
    :type selection: Collection[str]
    :param int size: the most characters of a text, which Odoo would cut; None for any number
    :return: what ``write`` takes; ids for relations
    :raises ValueError: if the value is not of the type
    """
    parser = PARSERS.get(field_type)
    if parser is None:
        raise ValueError(f"Fields of the type {field_type} cannot be exchanged")
    result = parser(value)
    if size and result and len(result) > size:
        raise ValueError
    if selection is not None and field_type == "selection" and result not in selection:
        raise ValueError
    if selection is not None and field_type == "reference" and result.partition(",")[0] not in selection:
        raise ValueError
    return result


def parse_text(field_type, text):
    """Turn the text of a query parameter into an ORM value.

    :param str field_type: the type of an Odoo field
    :param str text: what the URL has; empty means "not set"
    :raises ValueError: if the text is not of the type
    """
    if not text:
        return False
    if field_type == "boolean":
        text = text.lower()
    elif field_type in TO_MANY:  # one of them
        field_type = "many2one"
    elif field_type == "datetime" and "T" in text:
        text = text.replace(" ", "+")  # a + of an offset that was not URL-encoded
    return parse(field_type, Text(text))


def _parse_text(value):
    if not isinstance(value, str) or "\x00" in value:
        raise ValueError
    value.encode()  # JSON can hold halves of surrogate pairs, a database cannot
    return str(value) or False


def _parse_integer(value):
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,10}\s*", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value not in INT4:
        raise ValueError
    return value


def _parse_float(value):
    if isinstance(value, str) and NUMBER.fullmatch(value):
        value = float(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or abs(value) > 1e300:
        raise ValueError
    value = float(value)
    if not math.isfinite(value):
        raise ValueError
    return value


def _parse_boolean(value):
    if isinstance(value, Text) and value.strip() in TRUE + FALSE:
        return value.strip() in TRUE
    if not isinstance(value, bool):
        raise ValueError
    return value


def _parse_date(value):
    if not isinstance(value, str) or not DATE.fullmatch(value):
        raise ValueError
    return datetime.date.fromisoformat(value)


def _parse_datetime(value):
    if not isinstance(value, str) or not DATETIME.fullmatch(value):
        raise ValueError
    moment = isoparse(value)
    if moment.tzinfo:
        try:
            moment = moment.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        except OverflowError as exc:
            raise ValueError from exc
    return moment.replace(microsecond=0)


def _parse_binary(value):
    if not isinstance(value, str):
        raise ValueError
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ValueError from exc
    return value or False


def _parse_bytes(value):
    return base64.b64decode(_parse_binary(value) or b"") or False


def _parse_id(value):
    if isinstance(value, Text) and re.fullmatch(r"\s*\d{1,10}\s*", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value not in INT4 or value <= 0:
        raise ValueError
    return value


def _parse_ids(value):
    if not isinstance(value, list):
        raise ValueError
    return [_parse_id(item) for item in value]


def _parse_reference(value):
    if not isinstance(value, str) or not REFERENCE.fullmatch(value):
        raise ValueError
    _parse_id(int(value.partition(",")[2]))
    return value


def _parse_json(value):
    try:
        dump_json(value)
    except TypeError as exc:  # too deep to be read again, half of a surrogate pair, an integer of more than 64 bits
        raise ValueError from exc
    return value


PARSERS = {
    "char": _parse_text,
    "text": _parse_text,
    "html": _parse_text,
    "selection": _parse_text,
    "integer": _parse_integer,
    "float": _parse_float,
    "monetary": _parse_float,
    "boolean": _parse_boolean,
    "date": _parse_date,
    "datetime": _parse_datetime,
    "binary": _parse_binary,
    "bytes": _parse_bytes,
    "many2one": _parse_id,
    "many2one_reference": _parse_id,
    "one2many": _parse_ids,
    "many2many": _parse_ids,
    "reference": _parse_reference,
    "json": _parse_json,
}
