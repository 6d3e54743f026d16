import json
import re
from dataclasses import dataclass, replace
from urllib.parse import quote, urlencode, urlsplit, urlunsplit
from uuid import uuid4

from psycopg2 import DataError
from psycopg2 import Error as DatabaseError

from odoo import api, models
from odoo.exceptions import UserError
from odoo.fields import Domain

from ..exceptions import DATABASE_REFUSALS, MISFITS, REFUSALS, CannotSend
from ..tools import codec, oauth, paging
from ..tools.result import Result
from ..tools.transport import get_host

#: what a URL is filled with: an external key
PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class PreparedRequest:
    """One request as it will be sent, secrets not included: they are added when it is sent.

    ``error`` tells why it cannot be sent at all.
    """

    method: str
    model: str
    record_ids: tuple
    trace_id: str
    url: str = ""
    body: bytes | None = None
    content_type: str = ""
    error: str = ""
    #: what the other system knows the record by; empty for lists, and where that is not told
    identifier: str = ""
    #: what the URL was made of: the ``field`` of the configuration, its value (``template``), and the ``payload`` as
    #: JSON where no body has it; None for what could not be prepared
    source: dict | None = None


class BjApiSyncOutbound(models.AbstractModel):
    """From records to requests, and from answers back to records."""

    _name = "bj.api.sync.outbound"
    _description = "API Outbound"

    @api.model
    def _push(self, config, records, timeout=None):
        """Send records now.

        :param config: an outbound `bj.api.sync.config`
        :param records: records of its model
        :param float timeout: seconds, instead of the configuration's read timeout
        :rtype: odoo.addons.bj_api_sync.tools.result.Result
        """
        kept, skipped, message = self._select(config, records)
        if kept is None:
            return Result(error=message, results=[], skipped=len(skipped))
        items = self._serialize(config, kept) if kept else []
        told = self.env["bj.api.link"]._read_pushed(config, items)
        results = [
            self._push_request(config, kept, request, timeout, told)
            for request in self._prepare_requests(config, items)
        ]
        return Result.of(results, skipped=len(skipped))

    @api.model
    def _select(self, config, records):
        """Tell the records that may be sent from those that are skipped, and log these.

        Nobody's change of a record fails by a configuration that does not work any more.

        :return: the records to send as the configuration's user sees them, None if it sends nothing, those skipped,
            why they are
        :rtype: tuple[odoo.models.BaseModel | None, odoo.models.BaseModel, str]
        """
        records, status, kept = self._run_as(config, records), "skipped", None
        try:
            kept = self._choose(config, records)
            message = self.env._(
                "The record is outside the filter domain, or %(user)s may not read it.", user=records.env.user.name
            )
        except CannotSend as exc:
            message, status = str(exc), exc.status
        skipped = records - kept if kept else records
        self._log_skipped(config, skipped, message, status)
        return kept, skipped, message

    @api.model
    def _choose(self, config, records):
        """Return the records that may be sent; the responsible user is told where that cannot be found out any more.

        :param records: as the configuration's user sees them
        :raises CannotSend: if the configuration sends nothing
        """
        if not config.active or config.request_type != "out" or config.model_name != records._name:
            message = self.env._(
                "%(config)s is archived, inbound or of another model than the record: nothing is sent.",
                config=config.name,
            )
            raise CannotSend(message, "skipped")
        self.env.flush_all()  # what fails here is not the configuration
        try:
            with self.env.cr.savepoint(flush=False):
                records.browse().check_access("read")
                # what its scripts write starts no further push
                return self._filter(config, records).with_context(bj_api_sync_from=config.id)
        except (*REFUSALS, *MISFITS, DataError) as exc:
            message = self.env._("%(config)s cannot select: %(error)s", config=config.name, error=exc)
            config._notify_responsible(self.env._("Records are not sent"), message)
            raise CannotSend(message, "error") from exc

    @api.model
    def _push_request(self, config, records, request, timeout, told):
        if request.error:
            self._log(config, request, status="error", error_message=request.error)
            return Result(error=request.error, record_ids=request.record_ids)
        exchange = self.env["bj.api.sync.client"]._send(config, request, timeout)
        note, is_sent = exchange.error, exchange.outcome == "success"
        told = {record_id: told[record_id] for record_id in request.record_ids if record_id in told}
        self.env["bj.api.link"]._note_pushed(config, told, is_sent)
        if is_sent:
            note = self._read_back(config, records.browse(request.record_ids), exchange)
        self._log_exchange(config, request, exchange, note)
        return Result(exchange, record_ids=request.record_ids)

    # ------------------------------------------------------------------
    # Records to requests
    # ------------------------------------------------------------------

    @api.model
    def _run_as(self, config, records):
        """Return the records as the configuration's user and company see them, whoever started the exchange.

        What is sent must not depend on who saved a record: neither on rights, nor on language or companies.
        """
        # only inbound ones may have none: with Odoo API Keys it is whoever asks
        user = config.user_id or self.env.user
        company = config.company_id or user.company_id
        context = {"lang": user.lang, "tz": user.tz, "allowed_company_ids": company.ids}
        return records.browse(dict.fromkeys(records.ids)).with_user(user).with_context(context)

    @api.model
    def _filter(self, config, records):
        """Return the records in the filter domain, in their order; archived ones count like any other."""
        if not records.browse().has_access("read"):
            return records.browse()
        domain = records.env["bj.api.sync.script"]._eval_domain(config.sudo().filter_domain)
        return records & records.with_context(active_test=False).search(Domain("id", "in", records.ids) & domain)

    @api.model
    def _prepare_requests(self, config, items):
        """Turn records into requests: one each, or lists of ``page_size`` (at most ``limit``) per address.

        A record that cannot be sent becomes a request with an error, so that the others go out.

        :param list items: from :meth:`_serialize`
        :rtype: list[PreparedRequest]
        """
        method = config.http_method_ids.name
        size = min(config.page_size, config.limit) if config.is_paginated and method != "GET" else 1
        pages, latest = [], {}
        for record, payload, problem in items:
            url, error = ("", problem) if problem else self._try_url(self._build_url, config, payload)
            page = latest.get(url)
            if error or not page or len(page[1]) == size:
                page = (url, [], error)
                pages.append(page)
                latest[url] = page
            page[1].append((record, payload))
        return [self._prepare_page(config, *page) for page in pages]

    @api.model
    def _try_url(self, build, *args):
        """Return a URL, or why there is none."""
        try:
            return build(*args), ""
        except UserError as exc:
            return "", str(exc)

    @api.model
    def _serialize(self, config, records):
        """Map records as a configuration's user sees them, together; split only where one fails.

        :rtype: list[tuple[record, dict | None, str]]
        """
        try:
            with self.env.cr.savepoint():
                mapper = records.env["bj.api.sync.mapper"]
                payloads = mapper._serialize(mapper._plan(config.id), records)
            return [(record, payload, "") for record, payload in zip(records, payloads, strict=True)]
        except (UserError, *DATABASE_REFUSALS) as exc:
            if len(records) == 1:
                return [(records, None, str(exc) if isinstance(exc, UserError) else exc.diag.message_primary)]
        half = len(records) // 2
        return self._serialize(config, records[:half]) + self._serialize(config, records[half:])

    @api.model
    def _prepare_page(self, config, url, page, error=""):
        records = page[0][0].concat(*(record for record, _payload in page[1:]))
        if error:
            return self._prepare_request(config, records, error=error)
        payloads = [payload for _record, payload in page]
        source = {"field": "request_url", "template": config.request_url}
        identifier = self._get_identifier(config, payloads[0]) if len(page) == 1 else ""
        if config.http_method_ids.name == "GET":
            url, source = self._build_query(url, payloads[0]), source | {"payload": json.dumps(payloads[0])}
            return self._prepare_request(config, records, url=url, source=source, identifier=identifier)
        content_type, body = self._build_body(config, payloads if config.is_paginated else payloads[0])
        values = {"body": body, "content_type": content_type, "source": source, "identifier": identifier}
        return self._prepare_request(config, records, url=url, **values)

    @api.model
    def _get_identifier(self, config, payload):
        """Return what the other system knows a record by, as a payload tells it; empty if it does not.

        :rtype: str
        """
        line = self.env["bj.api.sync.mapper"]._plan(config.id).identifier
        value = paging.try_pick(payload, line.key) if line and line.key else None
        return "" if value is None else str(value)

    @api.model
    def _prepare_request(self, config, records, **values):
        return PreparedRequest(
            **{"method": config.http_method_ids[:1].name, **values},  # one of several, where it tells what is skipped
            model=records._name,
            record_ids=tuple(records.ids),
            trace_id=uuid4().hex,
        )

    @api.model
    def _prepare_deletion(self, config, record, keys):
        """Return the request that tells that a record is gone.

        :param record: a record that does not exist any more
        :param dict keys: what is known of it
        :rtype: PreparedRequest
        """
        url, error = self._try_url(self._fill_url, config.deletion_url, keys or {})
        source = {"field": "deletion_url", "template": config.deletion_url, "payload": json.dumps(keys or {})}
        values = {"url": url, "error": error, "source": source, "identifier": self._get_identifier(config, keys or {})}
        return self._prepare_request(config, record, method="DELETE", **values)

    @api.model
    def _readdress(self, config, request):
        """Return a queued request with the URL its configuration has by now, filled from the payload as of then.

        The credentials are those of now as well: they must not go to a host that they are not for.

        :param PreparedRequest request: of a delivery
        :rtype: PreparedRequest
        :raises UserError: if the payload does not have what the URL needs
        """
        source = request.source
        if not source:
            raise UserError(self.env._("It could not be prepared when it was queued: push its record anew."))
        template = config[source["field"]] or ""
        if request.url and template == source["template"]:
            return request
        payload = read_payload(source, request.body)
        if source["field"] == "deletion_url":
            url = self._fill_url(template, payload)
        else:
            url = self._build_url(config, payload)
            url = self._build_query(url, payload) if request.method == "GET" else url
        return replace(request, url=url, source=source | {"template": template})

    @api.model
    def _test_connection(self, config):
        """Reach the other system without data: HEAD, or GET where it does not know HEAD.

        :return: kind of notification, message
        :rtype: tuple[str, str]
        """
        config = config.sudo()
        url = config.request_url.partition("{")[0]
        if not urlsplit(url).path and "{" in config.request_url:
            return "warning", self.env._("The host of the Request URL depends on the records: send one to test it.")
        for method in ("HEAD", "GET"):
            request = self._prepare_request(config, self.env[config.model_name], method=method, url=url)
            exchange = self.env["bj.api.sync.client"]._send(config, request)
            if exchange.status_code not in (404, 405, 501) or exchange.is_grant:
                break
        self._log_exchange(config, request, exchange, exchange.error)
        return self._describe_test(exchange)

    @api.model
    def _describe_test(self, exchange):
        code = exchange.status_code
        shown = {"host": get_host(exchange.url), "code": code}
        if exchange.failure or exchange.is_grant:
            return "danger", exchange.error
        if 200 <= code < 300:
            duration = round(exchange.duration * 1000)
            return "success", self.env._("%(host)s answered %(code)s in %(duration)s ms.", duration=duration, **shown)
        if code in (401, 403):
            return "danger", self.env._("%(host)s is reachable, but refuses the credentials (%(code)s).", **shown)
        if code in (400, 405, 415, 422, 501):
            return "success", self.env._(
                "%(host)s is reachable. It refuses a request without data (%(code)s): whether it accepts the "
                "credentials shows when a record is sent.",
                **shown,
            )
        if code == 404:
            return "warning", self.env._(
                "%(host)s is reachable, but finds nothing at this address (404). Check the path of the "
                "Request URL; some systems answer so to any request without data.",
                **shown,
            )
        if 300 <= code < 400:
            return "warning", self.env._(
                "%(host)s is reachable, but redirects (%(code)s). Take this as the Request URL: %(location)s",
                **shown,
                location=exchange.headers.get("Location", "?"),
            )
        if code == 429:
            return "warning", self.env._("%(host)s is reachable, but asks for fewer requests (429).", **shown)
        return "warning", self.env._("%(host)s is reachable, but has a problem itself (%(code)s).", **shown)

    # ------------------------------------------------------------------
    # Hooks
    # ------------------------------------------------------------------

    @api.model
    def _build_url(self, config, payload):
        """Fill the placeholders of the Request URL from the payload, URL-encoded (RFC 3986).

        :raises UserError: where the payload has no value for one
        """
        return self._fill_url(config.request_url, payload)

    @api.model
    def _fill_url(self, url, payload):
        def fill(match):
            value = paging.try_pick(payload, match[1])
            text = _to_text(value)
            # dots alone would lead to another path, encoded or not
            if text in ("", ".", "..") or isinstance(value, (dict, list)):
                raise UserError(self.env._("There is no value for {%(key)s}, which the URL needs.", key=match[1]))
            return quote(text, safe="", errors="replace")

        return PLACEHOLDER.sub(fill, url)

    @api.model
    def _build_query(self, url, payload):
        """Put a payload into the query string: nested keys with dots, lists repeated, null left out."""
        parts = urlsplit(url)
        query = "&".join(
            filter(None, (parts.query, urlencode(list(_flatten(payload)), errors="replace", quote_via=quote)))
        )
        return urlunsplit(parts._replace(query=query, fragment=""))

    @api.model
    def _build_body(self, config, payload):
        """Encode a payload.

        :param payload: a dict, or a list of them where the configuration is paginated
        :return: content type, body
        :rtype: tuple[str, bytes]
        """
        # JSON can hold halves of surrogate pairs, but only escaped
        return "application/json", json.dumps(payload, ensure_ascii=False).encode("utf-8", "backslashreplace")

    # ------------------------------------------------------------------
    # Answers to records
    # ------------------------------------------------------------------

    @api.model
    def _read_back(self, config, records, exchange):
        """Write what the other system answered to the fields of the lines that read from the answer.

        The exchange stays a success whatever happens here: it cannot be taken back.

        :return: what went wrong, for the log
        :rtype: str
        """
        plan = self.env["bj.api.sync.mapper"]._plan(config.id)
        # what was queued before the configuration got another model has nothing to read
        if not plan.answer_lines or plan.model != records._name:
            return ""
        try:
            answer = exchange.json()
        except (ValueError, RecursionError):
            return self.env._("Sent. Nothing was read back: the answer is no JSON.")
        # the change comes from this configuration: its own triggers have nothing to tell
        records = records.with_context(**self.env.context, bj_api_sync_from=config.id)
        known, problems = set(records.exists()._ids), []
        with self.env["bj.api.link"]._following(config, records):
            for index, record in enumerate(records):
                if record.id not in known:
                    continue  # deleted since: its item in the answer is nobody's
                try:
                    with self.env.cr.savepoint():
                        self._write_answer(record, plan.answer_lines, answer, index, len(records))
                except (*REFUSALS, *MISFITS, DatabaseError) as exc:
                    problems.append(f"{record}: {exc}")
        if not problems:
            return ""
        message = self.env._("Sent. Not everything was read back: %(problems)s", problems="; ".join(problems))
        config._notify_responsible(self.env._("Answers were not read back"), message)
        return message

    @api.model
    def _write_answer(self, record, lines, answer, index, count):
        """Write the values of one record that differ.

        :raises LookupError: where a key is missing
        """
        values = {}
        for line in lines:
            name, field = line.field_name, record._fields[line.field_name]
            value = self._parse_answer(record, field, line, _pick(answer, line.response_key, index, count))
            if field.convert_to_write(record[name], record) != value:
                values[name] = value
        if values:
            record.write(values)

    @api.model
    def _parse_answer(self, record, field, line, value):
        """Turn a value of the answer into one of the field.

        :raises ValueError: where it is none
        """
        if value is None:
            return False
        if field.type in ("char", "text") and isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)  # an id of the other system: numbers are as good as texts
        selection = field.get_values(record.env) if field.type == "selection" else None
        try:
            parsed = codec.parse(field.type, value, selection, getattr(field, "size", None))
            related = field.relational and record.env[field.comodel_name].browse(parsed)
            if related and related.exists() != related:
                raise ValueError(parsed)
        except ValueError as exc:
            key, label = line.response_key, field._description_string(self.env)
            raise ValueError(self.env._("%(key)s: no value for %(field)s", key=key, field=label)) from exc
        return parsed

    # ------------------------------------------------------------------
    # Logs
    # ------------------------------------------------------------------

    @api.model
    def _log_exchange(self, config, request, exchange, note):
        """Log what went over the wire: no rollback takes that back, so none takes the log."""
        self.env["bj.api.log"]._record_own_cursor(self._prepare_exchange_log(config, request, exchange, note))

    @api.model
    def _prepare_exchange_log(self, config, request, exchange, note):
        call = exchange.call  # that for a token, where it came no further
        return self._prepare_log(
            config,
            request,
            status="success" if exchange.outcome == "success" else "error",
            method=call.method,
            url=call.url or config.request_url,
            response_code=exchange.status_code,
            request_headers=call.shown_headers,
            request_body=call.body,
            further_secrets=(oauth.get_token(call),) if config.authorization_type == "oauth2" else (),
            response_headers=dict(exchange.headers),
            response_body=exchange.content,
            duration=exchange.duration,
            error_message=note or False,
        )

    @api.model
    def _log_skipped(self, config, records, message, status):
        logs = [
            self._prepare_log(config, self._prepare_request(config, record), status=status, error_message=message)
            for record in records
        ]
        self.env["bj.api.log"]._write_batch(logs)

    @api.model
    def _log(self, config, request, **values):
        self.env["bj.api.log"]._record(self._prepare_log(config, request, **values))

    @api.model
    def _prepare_log(self, config, request, **values):
        record_ids = request.record_ids
        return {
            "name": config.name,
            "config_id": config.id,
            "direction": "out",
            "method": request.method,
            "url": request.url or config.request_url,
            "trace_id": request.trace_id,
            "model": request.model,
            "record_id": record_ids[0] if len(record_ids) == 1 else False,
            "record_count": len(record_ids),
            "user_id": self.env.uid,
            "company_id": config.company_id.id,
            **values,
        }


