import json
import logging
import re
import time
import traceback
import uuid
from http import HTTPStatus
from urllib.parse import urlencode

import psycopg2
from psycopg2 import DataError, IntegrityError
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    MethodNotAllowed,
    NotAcceptable,
    UnsupportedMediaType,
)

from odoo.exceptions import AccessDenied
from odoo.http import Dispatcher, Response

from ..exceptions import REFUSALS
from ..tools.plan import Answer

_logger = logging.getLogger(__name__)

JSON = "application/json"
PROBLEM = "application/problem+json"
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
SAFE_METHODS = ("GET", "HEAD")


class BjApiSyncDispatcher(Dispatcher):
    """The transport of inbound requests: body -> payload, answer or exception -> JSON, and the log of both."""

    routing_type = "bj_api_sync"

    def __init__(self, request):
        super().__init__(request)
        self.started = time.monotonic()
        self.endpoint = None
        self.payload = None
        request_id = request.httprequest.headers.get("X-Request-ID", "")
        self.trace_id = request_id if REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex

    @property
    def method(self):
        """The HTTP method of the request."""
        return self.request.httprequest.method

    @property
    def args(self):
        """The query parameters: name -> list of texts."""
        return {key: list(texts) for key, texts in self.request.httprequest.args.lists()}

    @classmethod
    def is_compatible_with(cls, request):
        return True  # else Odoo answers 415 itself, and not as JSON

    def dispatch(self, endpoint, args):
        """Check and parse the request, serve it, make the response and its log."""
        self.request.params = dict(args)  # addons read it after every request, whatever its method
        allowed = self._get_allowed()
        if self.method == "OPTIONS":
            return self._respond(Answer(HTTPStatus.NO_CONTENT, {}, {"Allow": ", ".join(allowed)}))
        if self.method not in allowed:
            raise MethodNotAllowed(valid_methods=allowed)
        accepted = self.request.httprequest.accept_mimetypes
        if accepted and not accepted.best_match([JSON, PROBLEM]):
            raise NotAcceptable(self.request.env._("Only %s can be answered.", JSON))
        self.payload = self._parse_body()
        answer = self.request.registry["ir.http"]._dispatch(endpoint)
        if answer.location:
            base = self.request.httprequest.path.rstrip("/")
            answer.headers["Location"] = f"{base}/{answer.location}"
        if answer.links:
            answer.headers["Link"] = self._get_links(answer.links)
        response = self._respond(answer)
        self._log(response, answer)
        return response

    def _get_links(self, links):
        """Return the header that leads to the pages around a list (RFC 8288)."""
        base, args = self.request.httprequest.base_url, self.args
        urls = {
            relation: urlencode(
                {key: value for key, value in (args | changed).items() if value is not None}, doseq=True
            )
            for relation, changed in links.items()
        }
        return ", ".join(f'<{base}{"?" if query else ""}{query}>; rel="{rel}"' for rel, query in urls.items())

    def _get_allowed(self):
        methods = self.endpoint.methods
        return [*methods, *(("HEAD",) if "GET" in methods else ()), "OPTIONS"]

    def _parse_body(self):
        """Return the body as JSON value, None if there is none.

        :raises BadRequest: if it is no JSON (RFC 8259)
        :raises UnsupportedMediaType: if it is declared as something else
        """
        if self.method in SAFE_METHODS:
            return None
        data = self.request.httprequest.get_data()
        if not data.strip():
            return None
        mimetype = self.request.httprequest.mimetype
        if mimetype and mimetype != JSON and not mimetype.endswith("+json"):
            raise UnsupportedMediaType(
                self.request.env._("The body must be %(expected)s, not %(given)s.", expected=JSON, given=mimetype)
            )
        try:
            return json.loads(data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as exc:
            raise BadRequest(self.request.env._("The body is not valid JSON: %s", exc)) from exc

    # ------------------------------------------------------------------
    # Responses
    # ------------------------------------------------------------------

    def _respond(self, answer, content_type=JSON):
        body = b"" if answer.status == HTTPStatus.NO_CONTENT else _dump(answer.body)
        response = Response(body, status=int(answer.status), content_type=f"{content_type}; charset=utf-8")
        if not body:
            response.headers.pop("Content-Type")
        response.headers.update(answer.headers)
        response.headers["X-Request-ID"] = self.trace_id
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        if self.endpoint:
            response.headers.update(self.endpoint.answer_headers)
        return response

    def handle_error(self, exc):
        """Turn any exception into a JSON response, after a rollback, with a log that survives it.

        :param Exception exc: what was raised while the request was served
        :rtype: odoo.http.Response
        """
        env = self.request.env
        if env and not env.cr.closed:
            env.cr.rollback()
            env.transaction.reset()
        cause = exc if isinstance(exc, DataError) else exc.__cause__
        if self.endpoint and isinstance(cause, (IntegrityError, DataError)):
            # Odoo's retries have made a ValidationError of it, which does not tell a conflict from a bad value
            exc = env["bj.api.sync.inbound"]._get_database_error(self.endpoint, cause)
        status, message, headers = self._describe(exc)
        if status >= 500:
            path = self.request.httprequest.path
            _logger.error("%s %s failed, trace id %s", self.method, path, self.trace_id, exc_info=exc)
            message = "Internal error. The log has the details under the trace id."
        body = {"status": "error", "code": status, "message": message, "trace_id": self.trace_id}
        errors = [_public(error) for error in getattr(exc, "errors", ())] if status < 500 else []
        if errors:
            body["errors"] = errors
        response = self._respond_error(status, body, headers)
        try:
            self._log_error(response, exc, status)
        except psycopg2.Error:  # the caller gets the answer nevertheless
            _logger.exception("The failed request with the trace id %s could not be logged", self.trace_id)
        self.request._inject_future_response(response)
        return response

    def _respond_error(self, status, body, headers):
        """Answer an error, as RFC 9457 problem details to who accepts those."""
        if PROBLEM not in self.request.httprequest.headers.get("Accept", ""):
            return self._respond(Answer(status, body, headers))
        problem = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": body["message"],
            "instance": self.request.httprequest.path,
            "trace_id": self.trace_id,
        }
        if "errors" in body:
            problem["errors"] = body["errors"]
        return self._respond(Answer(status, problem, headers), PROBLEM)

    def _describe(self, exc):
        """Return the status, message and headers an exception is answered with."""
        if isinstance(exc, HTTPException):
            skipped = ("content-type", "content-length")
            headers = {name: value for name, value in exc.get_headers() if name.lower() not in skipped}
            return exc.code or 500, exc.description or HTTPStatus(exc.code or 500).phrase, headers
        if isinstance(exc, AccessDenied):
            return 403, self.request.env._("Access denied."), {}
        if isinstance(exc, REFUSALS):
            return self.request.env["bj.api.sync.inbound"]._get_status(exc), str(exc.args[0]), {}
        return 500, "", {}

    # ------------------------------------------------------------------
    # Logs
    # ------------------------------------------------------------------

    def _log(self, response, answer):
        """Log a request that succeeded: writes in their own transaction, reads when there is time."""
        if self.endpoint.log_policy != "all":
            return
        values = self._get_log_values(response) | {
            "status": "error" if answer.status == HTTPStatus.MULTI_STATUS else "success",
            "record_id": answer.record_ids[0] if len(answer.record_ids) == 1 else False,
            "record_count": answer.count,
        }
        logs = self.request.env["bj.api.log"]
        record = logs._record_later if self.method in SAFE_METHODS else logs._record
        record(values, self.endpoint.log_policy)

    def _log_error(self, response, exc, status):
        """Log a failure, after the rollback, on the same cursor and commit that alone."""
        env = self.request.env
        if not env or env.cr.closed or not self.endpoint or self.endpoint.log_policy == "none":
            return
        values = self._get_log_values(response) | {"status": "error", "error_message": _explain(exc, status)}
        if env.cr.readonly:
            env["bj.api.log"]._record_own_cursor(values, self.endpoint.log_policy)
            return
        env["bj.api.log"]._record(values, self.endpoint.log_policy)
        env.cr.commit()

    def _get_log_values(self, response):
        httprequest = self.request.httprequest
        return {
            "name": f"{self.method} {self.endpoint.name}",
            "config_id": self.endpoint.config_id,
            "direction": "in",
            "method": self.method,
            "url": httprequest.url,
            "response_code": response.status_code,
            "request_headers": dict(httprequest.headers),
            "request_body": httprequest.get_data() if self.method not in SAFE_METHODS else b"",
            "response_headers": dict(response.headers),
            "response_body": response.get_data(),
            "duration": time.monotonic() - self.started,
            "trace_id": self.trace_id,
            "model": self.endpoint.model,
            "remote_address": httprequest.remote_addr,
            "user_id": self.request.env.uid,
            "company_id": self.endpoint.company_id or self.request.env.company.id,
        }


def _dump(body):
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def _refuse_constant(name):
    raise ValueError(f"{name} is no JSON number")


def _public(error):
    """Return what the caller may know of one fault."""
    result = {"index": error["index"], "code": error.get("status", 400)} if "index" in error else {}
    return result | {key: error[key] for key in ("pointer", "message", "line_id") if error.get(key) is not None}


def _explain(exc, status):
    """Return what the log says of a failure: the traceback too when it is nobody's input."""
    cause = exc.__cause__ or exc
    if status < 500 and isinstance(cause, (*REFUSALS, HTTPException)):
        return str(exc.args[0] if isinstance(exc, REFUSALS) else exc)
    return "".join(traceback.format_exception(exc))
