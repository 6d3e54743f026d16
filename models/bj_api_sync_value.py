"""One small model per Value Calculation Type; another addon adds one with a ``selection_add`` and a model.

Each turns a whole column at once: all records into JSON values, or all payloads into ORM values.
"""

import datetime
import json
import re
from collections import defaultdict
from dataclasses import replace
from types import NoneType

from odoo import models
from odoo.tools.translate import LazyTranslate

from ..exceptions import BadPayload
from ..tools import codec
from ..tools import schema as json_schema
from ..tools.plan import ABSENT, Batch, Links

_lt = LazyTranslate(__name__)

#: what a value of each field type looks like, for the person who sent another one
EXPECTED = {
    "char": _lt("a string of storable characters"),
    "text": _lt("a string of storable characters"),
    "html": _lt("a string of storable characters"),
    "selection": _lt("a string of storable characters"),
    "integer": _lt("an integer of 32 bits"),
    "float": _lt("a number up to 1e300"),
    "monetary": _lt("a number up to 1e300"),
    "boolean": _lt("true or false"),
    "date": _lt("a date such as 2026-01-31"),
    "datetime": _lt("a date and time such as 2026-01-31T13:05:00Z"),
    "binary": _lt("a base64 string"),
    "bytes": _lt("a base64 string"),
    "many2one": _lt("the id of a record"),
    "many2one_reference": _lt("the id of a record"),
    "one2many": _lt("a list of ids"),
    "many2many": _lt("a list of ids"),
    "reference": _lt("a string such as res.partner,3"),
    "json": _lt("a JSON value, not too deep, of numbers and characters that can be stored"),
}


