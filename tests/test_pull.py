from datetime import datetime, timedelta
from unittest.mock import patch

from odoo.exceptions import ConcurrencyError, UserError, ValidationError
from odoo.fields import Command
from odoo.service.model import MAX_TRIES_ON_CONCURRENCY_FAILURE
from odoo.sql_db import db_connect
from odoo.tests import Form, HttpCase, JsonRpcException, new_test_user, tagged
from odoo.tools import mute_logger

from ..models import bj_api_sync_pull
from ..tools import backoff, transaction
from .common import ConfigMixin
from .common_outbound import OutboundCase
from .receiver import Receiver, Reply


class PullCase(ConfigMixin, OutboundCase):
    """A configuration that pulls from a real server; ``serve`` plays the other system's list."""

    def setUp(self):
        super().setUp()
        self.enterContext(patch.object(backoff.random, "uniform", return_value=0))
        self.pull_config = self.make_pull()

    def make_pull(self, **values):
        values = {"pull_items_key": "data", "pull_paging": "page", "limit": 1000, "page_size": 10} | values
        return self.make_config("GET", "/items", name="Items", is_pull=True, **values)

    def items(self, count, first=1, **values):
        return [{"code": f"X{number}", "name": f"Item {number}", **values} for number in range(first, first + count)]

    def mapping(self, model, *lines):
        return ConfigMixin.config(self, model, *lines, endpoint=False, http_method_ids=False)

    def serve(self, items, make_page=None):
        """Answer /items in pages, by page number unless told how: ``make_page(query, size) -> Reply``."""

        def by_page(query, size):
            start = (int(query["page"][0]) - 1) * size
            return Reply(body={"data": items[start : start + size]})

        def answer(request):
            query = request.query
            return (make_page or by_page)(query, int(query.get("limit", ["10"])[0]))

        self.receiver.on("/items", body=answer)

    def run_pull(self, config=None):
        return (config or self.pull_config)._pull()

    def pulled(self):
        """The pulled records' codes, in the order they were created."""
        return self.env["res.partner"].search([("ref", "=like", "X%")], order="id").mapped("ref")

    def queries(self):
        return [request.query for request in self.receiver.requests]

    def trigger_times(self):
        triggers = self.env["ir.cron.trigger"].search([("cron_id", "=", self.env.ref("bj_api_sync.cron_pull").id)])
        return triggers.mapped("call_at")

    def assert_counts(self, result, **counts):
        self.assertEqual(result.error, "")
        expected = dict.fromkeys(("created", "updated", "failed"), 0) | counts
        self.assertEqual({name: getattr(result, name) for name in expected}, expected)


