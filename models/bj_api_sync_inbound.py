import dataclasses
import logging
import re
from contextlib import suppress
from functools import partial
from operator import itemgetter
from urllib.parse import quote

from psycopg2 import IntegrityError
from psycopg2.errors import CheckViolation, ForeignKeyViolation, NotNullViolation, RestrictViolation, UniqueViolation

from odoo import models
from odoo.exceptions import AccessError, MissingError
from odoo.fields import Domain
from odoo.tools import SQL, Query, groupby, ormcache

from ..exceptions import (
    DATABASE_REFUSALS,
    MISFITS,
    REFUSALS,
    BadPayload,
    PayloadTooLarge,
    PreconditionFailed,
    RecordConflict,
    RecordNotFound,
    StillUnderWay,
    get_public_fault,
)
from ..tools import codec, paging
from ..tools.edge import parse_networks, parse_origins
from ..tools.plan import Answer, Batch, Endpoint, Param, flatten
from ..tools.secret import digest, encrypt
from .bj_api_sync_param import COMMON_PARAMS, LIST_PARAMS, WRITE_PARAMS

_logger = logging.getLogger(__name__)

#: what the database refuses because of other records
CONFLICTS = (UniqueViolation, ForeignKeyViolation, RestrictViolation)
#: field types that sort by something else than their column, or by nothing that a cursor can tell
UNORDERED = ("many2one", "json", "properties", "properties_definition")
#: fields without a line that lists can be sorted by
SORTABLE = ("id", "create_date", "write_date")
TRACKING_DISABLED = {
    "tracking_disable": True,
    "mail_create_nolog": True,
    "mail_create_nosubscribe": True,
    "mail_notrack": True,
}