def read_payload(source, body, position=0):
    """Return the payload a queued request was made of; empty where the request no longer tells it.

    :param dict source: see :class:`PreparedRequest`
    :param bytes body: where no payload is in there
    :param int position: which one of a list
    :rtype: dict
    """
    try:
        payload = json.loads((source or {}).get("payload") or body or b"{}")
        payload = payload[position] if isinstance(payload, list) else payload
    except (ValueError, IndexError):  # as another addon has written it
        return {}
    return payload if isinstance(payload, dict) else {}


def _to_text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _flatten(value, key=""):
    """Yield the pairs of a query string."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flatten(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for item in value:
            yield from _flatten(item, key)
    elif value is not None:
        yield key, _to_text(value)


def _pick(answer, path, index, count):
    """Walk a dotted path; a list on the way has one item per record, or is entered by a number in the path.

    :raises LookupError: where the answer does not have it
    """
    for part in path.split("."):
        if isinstance(answer, list) and part.isdigit():
            answer = answer[int(part)]
            continue
        answer = _pick_item(answer, path, index, count)
        if not isinstance(answer, dict) or part not in answer:
            raise LookupError(f"{path}: the answer does not have it")
        answer = answer[part]
    return _pick_item(answer, path, index, count)


def _pick_item(answer, path, index, count):
    if not isinstance(answer, list):
        return answer
    if len(answer) != count:
        raise LookupError(f"{path}: {len(answer)} items in the answer for {count} records")
    return answer[index]
