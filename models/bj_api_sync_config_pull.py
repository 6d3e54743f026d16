from odoo import api, fields, models
from odoo.exceptions import UserError
from odoo.fields import Command

from ..tools import transaction
from ..tools.notification import notify
from .bj_api_sync_config import MANAGER
from .bj_api_sync_outbound import PLACEHOLDER

#: what each kind of paging cannot work without
REQUIRED_BY_PAGING = {"page": ("pull_param",), "offset": ("pull_param",), "cursor": ("pull_param", "pull_next_key")}
#: a change of these makes the place that was reached worthless
PLACE_FIELDS = {"is_pull", "model_id", "request_url", "pull_paging", "pull_param", "pull_first_page", "pull_size_param"}


class BjApiSyncConfig(models.Model):
    """Pulling: an outbound configuration that reads the other system's records, page after page."""

    _inherit = "bj.api.sync.config"

    is_pull = fields.Boolean(
        "Pull Records",
        tracking=True,
        help="Records are read from the other system with GET, and created or updated in Odoo by their identifier.",
    )
    pull_items_key = fields.Char(
        "Key of the Items",
        tracking=True,
        help="Where the answer has its list of items: data, or result.items. Empty: the answer itself, or one item.",
    )
    pull_paging = fields.Selection(
        [
            ("none", "All at Once"),
            ("page", "Page Number"),
            ("offset", "Offset"),
            ("cursor", "Cursor"),
            ("link", "Next URL"),
        ],
        "Paging",
        required=True,
        default="none",
        tracking=True,
        help="How pages are told apart. Next URL: that of the Link header, or of a key of the answer.",
    )
    pull_param = fields.Char(
        "Parameter of the Place",
        compute="_compute_pull_params",
        store=True,
        readonly=False,
        tracking=True,
        help="The query parameter with the page number, the offset or the cursor.",
    )
    pull_size_param = fields.Char(
        "Parameter of the Size",
        compute="_compute_pull_params",
        store=True,
        readonly=False,
        tracking=True,
        help="The query parameter with the Page Size. Empty: the other system decides.",
    )
    pull_first_page = fields.Integer("First Page", default=1, tracking=True)
    pull_next_key = fields.Char(
        "Key of the Next Page",
        tracking=True,
        help="Where the answer has the next cursor or URL: meta.next_cursor, or data.-1.id for the last item's. "
        "With page numbers and offsets: a key that is empty or false on the last page; without one, the first empty "
        "page is the end.",
    )
    pull_since_param = fields.Char(
        "Parameter of Changes Since",
        tracking=True,
        help="The query parameter that asks for what changed since a time. The first pull goes without it and reads "
        "everything, later ones ask for what changed since the last complete one began. Empty: always everything.",
    )
    pull_state = fields.Json(copy=False, groups=MANAGER, help="How far the pull has come: see bj.api.sync.pull.")
    pull_progress = fields.Char("Last Pull", compute="_compute_pull_progress", compute_sudo=True)

    @api.depends("pull_paging")
    def _compute_pull_params(self):
        """Begin with what most systems call them: the place as the kind of paging."""
        for config in self:
            has_place = config.pull_paging in REQUIRED_BY_PAGING
            config.pull_param = has_place and config.pull_paging
            config.pull_size_param = has_place and "limit"

    @api.depends("pull_state")
    def _compute_pull_progress(self):
        for config in self:
            state, progress = config.pull_state, False
            if state:
                progress = self.env._(
                    "%(pages)s pages: %(created)s created, %(updated)s updated, %(failed)s failed", **state
                )
                if "ended" in state:
                    progress = self.env._(
                        "Complete at %(time)s (UTC). %(counts)s", time=state["ended"], counts=progress
                    )
                elif "error" in state:
                    progress = self.env._("%(counts)s. Stopped: %(error)s", counts=progress, error=state["error"])
                else:
                    progress = self.env._("Under way. %(counts)s", counts=progress)
            config.pull_progress = progress

    @api.onchange("is_pull")
    def _onchange_is_pull(self):
        if self.is_pull:
            self.http_method_ids = [Command.set(self.env.ref("bj_api_sync.http_method_get").ids)]

    # ------------------------------------------------------------------
    # Constraints and CRUD
    # ------------------------------------------------------------------

    @api.constrains("is_pull", "request_type", "http_method_ids", "request_url", "line_ids")
    def _check_pull(self):
        for config in self.filtered("is_pull"):
            if config.request_type != "out" or config.http_method_ids.name != "GET":
                raise config._refusal(self.env._("records are pulled by an outbound configuration with GET."))
            if PLACEHOLDER.search(config.request_url or ""):
                raise config._refusal(self.env._("there is no record yet to fill the Request URL from."))
            config.line_ids._check_field()

    @api.constrains("is_pull", "pull_paging", "pull_param", "pull_size_param", "pull_next_key", "pull_since_param")
    def _check_paging(self):
        for config in self.filtered("is_pull"):
            config._check_required("pull_paging", REQUIRED_BY_PAGING)

    def write(self, vals):
        if PLACE_FIELDS & vals.keys():
            vals = dict(vals, pull_state=False)
        return super().write(vals)

    # ------------------------------------------------------------------
    # Actions
    # ------------------------------------------------------------------

    def action_pull(self):
        """Pull now, as far as it gets in some seconds, and tell what came of it; the rest follows by itself."""
        self.ensure_one()
        self.check_access("write")
        return self._notify_pulled(self.with_context(bj_api_sync_commit=True)._pull())

    def action_pull_again(self):
        """Have the next pull read everything once more."""
        self.check_access("write")
        self.sudo().pull_state = False

    # ------------------------------------------------------------------
    # Business methods
    # ------------------------------------------------------------------

    def _pull(self):
        """Pull from the other system, where the last run stopped, for some seconds.

        In a scheduled action each page is committed; else all of it is the caller's transaction. What is left is
        pulled by a scheduled action.

        :rtype: odoo.addons.bj_api_sync.models.bj_api_sync_pull.Pulled
        :raises UserError: for a configuration that does not pull
        """
        self.ensure_one()
        config = self.sudo()
        if not config.is_pull:
            raise UserError(self.env._("%(config)s sends records: switch on Pull Records first.", config=config.name))
        return transaction.retry_if_scheduled(self.env, self.env["bj.api.sync.pull"]._pull, config)

    def _notify_pulled(self, result):
        """Make the notification of a pull.

        :param result: what :meth:`_pull` returned
        :return: a client action
        :rtype: dict
        """
        message = self.env._("%(created)s created, %(updated)s updated, %(failed)s failed.", **vars(result))
        if result.error:
            message = f"{message} {result.error}"
        elif not result.is_complete:
            message = self.env._("%(counts)s There is more: it follows by itself.", counts=message)
        kind = "danger" if result.error else "warning" if result.failed else "success"
        reload = {"type": "ir.actions.client", "tag": "soft_reload"}
        return notify(kind, message, title=self.sudo().name, sticky=kind != "success", next=reload)

    def _get_outbound_config(self, config_id_ref=None):
        config = super()._get_outbound_config(config_id_ref)
        if config.is_pull:
            raise UserError(self.env._("%(config)s pulls records: it cannot send any.", config=config.name))
        return config

    def _get_trigger_name(self):
        if self.is_pull:
            return self.env._("Pull from %(config)s", config=self.name)
        return super()._get_trigger_name()
