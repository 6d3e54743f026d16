from odoo.exceptions import UserError
from odoo.fields import Command
from odoo.tests import new_test_user, tagged
from odoo.tools.safe_eval import safe_eval

from .common_outbound import OutboundCase


@tagged("post_install", "-at_install")
class TestOutbound(OutboundCase):
    """What `_make_outbound_http_request` sends, returns and logs."""

    def test_one_record(self):
        result = self.push()
        self.assertEqual(len(self.receiver.requests), 1)
        request = self.receiver.requests[0]
        self.assertEqual((request.method, request.path), ("POST", "/partners"))
        self.assertEqual(request.json, {"code": "P1", "name": "Partner 1", "address": {"city": "Graz"}})
        self.assertTrue(result.success and result.ok)
        self.assertEqual(result.status_code, 200)
        self.assertEqual(result["status_code"], 200)
        self.assertTrue(result.get("success"))
        self.assertIsNone(result.get("nothing"))
        self.assertEqual(result.json()["received"]["code"], "P1")
        self.assertIn('"code": "P1"', result.text)
        self.assertEqual(result.headers["content-type"], "application/json")
        self.assertEqual((result.error, len(result.results), result.record_ids), ("", 1, self.partner.ids))
        log = self.logs()
        self.assertEqual((log.status, log.direction, log.method, log.response_code), ("success", "out", "POST", 200))
        self.assertEqual((log.model, log.record_id, log.record_count), ("res.partner", self.partner.id, 1))
        self.assertEqual(log.url, f"{self.receiver.url}/partners")

    def test_both_call_forms(self):
        empty = self.env["bj.api.sync.config"]
        self.env["ir.model.data"].create(
            {"module": "test_bj", "name": "out", "model": empty._name, "res_id": self.config.id}
        )
        for reference in (self.config.id, self.config, "test_bj.out"):
            for record_ids in (self.partner, self.partner.id, self.partner.ids):
                result = empty._make_outbound_http_request(record_ids=record_ids, config_id_ref=reference)
                self.assertTrue(result.success)
        self.assertTrue(self.config._make_outbound_http_request(self.partner.id).success)
        self.assertEqual(len(self.receiver.requests), 10)

    def test_wrong_use_raises(self):
        empty = self.env["bj.api.sync.config"]
        inbound = self.make_config(request_type="in", endpoint="test-out")
        for config, record_ids, reference in (
            (empty, 1, None),
            (empty, 1, 0),
            (empty, 1, 999999),
            (empty, 1, "no.such_reference"),
            (empty, 1, "base.main_company"),
            (empty, 1, inbound.id),
            (self.config, self.env.company, None),
            (self.config, ["x"], None),
            (self.config, [0], None),
            (self.config, 1.5, None),
        ):
            with self.subTest(record_ids=record_ids, reference=reference), self.assertRaises(UserError):
                config._make_outbound_http_request(record_ids, reference)
        for timeout in (0, "5"):
            with self.assertRaises(UserError):
                self.push(timeout=timeout)
        self.assertFalse(self.receiver.requests)

    def test_failures_are_results_and_logs(self):
        for path, code, word in (
            ("/status/400", 400, "400"),
            ("/status/503", 503, "503"),
            ("/status/302", 302, "302"),
            ("/drop", 0, "broke"),
        ):
            with self.subTest(path=path):
                config = self.make_config(path=path)
                result = self.push(config=config)
                self.assertFalse(result.success or result.ok or bool(result))
                self.assertEqual(result.status_code, code)
                self.assertIn(word, result.error)
                log = self.logs(config)
                self.assertEqual((log.status, log.response_code, log.error_message), ("error", code, result.error))
                self.assertEqual(log.request_body and "P1" in log.request_body, True)

    def test_timeout_is_408(self):
        config = self.make_config(path="/slow/8", connection_timeout=1, read_timeout=10)
        result = self.push(config=config, timeout=0.3)
        self.assertEqual((result.status_code, result.success), (408, False))
        self.assertEqual(self.logs(config).response_code, 408)
        self.assertLess(result.duration, 2)

    def test_guard_is_a_result(self):
        self.allow("")
        result = self.push()
        self.assertEqual((result.status_code, result.success), (0, False))
        self.assertIn("bj_api_sync.allowed_hosts", result.error)
        self.assertFalse(self.receiver.requests)

    def test_broken_json_is_a_success(self):
        result = self.push(config=self.make_config(path="/broken-json"))
        self.assertTrue(result.success)
        with self.assertRaises(ValueError):
            result.json()

    def test_many_records_are_many_requests(self):
        self.receiver.on("/partners", status=200, times=2)
        self.receiver.on("/partners", status=422, times=1)
        result = self.push(self.partners)
        self.assertEqual([one.status_code for one in result.results], [200, 200, 422, 200, 200])
        self.assertEqual((result.success, result.status_code), (False, 422))
        self.assertEqual([request.json["code"] for request in self.receiver.requests], ["P1", "P2", "P3", "P4", "P5"])
        self.assertEqual([one.record_ids for one in result.results], [[partner.id] for partner in self.partners])
        self.assertEqual(len(self.logs()), 5)

    def test_pages(self):
        for page_size, limit, sizes in ((2, 100, [2, 2, 1]), (100, 3, [3, 2]), (100, 100, [5])):
            with self.subTest(page_size=page_size, limit=limit):
                self.receiver.clear()
                self.config.write({"is_paginated": True, "page_size": page_size, "limit": limit})
                result = self.push(self.partners)
                self.assertEqual([len(request.json) for request in self.receiver.requests], sizes)
                self.assertEqual(len(result.results), len(sizes))
                self.assertEqual(result.record_ids, self.partners.ids)
        self.assertEqual(self.logs()[-1].record_count, 5)

    def test_a_page_of_one_is_a_list(self):
        self.config.is_paginated = True
        self.push()
        self.assertEqual(len(self.receiver.requests[0].json), 1)

    def test_placeholders(self):
        self.partner.write({"ref": "A/1 ü?", "city": "Linz"})
        self.config.request_url = f"{self.receiver.url}/{{address.city}}/{{code}}?x=1"
        self.push()
        self.assertEqual(self.receiver.requests[0].path, "/Linz/A%2F1%20%C3%BC%3F")
        self.assertEqual(self.receiver.requests[0].query, {"x": ["1"]})

    def test_placeholder_without_value_fails_for_that_record_alone(self):
        self.config.request_url = f"{self.receiver.url}/partners/{{code}}"
        self.partners[1].ref = False
        self.partners[2].ref = ".."
        result = self.push(self.partners)
        self.assertEqual([one.success for one in result.results], [True, False, False, True, True])
        self.assertIn("code", result.error)
        self.assertEqual(result.status_code, 0)
        self.assertEqual(len(self.receiver.requests), 3)
        self.assertEqual(self.logs().mapped("status").count("error"), 2)

    def test_pages_go_to_one_address_each(self):
        self.partners[3:].city = "Wien"
        self.config.write({"is_paginated": True, "request_url": f"{self.receiver.url}/{{address.city}}"})
        self.push(self.partners)
        requests = [(request.path, len(request.json)) for request in self.receiver.requests]
        self.assertEqual(requests, [("/Graz", 3), ("/Wien", 2)])

    def test_get_has_the_payload_in_the_query(self):
        config = self.make_config("GET", "/search?v=2", is_paginated=True)
        self.partner.name = "A & B"
        result = self.push(self.partners[:2], config=config)
        request = self.receiver.requests[0]
        self.assertEqual(request.query, {"v": ["2"], "code": ["P1"], "name": ["A & B"], "address.city": ["Graz"]})
        self.assertEqual((request.body, len(result.results)), ("", 2))
        self.assertNotIn("content-type", request.headers)

    def test_other_methods(self):
        for method in ("PUT", "PATCH", "DELETE"):
            self.push(config=self.make_config(method))
            self.assertEqual(self.receiver.requests[-1].method, method)
            self.assertEqual(self.receiver.requests[-1].json["code"], "P1")

    def test_records_outside_the_filter_are_skipped(self):
        self.partners[0].active = False
        self.partners[1].city = "Wien"
        self.config.filter_domain = "[('city', '=', 'Graz')]"
        result = self.push(self.partners)
        self.assertTrue(result.success)
        self.assertEqual((len(result.results), result.skipped), (4, 1))
        log = self.logs().filtered(lambda log: log.status == "skipped")
        self.assertEqual(log.record_id, self.partners[1].id)

    def test_nothing_to_send_is_no_failure(self):
        self.config.filter_domain = "[('city', '=', 'Nowhere')]"
        for records in (self.partner, self.env["res.partner"]):
            result = self.push(records)
            self.assertEqual((result.success, result.status_code, result.results), (True, 0, []))
        self.assertFalse(self.receiver.requests)

    def test_archived_configurations_send_nothing(self):
        self.config.active = False
        result = self.push()
        self.assertFalse(result.success)
        self.assertFalse(self.receiver.requests)
        self.assertEqual(self.logs().status, "skipped")

    def test_bad_records_do_not_stop_the_others(self):
        script = "record.name if record.ref != 'P2' else 1 / 0"
        self.config.write(
            {"line_ids": [Command.create({"value_type": "script", "external_key": "label", "script": script})]}
        )
        with self.assertLogs("odoo.addons.bj_api_sync.models.bj_api_sync_script", "WARNING"):
            result = self.push(self.partners)
        self.assertEqual([one.success for one in result.results], [True, False, True, True, True])
        self.assertIn("division", result.error)
        self.assertEqual(len(self.receiver.requests), 4)

    def test_runs_as_the_configured_user_whoever_starts_it(self):
        clerk = new_test_user(self.env, "clerk", "base.group_user")
        self.config.write(
            {
                "line_ids": [
                    Command.create({"value_type": "script", "external_key": "who", "script": "env.user.login"})
                ],
            }
        )
        self.assertTrue(self.config.with_user(clerk)._make_outbound_http_request(self.partner.with_user(clerk)).success)
        self.assertEqual(self.receiver.requests[0].json["who"], "admin")
        self.assertEqual(self.logs().user_id, clerk)

    def test_usable_in_server_actions(self):
        code = """
call = env['bj.api.sync.config']._make_outbound_http_request
result = call(record_ids=records, config_id_ref=%s, timeout=5)
if not result.success or result.get('status_code') != 200 or not result['ok']:
    raise UserError(result.error)
for one in result.results:
    log(one.json()['received']['code'])
names = [one.json()['received']['name'] for one in result.results]
"""
        context = {"env": self.env, "records": self.partners, "UserError": UserError, "log": print}
        context["log"] = lambda message: None
        safe_eval(code % self.config.id, context, mode="exec")
        self.assertEqual(context["names"], self.partners.mapped("name"))