@tagged("post_install", "-at_install")
class TestPulling(PullCase):
    """Page after page, in each of the ways there are."""

    def assert_all(self, config, count=25, pages=3):
        result = self.run_pull(config)
        self.assert_counts(result, created=count)
        self.assertTrue(result.is_complete)
        self.assertEqual(self.pulled(), [f"X{number}" for number in range(1, count + 1)])
        self.assertEqual(len(self.receiver.requests), pages)
        self.assertIn("Complete", config.pull_progress)

    def test_all_at_once(self):
        self.receiver.on("/items", body=self.items(25))
        self.assert_all(self.make_pull(pull_items_key=False, pull_paging="none"), pages=1)
        self.assertEqual(self.queries(), [{}])

    def test_page_number(self):
        self.serve(self.items(25))
        self.assert_all(self.pull_config, pages=4)
        self.assertEqual(
            self.queries(), [{"page": [str(number)], "limit": ["10"]} for number in (1, 2, 3, 4)], "until one is empty"
        )

    def test_page_number_from_zero_until_the_answer_says_so(self):
        def make_page(query, size):
            page = int(query["p"][0])
            return Reply(body={"data": items[page * size :][:size], "more": page < 2})

        items = self.items(25)
        self.serve(items, make_page)
        self.assert_all(self.make_pull(pull_param="p", pull_first_page=0, pull_next_key="more"))

    def test_offset(self):
        """The other system may give fewer items than were asked for."""

        def make_page(query, size):
            start = int(query["offset"][0])
            return Reply(body={"data": items[start : start + 7]})

        items = self.items(25)
        self.serve(items, make_page)
        self.assert_all(self.make_pull(pull_paging="offset"), pages=5)
        self.assertEqual([query["offset"] for query in self.queries()], [["0"], ["7"], ["14"], ["21"], ["25"]])

    def test_cursor(self):
        def make_page(query, size):
            start = int(query.get("cursor", ["c0"])[0][1:])
            following = f"c{start + size}" if start + size < 25 else None
            return Reply(body={"data": items[start : start + size], "meta": {"next": following}})

        items = self.items(25)
        self.serve(items, make_page)
        self.assert_all(self.make_pull(pull_paging="cursor", pull_next_key="meta.next"))
        self.assertEqual([query.get("cursor") for query in self.queries()], [None, ["c10"], ["c20"]])

    def test_the_last_item_is_the_cursor(self):
        def make_page(query, size):
            start = int(query.get("after", ["X0"])[0][1:])
            return Reply(body={"data": items[start : start + size]})

        items = self.items(25)
        self.serve(items, make_page)
        config = self.make_pull(pull_paging="cursor", pull_param="after", pull_next_key="data.-1.code")
        self.assert_all(config, pages=4)

    def test_link_header(self):
        def make_page(query, size):
            start = int(query.get("from", ["0"])[0].partition(";")[0])
            links = ['<https://example.com/?a=1,2>; rel="first"']
            if start + 10 < 25:
                links.append(f'</items?from={start + 10};x=1>; title="a, b"; rel="next"')
            return Reply(body=items[start : start + 10], headers={"Link": ", ".join(links)})

        items = self.items(25)
        self.serve(items, make_page)
        config = self.make_pull(pull_items_key=False, pull_paging="link", authorization_type="bearer", bearer_token="t")
        self.assert_all(config)
        self.assertEqual({request.headers["authorization"] for request in self.receiver.requests}, {"Bearer t"})

    def test_next_url_in_the_answer(self):
        def make_page(query, size):
            start = int(query.get("$skip", ["0"])[0])
            body = {"value": items[start : start + 10]}
            if start + 10 < 25:
                body["@odata.nextLink"] = f"{self.receiver.url}/items?$skip={start + 10}"
            return Reply(body=body)

        items = self.items(25)
        self.serve(items, make_page)
        self.assert_all(self.make_pull(pull_items_key="value", pull_paging="link", pull_next_key="@odata.nextLink"))

    def test_parameters_of_the_request_url(self):
        self.serve(self.items(5))
        self.pull_config.request_url = f"{self.receiver.url}/items?lang=d%C3%A9&page=9"
        self.run_pull()
        self.assertEqual(self.queries()[0], {"lang": ["dé"], "page": ["1"], "limit": ["10"]})

    def test_many_items_again_and_again(self):
        self.serve(self.items(1050))
        self.pull_config.page_size = 100
        with patch.object(bj_api_sync_pull, "SECONDS", 300):
            self.assert_counts(self.run_pull(), created=1050)
            self.assertEqual(len(self.pulled()), 1050)
            self.assert_counts(self.run_pull(), updated=1050)
        self.assertEqual(len(self.pulled()), 1050)
        self.assertEqual(self.logs(self.pull_config).mapped("record_count"), [*[100] * 10, 50, 0] * 2)

    def test_queries_do_not_grow_with_the_items(self):
        def count(size):
            self.receiver.clear()
            self.receiver.on("/items", body={"data": self.items(size)})
            self.env.flush_all()
            self.env.invalidate_all()
            before = self.env.cr.sql_log_count
            self.assertEqual(self.run_pull(config).updated, size)
            return self.env.cr.sql_log_count - before

        config = self.make_pull(pull_paging="none")
        self.receiver.on("/items", body={"data": self.items(200)})
        self.run_pull(config)
        count(1)
        self.assertEqual(count(10), count(200))


