import ast

from odoo import models
from odoo.fields import Domain
from odoo.models import BaseModel
from odoo.tools import SQL, Query, ormcache

from ..tools import codec

#: operators whose SQL depends on the condition alone, not on other records
STABLE_OPERATORS = frozenset(
    ["=", "!=", "<", "<=", ">", ">=", "in", "not in"]
    + [f"{negation}{like}" for negation in ("", "not ") for like in ("like", "ilike", "=like", "=ilike")]
)


class BjApiSyncQuery(models.AbstractModel):
    """The queries of a configuration: filter domain, record rules and what the request asks for.

    Compiling filter domain and record rules costs more than running the query. Their SQL is kept per model, filter
    domain, user, companies and language, where it depends on nothing else but what drops Odoo's cache of record rules.
    """

    _name = "bj.api.sync.query"
    _description = "API Query"

    def _search(self, plan, domain=Domain.TRUE, offset=None, limit=None, order=None):
        """Search the records a configuration lets the current user read, as ``_search`` of the model does.

        :param Plan plan: the configuration, whose filter domain applies
        :param odoo.fields.Domain domain: what the request asks for
        :rtype: odoo.tools.Query
        :raises AccessError: if the user may not read the model
        """
        model = self.env[plan.model]
        query = self._get_query(model, domain, plan.filter_domain)
        # only now: a model that searches in its own way may search another one, and take records out afterwards
        if order:
            query.order = model._order_to_sql(order, query)
        query.limit, query.offset = limit, offset
        return query

    def _get_query(self, model, domain, filter_domain, active_test=True):
        """Return the query of all records in some domains.

        :param bool active_test: whether archived records are left out, unless a domain is about them
        """
        conditions = self._get_conditions(model._name, filter_domain, active_test)
        if conditions is None or any(leaf.field_expr == model._active_name for leaf in domain.iter_conditions()):
            domain &= self.env["bj.api.sync.script"]._eval_domain(filter_domain)
            return model._search(domain, active_test=active_test)
        domain = domain.optimize_full(model)
        if domain.is_false():
            model.browse().check_access("read")
            return model.browse()._as_query()
        query = self._make_query(model, conditions)
        if not domain.is_true():
            query.add_where(domain._to_sql(model, model._table, query))
        return query

    def _search_values(self, model, field_name, values, plan=None, limit=None):
        """Search the records that have one of some values, as far as the current user may read them.

        No domain is compiled where the column has the values as they are.

        :param model: a recordset of the model
        :param str field_name: a field of the model
        :param values: ORM values; records as ids
        :type values: Collection
        :param Plan plan: the configuration, whose filter domain applies; by default all records, archived ones too
        :param int limit: how many are enough
        :rtype: odoo.tools.Query
        :raises AccessError: if the user may not read the model
        """
        filter_domain, active_test = (plan.filter_domain, not plan.maps_active) if plan else ("[]", False)
        conditions, field = self._get_conditions(model._name, filter_domain, active_test), model._fields[field_name]
        if conditions is None or not _is_simple(field) or not values or not all(values):
            query = self._get_query(model, Domain(field_name, "in", list(values)), filter_domain, active_test)
        else:
            query = self._make_query(model, conditions)
            query.add_where(SQL("%s IN %s", model._field_to_sql(model._table, field_name, query), tuple(values)))
        query.limit = limit  # only now, as above
        return query

    def _make_query(self, model, conditions):
        model.browse().check_access("read")
        query = Query(self.env, model._table, model._table_sql)
        for condition in conditions:
            query.add_where(condition)
        return query

    @ormcache(
        "self.env.uid",
        "self.env.su",
        "self.env.lang",
        "tuple(self.env['ir.rule']._compute_domain_context_values())",
        "model_name",
        "filter_domain",
        "active_test",
    )
    def _get_conditions(self, model_name, filter_domain, active_test=True):
        """Compile a filter domain and the record rules, if the outcome can be kept.

        :return: SQL conditions, None if they may change without this cache being dropped
        :rtype: tuple[odoo.tools.SQL] | None
        """
        model = self.env[model_name]
        if type(model)._search is not BaseModel._search or not _is_stable_expression(filter_domain):
            return None
        domain = self.env["bj.api.sync.script"]._eval_domain(filter_domain)
        rules = Domain.TRUE if self.env.su else self.env["ir.rule"]._compute_domain(model_name, "read")
        leaves = [*domain.iter_conditions(), *rules.iter_conditions()]
        if not all(_is_stable(model, leaf) for leaf in leaves):
            return None
        query = model._search(domain, active_test=active_test)
        if query.is_empty() or query.from_clause.code != model._as_query(ordered=False).from_clause.code:
            return None
        return (query.where_clause,) if query._where_clauses else ()

    def _get_columns(self, model_name, names):
        """Return the columns of stored fields, as terms of a SELECT; moments are written as JSON has them.

        :param str model_name: the model
        :param tuple names: names of fields the user may read
        :rtype: odoo.tools.SQL
        """
        return self._keep_columns(model_name, names) or self._make_columns(self.env[model_name], names)

    @ormcache("self.env.uid", "self.env.su", "self.env.lang", "self.env.company.id", "model_name", "names")
    def _keep_columns(self, model_name, names):
        """Return the columns, None where the model makes something of them that may be another thing each time."""
        model = self.env[model_name]
        for name in names:
            if model._field_to_sql(model._table, name) != model._fields[name].to_sql(model, model._table):
                return None
        return self._make_columns(model, names)

    def _make_columns(self, model, names):
        columns = [model._field_to_sql(model._table, "id")]
        for name in names:
            column, pattern = model._field_to_sql(model._table, name), codec.PATTERNS.get(model._fields[name].type)
            columns.append(SQL("to_char(%s, %s)", column, pattern) if pattern else column)
        return SQL(", ").join(columns)


def _is_simple(field):
    """Tell whether the field's column has its values as they are, one for everybody."""
    return field.store and field.column_type and not (field.search or field.translate or field.company_dependent)


def _is_stable_expression(text):
    """Tell whether a filter domain is the same at any time for one user: no dates, no calls."""
    try:
        nodes = list(ast.walk(ast.parse((text or "[]").strip(), mode="eval")))
    except SyntaxError:
        return False
    return not any(
        isinstance(node, (ast.Call, ast.Attribute)) or (isinstance(node, ast.Name) and node.id != "uid")
        for node in nodes
    )


def _is_stable(model, leaf):
    """Tell whether a condition compiles to the same SQL until rules, users or companies change."""
    field = model._fields.get(leaf.field_expr)
    if field is None or not field.store or not field.column_type or field.company_dependent or field.search:
        return False
    if field.type == "many2one" and field.comodel_name == "res.company" and leaf.operator in ("child_of", "parent_of"):
        return True
    if leaf.operator not in STABLE_OPERATORS:
        return False
    values = [leaf.value] if isinstance(leaf.value, str) or not hasattr(leaf.value, "__iter__") else leaf.value
    if field.type in ("date", "datetime"):  # "today" and "-1d" are another time each time
        return not any(isinstance(value, str) for value in values)
    if field.type != "many2one":
        return True
    return all(value is None or isinstance(value, int) for value in values)  # a text would be searched by name