@tagged("post_install", "-at_install")
class TestReadBack(OutboundCase):
    """Values of the answer that are written to the records."""

    def test_nested_keys_and_numbers(self):
        self.read_back(self.config, barcode="data.id", city="data.city")
        self.receiver.on("/partners", body={"data": {"id": 4711, "city": "Linz"}})
        self.assertTrue(self.push().success)
        self.assertEqual((self.partner.barcode, self.partner.city), ("4711", "Linz"))
        self.assertFalse(self.logs().error_message)

    def test_lists_are_read_item_by_item(self):
        self.config.is_paginated = True
        self.read_back(self.config, barcode="items.id")
        self.receiver.on("/partners", body={"items": [{"id": f"x{number}"} for number in range(5)]})
        self.push(self.partners)
        self.assertEqual(self.partners.mapped("barcode"), ["x0", "x1", "x2", "x3", "x4"])

    def test_plain_lists(self):
        self.config.is_paginated = True
        self.read_back(self.config, barcode="id")
        self.receiver.on("/partners", body=[{"id": 1}, {"id": 2}])
        self.push(self.partners[:2])
        self.assertEqual(self.partners[:2].mapped("barcode"), ["1", "2"])

    def test_lists_of_another_length_are_not_trusted(self):
        self.config.is_paginated = True
        self.read_back(self.config, barcode="id")
        self.receiver.on("/partners", body=[{"id": 1}])
        self.assertTrue(self.push(self.partners).success)
        self.assertFalse(any(self.partners.mapped("barcode")))
        self.assertIn("1 ", self.logs().error_message)
        self.assertEqual(self.config.activity_ids.mapped("summary"), ["Answers were not read back"])

    def test_what_stands_outside_of_lists(self):
        self.config.is_paginated = True
        self.read_back(self.config, function="batch")
        self.receiver.on("/partners", body={"batch": 7, "items": []})
        self.push(self.partners)
        self.assertEqual(set(self.partners.mapped("function")), {"7"})

    def test_bad_answers_stay_successes(self):
        self.read_back(self.config, barcode="id", color="color", country_id="country")
        for body in (
            '{"id',
            "[]",
            {"other": 1},
            {"id": "9", "color": "red", "country": 1},
            {"id": "9", "color": 1, "country": 99999999},
            {"id": {}, "color": 1, "country": 1},
        ):
            with self.subTest(body=body):
                self.receiver.clear()
                self.receiver.on("/partners", body=body)
                result = self.push()
                self.assertTrue(result.success)
                self.assertFalse(self.partner.barcode)
                log = self.logs()[-1]
                self.assertEqual(log.status, "success")
                self.assertTrue(log.error_message)

    def test_null_clears(self):
        self.partner.barcode = "old"
        self.read_back(self.config, barcode="id")
        self.receiver.on("/partners", body={"id": None})
        self.push()
        self.assertFalse(self.partner.barcode)


