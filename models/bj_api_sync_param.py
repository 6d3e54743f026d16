from odoo import api, fields, models

#: query parameters with a meaning of their own
COMMON_PARAMS = ("fields",)
LIST_PARAMS = ("limit", "offset", "page", "cursor", "sort", "count", "updated_since")
WRITE_PARAMS = ("atomic",)
#: what an operator can compare
ORDERED_TYPES = ("integer", "float", "monetary", "date", "datetime", "char", "text", "many2one_reference")
TEXT_OPERATORS = ("ilike", "not ilike", "=ilike")
TEXT_TYPES = ("char", "text", "html", "many2one", "one2many", "many2many", "selection")


class BjApiSyncParam(models.Model):
    """A query parameter that becomes one leaf of the domain."""

    _name = "bj.api.sync.param"
    _inherit = ["bj.api.sync.cached"]
    _description = "API Parameter"
    _order = "id"
    _rec_name = "key"

    config_id = fields.Many2one(
        "bj.api.sync.config", "API Configuration", required=True, ondelete="cascade", index=True
    )
    model_id = fields.Many2one(related="config_id.model_id")
    key = fields.Char(required=True)
    field_id = fields.Many2one(
        "ir.model.fields",
        "Field",
        required=True,
        ondelete="cascade",
        domain="[('model_id', '=', model_id), ('ttype', 'not in', ('binary', 'json', 'reference')), "
        "('ttype', 'not like', 'properties')]",
    )
    domain_operator = fields.Selection(
        [
            ("=", "equals"),
            ("!=", "not equals"),
            ("ilike", "contains"),
            ("not ilike", "does not contain"),
            ("=ilike", "matches with wildcards"),
            (">", "greater than"),
            (">=", "greater than or equal to"),
            ("<", "less than"),
            ("<=", "less than or equal to"),
            ("in", "is in"),
            ("not in", "is not in"),
            ("set", "is set"),
        ],
        required=True,
        default="=",
    )

    _key_uniq = models.UniqueIndex("(config_id, key)", "A parameter with this key exists already.")

    @api.constrains("key")
    def _check_key(self):
        for param in self:
            if param.key in COMMON_PARAMS + LIST_PARAMS + WRITE_PARAMS:
                raise param._refusal(self.env._("it has a meaning of its own in every request, choose another key."))

    @api.constrains("field_id", "domain_operator", "config_id")
    def _check_field(self):
        for param in self:
            if param.field_id.model_id != param.config_id.model_id:
                raise param._refusal(
                    self.env._(
                        "the field %(field)s does not belong to the model %(model)s.",
                        field=param.field_id.display_name,
                        model=param.config_id.model_id.name,
                    )
                )
            field = self.env[param.field_id.model]._fields.get(param.field_id.name)
            if field is not None and not field._description_searchable:
                raise param._refusal(self.env._("Odoo cannot search by %(field)s.", field=param.field_id.display_name))
            if (param.domain_operator in TEXT_OPERATORS and param.field_id.ttype not in TEXT_TYPES) or (
                param.domain_operator in (">", ">=", "<", "<=") and param.field_id.ttype not in ORDERED_TYPES
            ):
                raise param._refusal(
                    self.env._(
                        "the operator “%(operator)s” makes no sense for the field %(field)s.",
                        operator=param._get_choice("domain_operator"),
                        field=param.field_id.display_name,
                    )
                )
