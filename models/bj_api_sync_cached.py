from odoo import api, models


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
