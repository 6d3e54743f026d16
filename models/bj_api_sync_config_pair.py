from odoo import api, fields, models


class BjApiSyncConfig(models.Model):
    """Two-way: an outbound configuration, and the one by which the other system's changes come in."""

    _inherit = "bj.api.sync.config"

    counterpart_id = fields.Many2one(
        "bj.api.sync.config",
        "Two-Way with",
        ondelete="set null",
        check_company=True,
        tracking=True,
        index="btree_not_null",
        help="The configuration by which the same records come in from the other system. What just came in is not "
        "sent back, and what was changed on both sides meets the conflict policy.",
    )
    conflict_policy = fields.Selection(
        [
            ("remote", "Other System Wins"),
            ("odoo", "Odoo Wins"),
            ("newest", "Newest Wins"),
            ("ask", "Ask"),
        ],
        required=True,
        default="remote",
        tracking=True,
        help="What happens when a record comes in that was changed here and did not arrive there yet. Other System "
        "Wins: it is written. Odoo Wins: it is not, and ours is sent. Newest Wins: as the other system's date of "
        "change says, which a line of the field Last Updated on brings. Ask: it waits under Links.",
    )
    link_ids = fields.One2many("bj.api.link", "config_id", "Links")
    link_count = fields.Integer(compute="_compute_link_count")
    conflict_count = fields.Integer(compute="_compute_link_count")

    def _compute_link_count(self):
        groups = self.env["bj.api.link"]._read_group(
            [("config_id", "in", self.ids)], ["config_id"], ["__count", "conflict_date:count"]
        )
        counts = {config: numbers for config, *numbers in groups}
        for config in self:
            config.link_count, config.conflict_count = counts.get(config, (0, 0))

    @api.constrains("counterpart_id", "conflict_policy", "request_type", "model_id", "is_pull", "company_id")
    def _check_counterpart(self):
        pairs = self | self.sudo().with_context(active_test=False).search([("counterpart_id", "in", self.ids)])
        pairs._check_company(["counterpart_id"])
        for config in pairs.filtered("counterpart_id"):
            other = config.counterpart_id
            goes_out = config.request_type == "out" and not config.is_pull
            comes_in = other.request_type == "in" or other.is_pull
            if not goes_out or not comes_in or other.model_id != config.model_id:
                raise config._refusal(
                    self.env._(
                        "it cannot be two-way with %(other)s: that takes an outbound configuration, and one by which "
                        "records of the same model come in.",
                        other=other.name,
                    )
                )
            if config.conflict_policy == "newest" and "write_date" not in other.line_ids.field_id.mapped("name"):
                raise config._refusal(
                    self.env._(
                        "for “Newest Wins”, %(other)s needs a line of the field Last Updated on: the key by which "
                        "the other system tells when it changed the record.",
                        other=other.name,
                    )
                )

    @api.constrains("counterpart_id", "deletion_url")
    def _check_deletions(self):
        for config in self:
            if config.counterpart_id and config.deletion_url:
                raise config._refusal(
                    self.env._(
                        "it is two-way. Let another configuration tell deletions, of the method DELETE and with the "
                        "same Two-Way with, and leave the Deletion URL empty."
                    )
                )

    def action_open_links(self):
        """Open the links of this configuration, its conflicts first."""
        return self._open_list("bj_api_sync.action_bj_api_link", search_default_conflicts=self.conflict_count > 0)

    def action_push_again(self):
        """Forget what the other system has: all of it counts as news."""
        self.link_ids.write({"in_hash": False, "out_hash": False})
        return super().action_push_again()

    def _forget_records(self):
        self.link_ids.unlink()
        return super()._forget_records()

    def _is_two_way(self):
        """Tell whether this configuration tells another system how records are that also come in from there."""
        self.ensure_one()
        return bool(self.counterpart_id) and self.http_method_ids.name != "DELETE"
