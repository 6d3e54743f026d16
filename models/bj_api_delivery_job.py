from math import ceil

from odoo import api, models

from .bj_api_delivery import NOW_SQL, OPEN, OPEN_SQL

#: the channel of the jobs; its capacity is configured with the others of queue_job
CHANNEL = "root.bj_api_sync"
#: most jobs the scheduled action makes at a time
BATCH = 1000
#: due deliveries that have no job
ORPHANS = f"""
    SELECT d.id FROM bj_api_delivery AS d
     WHERE d.{OPEN_SQL} AND d.next_attempt <= {NOW_SQL} AND NOT EXISTS (
           SELECT FROM queue_job AS j WHERE j.identity_key = 'bj_api_sync:' || d.idempotency_key
              AND j.state IN ('pending', 'enqueued', 'started', 'wait_dependencies'))
     ORDER BY d.id LIMIT {BATCH}
"""  # noqa: S608  made of constants


class BjApiDelivery(models.Model):
    """Where OCA's `queue_job` is installed each delivery is sent by a job of it, else this room does nothing.

    The delivery stays what it is: claims, attempts, order and the rest of a target are those of the dispatcher, and
    what must wait waits as a postponed job. It does not depend on `queue_job`.

    Source: https://github.com/OCA/queue, 19.0
    """

    _inherit = "bj.api.delivery"

    @api.model
    def _has_jobs(self):
        return "queue.job" in self.env

    def _wake_up(self):
        """Make jobs of these deliveries, in this transaction; their keys see to it that each has but one."""
        if not self._has_jobs() or not self:
            return super()._wake_up()
        for delivery in self.sudo().filtered(lambda delivery: delivery.state in OPEN):
            options = {"identity_key": f"bj_api_sync:{delivery.idempotency_key}", "channel": CHANNEL, "max_retries": 0}
            description = f"{delivery.method} {delivery.url}"
            delivery.with_delay(**options, description=description)._send_as_job()
        return None

    def _send_as_job(self):
        """Send this delivery, as a job of the channel ``root.bj_api_sync``.

        :return: what came of it
        :rtype: str
        :raises odoo.addons.queue_job.exception.RetryableJobError: when it must wait: for its next attempt, the rest
            of its target, or an earlier delivery of its record
        """
        # there is none where it is not installed
        from odoo.addons.queue_job.exception import RetryableJobError

        state, message, wait = self.env["bj.api.dispatcher"]._send_one(self.id)
        if wait is None:
            return f"{state}: {message}" if message else state
        raise RetryableJobError(message or state, seconds=max(ceil(wait), 1), ignore_retry=True)

    @api.model
    def _cron_dispatch(self):
        """Beside jobs the scheduled action only looks for deliveries that have none, and makes them."""
        if not self._has_jobs():
            return super()._cron_dispatch()
        self.env.cr.execute(ORPHANS)
        orphans = self.browse(row[0] for row in self.env.cr.fetchall())
        orphans._wake_up()
        if len(orphans) == BATCH:  # there may be more
            self.browse()._wake_up()
        return None
