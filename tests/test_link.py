import json
from datetime import timedelta
from unittest.mock import patch

from odoo.exceptions import AccessError, UserError, ValidationError
from odoo.fields import Command, Datetime
from odoo.tests import HttpCase, new_test_user, tagged
from odoo.tools import SQL

from ..tools.plan import Operation
from .common import TOKEN, ApiHttpCase
from .test_delivery import DeliveryCase

METHODS = ("get", "post", "put", "patch", "delete")
WHOLE = {"name": "Theirs", "address": {"city": "Wien"}}


class TwoWayCase(DeliveryCase, HttpCase):
    """Partners that go out and come in, and a rule that sends every change of them."""

    call, assert_answer = ApiHttpCase.call, ApiHttpCase.assert_answer

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.inbound = cls.make_inbound()
        cls.config.write({"counterpart_id": cls.inbound.id, "filter_domain": "[('ref', '!=', False)]"})

    def setUp(self):
        super().setUp()
        self.rule = self.make_rule(self.make_action(), fields=())

    @classmethod
    def make_inbound(cls, **values):
        methods = [cls.env.ref(f"bj_api_sync.http_method_{name}").id for name in METHODS]
        values = {"request_type": "in", "endpoint": "peers", "record_id_type": "identifier", **values}
        credentials = {"authorization_type": "bearer", "bearer_token": TOKEN}
        values = {"http_method_ids": [Command.set(methods)], "name": "Partners in", **values}
        return cls.make_config(**credentials, **values)

    def add_date(self):
        """Have both sides tell when they changed a record."""
        field = self.env["ir.model.fields"]._get("res.partner", "write_date").id
        for config in (self.config, self.inbound):
            config.line_ids = [Command.create({"field_id": field, "external_key": "changed"})]

    def add_kids(self, *names, **keys):
        """Have both sides tell of children, by a Mapping Model with some fields: field name = key."""
        keys = {"ref": "code"} | {name: name for name in names} | keys
        lines = [
            Command.create(
                {
                    "field_id": self.env["ir.model.fields"]._get("res.partner", name).id,
                    "external_key": key,
                    "is_record_identifier": name == "ref",
                }
            )
            for name, key in keys.items()
        ]
        kid = self.make_inbound(endpoint=False, http_method_ids=False, line_ids=lines)
        values = {"external_key": "kids", "value_type": "relational", "mapping_config_id": kid.id}
        values["field_id"] = self.env["ir.model.fields"]._get("res.partner", "child_ids").id
        for config in (self.config, self.inbound):
            config.line_ids = [Command.create(values)]
        self.config.filter_domain = "[('ref', '!=', False), ('parent_id', '=', False)]"

    def add_country(self):
        """Have both sides tell of the country, by a Mapping Model; how it comes in is at its defaults."""
        ref = self.env["ir.model.fields"]._get
        code = {"field_id": ref("res.country", "code").id, "external_key": "iso", "is_record_identifier": True}
        name = {"field_id": ref("res.country", "name").id, "external_key": "label"}
        country = self.make_inbound(
            name="Countries",
            model_id=self.env["ir.model"]._get_id("res.country"),
            endpoint=False,
            http_method_ids=False,
            line_ids=[Command.create(code), Command.create(name)],
        )
        line = {"external_key": "country", "value_type": "relational", "mapping_config_id": country.id}
        line |= {"field_id": ref("res.partner", "country_id").id}
        for config in (self.config, self.inbound):
            config.line_ids = [Command.create(line)]
        self.partner.country_id = self.env.ref("base.at")

    def receive(self, payload=None, code="P1", status=200, method="PATCH", **headers):
        """Let something come in; return the body of the answer."""
        payload = WHOLE if payload is None else payload
        return self.assert_answer(self.call(method, f"/peers/{code}", payload, headers=headers), status)

    def receive_list(self, items, status=200):
        return self.assert_answer(self.call("POST", "/peers", items), status)

    def queued(self, *states):
        """The deliveries that were queued, oldest first."""
        self.env.cr.flush()
        domain = [("config_id", "=", self.config.id), *([("state", "in", states)] if states else [])]
        return self.env["bj.api.delivery"].search(domain, order="id")

    def link(self, partner=None):
        domain = [("config_id", "=", self.config.id), ("record_id", "=", (partner or self.partner).id)]
        return self.env["bj.api.link"].search(domain)

    def agree(self):
        """Have both sides know the partner as it is."""
        self.partner.name = "Agreed"
        self.queued()
        self.dispatch()
        self.assertEqual(self.link().delivery_id.state, "sent")
        self.receiver.clear()

    def dispute(self, policy, status=None):
        """Change the partner here after both sides agreed; ``status`` is what the other system answers to that."""
        self.agree()
        self.config.conflict_policy = policy
        self.partner.name = "Ours"
        delivery = self.queued()[-1]
        if status:
            self.receiver.on("/partners", status=status)
            self.dispatch()
        return delivery

    def sent_names(self):
        """Send what is queued; return the names that the other system got."""
        self.queued()
        self.pass_time(10)
        self.dispatch()
        return [request.json["name"] for request in self.receiver.requests if request.path == "/partners"]


