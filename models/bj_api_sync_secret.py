from odoo import api, models
from odoo.exceptions import UserError

from ..tools.secret import EncryptedChar, has_changed, rotate_column


class BjApiSyncSecret(models.AbstractModel):
    """Models with encrypted fields: their values are never grouped, aggregated or sorted by."""

    _name = "bj.api.sync.secret"
    _description = "API Secret"

    @api.model
    def _rotate_secrets(self):
        """Encrypt all secrets of all models again, with the first of the configured keys.

        :return: number of secrets encrypted, number of secrets no key decrypts
        :rtype: tuple[int, int]
        :raises UserError: if the key file was changed, but Odoo not restarted
        """
        if has_changed():
            raise UserError(self.env._("The key file has other keys by now: restart Odoo first, so that it uses them."))
        self.env.flush_all()
        rotated = failed = 0
        for model in self.env.values():
            if model._abstract or not model._auto:
                continue
            for field in model._fields.values():
                if isinstance(field, EncryptedChar) and field.store and field.base_field is field:
                    done, left = rotate_column(self.env.cr, model._table, field.name)
                    rotated, failed = rotated + done, failed + left
        self.env.invalidate_all()
        return rotated, failed

    def _read_group_groupby(self, alias, groupby_spec, query):
        self._refuse_secret(groupby_spec)
        return super()._read_group_groupby(alias, groupby_spec, query)

    def _read_group_select(self, aggregate_spec, query):
        self._refuse_secret(aggregate_spec)
        return super()._read_group_select(aggregate_spec, query)

    def _order_field_to_sql(self, alias, field_name, direction, nulls, query):
        self._refuse_secret(field_name)
        return super()._order_field_to_sql(alias, field_name, direction, nulls, query)

    def _refuse_secret(self, spec):
        field = self._fields.get(spec.partition(":")[0].partition(".")[0])
        if isinstance(field, EncryptedChar):
            raise UserError(field._refusal(self.env))