class BjApiSyncValue(models.AbstractModel):
    """What every Value Calculation Type shares."""

    _name = "bj.api.sync.value"
    _description = "API Value"

    def _serialize(self, line, records):
        """Turn records into a column of JSON values.

        :param PlanLine line: the configuration line
        :param records: a recordset of the plan's model, its fields fetched
        :return: one value per record, in order
        :rtype: list
        """
        field_type, name = line.field_type, line.field_name
        if field_type == "many2one":
            values = [record[name].id for record in records]
        elif field_type in codec.TO_MANY:
            values = [record[name]._ids for record in records]
        elif field_type == "reference":
            values = [record[name] and f"{record[name]._name},{record[name].id}" for record in records]
        else:
            values = [record[name] for record in records]
        return self._serialize_values(line, values)

    def _serialize_values(self, line, values):
        """Turn raw values, of the ORM or the database, into a column of JSON values.

        :param PlanLine line: the configuration line
        :param values: one value per record; records as ids, moments also as JSON has them
        :type values: Sequence
        :rtype: Sequence
        """
        return codec.serialize_column(line.field_type, values, line.digits)

    def _is_column(self, field):
        """Tell whether the database holds the values of a field as :meth:`_serialize_values` takes them.

        A type with a :meth:`_serialize` of its own is given records.

        :param odoo.fields.Field field: the field
        :rtype: bool
        """
        if type(self)._serialize is not BjApiSyncValue._serialize:
            return False
        return bool(field.store and field.column_type) and field.type not in ("binary", "reference", "json")

    def _parse(self, line, batch, records):
        """Turn payloads into a column of ORM values; faults are noted in the batch.

        :param PlanLine line: the configuration line
        :param Batch batch: the payloads
        :param records: the matched record of each payload, empty recordsets where there is none
        :type records: list
        :return: one value per payload, in order; ABSENT leaves the field alone
        :rtype: list
        """
        raise NotImplementedError

    def _get_schema(self, line, model, writing=False):
        """Describe the values of a line as JSON Schema (draft 2020-12, the dialect of OpenAPI 3.1).

        :param PlanLine line: the configuration line
        :param model: an empty recordset of the plan's model, in the environment that serves it
        :param bool writing: describe what is accepted, not what is answered
        :return: the schema; empty if it may be any value, with ``readOnly`` if none is accepted
        :rtype: dict
        """
        field = model._fields.get(line.field_name)
        if field is None:
            return {}
        schema = self._get_type(field)
        if field.type == "reference" and writing:
            names = "|".join(map(re.escape, field.get_values(model.env)))
            schema |= {"pattern": f"^({names}),[1-9][0-9]*$"}
        if line.size:
            schema["maxLength"] = line.size
        if line.digits is not None and not writing:
            schema["description"] = self.env._("Rounded to %s decimals.", line.digits)
        numeric = field.type in json_schema.NEVER_NULL
        kept = field.required and field.store and not field.company_dependent
        if writing and kept and field.type in ("char", "text"):
            schema["minLength"] = 1
        return schema if kept or (numeric and not writing) else json_schema.nullable(schema)

    def _get_type(self, field):
        """Describe what a field holds: of a selection its values, with their labels in the description."""
        schema = dict(json_schema.SCHEMAS.get(field.type, {}))
        if field.type != "selection":
            return schema
        choices = field._description_selection(self.env)
        schema["enum"] = [value for value, _label in choices]
        if choices and len(choices) <= 30:
            schema["description"] = ", ".join(f"{value}: {label}" for value, label in choices)
        return schema

    def _link(self, line, batch, column, records):
        """Turn the ids in the column of a relation into links; ids of no record would break the transaction.

        :param list column: per payload an id, ids, x2many commands, False or ABSENT
        :rtype: list
        """
        if line.field_type == "reference":
            return self._check_references(line, batch, column)
        if line.field_type != "many2one" and line.field_type not in codec.TO_MANY:
            return column
        lists = [[value] if isinstance(value, int) and value else value or [] for value in column]
        wanted = {record_id for ids in lists for record_id in ids if isinstance(record_id, int)}
        found = set()
        if wanted:
            comodel = self.env[records[0]._fields[line.field_name].comodel_name]
            found.update(self.env["bj.api.sync.query"]._search_values(comodel, "id", wanted).get_result_ids())
        for index, ids in enumerate(lists):
            for position, record_id in enumerate(ids):
                if isinstance(record_id, int) and record_id not in found:
                    column[index] = ABSENT
                    message = self.env._("No record has the id %s.", record_id)
                    # what a script makes has no place of its own in the payload
                    batch.fault(index, line.path if line.script else line.item_path(position), message, line.id)
        if line.field_type == "many2one":
            return column
        is_ids = [isinstance(value, list) and all(isinstance(item, int) for item in value) for value in column]
        return [Links(value, "many2many") if ids else value for value, ids in zip(column, is_ids, strict=True)]

    def _check_references(self, line, batch, column):
        """Refuse references to no record: the ORM would store nothing instead, and say nothing.

        :param list column: per payload a text such as ``res.partner,3``, False or ABSENT
        :rtype: list
        """
        targets = [value and (value.partition(",")[0], int(value.partition(",")[2])) for value in column]
        wanted = defaultdict(set)
        for model, record_id in filter(None, targets):
            wanted[model].add(record_id)
        found = set()
        for model, ids in wanted.items():
            query = self.env["bj.api.sync.query"]._search_values(self.env[model], "id", ids)
            found.update((model, record_id) for record_id in query)
        for index, target in enumerate(targets):
            if target and target not in found:
                message = self.env._("There is no record %s.", column[index])
                batch.fault(index, line.path, message, line.id)
                column[index] = ABSENT
        return column

    def _expected(self, line, value, selection=None):
        """Say what was expected instead of a value."""
        if line.field_type == "selection" and selection is not None:
            expected = self.env._("one of %s", ", ".join(map(str, selection)))
        elif line.size:
            expected = self.env._("a string of at most %s characters", line.size)
        else:
            expected = str(EXPECTED.get(line.field_type, line.field_type))
        if isinstance(value, dict):
            text = self.env._("an object")
        elif isinstance(value, list):
            text = self.env._("a list")
        else:  # as the caller wrote it; half of a surrogate pair cannot be answered otherwise
            text = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace").decode()
        return self.env._("Expected %(expected)s, not %(value)s.", expected=expected, value=text[:100])

    def _selection(self, line, model):
        if line.field_type not in ("selection", "reference"):
            return None
        return model._fields[line.field_name].get_values(self.env)