@tagged("post_install", "-at_install")
class TestEcho(TwoWayCase):
    """What just came in is not sent back, and nothing else is kept back."""

    def test_nothing_back(self):
        self.receive_list([{"code": "N1", "name": "New"}, {"code": "P1", "name": "Known"}])
        self.receive()
        self.assertFalse(self.queued())
        self.assertEqual(self.link().direction, "in")
        self.assertEqual(self.link().external_id, "P1")

    def test_change_after_it_came_in(self):
        self.receive()
        self.partner.city = "Linz"
        self.assertEqual(len(self.queued()), 1)

    def test_there_and_back_again(self):
        """A, B, A: the other system got B, so A is news; also if B is given up, or did not go yet."""
        for status in (200, 400, None):
            with self.subTest(status=status):
                self.receive({"name": "A"})
                self.receiver.on("/partners", status=status or 200)
                known = len(self.queued())
                self.partner.name = "B"
                self.queued()
                if status:
                    self.dispatch()
                self.partner.name = "A"
                self.assertEqual(len(self.queued()), known + 2)
                self.receiver.clear()
                self.assertEqual(self.sent_names()[-1], "A")

    def test_same_transaction(self):
        """What is changed here after it came in, and before the commit, is news."""
        endpoint = self.env["bj.api.sync.inbound"]._endpoint("peers")
        self.env["bj.api.sync.inbound"]._handle(endpoint, Operation("PATCH", "P1", {}, WHOLE))
        self.partner.city = "Linz"
        self.assertEqual(self.sent_names(), ["Theirs"])
        self.assertEqual(self.receiver.requests[0].json["address"]["city"], "Linz")

    def test_what_they_make_of_it(self):
        """A peer that keeps half of what it gets, and says so: that is what both know then."""
        self.agree()
        self.receive({"name": "Agr"})
        self.receive({"name": "Agr"})
        self.assertEqual(len(self.queued()), 1)
        self.assertEqual(self.partner.name, "Agr")

    def test_savepoints(self):
        """They run what waits for the commit, also in the middle of what comes in."""
        self.env["base.automation"].create(
            {
                "name": "Savepoint",
                "model_id": self.config.model_id.id,
                "trigger": "on_create_or_write",
                "action_server_ids": [
                    Command.create(
                        {
                            "name": "Savepoint",
                            "model_id": self.config.model_id.id,
                            "state": "code",
                            "code": "with_savepoint = env.cr.savepoint()\nwith_savepoint.close(rollback=False)",
                        }
                    )
                ],
            }
        )
        self.receive()
        self.assertFalse(self.queued())

    def test_date_of_change(self):
        """When a record was changed is sent, but is no difference."""
        self.add_date()
        self.config.conflict_policy = "odoo"
        self.receive({"name": "Same"})
        self.env.cr.execute("UPDATE res_partner SET write_date = write_date + interval '1h'")
        self.env.invalidate_all()
        self.config._enqueue(self.partner)
        self.assertFalse(self.queued())
        self.assertNotIn("conflicts", self.receive())

    def test_date_of_change_of_children(self):
        self.add_kids("name", write_date="changed")
        self.config.conflict_policy = "ask"
        kid = {"code": "K1", "name": "Kid", "changed": "2020-01-01T00:00:00Z"}
        self.receive({"kids": [kid]})
        self.env.cr.execute("UPDATE res_partner SET write_date = write_date + interval '1h'")
        self.env.invalidate_all()
        self.config._enqueue(self.partner)
        self.assertFalse(self.queued())
        self.assertNotIn("conflicts", self.receive({"name": "Other", "kids": [kid]}))

    def test_scheduled_push_and_everything_again(self):
        self.receive()
        self.env["bj.api.sync.push"]._enqueue_changes(self.config)
        self.assertNotIn(self.partner.id, self.queued().mapped("record_id"))
        self.config.action_push_again()
        self.env["bj.api.sync.push"]._enqueue_changes(self.config)
        self.assertIn(self.partner.id, self.queued().mapped("record_id"))

    def test_sent_at_once(self):
        """What code sends without a delivery is what went out last, too."""
        self.receive({"name": "A"})
        self.rule.active = False
        self.partner.name = "B"
        self.push()
        self.rule.active = True
        self.partner.name = "A"
        self.assertEqual(len(self.queued()), 1)

    def test_sent_at_once_in_vain(self):
        """It did not arrive, or nobody knows: that is not agreed on."""
        self.rule.active = False
        for policy, name in (("odoo", "Ours"), ("ask", "Ours"), ("remote", "Theirs")):
            with self.subTest(policy=policy):
                self.config.conflict_policy = policy
                self.receive({"name": "A"})
                self.partner.name = "Ours"
                self.receiver.on("/partners", status=503, times=1)
                self.assertFalse(self.push())
                self.receive()
                self.assertEqual(self.partner.name, name)
                self.link().unlink()

    def test_sent_at_once_in_vain_though_known(self):
        """What both know stays so, however it got there, and what waits for a decision keeps waiting."""
        self.rule.active = False
        for policy in ("odoo", "ask"):
            for last in ("came in", "sent at once", "sent by a delivery"):
                with self.subTest(policy=policy, last=last):
                    self.config.conflict_policy = policy
                    self.receive({"name": "A"})
                    if last != "came in":
                        self.partner.name = "B"
                        self.push() if last == "sent at once" else self.enqueue()
                        self.dispatch()
                    self.receiver.on("/partners", status=503, times=1)
                    self.assertFalse(self.push())
                    self.assertNotIn("conflicts", self.receive())
                    self.assertEqual(self.partner.name, "Theirs")
        self.partner.name = "Ours"
        self.assertIn("conflicts", self.receive({"name": "Asked"}))
        self.receiver.on("/partners", status=503, times=1)
        self.push()
        self.assertTrue(self.link().conflict_date)

    def test_sent_at_once_in_vain_while_it_waits(self):
        """Once its delivery arrived, both know it."""
        self.config.conflict_policy = "odoo"
        self.receive({"name": "A"})
        self.partner.name = "B"
        self.queued()
        self.receiver.on("/partners", status=503, times=1)
        self.assertFalse(self.push())
        self.assertEqual(self.sent_names()[-1], "B")
        self.assertNotIn("conflicts", self.receive())

    def test_sent_at_once_and_repeated(self):
        """Theirs is what they got then; what they told before is a change of theirs."""
        for name, left in (("B", "C"), ("A", "A")):
            with self.subTest(name=name):
                self.receive(WHOLE | {"code": "P1", "name": "A"})
                self.rule.active = False
                self.partner.name = "B"
                self.assertTrue(self.push())
                self.rule.active = True
                self.partner.name = "C"
                self.queued()
                self.receive(WHOLE | {"code": "P1", "name": name})
                self.assertEqual(self.partner.name, left)

    def push_at_once(self, name, left):
        """Change the name, send that at once, and leave another one that waits."""
        self.rule.active = False
        self.partner.name = name
        self.push()
        self.rule.active = True
        self.partner.name = left
        self.queued()
        return self.receiver.requests[-1].json

    def test_sent_at_once_in_another_order(self):
        """How the lines of one side are sorted is no difference."""
        self.receive({"name": "A"})
        for sequence, line in enumerate(reversed(self.inbound.line_ids)):
            line.sequence = sequence
        self.receive(self.push_at_once("B", "C"))
        self.assertEqual(self.partner.name, "C")

    def test_sent_at_once_with_links(self):
        """They repeat what they got, whatever is written of what it links to."""
        self.add_country()
        self.receive({"name": "A"})
        line = self.inbound.line_ids.filtered("mapping_config_id")
        for policy in ("link", "create", "upsert"):
            with self.subTest(policy=policy):
                line.relation_policy = policy
                self.receive(self.push_at_once("B", "C"))
                self.assertEqual(self.partner.name, "C")

    def test_sent_at_once_after_a_delivery(self):
        """What counts is what was sent last; what was not says nothing."""
        whole = {"code": "P1", "address": {"city": "Graz"}}
        for in_vain, told, left in (
            (False, "A", "A"),
            (False, "B", "B"),
            (False, "C", "D"),
            (True, "A", "A"),
            (True, "B", "D"),
            (True, "C", "C"),
        ):
            with self.subTest(in_vain=in_vain, told=told):
                self.receive(whole | {"name": "A"})
                self.partner.name = "B"
                self.queued()
                self.dispatch()
                self.receiver.on("/partners", status=503 if in_vain else 200, times=1)
                self.push_at_once("C", "D")
                self.receive(whole | {"name": told})
                self.assertEqual(self.partner.name, left)
                self.sent_names()

    def test_sent_at_once_by_anybody(self):
        """Who pushes need not be able to read what is sent, and makes no difference."""
        self.add_country()
        self.receive({"name": "A"})
        self.rule.active = False
        self.env["ir.model.access"].search([("model_id.model", "=", "res.country")]).unlink()
        values = {"name": "Countries", "model_id": self.env["ir.model"]._get_id("res.country"), "perm_read": True}
        self.env["ir.model.access"].create(values | {"group_id": self.env.ref("base.group_system").id})
        self.assertTrue(self.push())
        known = self.link().payload_hashes
        somebody = new_test_user(self.env, "somebody", "base.group_user")
        self.assertTrue(self.push(self.partner.with_user(somebody), self.config.with_user(somebody)))
        self.assertEqual(self.link().payload_hashes, known)
        self.assertEqual(len(self.logs()), 2)

    def test_new_mapping(self):
        """States of another mapping cannot be compared: neither an echo nor a conflict."""
        self.receive()
        field = self.env["ir.model.fields"]._get("res.partner", "street").id
        self.config.conflict_policy = "odoo"
        self.config.line_ids = [Command.create({"field_id": field, "external_key": "street"})]
        self.assertNotIn("conflicts", self.receive({"name": "Again"}))
        self.receive({"name": "Once more"})
        self.assertFalse(self.queued())

    def test_read_from_answer(self):
        """What the answer brings is agreed on."""
        self.read_back(self.config, comment="id")
        self.config.line_ids.filtered("response_key").external_key = "their_id"
        self.receiver.on("/partners", body={"id": "<p>77</p>"})
        self.agree()
        self.assertEqual(str(self.partner.comment), "<p>77</p>")
        self.config.conflict_policy = "odoo"
        self.assertNotIn("conflicts", self.receive())
        self.assertEqual(self.partner.name, "Theirs")
        self.receiver.on("/partners", body={"id": "<p>78</p>"})
        self.assertTrue(self.push())
        self.assertEqual(str(self.partner.comment), "<p>78</p>")
        self.assertNotIn("conflicts", self.receive({"name": "Next"}))

    def test_another_model(self):
        """What was told of the former one says nothing of it."""
        self.receive()
        self.assertTrue(self.config.link_ids)
        self.config.write({"model_id": self.config.model_id.id, "name": "The same"})
        self.assertTrue(self.config.link_ids)
        values = {"model_id": self.env["ir.model"]._get_id("res.country"), "filter_domain": "[]"}
        self.config.write(values | {"counterpart_id": False, "line_ids": [Command.clear()]})
        self.assertFalse(self.config.link_ids.exists())

    def test_configurations_that_are_no_pair(self):
        """They have no links, and cost nothing."""
        self.config.counterpart_id = False
        self.receive()
        self.assertEqual(len(self.queued()), 1)
        self.assertFalse(self.env["bj.api.link"].search([]))
        links, plan = self.env["bj.api.link"], self.env["bj.api.sync.mapper"]._plan(self.inbound.id)
        config = self.config.sudo()
        config._is_two_way()
        with self.assertQueryCount(0), links._receiving(plan, [], []), links._removing(self.inbound.id, self.partner):
            links._select_news(config, [], "write")
            links._note_queued(config, {}, [], [])
            links._note_pushed(config, links._read_pushed(config, []), True)

    def count_queries(self, records, name):
        """Change records here, let other changes come in, and count the queries of that up to the commit."""
        inbound = self.env["bj.api.sync.inbound"]
        endpoint = inbound._endpoint("peers")
        records.write({"name": f"Ours {name}"})
        self.queued()
        items = [{"code": record.ref, **WHOLE, "name": name} for record in records]
        self.env.invalidate_all()
        before = self.env.cr.sql_log_count
        inbound._handle(endpoint, Operation("POST", "", {}, items))
        self.env.cr.flush()
        return self.env.cr.sql_log_count - before

    def test_queries(self):
        """What a pair costs does not depend on the number of records."""
        self.inbound.tracking_disable = True
        records = self.env["res.partner"].create([{"name": "Many", "ref": f"M{number}"} for number in range(40)])
        costs = {}
        for policy in ("", "remote", "odoo", "ask"):
            self.config.write({"counterpart_id": policy and self.inbound.id, "conflict_policy": policy or "remote"})
            self.count_queries(records[:1], f"{policy} warms up")
            few, many = (self.count_queries(some, f"Theirs {policy}") for some in (records[:2], records[2:]))
            costs[policy] = (few, many)
        for few, many in costs.values():
            self.assertLess(many, few + 5, costs)  # what Odoo keeps may be dropped at any time, and asked for again

    def test_queries_of_what_is_sent_at_once(self):
        """A pair costs one note per request."""
        self.add_country()
        self.rule.active = False
        records = self.partners.create([{"name": "Many", "ref": f"M{number}"} for number in range(12)])
        records.country_id = self.partner.country_id

        def count(records):
            self.env.invalidate_all()
            before = self.env.cr.sql_log_count
            self.assertTrue(self.push(records))
            return self.env.cr.sql_log_count - before

        costs = []
        for counterpart in (self.inbound, self.config.browse()):
            self.config.counterpart_id = counterpart
            count(records)
            costs.append(count(records) - count(records[:2]))
        self.assertLess(costs[0] - costs[1], 10 + 2, costs)


