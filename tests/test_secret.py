import multiprocessing
import os
import stat
import tempfile
from unittest.mock import patch

from cryptography.fernet import Fernet

from odoo.exceptions import AccessError, UserError
from odoo.fields import Command
from odoo.tests import BaseCase, new_test_user, tagged
from odoo.tools import config as odoo_config
from odoo.tools import mute_logger

from ..tools import secret
from .common import ApiCase

LOGGER = "odoo.addons.bj_api_sync.tools.secret"
SECRETS = ("login", "password", "bearer_token")


class KeyMixin:
    """Keys to test with, in place of those of this machine."""

    def use_keys(self, *keys):
        patcher = patch.dict(odoo_config._runtime_options, {secret.OPTION: ",".join(keys)})
        patcher.start()
        self.addCleanup(patcher.stop)

    def use_data_dir(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.use_keys()  # none in odoo.conf
        self.enterContext(patch.dict(odoo_config._runtime_options, {"data_dir": folder}))
        return os.path.join(folder, secret.KEY_FILE)


class TestKeys(KeyMixin, BaseCase):
    def test_round_trip(self):
        for text in ("hidden", "pässwörd ✓", "a" * 10_000, ' "quoted"\n'):
            token = secret.encrypt(text)
            self.assertNotIn(text, token)
            self.assertEqual(secret.decrypt(token), text)

    def test_first_key_encrypts_all_decrypt(self):
        old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
        self.use_keys(old)
        token = secret.encrypt("hidden")
        self.use_keys(f" {new} ", old)
        self.assertEqual(secret.decrypt(token), "hidden")
        rotated = secret.rotate(token)
        self.use_keys(new)
        self.assertEqual(secret.decrypt(rotated), "hidden")
        with self.assertRaises(secret.InvalidToken):
            secret.decrypt(token)

    def test_bad_key_is_named(self):
        self.use_keys("no-fernet-key")
        with self.assertRaisesRegex(ValueError, secret.OPTION):
            secret.encrypt("x")

    @mute_logger(LOGGER)
    def test_key_file_is_made_once(self):
        path = self.use_data_dir()
        token = secret.encrypt("hidden")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertEqual(os.listdir(os.path.dirname(path)), [secret.KEY_FILE], "no draft is left behind")
        self.assertEqual(secret.decrypt(token), "hidden")

    @mute_logger(LOGGER)
    def test_key_file_with_a_new_line_on_top(self):
        path = self.use_data_dir()
        token = secret.encrypt("hidden")
        with open(path, encoding="ascii") as file:
            old = file.read()
        self.assertFalse(secret.has_changed())
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{Fernet.generate_key().decode()}\n\n{old}")
        self.assertTrue(secret.has_changed())
        digest = secret.digest("hidden")
        self.assertEqual(secret._keys(), (old.strip(),), "what is kept was made with the key of before")
        secret._read_key_file.cache_clear()  # Odoo is restarted
        self.assertEqual(secret.decrypt(token), "hidden")
        self.assertNotEqual(secret._keys()[0], old.strip())
        self.assertNotEqual(secret.digest("hidden"), digest)

    def test_key_file_that_cannot_be_made(self):
        """Such as in a folder without hard links, or where nothing may be written."""
        path = self.use_data_dir()
        odoo_config._runtime_options["data_dir"] = file = os.path.join(os.path.dirname(path), "file")
        with open(file, "w", encoding="ascii"), self.assertRaisesRegex(ValueError, secret.OPTION):
            secret.encrypt("x")

    @mute_logger(LOGGER)
    def test_processes_agree_on_one_key_file(self):
        path = self.use_data_dir()
        context = multiprocessing.get_context("fork")
        barrier, keys = context.Barrier(8), context.Queue()

        def first_use():
            barrier.wait(30)
            keys.put(secret._keys())
            keys.close()
            keys.join_thread()
            os._exit(0)  # nothing of this test is the child's to clean up

        processes = [context.Process(target=first_use) for _ in range(8)]
        for process in processes:
            process.start()
        found = {keys.get(timeout=30) for _ in processes}
        for process in processes:
            process.join(30)
        self.assertEqual(len(found), 1)
        self.assertEqual(found, {secret._keys()})
        self.assertEqual(os.listdir(os.path.dirname(path)), [secret.KEY_FILE])

    def test_digest(self):
        key = Fernet.generate_key().decode()
        self.use_keys(key)
        digest = secret.digest("tökén")
        self.assertEqual(len(digest), 32)
        self.assertEqual(digest, secret.digest("tökén".encode()))
        self.assertNotEqual(digest, secret.digest("tökén "))
        self.assertNotIn("tökén".encode(), digest)
        self.use_keys(Fernet.generate_key().decode(), key)
        self.assertNotEqual(digest, secret.digest("tökén"), "without the key nothing can be tried")


@tagged("post_install", "-at_install")
class TestEncryptedChar(KeyMixin, ApiCase):
    def setUp(self):
        super().setUp()
        self.key = Fernet.generate_key().decode()
        self.use_keys(self.key)
        self.record = self.partner_config(
            endpoint="secret-people",
            login="robot",
            password="pässword-1",
            bearer_token="Bearer token-1",
            header_ids=[Command.create({"key": "X-Key", "value": "header-1"})],
        )
        self.env.flush_all()
        self.env.invalidate_all()

    def column(self, name, record=None):
        record = record or self.record
        record.flush_recordset()
        self.env.cr.execute(f"SELECT {name} FROM {record._table} WHERE id = %s", [record.id])
        return self.env.cr.fetchone()[0]

    def forget_key(self):
        self.use_keys(Fernet.generate_key().decode())
        self.env.invalidate_all()
        secret._warned.clear()

    # what the database sees

    def test_columns_hold_ciphertext(self):
        plain = {"login": "robot", "password": "pässword-1", "bearer_token": "token-1"}
        for name, value in plain.items():
            self.assertNotIn(value, self.column(name))
            self.assertEqual(secret.decrypt(self.column(name)), value)
        self.assertEqual(secret.decrypt(self.column("value", self.record.header_ids)), "header-1")

    def test_write(self):
        for value in ("written", "again"):
            self.record.password = value
            self.assertEqual(self.record.password, value)
            self.assertEqual(secret.decrypt(self.column("password")), value)
            self.env.invalidate_all()
            self.assertEqual(self.record.password, value)

    def test_empty_is_null(self):
        self.record.write({"login": "", "password": False})
        self.assertEqual((self.column("login"), self.column("password")), (None, None))
        self.assertEqual((self.record.login, self.record.password), (False, False))

    # what a manager sees

    def test_reading(self):
        values = {"login": "robot", "password": "pässword-1", "bearer_token": "token-1"}
        self.assertEqual(self.record.read(SECRETS), [{"id": self.record.id} | values])
        spec = {name: {} for name in SECRETS}
        self.assertEqual(self.record.web_read(spec), [{"id": self.record.id} | values])
        domain = [("id", "=", self.record.id)]
        self.assertEqual(self.record.search_read(domain, SECRETS), [{"id": self.record.id} | values])
        self.assertEqual(self.record.search_fetch(domain, SECRETS).mapped("password"), ["pässword-1"])
        saved = self.record.web_save({"password": "changed"}, spec)
        self.assertEqual(saved[0]["password"], "changed")

    def test_new_records_and_onchange(self):
        Config = self.env["bj.api.sync.config"]
        self.assertEqual(Config.new({"password": "draft"}).password, "draft")
        self.assertEqual(Config.new({}, origin=self.record).password, "pässword-1")
        self.assertEqual(
            Config.with_context(default_password="default").default_get(["password"])["password"], "default"
        )
        spec = {"password": {}, "name": {}}
        answer = self.record.onchange({"password": "typed", "name": "typed"}, ["name"], spec)
        self.assertNotIn("password", answer["value"])
        self.assertEqual(self.record.password, "pässword-1")

    def test_secrets_are_not_fetched_with_other_fields(self):
        self.assertTrue(self.record.name)
        self.assertFalse(self.env.transaction.field_data.get(self.record._fields["password"]))
        self.assertTrue(self.record.password)
        with self.assertQueryCount(0):
            self.assertTrue(self.record.login, "the secrets of a record are fetched together")

    def test_copy_and_export(self):
        copied = self.record.copy_data()[0]
        self.assertFalse(set(SECRETS) & set(copied))
        self.assertNotIn("value", copied["header_ids"][0][2])
        self.assertEqual(self.record.export_data(["name", "password"])["datas"], [["Partners", ""]])
        description = self.record.fields_get(["password"])["password"]
        for attribute in ("exportable", "searchable", "sortable", "groupable"):
            self.assertFalse(description[attribute])

    def test_only_presence_can_be_searched(self):
        Config, header = self.env["bj.api.sync.config"], self.record.header_ids
        mine = [("id", "=", self.record.id)]
        for operator, value, found in [
            *(
                ("!=", False, True),
                ("=", False, False),
                ("not in", [False], True),
                ("in", ["", False], False),
            ),
        ]:
            domain = [*mine, ("password", operator, value)]
            self.assertEqual(bool(Config.search(domain)), found)
            self.assertEqual(bool(self.record.filtered_domain(domain)), found)
        ciphertext = self.column("password")
        for operator, value in [
            *(("=", "pässword-1"), ("=", ciphertext), ("!=", "x"), ("in", ["x", False]), ("ilike", "p")),
            *(("=like", "g%"), (">", "a"), ("not like", "z")),
        ]:
            with self.assertRaises(UserError):
                Config.search([("password", operator, value)])
            with self.assertRaises(UserError):
                self.record.filtered_domain([("password", operator, value)])
        with self.assertRaises(UserError):
            Config.search([("header_ids.value", "=", "header-1")])
        with self.assertRaises(UserError):
            header.search([("value", "like", "h")])

    def test_no_grouping_and_no_sorting(self):
        Config = self.env["bj.api.sync.config"]
        for groupby, aggregates in [(["password"], []), ([], ["password:array_agg"]), ([], ["password:max"])]:
            with self.assertRaises(UserError):
                Config._read_group([], groupby, aggregates)
            with self.assertRaises(UserError):
                Config.formatted_read_group([], groupby, aggregates)
        with self.assertRaises(UserError):
            self.env["bj.api.log"]._read_group([], ["config_id.password"])
        for order in ("password", "name, password desc"):
            with self.assertRaises(UserError):
                Config.search([], order=order)

    # what others see

    def test_user_group_sees_no_secrets(self):
        user = new_test_user(self.env, "secret_user", "bj_api_sync.group_user,base.group_allow_export")
        record, header = self.record.with_user(user), self.record.header_ids.with_user(user)
        self.assertEqual(record.name, "Partners")
        self.assertFalse(set(SECRETS) & set(record.read()[0]))
        self.assertFalse(set(SECRETS) & set(record.search_read([("id", "=", record.id)])[0]))
        self.assertFalse(set(SECRETS) & set(record.fields_get()))
        self.assertNotIn("value", header.fields_get())
        self.assertNotIn("value", header.read()[0])
        for call in (
            lambda: record.password,
            lambda: record.read(["password"]),
            lambda: record.web_read({"password": {}}),
            lambda: record.web_read({"header_ids": {"fields": {"value": {}}}}),
            lambda: record.search_read([], ["password"]),
            lambda: record.search([("password", "!=", False)]),
            lambda: record.search([("header_ids.value", "!=", False)]),
            lambda: record.search([], order="password"),
            lambda: record._read_group([], ["password"]),
            lambda: record.export_data(["password"]),
            lambda: record.export_data(["header_ids/value"]),
            lambda: record.mapped("header_ids.value"),
            record.copy,
            lambda: record.write({"password": "x"}),
        ):
            with self.assertRaises(UserError):
                call()
        try:
            answer = record.onchange({"name": "x"}, ["name"], {"name": {}, "password": {}})
        except AccessError:
            answer = {}
        self.assertNotIn("pässword-1", str(answer))

    # when the key changes

    def test_undecryptable_values_hide_but_stay(self):
        self.record.authorization_type = "none"
        before = self.column("password")
        self.forget_key()
        with self.assertLogs(LOGGER, "WARNING") as logs:
            self.assertFalse(self.record.password)
            self.record.read()
            self.record.search_read([("id", "=", self.record.id)])
            self.record.web_read({"name": {}, "password": {}, "header_ids": {"fields": {"value": {}}}})
        password_logs = [line for line in logs.output if "bj.api.sync.config.password" in line]
        self.assertEqual(len(password_logs), 1)
        self.assertIn(f"record {self.record.id} ", password_logs[0])
        self.record.name = "Renamed"
        self.assertEqual(self.column("password"), before)
        self.record.password = "typed again"
        self.assertEqual(secret.decrypt(self.column("password")), "typed again")

    @mute_logger(LOGGER)
    def test_undecryptable_value_can_be_cleared(self):
        self.record.authorization_type = "none"
        self.forget_key()
        self.assertFalse(self.record.password)
        self.record.password = False
        self.assertIsNone(self.column("password"))

    @mute_logger(LOGGER)
    def test_bad_key_leaves_forms_readable(self):
        self.use_keys("no-fernet-key")
        self.env.invalidate_all()
        self.assertFalse(self.record.read(["name", "password"])[0]["password"])

    def test_rotation(self):
        new = Fernet.generate_key().decode()
        strange = self.partner_config(endpoint="strange-people")
        strange.flush_recordset()
        self.env.cr.execute("UPDATE bj_api_sync_config SET password = 'no token' WHERE id = %s", [strange.id])
        self.env.invalidate_all()
        self.use_keys(new, self.key)
        rotated, failed = self.env["bj.api.sync.secret"]._rotate_secrets()
        self.assertGreaterEqual(rotated, 4)
        self.assertGreaterEqual(failed, 1)
        self.assertEqual(self.column("password", strange), "no token")
        self.use_keys(new)
        self.env.invalidate_all()
        self.assertEqual(self.record.mapped("password"), ["pässword-1"])
        self.assertEqual(self.record.header_ids.value, "header-1")
