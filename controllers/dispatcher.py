import functools
import hashlib
import json
import logging
import re
import secrets
import time
import traceback
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlencode

import psycopg2
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import (
    BadRequest,
    Conflict,
    HTTPException,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    TooManyRequests,
    UnsupportedMediaType,
)
from werkzeug.http import parse_etags, quote_etag

from odoo.exceptions import AccessDenied
from odoo.http import Dispatcher, Response
from odoo.service.model import PG_CONCURRENCY_EXCEPTIONS_TO_RETRY

from ..exceptions import DATABASE_REFUSALS, REFUSALS, get_public_fault
from ..tools import codec, xml
from ..tools.edge import get_cors_headers, get_preflight_headers
from ..tools.plan import Answer, Operation
from ..tools.transaction import rehearsal

_logger = logging.getLogger(__name__)

JSON, XML, TEXT_XML = "application/json", "application/xml", "text/xml"
PROBLEM = "application/problem+json"
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
#: a preference may have quotes and parameters, in any case (RFC 7240 section 2): none may be taken for a real write
DRY_RUN = re.compile(r"""(?:^|,)\s*tx\s*=\s*"?rollback"?\s*(?:[,;]|$)""", re.IGNORECASE)
SAFE_METHODS = ("GET", "HEAD")
BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
#: headers of an answer that are answered again with it
KEPT_HEADERS = ("Content-Type", "Location", "ETag", "Link")
#: how much more than allowed is read, in bytes: senders that do not look for an answer before then get it at last
LINGER = 16 * 1024 * 1024