class BjApiSyncValuePlain(models.AbstractModel):
    """The value as it is."""

    _name = "bj.api.sync.value.plain"
    _inherit = ["bj.api.sync.value"]
    _description = "API Value: Plain"

    def _parse(self, line, batch, records):
        selection = self._selection(line, records[0]) if records else None
        column = batch.column(line.path)
        for index, value in enumerate(column):
            if value is ABSENT:
                continue
            if value is None:
                column[index] = [] if line.field_type in codec.TO_MANY else False
                continue
            try:
                column[index] = codec.parse(line.field_type, value, selection, line.size)
            except ValueError:
                column[index] = ABSENT
                self._refuse(line, batch, index, value, selection)
        return self._link(line, batch, column, records)

    def _refuse(self, line, batch, index, value, selection):
        """Note what is wrong with a value, or with items of a list of ids."""
        if line.field_type not in codec.TO_MANY or not isinstance(value, list):
            batch.fault(index, line.path, self._expected(line, value, selection), line.id)
            return
        one = replace(line, field_type="many2one")
        for position, item in enumerate(value):
            try:
                codec.parse(one.field_type, item)
            except ValueError:
                batch.fault(index, line.item_path(position), self._expected(one, item), line.id)


class BjApiSyncValueRelational(models.AbstractModel):
    """Related records as objects, mapped by another configuration: the same engine, one level down."""

    _name = "bj.api.sync.value.relational"
    _inherit = ["bj.api.sync.value"]
    _description = "API Value: Relational"

    def _serialize_values(self, line, values):
        related = self.env[line.mapping.model]
        many = line.field_type in codec.TO_MANY
        ids = {record_id for value in values for record_id in (value if many else (value,)) if record_id}
        by_id = {}
        if ids and related.has_access("read"):
            query = self.env["bj.api.sync.query"]._search_values(related, "id", ids)
            found, column = self._read_related(line, query)
            by_id = dict(zip(found, column, strict=True))
        if many:
            return [[by_id[record_id] for record_id in value if record_id in by_id] for value in values]
        return [by_id.get(value) for value in values]

    def _read_related(self, line, query):
        mapper, mapping = self.env["bj.api.sync.mapper"], line.mapping
        if line.relation_output == "object":
            return mapper._read(mapping, query)
        mapper._check_identifier(mapping)
        ids, columns = mapper._read_columns(mapping, [mapping.identifier], query)
        return ids, columns[0]

    def _get_schema(self, line, model, writing=False):
        mapping, many = line.mapping, line.field_type in codec.TO_MANY
        nested = self.env["bj.api.sync.openapi"]._get_ref(mapping, "input" if writing else "object")
        scalar = None
        if mapping.identifier:
            value_model = self.env["bj.api.sync.value.plain"]
            scalar = value_model._get_schema(mapping.identifier, model.env[mapping.model], writing)
        if not writing:
            schema = scalar if scalar and line.relation_output == "identifier" else nested
            return json_schema.array_of(schema) if many else json_schema.nullable(schema)
        if scalar:
            if line.field_type != "one2many":  # only lines of a one2many may be without
                json_schema.place(nested, mapping.identifier.path, {}, required=True)
            nested = {"anyOf": [nested, json_schema.not_null(scalar)]}
        return json_schema.nullable(json_schema.array_of(nested) if many else nested)

    def _parse(self, line, batch, records):
        cells = self._keep_unseen(line, batch.column(line.path), records)
        nested, targets = Batch([], [], [], batch.errors), [[] for _cell in cells]
        for index, cell in enumerate(cells):
            for position, item in self._listed(line, batch, index, cell):
                if not isinstance(item, dict):
                    nested.bare.add(len(nested.payloads))
                nested.payloads.append(line.mapping.as_object(item))
                nested.pointers.append(batch.pointer(index, line.item_path(position)))
                nested.items.append(batch.items[index])
                nested.parents.append(index)
        mapper = self.env["bj.api.sync.mapper"]
        rows = mapper._parse_related(line, nested, [records[index] for index in nested.parents])
        for index, row in zip(nested.parents, rows, strict=True):
            targets[index].append(row)
        return [
            ABSENT if cell is ABSENT else Links(target, line.field_type, line.remove_missing)
            for cell, target in zip(cells, targets, strict=True)
        ]

    def _keep_unseen(self, line, cells, records):
        """Have null leave alone a link that is answered as null: its record has no identifier, or may not be read."""
        if line.field_type == "many2one":
            links = {index: records[index][line.field_name].id for index, cell in enumerate(cells) if cell is None}
            bare = replace(line, mapping=line.mapping.select(()))  # whether it is an object, not what is in it
            for index, shown in zip(links, self._serialize_values(bare, list(links.values())), strict=True):
                if links[index] and shown is None:
                    cells[index] = ABSENT
        return cells

    def _listed(self, line, batch, index, cell):
        """Yield position and item of a cell's objects and bare identifiers; of anything else a fault is noted."""
        if cell is ABSENT or cell is None:
            return
        many = line.field_type in codec.TO_MANY
        if many and not isinstance(cell, list):
            message = self.env._("Expected a list of objects or of record identifiers.")
            batch.fault(index, line.path, message, line.id)
            return
        for position, item in enumerate(cell if many else [cell]):
            if item is None or isinstance(item, (list, bool)) or not isinstance(line.mapping.as_object(item), dict):
                message = self.env._("Expected an object or a record identifier.")
                batch.fault(index, line.item_path(position), message, line.id)
            else:
                yield position, item


