from datetime import datetime, timedelta
from unittest.mock import patch

from odoo.exceptions import AccessError, UserError, ValidationError
from odoo.fields import Command
from odoo.tests import Form, new_test_user, tagged

from ..wizard import bj_api_sync_redrive
from .test_delivery import DeliveryCase


@tagged("post_install", "-at_install")
class TestRedrive(DeliveryCase):
    """Sending again from a point in time on."""

    def setUp(self):
        super().setUp()
        self.deliveries = self.enqueue(self.partners)
        self.dispatch()
        self.receiver.clear()
        states = ("dead", "cancelled", "sent", "sent", "dead")
        for hours, (delivery, state) in enumerate(zip(self.deliveries, states, strict=True)):
            self.env.cr.execute(
                "UPDATE bj_api_delivery SET state = %s, create_date = '2026-01-01'::timestamp + %s * interval '1 hour'"
                " WHERE id = %s",
                [state, hours, delivery.id],
            )
        self.env.invalidate_all()

    def redrive(self, **values):
        wizard = self.env["bj.api.sync.redrive"].create(
            {"config_id": self.config.id, "date_from": datetime(2026, 1, 1), **values}
        )
        count = wizard.count
        message = wizard.action_send()["params"]["message"]
        self.assertTrue(message.startswith(f"{count} "), message)
        self.receiver.clear()
        self.dispatch()
        bodies = [request.json for request in self.receiver.requests]
        return [item["code"] for body in bodies for item in (body if isinstance(body, list) else [body])]

    def test_what_was_given_up(self):
        keys = self.deliveries.mapped("idempotency_key")
        self.assertEqual(sorted(self.redrive()), ["P1", "P5"])
        self.assertEqual(self.deliveries.mapped("state"), ["sent", "cancelled", "sent", "sent", "sent"])
        self.assertEqual(self.deliveries.mapped("idempotency_key"), keys)
        self.assertLessEqual({request.headers["idempotency-key"] for request in self.receiver.requests}, set(keys))
        self.assertEqual(self.deliveries[0].attempt_count, 1)

    def test_states(self):
        self.assertEqual(self.redrive(is_dead=False, is_cancelled=True), ["P2"])
        self.assertEqual(sorted(self.redrive(is_sent=True)), ["P1", "P2", "P3", "P4", "P5"])

    def test_range(self):
        start = datetime(2026, 1, 1, 2)
        self.assertEqual(self.redrive(is_sent=True, date_from=start, date_to=start + timedelta(hours=1)), ["P3"])
        with self.assertRaisesRegex(UserError, "no such delivery"):
            self.redrive(date_from=start + timedelta(hours=9))
        with self.assertRaisesRegex(UserError, "no such delivery"):
            self.redrive(is_dead=False)

    def test_overtaken(self):
        """An older state must not replace a newer one that arrived, unless that follows again."""
        self.partner.name = "Newer"
        newer = self.enqueue()
        self.dispatch()
        self.assertEqual(newer.state, "sent")
        self.assertEqual(self.redrive(), ["P5"])
        self.assertEqual(self.redrive(only_newest=False), ["P1"])
        self.env.cr.execute("UPDATE bj_api_delivery SET state = 'dead' WHERE id = %s", self.deliveries[0].ids)
        self.env.invalidate_all()
        self.redrive(is_sent=True)
        names = [request.json["name"] for request in self.receiver.requests if request.json["code"] == "P1"]
        self.assertEqual(names, ["Partner 1", "Newer"], "in order")

    def test_overtaken_in_lists(self):
        """A list is left out as soon as one of its records was sent later: alone, in another list, or deleted."""
        self.receiver.on("/partners", status=400)
        single = self.enqueue(self.partners[1])
        self.config.write({"is_paginated": True, "deletion_url": f"{self.receiver.url}/partners/{{code}}"})
        both, apart = self.enqueue(self.partners[:2]), self.enqueue(self.partners[2:4])
        self.dispatch()
        dead = single | both | apart
        self.receiver.clear()
        with self.subTest("deleted"), self.env.cr.savepoint() as savepoint:
            self.partner.unlink()
            self.env["bj.api.sync.push"]._enqueue_gone(self.config)
            self.dispatch()
            with self.assertRaisesRegex(UserError, "Later deliveries"):
                both.action_retry()
            savepoint.rollback()
        self.env.invalidate_all()
        self.partners[1].name = "Newer"
        self.enqueue(self.partners[1:2])
        self.dispatch()
        dead.action_retry()
        self.assertEqual(dead.mapped("state"), ["dead", "dead", "pending"])
        apart.action_cancel()
        start = dead[0].create_date
        self.assertEqual(sorted(self.redrive(date_from=start, is_cancelled=True)), ["P3", "P4"])
        self.assertEqual(dead.mapped("state"), ["dead", "dead", "sent"])
        self.redrive(date_from=start, only_newest=False)
        self.assertEqual(dead.mapped("state"), ["sent"] * 3)

    def test_configuration_that_points_elsewhere(self):
        """What is sent goes where its configuration points by then, as do its credentials."""
        url, methods = self.receiver.url.replace("127.0.0.1", "localhost"), ("GET", "POST", "DELETE")
        self.allow("127.0.0.1, localhost")
        self.partner.city = "Bad Ischl"
        self.receiver.on("/old", status=400)
        for method in methods:
            config = self.make_config(method, "/old?a=1&", name=method)
            config.write({"authorization_type": "bearer", "bearer_token": "old", "is_paginated": method == "DELETE"})
            dead = self.enqueue(config=config)
            self.dispatch()
            waiting = self.enqueue(config=config)
            config.write({"request_url": f"{url}/new/{{address.city}}", "bearer_token": "new"})
            dead.action_retry()
            self.receiver.clear()
            self.dispatch()
            self.assertEqual((dead | waiting).mapped("state"), ["sent"] * 2, method)
            self.assertEqual(set((dead | waiting).mapped("target")), {f"localhost:{self.receiver.port}"})
            for request in self.receiver.requests:
                self.assertEqual(request.path, "/new/Bad%20Ischl")
                self.assertEqual(request.headers["host"], f"localhost:{self.receiver.port}")
                self.assertEqual(request.headers["authorization"], "Bearer new")
                self.assertEqual(request.query.get("address.city"), ["Bad Ischl"] if method == "GET" else None)
            self.assertIn("/new/Bad%20Ischl", dead.url)
            self.receiver.on("/old", status=400)

    def test_configuration_that_asks_for_more(self):
        """What the URL needs by now and the payload does not have; what was never prepared at all."""
        dead = self.enqueue()
        self.config.line_ids.filtered(lambda line: line.external_key == "name").external_key = "title"
        self.config.request_url = f"{self.receiver.url}/partners/{{title}}"
        never = self.enqueue(self.partner.create({"name": "Unnamed"}))
        never.write({"state": "dead", "url": "", "url_source": False})
        never.action_retry()
        self.dispatch()
        self.assertEqual((dead | never).mapped("state"), ["dead"] * 2)
        self.assertIn("{title}", dead.last_error)
        self.assertIn("anew", never.last_error)
        self.assertFalse(self.receiver.requests)

    def test_deletions_elsewhere(self):
        self.config.deletion_url = f"{self.receiver.url}/old/{{code}}"
        self.receiver.on("/old/P1", status=400)
        self.enqueue()
        self.dispatch()
        self.partner.unlink()
        self.env["bj.api.sync.push"]._enqueue_gone(self.config)
        self.dispatch()
        deletion = self.env["bj.api.delivery"].search([("operation", "=", "unlink")])
        self.assertEqual(deletion.state, "dead")
        self.config.deletion_url = f"{self.receiver.url}/new/{{code}}"
        deletion.action_retry()
        self.dispatch()
        self.assertEqual((deletion.state, self.receiver.requests[-1].path), ("sent", "/new/P1"))

    def test_configuration_that_sends_no_more(self):
        """Neither an inbound one nor one that pulls has credentials for what waits."""
        delivery = self.enqueue()
        for values, back in (
            ({"request_type": "in", "endpoint": "people"}, {"request_type": "out"}),
            ({"is_pull": True, "http_method_ids": self.get_method("GET")}, {"is_pull": False}),
        ):
            self.config.write(values)
            self.dispatch()
            self.assertEqual((delivery.state, self.receiver.requests), ("pending", []))
            self.config.write(back)
        self.dispatch()
        self.assertEqual(delivery.state, "sent")

    def get_method(self, name):
        return [Command.set(self.env["bj.http.method"].search([("name", "=", name)]).ids)]

    def test_others_stay(self):
        other = self.make_config(path="/other", name="Other")
        mine = self.enqueue(config=other)
        self.dispatch()
        unsent = self.enqueue(self.partners[1])
        unsent.write({"state": "dead", "url_source": False})  # as one that could not even be prepared
        self.redrive(is_sent=True)
        self.assertEqual((mine.attempt_count, unsent.state), (1, "dead"))

    def test_many_with_one_statement(self):
        self.env.cr.execute(
            "INSERT INTO bj_api_delivery (config_id, state, operation, method, model, target, url, url_source,"
            " record_id, idempotency_key, create_date)"
            " SELECT %s, 'dead', 'write', 'POST', 'res.partner', 'x:1', 'http://x:1', '{}', n,"
            " 'many-' || n, '2026-02-01' FROM generate_series(1, 10000) AS n",
            self.config.ids,
        )
        self.config.is_paused = True
        self.env.flush_all()
        choice = (self.config, ["dead"], datetime(2026, 2, 1))
        self.env["bj.api.delivery"]._wake_up()
        with self.assertQueryCount(2):  # and whether the dispatchers are woken already
            self.assertEqual(self.env["bj.api.delivery"]._redrive(*choice), 10000)
        self.env.cr.execute("SELECT count(DISTINCT next_attempt) FROM bj_api_delivery WHERE url = 'http://x:1'")
        self.assertEqual(self.env.cr.fetchone(), (1,))

    def test_who_may(self):
        for groups in ("bj_api_sync.group_user", "base.group_user"):
            user = new_test_user(self.env, groups, groups)
            with self.assertRaises(AccessError):
                self.env["bj.api.sync.redrive"].with_user(user).create({"config_id": self.config.id})
        manager = new_test_user(self.env, "manager", "bj_api_sync.group_manager")
        wizard = (
            self.env["bj.api.sync.redrive"]
            .with_user(manager)
            .create({"config_id": self.config.id, "date_from": datetime(2026, 1, 1)})
        )
        other = self.env["res.company"].create({"name": "Other"})
        self.config.user_id.company_ids |= other
        self.config.company_id = other
        self.env.invalidate_all()
        with self.assertRaises(AccessError):
            wizard.action_send()
        self.config.company_id = manager.company_id
        self.assertTrue(wizard.action_send())

    def test_button(self):
        """The wizard knows the configuration whose deliveries are shown, or chosen."""
        shown = self.env["bj.api.delivery"].with_context(**self.config.action_open_deliveries()["context"])
        for deliveries in (shown, self.deliveries[:2]):
            context = deliveries.action_redrive()["context"]
            self.assertEqual(self.env["bj.api.sync.redrive"].with_context(**context).new({}).config_id, self.config)

    def test_form(self):
        with Form(self.env["bj.api.sync.redrive"].with_context(default_config_id=self.config.id)) as form:
            self.assertEqual(form.count, 0)
            form.date_from = datetime(2026, 1, 1)
            self.assertEqual(form.count, 2)
            form.is_sent = True
            self.assertEqual((form.count, form.has_more), (4, False))
            with patch.object(bj_api_sync_redrive, "MOST_COUNTED", 2):
                form.is_dead = False
                self.assertEqual((form.count, form.has_more), (2, False))
                form.is_dead = True
                self.assertEqual((form.count, form.has_more), (2, True))