@tagged("post_install", "-at_install")
class TestConnectionButton(OutboundCase):
    """*Test Connection* in plain words."""

    def assertTold(self, config, kind, word):
        params = config.action_test_connection()["params"]
        self.assertEqual(params["type"], kind, params)
        self.assertIn(word, params["message"])

    def test_success_without_data(self):
        self.config.write({"authorization_type": "bearer", "bearer_token": "abc"})
        self.assertTold(self.config, "success", "200")
        request = self.receiver.requests[0]
        self.assertEqual((request.method, request.body), ("HEAD", ""))
        self.assertEqual(request.headers["authorization"], "Bearer abc")
        self.assertEqual(len(self.logs()), 1)

    def test_placeholders_are_cut(self):
        self.config.request_url = f"{self.receiver.url}/partners/{{code}}/x"
        self.assertTold(self.config, "success", "200")
        self.assertEqual(self.receiver.requests[0].path, "/partners/")

    def test_codes(self):
        for code, kind, word in (
            (401, "danger", "credentials"), (403, "danger", "credentials"), (404, "warning", "path"),
            (405, "success", "reachable"), (301, "warning", "redirects"), (302, "warning", "redirects"),
            (429, "warning", "fewer"), (500, "warning", "problem"),
        ):  # fmt: skip
            with self.subTest(code=code):
                headers = {301: {"Location": "/people"}, 302: {"Location": "ftp://elsewhere"}}.get(code, {})
                self.receiver.clear()
                self.receiver.on("/partners", status=code, headers=headers)
                self.assertTold(self.config, kind, word)

    def test_no_answer(self):
        for url, word in (
            ("http://does-not-exist.invalid/", "no host"),
            ("http://127.0.0.1:1/", "refused"),
            (f"https://127.0.0.1:{self.receiver.port}/", "secure connection"),
            (f"http://localhost:{self.receiver.port}/", "bj_api_sync.allowed_hosts"),
            (f"{self.receiver.url}/slow/9", "in time"),
        ):
            with self.subTest(url=url):
                config = self.make_config(path=url, connection_timeout=1, read_timeout=1)
                self.assertTold(config, "danger", word)
