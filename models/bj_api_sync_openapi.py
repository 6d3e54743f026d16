import json
import re
from dataclasses import dataclass

from odoo import models
from odoo.tools import ormcache, remove_accents

from ..tools import schema as json_schema
from ..tools.codec import TO_MANY
from ..tools.plan import Endpoint, Plan, escape
from ..tools.signature import SIGNATURE_HEADERS

JSON, XML, PROBLEM = "application/json", "application/xml", "application/problem+json"
WRITING = ("POST", "PUT", "PATCH")
#: the last part of operation ids: of the whole collection, of one record
OPERATION_NAMES = {
    "GET": ("list", "read"),
    "POST": ("create", ""),
    "PUT": ("put_listed", "put"),
    "PATCH": ("patch_listed", "patch"),
    "DELETE": ("delete_listed", "delete"),
}
NUMBER = {"type": "integer", "minimum": 0}
TEXT = {"type": "string"}
#: the headers of errors, by status
ERROR_HEADERS = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    409: ("Retry-After",),
    429: ("Retry-After", "RateLimit", "RateLimit-Policy"),
}
REQUEST_ID = TEXT | {"pattern": "^[\\x21-\\x7e]{1,128}$", "examples": ["order-4711"]}


@dataclass(frozen=True, slots=True)
class Scope:
    """One endpoint while it is described.

    ``model`` is an empty recordset in the environment that serves it, ``name`` that of its schemas.
    """

    endpoint: Endpoint
    plan: Plan
    model: models.BaseModel
    title: str
    name: str


