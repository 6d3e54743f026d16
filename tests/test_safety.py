from unittest.mock import patch

from odoo.fields import Command
from odoo.service import model
from odoo.tests import tagged
from odoo.tools import mute_logger

from ..tools import transaction
from .common import ApiHttpCase


@tagged("-at_install", "post_install")
class TestSafety(ApiHttpCase):
    """What makes requests safe to repeat, safe to try, and safe against lost updates."""

    def setUp(self):
        super().setUp()
        self.config_in = self.partner_config(filter_domain="[('ref', '=like', 'S-%')]")
        self.ann = self.env["res.partner"].create({"name": "Ann", "ref": "S-1", "city": "Ulm"})

    def count(self):
        return self.env["res.partner"].search_count([("ref", "=like", "S-%")])

    # Idempotency-Key

    def post(self, payload, key, **options):
        return self.call("POST", "/people", payload, headers={"Idempotency-Key": key, **options})

    def test_same_key_same_request(self):
        payload = {"name": "No identifier", "code": "S-2"}
        first = self.post(payload, "key-1")
        again = self.post(payload, '"key-1"')
        self.assert_answer(first, 201)
        self.assertEqual((again.status_code, again.content), (201, first.content))
        for name in ("Location", "ETag"):
            self.assertEqual(again.headers[name], first.headers[name])
        self.assertEqual(again.headers["Idempotent-Replayed"], "true")
        self.assertNotIn("Idempotent-Replayed", first.headers)
        self.assertNotEqual(again.headers["X-Request-ID"], first.headers["X-Request-ID"])
        self.assertEqual(self.count(), 2)

    def test_same_key_other_request(self):
        self.assert_answer(self.post({"name": "A", "code": "S-2"}, "key-1"), 201)
        self.assert_answer(self.post({"name": "B", "code": "S-2"}, "key-1"), 422)
        response = self.call("PUT", "/people", {"name": "A", "code": "S-2"}, headers={"Idempotency-Key": "key-1"})
        self.assert_answer(response, 422)
        self.assert_answer(self.post({"name": "B", "code": "S-2"}, "key-2"), 200)

    def test_key_of_a_failed_request(self):
        """What was refused is refused again; what failed before it began is as if it had not been."""
        self.assert_answer(self.post({"name": 5, "code": "S-2"}, "key-1"), 400)
        self.assertIn("Idempotent-Replayed", self.post({"name": 5, "code": "S-2"}, "key-1").headers)
        self.assert_answer(self.call("POST", "/people", {}, token="wrong", headers={"Idempotency-Key": "key-2"}), 401)
        self.assert_answer(self.call("POST", "/people", data="{", headers={"Idempotency-Key": "key-2"}), 400)
        self.assert_answer(self.post({"name": "B", "code": "S-2"}, "key-2"), 201)

    def test_bad_keys(self):
        for key in ("", '""', "x" * 256):
            self.assert_answer(self.post({"name": "B", "code": "S-2"}, key), 400)
        self.assert_answer(self.call("GET", "/people", headers={"Idempotency-Key": ""}), 200)

    @mute_logger("odoo.sql_db")
    def test_key_that_somebody_takes_between_two_tries(self):
        """The lock of a key is gone with the transaction: what Odoo tries again has no right to the key."""
        script = "env.cr.execute(\"DO $$ BEGIN RAISE 'conflict' USING ERRCODE = '40001'; END $$\")"
        values = {"value_type": "script", "script_mode": "exec", "script": script}
        self.config_in.line_ids = [Command.create(values)]
        locks = self.enterContext(patch.object(transaction, "lock", side_effect=[True, False]))  # in tests all are free
        self.enterContext(patch.object(model.time, "sleep"))
        self.assert_answer(self.post({"name": "A", "code": "S-2"}, "key-1"), 409)
        self.assertEqual(locks.call_count, 2)
        self.assertFalse(self.env["bj.api.idempotency.key"].search([("key", "=", "key-1")]))

    def test_key_expires(self):
        self.assert_answer(self.post({"name": "A", "code": "S-2"}, "key-1"), 201)
        keys = self.env["bj.api.idempotency.key"].search([("key", "=", "key-1")])
        keys.create_date = "2020-01-01"
        self.assert_answer(self.post({"name": "B", "code": "S-2"}, "key-1"), 200)
        self.assertEqual(self.env["bj.api.idempotency.key"].search_count([("key", "=", "key-1")]), 1)
        keys.create_date = "2020-01-01"
        self.env["bj.api.idempotency.key"]._gc_keys()
        self.assertFalse(keys.exists())

    # ETag

    def test_if_none_match(self):
        url = f"/people/{self.ann.id}"
        etag = self.call("GET", url).headers["ETag"]
        response = self.call("GET", url, headers={"If-None-Match": f'"x", W/{etag}'})
        self.assertEqual((response.status_code, response.content, response.headers["ETag"]), (304, b"", etag))
        self.ann.write({"street": False})
        self.assertEqual(self.call("GET", url, headers={"If-None-Match": etag}).status_code, 304)
        self.ann.city = "Bern"
        self.assert_answer(self.call("GET", url, headers={"If-None-Match": etag}), 200)
        self.assertNotIn("ETag", self.call("GET", "/people").headers)

    def test_tags_of_formats(self):
        """XML and JSON are two representations; either may be changed."""
        url, xml = f"/people/{self.ann.id}", {"Accept": "application/xml"}
        json_tag, xml_tag = self.call("GET", url).headers["ETag"], self.call("GET", url, headers=xml).headers["ETag"]
        self.assertNotEqual(json_tag, xml_tag)
        self.assertEqual(self.call("GET", url, headers=xml | {"If-None-Match": json_tag}).status_code, 200)
        self.assertEqual(self.call("GET", url, headers=xml | {"If-None-Match": xml_tag}).status_code, 304)
        self.assert_answer(self.call("PATCH", url, {"city": "Bern"}, headers={"If-Match": xml_tag}), 200)

    def test_if_match(self):
        url = f"/people/{self.ann.id}"
        etag = self.call("GET", url).headers["ETag"]
        response = self.call("PATCH", url, {"name": "Anna"}, headers={"If-Match": etag})
        self.assert_answer(response, 200)
        self.assertEqual(self.call("GET", url).headers["ETag"], response.headers["ETag"])
        for method, payload in (("PUT", {"name": "x"}), ("PATCH", {"name": "x"}), ("DELETE", None)):
            self.assert_answer(self.call(method, url, payload, headers={"If-Match": etag}), 412)
            self.assert_answer(self.call(method, url, payload, headers={"If-Match": f"W/{etag}"}), 412)
        self.assertEqual(self.ann.name, "Anna")
        self.assert_answer(self.call("PUT", "/people", {"code": "S-1"}, headers={"If-Match": etag}), 400)
        self.assert_answer(self.call("PUT", url, {"name": "Annie"}, headers={"If-Match": "?"}), 412)
        now = self.call("GET", url).headers["ETag"]
        for value in ("*", now, f"W/{now}"):
            self.assert_answer(self.call("PUT", url, {"name": "Annie"}, headers={"If-None-Match": value}), 412)
        self.assert_answer(self.call("PUT", url, {"name": "Annika"}, headers={"If-None-Match": etag}), 200)
        response = self.call("POST", "/people", {"code": "S-1", "name": "x"}, headers={"If-None-Match": "*"})
        self.assertIn("If-None-Match", self.assert_answer(response, 400)["message"])
        self.assert_answer(self.call("PUT", url, {"name": "Annie"}, headers={"If-Match": "*"}), 200)
        self.assert_answer(self.call("DELETE", url, headers={"If-Match": self.call("GET", url).headers["ETag"]}), 200)

    # others

    def test_conflicts_that_last(self):
        """What Odoo gives up to try again is not an error of the server: the caller may try again."""
        script = "env.cr.execute(\"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '%s'; END $$\")"
        values = {"config_id": self.config_in.id, "value_type": "script", "script_mode": "exec", "script": "1"}
        line = self.config_in.line_ids.create(values)
        for code in ("40001", "40P01", "55P03"):
            line.script = script % code
            with patch("odoo.service.model.random.uniform", return_value=0), mute_logger("odoo.sql_db", "odoo.http"):
                response = self.call("PATCH", f"/people/{self.ann.id}", {"name": "Anna"})
            self.assertIn("try again", self.assert_answer(response, 409)["message"])
            self.assertEqual(response.headers["Retry-After"], "1")
        self.assertEqual(self.ann.name, "Ann")

    # Prefer: tx=rollback

    def test_log_of_a_dry_run(self):
        for headers, name in (({"Prefer": "tx=rollback"}, "DELETE people (dry run)"), ({}, "DELETE people")):
            response = self.call("DELETE", f"/people/{self.ann.id}", headers=headers)
            log = self.env["bj.api.log"].search([("trace_id", "=", response.headers["X-Request-ID"])])
            self.assertEqual((log.status, log.name), ("success", name))

    def dry(self, method, path, payload=None):
        response = self.call(method, path, payload, headers={"Prefer": "tx=rollback"})
        self.assertEqual(response.headers.get("Preference-Applied"), "tx=rollback" if response.ok else None)
        return response

    def test_dry_update(self):
        body = self.assert_answer(self.dry("PATCH", f"/people/{self.ann.id}", {"address": {"city": "Bern"}}), 200)
        self.assertEqual(body["data"]["address"]["city"], "Bern")
        self.assertEqual(body["changes"], {"address.city": {"old": "Ulm", "new": "Bern"}})
        self.assertEqual(self.ann.city, "Ulm")

    def test_dry_update_of_a_relation(self):
        """What is in an object is told key by key, also where there is no object before or after."""
        boss = self.mapping("res.partner", ("ref", "code"), ("name", "name"))
        values = {"value_type": "relational", "mapping_config_id": boss.id, "is_record_identifier": False}
        self.config_in.line_ids = self.lines("res.partner", ("parent_id", "boss", values))
        self.env["res.partner"].create({"name": "Acme", "ref": "S-8", "is_company": True})
        url, code, name = f"/people/{self.ann.id}", "boss.code", "boss.name"
        body = self.assert_answer(self.dry("PATCH", url, {"boss": "S-8"}), 200)
        told = {key: pair["new"] for key, pair in body["changes"].items() if pair["old"] is None}
        self.assertEqual((told[code], told[name], "boss" in told), ("S-8", "Acme", False))
        self.assert_answer(self.call("PATCH", url, {"boss": "S-8"}), 200)
        self.assertEqual(self.dry("PATCH", url, {"boss": "S-8"}).json()["changes"], {})
        body = self.assert_answer(self.dry("PATCH", url, {"boss": None}), 200)
        told = {key: pair["old"] for key, pair in body["changes"].items() if pair["new"] is None}
        self.assertEqual((told[code], told[name], "boss" in told), ("S-8", "Acme", False))

    def test_dry_create(self):
        response = self.dry("POST", "/people", {"code": "S-2", "name": "Bob"})
        body = self.assert_answer(response, 201)
        self.assertEqual(body["changes"]["name"], {"old": None, "new": "Bob"})
        self.assertNotIn("email", body["changes"])
        self.assertNotIn("Location", response.headers)
        self.assertEqual(self.count(), 1)
        self.assert_answer(self.dry("POST", "/people", {"code": "S-2", "name": 5}), 400)

    def test_dry_however_it_is_written(self):
        """A preference may be in any case, quoted, with parameters and among others (RFC 7240 section 2)."""
        for number, text in enumerate(
            ("return=minimal, tx=rollback", "TX=Rollback", 'tx = "rollback"', "tx=rollback; a=b")
        ):
            with self.subTest(text=text):
                payload = {"code": f"S-1{number}", "name": "Bob"}
                response = self.call("POST", "/people", payload, headers={"Prefer": text})
                self.assert_answer(response, 201)
                self.assertEqual(response.headers["Preference-Applied"], "tx=rollback")
        for number, text in enumerate(("tx=commit", "handling=strict;tx=rollback", "ctx=rollback", "tx=rollbacks")):
            with self.subTest(text=text):
                payload = {"code": f"S-2{number}", "name": "Bob"}
                response = self.call("POST", "/people", payload, headers={"Prefer": text})
                self.assertNotIn("Preference-Applied", response.headers)
        self.assertEqual(self.count(), 5)

    def test_dry_list(self):
        payload = [{"code": "S-1", "name": "Anna"}, {"code": "S-2"}, {"code": "S-3", "name": "C"}]
        body = self.assert_answer(self.dry("POST", "/people", payload), 207)
        self.assertEqual(body["meta"], {"created": 1, "updated": 1, "failed": 1})
        self.assertEqual(body["changes"][0], {"name": {"old": "Ann", "new": "Anna"}})
        self.assertEqual((self.ann.name, self.count()), ("Ann", 1))

    def test_dry_delete(self):
        self.assert_answer(self.dry("DELETE", f"/people/{self.ann.id}"), 200)
        self.assert_answer(self.dry("DELETE", "/people", ["S-1"]), 200)
        self.assertTrue(self.ann.exists())

    # a record identifier that an uninstalled addon took along

    def test_without_record_identifier(self):
        """Nothing is written: each POST would make a new record, and a path would be taken for a database id."""
        self.config_in.line_ids.filtered("is_record_identifier").unlink()
        ref = f"/people/{self.ann.id}"
        for record_id_type, reads in (("database", 200), ("identifier", 400)):
            self.config_in.record_id_type = record_id_type
            self.assert_answer(self.call("GET", "/people"), 200)
            self.assert_answer(self.call("GET", ref), reads)
            for method, path, payload in (
                ("POST", "/people", {"name": "New", "code": "S-2"}),
                ("POST", "/people", [{"name": "New", "code": "S-2"}]),
                ("PUT", "/people", {"name": "New", "code": "S-1"}),
                ("PATCH", ref, {"name": "New"}),
                ("DELETE", "/people", "S-1"),
                ("DELETE", ref, None),
            ):
                with self.subTest(method=method, path=path, record_id_type=record_id_type):
                    body = self.assert_answer(self.call(method, path, payload), 400)
                    self.assertIn("Partners has no record identifier", body["message"])
        self.assertEqual(self.call("GET", "/openapi.json").status_code, 200)
        self.assertEqual((self.count(), self.ann.name), (1, "Ann"))
