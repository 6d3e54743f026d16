import ast
import base64
import datetime as dt
import hashlib
import hmac
import logging
import re
import secrets
import traceback
from copy import deepcopy
from functools import partial
from urllib.parse import urlsplit

from dateutil.relativedelta import relativedelta
from psycopg2 import DataError, IntegrityError, OperationalError
from psycopg2.errors import ReadOnlySqlTransaction

from odoo import fields, models
from odoo.exceptions import AccessError, UserError
from odoo.fields import Command, Domain
from odoo.tools import float_compare
from odoo.tools.safe_eval import dateutil, json, pytz, safe_eval, test_python_expr, time, wrap_module

from ..exceptions import BadPayload, ScriptError
from .bj_api_sync_header import HEADER_NAME, HEADER_VALUE_FORBIDDEN

_logger = logging.getLogger(__name__)

FILENAME = "<python script>"
#: what others answer: a serialization conflict and a write on a read-only cursor by doing the request again, and what
#: the database refuses, after which the transaction is of no use before it is rolled back
PASSED = (OperationalError, ReadOnlySqlTransaction, IntegrityError, DataError)
EXPRESSION = "lambda record, records, request_data: (\n%s\n)"
REGEX = wrap_module(
    re,
    [
        *("compile", "escape", "findall", "finditer", "fullmatch", "match", "search", "split", "sub", "subn"),
        *("ASCII", "DOTALL", "IGNORECASE", "MULTILINE", "VERBOSE"),
    ],
)


class _DatetimeMeta(type):
    def __call__(cls, *args, **kwargs):
        return dt.datetime(*args, **kwargs)

    def __getattr__(cls, name):
        return getattr(dt.datetime, name)

    def __instancecheck__(cls, instance):
        return isinstance(instance, dt.datetime)


class Datetime(metaclass=_DatetimeMeta):
    """Python's ``datetime`` module and class in one name: ``datetime.now()`` and ``datetime.datetime.now()``."""

    date = dt.date
    datetime = dt.datetime
    time = dt.time
    timedelta = dt.timedelta
    timezone = dt.timezone


#: the names that all scripts can use
NAMES = {
    "time": time,
    "datetime": Datetime,
    "timedelta": dt.timedelta,
    "re": REGEX,
    "json": json,
    "b64encode": base64.b64encode,
    "b64decode": base64.b64decode,
    "UserError": UserError,
}

#: the names that a filter domain can use
DOMAIN_NAMES = ("datetime", "timedelta", "relativedelta", "context_today", "uid")
#: what a domain is made of: values, and calls that make dates
DOMAIN_NODES = (
    *(ast.Expression, ast.List, ast.Tuple, ast.Constant, ast.Name, ast.Load, ast.UnaryOp, ast.unaryop),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Call, ast.keyword, ast.Attribute),
)
#: methods of texts that read whatever attributes of an object a text names
FORMATTERS = ("format", "format_map")


