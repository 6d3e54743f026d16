from odoo import api, models
from odoo.exceptions import AccessError, ValidationError


class BjApiSyncCached(models.AbstractModel):
    """Records that are compiled into cached plans: any change drops them, in every worker.

    Code that is typed into them runs on the server: who may write server actions may write it, nobody else.
    """

    _name = "bj.api.sync.cached"
    _description = "API Configuration Part"

    #: the field with code, if there is one
    _script_field = ""

    @api.model_create_multi
    def create(self, vals_list):
        names = [*self._list_config_fields(), *filter(None, [self._script_field])]
        defaults = self.default_get(names)  # the context has some, and users keep some of their own
        given = [defaults | vals for vals in vals_list]
        if any(vals.get(self._script_field) for vals in given):
            self._check_script_access()
        self._check_configs(given)
        self.env.registry.clear_cache()
        return super().create(vals_list)

    def write(self, vals):
        if self._script_field in vals:
            self._check_script_access()
        self._check_configs([vals])
        self.env.registry.clear_cache()
        return super().write(vals)

    def unlink(self):
        self.env.registry.clear_cache()
        return super().unlink()

    def _check_script_access(self):
        """Refuse who may not write code.

        :raises odoo.exceptions.AccessError: for all but those who may write server actions
        """
        if not self.env["ir.actions.server"].has_access("write"):
            raise AccessError(self.env._("Only users who may write server actions may write Python scripts."))

    def _check_configs(self, vals_list):
        """Refuse ids of configurations that the user may not read: they are easily guessed.

        :raises odoo.exceptions.AccessError: if there is one
        """
        fnames = self._list_config_fields()
        ids = {vals[fname] for vals in vals_list for fname in fnames if vals.get(fname)}
        self.env["bj.api.sync.config"].browse(ids).check_access("read")

    def _list_config_fields(self):
        """Return the names of the fields that point to a configuration."""
        fields = [field for field in self._fields.values() if field.type == "many2one"]
        return [field.name for field in fields if field.comodel_name == "bj.api.sync.config"]

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