@tagged("post_install", "-at_install")
class TestConflict(TwoWayCase):
    """A record comes in that was changed here since both sides agreed."""

    def test_no_conflict(self):
        self.agree()
        for policy in ("odoo", "ask", "remote"):
            self.config.conflict_policy = policy
            self.assertNotIn("conflicts", self.receive({"name": policy}))
            self.assertEqual(self.partner.name, policy)
        self.assertEqual(len(self.queued()), 1)

    def test_their_echo(self):
        """A peer that sends back what it just got, before it answered."""
        delivery = self.dispute("ask")
        self.assertNotIn("conflicts", self.receive({"name": "Ours", "address": {"city": "Graz"}}))
        self.assertEqual(delivery.state, "pending")
        self.assertEqual(self.sent_names(), ["Ours"])

    def test_remote_wins(self):
        delivery = self.dispute("remote")
        self.assertNotIn("conflicts", self.receive())
        self.assertEqual((self.partner.name, delivery.state), ("Theirs", "cancelled"))
        self.assertEqual(self.sent_names(), [])
        self.partner.name = "Ours"
        self.assertEqual(self.sent_names(), ["Ours"])

    def test_remote_wins_in_part(self):
        """What they did not tell of remains ours, and is sent."""
        delivery = self.dispute("remote")
        self.partner.city = "Linz"
        self.receive({"name": "Theirs"})
        self.assertEqual(delivery.state, "cancelled")
        self.assertEqual(self.sent_names(), ["Theirs"])
        self.assertEqual(self.receiver.requests[0].json["address"]["city"], "Linz")

    def test_remote_wins_in_part_of_children(self):
        """So does what they did not tell of a child, and a child they did not tell of, unless that one is removed."""
        self.add_kids("name", "function")
        Kid = self.env["res.partner"].with_context(default_parent_id=self.partner.id)
        for told, removing, left in (
            ([{"code": "K1", "name": "Theirs"}], True, "Cook"),
            ([{"code": "K1", "name": "Theirs", "function": "Boss"}], False, "K2"),
            ([{"code": "K1", "name": "Theirs", "function": "Boss"}], True, ""),
        ):
            with self.subTest(told=told, removing=removing):
                self.inbound.line_ids.filtered("mapping_config_id").remove_missing = removing
                self.partner.child_ids.unlink()
                kids = Kid.create([{"ref": "K1", "name": "Kid", "function": "Clerk"}, {"ref": "K2", "name": "Second"}])
                self.dispute("remote")
                kids[0].function = "Cook"
                self.receive({**WHOLE, "kids": told})
                self.sent_names()
                bodies = [request.body for request in self.receiver.requests]
                self.assertEqual([left in body for body in bodies], [True] if left else [])

    def test_remote_wins_while_ours_is_on_its_way(self):
        """It may arrive after theirs went: what counts is sent once more, a little later."""
        delivery = self.dispute("remote")
        self.env.flush_all()
        self.env.cr.execute("UPDATE bj_api_delivery SET state = 'sending' WHERE id = %s", [delivery.id])
        self.env.invalidate_all()
        self.receive()
        later = self.queued()[-1]
        self.assertNotEqual(later, delivery)
        self.assertIn("Theirs", later.body_text)
        self.assertGreater(later.next_attempt, later.create_date)
        self.env.cr.execute("UPDATE bj_api_delivery SET state = 'sent', attempt_count = 1 WHERE id = %s", delivery.ids)
        self.env.invalidate_all()
        self.receive(WHOLE | {"name": "Ours"})
        self.assertEqual((self.partner.name, later.state), ("Ours", "cancelled"), "they took ours meanwhile")

    def test_odoo_wins(self):
        delivery = self.dispute("odoo")
        answer = self.receive()
        self.assertEqual(answer["data"]["name"], "Ours")
        self.assertEqual(answer["conflicts"][0]["index"], 0)
        self.assertEqual((self.partner.name, delivery.state), ("Ours", "pending"))
        self.assertEqual(self.sent_names(), ["Ours"])
        self.assertNotIn("conflicts", self.receive())

    def test_odoo_wins_after_it_gave_up(self):
        delivery = self.dispute("odoo", status=400)
        self.assertEqual(delivery.state, "dead")
        self.receiver.clear()
        self.receive()
        self.assertEqual(self.sent_names(), ["Ours"])

    def test_they_refuse_and_post_theirs(self):
        """Ours is sent again a few times; then theirs is what they make of it."""
        self.dispute("odoo", status=400)
        for _time in range(3):
            self.assertIn("conflicts", self.receive())
            self.sent_names()
        self.assertNotIn("conflicts", self.receive())
        self.assertEqual(self.sent_names(), ["Ours"] * 4)
        self.assertEqual(self.partner.name, "Theirs")
        self.partner.name = "Ours"
        self.sent_names()
        self.assertIn("conflicts", self.receive({"name": "Others"}))

    def test_odoo_wins_before_it_was_queued(self):
        self.receive({"name": "A"})
        self.config.conflict_policy = "odoo"
        self.rule.active = False  # as with a scheduled push
        self.partner.name = "Ours"
        self.receive()
        self.assertEqual(self.sent_names(), ["Ours"])

    def test_newest(self):
        self.add_date()
        for offset, name in ((1, "Theirs"), (-1, "Ours")):
            self.dispute("newest")
            date = self.partner.write_date + timedelta(hours=offset)
            self.receive(WHOLE | {"changed": f"{date.isoformat(timespec='seconds')}Z"})
            self.assertEqual(self.partner.name, name)
        self.dispute("newest")
        for wrong in ({}, {"changed": None}, {"changed": "yesterday"}):
            self.assertIn("conflicts", self.receive(WHOLE | wrong), wrong)
            self.assertTrue(self.link().conflict_date)

    def test_what_they_told_before(self):
        """It is no change of theirs: ours is newer, whoever wins else."""
        self.receive()
        self.config.conflict_policy = "remote"
        self.partner.name = "Ours"
        self.assertIn("conflicts", self.receive())
        self.assertEqual(self.sent_names(), ["Ours"])
        self.assertNotIn("conflicts", self.receive())
        self.assertEqual(self.partner.name, "Theirs")

    def test_what_they_told_in_parts(self):
        """Each value is known as they told it last, however it is put together."""
        graz, linz = ({"code": "P1", "name": "A", "address": {"city": city}} for city in ("Graz", "Linz"))
        for told, ours, repeated in (
            ([graz], ("name", "B"), {"name": "A"}),
            ([graz, {"address": {"city": "Linz"}}], ("city", "Wien"), linz),
        ):
            with self.subTest(repeated=repeated):
                for payload in told:
                    self.receive(payload)
                name, value = ours
                self.partner[name] = value
                delivery = self.queued()[-1]
                self.receive(repeated)
                self.assertEqual((self.partner[name], delivery.state), (value, "pending"))
                self.receive(repeated | {"name": "Theirs"})
                self.assertEqual(self.partner.name, "Theirs")
                self.sent_names()

    def test_what_they_told_before_ours_arrived(self):
        """It is known no more once they got something else, though they tell of another part since."""
        self.receive({"code": "P1", "name": "A", "address": {"city": "Graz"}})
        self.partner.name = "B"
        self.sent_names()
        self.receive({"address": {"city": "Linz"}})
        self.partner.name = "C"
        self.queued()
        self.receive({"name": "A"})
        self.assertEqual(self.partner.name, "A")

    def test_what_they_told_while_ours_waits(self):
        """It is known, also where it is ours: what is changed here then is newer."""
        whole = {"code": "P1", "address": {"city": "Graz"}}
        for repeated, left in (("B", "C"), ("A", "A")):
            with self.subTest(repeated=repeated):
                self.receive(whole | {"name": "A"})
                self.partner.name = "B"
                self.queued()
                self.receive(whole | {"name": "B"})
                self.partner.name = "C"
                self.queued()
                self.receive(whole | {"name": repeated})
                self.assertEqual(self.partner.name, left)
                self.sent_names()

    def assert_kept(self, payload, delivery):
        """What comes in is no news: ours stays, and nobody is asked."""
        count = len(self.queued())
        self.receive(payload)
        self.assertEqual(self.partner.name, "Ours")
        self.assertFalse(self.link().conflict_date)
        self.assertNotEqual(delivery.state, "cancelled")
        self.assertEqual(len(self.queued()), count)

    def test_what_they_have_from_us(self):
        """They repeat what they got: whatever else there is to it, they changed nothing."""
        self.add_date()
        again = {
            "code": "P1",
            "name": "Agreed",
            "address": {"city": "Graz", "zip": "8010"},
            "changed": "2099-01-01T00:00:00Z",
        }
        for policy in ("remote", "ask", "newest"):
            for status in (None, 503, 400):
                with self.subTest(policy=policy, status=status):
                    delivery = self.dispute(policy, status)
                    for payload in (again, {"name": "Agreed"}):
                        self.assert_kept(payload, delivery)
                    self.partner.city = "Linz"  # as they have it: no change of theirs either
                    self.receive({"name": "Agreed", "address": {"city": "Linz"}})
                    self.assertEqual((self.partner.name, self.partner.city), ("Ours", "Linz"))
                    self.partner.city = "Graz"
                    self.queued()
                    self.receiver.clear()
                    self.pass_time()
                    self.assertEqual(self.sent_names()[-1], "Ours")

    def test_what_they_have_from_us_in_a_list(self):
        self.add_kids("name")
        self.config.is_paginated = True
        kid = self.partner.create({"name": "Kid", "ref": "K1", "parent_id": self.partner.id})
        (self.partners[1] | self.partner).name = "Agreed"
        self.queued()
        self.dispatch()
        [body] = [request.json for request in self.receiver.requests if len(request.json) == 2]
        self.assertEqual(len(body), 2)
        kid.name = "Ours"
        self.partner.name = "Ours"
        delivery = self.queued()[-1]
        self.assert_kept(next(item for item in body if item["code"] == "P1"), delivery)
        self.assertEqual(kid.name, "Ours")

    def test_what_they_have_from_us_of_links(self):
        """What is not told of a record, or does not count, is no difference."""
        self.add_country()
        kid = self.partner.create({"name": "Kid", "ref": "K1", "function": "Cook", "parent_id": self.partner.id})
        self.add_kids("name", "function")
        country = self.inbound.line_ids.filtered(lambda line: line.external_key == "country")
        for policy, shown in (("link", {"iso": "AT", "label": "x"}), ("create", "AT"), ("upsert", {"iso": "AT"})):
            with self.subTest(policy=policy):
                country.relation_policy = policy
                delivery = self.dispute("remote")
                kid.name = "Ours"
                self.queued()
                told = {"name": "Agreed", "country": shown, "kids": [{"code": "K1", "name": "Kid"}]}
                self.assert_kept(told, delivery)
                self.assertEqual(kid.name, "Ours")
                self.receive(told | {"kids": [{"code": "K1", "name": "Theirs"}]})
                self.assertEqual((self.partner.name, kid.name), ("Agreed", "Theirs"))
                kid.name = "Kid"
                self.queued()
                self.dispatch()

    def test_what_may_have_arrived(self):
        """They post back what came without an answer, or before they answer."""
        for state in ("failed", "sending"):
            with self.subTest(state=state):
                self.dispute("remote", 503)
                self.env.cr.execute(
                    "UPDATE bj_api_delivery SET state = %s, claim = %s WHERE id = %s",
                    [state, "somebody" if state == "sending" else None, self.queued()[-1].id],
                )
                self.env.invalidate_all()
                self.partner.name = "Newest"
                self.receive({"name": "Agreed"})
                self.receive({"name": "Ours"})
                self.assertEqual(self.partner.name, "Newest")
                self.receive({"name": "Theirs"})
                self.assertEqual(self.partner.name, "Theirs")
                self.env.cr.execute(
                    "UPDATE bj_api_delivery SET state = 'cancelled', claim = NULL WHERE state <> 'sent'"
                )
                self.env.invalidate_all()
                self.receiver.clear()

    def test_what_is_on_its_way(self):
        """It is not sent once more: they only repeat what they have until it arrives."""
        delivery = self.dispute("remote")
        self.env.cr.execute("UPDATE bj_api_delivery SET state = 'sending', claim = 'x' WHERE id = %s", delivery.ids)
        self.env.invalidate_all()
        self.assert_kept({"name": "Agreed"}, delivery)

    def test_there_and_back_again_with_them(self):
        """A came in, B arrived there, C waits: A again is a change of theirs."""
        for policy, name in (("remote", "A"), ("ask", "C"), ("odoo", "C")):
            with self.subTest(policy=policy):
                self.config.conflict_policy = policy
                self.receive({"name": "A"})
                for state in "BC":
                    self.partner.name = state
                    self.queued()
                    if state == "B":
                        self.dispatch()
                self.receive({"name": "A"})
                self.assertEqual(self.partner.name, name)
                self.assertEqual(bool(self.link().conflict_date), policy == "ask")
                self.link().action_keep_ours()
                self.sent_names()

    def test_cancelled_by_hand(self):
        """What was not sent did not arrive."""
        delivery = self.dispute("ask")
        delivery.action_cancel()
        self.assertIn("conflicts", self.receive())
        self.assertTrue(self.link().conflict_date)

    def test_retry_of_what_was_overruled(self):
        """It would have the sides differ."""
        for policy in ("remote", "ask"):
            with self.subTest(policy=policy):
                delivery = self.dispute(policy)
                self.receive()
                self.assertEqual(delivery.state, "cancelled")
                with self.assertRaisesRegex(UserError, "told of them since"):
                    delivery.action_retry()
                again = (self.config, ["cancelled"], delivery.create_date)
                self.assertEqual(self.env["bj.api.delivery"]._redrive(*again), 0)
                self.assertEqual(self.env["bj.api.delivery"]._redrive(*again, only_newest=False), 1)
                delivery.action_cancel()
        self.link().action_keep_ours()
        self.partner.name = "Mine"
        delivery = self.queued()[-1]
        delivery.action_cancel()
        delivery.action_retry()
        self.assertEqual(self.sent_names()[-1], "Mine")

    def send_again(self, states):
        """Send again what is not overtaken; return the names that went."""
        self.receiver.clear()
        self.env["bj.api.delivery"]._redrive(self.config, states, self.queued()[0].create_date)
        return self.sent_names()

    def test_send_again_after_its_echo(self):
        """What they tell as they got it overtakes nothing; anything else does."""
        self.receive({"name": "A"})
        for name in "BC":
            self.partner.name = name
            self.sent_names()
        self.receive({"name": "C"})
        self.assertEqual(self.send_again(["sent"]), ["B", "C"])
        self.receive({"name": "D"})
        self.assertEqual(self.send_again(["sent"]), [])

    def test_send_again_after_the_echo_of_another(self):
        """They may tell what did not arrive: it is later than what did."""
        self.config.conflict_policy = "remote"
        self.receive({"name": "A"})
        self.partner.name = "B"
        self.sent_names()
        self.partner.name = "C"
        self.queued()
        for name in "DC":
            self.receive({"code": "P1", "name": name, "address": {"city": "Graz"}})
        self.assertEqual((self.link().in_hash, self.partner.name), (self.link().out_hash, "C"))
        self.assertEqual(self.send_again(["sent"]), [])

    def test_retry_after_it_was_sent_at_once(self):
        """What was sent at once since is newer."""
        delivery = self.dispute("remote", 400)
        self.receiver.clear()
        self.rule.active = False
        self.partner.name = "Newer"
        self.assertTrue(self.push())
        with self.assertRaises(UserError):
            delivery.action_retry()
        self.assertEqual(self.send_again(["dead"]), [])

    def test_pull_of_what_they_have_from_us(self):
        pull = self.make_config("GET", "/all", name="Pull", is_pull=True)
        self.config.counterpart_id = pull
        delivery = self.dispute("remote", 503)
        self.receiver.on("/all", body=[{"code": "P1", "name": "Agreed", "address": {"city": "Graz"}}])
        pull._pull()
        self.assertEqual((self.partner.name, delivery.state), ("Ours", "failed"))

    def test_pull(self):
        """What is pulled is not sent back, and meets the same policy."""
        pull = self.make_config("GET", "/all", name="Pull", is_pull=True)
        self.config.counterpart_id = pull
        items = [{"code": "P1", **WHOLE}, {"code": "N9", "name": "New"}]
        self.receiver.on("/all", body=items)
        pull._pull()
        self.assertEqual(self.partner.name, "Theirs")
        self.assertFalse(self.queued())
        self.partner.name = "Ours"
        pull._pull()
        self.assertEqual(self.partner.name, "Ours")
        self.assertEqual(self.sent_names()[-1], "Ours")
        self.config.conflict_policy = "ask"
        self.partner.name = "Ours again"
        items[0]["name"] = "Theirs again"
        self.receiver.clear()
        self.receiver.on("/all", body=items)
        pull._pull()
        self.assertEqual(self.partner.name, "Ours again")
        self.link().action_take_theirs()
        self.assertEqual(self.partner.name, "Theirs again")

    def test_page_that_is_older_than_what_arrived(self):
        """It does not know that: what is here stays until the next pull, whoever wins."""
        room = self.env["bj.api.sync.pull"]
        pull = self.make_config("GET", "/all", name="Pull", is_pull=True)
        self.config.counterpart_id = pull

        def send():
            self.partner.name = "Ours"
            self.queued()
            self.dispatch()

        def send_at_once():
            self.rule.active = False
            self.partner.name = "Ours"
            self.assertTrue(self.push())
            self.rule.active = True

        def send_and_change():
            send()
            self.partner.name = "Newer"
            self.queued()

        for policy in ("odoo", "ask", "remote"):
            for number, send_meanwhile in enumerate((send, send_at_once, send_and_change)):
                with self.subTest(policy=policy, send=send_meanwhile.__name__):
                    self.config.conflict_policy = policy
                    items = [{"code": "P1", **WHOLE, "name": f"Theirs {policy} {number}"}]
                    self.receiver.clear()
                    self.receiver.on("/all", body=items)
                    pull._pull()
                    self.assertEqual(self.partner.name, items[0]["name"])
                    with patch.object(type(room), "_lock", lambda *args, send=send_meanwhile: send()):
                        pull._pull()
                    ours = self.partner.name
                    self.assertIn(ours, ("Ours", "Newer"))
                    self.assertFalse(self.link().conflict_date)
                    self.assertEqual(self.sent_names()[-1], ours)
                    items[0]["name"] = f"Next {policy} {number}"
                    pull._pull()
                    self.assertEqual(self.partner.name, items[0]["name"])

    def ask(self):
        delivery = self.dispute("ask")
        self.assertIn("conflicts", self.receive())
        self.assertEqual((self.partner.name, delivery.state), ("Ours", "cancelled"))
        self.assertEqual(json.loads(self.link().conflict_payload), WHOLE)
        return self.link()

    def test_ask(self):
        link = self.ask()
        self.assertIn("Conflicts", self.config.activity_ids.summary)
        self.partner.city = "Linz"
        self.assertEqual(self.sent_names(), [], "nothing is sent until somebody decided")
        self.receive({"name": "Ours", "address": {"zip": "1010"}})
        kept = {"name": "Ours", "address": {"city": "Wien", "zip": "1010"}}
        self.assertEqual(json.loads(link.conflict_payload), kept)
        self.assertEqual(len(self.config.activity_ids), 1)
        self.assertIn("Linz", link.ours)
        self.assertIn("Wien", link.theirs)

    def test_take_theirs(self):
        link = self.ask()
        link.action_take_theirs()
        self.assertEqual((self.partner.name, self.partner.city), ("Theirs", "Wien"))
        self.assertFalse(link.conflict_date or link.conflict_payload)
        self.assertEqual(self.sent_names(), ["Theirs"])
        self.assertNotIn("conflicts", self.receive({"name": "Next"}))

    def test_payloads_that_no_column_holds(self):
        """What is not mapped is no fault, in a conflict neither."""
        self.dispute("ask")
        for number, note in enumerate((r'"\u0000"', r'"\ud800"', "1e999", "9" * 400)):
            body = f'{{"name": "Theirs {number}", "\\u0000": 1, "note": {note}}}'
            headers = {"Content-Type": "application/json"}
            answer = self.assert_answer(self.call("PATCH", "/peers/P1", data=body, headers=headers), 200)
            self.assertIn("conflicts", answer, note)
            self.assertIn(f"Theirs {number}", self.link().theirs)
        self.link().action_take_theirs()
        self.assertEqual(self.partner.name, "Theirs 3")

    def test_keep_ours(self):
        link = self.ask()
        self.partner.name = "Agreed"  # as it was when both agreed: they have another one
        link.action_keep_ours()
        self.assertEqual(self.sent_names(), ["Agreed"])
        self.assertFalse(link.conflict_date or link.conflict_payload)

    def test_deleted_meanwhile(self):
        link = self.ask()
        self.partner.unlink()
        link.invalidate_recordset()
        self.assertIn("deleted", link.ours)
        with self.assertRaisesRegex(UserError, "deleted here"), self.env.cr.savepoint():
            link.action_take_theirs()
        link.action_keep_ours()
        self.assertFalse(link.conflict_date)
        self.assertEqual(self.sent_names(), [])

    def test_no_pair_any_more(self):
        link = self.ask()
        self.config.counterpart_id = False
        with self.assertRaises(UserError):
            link.action_take_theirs()
        link.action_keep_ours()
        self.assertEqual(self.sent_names(), ["Ours"])

    def test_settled_by_themselves(self):
        link = self.ask()
        self.receive({"name": "Ours", "address": {"city": "Graz"}})
        self.assertFalse(link.conflict_date)
        self.assertEqual(link.direction, "in")

    def test_other_policy_meanwhile(self):
        link = self.ask()
        self.config.conflict_policy = "remote"
        self.receive({"name": "In part"})
        self.assertFalse(link.conflict_date)
        self.assertEqual(self.sent_names(), ["In part"])

    def test_two_outbound_configurations(self):
        """What one of them keeps from being written is not withdrawn for the other one."""
        other = self.make_config(name="A first one", counterpart_id=self.inbound.id)
        self.make_rule(self.make_action(other), fields=())
        self.add_date()
        for policies in (("remote", "odoo"), ("newest", "odoo"), ("remote", "newest"), ("newest", "ask")):
            with self.subTest(policies=policies):
                other.conflict_policy = policies[0]
                self.dispute(policies[1])
                date = "2000-01-01T00:00:00Z" if policies[1] == "newest" else "2100-01-01T00:00:00Z"
                self.receive(WHOLE | {"name": f"Theirs {policies}", "changed": date})
                self.assertEqual(self.partner.name, "Ours")
                self.env.cr.flush()
                waiting = other.delivery_ids.filtered(lambda delivery: delivery.state == "pending")
                self.assertEqual(waiting.mapped("record_id"), self.partner.ids)

    def test_dry_run(self):
        self.dispute("ask")
        endpoint = self.env["bj.api.sync.inbound"]._endpoint("peers")
        known = self.queued().mapped("state")
        with self.assertRaises(ZeroDivisionError), self.env.cr.savepoint():
            operation = Operation("PATCH", "P1", {}, WHOLE, dry_run=True)
            answer = self.env["bj.api.sync.inbound"]._handle(endpoint, operation)
            raise ZeroDivisionError  # as the transport does it: all is rolled back
        self.assertEqual((answer.body["changes"], len(answer.body["conflicts"])), ({}, 1))
        self.assertFalse(self.link().conflict_date)
        self.assertEqual(self.queued().mapped("state"), known)

    def test_list(self):
        """One item of a list in conflict, one that is faulty, one that is written, one new."""
        self.dispute("odoo")
        items = [{"code": code, "name": "Theirs"} for code in ("P2", "P1", "P3", "N9")]
        answer = self.receive_list([*items, {"code": "P4", "name": 5}], 207)
        self.assertEqual([item["name"] for item in answer["data"]], ["Theirs", "Ours", "Theirs", "Theirs"])
        self.assertEqual(answer["meta"], {"created": 1, "updated": 2, "failed": 1})
        self.assertEqual([item["index"] for item in answer["conflicts"]], [1])
        self.assertEqual(self.sent_names(), ["Ours"])

    def test_archived_configuration(self):
        """It asks nobody and keeps track: once it is on again, nothing counts as changed here."""
        self.dispute("odoo")
        self.config.active = False
        self.receive()
        self.assertEqual(self.partner.name, "Theirs")
        self.config.active = True
        self.assertNotIn("conflicts", self.receive({"name": "Next"}))