class BjApiSyncScript(models.AbstractModel):
    """The only place that evaluates what administrators typed: scripts of lines and for headers, and filter domains.

    ``safe_eval`` keeps honest code from doing harm by accident. It is no security boundary: who may edit
    scripts is an administrator of the server.
    """

    _name = "bj.api.sync.script"
    _description = "API Script"

    def _eval_domain(self, text):
        """Evaluate a filter domain for the current user.

        :param str text: a Python expression
        :rtype: odoo.fields.Domain
        :raises ValueError: if it is no domain
        """
        if not text or text.strip() == "[]":
            return Domain.TRUE
        context = {
            "datetime": Datetime,
            "timedelta": dt.timedelta,
            "relativedelta": relativedelta,
            "context_today": lambda: fields.Date.context_today(self),
            "uid": self.env.uid,
        }
        return Domain(safe_eval(text, context))

    def _check_domain(self, text, model, names=DOMAIN_NAMES):
        """Check a domain before it is kept.

        It is evaluated for others, and who may write it need not be one of those who may write code.

        :param str text: a Python expression
        :param model: an empty recordset of the model it is about
        :param names: the names it may use
        :type names: Collection[str]
        :raises Exception: whatever a typed text may raise: ValueError if it is code, or no domain of the model
        """
        for node in ast.walk(ast.parse((text or "[]").strip(), mode="eval")):
            if (
                not isinstance(node, DOMAIN_NODES)
                or (isinstance(node, ast.Name) and node.id not in names)
                or (isinstance(node, ast.Attribute) and node.attr in FORMATTERS)
            ):
                raise ValueError(self.env._("“%s” cannot be used here.", ast.unparse(node)))
        self._eval_domain(text).validate(model)

    def _check_syntax(self, script, mode):
        """Return what is wrong with a script, in one message, or False.

        :param str script: the code
        :param str mode: ``eval`` or ``exec``
        """
        if not (script or "").strip():
            return self.env._("It is empty.")
        return test_python_expr(script.strip(), mode=mode)

    def _compile(self, line):
        """Compile an *Evaluate* script once for any number of records.

        :param PlanLine line: a line of the plan
        :return: a function of (record, request_data) that returns the value, or raises :class:`ScriptError`
        """
        try:
            function = safe_eval(EXPRESSION % line.script.strip(), self._get_context(line.config_id), filename=FILENAME)
        except Exception as exc:
            raise self._error(line, exc) from exc
        # safe_eval takes them away at its end, and some of Python's own functions (strptime) look for them there
        function.__globals__["__builtins__"] = function.__builtins__

        def evaluate(record, request_data):
            try:
                return function(record, record, request_data)
            except (BadPayload, *PASSED):
                raise
            except Exception as exc:
                raise self._error(line, exc) from exc

        return evaluate

    def _execute(self, line, record, request_data):
        """Run an *Execute* script.

        :param PlanLine line: a line of the plan
        :param record: the matched record, the record to send, or an empty recordset
        :param dict request_data: the payload; the script may change or replace its copy
        :return: the payload afterwards
        :rtype: dict
        :raises ScriptError: if the script failed
        :raises BadPayload: if it raised a ``UserError``
        """
        context = self._get_context(line.config_id) | {
            "record": record,
            "records": record,
            # what a script changes is its own: items are tried again when others of the request fail
            "request_data": deepcopy(request_data),
        }
        try:
            safe_eval(line.script.strip(), context, mode="exec", filename=FILENAME)
        except PASSED:
            raise
        except Exception as exc:
            raise self._error(line, exc) from exc
        if not isinstance(context["request_data"], dict):
            message = self.env._("The Python Script of %s must leave an object in request_data.", line.label)
            raise ScriptError(message, [line.fault(message)])
        return context["request_data"]

    def _compute_headers(self, config, call, request_id):
        """Run the script of a configuration that computes headers of one attempt.

        :param config: the configuration, as superuser
        :param Call call: what will be sent, but for these headers
        :param str request_id: the same over all attempts of a delivery
        :return: names and values
        :rtype: dict[str, str]
        :raises ScriptError: if the script failed, or left what is no header
        """
        context = self._get_header_context(config, call) | {"headers": {}, "request_id": request_id}
        try:
            with self.env.cr.savepoint():  # others go out in the same transaction
                safe_eval(config.header_script.strip(), context, mode="exec", filename=FILENAME)
            return {name: self._check_header(name, value) for name, value in context["headers"].items()}
        except UserError as exc:
            message = self.env._("The Python Script for Headers refuses: %(error)s", error=exc.args[0])
            raise ScriptError(message) from exc
        except Exception as exc:
            number, error = self._explain(exc)
            message = self.env._(
                "The Python Script for Headers failed in line %(number)s: %(error)s", number=number, error=error
            )
            _logger.warning("%s: %s", config.name, message, exc_info=exc)
            raise ScriptError(message) from exc

    def _check_header(self, name, value):
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        if not HEADER_NAME.fullmatch(name) or HEADER_VALUE_FORBIDDEN.search(text):
            raise UserError(self.env._("“%(name)s” and its value are no header.", name=name))
        return text

    def _error(self, line, exc):
        """Name the line of a script that refuses something, or is refused access.

        Any other exception is named with its line number; the traceback goes to the server's log.
        """
        if isinstance(exc.__context__, PASSED):  # safe_eval has wrapped it
            return exc.__context__
        if isinstance(exc, UserError):
            error = BadPayload(exc.args[0], [line.fault(exc.args[0])])
            if isinstance(exc, AccessError):
                error.http_status = exc.http_status
            return error
        offset = 1 if line.script_mode == "eval" else 0  # the line that wraps an expression
        number, error = self._explain(exc, offset)
        message = self.env._(
            "The Python Script of %(line)s failed in line %(number)s: %(error)s",
            line=line.label,
            number=number,
            error=error,
        )
        _logger.warning("%s", message, exc_info=exc)
        return ScriptError(message, [line.fault(message)])

    def _explain(self, exc, offset=0):
        """Return in which line a script failed, and with what."""
        cause = exc.__context__ if isinstance(exc, ValueError) and exc.__context__ else exc
        numbers = [frame.lineno for frame in traceback.extract_tb(cause.__traceback__) if frame.filename == FILENAME]
        return max(numbers[-1] - offset, 1) if numbers else "?", f"{type(cause).__name__}: {cause}"

    # ------------------------------------------------------------------
    # Hooks
    # ------------------------------------------------------------------

    def _get_context(self, config_id):
        """Return the names a script can use, but for ``record``, ``records`` and ``request_data``.

        :param int config_id: the configuration of the line
        :rtype: dict
        """
        config = self.env["bj.api.sync.config"].browse(config_id).sudo()

        def log(message, status="success"):
            self.env["bj.api.log"].create({"name": str(message), "status": status, "config_id": config_id})

        return NAMES | {
            "env": self.env,
            "model": self.env[config.model_name],
            "config": config,
            "dateutil": dateutil,
            "timezone": pytz.timezone,
            "relativedelta": relativedelta,
            "float_compare": float_compare,
            "Command": Command,
            "log": log,
            "requests": self.env["bj.api.sync.client"]._script_requests(),
        }

    def _get_header_context(self, config, call):
        """Return the names a script for headers can use, but for ``headers``, which it fills, and ``request_id``.

        :param config: the configuration, as superuser
        :param Call call: what will be sent
        :rtype: dict
        """
        return NAMES | {
            "body": call.body or b"",
            "method": call.method,
            "url": call.url,
            "config": config,
            "secret": config.header_secret or "",
            "urlsplit": urlsplit,
            "token_hex": secrets.token_hex,
            "hmac_sha256": partial(_hmac, "sha256"),
            "hmac_sha512": partial(_hmac, "sha512"),
            "sha256": _sha256,
        }


def _hmac(algorithm, key, data, encoding="hex"):
    return _encode(hmac.digest(_to_bytes(key), _to_bytes(data), algorithm), encoding)


def _sha256(data, encoding="hex"):
    return _encode(hashlib.sha256(_to_bytes(data)).digest(), encoding)


def _to_bytes(value):
    return value.encode() if isinstance(value, str) else value


def _encode(digest, encoding):
    """Return a digest as ``hex`` or ``base64`` text, or as ``bytes``."""
    return {"hex": digest.hex(), "base64": base64.b64encode(digest).decode(), "bytes": digest}[encoding]