class BjApiSyncDispatcher(Dispatcher):
    """The transport of inbound requests: body -> payload, answer or exception -> JSON, and the log of both."""

    routing_type = "bj_api_sync"

    def __init__(self, request):
        super().__init__(request)
        self.started = time.monotonic()
        self.method = request.httprequest.method
        self.endpoint = None
        self.payload = None
        #: whether all that it wrote is taken back already
        self.is_undone = False
        #: what tells a signed webhook from all others
        self.message = ""
        self.quota = None
        request_id = request.httprequest.headers.get("X-Request-ID", "")
        self.trace_id = request_id if REQUEST_ID.fullmatch(request_id) else secrets.token_hex(16)

    @property
    def origin(self):
        """Scheme and host the request was sent to, as the proxy in front of Odoo tells them."""
        return f"{self.request.httprequest.scheme}://{self.request.httprequest.host}"

    @functools.cached_property
    def dry_run(self):
        """Whether the changes are to be shown, not kept (``Prefer: tx=rollback``, RFC 7240)."""
        preferences = self.request.httprequest.headers.get("Prefer", "")
        return self.method not in SAFE_METHODS and bool(DRY_RUN.search(preferences))

    @functools.cached_property
    def fingerprint(self):
        """What tells this request from others with the same idempotency key."""
        httprequest = self.request.httprequest
        head = repr((self.method, httprequest.path, httprequest.query_string))
        return hashlib.blake2b(head.encode() + self.body, digest_size=20).hexdigest()

    @functools.cached_property
    def args(self):
        """The query parameters: name -> list of texts."""
        return {key: list(texts) for key, texts in self.request.httprequest.args.lists()}

    @functools.cached_property
    def media_type(self):
        """What is answered: JSON unless something else is asked for; None if that is nothing we have."""
        accepted = self.request.httprequest.accept_mimetypes
        if not accepted:
            return JSON
        # parameters, such as a charset, change nothing about what can be answered
        accepted = MIMEAccept([(value.partition(";")[0], quality) for value, quality in accepted])
        return accepted.best_match([JSON, XML, TEXT_XML]) or (JSON if PROBLEM in accepted else None)

    @functools.cached_property
    def body(self):
        """The raw body of the request.

        :raises RequestEntityTooLarge: if it is larger than the endpoint takes, whether its length is announced or not
        """
        limit = self.endpoint.max_body_size
        httprequest = self.request.httprequest
        httprequest.max_content_length = limit + LINGER  # what is not announced is silently cut there
        if (httprequest.content_length or 0) > limit + LINGER or len(httprequest.get_data()) > limit:
            raise RequestEntityTooLarge(self.request.env._("The body may have %s KiB at most.", limit // 1024))
        return httprequest.get_data()

    @classmethod
    def is_compatible_with(cls, request):
        return True  # else Odoo answers 415 itself, and not as JSON

    def dispatch(self, endpoint, args):
        """Check and parse the request, serve it, make the response and its log."""
        self.request.params = dict(args)  # addons read it after every request, whatever its method
        allowed = self._get_allowed()
        if self.is_preflight():
            return self._respond(Answer(HTTPStatus.NO_CONTENT, {}, self._get_preflight_headers(allowed)))
        if self.endpoint.rate_limit:
            self._take_quota()
        if self.method == "OPTIONS":
            return self._respond(Answer(HTTPStatus.NO_CONTENT, {}, {"Allow": ", ".join(allowed)}))
        if self.method not in allowed:
            raise MethodNotAllowed(valid_methods=allowed)
        if not self.media_type:
            raise NotAcceptable(self.request.env._("Only %s can be answered.", f"{JSON}, {XML}"))
        self.payload = self._parse_body()
        self.idempotency_key = self._get_idempotency_key()
        self.operation = self._get_operation(args.get("record_ref", ""))
        if self.method in SAFE_METHODS or self.dry_run:
            answer = self._dispatch(endpoint)
            response = self._respond_conditionally(answer)
        else:
            response, answer = self._dispatch_write(endpoint)
        self._log(response, answer)
        return response

    def _dispatch(self, endpoint):
        """Have the controller call :meth:`serve`, the way Odoo calls controllers."""
        return self.request.registry["ir.http"]._dispatch(endpoint)

    def _dispatch_write(self, endpoint):
        """Serve a write: alone with its records, and only once for an idempotency key.

        :return: the response, and what the log says of it
        :rtype: tuple[Response, Answer]
        """
        env, config_id, key = self.request.env, self.endpoint.config_id, self.idempotency_key
        identifiers = env["bj.api.sync.inbound"]._get_identifiers(self.endpoint, self.operation)
        stored = env["bj.api.idempotency.key"]._begin(config_id, key, key and self.fingerprint, identifiers)
        if stored:
            status, headers, body = stored
            headers["Idempotent-Replayed"] = "true"
            return self._make_response(status, body.encode(), headers), Answer(status, {})
        if self.message and not env["bj.api.sync.message"]._claim(config_id, self.message):
            raise Conflict(env._("This message was received before."))
        # a signed message is claimed for itself, and may come again if it failed
        answer = self._dispatch_undoing(endpoint) if key and not self.message else self._dispatch(endpoint)
        response = self._respond_conditionally(answer)
        self._keep(response)
        return response, answer

    def _dispatch_undoing(self, endpoint):
        """Dispatch a request whose failure is undone, while its key stays locked until the answer is stored."""
        env = self.request.env
        try:
            with env.cr.savepoint():
                return self._dispatch(endpoint)
        except DATABASE_REFUSALS as exc:
            self.is_undone = True
            raise env["bj.api.sync.inbound"]._get_database_error(self.endpoint, exc) from exc
        except (*REFUSALS, HTTPException):
            self.is_undone = True
            raise

    def _keep(self, response):
        """Store the answer under the idempotency key, if the request has one."""
        if self.idempotency_key:
            headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
            body = response.get_data(as_text=True)
            self.request.env["bj.api.idempotency.key"]._keep(
                self.endpoint.config_id, self.idempotency_key, self.fingerprint, response.status_code, headers, body
            )

    def serve(self):
        """Do what the request asks for; a dry run leaves nothing.

        :rtype: Answer
        """
        if not self.dry_run:
            return self.request.env["bj.api.sync.inbound"]._handle(self.endpoint, self.operation)
        with rehearsal(self.request.env) as env:
            return env["bj.api.sync.inbound"]._handle(self.endpoint, self.operation)

    def _get_operation(self, record_ref):
        method = "GET" if self.method == "HEAD" else self.method
        matches = self._get_matcher() if self.method not in SAFE_METHODS else None
        return Operation(method, record_ref, self.args, self.payload, matches, self.dry_run)

    def _get_matcher(self):
        """Return what tells whether the caller wants a representation to be written to (RFC 9110 section 13.1).

        :return: None if the caller does not care
        """
        headers = self.request.httprequest.headers
        expected, others = headers.get("If-Match"), headers.get("If-None-Match")
        if not expected and not others:
            return None
        known, known_others = parse_etags(expected), parse_etags(others)

        def matches(data):
            etags = _get_etags(data).values()
            is_expected = not expected or any(map(known.contains, etags))
            return is_expected and not any(map(known_others.contains_weak, etags))

        return matches

    def _get_idempotency_key(self):
        """Return the key of a write, with or without quotes; empty if there is none.

        :raises BadRequest: if it is empty or longer than 255 characters
        """
        key = self.request.httprequest.headers.get("Idempotency-Key")
        if key is None or self.method in SAFE_METHODS:
            return ""
        key = key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
        if not 1 <= len(key) <= 255:
            raise BadRequest(self.request.env._("The Idempotency-Key must have 1 to 255 characters."))
        return key

    def _get_links(self, links):
        """Return the header that leads to the pages around a list (RFC 8288)."""
        base, args = f"{self.origin}{self.request.httprequest.path}", self.args
        urls = {
            relation: urlencode(
                {key: value for key, value in (args | changed).items() if value is not None}, doseq=True
            )
            for relation, changed in links.items()
        }
        return ", ".join(f'<{base}{"?" if query else ""}{query}>; rel="{rel}"' for rel, query in urls.items())

    def is_preflight(self):
        """Tell whether a browser asks if a page of another origin may send a request (Fetch, section 4.8)."""
        if self.method != "OPTIONS" or not self.endpoint.cors_origins:
            return False
        headers = self.request.httprequest.headers
        return "Origin" in headers and "Access-Control-Request-Method" in headers

    def _get_preflight_headers(self, allowed):
        headers, endpoint = self.request.httprequest.headers, self.endpoint
        requested = headers.get("Access-Control-Request-Headers", "")
        known = [name for name, _ in endpoint.required_headers]
        return get_preflight_headers(endpoint.cors_origins, headers["Origin"], allowed, requested, known)

    def _take_quota(self):
        """Count the request, once, however often Odoo tries it again.

        After authentication: else whoever knows the URL could use up the requests of those who may send them.

        :raises TooManyRequests: if it is one too many within the minute (RFC 6585 section 4)
        """
        limit, config_id = self.endpoint.rate_limit, self.endpoint.config_id
        self.quota = self.quota or self.request.env["bj.api.sync.rate"]._take(config_id, limit)
        if self.quota.is_exceeded:
            message = self.request.env._("At most %s requests per minute.", limit)
            raise TooManyRequests(message, retry_after=self.quota.wait)

    def _get_allowed(self):
        methods = self.endpoint.methods
        if self.request.params.get("record_ref"):  # nothing is created below a record
            methods = [method for method in methods if method != "POST"]
        return [*methods, *(("HEAD",) if "GET" in methods else ()), "OPTIONS"]

    def _parse_body(self):
        """Return the body as JSON value, None if there is none.

        :raises BadRequest: if it is not what it is declared to be; without a declaration, JSON
        :raises UnsupportedMediaType: if it is declared as something that is not understood
        """
        if self.method in SAFE_METHODS or not self.body.strip():
            return None
        encoding = self.request.httprequest.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise UnsupportedMediaType(self.request.env._("The body must not be compressed, but is %s.", encoding))
        mimetype = self.request.httprequest.mimetype or JSON
        # a suffix tells the syntax of any other type (RFC 6839)
        media_type = mimetype if mimetype in FORMATS else f"application/{mimetype.rpartition('+')[2]}"
        if media_type not in FORMATS:
            raise UnsupportedMediaType(
                self.request.env._(
                    "The body must be %(expected)s, not %(given)s.", expected=f"{JSON} or {XML}", given=mimetype
                )
            )
        try:
            return FORMATS[media_type].parse(self.body, self.request.httprequest.mimetype_params.get("charset"))
        except (ValueError, RecursionError) as exc:
            raise BadRequest(
                self.request.env._("The body is not valid %(type)s: %(error)s", type=media_type, error=exc)
            ) from exc

    # ------------------------------------------------------------------
    # Responses
    # ------------------------------------------------------------------

    def _respond_conditionally(self, answer):
        """Make the response of an answer; 304 if the caller has it already (RFC 9110 section 13.1.2)."""
        if answer.location:
            base = self.request.httprequest.path.rstrip("/")
            answer.headers["Location"] = f"{base}/{answer.location}"
        if answer.links:
            answer.headers["Link"] = self._get_links(answer.links)
        if self.dry_run:
            answer.headers["Preference-Applied"] = "tx=rollback"
        elif isinstance(answer.body["data"], dict) and self.method != "DELETE":
            etag = _get_etags(answer.body["data"])[self.media_type]
            answer.headers["ETag"] = quote_etag(etag)
            known = parse_etags(self.request.httprequest.headers.get("If-None-Match"))
            if self.method in SAFE_METHODS and known.contains_weak(etag):
                return self._respond(Answer(HTTPStatus.NOT_MODIFIED, {}, answer.headers))
        return self._respond(answer)

    def _respond(self, answer, content_type=None):
        media_type = self.media_type or JSON
        body = b"" if answer.status in BODILESS else FORMATS[content_type or media_type].dump(answer.body)
        return self._make_response(answer.status, body, answer.headers, content_type or media_type)

    def _make_response(self, status, body, headers, content_type=JSON):
        headers = {
            "Content-Type": f"{content_type}; charset=utf-8",
            **headers,
            "X-Request-ID": self.trace_id,
            "Cache-Control": "private, no-cache" if "ETag" in headers else "no-store",
            "X-Content-Type-Options": "nosniff",
            "Vary": "Accept",
        }
        response = Response(body, status=int(status), headers=headers)
        if not body:
            response.headers.pop("Content-Type")
        if self.quota:
            response.headers.update(self.quota.get_headers())
        if self.endpoint and self.endpoint.cors_origins:
            origin = self.request.httprequest.headers.get("Origin", "")
            response.headers.update(get_cors_headers(self.endpoint.cors_origins, origin))
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
            if self.is_undone:
                env.cr.postcommit.clear()
                env.cr.postrollback.run()
            else:
                env.cr.rollback()
            env.transaction.reset()
        cause = exc if isinstance(exc, DATABASE_REFUSALS) else exc.__cause__
        if self.endpoint and isinstance(cause, DATABASE_REFUSALS):
            # Odoo's retries have made a ValidationError of it, which does not tell a conflict from a bad value
            exc = env["bj.api.sync.inbound"]._get_database_error(self.endpoint, cause)
        status, message, headers = self._describe(exc)
        if status == 500:
            path = self.request.httprequest.path
            _logger.error("%s %s failed, trace id %s", self.method, path, self.trace_id, exc_info=exc)
            message = "Internal error. The log has the details under the trace id."
        body = {"status": "error", "code": status, "message": message, "trace_id": self.trace_id}
        errors = list(map(get_public_fault, getattr(exc, "errors", ()))) if status != 500 else []
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
            status = self.request.env["bj.api.sync.inbound"]._get_status(exc)
            return status, str(exc.args[0]), getattr(exc, "headers", {})
        if isinstance(exc, PG_CONCURRENCY_EXCEPTIONS_TO_RETRY):  # Odoo has tried again, and has given up
            return 409, self.request.env._("Others change the same records right now: try again."), {"Retry-After": "1"}
        return 500, "", {}

    # ------------------------------------------------------------------
    # Logs
    # ------------------------------------------------------------------

    def _log(self, response, answer):
        """Log a request that succeeded: writes in their own transaction, reads when there is time."""
        values = self._get_log_values(response) | {
            "status": "error" if answer.status == HTTPStatus.MULTI_STATUS else "success",
            "error_message": self._explain_items(answer.body.get("errors", ())),
            "record_id": answer.record_ids[0] if len(answer.record_ids) == 1 else False,
            "record_count": len(answer.record_ids),
        }
        logs = self.request.env["bj.api.log"]
        record = logs._record_later if self.method in SAFE_METHODS else logs._record
        record(values)

    def _explain_items(self, errors):
        """Return what the log says of the items that failed; False if there are none."""
        if not errors:
            return False
        count, first = len({error["index"] for error in errors}), errors[0]["message"]
        return self.request.env._("Failed items: %(count)s. The first: %(first)s", count=count, first=first)

    def _log_error(self, response, exc, status):
        """Log a failure, after the rollback, on the same cursor and commit that alone."""
        env = self.request.env
        if not env or env.cr.closed or not self.endpoint:
            return
        error = _explain(exc, status)
        if status == HTTPStatus.UNAUTHORIZED and self.endpoint.is_locked:
            error = env._("A secret of this configuration cannot be read: its encryption key is missing. %s", error)
        values = self._get_log_values(response) | {"status": "error", "error_message": error}
        if status == HTTPStatus.TOO_MANY_REQUESTS:  # refusing must cost less than serving
            env["bj.api.log"]._record_later(values)
            return
        if env.cr.readonly:
            env["bj.api.log"]._record_own_cursor(values)
            return
        # after a rollback somebody else may have the key; and what failed by itself may work next time
        if self.is_undone and status < 500:
            self._keep(response)
        env["bj.api.log"]._record(values)
        env.cr.commit()

    def _get_log_values(self, response):
        httprequest, env = self.request.httprequest, self.request.env
        [own_company_id, *_others] = env.context.get("allowed_company_ids") or [False]
        name = f"{self.method} {self.endpoint.name}"
        return {
            "name": env._("%s (dry run)", name) if self.dry_run else name,
            "config_id": self.endpoint.config_id,
            "direction": "in",
            "method": self.method,
            "url": f"{self.origin}{httprequest.environ.get('RAW_URI') or httprequest.full_path}",
            "response_code": response.status_code,
            "request_headers": dict(httprequest.headers),
            "request_body": self._get_logged_body(),
            "further_secrets": env["bj.api.sync.inbound"]._get_secrets(self.endpoint, self.payload),
            "response_headers": dict(response.headers),
            "response_body": response.get_data(),
            "duration": time.monotonic() - self.started,
            "trace_id": self.trace_id,
            "model": self.endpoint.model,
            "remote_address": httprequest.remote_addr,
            "user_id": env.uid,
            "company_id": self.endpoint.company_id or own_company_id,
        }

    def _get_logged_body(self):
        try:
            return self.body if self.method not in SAFE_METHODS else b""
        except HTTPException:  # too large, or cut off
            return b""


def _get_etags(data):
    """Return what tells representations apart, by media type: of what is in them, not of when it was written."""
    etag = hashlib.blake2b(_dump(data), digest_size=16).hexdigest()
    return {JSON: etag, XML: f"{etag}-xml", TEXT_XML: f"{etag}-xml"}


def _dump(body):
    try:
        return codec.dump_json(body)
    except (TypeError, MemoryError):
        # half of a surrogate pair, an integer of more than 64 bits, a key that is no text; or little memory is left
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


class Format(NamedTuple):
    """How a media type is read, from bytes and the charset they are declared to have, and written."""

    parse: Callable
    dump: Callable


#: JSON is UTF-8, whatever is declared (RFC 8259 section 8.1)
_JSON, _XML = Format(lambda data, _charset: codec.parse_json(data), _dump), Format(xml.parse, xml.dump)
FORMATS = {JSON: _JSON, PROBLEM: _JSON, XML: _XML, TEXT_XML: _XML}


def _explain(exc, status):
    """Return what the log says of a failure: the traceback too when it is nobody's input."""
    cause = exc if isinstance(exc, HTTPException) else exc.__cause__ or exc
    if status != 500 and isinstance(cause, (*REFUSALS, HTTPException)):
        return str(exc.args[0] if isinstance(exc, REFUSALS) else exc)
    return "".join(traceback.format_exception(exc))
