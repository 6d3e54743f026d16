from odoo import api, fields, models
from odoo.exceptions import ValidationError

#: field types whose value can tell records apart
IDENTIFIER_TYPES = ("char", "text", "integer", "selection", "date", "datetime", "many2one", "many2one_reference")
RELATIONAL_TYPES = ("many2one", "one2many", "many2many")


class BjApiSyncConfigLine(models.Model):
    """How one key of the other system becomes one field of the model, and back."""

    _name = "bj.api.sync.config.line"
    _inherit = ["bj.api.sync.cached"]
    _description = "API Configuration Line"
    _order = "sequence, id"
    _rec_name = "external_key"
    _script_field = "script"

    config_id = fields.Many2one(
        "bj.api.sync.config", "API Configuration", required=True, ondelete="cascade", index=True
    )
    config_request_type = fields.Selection(
        [("in", "In"), ("out", "Out")], "Request Type", compute="_compute_config_request_type"
    )
    sequence = fields.Integer(default=10)
    model_id = fields.Many2one(related="config_id.model_id")
    field_id = fields.Many2one(
        "ir.model.fields",
        "Field",
        ondelete="cascade",
        domain="[('model_id', '=', model_id), ('name', '!=', 'display_name')]",
    )
    field_relation = fields.Char(related="field_id.relation")
    field_type = fields.Selection(related="field_id.ttype", string="Field Type")
    field_restricted = fields.Boolean(compute="_compute_field_restricted")
    value_type = fields.Selection(
        [
            ("plain", "Plain"),
            ("relational", "Relational with Mapping Model"),
            ("script", "Python Script for Plain Value"),
            ("relational_script", "Relational with Python Script"),
        ],
        "Value Calculation Type",
        required=True,
        default="plain",
    )
    external_key = fields.Char(
        "External API Key", help="The key in the other system's data. A dot walks into nested objects: address.city"
    )
    mapping_config_id = fields.Many2one(
        "bj.api.sync.config",
        "Mapping Model",
        ondelete="restrict",
        index=True,
        help="The configuration, on the model this field points to, that maps the nested objects.",
    )
    is_record_identifier = fields.Boolean(help="The value of this key tells which record is meant.")
    script_mode = fields.Selection(
        [("eval", "Evaluate"), ("exec", "Execute")],
        "Script Evaluation Mode",
        required=True,
        default="eval",
        help="Evaluate: the value of the expression is used. Execute: the code runs, and may change request_data.",
    )
    script = fields.Text("Python Script")
    relation_output = fields.Selection(
        [("object", "Object"), ("identifier", "Identifier Only")],
        required=True,
        default="object",
        help="What is answered or sent for each related record.",
    )
    relation_policy = fields.Selection(
        [("link", "Link Only"), ("create", "Link or Create"), ("upsert", "Create or Update")],
        required=True,
        default="link",
        help="What received objects may do to the related records. Lines of a one2many are always created or updated.",
    )
    remove_missing = fields.Boolean(help="One2many: lines that are not in the received list are removed.")
    response_key = fields.Char(
        "Read from Answer", help="Out: this key of the other system's answer is written to the field after success."
    )
    allow_restricted = fields.Boolean(
        "Allow Restricted Field",
        help="The field is restricted to user groups in Odoo. Tick to exchange it nevertheless; "
        "users without those groups still cannot.",
    )

    # ------------------------------------------------------------------
    # Computed fields
    # ------------------------------------------------------------------

    @api.depends("external_key", "field_id", "sequence")
    @api.depends_context("lang")
    def _compute_display_name(self):
        """Name lines in messages."""
        for line in self:
            name = line.external_key or line.field_id.field_description
            line.display_name = name or self.env._("Line %s", line.sequence)

    @api.depends("config_id.request_type", "config_id.is_pull")
    def _compute_config_request_type(self):
        """What is pulled is mapped as what is received."""
        for line in self:
            line.config_request_type = "in" if line.config_id.is_pull else line.config_id.request_type

    @api.depends("field_id")
    def _compute_field_restricted(self):
        for line in self:
            field = line.field_id and self.env[line.field_id.model]._fields.get(line.field_id.name)
            line.field_restricted = bool(field and field.groups)

    # ------------------------------------------------------------------
    # Constraints
    # ------------------------------------------------------------------

    @api.constrains("external_key", "value_type", "script_mode", "response_key", "is_record_identifier")
    def _check_external_key(self):
        for line in self:
            key = line.external_key
            if not key and not line._is_exec() and not line.response_key:
                raise line._refusal(self.env._("fill in the External API Key."))
            is_received = line.config_request_type == "in" or line.config_id.counterpart_id
            if not key and line.is_record_identifier and is_received:
                raise line._refusal(
                    self.env._("it is the record identifier: fill in the External API Key that it is received by.")
                )
            if key and not all(part and part.strip() == part for part in key.split(".")):
                raise line._refusal(self.env._("the External API Key has an empty part or spaces around a part."))

    @api.constrains("config_id", "external_key", "value_type", "script_mode", "is_record_identifier")
    def _check_among_lines(self):
        if not self.env.context.get("bj_api_sync_lines_follow"):
            self.config_id._check_lines()

    @api.constrains("field_id", "value_type", "script_mode", "is_record_identifier", "allow_restricted", "config_id")
    def _check_field(self):
        for line in self:
            if not line.field_id:
                if line.value_type not in ("script", "relational_script") or (
                    line.config_request_type == "in" and not line._is_exec()
                ):
                    raise line._refusal(self.env._("choose the field."))
                continue
            if line.field_id.model_id != line.config_id.model_id:
                raise line._refusal(
                    self.env._(
                        "the field %(field)s does not belong to the model %(model)s.",
                        field=line.field_id.display_name,
                        model=line.config_id.model_id.name,
                    )
                )
            if line.field_restricted and not line.allow_restricted:
                raise line._refusal(
                    self.env._(
                        "the field %(field)s is restricted to user groups. If it shall be exchanged nevertheless, "
                        "tick “Allow Restricted Field” on its line.",
                        field=line.field_id.display_name,
                    )
                )
            if line.value_type == "plain" and line.field_id.ttype in ("properties", "properties_definition"):
                raise line._refusal(self.env._("properties are not exchanged: take a Python Script."))
            if line.value_type in ("relational", "relational_script") and line.field_id.ttype not in RELATIONAL_TYPES:
                raise line._refusal(self.env._("its field is no relation, choose a plain Value Calculation Type."))

    @api.constrains("is_record_identifier", "field_id", "value_type")
    def _check_record_identifier(self):
        for line in self.filtered("is_record_identifier"):
            if line.value_type != "plain" or line.field_id.ttype not in IDENTIFIER_TYPES:
                raise line._refusal(
                    self.env._(
                        "it cannot be the record identifier: take a Plain line of a text, number, selection, date or "
                        "many2one field."
                    )
                )
            field = self.env[line.field_id.model]._fields.get(line.field_id.name)
            if field is not None and not field._description_searchable:
                raise line._refusal(self.env._("it cannot be the record identifier: Odoo cannot search by its field."))

    @api.constrains("mapping_config_id", "value_type", "field_id", "config_id", "relation_output")
    def _check_mapping_config(self):
        for line in self.filtered(lambda line: line.value_type == "relational"):
            if not line.mapping_config_id:
                raise line._refusal(self.env._("choose the Mapping Model."))
            mapping = line.mapping_config_id.sudo()
            if mapping.model_name != line.field_id.relation:
                raise line._refusal(
                    self.env._(
                        "the Mapping Model must be a configuration on the model %(model)s.",
                        model=line.field_id.relation,
                    )
                )
            if line.relation_output == "identifier" and not mapping.line_ids.filtered("is_record_identifier"):
                raise line._refusal(
                    self.env._(
                        "the Mapping Model %(config)s has no record identifier: choose “Object”, or give it one.",
                        config=mapping.name,
                    )
                )
        self._check_mapping_cycle()

    def _check_mapping_cycle(self):
        for config in self.sudo().config_id:
            seen, level = config, config
            while level:
                level = level.line_ids.filtered(lambda line: line.value_type == "relational").mapping_config_id
                if config in level:
                    raise ValidationError(
                        self.env._(
                            "The Mapping Models lead from %(config)s back to itself: a nested object would never end.",
                            config=config.name,
                        )
                    )
                level -= seen
                seen |= level

    @api.constrains("script", "script_mode", "value_type")
    def _check_script(self):
        for line in self.filtered(lambda line: line.value_type in ("script", "relational_script")):
            error = self.env["bj.api.sync.script"]._check_syntax(line.script, line.script_mode)
            if error:
                raise line._refusal(self.env._("the Python Script is not valid. %(error)s", error=error))

    # ------------------------------------------------------------------
    # Business methods
    # ------------------------------------------------------------------

    def _is_exec(self):
        """Tell whether this line runs code without assigning a value."""
        self.ensure_one()
        return self.value_type in ("script", "relational_script") and self.script_mode == "exec"