@tagged("post_install", "-at_install")
class TestFailures(PullCase):
    """What goes wrong is told, and no place is lost."""

    def assert_refused(self, *texts, **reply):
        self.receiver.clear()
        self.receiver.on("/items", **reply)
        result = self.run_pull()
        self.assertFalse(result.is_complete)
        self.assertFalse(self.pulled())
        log = self.logs(self.pull_config)[-1]
        self.assertEqual((log.status, log.error_message), ("error", result.error))
        self.assertEqual(log.trace_id, self.receiver.requests[-1].headers["x-request-id"])
        for text in texts:
            self.assertIn(text, result.error)
        return result

    def test_answers_that_are_none(self):
        self.assert_refused("JSON", body="<html>Login</html>", headers={"Content-Type": "text/html"})
        self.assert_refused("JSON", body="[" * 100000)
        self.assert_refused("JSON", body="")
        self.assert_refused("“data”", '["items", "count"]', body={"items": self.items(1), "count": 1})
        self.assert_refused("“data”", body=self.items(1))
        self.assert_refused("no list", body={"data": "none"})
        self.assert_refused("10 MiB", body=b"[" + b" " * (11 << 20))
        self.assertEqual(self.pull_config.activity_ids.mapped("summary"), ["Pulling failed"])

    def test_more_items_than_the_limit(self):
        self.pull_config.limit = 5
        self.assert_refused("6 items", "Limit is 5", body={"data": self.items(6)})
        self.assertEqual(self.queries()[0]["limit"], ["5"])

    def test_nothing_to_pull(self):
        for reply in ({"status": 204}, {"body": {"data": []}}, {"body": {"data": None}}):
            self.receiver.clear()
            self.receiver.on("/items", **reply)
            result = self.run_pull()
            self.assert_counts(result)
            self.assertTrue(result.is_complete)

    def test_one_item_that_is_no_list(self):
        self.receiver.on("/items", body={"data": {"code": "X1", "name": "One"}})
        self.pull_config.pull_paging = "none"
        self.assert_counts(self.run_pull(), created=1)

    def test_it_goes_on_where_it_failed(self):
        items, broken = self.items(25), [3]

        def make_page(query, size):
            page = int(query["page"][0])
            if page in broken:
                return Reply(status=500, body={"error": "no"})
            return Reply(body={"data": items[(page - 1) * size : page * size]})

        self.serve(items, make_page)
        result = self.run_pull()
        self.assertEqual((result.created, result.is_complete), (20, False))
        self.assertIn("500", result.error)
        self.assertIn("Stopped", self.pull_config.pull_progress)
        [at] = self.trigger_times()
        self.assertLess(abs((at - datetime.now()).total_seconds() - 5), 3)
        broken.clear()
        self.receiver.requests.clear()
        result = self.run_pull()
        self.assert_counts(result, created=5)
        self.assertTrue(result.is_complete)
        self.assertEqual([query["page"] for query in self.queries()], [["3"], ["4"]])
        self.assertIn("4 pages: 25 created", self.pull_config.pull_progress)
        self.assertFalse(self.pull_config.activity_ids)

    def test_retry_after(self):
        self.receiver.on("/items", body={"data": self.items(10)}, times=1)
        self.receiver.on("/items", status=429, headers={"Retry-After": "600"}, times=1)
        self.receiver.on("/items", body={"data": []})
        self.assertIn("429", self.run_pull().error)
        [at] = self.trigger_times()
        self.assertLess(abs((at - datetime.now()).total_seconds() - 600), 5)
        self.assertIn("to wait until", self.run_pull().error)
        self.assertEqual(len(self.receiver.requests), 2, "nobody asks before")
        state = self.pull_config.pull_state
        self.pull_config.pull_state = state | {"not_before": "2020-01-01 00:00:00"}
        self.assertTrue(self.run_pull().is_complete)
        self.assertEqual(self.queries()[2]["page"], ["2"])

    def test_items_that_fail(self):
        items = self.items(6)
        items[1]["name"] = {"no": "text"}
        del items[2]["code"]
        items[3]["code"] = "X5"  # twice
        items.append("nothing")
        self.receiver.on("/items", body={"data": items})
        self.pull_config.pull_paging = "none"
        result = self.run_pull()
        self.assert_counts(result, created=2, failed=5)
        self.assertTrue(result.is_complete)
        self.assertEqual(self.pulled(), ["X1", "X6"])
        log = self.logs(self.pull_config)
        self.assertEqual((log.status, log.response_code, log.record_count), ("error", 200, 2))
        lines = log.error_message.splitlines()
        self.assertEqual(
            [line.split(": ")[0] for line in lines],
            [
                "Item 1 (X2) /name",
                "Item 2 (?) /code",
                "Item 3 (X5) /code",
                "Item 4 (X5) /code",
                "Item 6 (?) /",
            ],
        )
        self.assertIn("twice", lines[2])
        self.assertEqual(self.pull_config.activity_ids.mapped("summary"), ["Pulled items failed"])

    def test_loops(self):
        """Cursors that lead back, however long the way, and pages that ignore what is asked for."""
        for length in (1, 2, 5):
            config = self.make_pull(pull_paging="cursor", pull_next_key="next")

            def make_page(query, size, length=length):
                place = int(query.get("cursor", ["0"])[0])
                items = self.items(1, first=place, color=len(self.receiver.requests))
                return Reply(body={"data": items, "next": str(place % length + 1)})

            self.receiver.clear()
            self.serve([], make_page)
            result = self.run_pull(config)
            with self.subTest(length=length):
                self.assertIn("never end", result.error)
                self.assertLess(len(self.receiver.requests), 4 * length + 3)
        self.receiver.clear()
        self.receiver.on("/items", body={"data": self.items(10)})
        self.assertIn("never end", self.run_pull().error)
        self.assertEqual(len(self.receiver.requests), 2)

    def test_empty_pages_on_the_way(self):
        for number in range(1, 6):
            self.receiver.on("/items", body={"data": [], "next": f"c{number}"}, times=1)
        self.receiver.on("/items", body={"data": self.items(1)})
        self.assert_counts(self.run_pull(self.make_pull(pull_paging="cursor", pull_next_key="next")), created=1)

    def test_a_next_url_elsewhere_is_not_asked(self):
        config = self.make_pull(
            pull_paging="link", pull_next_key="next", authorization_type="bearer", bearer_token="secret"
        )
        with Receiver() as stranger:
            here = self.receiver.url.removeprefix("http://")
            for url in (
                f"{stranger.url}/items",
                f"//127.0.0.1:{stranger.port}/items",
                f"{stranger.url}\\@{here}/items",  # read in two ways by two parsers
                f"http://{here}@127.0.0.1:{stranger.port}/items",
                self.receiver.url.replace("http:", "https:"),
                "http://[/",
                "file:///etc/passwd",
            ):
                self.receiver.clear()
                self.receiver.on("/items", body={"data": self.items(1), "next": url})
                config.action_pull_again()
                result = self.run_pull(config)
                with self.subTest(url=url):
                    self.assertIn("another address", result.error)
                    self.assertEqual(len(self.receiver.requests), 1)
            self.assertFalse(stranger.requests)

    def test_places_that_are_none(self):
        for place in ({"a": 1}, "x" * 10000, "a\0b", "\ud800", float("inf"), float("nan")):
            self.receiver.clear()
            self.receiver.on("/items", body={"data": self.items(1), "next": place})
            result = self.run_pull(self.make_pull(pull_paging="cursor", pull_next_key="next"))
            self.assertIn("no place", result.error)

    def test_a_cursor_that_expired(self):
        """It begins again, which is no loop."""
        first = {"data": self.items(1), "next": "old"}
        self.receiver.on("/items", body=first, times=1)
        self.receiver.on("/items", status=410, times=3)
        self.receiver.on("/items", body=first, times=1)
        self.receiver.on("/items", body={"data": self.items(1, first=2)})
        config = self.make_pull(pull_paging="cursor", pull_next_key="next")
        for _attempt in range(4):
            result = self.run_pull(config)
        self.assertEqual([query.get("cursor") for query in self.queries()], [None, *[["old"]] * 3, None, ["old"]])
        self.assertTrue(result.is_complete)

    def test_smaller_pages(self):
        """Where the place does not depend on the size, what was too large is asked for in smaller pages at once."""

        def make_page(query, size):
            start = int(query.get("offset", query.get("cursor", "0"))[0])
            items = [item | {"blob": "x" * (2 << 20)} for item in self.items(25, first=1)[start : start + size]]
            return Reply(body={"data": [self.items(1)[0]] if start == 0 else items, "next": start + max(len(items), 1)})

        for paging in ("offset", "cursor"):
            with self.subTest(paging=paging):
                self.receiver.clear()
                self.serve([], make_page)
                config = self.make_pull(pull_paging=paging, pull_next_key="next")
                result = self.run_pull(config)
                self.assertIn("10 MiB: ask for smaller pages with another Page Size.", result.error)
                config.page_size = 3
                with patch.object(bj_api_sync_pull, "SECONDS", 0):
                    self.assert_counts(self.run_pull(config), created=3)

    def test_the_size_stays_the_same_within_a_pull(self):
        self.serve(self.items(25))
        with patch.object(bj_api_sync_pull, "SECONDS", 0):
            self.run_pull()
        self.pull_config.page_size = 5
        self.run_pull()
        self.run_pull()
        self.assertEqual(self.pulled(), [f"X{number}" for number in range(1, 26)])
        self.assertEqual([query["limit"] for query in self.queries()], [["10"]] * 4 + [["5"]] * 6)

    def test_too_large_at_a_page_number(self):
        """There is a way out, and it is told."""
        self.serve(self.items(25))
        with patch.object(bj_api_sync_pull, "SECONDS", 0):
            self.run_pull()
        self.pull_config.limit = 5
        self.assertIn("press Start over", self.run_pull().error)
        self.pull_config.action_pull_again()
        self.assertTrue(self.run_pull().is_complete)

    def test_strange_text_can_be_logged(self):
        self.receiver.on("/items", body=r'{"data": [{"code": "X\u0000\ud800"}]}')
        self.assertEqual(self.run_pull().failed, 1)
        self.assertEqual(self.logs(self.pull_config)[0].status, "error")
        self.receiver.clear()
        self.receiver.on("/items", body=r'{"\u0000\ud800": 1}')
        self.pull_config.action_pull_again()
        self.assertIn(r"\u0000", self.run_pull().error)