class BjApiSyncValueScript(models.AbstractModel):
    """The value of a Python expression."""

    _name = "bj.api.sync.value.script"
    _inherit = ["bj.api.sync.value"]
    _description = "API Value: Script"

    def _serialize(self, line, records):
        if not line.script_on_read:
            return super()._serialize(line, records)
        evaluate = self.env["bj.api.sync.script"]._compile(line)
        return [self._to_json(line, evaluate(record, {})) for record in records]

    def _get_schema(self, line, model, writing=False):
        if writing:
            # a script that does not look at the payload makes the value by itself
            return {} if "request_data" in line.script else {"readOnly": True}
        return {} if line.script_on_read else super()._get_schema(line, model)

    def _parse(self, line, batch, records):
        evaluate = self.env["bj.api.sync.script"]._compile(line)
        column = []
        for index, (payload, record) in enumerate(zip(batch.payloads, records, strict=True)):
            try:
                column.append(self._to_value(line, record, evaluate(record, payload)))
            except BadPayload as exc:
                column.append(ABSENT)
                batch.fault(index, line.path, exc.args[0], line.id, exc.http_status)
        return self._link(line, batch, column, records)

    def _to_json(self, line, value):
        """Make a script's value fit for JSON.

        :raises BadPayload: if it is not
        """
        if isinstance(value, models.BaseModel):
            value = value.ids if line.field_type in codec.TO_MANY else value.id
        if isinstance(value, datetime.datetime):
            return value.isoformat(timespec="seconds") + ("" if value.tzinfo else "Z")
        if isinstance(value, datetime.date):
            return value.isoformat()
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if value is False and line.field_type not in ("boolean", ""):
            return None
        if not isinstance(value, (str, NoneType)):  # an integer may have more digits than Python writes
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError, RecursionError) as exc:
                message = self.env._("The script of %(line)s gave no JSON value: %(error)s", line=line.label, error=exc)
                raise BadPayload(message, [line.fault(message)]) from exc
        return value

    def _to_value(self, line, record, value):
        """Make a script's value fit for the field: JSON values are checked, ORM values are taken.

        :raises BadPayload: if it is not
        """
        try:
            if value is None or value is False:
                return [] if line.field_type in codec.TO_MANY else False
            if isinstance(value, models.BaseModel):
                return self._to_ids(line, record, value)
            if isinstance(value, datetime.date):
                return self._to_moment(line, value)
            if isinstance(value, bytes):
                value = value.decode()
            return codec.parse(line.field_type, value, self._selection(line, record), line.size)
        except ValueError:
            message = self.env._("The script's value does not fit the field. %s", self._expected(line, value))
            raise BadPayload(message) from None

    def _to_ids(self, line, record, value):
        if value._name != record._fields[line.field_name].comodel_name:
            raise ValueError
        return value.ids if line.field_type in codec.TO_MANY else value.id

    def _to_moment(self, line, value):
        """Return a date or a time in UTC, as fields have them."""
        if line.field_type not in ("date", "datetime"):
            raise ValueError
        if isinstance(value, datetime.datetime) and line.field_type == "datetime":
            utc = value.astimezone(datetime.timezone.utc) if value.tzinfo else value
            return utc.replace(microsecond=0, tzinfo=None)
        return value


class BjApiSyncValueRelationalScript(models.AbstractModel):
    """The related records a Python expression gives: a recordset, ids or x2many commands."""

    _name = "bj.api.sync.value.relational_script"
    _inherit = ["bj.api.sync.value.script"]
    _description = "API Value: Relational Script"

    def _to_value(self, line, record, value):
        if line.field_type == "many2one":
            if isinstance(value, list) and len(value) < 2:
                value = value[0] if value else False
        elif isinstance(value, (list, tuple)):
            value = list(value)
            if value and all(isinstance(item, (list, tuple)) for item in value):
                return value  # x2many commands
        return super()._to_value(line, record, value)
