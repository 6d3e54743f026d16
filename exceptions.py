"""Errors whose type carries the decision.

They are Odoo's ``UserError``, so that the web client shows them as well, and like Odoo's own they name the
HTTP status an API answers them with (``http_status``, RFC 9110 section 15).
"""

from psycopg2 import DataError, IntegrityError, ProgrammingError
from psycopg2.errors import ProgramLimitExceeded

from odoo.exceptions import RedirectWarning, UserError

#: how Odoo's business code refuses something; the message is meant for people
REFUSALS = (UserError, RedirectWarning)
#: how the database refuses values; the last is a text that is too long for an index
DATABASE_REFUSALS = (IntegrityError, DataError, ProgramLimitExceeded)
#: how its code fails on values that it is not made for, such as no password where one is hashed
MISFITS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    ProgrammingError,
    TypeError,
    ValueError,
)


class BadPayload(UserError):
    """The data of the other system cannot become Odoo's.

    :param str message: what is wrong, for the person who sent it
    :param errors: one mapping per fault: ``pointer`` (RFC 6901), ``message``, ``line_id``
    :type errors: Sequence[Mapping]
    """

    http_status = 400
    #: what the answer has besides: RFC 9110
    headers: dict = {}

    def __init__(self, message, errors=()):
        super().__init__(message)
        self.errors = list(errors)


def get_public_fault(fault):
    """Return what the caller may know of a fault of :class:`BadPayload`; that of an item of a list has a code.

    :param Mapping fault: one of the ``errors``, of an item with its ``index``, and ``status`` where that is not 400
    :rtype: dict
    """
    item = {"index": fault["index"], "code": fault.get("status", 400)} if "index" in fault else {}
    return item | {key: fault[key] for key in ("pointer", "message", "line_id") if fault.get(key) is not None}


class ScriptError(BadPayload):
    """A script of a configuration line failed; the cause (``__cause__``) is for the log alone."""


class RecordNotFound(BadPayload):
    """No record has that identifier, or it is outside the filter domain."""

    http_status = 404


class RecordConflict(BadPayload):
    """Several records have that identifier, or it exists already."""

    http_status = 409


class PreconditionFailed(BadPayload):
    """The record is not as the caller knows it (RFC 9110 section 13.1.1)."""

    http_status = 412


class PayloadTooLarge(BadPayload):
    """The request has more items than the configuration allows."""

    http_status = 413


class KeyInUse(BadPayload):
    """A request with the same idempotency key is running."""

    http_status = 409
    headers = {"Retry-After": "1"}


class StillUnderWay(BadPayload):
    """What the request is about is on its way to the other system: once it is there, the request may be done."""

    http_status = 503
    headers = {"Retry-After": "5"}


class KeyReused(BadPayload):
    """An idempotency key came with another request than its first one."""

    http_status = 422


class CannotSend(UserError):
    """A configuration sends nothing: it is archived, inbound or of another model, or cannot select records any more.

    :param str message: why
    :param str status: that of the log: ``skipped``, or ``error`` where something is to be mended
    """

    def __init__(self, message, status):
        super().__init__(message)
        self.status = status