@tagged("post_install", "-at_install")
class TestRuns(PullCase):
    """When it runs, as whom, and how far."""

    def test_changes_since(self):
        self.pull_config.pull_since_param = "since"
        self.receiver.on("/items", body={"data": []}, times=1)
        self.receiver.on("/items", status=500, times=1)
        self.receiver.on("/items", body={"data": []})
        started = datetime.now().replace(microsecond=0)
        for _run in range(4):
            self.run_pull()
        sent = [query.get("since") for query in self.queries()]
        self.assertEqual((sent[0], sent[1]), (None, sent[2]), "a failed pull is no reason to skip anything")
        since = datetime.strptime(sent[1][0], "%Y-%m-%dT%H:%M:%SZ")
        self.assertLess(abs(since - (started - timedelta(minutes=5))), timedelta(seconds=10))
        self.assertGreaterEqual(sent[3], sent[2])

    def test_start_over(self):
        self.pull_config.pull_since_param = "since"
        self.serve([])
        self.run_pull()
        self.pull_config.action_pull_again()
        self.assertFalse(self.pull_config.pull_progress)
        self.run_pull()
        self.run_pull()
        self.pull_config.request_url = f"{self.receiver.url}/items?other=1"
        self.run_pull()
        self.assertEqual(["since" in query for query in self.queries()], [False, False, True, False])

    def test_runs_as_its_user_in_its_company(self):
        clerk = new_test_user(self.env, "clerk", "base.group_user")
        company = self.env["res.company"].create({"name": "Other"})
        clerk.write({"company_ids": [Command.link(company.id)], "company_id": company.id})
        config = self.make_pull(user_id=clerk.id, company_id=company.id)
        self.serve(self.items(2))
        result = self.run_pull(config)
        self.assertEqual((result.created, result.failed), (0, 2))
        self.assertIn("Contact", self.logs(config)[0].error_message)
        clerk.group_ids += self.env.ref("base.group_partner_manager")
        self.assertEqual(self.run_pull(config).created, 2)
        partner = self.env["res.partner"].search([("ref", "=", "X1")])
        self.assertEqual(partner.create_uid, clerk)
        clerk.active = False
        self.receiver.requests.clear()
        self.assertIn("archived", self.run_pull(config).error)
        self.assertFalse(self.receiver.requests)

    def test_odoo_ids(self):
        """Where the other system knows Odoo's ids, nothing is created."""
        line = self.pull_config.line_ids.filtered("is_record_identifier")
        line.field_id = self.field("res.partner", "id")
        self.receiver.on(
            "/items", body={"data": [{"code": self.partner.id, "name": "New"}, {"code": 2**30, "name": "No"}]}, times=1
        )
        self.receiver.on("/items", body={"data": []})
        self.assert_counts(self.run_pull(), updated=1, failed=1)
        self.assertEqual(self.partner.name, "New")

    def test_without_record_identifier(self):
        """An uninstalled addon may have taken it along: each pull would make new records."""
        self.pull_config.line_ids.filtered("is_record_identifier").unlink()
        self.serve(self.items(1))
        self.assertIn("Items has no record identifier", self.run_pull().error)
        self.assertFalse(self.receiver.requests)

    def test_filter_domain(self):
        self.pull_config.filter_domain = "[('ref', '!=', 'X2')]"
        self.serve(self.items(3))
        self.assert_counts(self.run_pull(), created=2, failed=1)
        self.assertEqual(self.pulled(), ["X1", "X3"])

    def test_nested_objects(self):
        country = self.mapping("res.country", ("code", "iso"))
        tag = self.mapping("res.partner.category", ("name", "name"))
        person = self.mapping("res.partner", ("ref", "code"), ("name", "name"))
        relational = {"value_type": "relational", "is_record_identifier": False}
        self.pull_config.line_ids = self.lines(
            "res.partner",
            ("country_id", "country", relational | {"mapping_config_id": country.id}),
            ("category_id", "tags", relational | {"mapping_config_id": tag.id, "relation_policy": "create"}),
            ("child_ids", "people", relational | {"mapping_config_id": person.id}),
        )
        people = [{"code": "N1", "name": "Nora"}, {"code": "N2", "name": "Tom"}]
        self.serve(self.items(2, country={"iso": "BE"}, tags=[{"name": "Pulled"}], people=people))
        self.assert_counts(self.run_pull(), created=2)
        partner = self.env["res.partner"].search([("ref", "=", "X2")])
        self.assertEqual((partner.country_id.code, partner.category_id.name), ("BE", "Pulled"))
        self.assertEqual(partner.child_ids.mapped("name"), ["Nora", "Tom"])

    def test_what_is_pulled_is_known_to_be(self):
        script = "if env.context.get('bj_api_sync_from') != config.id or env.su: raise UserError('an echo')"
        self.pull_config.line_ids = [
            Command.create({"value_type": "script", "script_mode": "exec", "script": script, "sequence": 50})
        ]
        self.serve(self.items(1))
        self.assert_counts(self.run_pull(), created=1)

    def test_only_one_run_at_a_time(self):
        self.serve(self.items(1))
        with db_connect(self.env.cr.dbname).cursor() as other:
            self.assertTrue(transaction.try_hold(other, "pull", self.pull_config.id))
            self.assertEqual(self.run_pull().error, "Another run pulls already.")
            self.assertFalse(self.receiver.requests)
        self.assert_counts(self.run_pull(), created=1)

    def test_archived(self):
        self.pull_config.active = False
        self.assertIn("archived", self.run_pull().error)
        self.assertFalse(self.receiver.requests)

    def test_a_run_is_bounded_and_goes_on_by_itself(self):
        self.serve(self.items(55))
        with patch.object(bj_api_sync_pull, "SECONDS", 0):
            result = self.run_pull()
            self.assertEqual((result.created, result.is_complete, result.error), (10, False, ""))
            self.assertIn("Under way", self.pull_config.pull_progress)
            self.assertEqual(len(self.trigger_times()), 1)
            with self.enter_registry_test_mode():
                self.env.ref("bj_api_sync.cron_pull").method_direct_trigger()
            self.assertEqual(len(self.pulled()), 20)
        with self.enter_registry_test_mode():
            self.env.ref("bj_api_sync.cron_pull").method_direct_trigger()
        self.assertEqual(len(self.pulled()), 55)
        self.assertIn("Complete", self.pull_config.pull_progress)

    def test_killed_between_pages(self):
        """A page that was written but not committed leaves nothing, and is pulled again."""
        wizard = self.env["bj.api.sync.trigger"].create({"config_id": self.pull_config.id, "kind": "ir.cron"})
        cron = self.env["ir.cron"].browse(wizard.action_create()["res_id"])
        configs, killed = type(self.env["bj.api.sync.config"]), []
        original = configs._keep_place

        def keep(config, fname, state, *args, **kwargs):
            if state.get("pages") == 3 and not killed:
                killed.append(config.env["res.partner"].search_count([("ref", "=like", "X%")]))
                raise RuntimeError("killed")
            return original(config, fname, state, *args, **kwargs)

        self.serve(self.items(45))
        with patch.object(configs, "_keep_place", keep), self.enter_registry_test_mode():
            with mute_logger("odoo.addons.base.models.ir_cron"):
                cron.method_direct_trigger()
            self.assertEqual((killed, len(self.pulled())), ([30], 20))
            self.assertEqual(self.pull_config.pull_state["place"], 3)
            cron.method_direct_trigger()
        self.assertEqual([query["page"] for query in self.queries()], [[str(n)] for n in (1, 2, 3, 3, 4, 5, 6)])
        self.assertEqual(self.pulled(), [f"X{number}" for number in range(1, 46)])
        self.assertIn("45 created", self.pull_config.pull_progress)

    def test_one_that_breaks_does_not_keep_others(self):
        """Of two pulls that are due, the one that waits longer raises."""
        other = self.make_pull()
        for number, config in enumerate((self.pull_config, other)):
            config.pull_state = {"due": f"2020-01-01 00:00:0{number}"}
        pull, original = type(self.env["bj.api.sync.pull"]), type(self.env["bj.api.sync.pull"])._pull

        def break_first(room, config):
            if config == self.pull_config:
                raise RuntimeError("broken")
            return original(room, config)

        self.serve(self.items(5))
        with (
            patch.object(pull, "_pull", break_first),
            self.enter_registry_test_mode(),
            mute_logger("odoo.addons.bj_api_sync.models.bj_api_sync_pull"),
        ):
            self.env.ref("bj_api_sync.cron_pull").method_direct_trigger()
        self.assertEqual(len(self.pulled()), 5)


