from collections import defaultdict

from odoo import models
from odoo.exceptions import MissingError
from odoo.fields import Command, Domain
from odoo.models import MAGIC_COLUMNS
from odoo.tools import groupby, ormcache

from ..exceptions import BadPayload
from ..tools import codec, redact
from ..tools.plan import ABSENT, Links, Plan, PlanLine, Row, build_objects, list_objects

#: binary fields whose value in Odoo is no base64
RAW_FIELDS = ("ir.attachment.raw", "ir.attachment.db_datas")
#: the field types whose values are the same in rows and in records
COMPARABLE = ("boolean", "char", "integer", "selection", "text")


class BjApiSyncMapper(models.AbstractModel):
    """The engine: records -> payloads, payloads -> values, identifiers -> records.

    It works on sets. A line turns all records into one column of values, or all payloads into one column
    of ORM values, so that it looks things up once per request and level, not once per record.
    """

    _name = "bj.api.sync.mapper"
    _description = "API Mapper"

    # ------------------------------------------------------------------
    # Plans
    # ------------------------------------------------------------------

    @ormcache("config_id", "direction")
    def _plan(self, config_id, direction=None):
        """Compile a configuration with all its Mapping Models.

        :param int config_id: the configuration
        :param str direction: ``in`` or ``out``, that of the configuration at the top; by default its own
        :rtype: Plan
        """
        config = self.env["bj.api.sync.config"].sudo().browse(config_id)
        direction = direction or config.request_type
        lines = [self._compile_line(line, direction) for line in config.line_ids]
        # a field that an uninstalled addon took along must not stop the others
        lines = [line for line in lines if line]
        return Plan(
            config_id=config.id,
            model=config.model_name,
            filter_domain=config.filter_domain or "[]",
            lines=tuple(line for line in lines if line.key and not line.is_exec),
            exec_lines=tuple(line for line in lines if line.is_exec),
            # one that is only read from answers is in no payload
            identifier=next((line for line in lines if line.is_identifier and (line.key or direction == "out")), None),
            direction=direction,
            strict=config.strict_keys,
            objects=list_objects(line.path for line in lines if not line.is_exec),
            answer_lines=tuple(line for line in lines if line.response_key and line.field_name),
            has_secrets=any(line.is_secret or (line.mapping and line.mapping.has_secrets) for line in lines),
            is_filtered=(config.filter_domain or "[]").strip() != "[]"
            or any(line.mapping and line.mapping.is_filtered for line in lines),
            maps_active=any(line.field_name == self.env[config.model_name]._active_name for line in lines),
        )

    def _compile_line(self, line, direction):
        field = self.env[line.config_id.model_name]._fields.get(line.field_id.name) if line.field_id else None
        is_script = line.value_type in ("script", "relational_script")
        if field is None and not is_script:
            return None
        if not is_script and field.type in ("properties", "properties_definition"):
            return None  # of before lines with such fields were refused
        if field is not None and field.groups and not line.allow_restricted:
            return None  # restricted since the line was saved
        digits = field.get_digits(self.env) if field is not None and field.type == "float" else None
        script = line.script or "" if is_script else ""
        return PlanLine(
            id=line.id,
            config_id=line.config_id.id,
            label=line.display_name,
            key=line.external_key or "",
            path=tuple((line.external_key or "").split(".")) if line.external_key else (),
            field_name=field.name if field is not None else "",
            field_type="" if field is None else "bytes" if str(field.base_field) in RAW_FIELDS else field.type,
            digits=digits[1] if digits else None,
            size=getattr(field, "size", None),
            value_type=line.value_type,
            is_identifier=line.is_record_identifier,
            is_secret=field is not None and field.type in ("char", "text") and redact.tells(field.name),
            mapping=self._plan(line.mapping_config_id.id, direction) if line.value_type == "relational" else None,
            is_column=not is_script and self.env[f"bj.api.sync.value.{line.value_type}"]._is_column(field),
            relation_output=line.relation_output,
            relation_policy=line.relation_policy,
            remove_missing=line.remove_missing,
            script_mode=line.script_mode,
            script=script,
            # an inbound script that reads request_data makes the field's value out of a payload: there is
            # none when records are read, and the field has the value already
            script_on_read=bool(script) and (direction == "out" or "request_data" not in script),
            response_key=line.response_key or "",
        )

    def _check_identifier(self, plan):
        """Refuse to go on without record identifier: whatever comes in would become another new record.

        :param Plan plan: the configuration
        :raises BadPayload: if it has none, such as when an uninstalled addon took its field along
        """
        if not plan.identifier:
            raise BadPayload(
                self.env._(
                    "%(config)s has no record identifier: an administrator must choose one.",
                    config=self.env["bj.api.sync.config"].sudo().browse(plan.config_id).name,
                )
            )

    def _get_domain(self, plan):
        """Evaluate a plan's filter domain for the current user.

        :rtype: odoo.fields.Domain
        """
        return self.env["bj.api.sync.script"]._eval_domain(plan.filter_domain)

    # ------------------------------------------------------------------
    # Records -> payloads
    # ------------------------------------------------------------------

    def _serialize(self, plan, records, with_id=False):
        """Map records to objects of the other system.

        Fields the environment's user may not read are left out.

        :param Plan plan: the configuration
        :param records: a recordset of the plan's model
        :param bool with_id: see :meth:`_read`
        :return: one object per record, in order
        :rtype: list[dict]
        :raises AccessError: if the user may not read the records
        :raises BadPayload: if a script fails
        """
        mapper = self.with_env(records.env)
        query = records.env["bj.api.sync.query"]._search_values(records.browse(), "id", records.ids)
        ids, objects = mapper._read(plan, query, with_id)
        by_id = dict(zip(ids, objects, strict=True))
        if any(record_id not in by_id for record_id in records._ids):
            records.check_access("read")
            raise MissingError(self.env._("Records were deleted meanwhile."))
        return [by_id[record_id] for record_id in records._ids]

    def _read(self, plan, query, with_id=False):
        """Map the records of a query, which has the access rules in it.

        :param Plan plan: the configuration
        :param odoo.tools.Query query: from ``_search`` of the plan's model
        :param bool with_id: give each object its database id as ``id``, where that is no key of the plan
        :return: the ids, and one object per record, in the order of the query
        :rtype: tuple[Sequence[int], list[dict]]
        """
        model = self.env[plan.model]
        lines = [line for line in plan.lines if self._is_readable(line, model)]
        ids, columns = self._read_columns(plan, lines, query)
        paths = [line.path for line in lines]
        if with_id and all(path[0] != "id" for path in paths):
            paths, columns = [("id",), *paths], [ids, *columns]
        objects = build_objects(paths, columns, len(ids))
        if plan.direction == "out" and plan.exec_lines:
            objects = self._run_outbound(plan, model.browse(ids), objects)
        return ids, objects

    def _read_columns(self, plan, lines, query):
        """Read some lines of the records of a query: stored columns straight from it, others through the ORM.

        :return: the ids, and one list of JSON values per line
        :rtype: tuple[Sequence[int], list[list]]
        """
        model = self.env[plan.model]
        # a model that changes what is fetched must be asked through the ORM
        direct = type(model)._fetch_query is models.BaseModel._fetch_query
        stored = [line for line in lines if line.is_column and direct]
        names = tuple(line.field_name for line in stored)
        rows = self.env.execute_query(query.select(self.env["bj.api.sync.query"]._get_columns(plan.model, names)))
        ids, *raw = zip(*rows, strict=True) if rows else [() for _ in range(len(stored) + 1)]
        values = {line.id: column for line, column in zip(stored, raw, strict=True)}
        records = model.browse(ids)
        if len(stored) < len(lines):
            records.fetch({line.field_name for line in lines if line.id not in values and line.field_name})
        return ids, [
            room._serialize_values(line, values[line.id]) if line.id in values else room._serialize(line, records)
            for line in lines
            for room in [self.env[f"bj.api.sync.value.{line.value_type}"]]
        ]

    def _is_readable(self, line, model):
        if not line.field_name:
            return line.script_on_read
        return model._has_field_access(model._fields[line.field_name], "read")

    def _run_outbound(self, plan, records, objects):
        script, value = self.env["bj.api.sync.script"], self.env["bj.api.sync.value.script"]
        for line in plan.exec_lines:
            objects = [
                value._to_json(line, script._execute(line, record, data))
                for record, data in zip(records, objects, strict=True)
            ]
        return objects

    # ------------------------------------------------------------------
    # Payloads -> rows
    # ------------------------------------------------------------------

    def _parse(self, plan, batch, record_ids=None):
        """Map objects of the other system to rows ready to be stored; faults are noted in the batch.

        Nothing is written but what *Execute* scripts write.

        :param Plan plan: the configuration
        :param Batch batch: the objects
        :param record_ids: the record each object is meant for, when not told by its identifier
        :type record_ids: Sequence[int]
        :return: one row per object, in order
        :rtype: list[Row]
        """
        rows = self._prepare_rows(plan, batch)
        if plan.exec_lines:
            # their ``record`` is the one matched so far; what is wrong by now they may put right
            self._resolve(plan, batch.quiet(), rows, record_ids)
            self._run_inbound(plan, batch, rows, range(len(rows)))
        self._check_objects(plan, batch)
        self._resolve(plan, batch, rows, record_ids)
        self._refuse_twice(plan, batch, rows)
        self._fill(plan, batch, rows)
        return rows

    def _prepare_rows(self, plan, batch):
        return [Row(plan, item) for item in batch.items]

    def _check_objects(self, plan, batch):
        """Refuse what is no object although dotted keys lead into it, and keys that a strict plan does not know."""
        for path, known in plan.objects:
            if not path and not plan.strict:
                continue
            for index, value in enumerate(batch.column(path)):
                if value is ABSENT or value is None:
                    continue
                if not isinstance(value, dict):
                    batch.fault(index, path, self.env._("Expected an object."))
                elif plan.strict:
                    for key in value.keys() - known:
                        batch.fault(index, (*path, key), self.env._("Unknown key."))

    def _identify(self, plan, batch, rows):
        """Give the rows their identifiers."""
        line = plan.identifier
        if not line:
            return
        for index, (row, value) in enumerate(zip(rows, batch.column(line.path), strict=True)):
            row.key = None
            if value is ABSENT or value is None:
                continue
            try:
                row.key = codec.parse(line.field_type, value) if value != "" else None
            except ValueError:
                batch.fault(index, line.path, self.env["bj.api.sync.value.plain"]._expected(line, value), line.id)

    def _match(self, plan, keys):
        """Find records by identifier: one query, whatever their number.

        :param Plan plan: the configuration, whose filter domain applies
        :param keys: identifier values
        :type keys: Iterable
        :return: identifier -> ids of the records that have it
        :rtype: dict[Any, list[int]]
        """
        keys = {key for key in keys if key is not None}
        if not keys or not plan.identifier:
            return {}
        line, model = plan.identifier, self.env[plan.model]
        query = self.env["bj.api.sync.query"]._search_values(model, line.field_name, keys, plan)
        found = defaultdict(list)
        if line.is_column and line.field_type not in codec.PATTERNS:
            columns = self.env["bj.api.sync.query"]._get_columns(plan.model, (line.field_name,))
            for record_id, key in self.env.execute_query(query.select(columns)):
                found[key].append(record_id)
        else:
            for record in model.browse(query):
                found[self._key(plan, record)].append(record.id)
        return found

    def _key(self, plan, record):
        value = record[plan.identifier.field_name]
        return value.id if isinstance(value, models.BaseModel) else value

    def _resolve(self, plan, batch, rows, record_ids=None):
        """Find the record of each row.

        :param record_ids: the record each row is meant for; an identifier of another one is a conflict
        :type record_ids: Sequence[int]
        """
        self._identify(plan, batch, rows)
        found = self._match(plan, [row.key for row in rows])
        for index, row in enumerate(rows):
            ids, meant = found.get(row.key, ()), record_ids[index] if record_ids else 0
            self._take(plan, batch, index, row, [meant] if meant in ids else ids)
            if meant and row.record_id != meant:
                if row.record_id:
                    message = self.env._("Another record has the identifier %s.", row.key)
                    batch.fault(index, plan.identifier.path, message, plan.identifier.id, 409)
                row.record_id = meant

    def _take(self, plan, batch, index, row, ids):
        """Give a row the record that was found for it; several are a conflict, never "the first one"."""
        row.record_id = ids[0] if len(ids) == 1 else 0
        if len(ids) > 1:
            message = self.env._("Several records have the identifier %s.", row.key)
            batch.fault(index, plan.identifier.path, message, plan.identifier.id, 409)

    def _refuse_twice(self, plan, batch, rows):
        for key, same in groupby(enumerate(rows), key=lambda pair: pair[1].key):
            if key is None or len(same) == 1:
                continue
            for index, _row in same:
                message = self.env._("The identifier %s is in the request twice.", key)
                batch.fault(index, plan.identifier.path, message, plan.identifier.id, 409)

    def _run_inbound(self, plan, batch, rows, indices):
        """Run the *Execute* lines, which may change the objects before all other lines see them."""
        script = self.env["bj.api.sync.script"]
        records = self._matched(plan, rows)
        for line in plan.exec_lines:
            for index in indices:
                try:
                    batch.payloads[index] = script._execute(line, records[index], batch.payloads[index])
                except BadPayload as exc:
                    batch.fault(index, line.path, exc.args[0], line.id, exc.http_status)

    def _matched(self, plan, rows):
        """Return the matched record of each row; they share one prefetch."""
        model = self.env[plan.model]
        found = model.browse({row.record_id for row in rows if row.record_id})
        by_id = dict(zip(found._ids, found, strict=True))
        return [by_id.get(row.record_id, model) for row in rows]

    def _fill(self, plan, batch, rows):
        """Give the rows their values, one column after the other."""
        model = self.env[plan.model]
        records = self._matched(plan, rows)
        for line in plan.lines:
            if not line.field_name or not self._is_writable(model._fields[line.field_name]):
                continue
            column = self.env[f"bj.api.sync.value.{line.value_type}"]._parse(line, batch, records)
            for row, value in zip(rows, column, strict=True):
                if value is not ABSENT:
                    row.vals[line.field_name] = value

    def _is_writable(self, field):
        """Whether the ORM would take a value: what it computes comes back in answers and is no error."""
        if field.name in MAGIC_COLUMNS:
            return False
        return not (field.compute and field.readonly and not field.inverse)

    def _parse_related(self, line, batch, parents):
        """Map nested objects to rows: matched, and filled as far as the line's policy lets them be written.

        :param PlanLine line: a line with a Mapping Model
        :param Batch batch: the nested objects
        :param parents: the matched record of the object each nested one is in, or an empty recordset
        :type parents: list
        :rtype: list[Row]
        """
        plan = line.mapping
        rows = self._prepare_rows(plan, batch)
        if plan.exec_lines:
            self._resolve_related(line, batch.quiet(), rows, parents)
            self._run_inbound(plan, batch, rows, self._get_written(line, batch, rows))
        self._check_objects(plan, batch)
        self._resolve_related(line, batch, rows, parents)
        written = self._get_written(line, batch, rows)
        if written:
            self._fill(plan, batch.subset(written), [rows[index] for index in written])
        return rows

    def _resolve_related(self, line, batch, rows, parents):
        """Find the records of nested rows; there must be one for what may not be created."""
        is_child, identifier = line.field_type == "one2many", line.mapping.identifier
        if is_child:
            self._resolve_children(line, batch, rows, parents)
        else:
            self._resolve(line.mapping, batch, rows)
            self._keep_nameless(line, rows, parents)
        for index, row in enumerate(rows):
            must_exist = index in batch.bare or (not is_child and line.relation_policy == "link")
            if row.key is None and not row.record_id and (must_exist or not is_child):
                path = identifier.path if identifier else ()
                batch.fault(index, path, self.env._("The record identifier is missing."), line.id)
            elif row.key is not None and not row.record_id and must_exist:
                message = self.env._("No record has the identifier %s.", row.key)
                batch.fault(index, identifier.path, message, line.id)

    def _keep_nameless(self, line, rows, parents):
        """Take objects of a many2one without identifier for the linked record, if it has none and may be found."""
        plan, model = line.mapping, self.env[line.mapping.model]
        if line.field_type != "many2one" or not plan.identifier:
            return
        links = [
            (row, parent[line.field_name].id) for row, parent in zip(rows, parents, strict=True) if row.key is None
        ]
        ids = {record_id for _row, record_id in links if record_id}
        found = self.env["bj.api.sync.query"]._search_values(model, "id", ids, plan).get_result_ids() if ids else ()
        nameless = {record.id for record in model.browse(found) if not self._key(plan, record)}
        for row, record_id in links:
            if record_id in nameless:
                row.record_id = record_id

    def _get_written(self, line, batch, rows):
        """Return the indices of the rows that the line's policy lets be written; a bare identifier says nothing."""
        is_any = line.field_type == "one2many" or line.relation_policy == "upsert"
        is_new = line.relation_policy == "create"
        return [
            index
            for index, row in enumerate(rows)
            if index not in batch.bare and (is_any or (is_new and not row.record_id))
        ]

    def _resolve_children(self, line, batch, rows, parents):
        """Find children by identifier among those of their own parent."""
        plan = line.mapping
        if not plan.identifier or not rows:
            return
        self._identify(plan, batch, rows)
        found, seen = defaultdict(list), set()
        families = self._list_children(plan, parents[0].union(*parents), line.field_name)
        for parent_id, children in families.items():
            for child in children:
                found[parent_id, self._key(plan, child)].append(child.id)
        for index, (row, parent) in enumerate(zip(rows, parents, strict=True)):
            row.record_id = 0
            if row.key is None:
                continue
            # a bare one says nothing that could differ from what is said elsewhere
            place = index if index in batch.bare else (batch.parents[index], row.key)
            if place in seen:
                message = self.env._("The identifier %s is in the request twice.", row.key)
                batch.fault(index, plan.identifier.path, message, line.id, 409)
            seen.add(place)
            self._take(plan, batch, index, row, found.get((parent.id, row.key), ()))

    # ------------------------------------------------------------------
    # Rows -> records
    # ------------------------------------------------------------------

    def _store(self, rows, created=None):
        """Create and update the records of rows, those they link to first.

        One create per level and model; records that have the values already are not written.

        :param rows: rows without faults
        :type rows: Iterable[Row]
        :param dict created: what was created so far: place of a row -> id
        """
        linked, created = list(self._linked(rows)), {} if created is None else created
        if linked:
            self._store(linked, created)
        for _config, same in groupby((row for row in rows if not row.stored), key=lambda row: row.plan.config_id):
            self._store_plan(same[0].plan, same, created)

    def _linked(self, rows):
        for row in rows:
            for value in row.vals.values():
                if not isinstance(value, Links):
                    continue
                if value.kind == "one2many":
                    yield from self._linked(value.rows)
                else:
                    yield from (row for row in value.rows if not row.stored)

    def _store_plan(self, plan, rows, created):
        firsts, aliases = {}, []
        for row in rows:
            if not row.record_id and row.place in created:  # by another configuration of the same model
                row.record_id, row.created = created[row.place], True
            first = firsts.setdefault(row.place, row)
            if first is not row:
                first.merge(row)
                aliases.append((row, first))
        new = [row for row in firsts.values() if not row.record_id]
        known = [row for row in firsts.values() if row.record_id and row.vals]
        if new:
            records = self.env[plan.model].create([self._get_create_values(row) for row in new])
            for row, record in zip(new, records, strict=True):
                created[row.place] = record.id
                row.record_id, row.created = record.id, True
            self._check_found_again(plan, new, records)
        if known:
            self._update(plan, known)
        for row in rows:
            row.stored = True
        for row, first in aliases:
            row.record_id, row.vals = first.record_id, first.vals

    def _check_found_again(self, plan, rows, records):
        """Refuse new records whose identifier Odoo computes otherwise: each request would make another one.

        :param rows: the rows that the records were created of
        :raises BadPayload: if there are some
        """
        line = plan.identifier
        if not line or self._is_writable(records._fields[line.field_name]):
            return
        errors = [
            line.fault(self.env._("Odoo computes the identifier, and not as %s.", row.key)) | {"index": row.item}
            for row, record in zip(rows, records, strict=True)
            if row.key not in (None, self._key(plan, record))
        ]
        if errors:
            raise BadPayload(errors[0]["message"], errors)

    def _has_outside(self, rows):
        """Tell whether a record was created that its plan's filter domain hides: nobody would find it again.

        :param rows: stored rows, with those nested in them
        :type rows: Iterable[Row]
        :rtype: bool
        """
        plans, created, families, todo = {}, defaultdict(set), defaultdict(dict), list(rows)
        for row in todo:  # it grows
            plans[row.plan.config_id] = row.plan
            if row.created:
                created[row.plan.config_id].add(row.record_id)
            for name, links in row.vals.items():
                if not isinstance(links, Links):
                    continue
                todo.extend(links.rows)
                keys = {child.key for child in links.rows if not child.record_id and child.key is not None}
                if keys and links.kind == "one2many" and row.record_id:
                    families[row.plan.model, name, links.rows[0].plan.config_id][row.record_id] = keys
        return any(self._is_outside(plans[config_id], ids) for config_id, ids in created.items()) or any(
            self._is_child_outside(model, name, plans[config_id], keys)
            for (model, name, config_id), keys in families.items()
        )

    def _is_outside(self, plan, ids):
        """Tell whether one of some new records is not in the filter domain."""
        domain, model = self._get_domain(plan), self.env[plan.model].with_context(active_test=not plan.maps_active)
        return not domain.is_true() and model.search_count(domain & Domain("id", "in", ids)) != len(ids)

    def _is_child_outside(self, model, name, plan, keys_by_parent):
        """Tell whether a new child cannot be found by its identifier, now that it is stored with its parent."""
        if self._get_domain(plan).is_true():
            return False
        parents = self.env[model].browse(keys_by_parent)
        found = self._list_children(plan, parents, name)
        return any(not keys <= {self._key(plan, child) for child in found[i]} for i, keys in keys_by_parent.items())

    def _list_children(self, plan, parents, name):
        """Return parent id -> the children that identifiers of a plan can find."""
        domain, active_name = self._get_domain(plan), self.env[plan.model]._active_name
        is_about_active = any(leaf.field_expr == active_name for leaf in domain.iter_conditions())
        parents = parents.with_context(active_test=not plan.maps_active and not is_about_active)
        inside = set(parents[name].filtered_domain(domain)._ids)
        return {parent.id: [child for child in parent[name] if child.id in inside] for parent in parents}

    def _get_create_values(self, row):
        return {name: self._get_value(value) for name, value in row.vals.items()}

    def _update(self, plan, rows):
        """Write what differs, and then what Odoo computed anew because of that, though the row has it."""
        records = self.env[plan.model].browse([row.record_id for row in rows])
        records.fetch({name for row in rows for name in row.vals})
        pairs = list(zip(rows, records, strict=True))
        for get_values in (self._get_changes, self._get_recomputed):
            writes = [(vals, row, record) for row, record in pairs if (vals := get_values(row, record))]
            for vals, same in _group_equal((vals, record) for vals, _row, record in writes):
                self.env[plan.model].concat(*same).with_prefetch(records._ids).write(vals)
            pairs = [(row, record) for _vals, row, record in writes]

    def _get_changes(self, row, record):
        """Return the values of a row that differ from the record's."""
        changes = {name: self._get_value(value, record[name]) for name, value in row.vals.items()}
        return {name: new for name, new in changes.items() if _differs(record._fields[name], new, record)}

    def _get_recomputed(self, row, record):
        """Return the values of a row, and of its lines, in whose place the record has others that Odoo computed."""
        changes = {}
        for name, value in row.vals.items():
            field = record._fields[name]
            if field.type in codec.TO_MANY and not isinstance(value, Links):
                continue  # the commands of a script: done, and nothing tells what they were to lead to
            if field.type == "one2many":
                lines = [target for target in value.rows if target.record_id]
                children = self.env[field.comodel_name].browse([line.record_id for line in lines])
                changes[name] = [
                    Command.update(child.id, vals)
                    for line, child in zip(lines, children, strict=True)
                    if (vals := self._get_recomputed(line, child))
                ]
            elif _is_overridable(field.base_field):
                changes[name] = self._get_value(value, record[name])
        return {name: new for name, new in changes.items() if _differs(record._fields[name], new, record)}

    def _get_value(self, value, current=None):
        """Turn a value of a row, whose links are stored, into what ``create`` and ``write`` take.

        :param value: an ORM value or Links
        :param current: what the record has now, None for a new record
        :return: for Links an id, or x2many commands; no commands when nothing changes
        """
        if not isinstance(value, Links):
            return value
        ids = [target.record_id if isinstance(target, Row) else target for target in value.targets]
        if value.kind == "many2one":
            return ids[0] if ids else False
        if value.kind == "many2many":
            unchanged = current is not None and set(ids) == set(current._ids)
            return [] if unchanged else [Command.set(ids)]
        children = {child.id: child for child in current or ()}
        names, nameless = self._group_nameless(value, current)
        commands = []
        for target in value.rows:
            if target.record_id:
                archived = self.env[target.plan.model].browse(target.record_id)
                if vals := self._get_changes(target, children.get(target.record_id, archived)):
                    commands.append(Command.update(target.record_id, vals))
            elif same := target.key is None and self._take_same(target, names, nameless):
                ids.append(same.id)
            else:
                commands.append(Command.create(self._get_create_values(target)))
        if value.remove_missing:
            commands += [Command.delete(child_id) for child_id in children.keys() - set(ids)]
        return commands

    def _group_nameless(self, links, current):
        """Put the lines of a record that no identifier can find together by values that are easy to compare.

        :param Links links: the lines as they were sent
        :param current: the lines the record has, None for a new record
        :return: the names of the fields that are compared, their values -> lines; no lines if none is to be found
        :rtype: tuple[list[str], dict[tuple, list]]
        """
        targets, groups = [target for target in links.rows if target.key is None and not target.record_id], {}
        if not targets or not current:
            return [], groups
        plan = targets[0].plan
        told = set.intersection(*(set(target.vals) for target in targets))
        names = [name for name in told if current._fields[name].type in COMPARABLE]
        for child in current.filtered_domain(self._get_domain(plan)):
            if not plan.identifier or not self._key(plan, child):
                groups.setdefault(tuple(child[name] for name in names), []).append(child)
        return names, groups

    def _take_same(self, target, names, groups):
        """Take out the line that has the values of one without identifier: sending back what was read doubles nothing.

        :param names: see :meth:`_group_nameless`, as ``groups``
        :return: the line, None if all of them are others
        """
        known = groups.get(tuple(target.vals[name] for name in names), [])
        same = next((child for child in known if not self._get_changes(target, child)), None)
        if same:
            known.remove(same)
        return same


def _normalize(field, value, record):
    """Return a value as the field would hold it."""
    return field.convert_to_record(field.convert_to_cache(value, record), record)


def _differs(field, value, record):
    """Tell whether what would be written is not what the record has."""
    if field.type in codec.TO_MANY:
        return bool(value)
    if field.type == "many2one":
        return record[field.name].id != value
    return record[field.name] != _normalize(field, value, record)


def _is_overridable(field):
    """Tell whether Odoo computes a field, and keeps another value that is written."""
    return field.compute and field.store and not field.readonly


def _group_equal(writes):
    """Put records together that get the same values.

    :param writes: (values, record)
    :rtype: Iterable[tuple[dict, list]]
    """
    groups = {}
    for vals, record in writes:
        key = tuple(sorted(vals.items(), key=lambda item: item[0]))
        try:
            hash(key)
        except TypeError:  # x2many commands
            key = record.id
        groups.setdefault(key, (vals, []))[1].append(record)
    return groups.values()
