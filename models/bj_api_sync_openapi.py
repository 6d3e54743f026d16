import json
import re
from dataclasses import dataclass, replace

from odoo import models
from odoo.tools import ormcache, remove_accents
from odoo.tools.translate import LazyTranslate

from ..tools import schema as json_schema
from ..tools.codec import TO_MANY
from ..tools.plan import Endpoint, Plan, to_pointer
from ..tools.schema import array_of, object_of, reference
from ..tools.signature import SIGNATURE_HEADERS

_lt = LazyTranslate(__name__)

JSON, XML, PROBLEM = "application/json", "application/xml", "application/problem+json"
INTRO = _lt(
    "A key that is absent from a body leaves its field alone, null clears it. Lists are read in pages. "
    "Every endpoint answers OPTIONS, and HEAD where it answers GET. "
    "In XML, the name of the root element means nothing, and the elements of a list are named “item”. "
    "Every answer has an X-Request-ID, under which the log of Odoo finds it."
)
WRITING = ("POST", "PUT", "PATCH")
#: the kinds of schemas that describe what is accepted, not what is answered
ACCEPTED = {"create", "update", "input"}
TEXT, BOOLEAN = {"type": "string"}, {"type": "boolean"}
NUMBER = {"type": "integer", "minimum": 0, "examples": [1]}
REQUEST_ID = TEXT | {"pattern": "^[\\x21-\\x7e]{1,128}$", "examples": ["order-4711"]}
#: method -> whether the path names one record -> the last part of the operation's id, and its summary; no tuples, as
#: Odoo's export of texts takes a parenthesis that follows a text for a call with more of them
OPERATIONS = {
    "GET": {False: ["list", _lt("List: %s")], True: ["read", _lt("Read one: %s")]},
    "POST": {False: ["create", _lt("Create or update: %s")]},
    "PUT": {False: ["put_listed", _lt("Update by record identifier: %s")], True: ["put", _lt("Update one: %s")]},
    "PATCH": {False: ["patch_listed", _lt("Update by record identifier: %s")], True: ["patch", _lt("Update one: %s")]},
    "DELETE": {
        False: ["delete_listed", _lt("Delete by record identifier: %s")],
        True: ["delete", _lt("Delete one: %s")],
    },
}
#: the headers of requests
REQUEST_HEADERS = {
    "X-Request-ID": (_lt("The name of the request in the logs; made up if it is missing or malformed."), REQUEST_ID),
    "Idempotency-Key": (
        _lt("The same request with the same key is done once, and answered again for 24 hours."),
        TEXT | {"minLength": 1, "maxLength": 255},
    ),
    "Prefer": (_lt("tx=rollback: a dry run; what would change is told, nothing is kept."), TEXT),
    "If-Match": (_lt("The ETag the caller knows; if the record has another one: 412."), TEXT),
    "If-None-Match": (_lt("The ETag the caller has; if it is still the same: 304, and 412 for a write."), TEXT),
}
#: the headers of answers; all of them have an X-Request-ID
ANSWER_HEADERS = {
    "Location": _lt("The path of the created record."),
    "Allow": _lt("The methods the endpoint answers."),
    "WWW-Authenticate": _lt("The credentials that are asked for."),
    "ETag": _lt("What tells this state of one record from others, for If-Match and If-None-Match."),
    "Link": _lt("The pages around this one (RFC 8288): first, prev, next, last."),
    "Retry-After": _lt("After how many seconds to try again."),
    "RateLimit": _lt("How many requests are left, and when there are more; where they are limited."),
    "RateLimit-Policy": _lt("How many requests are answered within how many seconds; where they are limited."),
    "Idempotent-Replayed": _lt("true: the request was done before, this is its answer."),
    "Preference-Applied": _lt("tx=rollback: this was a dry run."),
    "X-Request-ID": _lt("The X-Request-ID of the request, or a new one: the trace id of the log."),
}
#: how many requests are left is told to whoever has credentials
RATE_HEADERS = ("RateLimit", "RateLimit-Policy")
#: the statuses of what is answered again for the same Idempotency-Key
REPLAYED = (400, 403, 404, 409, 412, 413)
#: the statuses of errors: what each means, and the headers it brings besides
ERRORS = {
    400: [_lt("The request or its data is wrong; “errors” tells where.")],
    401: [_lt("Credentials are missing or wrong."), "WWW-Authenticate"],
    403: [_lt("The user of the endpoint has no access.")],
    404: [_lt("There is no such endpoint or record.")],
    405: [_lt("The endpoint does not answer this method."), "Allow"],
    406: [_lt("No acceptable content type can be answered.")],
    409: [
        _lt("There is a record already, several match, it is in use, or others change it right now (Retry-After)."),
        "Retry-After",
    ],
    412: [_lt("The record is not as the caller wants it (If-Match, If-None-Match).")],
    413: [_lt("The body has too many items, or is too large.")],
    415: [_lt("The body is of another content type.")],
    422: [_lt("The Idempotency-Key was used for another request.")],
    429: [_lt("There were too many requests within a minute."), "Retry-After"],
    500: [_lt("Internal error. The log has the details under the trace id.")],
    503: [_lt("A change of the record is on its way to the other system: try again (Retry-After)."), "Retry-After"],
}