@tagged("post_install", "-at_install")
class TestDispatchers(DeliveryCase):
    """How many scheduled actions send."""

    def settings(self, **values):
        settings = self.env["res.config.settings"].create(values)
        settings.execute()
        return self.env["res.config.settings"].create({}).bj_api_sync_dispatchers

    def crons(self):
        return self.env["ir.cron"].with_context(active_test=False).search([("code", "=", "model._cron_dispatch()")])

    def test_more_and_fewer(self):
        self.assertEqual(self.settings(), 1)
        self.assertEqual(self.settings(bj_api_sync_dispatchers=3), 3)
        self.assertEqual(len(self.crons()), 3)
        self.assertEqual(set(self.crons().mapped("name")), {"BJ API: send deliveries"})
        self.assertEqual(len(self.env["bj.api.delivery"]._get_dispatcher_ids()), 3)
        self.assertEqual(self.settings(bj_api_sync_dispatchers=1), 1)
        self.assertEqual(self.crons().mapped("active").count(True), 1)
        self.assertEqual(
            self.env["bj.api.delivery"]._get_dispatcher_ids(), self.env.ref("bj_api_sync.cron_dispatch")._ids
        )
        self.assertEqual(self.settings(bj_api_sync_dispatchers=2), 2)
        self.assertEqual(len(self.crons()), 3, "archived ones come back")

    def test_copies_by_hand(self):
        for _copy in range(9):
            self.crons()[:1].copy()
        self.assertEqual(self.settings(), 10, "left alone")
        self.assertEqual(self.settings(bj_api_sync_dispatchers=8), 8)

    def test_range(self):
        for count in (0, -1, 9):
            with self.assertRaisesRegex(ValidationError, "Between 1 and 8"):
                self.settings(bj_api_sync_dispatchers=count)
        self.crons().active = False  # as in a neutralized copy
        self.assertEqual(self.settings(), 0)

    def test_wake_up(self):
        self.settings(bj_api_sync_dispatchers=2)
        self.env["ir.cron.trigger"].search([]).unlink()
        self.enqueue()
        self.assertEqual(self.env["ir.cron.trigger"].search([]).cron_id, self.crons())