@tagged("post_install", "-at_install")
class TestStarting(PullCase):
    """What starts a pull, and how it is set up."""

    def make_action(self, **values):
        return self.env["ir.actions.server"].create(
            {
                "name": "Pull",
                "model_id": self.pull_config.model_id.id,
                "state": "bj_api_sync",
                "bj_api_sync_config_id": self.pull_config.id,
                **values,
            }
        )

    def test_server_action(self):
        self.serve(self.items(12))
        answer = self.make_action().run()
        self.assertEqual(answer["tag"], "display_notification")
        self.assertIn("12 created, 0 updated, 0 failed.", answer["params"]["message"])
        self.assertEqual(answer["params"]["type"], "success")
        self.receiver.clear()
        self.receiver.on("/items", status=401)
        answer = self.make_action().run()
        self.assertIn("401", answer["params"]["message"])
        self.assertEqual(answer["params"]["type"], "danger")

    def test_code(self):
        code = f"result = env['bj.api.sync.config'].browse({self.pull_config.id})._pull()\n"
        code += "if result.created != 3 or not result.is_complete: raise UserError(result.error)"
        self.serve(self.items(3))
        self.make_action(state="code", code=code).run()
        self.assertEqual(len(self.pulled()), 3)

    def test_create_trigger(self):
        action = self.pull_config.action_create_trigger()
        self.assertEqual(action["context"]["default_kind"], "ir.cron")
        wizard = self.env["bj.api.sync.trigger"].with_context(**action["context"])
        with Form(wizard) as form:
            pass
        cron = self.env["ir.cron"].browse(form.save().action_create()["res_id"])
        self.assertEqual(cron.name, "Pull from Items")
        self.serve(self.items(3))
        cron.with_user(self.env.ref("base.user_root")).ir_actions_server_id.run()
        self.assertEqual(len(self.pulled()), 3)
        with Form(self.env["ir.actions.server"].with_context(default_model_id=cron.model_id.id)) as form:
            form.state = "bj_api_sync"
            form.bj_api_sync_config_id = self.pull_config
            self.assertEqual(form.name, "Pull from Items")

    def test_a_rule_wakes_the_scheduled_action(self):
        """Nothing waits for the other system in the transaction of whoever saves a record."""
        rule = self.env["base.automation"].create(
            {
                "name": "Wake",
                "model_id": self.pull_config.model_id.id,
                "trigger": "on_create_or_write",
                "trigger_field_ids": [Command.link(self.field("res.partner", "name"))],
            }
        )
        self.make_action(base_automation_id=rule.id, usage="base_automation")
        wizard = self.env["bj.api.sync.trigger"].create({"config_id": self.pull_config.id, "kind": "ir.cron"})
        cron = self.env["ir.cron"].browse(wizard.action_create()["res_id"])
        self.partner.name = "Changed"
        self.assertFalse(self.receiver.requests)
        self.assertTrue(self.env["ir.cron.trigger"].search([("cron_id", "=", cron.id)]))
        cron.unlink()
        self.serve(self.items(2))
        self.partner.name = "Changed again"
        self.assertEqual((len(self.pulled()), len(self.receiver.requests)), (2, 2), "once, without an echo")

    def test_it_sends_nothing(self):
        with self.assertRaisesRegex(UserError, "pulls records"):
            self.pull_config._enqueue(self.partner)
        with self.assertRaisesRegex(UserError, "pulls records"):
            self.pull_config._make_outbound_http_request(self.partner)
        with self.assertRaisesRegex(UserError, "sends records"):
            self.config._pull()

    def test_what_is_needed(self):
        for values in (
            {"http_method_ids": self.methods("POST")},
            {"request_url": f"{self.receiver.url}/items/{{code}}"},
            {"user_id": False},
            {"user_id": self.env.ref("base.user_root").id},
            {"line_ids": [Command.clear()]},
            {"pull_param": False},
            {"pull_paging": "cursor"},
            {"request_url": False},
        ):
            with self.subTest(values=values), self.assertRaises(ValidationError), self.cr.savepoint():
                self.pull_config.write(values)

    def test_form(self):
        with Form(self.config) as form:
            self.assertTrue(form._get_modifier("pull_paging", "invisible"))
            form.is_pull = True
            self.assertEqual(form.http_method_ids[:].name, "GET")
            self.assertTrue(form._get_modifier("user_id", "required"))
            self.assertTrue(form._get_modifier("pull_param", "invisible"))
            form.pull_paging = "cursor"
            self.assertEqual((form.pull_param, form.pull_size_param), ("cursor", "limit"))
            self.assertTrue(form._get_modifier("pull_next_key", "required"))
            form.pull_next_key = "next"
        self.assertEqual(self.config.line_ids.mapped("config_request_type"), ["in"] * 3)


