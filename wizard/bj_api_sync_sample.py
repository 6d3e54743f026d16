import json
import re

from odoo import api, fields, models
from odoo.exceptions import UserError
from odoo.fields import Command

from ..tools import codec
from ..tools.plan import flatten

#: the types of fields that a JSON value of a Python type can belong to
FITTING = {
    bool: ("boolean",),
    int: ("integer", "float", "monetary", "many2one"),
    float: ("float", "monetary"),
    str: ("char", "text", "html", "selection", "date", "datetime"),
}
#: what anything may have: in a nested object it is said of that, not of the record
GENERIC_KEYS = ("id", "name", "code", "key", "type", "title", "number", "date", "description", "state", "status")
#: what no other system knows, or nobody may write
UNPROPOSED = (*models.MAGIC_COLUMNS, "display_name")
PLAIN_TYPES = tuple(dict.fromkeys(name for names in FITTING.values() for name in names))


class BjApiSyncSample(models.TransientModel):
    """Proposes configuration lines for the keys of a sample of the other system's data."""

    _name = "bj.api.sync.sample"
    _description = "API Lines from a Sample"

    config_id = fields.Many2one("bj.api.sync.config", "API Configuration", required=True, ondelete="cascade")
    model_id = fields.Many2one(related="config_id.model_id")
    sample = fields.Text(help="JSON: an object, or a list of objects.")
    line_ids = fields.One2many(
        "bj.api.sync.sample.line", "wizard_id", "Lines", compute="_compute_line_ids", store=True, readonly=False
    )
    problem = fields.Char(compute="_compute_line_ids", store=True)

    @api.depends("sample")
    def _compute_line_ids(self):
        for wizard in self:
            values, wizard.problem = wizard._read_sample()
            known = [f"{key}." for key in wizard.config_id.line_ids.mapped("external_key") if key]
            new = {
                key: value
                for key, (value, _shown) in values.items()
                if not any(f"{key}.".startswith(other) or other.startswith(f"{key}.") for other in known)
            }
            proposed = wizard._propose(new)
            wizard.line_ids = [Command.clear()] + [
                Command.create({"key": key, "value": values[key][1], "field_id": proposed.get(key)}) for key in new
            ]

    def _read_sample(self):
        """Return the keys of the sample, each with a value and how it is shown, and what is wrong with the sample."""
        values = {}
        if not (self.sample or "").strip():
            return values, False
        try:
            sample = codec.parse_typed_json(self.sample)
            items = sample if isinstance(sample, list) else [sample]
            if not items or not all(isinstance(item, dict) for item in items):
                return {}, self.env._("Expected an object, or a list of objects.")
            for item in items:
                for key, value in flatten(item).items():
                    if values.get(key, (None, ""))[0] is None:
                        values[key] = value, _show(value)
        except (ValueError, RecursionError) as exc:
            return {}, self.env._("This is not valid JSON: %s", exc)
        return values, False

    def _propose(self, values):
        """Return the ids of the fields of keys, by their values: none twice, or that has a line, outer keys first.

        :rtype: dict[str, int]
        """
        candidates, proposed = self._get_candidates(), {}
        taken = set(self.config_id.line_ids.field_id.mapped("name"))
        for key in sorted(values, key=lambda key: key.count(".")):
            field = self._find_field(candidates, key, values[key])
            if field and field.name not in taken:
                taken.add(field.name)
                proposed[key] = self.env["ir.model.fields"]._get(field.model_name, field.name).id
        return proposed

    def _get_candidates(self):
        """Return what fields are called, without case and punctuation: technical names first, then labels.

        :rtype: list[tuple[str, odoo.fields.Field]]
        """
        fields_ = self.env[self.config_id.model_name]._fields.values()
        found = [field for field in fields_ if not field.groups and field.name not in UNPROPOSED]
        names = [(_normalize(field.name), field) for field in found]
        return names + [(_normalize(field._description_string(self.env)), field) for field in found]

    def _find_field(self, candidates, key, value):
        """Return the first field that is called as a key, or as its last part, if its type fits the value."""
        outer, _dot, last = map(_normalize, key.rpartition("."))
        names = {_normalize(key)} if outer and last in GENERIC_KEYS else {_normalize(key), last}
        types = PLAIN_TYPES if value is None else FITTING.get(type(value), ())
        return next((field for name, field in candidates if name in names and field.type in types), None)

    def action_add(self):
        """Add the lines that have a field to the configuration."""
        self.ensure_one()
        lines = self.line_ids.filtered("field_id")
        if not lines:
            raise UserError(self.env._("Choose a field for at least one key."))
        last = max(self.config_id.line_ids.mapped("sequence"), default=0)
        self.config_id.line_ids = [
            Command.create(
                {
                    "sequence": last + number,
                    "external_key": line.key,
                    "field_id": line.field_id.id,
                    "is_record_identifier": line.is_record_identifier,
                }
            )
            for number, line in enumerate(lines, 1)
        ]
        return {"type": "ir.actions.act_window_close"}


class BjApiSyncSampleLine(models.TransientModel):
    """One key of a sample, and the field that is proposed for it."""

    _name = "bj.api.sync.sample.line"
    _description = "API Line from a Sample"

    wizard_id = fields.Many2one("bj.api.sync.sample", required=True, ondelete="cascade")
    model_id = fields.Many2one(related="wizard_id.model_id")
    key = fields.Char("External API Key", required=True, readonly=True)
    value = fields.Char("In the Sample", readonly=True)
    field_id = fields.Many2one(
        "ir.model.fields",
        "Field",
        domain="[('model_id', '=', model_id), ('name', '!=', 'display_name')]",
        help="Keys without a field are left out.",
        ondelete="cascade",
    )
    is_record_identifier = fields.Boolean(help="The value of this key tells which record is meant: one line has it.")


def _normalize(text):
    return re.sub(r"[\W_]", "", text or "").lower()


def _show(value):
    return json.dumps(value, ensure_ascii=False)[:100].encode("utf-8", "backslashreplace").decode()
