from odoo import api, models
from odoo.exceptions import ValidationError


class BjApiSyncCached(models.AbstractModel):
    """Records that are compiled into cached plans: any change drops them, in every worker."""

    _name = "bj.api.sync.cached"
    _description = "API Configuration Part"

    @api.model_create_multi
    def create(self, vals_list):
        self.env.registry.clear_cache()
        return super().create(vals_list)

    def write(self, vals):
        self.env.registry.clear_cache()
        return super().write(vals)

    def unlink(self):
        self.env.registry.clear_cache()
        return super().unlink()

    def _refusal(self, problem):
        """Return the error by which a constraint refuses this record.

        :param str problem: what is wrong, and what to do about it
        :rtype: odoo.exceptions.ValidationError
        """
        return ValidationError(self.env._("%(name)s: %(problem)s", name=self.display_name, problem=problem))

    def _get_label(self, fname):
        """Return the label of a field in the user's language."""
        return self._fields[fname]._description_string(self.env)

    def _get_choice(self, fname):
        """Return the label of a selection's value in the user's language."""
        return self._fields[fname].convert_to_export(self[fname], self)
