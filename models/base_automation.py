from odoo import models


class BaseAutomation(models.Model):
    """Rules that only push to APIs do so for all their records together."""

    _inherit = "base.automation"

    def _process(self, records, domain_post=None):
        """Run the actions once, not once per record.

        Odoo makes several environments for each record, and looks through all there are to make one: time that
        grows with the square of the records. What it prevents by marking records as done cannot happen here, for
        queueing changes no record.
        """
        actions = self.sudo().action_server_ids
        if not actions or any(action.state != "bj_api_sync" for action in actions):
            return super()._process(records, domain_post=domain_post)
        done = self.env.context.get("__action_done", {}).get(self, records.browse())
        records = (records - done).filtered(self._check_trigger_fields)
        if not records:
            return None
        context = {"active_model": records._name, "active_ids": records.ids, "active_id": records.ids[0]}
        for action in actions:
            try:
                action.with_context(**context, domain_post=domain_post).run()
            except Exception as exc:
                self._add_postmortem(exc)
                raise
        return None