@tagged("post_install", "-at_install")
class TestRemoval(TwoWayCase):
    """Deletions, which go out by a configuration of their own."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.gone = cls.make_config("DELETE", "/partners/{code}", name="Gone", counterpart_id=cls.inbound.id)
        cls.env.cr.execute("UPDATE res_partner SET create_date = '2020-01-01' WHERE id = ANY(%s)", [cls.partners.ids])
        cls.partners.invalidate_recordset()

    def setUp(self):
        super().setUp()
        self.make_rule(self.make_action(self.gone), trigger="on_unlink")

    def told(self):
        self.env.cr.flush()
        return self.env["bj.api.delivery"].search([("config_id", "=", self.gone.id)]).mapped("record_id")

    def test_not_told_back(self):
        self.receive("", method="DELETE")
        self.assertFalse(self.partner.exists())
        self.assertEqual(self.told(), [])
        second = self.partners[1].id
        self.partners[1].unlink()
        self.assertEqual(self.told(), [second])

    def test_listed(self):
        self.assert_answer(self.call("DELETE", "/peers", ["P1", "P2"]), 200)
        self.assertEqual(self.told(), [])

    def test_archived(self):
        self.inbound.delete_policy = "archive"
        self.make_rule(self.make_action(self.gone), trigger="on_archive")
        self.receive("", method="DELETE")
        self.assertFalse(self.partner.active)
        self.assertEqual(self.told(), [])
        self.assertFalse(self.queued())
        self.partner.active = True
        self.partner.active = False
        self.assertEqual(self.told(), self.partner.ids)

    def test_changed_here(self):
        delivery = self.dispute("odoo")
        answer = self.receive("", method="DELETE", status=409)
        self.assertIn("changed here", answer["message"])
        self.assertTrue(self.partner.exists())
        self.config.conflict_policy = "remote"
        self.receive("", method="DELETE")
        self.assertEqual(delivery.state, "cancelled")

    def test_came_in_again(self):
        """What comes in of a record whose deletion waits takes that back: both have it, not one of them."""
        self.receive()
        self.partner.name = "Ours"
        self.env.cr.flush()
        [change] = self.queued()
        self.partner.unlink()
        self.assertEqual(self.told(), self.partner.ids)
        deletion = self.env["bj.api.delivery"].search([("config_id", "=", self.gone.id)])
        self.assertEqual((deletion.identifier, change.identifier), ("P1", "P1"))
        self.receive_list([WHOLE | {"code": "P1"}], status=201)
        self.assertEqual((change.state, deletion.state), ("cancelled", "cancelled"))
        self.env.cr.flush()
        self.assertFalse(self.queued() - change)

    def test_came_in_again_while_the_deletion_is_on_its_way(self):
        """Then they are told that the record is there again, after the deletion."""
        self.partner.unlink()
        self.env.cr.flush()
        deletion = self.env["bj.api.delivery"].search([("config_id", "=", self.gone.id)])
        self.env.cr.execute("UPDATE bj_api_delivery SET state = 'sending', claim = 'x'")
        deletion.invalidate_recordset()
        self.receive_list([WHOLE | {"code": "P1"}], status=201)
        self.env.cr.flush()
        [state] = self.queued()
        self.assertEqual((deletion.state, state.state, state.identifier), ("sending", "pending", "P1"))

    def test_came_in_again_after_the_deletion_was_given_up(self):
        self.config.counterpart_id = False  # changes are told by nobody
        self.partner.unlink()
        self.env.cr.flush()
        deletion = self.env["bj.api.delivery"].search([("config_id", "=", self.gone.id)])
        deletion._change(["pending"], SQL("state = 'dead'"))
        self.receive_list([WHOLE | {"code": "P1"}], status=201)
        self.assertEqual(deletion.state, "cancelled")

    def test_page_that_does_not_know_of_the_deletion(self):
        """What is asked for while it waits, or before it arrived, creates nothing again; what comes later does."""
        pull = self.make_config("GET", "/all", name="Pull", is_pull=True)
        self.config.counterpart_id = self.gone.counterpart_id = pull
        self.receiver.on("/all", body=[{"code": "P1", **WHOLE}])
        self.partner.unlink()
        pulled = pull._pull()
        self.assertEqual((pulled.created, pulled.updated, pulled.failed), (0, 0, 0))
        with patch.object(type(self.env["bj.api.sync.pull"]), "_lock", lambda *_args: self.dispatch()):
            self.assertEqual(pull._pull().created, 0)
        self.assertEqual(self.told(), self.partner.ids)
        self.assertEqual(pull._pull().created, 1)

    def test_listed_while_ours_is_on_its_way(self):
        delivery = self.dispute("remote")
        self.env.cr.execute("UPDATE bj_api_delivery SET state = 'sending', claim = 'x'")
        delivery.invalidate_recordset()
        response = self.call("DELETE", "/peers", ["P1", "P2"])
        self.assertEqual((response.status_code, response.headers["Retry-After"]), (503, "5"))
        self.assertIn("on its way to you", response.json()["message"])
        self.assertTrue(self.partners[:2].exists() == self.partners[:2])

    def test_made_again(self):
        """Another record of the identifier is told of after the deletion of the former one."""
        self.partner.unlink()
        self.env.cr.flush()
        self.gone.action_pause()
        self.env["res.partner"].create({"name": "Again", "ref": "P1"})
        [state] = self.queued()
        self.dispatch()
        self.assertEqual((state.state, self.receiver.requests), ("pending", []))
        self.gone.action_resume()
        self.dispatch()
        self.pass_time(10)
        self.dispatch()
        self.assertEqual([request.method for request in self.receiver.requests], ["DELETE", "POST"])

    def test_deleted_there_while_ours_is_on_its_way(self):
        """It would be there again, or is already, and only we do not know: they are to ask once more."""
        delivery = self.dispute("remote")
        claim = "UPDATE bj_api_delivery SET state = %s, claim = 'x', next_attempt = now() at time zone 'UTC' + %s"
        self.env.cr.execute(claim, ["sending", "1 min"])
        delivery.invalidate_recordset()
        for policy in ("odoo", "ask", "remote"):
            self.config.conflict_policy = policy
            answer = self.receive("", method="DELETE", status=503)
            self.assertIn("on its way to you", answer["message"])
            self.assertTrue(self.partner.exists())
        self.env.cr.execute(claim, ["cancelled", "-1 min"])  # of whoever sent it, nothing will come
        delivery.invalidate_recordset()
        self.config.conflict_policy = "odoo"
        self.receive("", method="DELETE", status=409)
        delivery._change(["cancelled"], SQL("state = 'sent', claim = NULL, done_date = now() at time zone 'UTC'"))
        self.receive("", method="DELETE")
        self.assertFalse(self.partner.exists())

    def test_queued_by_code(self):
        """What code queues while a record comes in is no news either."""
        self.rule.unlink()
        action = self.env["ir.actions.server"].create(
            {
                "name": "Code",
                "model_id": self.config.model_id.id,
                "state": "code",
                "code": f"env['bj.api.sync.config'].browse({self.config.id})._enqueue(records)",
            }
        )
        self.make_rule(action, fields=())
        self.receive({"name": "Theirs"})
        self.env.cr.flush()
        self.assertFalse(self.queued())
        self.partner.name = "Ours"
        self.env.cr.flush()
        self.assertTrue(self.queued())

    def test_links_of_what_is_gone(self):
        self.receive()
        self.receive(code="P2")
        self.partner.unlink()
        self.env["bj.api.link"]._gc_links()
        self.assertFalse(self.link())
        self.assertTrue(self.link(self.partners[1]))


@tagged("post_install", "-at_install")
class TestPair(TwoWayCase):
    """What can be a pair, and who may do what."""

    def test_counterparts(self):
        country = self.env["ir.model"]._get_id("res.country")
        other = self.make_inbound(endpoint="countries", model_id=country, line_ids=[])
        for counterpart in (other, self.config, self.make_config(name="Another one")):
            with self.assertRaises(ValidationError):
                self.config.counterpart_id = counterpart
        with self.assertRaises(ValidationError):
            self.inbound.counterpart_id = self.config
        with self.assertRaises(ValidationError):  # its deletions are told by another configuration
            self.config.deletion_url = f"{self.receiver.url}/people/{{code}}"
        with self.assertRaises(ValidationError):
            self.inbound.model_id = other.model_id
        self.config.counterpart_id = self.make_config("GET", name="A pull", is_pull=True)
        with self.assertRaises(ValidationError):
            self.config.counterpart_id.is_pull = False

    def test_companies(self):
        """What counts where both changed a record is decided by those who may read what it comes in by."""
        company = self.env["res.company"].create({"name": "Elsewhere"})
        self.env.ref("base.user_admin").company_ids += company
        config = self.make_config(name="Theirs", company_id=company.id)
        for values in ({"counterpart_id": self.inbound.id}, {"counterpart_id": self.inbound.id, "company_id": False}):
            with self.assertRaises(UserError):
                config.write(values)
        with self.assertRaises(UserError):
            self.inbound.company_id = company
        groups = "bj_api_sync.group_manager"
        manager = new_test_user(self.env, "elsewhere", groups, company_id=company.id, company_ids=company.ids)
        with self.assertRaises(AccessError):
            config.with_user(manager).counterpart_id = self.inbound.id
        self.config.counterpart_id = False
        self.inbound.company_id = False
        config.with_user(manager).counterpart_id = self.inbound.id

    def test_conflicts_are_described(self):
        """OpenAPI tells of conflicts where there can be some."""

        def describes():
            endpoint = self.inbound.endpoint
            document = self.env["bj.api.sync.openapi"]._get_document((endpoint,), "http://example.com")
            content = document["paths"][f"/{endpoint}"]["post"]["responses"]["200"]["content"]
            single, listed = content["application/json"]["schema"]["oneOf"]
            return ["conflicts" in schema["properties"] for schema in (single, listed)]

        self.assertEqual(describes(), [True, True])
        self.config.counterpart_id = False
        self.assertEqual(describes(), [False, False])

    def test_newest_needs_a_date(self):
        with self.assertRaises(ValidationError):
            self.config.conflict_policy = "newest"
        self.add_date()
        self.config.conflict_policy = "newest"

    def test_rights(self):
        self.receive()
        link = self.link()
        reader = new_test_user(self.env, "reader", "bj_api_sync.group_user")
        self.assertEqual(link.with_user(reader).external_id, "P1")
        for method in ("action_keep_ours", "action_take_theirs"):
            with self.assertRaises(AccessError):
                getattr(link.with_user(reader), method)()
        elsewhere = self.env["res.company"].create({"name": "Elsewhere"})
        self.config.user_id.company_ids += elsewhere
        (self.config | self.inbound).write({"company_id": elsewhere.id})
        self.assertFalse(self.env["bj.api.link"].with_user(reader).search([("id", "=", link.id)]))

    def test_manager_decides(self):
        """Theirs is written as the user it came in as; the manager need not be one who may."""
        self.dispute("ask")
        self.receive()
        manager = new_test_user(self.env, "manager", "bj_api_sync.group_manager")
        self.link().with_user(manager).action_take_theirs()
        self.assertEqual(self.partner.name, "Theirs")
        self.assertEqual(self.sent_names(), ["Theirs"])

    def test_smart_button(self):
        self.receive()
        self.assertEqual((self.config.link_count, self.config.conflict_count), (1, 0))
        self.assertEqual(self.config.action_open_links()["res_model"], "bj.api.link")
        self.assertEqual(self.env["bj.api.link"].search([]).in_date.date(), Datetime.now().date())