@dataclass(frozen=True, slots=True)
class Scope:
    """One endpoint while it is described, and which of its operations.

    ``model`` is an empty recordset in the environment that serves it, ``one`` whether the path names one record.
    """

    endpoint: Endpoint
    plan: Plan
    model: models.BaseModel
    method: str = ""
    one: bool = False

    @property
    def path_line(self):
        """The line whose value names a record in the path; None if the database id does."""
        return self.plan.identifier if self.endpoint.record_id_type == "identifier" else None


def _restrict(plan, model):
    """Return a plan without the fields that the user of an empty recordset may neither read nor write."""
    lines = [
        replace(line, mapping=line.mapping and _restrict(line.mapping, model.env[line.mapping.model]))
        for line in plan.lines
        if not line.field_name or model._has_field_access(model._fields[line.field_name], "read")
    ]
    return replace(plan, lines=tuple(lines))


class BjApiSyncOpenapi(models.AbstractModel):
    """The description of exposed endpoints (OpenAPI 3.1.1), made from their configurations and fields."""

    _name = "bj.api.sync.openapi"
    _description = "API Description"

    # ------------------------------------------------------------------
    # Document
    # ------------------------------------------------------------------

    @ormcache("names", "server", "self.env.lang")
    def _get_text(self, names, server):
        """Return :meth:`_get_document` in JSON; it is kept until a configuration changes."""
        return json.dumps(self._get_document(names, server), ensure_ascii=False, separators=(",", ":"))

    def _get_document(self, names, server):
        """Describe some endpoints.

        :param tuple names: the endpoints the caller may know of
        :param str server: the URL they are below
        :rtype: dict
        """
        document = {
            "openapi": "3.1.1",
            "info": {"title": self.env._("API Synchronization"), "version": "1", "description": self.env._(INTRO)},
            "servers": [{"url": server}],
            "tags": [],
            "paths": {},
            "components": self._get_components(),
        }
        for name in names:
            endpoint = self.env["bj.api.sync.inbound"]._endpoint(name)
            if endpoint:
                self._add_endpoint(document, endpoint)
        self._add_examples(document)
        return document

    def _add_endpoint(self, document, endpoint):
        """Add what one endpoint has: its tag, paths, schemas and security schemes."""
        model, plan = self.env[endpoint.model], self.env["bj.api.sync.mapper"]._plan(endpoint.config_id)
        # without a user, only what everybody may read: callers have different rights
        model = model.with_user(endpoint.user_id or self.env.ref("base.public_user").id)
        scope, components = Scope(endpoint, _restrict(plan, model), model), document["components"]
        document["tags"].append({"name": endpoint.name, "description": self._get_title(plan)})
        for one, path in ((False, f"/{endpoint.name}"), (True, f"/{endpoint.name}/{{record_id}}")):
            operations = {
                method.lower(): self._get_operation(replace(scope, method=method, one=one))
                for method in endpoint.methods
                if one in OPERATIONS.get(method, ())
            }
            if operations:
                shared = {"parameters": [self._get_path_param(scope)]} if one else {}
                document["paths"][path] = operations | shared
        components["schemas"] |= self._get_schemas(scope)
        components["securitySchemes"] |= self._get_security(endpoint)

    def _add_examples(self, document):
        """Give each body an example; they need all schemas to be there."""
        for path in document["paths"].values():
            for method in path.keys() - {"parameters"}:
                self._add_example(document, path[method].get("requestBody", {}), writing=True)
                for response in path[method]["responses"].values():
                    self._add_example(document, response)

    def _add_example(self, document, body, writing=False):
        if "content" in body:
            media = body["content"][JSON]
            media["example"] = json_schema.example(media["schema"], document["components"], writing)

    def _get_title(self, plan):
        """Return the name of a configuration."""
        return self.env["bj.api.sync.config"].sudo().browse(plan.config_id).name

    # ------------------------------------------------------------------
    # Operations
    # ------------------------------------------------------------------

    def _get_operation(self, scope):
        """Describe one operation.

        :param Scope scope: the endpoint, and which operation
        :return: an Operation Object (OpenAPI 3.1.1, section 4.8.10)
        :rtype: dict
        """
        endpoint, method, one = scope.endpoint, scope.method, scope.one
        name, summary = OPERATIONS[method][one]
        operation = {
            "operationId": f"{endpoint.name}.{name}",
            "tags": [endpoint.name],
            "summary": self.env._(summary) % self._get_title(scope.plan),
            "parameters": [*self._get_params(scope), *self._get_request_headers(scope)],
            "responses": self._get_responses(scope),
            "security": [{name: [] for name in self._get_security(endpoint)}],
        }
        if description := self._get_description(scope):
            operation["description"] = description
        if method in WRITING or (method == "DELETE" and not one):
            operation["requestBody"] = {"required": True, "content": self._get_content(self._get_body(scope))}
        return operation

    def _get_request_headers(self, scope):
        """Return the headers that a request may have, as references."""
        if scope.method == "GET":
            names = ["X-Request-ID", *(["If-None-Match"] if scope.one else [])]
        else:
            names = ["X-Request-ID", "Idempotency-Key", "Prefer", *(["If-Match", "If-None-Match"] if scope.one else [])]
        return [reference("parameters", name) for name in names]

    def _get_description(self, scope):
        endpoint, identifier = scope.endpoint, scope.plan.identifier
        texts = []
        if scope.method == "POST" and identifier:
            texts.append(
                self.env._("A record with the same “%s” is updated.", identifier.key)
                if endpoint.existing_policy == "update"
                else self.env._("A record with the same “%s” is refused (409).", identifier.key)
            )
        if scope.method != "GET" and not scope.one:
            texts.append(
                self.env._("One bad item of a list and nothing is kept.")
                if endpoint.all_or_nothing
                else self.env._("Of a list, the good items are kept and the others are told in “errors” (207).")
            )
        if scope.method == "DELETE" and endpoint.delete_policy == "archive":
            texts.append(self.env._("The records are archived."))
        return " ".join(texts)

    def _get_body(self, scope):
        if scope.method == "DELETE":
            body = self._get_key_schema(scope)
        else:
            body = self._get_ref(scope.plan, "create" if scope.method == "POST" else "update")
            if scope.method != "POST" and not scope.one and scope.plan.identifier:
                json_schema.place(body, scope.plan.identifier.path, self._get_identifier(scope), required=True)
        return body if scope.one else {"oneOf": [body, array_of(body) | {"maxItems": scope.endpoint.limit}]}

    def _get_key_schema(self, scope):
        """Describe a record identifier, bare or in an object."""
        identifier = scope.plan.identifier
        if not identifier:
            return {"type": "object"}
        scalar, wrapped = self._get_identifier(scope), {"type": "object"}
        json_schema.place(wrapped, identifier.path, scalar, required=True)
        return {"anyOf": [scalar, wrapped]}

    def _get_identifier(self, scope):
        """Describe the value that tells which record is meant; it need not be one that can be written."""
        schema = json_schema.not_null(self._get_line_schema(scope.plan.identifier, scope.model))
        return {key: value for key, value in schema.items() if key != "readOnly"}

    # ------------------------------------------------------------------
    # Parameters
    # ------------------------------------------------------------------

    def _get_param(self, place, name, text, schema):
        """Describe a parameter; lists are comma separated.

        :return: a Parameter Object (OpenAPI 3.1.1, section 4.8.12)
        :rtype: dict
        """
        style = {"style": "form", "explode": False} if schema.get("type") == "array" else {}
        return {"name": name, "in": place, "description": text, **style, "schema": schema}

    def _get_path_param(self, scope):
        text, schema = self.env._("The database id of the record."), json_schema.ID
        if line := scope.path_line:
            text = self.env._("The record identifier: %s", line.key)
            schema = json_schema.not_null(self._get_line_schema(line, scope.model))
        return self._get_param("path", "record_id", text, schema) | {"required": True}

    def _get_params(self, scope):
        """Describe the query parameters of an operation, those of the configuration last.

        :rtype: list[dict]
        """
        params = {}
        if scope.method != "DELETE":
            keys = dict.fromkeys([*(key for line in scope.plan.lines for key in line.keys), "id"])
            text = self.env._("Only these keys are answered.")
            params["fields"] = text, array_of(TEXT | {"enum": list(keys)})
        if scope.method == "GET" and not scope.one:
            params |= self._get_list_params(scope) | self._get_filter_params(scope)
        elif not scope.one:
            params["atomic"] = self.env._("Whether one bad item of a list fails all of them."), BOOLEAN
        return [self._get_param("query", name, text, schema) for name, (text, schema) in params.items()]

    def _get_list_params(self, scope):
        """Describe the parameters of every list: name -> what it means, and its schema."""
        endpoint = scope.endpoint
        default = min(endpoint.page_size if endpoint.is_paginated else endpoint.limit, endpoint.limit)
        sort_keys = TEXT | {"enum": self._get_sort_keys(scope)}
        params = {
            "limit": (
                self.env._("The most records of the answer. Over %s it is lowered to that.", endpoint.limit),
                NUMBER | {"default": default},
            ),
            "offset": (self.env._("How many records to skip."), NUMBER),
            "page": (
                self.env._("The number of the page, from 1; instead of offset or cursor."),
                NUMBER | {"minimum": 1},
            ),
            "cursor": (
                self.env._("“next_cursor” of the page before, empty for the first page: constant cost at any depth."),
                TEXT,
            ),
            "sort": (
                self.env._("The keys to sort by, a minus sign before those that descend."),
                array_of(sort_keys),
            ),
            "count": (
                self.env._("Whether the answer tells the total; with cursor, by default not."),
                BOOLEAN if endpoint.is_paginated else BOOLEAN | {"default": False},
            ),
        }
        if "write_date" in scope.model._fields:
            text = self.env._("Only records changed at this time or later.")
            params["updated_since"] = text, json_schema.SCHEMAS["datetime"]
        return params

    def _get_sort_keys(self, scope):
        inbound = self.env["bj.api.sync.inbound"].with_env(scope.model.env)
        return [f"{sign}{key}" for key in inbound._get_sort_names(scope.plan) for sign in ("", "-")]

    def _get_filter_params(self, scope):
        """Describe the mapped keys as equality, and the configured parameters."""
        params = {}
        for key, line in self.env["bj.api.sync.inbound"]._get_filter_lines(scope.plan).items():
            field = scope.model._fields[line.field_name]
            if line.mapping and line.mapping.identifier:
                field = self.env[line.mapping.model]._fields[line.mapping.identifier.field_name]
            text = self.env._("Only records whose “%s” is this. Empty: those without.", line.label)
            params[key] = text, self._get_operand(field, "=")
        operators = dict(self.env["bj.api.sync.param"]._fields["domain_operator"]._description_selection(self.env))
        for param in scope.endpoint.params.values():
            field = scope.model._fields[param.field_name]
            text = f"{field._description_string(self.env)}: {operators[param.operator]}"
            params[param.key] = text, self._get_operand(field, param.operator)
        return params

    def _get_operand(self, field, operator):
        """Describe the text of a query parameter that is compared with a field."""
        if operator == "set":
            return BOOLEAN
        if "like" in operator:
            return TEXT
        schema = json_schema.ID if field.type in TO_MANY else self.env["bj.api.sync.value"]._get_type(field) or TEXT
        return array_of(schema) if operator in ("in", "not in") else schema

    # ------------------------------------------------------------------
    # Answers
    # ------------------------------------------------------------------

    def _get_responses(self, scope):
        """Describe all answers of an operation.

        :return: a Responses Object (OpenAPI 3.1.1, section 4.8.16)
        :rtype: dict
        """
        method, one = scope.method, scope.one
        record = object_of({"id": json_schema.ID}) if method == "DELETE" else self._get_ref(scope.plan, "record")
        single, listed = self._get_envelope(scope, record), self._get_envelope(scope, record, many=True)
        done = single if one else listed if method == "GET" else {"oneOf": [single, listed]}
        responses = {"200": self._get_response(scope, self.env._("Done"), done)}
        if method == "POST":
            created = self._get_response(scope, self.env._("Created"), done, "Location")
            responses["201"] = created | {"links": self._get_links(scope)}
        if method != "GET" and not one:
            failed = self._get_envelope(scope, record, many=True, errors=True)
            responses["207"] = self._get_response(scope, self.env._("Some items failed"), failed)
        if method == "GET" and one:
            text = self.env._("The caller has it already (If-None-Match).")
            responses["304"] = {"description": text, "headers": self._get_headers(scope, ["ETag"])}
        for status in self._get_error_statuses(scope):
            responses[str(status)] = reference("responses", f"Error{status}")
        return responses

    def _get_links(self, scope):
        """Lead from a created record to what can be done with it (OpenAPI 3.1.1, section 4.8.20)."""
        path = scope.path_line.path if scope.path_line else ("id",)
        record_id = f"$response.body#/data{to_pointer(path)}"
        names = [OPERATIONS[method][True][0] for method in scope.endpoint.methods if True in OPERATIONS.get(method, ())]
        return {
            name: {"operationId": f"{scope.endpoint.name}.{name}", "parameters": {"record_id": record_id}}
            for name in names
        }

    def _get_error_statuses(self, scope):
        """Return the statuses that an operation may fail with.

        :rtype: list[int]
        """
        writing = scope.method != "GET"
        only_if = dict.fromkeys((413, 415, 422), writing) | {
            401: self._get_security(scope.endpoint),
            409: writing or (scope.one and scope.path_line),
            412: writing and scope.one,
            429: scope.endpoint.rate_limit,
            503: scope.method == "DELETE" and self.env["bj.api.link"]._get_pair_ids(scope.endpoint.config_id),
        }
        return [status for status in ERRORS if only_if.get(status, True)]

    def _get_headers(self, scope, names):
        """Describe the headers of an answer; what the configured ones say is not told."""
        names = [*names, *(RATE_HEADERS if scope.endpoint.rate_limit else ())]
        own = {name: {"schema": TEXT} for name, _value in scope.endpoint.answer_headers}
        return own | self._get_header_refs(*names)

    def _get_header_refs(self, *names):
        return {name: reference("headers", name) for name in ("X-Request-ID", *names)}

    def _get_response(self, scope, text, schema, *names):
        if scope.method == "GET":
            names += ("ETag" if scope.one else "Link",)
        else:
            names += ("Idempotent-Replayed", "Preference-Applied", *(("ETag",) if scope.method in WRITING else ()))
        return {
            "description": text,
            "headers": self._get_headers(scope, names),
            "content": self._get_content(schema),
        }

    def _get_content(self, schema):
        return {media_type: {"schema": schema} for media_type in (JSON, XML)}

    def _get_envelope(self, scope, record, many=False, errors=False):
        """Describe the body of an answer around its data."""
        properties = {"status": TEXT | {"const": "success"}, "data": array_of(record) if many else record}
        if many:
            properties["meta"] = self._get_meta(scope.method)
        if errors:
            properties["errors"] = array_of(reference("schemas", "ItemError"))
        required = list(properties)
        if scope.method in WRITING:
            changes = reference("schemas", "Changes")
            properties["changes"] = array_of(changes) if many else changes
            if self.env["bj.api.link"]._get_pair_ids(scope.endpoint.config_id):
                properties["conflicts"] = array_of(reference("schemas", "Conflict"))
        return object_of(properties, required)

    def _get_meta(self, method):
        """Describe what is told about a list."""
        if method == "GET":
            properties = dict.fromkeys(("limit", "offset", "count", "total"), NUMBER) | {"next_cursor": TEXT}
            return object_of(properties, ["limit", "count"])
        names = ["deleted", "failed"] if method == "DELETE" else ["created", "updated", "failed"]
        return object_of(dict.fromkeys(names, NUMBER))

    # ------------------------------------------------------------------
    # Schemas
    # ------------------------------------------------------------------

    @ormcache()
    def _get_names(self):
        """Name the schemas of all configurations: after the endpoint, else the configuration.

        The number of a configuration is added only where two have the same name.

        :rtype: dict[int, str]
        """
        names, taken = {}, set()
        configs = self.env["bj.api.sync.config"].sudo().with_context(active_test=False)
        for config in configs.search([], order="endpoint, id"):
            words = re.findall(r"[A-Za-z0-9]+", remove_accents(config.name))
            name = config.endpoint or "".join(word[0].upper() + word[1:] for word in words) or config.model_name
            names[config.id] = f"{name}-{config.id}" if name in taken else name
            taken.add(name)
        return names

    def _get_name(self, plan, kind):
        """Name a schema of a configuration.

        :param Plan plan: the configuration
        :param str kind: ``record`` of an endpoint, ``create`` or ``update`` for one, nested ``object`` or ``input``
        :rtype: str
        """
        name = self._get_names()[plan.config_id]
        return name if kind == "record" else f"{name}.{kind}"

    def _get_ref(self, plan, kind):
        """Refer to a schema of a configuration, see :meth:`_get_name`."""
        return reference("schemas", self._get_name(plan, kind))

    def _get_schemas(self, scope):
        """Return the schemas of an endpoint, nested ones included, by name."""
        methods = scope.endpoint.methods
        kinds = {"record": True, "create": "POST" in methods, "update": "PUT" in methods or "PATCH" in methods}
        return dict(self._list_schemas(scope.plan, scope.model, [kind for kind, needed in kinds.items() if needed]))

    def _list_schemas(self, plan, model, kinds):
        """Yield the schemas of a configuration and of those nested in it, each with its name."""
        for kind in kinds:
            yield self._get_name(plan, kind), self._get_object(plan, model, kind)
        for line in plan.lines:
            if line.mapping:
                is_object = line.relation_output == "object" or not line.mapping.identifier
                nested = (["object"] if is_object else []) + (["input"] if ACCEPTED & set(kinds) else [])
                yield from self._list_schemas(line.mapping, model.env[line.mapping.model], nested)

    def _get_object(self, plan, model, kind):
        """Describe the objects of a configuration.

        :param Plan plan: the configuration
        :param model: an empty recordset of its model
        :param str kind: see :meth:`_get_name`
        :rtype: dict
        """
        root = {"type": "object", "properties": {}}  # generated clients name classes after a title: there are several
        writing = kind in ACCEPTED
        needed = self._get_needed(plan, model) if kind == "create" else ()
        mapper = self.env["bj.api.sync.mapper"].with_env(model.env)
        for line in plan.lines:
            if not writing and not mapper._is_readable(line, model):
                continue
            schema = self._get_line_schema(line, model, writing)
            if writing and schema.get("readOnly") and not plan.strict:
                continue
            json_schema.place(root, line.path, schema, required=line.id in needed)
        if writing and plan.strict:
            root["properties"].setdefault("id", {"readOnly": True})
            json_schema.close(root)
        if kind == "record":
            identity = json_schema.ID | {"title": self.env._("Database ID"), "readOnly": True}
            root |= object_of({"id": identity} | root["properties"], ["id"])
        return root

    def _get_needed(self, plan, model):
        """Return the ids of the lines without which nothing can be created: required fields without a default."""
        defaults = self.env["ir.default"].with_env(model.env).sudo()._get_model_defaults(plan.model)
        needed = set()
        for line in plan.lines:
            field = model._fields.get(line.field_name)
            # what an Execute script may fill in need not be in the payload
            if field is None or line.script or any(line.path[0] in script.script for script in plan.exec_lines):
                continue
            base = field.base_field
            computed = base.compute or (field.compute and not field.inherited)
            if field.required and not base.default and not computed and field.name not in defaults:
                needed.add(line.id)
        return needed

    def _get_line_schema(self, line, model, writing=False):
        """Describe a line: its value type knows the values, the field their name and meaning."""
        field = model._fields.get(line.field_name)
        value_model = self.env[f"bj.api.sync.value.{line.value_type}"]
        schema = dict(value_model._get_schema(line, model, writing))
        if field is None:
            return schema | {"title": line.label, "readOnly": True}
        schema.setdefault("title", field._description_string(self.env))
        texts = [field._description_help(self.env), schema.pop("description", None)]
        if any(texts):
            schema["description"] = "\n".join(filter(None, texts))
        if not self.env["bj.api.sync.mapper"]._is_writable(field):
            schema = (schema if not writing else {"title": schema["title"]}) | {"readOnly": True}
        if "string" in schema.get("type", ()) and not schema.keys() & {"examples", "enum", "pattern"}:
            schema["examples"] = [schema["title"][: schema.get("maxLength")]]
        return schema

    # ------------------------------------------------------------------
    # Components
    # ------------------------------------------------------------------

    def _get_components(self):
        """Return what all endpoints share.

        :return: a Components Object (OpenAPI 3.1.1, section 4.8.7)
        :rtype: dict
        """
        headers = {name: {"description": self.env._(text), "schema": TEXT} for name, text in ANSWER_HEADERS.items()}
        headers["X-Request-ID"] |= {"required": True, "schema": REQUEST_ID}
        return {
            "schemas": self._get_error_schemas(),
            "parameters": {
                name: self._get_param("header", name, self.env._(text), schema)
                for name, (text, schema) in REQUEST_HEADERS.items()
            },
            "headers": headers,
            "responses": {
                f"Error{status}": self._get_error(status, self.env._(text), names)
                for status, (text, *names) in ERRORS.items()
            },
            "securitySchemes": {},
        }

    def _get_error_schemas(self):
        """Describe errors: those of our own, of items, and RFC 9457 problem details."""
        fault = {"pointer": TEXT | {"format": "json-pointer"}, "message": TEXT, "line_id": NUMBER}
        error = {"status": TEXT | {"const": "error"}, "code": NUMBER, "message": TEXT, "trace_id": TEXT}
        problem = {"type": TEXT, "title": TEXT, "status": NUMBER, "detail": TEXT, "instance": TEXT, "trace_id": TEXT}
        errors = {"errors": array_of(reference("schemas", "ItemError"))}
        return {
            "Changes": {
                "type": "object",
                "description": self.env._("Of a dry run: the keys that would change."),
                "additionalProperties": object_of({"old": {}, "new": {}}),
            },
            "Conflict": object_of({"index": NUMBER, "message": TEXT})
            | {"description": self.env._("An item that was not written, because its record was changed here too.")},
            "ItemError": object_of({"index": NUMBER, "code": NUMBER} | fault, ["message"]),
            "Error": object_of(error | errors, list(error)),
            "Problem": object_of(problem | errors, list(problem)),
        }

    def _get_error(self, status, text, names):
        further = (*(() if status == 401 else RATE_HEADERS), *(("Idempotent-Replayed",) if status in REPLAYED else ()))
        return {
            "description": text,
            "headers": self._get_header_refs(*names, *further),
            "content": self._get_content(reference("schemas", "Error"))
            | {PROBLEM: {"schema": reference("schemas", "Problem")}},
        }

    # ------------------------------------------------------------------
    # Security
    # ------------------------------------------------------------------

    def _get_security(self, endpoint):
        """Return the security schemes that a request needs, all of them, by name.

        The schemes of an authorization type come from ``_get_security_<type>(endpoint)``.

        :param Endpoint endpoint: the compiled configuration
        :return: Security Scheme Objects (OpenAPI 3.1.1, section 4.8.27)
        :rtype: dict
        """
        describe = getattr(self, f"_get_security_{endpoint.authorization_type}", None)
        headers = {
            f"header.{re.sub(r'[^A-Za-z0-9._-]', '_', name)}": {"type": "apiKey", "in": "header", "name": name}
            for name, _digest in endpoint.required_headers
        }
        return (describe(endpoint) if describe else {}) | headers

    def _get_security_basic(self, endpoint):
        return {"basic": {"type": "http", "scheme": "basic"}}

    def _get_security_bearer(self, endpoint):
        return {"bearer": {"type": "http", "scheme": "bearer"}}

    def _get_security_odoo(self, endpoint):
        text = self.env._("The API key of an Odoo user, as whom the request runs.")
        return {"odoo": {"type": "http", "scheme": "bearer", "description": text}}

    def _get_security_hmac(self, endpoint):
        style = endpoint.signing_style
        text = self.env._("The signature of the body, made with a secret that both sides know.")
        scheme = {"type": "apiKey", "in": "header", "name": SIGNATURE_HEADERS[style], "description": text}
        return {f"signature.{style}": scheme}
