"""Pages of a list: cursors (keyset paging) and the links between pages (RFC 8288)."""

import base64
import json
import re
from dataclasses import dataclass

from odoo.tools import SQL

from .codec import UNSTORABLE


@dataclass(frozen=True, slots=True)
class Term:
    """One term of an order: ``sql`` is what is sorted by, ``column_type`` its PostgreSQL type."""

    name: str
    descending: bool
    sql: SQL
    column_type: str


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a list that is asked for.

    At most one of ``offset``, ``page`` (from 1) and ``cursor`` is given; an empty cursor is the first page.
    """

    limit: int
    offset: int | None = None
    page: int | None = None
    cursor: str | None = None

    @property
    def start(self):
        """How many records come before the window; 0 with a cursor, which needs no counting."""
        start = (self.page - 1) * self.limit if self.page else self.offset or 0
        return min(start, 2**62)  # a bigint has room for it and the limit


def encode(order, values):
    """Make the cursor that stands behind a record.

    :param str order: the order of the list, which the next request must have too
    :param values: the record's values of the order's terms
    :type values: Sequence
    :rtype: str
    """
    data = json.dumps([order, *values], separators=(",", ":"), default=str)
    return base64.urlsafe_b64encode(data.encode()).decode().rstrip("=")


def decode(order, cursor):
    """Return the values of a cursor.

    :param str order: the order of the list
    :param str cursor: what :func:`encode` made
    :rtype: list
    :raises ValueError: if it is not a cursor of a list in this order
    :raises RecursionError: if it is so deep that it cannot be one
    """
    data = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    if not isinstance(data, list) or data[:1] != [order]:
        raise ValueError(cursor)
    if any(isinstance(value, (dict, list)) or UNSTORABLE.search(str(value)) for value in data):
        raise ValueError(cursor)
    return data[1:]


def after(terms, values):
    """Say which records come behind a cursor, in PostgreSQL's order of NULLs (last, first when descending).

    :param terms: the order
    :type terms: Sequence[Term]
    :param values: the cursor's values
    :type values: Sequence
    :return: a condition
    :rtype: odoo.tools.SQL
    """
    later, equal = [], []
    for term, value in zip(terms, values, strict=True):
        if value is None:
            behind = SQL("%s IS NOT NULL", term.sql) if term.descending else SQL("FALSE")
            same = SQL("%s IS NULL", term.sql)
        else:
            typed = SQL(f"%s::{term.column_type}", str(value))
            if term.descending:
                behind = SQL("%s < %s", term.sql, typed)
            elif term.name == "id":
                behind = SQL("%s > %s", term.sql, typed)
            else:
                behind = SQL("(%s > %s OR %s IS NULL)", term.sql, typed, term.sql)
            same = SQL("%s = %s", term.sql, typed)
        later.append(SQL("(%s)", SQL(" AND ").join([*equal, behind])))
        equal.append(same)
    return SQL("(%s)", SQL(" OR ").join(later))


def links(window, has_next, cursor, total):
    """Return the query parameters of the pages around a window; None stands for a parameter to leave out.

    :param Window window: the part that was answered
    :param bool has_next: whether there is more behind it
    :param str cursor: the cursor behind it, empty if the order has none
    :param int total: how many records there are, None if nobody counted
    :return: relation -> parameters
    :rtype: dict[str, dict]
    """
    if window.page is None and window.offset is None and (cursor or window.cursor is not None):
        return {"first": {"cursor": None}} | ({"next": {"cursor": cursor}} if has_next else {})
    name, here, first, step = "offset", window.start, 0, window.limit
    if window.page:
        name, here, first, step = "page", window.page, 1, 1
    result = {"first": {name: first or None}}
    if here > first:
        result["prev"] = {name: max(here - step, first)}
    if has_next:
        result["next"] = {name: here + step}
    if total is not None:
        pages = max(-(-total // window.limit), 1)
        result["last"] = {name: first + (pages - 1) * step}
    return result


#: one parameter of a target in a Link header, and a target with its parameters (RFC 8288, section 3)
LINK_PARAM = r"""\s*;\s*([^\s=;,]+)(?:\s*=\s*(?:"([^"]*)"|([^\s;,"]*)))?"""
LINK = re.compile(f"<([^<>]*)>((?:{LINK_PARAM})*)")


def parse_next_link(header):
    """Return the target of a Link header's relation ``next``, empty without one (RFC 8288).

    :param str header: its value; several headers joined by commas, or None
    """
    for target, params, *_last in LINK.findall(header or ""):
        for name, quoted, bare in re.findall(LINK_PARAM, params):
            if name.lower() == "rel" and "next" in (quoted or bare).lower().split():
                return target
    return ""


def pick(data, key):
    """Walk a dotted key into a JSON value: a number enters a list, also from its end; a whole key may have dots.

    :param data: the JSON value
    :param str key: such as ``result.items``, ``data.-1.id`` or ``@odata.nextLink``; empty for the value itself
    :raises LookupError: where it leads nowhere
    """
    if not key or (isinstance(data, dict) and key in data):
        return data[key] if key else data
    head, _dot, rest = key.partition(".")
    if isinstance(data, dict) and rest:
        return pick(data[head], rest)
    if isinstance(data, list) and re.fullmatch(r"-?\d{1,9}", head):
        return pick(data[int(head)], rest)
    raise LookupError(key)


def try_pick(data, key, default=None):
    """Return what :func:`pick` does, or a default where the key leads nowhere."""
    try:
        return pick(data, key)
    except LookupError:
        return default