@tagged("post_install", "-at_install")
class TestPullNow(ConfigMixin, HttpCase):
    """The button, as the web client calls it."""

    def setUp(self):
        super().setUp()
        self.receiver = self.enterContext(Receiver())
        self.env["ir.config_parameter"].set_param("bj_api_sync.allowed_hosts", "127.0.0.1")
        self.pull_config = self.config(
            "res.partner",
            ("ref", "number"),
            ("name", "name"),
            request_type="out",
            http_method_ids=self.methods("GET"),
            request_url=f"{self.receiver.url}/members",
            is_pull=True,
            pull_items_key="members",
            pull_paging="page",
            pull_next_key="meta.next_page",
        )
        self.authenticate("admin", "admin")

    def press(self):
        params = {"model": "bj.api.sync.config", "method": "action_pull", "args": [self.pull_config.ids], "kwargs": {}}
        return self.make_jsonrpc_request("/web/dataset/call_button/bj.api.sync.config/action_pull", params)

    def test_button(self):
        for created, updated in ((250, 0), (0, 250)):
            message = self.press()["params"]["message"]
            self.assertIn(f"{created} created, {updated} updated, 0 failed.", message)
        self.assertEqual(len(self.receiver.requests), 6)
        self.assertEqual(self.env["res.partner"].search_count([("ref", "=like", "M-%")]), 250)

    def test_page_that_always_meets_with_a_change(self):
        """Odoo does a request again by itself: doing so inside as well would ask the other system 25 times."""
        room = type(self.env["bj.api.sync.pull"])
        with (
            patch.object(room, "_lock", side_effect=ConcurrencyError("changed")),
            patch("odoo.service.model.time.sleep"),
            mute_logger("odoo.http"),
            self.assertRaises(JsonRpcException),
        ):
            self.press()
        self.assertEqual(len(self.receiver.requests), MAX_TRIES_ON_CONCURRENCY_FAILURE)