class BjApiSyncInbound(models.AbstractModel):
    """What GET, POST, PUT, PATCH and DELETE do to records, free of HTTP objects.

    It runs in the environment of the configuration's user and company, never as superuser.
    """

    _name = "bj.api.sync.inbound"
    _description = "API Inbound"

    # ------------------------------------------------------------------
    # Endpoints
    # ------------------------------------------------------------------

    def _endpoint(self, name):
        """Return the compiled configuration of an endpoint.

        :param str name: the last part of the URL
        :rtype: Endpoint | None
        """
        config_id = self._get_exposed().get(name)
        return config_id and self._compile(config_id)

    @ormcache()
    def _get_exposed(self):
        """Return the configurations that are endpoints, in order.

        All in one place of the cache: others would be forgotten for names that a stranger makes up.

        :return: name -> id
        :rtype: dict[str, int]
        """
        configs = self.env["bj.api.sync.config"].sudo().with_context(active_test=True)
        exposed = configs.search([("request_type", "=", "in"), ("endpoint", "!=", False)])
        return {config.endpoint: config.id for config in exposed}

    @ormcache("config_id")
    def _compile(self, config_id):
        config = self.env["bj.api.sync.config"].sudo().browse(config_id)
        required = config.header_ids.filtered(lambda header: header.purpose == "require")
        values = {
            "config_id": config.id,
            "name": config.endpoint,
            "model": config.model_name,
            "methods": tuple(config.http_method_ids.mapped("name")),
            "credentials": tuple(_digest(secret) for secret in config._get_credentials()),
            "required_headers": tuple((header.key, _digest(header.value)) for header in required),
            "answer_headers": tuple((header.key, header.value or "") for header in config.header_ids - required),
            "signing_secrets": tuple(map(encrypt, config._get_signing_secrets())),
            "max_body_size": config.max_body_size * 1024,
            "networks": parse_networks(config.allowed_networks or ""),
            "cors_origins": parse_origins(config.cors_origins or ""),
            "user_id": config.user_id.filtered("active").id,
            "company_id": config.company_id.id,
            "params": {
                param.key: Param(param.key, param.field_id.name, param.field_id.ttype, param.domain_operator)
                for param in config.param_ids
            },
        }
        same = {field.name: config[field.name] for field in dataclasses.fields(Endpoint) if field.name not in values}
        return Endpoint(**values, **same)

    @ormcache("user_id", "company_id")
    def _get_context(self, user_id, company_id):
        """Return the context in which a user's requests are served.

        Neither a session's language and time zone nor the browser's: an integrator gets the same from everywhere.

        :param int user_id: the user
        :param int company_id: the company of the configuration, if it has one; else it is the user's own
        :return: the context; empty if the user has no access to the company
        :rtype: dict
        """
        user = self.env["res.users"].with_user(user_id).sudo().browse(user_id)
        company_id = company_id or user.company_id.id
        if company_id not in user._get_company_ids():
            return {}
        return {**user.context_get(), "allowed_company_ids": [company_id]}

    # ------------------------------------------------------------------
    # Operations
    # ------------------------------------------------------------------

    def _handle(self, endpoint, operation):
        """Serve one request.

        :param Endpoint endpoint: the compiled configuration
        :param Operation operation: the request
        :rtype: Answer
        :raises UserError: of a kind that tells the status, see ``exceptions.py``
        """
        quiet = endpoint.tracking_disable and operation.method != "GET"
        room = self.with_context(TRACKING_DISABLED) if quiet else self
        plan = room.env["bj.api.sync.mapper"]._plan(endpoint.config_id)
        if operation.matches and not operation.record_ref:
            raise BadPayload(self.env._("If-Match and If-None-Match need the record in the path."))
        if operation.method != "GET" or (operation.record_ref and endpoint.record_id_type == "identifier"):
            room.env["bj.api.sync.mapper"]._check_identifier(plan)
        try:
            return getattr(room, f"_do_{operation.method.lower()}")(endpoint, plan, operation)
        except BadPayload as exc:
            if not operation.is_list:
                for error in exc.errors:
                    error.pop("index", None)
            raise

    def _get_identifiers(self, endpoint, operation):
        """Return what tells the records apart that a request may create or change; others must wait for it.

        :return: model, field and identifier of each, whichever configuration they come by
        :rtype: list[tuple]
        """
        plan = self.env["bj.api.sync.mapper"]._plan(endpoint.config_id)
        items = [plan.as_object(item) for item in operation.items]
        line, place = plan.identifier, []
        if operation.record_ref and line and endpoint.record_id_type == "identifier":
            place = [(plan.model, line.field_name, operation.record_ref)]
        elif operation.record_ref:
            place = [(plan.model, "id", operation.record_ref)]
            items += self._read_identifier(endpoint, plan, operation.record_ref)
        return [*self._list_identifiers(plan, [item for item in items if isinstance(item, dict)]), *place]

    def _read_identifier(self, endpoint, plan, record_ref):
        """Return the record of a path in an object with its identifier alone, by which others may write it."""
        if not plan.identifier:
            return []
        query = self._query_one(endpoint, plan, record_ref)
        _ids, objects = self.env["bj.api.sync.mapper"]._read(plan.select([plan.identifier.key]), query)
        self.env[plan.model].invalidate_model([plan.identifier.field_name])  # it may change until it is locked
        return objects

    def _list_identifiers(self, plan, objects, is_child=False):
        """Yield the identifiers of objects, and of those nested in them that may be created."""
        batch, line = Batch.of(objects), plan.identifier
        # children are told apart within their parent, for whom others wait already
        for value in batch.column(line.path) if line and not is_child else ():
            with suppress(ValueError):  # what is none creates nothing
                yield plan.model, line.field_name, codec.parse(line.field_type, value)
        for line in plan.lines:
            to_children = line.field_type == "one2many"
            if line.mapping and (to_children or line.relation_policy != "link"):
                yield from self._list_identifiers(line.mapping, get_nested(batch, line), to_children)

    def _get_secrets(self, endpoint, payload):
        """Return the texts in a body that go to fields such as passwords, whatever their keys are.

        :rtype: list[str]
        """
        plan = self.env["bj.api.sync.mapper"]._plan(endpoint.config_id)
        objects = payload if isinstance(payload, list) else [payload]
        return list(self._list_secrets(plan, [item for item in objects if isinstance(item, dict)]))

    def _list_secrets(self, plan, objects):
        for line in plan.lines if plan.has_secrets else ():
            batch = Batch.of(objects)
            if line.mapping:
                yield from self._list_secrets(line.mapping, get_nested(batch, line))
            elif line.is_secret:
                yield from (str(value) for value in batch.column(line.path) if isinstance(value, (str, int, float)))

    def _do_get(self, endpoint, plan, operation):
        if not operation.record_ref:
            return self._list(endpoint, plan, operation.args)
        self._check_params(operation.args, COMMON_PARAMS)
        query = self._query_one(endpoint, plan, operation.record_ref)
        ids, objects = self.env["bj.api.sync.mapper"]._read(self._select(plan, operation.args), query, with_id=True)
        self._check_one(ids, operation.record_ref)
        return Answer(200, {"status": "success", "data": objects[0]}, record_ids=ids)

    def _do_post(self, endpoint, plan, operation):
        check = partial(self._check_rows, may_update=endpoint.existing_policy != "error")
        return self._write(endpoint, plan, operation, check)

    def _do_put(self, endpoint, plan, operation):
        record = None
        if operation.record_ref:
            if not isinstance(operation.payload, dict):
                raise BadPayload(self.env._("The body must be an object."))
            record = self._find_unchanged(endpoint, plan, operation)
        return self._write(endpoint, plan, operation, partial(self._check_rows, may_create=False), record)

    _do_patch = _do_put

    def _do_delete(self, endpoint, plan, operation):
        if operation.record_ref:
            self._check_params(operation.args, ())
            record = self._find_unchanged(endpoint, plan, operation)
            self._remove(endpoint, record)
            return Answer(200, {"status": "success", "data": {"id": record.id}}, record_ids=record._ids)
        self._check_params(operation.args, WRITE_PARAMS)
        if operation.payload is None or operation.payload == []:
            raise BadPayload(self.env._("Tell which records to delete: /<id>, or record identifiers in the body."))
        return self._delete_listed(endpoint, plan, operation)

    # ------------------------------------------------------------------
    # Reading
    # ------------------------------------------------------------------

    def _list(self, endpoint, plan, args):
        mapper, model = self.env["bj.api.sync.mapper"], self.env[plan.model]
        window, selected = self._get_window(endpoint, args), self._select(plan, args)
        order = self._get_order(plan, args)
        domain = self._get_params_domain(endpoint, plan, args)
        terms = self._get_terms(model, model.browse()._as_query(), order)
        behind = self._get_behind(model, order, terms, window.cursor)
        try:
            query = self.env["bj.api.sync.query"]._search(plan, domain & behind, window.start, window.limit + 1, order)
        except MISFITS as exc:
            if domain.is_true():
                raise
            raise BadPayload(self.env._("The parameters cannot be searched for: %s", exc)) from exc
        ids, data = mapper._read(selected, query, with_id=True)
        has_next = len(ids) > window.limit  # one more than asked for was read to know
        ids, data = ids[: window.limit], data[: window.limit]
        meta = {"limit": window.limit, "offset": window.start, "count": len(data)}
        if window.cursor is not None:
            del meta["offset"]
        if self._get_flag(args, "count", endpoint.is_paginated and window.cursor is None):
            meta["total"] = model.search_count(mapper._get_domain(plan) & domain)
        cursor = ""
        if has_next and terms and window.page is None and window.offset is None:
            cursor = meta["next_cursor"] = paging.encode(order, self._get_values(model, order, ids[-1]))
        links = paging.links(window, has_next, cursor, meta.get("total"))
        return Answer(200, {"status": "success", "data": data, "meta": meta}, links=links, record_ids=ids)

    def _get_terms(self, model, query, order):
        """Return the terms of an order that a cursor can stand in; none if it sorts by what has no plain order."""
        terms = []
        for term in order.split(", "):
            name, _space, direction = term.partition(" ")
            field = model._fields[name]
            if field.type in UNORDERED or not field.column_type or not (field.store or field.related):
                return []  # the model may order by it in its own way nevertheless
            sql = model._field_to_sql(model._table, name, query)
            if field.type == "boolean":
                sql = SQL("COALESCE(%s, FALSE)", sql)
            # a translated or company dependent column is read out of a jsonb column
            column_type = "text" if field.translate else field._column_type[1] if field.company_dependent else None
            terms.append(paging.Term(name, direction == "desc", sql, column_type or field.column_type[1]))
        return terms

    def _get_values(self, model, order, record_id):
        """Return a record's values of the terms of an order."""
        if "," not in order:
            return [record_id]
        query = model.browse(record_id)._as_query(ordered=False)
        terms = self._get_terms(model, query, order)  # anew: related fields bring their joins to the query
        return self.env.execute_query(query.select(*(term.sql for term in terms)))[0]

    def _get_behind(self, model, order, terms, cursor):
        """Return the condition of the records behind a cursor.

        :param model: the model of the list
        :param str order: see :meth:`_get_order`
        :param list terms: see :meth:`_get_terms`
        :param str cursor: empty for the first page, None without paging by cursor
        :rtype: odoo.fields.Domain
        :raises BadPayload: if there can be no cursor in this order, or it is not one of this list
        """
        if cursor is not None and not terms:
            raise BadPayload(self.env._("A list in this order has no cursor: take page or offset."))
        if not cursor:
            return Domain.TRUE
        values = self._decode_cursor(order, terms, cursor)

        def to_sql(other, alias, query):
            if other._name == model._name:
                return paging.after(self._get_terms(model, query, order), values)
            own = Query(self.env, model._table, model._table_sql)  # it is searched by another one's records
            own.add_where(paging.after(self._get_terms(model, own, order), values))
            return SQL("%s IN %s", SQL.identifier(alias, "id"), own.subselect())

        return Domain.custom(to_sql=to_sql)

    def _decode_cursor(self, order, terms, cursor):
        try:
            values = paging.decode(order, cursor)
            if len(values) == len(terms) and type(values[-1]) is int:  # the id
                return values
        except (ValueError, RecursionError):
            pass
        raise BadPayload(self.env._("The parameter cursor is not one of this list."))

    def _represent(self, plan, records):
        """Map records, each with its database id (a mapped key ``id`` comes first)."""
        return self.env["bj.api.sync.mapper"]._serialize(plan, records, with_id=True)

    def _query_one(self, endpoint, plan, record_ref):
        """Return the query of the record of a path: by its database id, or by its identifier."""
        line = plan.identifier if endpoint.record_id_type == "identifier" else None
        name, field_type = (line.field_name, line.field_type) if line else ("id", "many2one")
        try:
            key = codec.parse_text(field_type, record_ref)
        except ValueError:
            key = False
        keys = [key] if key is not False else []
        return self.env["bj.api.sync.query"]._search_values(self.env[plan.model], name, keys, plan, limit=2)

    def _check_one(self, ids, record_ref):
        if not ids:
            raise RecordNotFound(self.env._("There is no record %s.", record_ref))
        if len(ids) > 1:
            raise RecordConflict(self.env._("Several records have the identifier %s.", record_ref))

    def _find_unchanged(self, endpoint, plan, operation):
        """Find the record of a path, inside the filter domain, if it still is as the caller knows it.

        :raises RecordNotFound: if there is none
        :raises RecordConflict: if several have that identifier
        :raises PreconditionFailed: if it is not as the caller knows it
        """
        ids = self._query_one(endpoint, plan, operation.record_ref).get_result_ids()
        self._check_one(ids, operation.record_ref)
        record = self.env[plan.model].browse(ids)
        if operation.matches and not operation.matches(self._represent(self._select(plan, operation.args), record)[0]):
            raise PreconditionFailed(self.env._("The record is not as If-Match or If-None-Match want it."))
        return record

    # ------------------------------------------------------------------
    # Query parameters
    # ------------------------------------------------------------------

    def _check_params(self, args, known):
        unknown = sorted(set(args) - set(known))
        if unknown:
            raise BadPayload(self.env._("Unknown parameter: %s", ", ".join(unknown)))

    def _get_window(self, endpoint, args):
        """Return the part of a list that is asked for; a limit over the maximum is lowered to it (AIP-158).

        :rtype: paging.Window
        """
        default = endpoint.page_size if endpoint.is_paginated else endpoint.limit
        limit = min(self._get_number(args, "limit", 0) or default, endpoint.limit)
        if len({"offset", "page", "cursor"} & set(args)) > 1:
            raise BadPayload(self.env._("Give only one of page, offset and cursor."))
        return paging.Window(
            limit,
            offset=self._get_number(args, "offset", None),
            page=self._get_number(args, "page", None, low=1),
            cursor=args["cursor"][-1] if "cursor" in args else None,
        )

    def _get_number(self, args, name, default, low=0):
        texts = args.get(name)
        if not texts:
            return default
        if not re.fullmatch("[0-9]{1,18}", texts[-1]) or int(texts[-1]) < low:
            raise BadPayload(
                self.env._("The parameter %(name)s must be a whole number from %(low)s.", name=name, low=low)
            )
        return int(texts[-1])

    def _get_flag(self, args, name, default=False):
        try:
            return codec.parse_text("boolean", args[name][-1]) if name in args else default
        except ValueError:
            raise BadPayload(self.env._("The parameter %s must be true or false.", name)) from None

    def _select(self, plan, args):
        """Return the plan of the keys asked for with ``fields``."""
        if "fields" not in args:
            return plan
        wanted = [key.strip() for text in args["fields"] for key in text.split(",") if key.strip()]
        unknown = sorted(set(wanted).difference(["id"], *(line.keys for line in plan.lines)))
        if unknown:
            raise BadPayload(self.env._("The parameter fields names unknown keys: %s", ", ".join(unknown)))
        return plan.select(wanted)

    def _get_order(self, plan, args):
        """Translate ``sort=name,-create_date``; the id decides among equals, so that pages are stable.

        :return: an order of the ORM, its last term the id
        :rtype: str
        """
        terms, names = [], self._get_sort_names(plan) if "sort" in args else {}
        for key in [key.strip() for text in args.get("sort", ()) for key in text.split(",") if key.strip()]:
            descending = key.startswith("-")
            name = names.get(key[descending:])
            if not name:
                raise BadPayload(self.env._("The parameter sort names a key that cannot be sorted by: %s", key))
            terms.append(f"{name} {'desc' if descending else 'asc'}")
            if name == "id":
                return ", ".join(terms)
        return ", ".join([*terms, "id asc"])

    def _get_sort_names(self, plan):
        """Return the keys that lists can be sorted by: key -> field name."""
        fields = self.env[plan.model]._fields
        names = {line.key: line.field_name for line in plan.lines if line.value_type == "plain" and line.field_name}
        names |= {name: name for name in SORTABLE if name in fields and name not in names}
        return {key: name for key, name in names.items() if fields[name]._description_sortable(self.env)}

    def _get_filter_lines(self, plan):
        """Return the keys that lists can be filtered by: key -> line."""
        fields = self.env[plan.model]._fields
        return {
            line.key: line
            for line in plan.lines
            for field in [fields.get(line.field_name)]
            if field and not line.script and field._description_searchable and field.type != "binary"
        }

    def _get_params_domain(self, endpoint, plan, args):
        """Turn the configured parameters, and mapped keys, into a domain."""
        lines = self._get_filter_lines(plan)
        domains, unknown = [], []
        for key, texts in args.items():
            if key in COMMON_PARAMS + LIST_PARAMS:
                continue
            if key in endpoint.params:
                domains.append(self._get_param_domain(plan, endpoint.params[key], texts))
            elif key in lines:
                domains.append(self._get_key_domain(plan, lines[key], texts))
            else:
                unknown.append(key)
        self._check_params(unknown, ())
        if any(args.get("updated_since", ())):  # an empty one is as old as can be
            if "write_date" not in self.env[plan.model]._fields:
                self._check_params(["updated_since"], ())
            since = Param("updated_since", "write_date", "datetime", ">=")
            domains.append(self._get_param_domain(plan, since, args["updated_since"]))
        return Domain.AND(domains)

    def _get_key_domain(self, plan, line, texts):
        """A mapped key is equality with any of its values; that of a relation is the related record's identifier."""
        own = param = Param(line.key, line.field_name, line.field_type, "=")
        if identifier := line.mapping and line.mapping.identifier:
            name = f"{line.field_name}.{identifier.field_name}"
            param = Param(line.key, name, identifier.field_type, "=")
        # an empty value is asked of the relation itself: without a related record there is no identifier to compare
        return Domain.OR(self._get_param_domain(plan, param if text else own, [text]) for text in texts)

    def _get_param_domain(self, plan, param, texts):
        """Turn one parameter into one leaf, its value parsed by the field's type.

        :param Plan plan: the configuration
        :param Param param: the parameter
        :param list texts: its values, in the order of the query
        :rtype: odoo.fields.Domain
        :raises AccessError: if the user may not read the field: what it can be compared with it would tell
        """
        model, operator = self.env[plan.model], param.operator
        for name in param.field_name.split("."):
            model._check_field_access(model._fields[name], "read")
            model = model[name] if model._fields[name].relational else model
        if operator == "set":
            is_set = self._get_flag({param.key: texts}, param.key)
            return Domain(param.field_name, "!=" if is_set else "=", False)
        if operator in ("in", "not in"):
            values = [self._parse_param(param, text) for item in texts for text in item.split(",")]
            return Domain(param.field_name, operator, values)
        if operator in ("ilike", "not ilike", "=ilike"):
            return Domain(param.field_name, operator, self._parse_param(param, texts[-1], "char") or "")
        value = self._parse_param(param, texts[-1])
        if operator in ("<", "<=", ">", ">=") and value is False:
            raise BadPayload(self.env._("The parameter %s needs a value to compare with.", param.key))
        return Domain(param.field_name, operator, value)

    def _parse_param(self, param, text, field_type=None):
        try:
            is_exact = param.operator in ("=", "!=") and param.field_type in ("char", "text")
            return codec.parse_text(field_type or param.field_type, text if is_exact else text.strip())
        except ValueError:
            raise BadPayload(
                self.env._("The parameter %(key)s cannot be “%(value)s”.", key=param.key, value=text[:100])
            ) from None

    # ------------------------------------------------------------------
    # Writing
    # ------------------------------------------------------------------

    def _write(self, endpoint, plan, operation, check, record=None):
        """Create or update what a body describes.

        :param check: notes the faults of rows that this method may not write, see :meth:`_check_rows`
        :param record: the record that the path names
        :rtype: Answer
        """
        self._check_params(operation.args, COMMON_PARAMS + WRITE_PARAMS)
        selected = self._select(plan, operation.args)
        if not isinstance(operation.payload, (dict, list)):
            raise BadPayload(self.env._("The body must be an object or a list of objects."))
        before = {} if operation.dry_run else None

        def work(items):
            return self._write_items(plan, operation.items, items, check, record and record._ids, before)

        rows, errors = self._work(endpoint, plan, operation, work)
        records = self.env[plan.model].browse([row.record_id for row in rows])
        data = self._represent(selected, records)
        created = sum(row.created for row in rows)
        conflicts = [{"index": row.item, "message": row.kept} for row in rows if row.kept]
        status = 207 if errors else 201 if rows and created == len(rows) else 200
        meta = {"created": created, "updated": len(rows) - created - len(conflicts), "failed": len(errors)}
        answer = self._answer(operation, status, data, records._ids, errors, meta)
        if conflicts:
            answer.body["conflicts"] = conflicts
        if operation.dry_run:
            changes = self._get_changes(plan, rows, records, before)
            answer.body["changes"] = changes if operation.is_list else changes[0]
        elif created and not operation.is_list:
            answer.location = self._get_ref(endpoint, plan, records)
        return answer

    def _work(self, endpoint, plan, operation, work):
        """Work on the items of a body; the only one fails by its exception.

        :param work: see :meth:`_split`
        :return: the results in order, the errors by index
        """
        atomic = endpoint.all_or_nothing or self._get_flag(operation.args, "atomic")
        if not operation.is_list:
            return work([0]), {}
        if len(operation.items) > endpoint.limit:
            raise PayloadTooLarge(self.env._("At most %s items in one request.", endpoint.limit))
        return self._split(plan, list(range(len(operation.items))), work, atomic)

    def _get_changes(self, plan, rows, records, before):
        """Return key -> old and new value of each item, where they differ; a key that one side lacks is null there."""
        changes = []
        for row, after in zip(rows, self._represent(plan, records), strict=True):
            old, new = flatten(before.get(row.item, {})), flatten(after)
            pairs = {key: {"old": old.get(key), "new": new.get(key)} for key in {**new, **old}}
            changes.append({key: pair for key, pair in pairs.items() if pair["old"] != pair["new"]})
        return changes

    def _answer(self, operation, status, data, record_ids, errors, meta):
        """Answer with what became of an item, or of a list; ``meta`` and the errors are those of a list."""
        if not operation.is_list:
            return Answer(status, {"status": "success", "data": data[0]}, record_ids=record_ids)
        body = {"status": "success", "data": data, "meta": meta}
        if errors:
            body["errors"] = [
                get_public_fault({"index": index, **fault}) for index in sorted(errors) for fault in errors[index]
            ]
        return Answer(status, body, record_ids=record_ids)

    def _write_items(self, plan, payloads, items, check, targets=None, before=None):
        """Write some items of a request together.

        :param dict before: takes the representations of the records as they were, by item
        :return: their rows, in order
        :rtype: list[Row]
        :raises BadPayload: with the faults of all items, ``errors`` having ``index``
        """
        mapper = self.env["bj.api.sync.mapper"]
        wrong = [index for index in items if not isinstance(payloads[index], dict)]
        if wrong:
            message = self.env._("Expected an object.")
            raise _faults({index: [{"pointer": "", "message": message}] for index in wrong})
        batch = Batch.of([payloads[index] for index in items], items)
        rows = mapper._parse(plan, batch, targets)
        check(plan, batch, rows)
        if batch.errors:
            raise _faults(batch.errors)
        if before is not None:
            matched = [row for row in rows if row.record_id]
            records = self.env[plan.model].browse([row.record_id for row in matched])
            before.update(zip((row.item for row in matched), self._represent(plan, records), strict=True))
        with self.env["bj.api.link"]._receiving(plan, rows, [payloads[index] for index in items]):
            self._save([row for row in rows if not row.kept])
        if plan.is_filtered and mapper._has_outside(rows):
            raise BadPayload(self.env._("The record would be outside of this endpoint's filter domain."))
        return rows

    def _save(self, rows):
        """Store rows, and have Odoo compute and check what follows from them.

        :param rows: rows without faults
        :type rows: list[Row]
        :raises UserError: if Odoo refuses them
        :raises BadPayload: if its code fails on one of their values
        """
        try:
            self.env["bj.api.sync.mapper"]._store(rows)
            self.env.flush_all()
        except MISFITS as exc:
            _logger.warning("Values that Odoo's code failed on", exc_info=True)
            error = f"{type(exc).__name__}: {exc}".splitlines()[0]  # the others of a database's error are its query
            raise BadPayload(self.env._("Odoo failed on these values: %s", error)) from exc

    def _check_rows(self, plan, batch, rows, may_create=True, may_update=True, needs_key=False):
        """Note the faults of rows that may not be written.

        :param bool may_create: whether there may be new records; none can have an id that is given
        :param bool may_update: whether records may be there already
        :param bool needs_key: whether new records must have an identifier
        """
        line = plan.identifier
        for index, row in enumerate(rows):
            if row.record_id:
                if not may_update:
                    message = self.env._("A record with the identifier %s exists already.", row.key)
                    batch.fault(index, line.path, message, line.id, 409)
            elif row.key is None:
                if needs_key or not may_create:
                    batch.fault(index, line.path, self.env._("The record identifier is missing."), line.id)
            elif not may_create or line.field_name == "id":
                message = self.env._("No record has the identifier %s.", row.key)
                batch.fault(index, line.path, message, line.id, 404)

    def _split(self, plan, items, work, atomic):
        """Work on all items together; only when some fail, without those, or one by one where it may be any of them.

        Every try is behind a savepoint, so that what failed leaves nothing.

        :param items: indices
        :param work: does the work for some indices and returns one result for each
        :param bool atomic: one failure fails all
        :return: the results in order, the errors by index
        :raises BadPayload: if ``atomic`` and something failed
        """
        errors, results, parts = {}, {}, [items]
        for part in filter(None, parts):  # they grow
            try:
                with self.env.cr.savepoint():
                    done = work(part)
            except StillUnderWay:  # all of it may be done once it has arrived
                raise
            except (*REFUSALS, *DATABASE_REFUSALS) as exc:
                found = self._get_item_errors(plan, exc, part)
                errors |= found
                if not found:
                    parts += [[index] for index in part]
                elif not atomic:
                    parts.append([index for index in part if index not in found])
            else:
                results.update(zip(part, done, strict=True))
        if errors and atomic:
            raise _faults(errors, self.env._("Nothing was kept, because items failed."))
        return [results[index] for index in items if index in results], errors

    def _get_item_errors(self, plan, exc, items):
        """Tell which items an exception is about; nothing if it may be any of several."""
        faults = [error for error in getattr(exc, "errors", ()) if "index" in error]
        if faults:
            return dict(groupby(faults, key=itemgetter("index")))
        if len(items) > 1:
            return {}
        if isinstance(exc, DATABASE_REFUSALS):
            exc = self._database_error(plan, exc)
        errors = list(getattr(exc, "errors", ())) or [{"pointer": ""}]
        status = self._get_status(exc)
        return {items[0]: [{"message": str(exc.args[0]), "status": status, **error} for error in errors]}

    def _database_error(self, plan, exc):
        """Say what the database refused, and at which key. The transaction must have been rolled back.

        :param Plan plan: the configuration
        :param psycopg2.Error exc: one of `DATABASE_REFUSALS`
        :rtype: BadPayload
        """
        diag, message = exc.diag, exc.diag.message_primary
        if isinstance(exc, IntegrityError):
            name = next((name for name, model in self.env.registry.items() if model._table == diag.table_name), None)
            model = self.env[name or plan.model]
            message = model._sql_error_to_message(exc)
            if isinstance(exc, NotNullViolation) and diag.column_name in model._fields:
                # Odoo's own message is about deletions as well
                label = model._fields[diag.column_name]._description_string(self.env)
                message = self.env._("%s is required.", label)
            if isinstance(exc, RestrictViolation):  # of PostgreSQL 18, which Odoo has no words for
                user = self.env["ir.model"]._get(name).name or diag.table_name  # that of a many2many
                message = self.env._("The record is in use: %s needs it.", user)
        if isinstance(exc, CheckViolation) and diag.message_detail and diag.message_detail in message:
            message = diag.message_primary  # the detail is the whole row
        kind = RecordConflict if isinstance(exc, CONFLICTS) else BadPayload
        column = isinstance(exc, NotNullViolation) and exc.diag.column_name
        return kind(message, [line.fault(message) for line in plan.lines if line.field_name == column])

    def _get_database_error(self, endpoint, exc):
        """Return :meth:`_database_error` for an endpoint."""
        return self._database_error(self.env["bj.api.sync.mapper"]._plan(endpoint.config_id), exc)

    def _get_status(self, exc):
        """Return the HTTP status an exception is answered with."""
        if isinstance(exc, (BadPayload, AccessError)):
            return exc.http_status
        # a refusal of Odoo is about the data, whatever status its web client gets
        return 404 if isinstance(exc, MissingError) else 400

    def _get_ref(self, endpoint, plan, record):
        """Return what names a record in the path; nothing if its identifier is empty."""
        if endpoint.record_id_type == "database":
            return str(record.id)
        key = self.env["bj.api.sync.mapper"]._key(plan, record)
        return "" if key is False else quote(str(key), safe="")

    # ------------------------------------------------------------------
    # Deleting
    # ------------------------------------------------------------------

    def _remove(self, endpoint, records):
        try:
            with self.env["bj.api.link"]._removing(endpoint.config_id, records) as found:
                if endpoint.delete_policy == "archive":
                    found.action_archive()
                else:
                    found.unlink()
                self.env.flush_all()
        except (AccessError, StillUnderWay):
            raise
        except REFUSALS as exc:
            raise RecordConflict(self.env._("The record cannot be deleted: %s", exc.args[0])) from exc

    def _delete_listed(self, endpoint, plan, operation):
        """Delete the records whose identifiers a body lists, bare or as objects."""
        payloads, mapper = [plan.as_object(item) for item in operation.items], self.env["bj.api.sync.mapper"]

        def work(items):
            batch = Batch.of([payloads[index] for index in items], items)
            rows = mapper._prepare_rows(plan, batch)
            mapper._resolve(plan, batch, rows)
            mapper._refuse_twice(plan, batch, rows)
            self._check_rows(plan, batch, rows, may_create=False)
            if batch.errors:
                raise _faults(batch.errors)
            self._remove(endpoint, self.env[plan.model].browse([row.record_id for row in rows]))
            return [row.record_id for row in rows]

        ids, errors = self._work(endpoint, plan, operation, work)
        status, data = 207 if errors else 200, [{"id": record_id} for record_id in ids]
        return self._answer(operation, status, data, ids, errors, {"deleted": len(ids), "failed": len(errors)})


def _digest(secret):
    """Return the digest of a secret; of one that is empty, or lost with its key, what no digest is equal to."""
    return digest(secret) if secret else b""


def get_nested(batch, line):
    """Return the objects in the values of a relation."""
    cells = [cell if isinstance(cell, list) else [cell] for cell in batch.column(line.path)]
    return [item for cell in cells for item in cell if isinstance(item, dict)]


def _faults(by_item, message=None):
    """Make the exception of one or more faulty items."""
    errors = [{"index": index} | error for index, faults in by_item.items() for error in faults]
    exc = BadPayload(message or errors[0]["message"], errors)
    statuses = {error.get("status", 400) for error in errors}
    exc.http_status = statuses.pop() if len(statuses) == 1 else 400
    return exc