class BjApiSyncOpenapi(models.AbstractModel):
    """The description of exposed endpoints (OpenAPI 3.1.1), made from their configurations and fields."""

    _name = "bj.api.sync.openapi"
    _description = "API Description"

    # ------------------------------------------------------------------
    # Document
    # ------------------------------------------------------------------

    @ormcache("names", "server", "self.env.lang")
    def _get_text(self, names, server):
        """Describe some endpoints; the text is kept until a configuration changes.

        :param tuple names: the endpoints the caller may know of
        :param str server: the URL they are below
        :return: the document in JSON
        :rtype: str
        """
        return json.dumps(self._get_document(names, server), ensure_ascii=False, separators=(",", ":"))

    def _get_document(self, names, server):
        """Describe some endpoints.

        :param tuple names: the endpoints the caller may know of
        :param str server: the URL they are below
        :rtype: dict
        """
        document = {
            "openapi": "3.1.1",
            "info": {"title": self.env._("API Synchronization"), "version": "1", "description": self._get_intro()},
            "servers": [{"url": server}],
            "tags": [],
            "paths": {},
            "components": self._get_components(),
        }
        for name in names:
            endpoint = self.env["bj.api.sync.inbound"]._endpoint(name)
            if endpoint:
                self._add_endpoint(document, self._get_scope(endpoint))
        document = json_schema.name_items(document)
        self._add_examples(document)
        return document

    def _get_scope(self, endpoint):
        model = self.env[endpoint.model]
        return Scope(
            endpoint=endpoint,
            plan=self.env["bj.api.sync.mapper"]._plan(endpoint.config_id),
            model=model.with_user(endpoint.user_id) if endpoint.user_id else model.sudo(),
            title=self.env["bj.api.sync.config"].sudo().browse(endpoint.config_id).name,
            name=self._get_names()[endpoint.config_id],
        )

    def _add_endpoint(self, document, scope):
        """Add what one endpoint has: its tag, paths, schemas and security schemes."""
        endpoint, components = scope.endpoint, document["components"]
        document["tags"].append({"name": endpoint.name, "description": scope.title})
        for one, path in enumerate((f"/{endpoint.name}", f"/{endpoint.name}/{{record_id}}")):
            methods = [method for method in endpoint.methods if OPERATION_NAMES.get(method, ("", ""))[one]]
            operations = {method.lower(): self._get_operation(scope, method, bool(one)) for method in methods}
            if operations:
                document["paths"][path] = operations | self._get_path_params(scope, one)
        components["schemas"] |= self._get_schemas(scope)
        components["securitySchemes"] |= self._get_security(endpoint)

    def _add_examples(self, document):
        """Give each body an example; they need all schemas to be there."""
        schemas = document["components"]["schemas"]
        operations = [part for path in document["paths"].values() for part in path.values() if isinstance(part, dict)]
        for operation in operations:
            if "requestBody" in operation:
                media = operation["requestBody"]["content"][JSON]
                media["example"] = json_schema.example(media["schema"], schemas, writing=True)
            for response in operation["responses"].values():
                if "content" in response:
                    media = response["content"][JSON]
                    media["example"] = json_schema.example(media["schema"], schemas)

    @ormcache()
    def _get_exposed(self):
        """Return the names of all endpoints, in order.

        :rtype: tuple[str]
        """
        configs = self.env["bj.api.sync.config"].sudo()
        return tuple(configs.search([("request_type", "=", "in"), ("endpoint", "!=", False)]).mapped("endpoint"))

    def _get_intro(self):
        return self.env._(
            "A key that is absent from a body leaves its field alone, null clears it. Lists are read in pages. "
            "Every endpoint answers OPTIONS, and HEAD where it answers GET. "
            "In XML, the name of the root element means nothing, and the elements of a list are named “item”. "
            "Every answer has an X-Request-ID, under which the log of Odoo finds it."
        )

    # ------------------------------------------------------------------
    # Operations
    # ------------------------------------------------------------------

    def _get_path_params(self, scope, one):
        if not one:
            return {}
        line = scope.plan.identifier if scope.endpoint.record_id_type == "identifier" else None
        text = self.env._("The database id of the record.")
        schema = json_schema.ID
        if line:
            text = self.env._("The record identifier: %s", line.key)
            schema = json_schema.not_null(self._get_line_schema(line, scope.model))
        param = {"name": "record_id", "in": "path", "required": True, "description": text, "schema": schema}
        return {"parameters": [param]}

    def _get_operation(self, scope, method, one):
        """Describe one operation.

        :param Scope scope: the endpoint
        :param str method: the HTTP method
        :param bool one: whether the path names one record
        :return: an Operation Object (OpenAPI 3.1.1, section 4.8.10)
        :rtype: dict
        """
        name = OPERATION_NAMES[method][one]
        operation = {
            "operationId": f"{scope.endpoint.name}.{name}",
            "tags": [scope.endpoint.name],
            "summary": self._get_summary(scope, name),
            "parameters": [*self._get_params(scope, method, one), *self._get_request_headers(method, one)],
            "responses": self._get_responses(scope, method, one),
            "security": [{name: [] for name in self._get_security(scope.endpoint)}],
        }
        if description := self._get_description(scope, name):
            operation["description"] = description
        if method in WRITING or (method == "DELETE" and not one):
            body = self._get_body(scope, method, one)
            operation["requestBody"] = {"required": True, "content": self._get_content(body)}
        return operation

    def _get_request_headers(self, method, one):
        """Return the headers that a request may have, as references."""
        names = ["X-Request-ID"]
        if method != "GET":
            names += ["Idempotency-Key", "Prefer"]
        if one:
            names.append("If-None-Match" if method == "GET" else "If-Match")
        return [{"$ref": f"#/components/parameters/{name}"} for name in names]

    def _get_summary(self, scope, name):
        title = scope.title
        return {
            "list": self.env._("List: %s", title),
            "read": self.env._("Read one: %s", title),
            "create": self.env._("Create or update: %s", title),
            "put_listed": self.env._("Update by record identifier: %s", title),
            "patch_listed": self.env._("Update by record identifier: %s", title),
            "put": self.env._("Update one: %s", title),
            "patch": self.env._("Update one: %s", title),
            "delete_listed": self.env._("Delete by record identifier: %s", title),
            "delete": self.env._("Delete one: %s", title),
        }[name]

    def _get_description(self, scope, name):
        endpoint, identifier = scope.endpoint, scope.plan.identifier
        texts = []
        if name == "create" and identifier:
            texts.append(
                self.env._("A record with the same “%s” is updated.", identifier.key)
                if endpoint.existing_policy == "update"
                else self.env._("A record with the same “%s” is refused (409).", identifier.key)
            )
        if name in ("create", "put_listed", "patch_listed", "delete_listed"):
            texts.append(
                self.env._("One bad item of a list and nothing is kept.")
                if endpoint.all_or_nothing
                else self.env._("Of a list, the good items are kept and the others are told in “errors” (207).")
            )
        if name in ("delete", "delete_listed") and endpoint.delete_policy == "archive":
            texts.append(self.env._("The records are archived."))
        return " ".join(texts)

    def _get_body(self, scope, method, one):
        if method == "DELETE":
            body = self._get_key_schema(scope)
        else:
            body = self._get_ref(scope.plan, "create" if method == "POST" else "update")
            if method != "POST" and not one and scope.plan.identifier:
                json_schema.place(body, scope.plan.identifier.path, {}, required=True)
        return body if one else {"oneOf": [body, {"type": "array", "items": body, "maxItems": scope.endpoint.limit}]}

    def _get_key_schema(self, scope):
        """Describe a record identifier, bare or in an object."""
        identifier = scope.plan.identifier
        if not identifier:
            return {"type": "object"}
        scalar = json_schema.not_null(self._get_line_schema(identifier, scope.model, writing=True))
        wrapped = {"type": "object"}
        json_schema.place(wrapped, identifier.path, scalar, required=True)
        return {"anyOf": [scalar, wrapped]}

    # ------------------------------------------------------------------
    # Query parameters
    # ------------------------------------------------------------------

    def _get_params(self, scope, method, one):
        """Describe the query parameters of an operation, those of the configuration last.

        :rtype: list[dict]
        """
        params = {}
        if method != "DELETE":
            params["fields"] = self._get_fields_param(scope)
        if method == "GET" and not one:
            params |= self._get_list_params(scope) | self._get_filter_params(scope)
        elif method != "GET" and not one:
            text = self.env._("Whether one bad item of a list fails all of them.")
            params["atomic"] = {"description": text, "schema": {"type": "boolean"}}
        return [{"name": name, "in": "query"} | param for name, param in params.items()]

    def _get_fields_param(self, scope):
        paths = [line.path for line in scope.plan.lines]
        keys = {".".join(path[:depth]): None for path in paths for depth in range(1, len(path) + 1)} | {"id": None}
        return self._get_keys_param(self.env._("Only these keys are answered."), list(keys))

    def _get_keys_param(self, text, keys):
        schema = {"type": "array", "items": {"type": "string", "enum": keys}}
        return {"description": text, "style": "form", "explode": False, "schema": schema}

    def _get_list_params(self, scope):
        endpoint = scope.endpoint
        default = min(endpoint.page_size if endpoint.is_paginated else endpoint.limit, endpoint.limit)
        limit = self.env._("The most records of the answer. Over %s it is lowered to that.", endpoint.limit)
        sort = self._get_keys_param(
            self.env._("The keys to sort by, a minus sign before those that descend."), self._get_sort_keys(scope)
        )
        params = {
            "limit": {"description": limit, "schema": NUMBER | {"default": default}},
            "offset": {"description": self.env._("How many records to skip."), "schema": NUMBER},
            "page": {
                "description": self.env._("The number of the page, from 1; instead of offset or cursor."),
                "schema": {"type": "integer", "minimum": 1},
            },
            "cursor": {
                "description": self.env._(
                    "“next_cursor” of the page before, empty for the first page: constant cost at any depth."
                ),
                "schema": TEXT,
            },
            "sort": sort,
            "count": {
                "description": self.env._("Whether the answer tells the total."),
                "schema": {"type": "boolean", "default": endpoint.is_paginated},
            },
        }
        if "write_date" in scope.model._fields:
            since = self.env._("Only records changed at this time or later.")
            params["updated_since"] = {"description": since, "schema": json_schema.SCHEMAS["datetime"]}
        return params

    def _get_sort_keys(self, scope):
        fields, env = scope.model._fields, scope.model.env
        keys = self.env["bj.api.sync.inbound"]._get_sort_names(scope.plan)
        sortable = [key for key, name in keys.items() if fields[name]._description_sortable(env)]
        return [f"{sign}{key}" for key in sortable for sign in ("", "-")]

    def _get_filter_params(self, scope):
        """Describe the configured parameters, and the mapped keys as equality."""
        params = {}
        for line in scope.plan.lines:
            field = scope.model._fields.get(line.field_name)
            if line.script or field is None or not field._description_searchable or line.field_type == "binary":
                continue
            text = self.env._("Only records whose “%s” is this. Empty: those without.", line.label)
            params[line.key] = {"description": text, "schema": self._get_filter_schema(scope, line)}
        for param in scope.endpoint.params.values():
            params[param.key] = self._get_configured_param(scope, param)
        return params

    def _get_filter_schema(self, scope, line):
        """Describe one value of a mapped key: of a relation it is the related record's identifier."""
        model = scope.model
        while line.mapping and line.mapping.identifier:
            model, line = model.env[line.mapping.model], line.mapping.identifier
        return self._get_text_schema(model._fields[line.field_name])

    def _get_text_schema(self, field):
        """Describe the text of a query parameter that is compared with a field."""
        if field.type in TO_MANY:
            return json_schema.ID
        schema = json_schema.SCHEMAS.get(field.type, TEXT)
        if field.type == "selection":
            schema = schema | self.env["bj.api.sync.value"]._get_choices(field)
        return schema

    def _get_configured_param(self, scope, param):
        field = scope.model._fields[param.field_name]
        operators = self.env["bj.api.sync.param"]._fields["domain_operator"]._description_selection(self.env)
        label = field._description_string(self.env)
        text = f"{label}: {dict(operators).get(param.operator, param.operator)}"
        if param.operator == "set":
            return {"description": text, "schema": {"type": "boolean"}}
        if "like" in param.operator:
            return {"description": text, "schema": TEXT}
        schema = self._get_text_schema(field)
        if param.operator in ("in", "not in"):
            schema = {"type": "array", "items": schema}
            return {"description": text, "style": "form", "explode": False, "schema": schema}
        return {"description": text, "schema": schema}

    # ------------------------------------------------------------------
    # Answers
    # ------------------------------------------------------------------

    def _get_responses(self, scope, method, one):
        """Describe all answers of an operation.

        :return: a Responses Object (OpenAPI 3.1.1, section 4.8.16)
        :rtype: dict
        """
        record = {"type": "object", "properties": {"id": json_schema.ID}, "required": ["id"]}
        if method != "DELETE":
            record = self._get_ref(scope.plan, "record")
        many = {"type": "array", "items": record}
        single, listed = self._get_envelope(scope, record, method), self._get_envelope(scope, many, method, many=True)
        done = single if one else listed if method == "GET" else {"oneOf": [single, listed]}
        responses = {"200": self._get_response(scope, method, one, self.env._("Done"), done)}
        if method == "POST":
            created = self._get_response(scope, method, one, self.env._("Created"), done, ["Location"])
            responses["201"] = created | {"links": self._get_links(scope)}
        if method != "GET" and not one:
            failed = self._get_envelope(scope, many, method, many=True, errors=True)
            responses["207"] = self._get_response(scope, method, one, self.env._("Some items failed"), failed)
        if method == "GET" and one:
            text = self.env._("The caller has it already (If-None-Match).")
            responses["304"] = {"description": text, "headers": self._get_headers(scope, ["ETag"])}
        for status in self._get_error_statuses(scope, method, one):
            responses[str(status)] = {"$ref": f"#/components/responses/Error{status}"}
        return responses

    def _get_links(self, scope):
        """Lead from a created record to what can be done with it (OpenAPI 3.1.1, section 4.8.20)."""
        line = scope.plan.identifier if scope.endpoint.record_id_type == "identifier" else None
        path = line.path if line else ("id",)
        pointer = "".join(f"/{escape(part)}" for part in path)
        names = [OPERATION_NAMES[method][1] for method in scope.endpoint.methods if method in OPERATION_NAMES]
        return {
            name: {
                "operationId": f"{scope.endpoint.name}.{name}",
                "parameters": {"record_id": f"$response.body#/data{pointer}"},
            }
            for name in names
            if name
        }

    def _get_error_statuses(self, scope, method, one):
        """Return the statuses that an operation may fail with.

        :rtype: list[int]
        """
        statuses = [400, 403, 404, 405, 406, 500]
        if self._get_security(scope.endpoint):
            statuses.append(401)
        if method != "GET" or (one and scope.endpoint.record_id_type == "identifier"):
            statuses.append(409)
        if method != "GET":
            statuses += [413, 415, 422]
        if method != "GET" and one:
            statuses.append(412)
        if scope.endpoint.edge.rate_limit:
            statuses.append(429)
        return sorted(statuses)

    def _get_headers(self, scope, names):
        """Describe the headers of an answer; what the configured ones say is not told."""
        names = [*names, *(("RateLimit", "RateLimit-Policy") if scope.endpoint.edge.rate_limit else ())]
        own = {name: {"schema": TEXT} for name, _value in scope.endpoint.answer_headers}
        return own | {name: {"$ref": f"#/components/headers/{name}"} for name in ["X-Request-ID", *names]}

    def _get_response(self, scope, method, one, text, schema, names=()):
        names = list(names)
        if method == "GET":
            names.append("ETag" if one else "Link")
        else:
            names += ["Idempotent-Replayed", "Preference-Applied"]
            names += ["ETag"] if method != "DELETE" else []
        return {
            "description": text,
            "headers": self._get_headers(scope, names),
            "content": self._get_content(schema),
        }

    def _get_content(self, schema):
        return {media_type: {"schema": schema} for media_type in (JSON, XML)}

    def _get_envelope(self, scope, data, method, many=False, errors=False):
        """Describe the body of an answer around its data."""
        schema = {"type": "object"}
        json_schema.place(schema, ("status",), TEXT | {"const": "success"}, required=True)
        json_schema.place(schema, ("data",), data, required=True)
        if many:
            json_schema.place(schema, ("meta",), self._get_meta(method), required=True)
        if errors:
            items = {"type": "array", "items": {"$ref": "#/components/schemas/ItemError"}}
            json_schema.place(schema, ("errors",), items, required=True)
        if method in WRITING:
            changes = {"$ref": "#/components/schemas/Changes"}
            json_schema.place(schema, ("changes",), {"type": "array", "items": changes} if many else changes)
        if method in WRITING and self.env["bj.api.link"]._get_pairs(scope.endpoint.config_id):
            conflicts = {"type": "array", "items": {"$ref": "#/components/schemas/Conflict"}}
            json_schema.place(schema, ("conflicts",), conflicts)
        return schema

    def _get_meta(self, method):
        """Describe what is told about a list."""
        if method == "GET":
            properties = dict.fromkeys(("limit", "offset", "count", "total"), NUMBER) | {"next_cursor": TEXT}
            return {"type": "object", "properties": properties, "required": ["limit", "count"]}
        names = ["deleted", "failed"] if method == "DELETE" else ["created", "updated", "failed"]
        return {"type": "object", "properties": dict.fromkeys(names, NUMBER), "required": names}

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

    def _get_ref(self, plan, kind):
        """Refer to a schema of a configuration.

        :param Plan plan: the configuration
        :param str kind: ``record`` of an endpoint, ``create`` or ``update`` for one, nested ``object`` or ``input``
        :rtype: dict
        """
        suffix = "" if kind == "record" else f".{kind}"
        return {"$ref": f"#/components/schemas/{self._get_names()[plan.config_id]}{suffix}"}

    def _get_schemas(self, scope):
        """Return the schemas of an endpoint, nested ones included, by name."""
        plan, model, methods = scope.plan, scope.model, scope.endpoint.methods
        identity = {"id": json_schema.ID | {"title": self.env._("Database ID"), "readOnly": True}}
        record = self._get_object(plan, model, scope.title)
        record["properties"] = identity | record["properties"]
        record["required"] = ["id"]
        schemas = {scope.name: record}
        if "POST" in methods:
            schemas[f"{scope.name}.create"] = self._get_object(plan, model, scope.title, writing=True, creating=True)
        if "PUT" in methods or "PATCH" in methods:
            schemas[f"{scope.name}.update"] = self._get_object(plan, model, scope.title, writing=True)
        self._add_nested(schemas, plan, model, any(method in WRITING for method in methods))
        return schemas

    def _add_nested(self, schemas, plan, model, writing):
        for line in plan.lines:
            if not line.mapping:
                continue
            mapping, name = line.mapping, self._get_names()[line.mapping.config_id]
            related = model.env[mapping.model]
            title = self.env["bj.api.sync.config"].sudo().browse(mapping.config_id).name
            if line.relation_output == "object" or not mapping.identifier:
                schemas[f"{name}.object"] = self._get_object(mapping, related, title)
            if writing:
                schemas[f"{name}.input"] = self._get_object(mapping, related, title, writing=True)
            self._add_nested(schemas, mapping, related, writing)

    def _get_object(self, plan, model, title, writing=False, creating=False):
        """Describe the objects of a configuration.

        :param Plan plan: the configuration
        :param model: an empty recordset of its model
        :param str title: its name
        :param bool writing: what is accepted, not what is answered
        :param bool creating: with what a new record needs
        :rtype: dict
        """
        root = {"type": "object", "title": title, "properties": {}}
        needed = self._get_needed(plan, model) if creating else ()
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
            schema["examples"] = [schema["title"][: field.size] if field.type == "char" else schema["title"]]
        return schema

    # ------------------------------------------------------------------
    # Components
    # ------------------------------------------------------------------

    def _get_components(self):
        """Return what all endpoints share.

        :return: a Components Object (OpenAPI 3.1.1, section 4.8.7)
        :rtype: dict
        """
        return {
            "schemas": self._get_error_schemas(),
            "parameters": {
                name: {"name": name, "in": "header", "description": text, "schema": schema}
                for name, (text, schema) in self._get_shared_params().items()
            },
            "headers": self._get_shared_headers(),
            "responses": {f"Error{status}": self._get_error(status, text) for status, text in self._get_errors()},
            "securitySchemes": {},
        }

    def _get_shared_params(self):
        """Return the headers of requests: name -> what it means, and its schema."""
        return {
            "X-Request-ID": (
                self.env._("The name of the request in the logs; made up if it is missing or malformed."),
                REQUEST_ID,
            ),
            "Idempotency-Key": (
                self.env._("The same request with the same key is done once, and answered again for 24 hours."),
                TEXT | {"minLength": 1, "maxLength": 255},
            ),
            "Prefer": (self.env._("tx=rollback: a dry run; what would change is told, nothing is kept."), TEXT),
            "If-Match": (self.env._("The ETag the caller knows; if the record has another one: 412."), TEXT),
            "If-None-Match": (self.env._("The ETag the caller has; if it is still the same: 304."), TEXT),
        }

    def _get_error_schemas(self):
        """Describe errors: those of our own, of items, and RFC 9457 problem details."""
        fault = {"pointer": TEXT | {"format": "json-pointer"}, "message": TEXT, "line_id": NUMBER}
        item = {"index": NUMBER, "code": NUMBER} | fault
        errors = {"type": "array", "items": {"$ref": "#/components/schemas/ItemError"}}
        error = {"status": TEXT | {"const": "error"}, "code": NUMBER, "message": TEXT, "trace_id": TEXT}
        problem = {"type": TEXT, "title": TEXT, "status": NUMBER, "detail": TEXT, "instance": TEXT, "trace_id": TEXT}
        change = {"type": "object", "properties": {"old": {}, "new": {}}, "required": ["old", "new"]}
        return {
            "Changes": {
                "type": "object",
                "description": self.env._("Of a dry run: the keys that would change."),
                "additionalProperties": change,
            },
            "Conflict": {
                "type": "object",
                "description": self.env._("An item that was not written, because its record was changed here too."),
                "properties": {"index": NUMBER, "message": TEXT},
                "required": ["index", "message"],
            },
            "ItemError": {"type": "object", "properties": item, "required": ["message"]},
            "Error": {"type": "object", "properties": error | {"errors": errors}, "required": list(error)},
            "Problem": {"type": "object", "properties": problem | {"errors": errors}, "required": list(problem)},
        }

    def _get_shared_headers(self):
        texts = {
            "Location": self.env._("The path of the created record."),
            "Allow": self.env._("The methods the endpoint answers."),
            "WWW-Authenticate": self.env._("The credentials that are asked for."),
            "ETag": self.env._("What tells this state of one record from others, for If-Match and If-None-Match."),
            "Link": self.env._("The pages around this one (RFC 8288): first, prev, next, last."),
            "Retry-After": self.env._("After how many seconds to try again."),
            "RateLimit": self.env._("How many requests are left, and when there are more."),
            "RateLimit-Policy": self.env._("How many requests are answered within how many seconds."),
            "Idempotent-Replayed": self.env._("true: the request was done before, this is its answer."),
            "Preference-Applied": self.env._("tx=rollback: this was a dry run."),
        }
        headers = {name: {"description": text, "schema": TEXT} for name, text in texts.items()}
        text = self.env._("The X-Request-ID of the request, or a new one: the trace id of the log.")
        return headers | {"X-Request-ID": {"description": text, "required": True, "schema": REQUEST_ID}}

    def _get_errors(self):
        """Return the statuses of errors, with what they mean.

        :rtype: list[tuple[int, str]]
        """
        return [
            (400, self.env._("The request or its data is wrong; “errors” tells where.")),
            (401, self.env._("Credentials are missing or wrong.")),
            (403, self.env._("The user of the endpoint has no access.")),
            (404, self.env._("There is no such endpoint or record.")),
            (405, self.env._("The endpoint does not answer this method.")),
            (406, self.env._("No acceptable content type can be answered.")),
            (409, self.env._("There is a record already, several match, or it is in use.")),
            (412, self.env._("The record is not as the caller knows it (If-Match).")),
            (413, self.env._("The body has too many items, or is too large.")),
            (415, self.env._("The body is of another content type.")),
            (422, self.env._("The Idempotency-Key was used for another request.")),
            (429, self.env._("There were too many requests within a minute.")),
            (500, self.env._("Internal error. The log has the details under the trace id.")),
        ]

    def _get_error(self, status, text):
        names = ERROR_HEADERS.get(status, ())
        return {
            "description": text,
            "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in ["X-Request-ID", *names]},
            "content": self._get_content({"$ref": "#/components/schemas/Error"})
            | {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
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
        style = endpoint.edge.signing_style
        text = self.env._("The signature of the body, made with a secret that both sides know.")
        scheme = {"type": "apiKey", "in": "header", "name": SIGNATURE_HEADERS[style], "description": text}
        return {f"signature.{style}": scheme}
