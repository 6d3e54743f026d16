import json
from hashlib import sha256

from lxml import html

from odoo.exceptions import AccessError, UserError, ValidationError
from odoo.fields import Command
from odoo.tests import Form, new_test_user, tagged
from odoo.tools import mute_logger

from .common import ApiCase
from .common_outbound import OutboundCase

SCRIPT_LOG = "odoo.addons.bj_api_sync.models.bj_api_sync_script"


class RehearsalMixin:
    def setUp(self):
        super().setUp()
        self.enterContext(self.enter_registry_test_mode())

    def open_preview(self, config):
        action = config.action_preview()
        return Form(self.env[action["res_model"]].with_context(**action["context"]))


@tagged("post_install", "-at_install")
class TestPreviewOut(RehearsalMixin, OutboundCase):
    """What a record makes is shown, and nothing is sent."""

    def test_request(self):
        self.config.write({"authorization_type": "bearer", "bearer_token": "sesame-1234"})
        form = self.open_preview(self.config)
        form.record = f"res.partner,{self.partner.id}"
        lines = form.request.splitlines()
        self.assertEqual(lines[0], f"POST {self.receiver.url}/partners")
        self.assertIn("Authorization: Bearer ***", lines)
        self.assertEqual(json.loads(form.request.partition("\n\n")[2])["code"], "P1")
        self.assertTrue(form.command.startswith(f"curl --request POST {self.receiver.url}/partners"))
        self.assertIn("--data-raw", form.command)
        self.assertNotIn("sesame", form.request + form.command)
        self.assertFalse(self.receiver.requests)
        self.assertFalse(self.env["bj.api.log"].search([("config_id", "=", self.config.id)]))

    def test_what_is_not_sent(self):
        form = self.open_preview(self.config)
        self.config.filter_domain = "[('ref', '=', 'nobody')]"
        form.record = f"res.partner,{self.partner.id}"
        self.assertIn("outside the filter domain", form.request)
        self.assertFalse(form.command)

    def test_record_of_another_model(self):
        values = {"config_id": self.config.id, "record": f"res.country,{self.env.ref('base.be').id}"}
        wizard = self.env["bj.api.sync.preview"].create(values)
        self.assertEqual(wizard.request, "Choose a record of the model res.partner.")

    def test_script_leaves_nothing(self):
        """A script that writes is run, as it would be, and taken back."""
        script = "record.write({'comment': 'touched'})\nrequest_data['seen'] = True"
        self.config.line_ids = [
            Command.create({"value_type": "script", "script_mode": "exec", "script": script, "sequence": 90})
        ]
        form = self.open_preview(self.config)
        form.record = f"res.partner,{self.partner.id}"
        self.assertIn('"seen": true', form.request)
        self.partner.invalidate_recordset()
        self.assertFalse(self.partner.comment)

    def test_faulty_script(self):
        self.config.line_ids = [
            Command.create({"value_type": "script", "script": "1 / 0", "external_key": "half", "sequence": 90})
        ]
        with mute_logger(SCRIPT_LOG):
            form = self.open_preview(self.config)
            form.record = f"res.partner,{self.partner.id}"
        self.assertIn("division by zero", form.request)

    def test_oauth_asks_for_no_token(self):
        self.config.write(
            {
                "authorization_type": "oauth2",
                "token_url": f"{self.receiver.url}/token",
                "client_id": "odoo",
                "client_secret": "hidden-secret",
            }
        )
        form = self.open_preview(self.config)
        form.record = f"res.partner,{self.partner.id}"
        self.assertIn("Authorization: Bearer ***", form.request)
        self.assertFalse(self.receiver.requests)


@tagged("post_install", "-at_install")
class TestPreviewIn(RehearsalMixin, ApiCase):
    """What a payload would change is told, and nothing is kept."""

    def setUp(self):
        super().setUp()
        self.config_ = self.partner_config()
        self.partner = self.env["res.partner"].create({"name": "Ada", "ref": "ADA", "city": "London"})

    def rows(self, result):
        return [[cell.text or "" for cell in row.findall("td")] for row in html.fromstring(result).iter("tr")][1:]

    def try_out(self, payload):
        wizard = self.env["bj.api.sync.preview"].create({"config_id": self.config_.id})
        wizard.payload = payload if isinstance(payload, str) else json.dumps(payload)
        action = wizard.action_try()
        self.assertEqual((action["res_id"], action["target"]), (wizard.id, "new"))
        return str(wizard.result)

    def test_begins_with_a_record(self):
        form = self.open_preview(self.config_)
        form.record = f"res.partner,{self.partner.id}"
        self.assertEqual(json.loads(form.payload)["address"], {"city": "London", "street": None})

    def test_scripts_of_what_it_begins_with(self):
        """They are run as for an answer, and taken back; one that fails does not keep the form from opening."""
        line = {"value_type": "script", "field_id": self.field("res.partner", "comment"), "external_key": "seen"}
        script = "record.write({'function': 'touched'}) and 'yes'"
        self.config_.line_ids = [Command.create(line | {"script": script})]
        form = self.open_preview(self.config_)
        form.record = f"res.partner,{self.partner.id}"
        self.assertEqual(json.loads(form.payload)["seen"], "yes")
        self.partner.invalidate_recordset()
        self.assertFalse(self.partner.function)
        self.config_.line_ids[-1].script = "1 / 0"
        with mute_logger(SCRIPT_LOG):
            self.assertIn("division by zero", self.open_preview(self.config_).payload)

    def test_change(self):
        result = self.try_out({"code": "ADA", "name": "Ada", "address": {"city": "Paris"}})
        self.assertEqual(self.rows(result), [["", "address.city", '"London"', '"Paris"']])
        self.partner.invalidate_recordset()
        self.assertEqual(self.partner.city, "London")

    def test_creation(self):
        result = self.try_out({"code": "NEW", "name": "<b>New</b>"})
        self.assertIn("Records created: 1, found: 0.", result)
        self.assertIn(["", "name", "", '"<b>New</b>"'], self.rows(result))
        self.assertFalse(self.env["res.partner"].search([("ref", "=", "NEW")]))
        self.assertFalse(self.env["bj.api.log"].search([("config_id", "=", self.config_.id)]))

    def test_begins_with_a_record_that_is_found_again(self):
        self.config_.filter_domain = "[('city', '=', 'London')]"
        self.env["res.partner"].create({"name": "Aaron", "city": "London"})
        self.assertEqual(json.loads(self.open_preview(self.config_).payload)["code"], "ADA")
        self.partner.ref = False
        self.assertIsNone(json.loads(self.open_preview(self.config_).payload)["code"])

    def test_ignored_keys(self):
        """Unknown ones, also of nested objects, and those of fields that nobody can write."""
        country = self.mapping("res.country", ("code", "code"))
        relation = {"value_type": "relational", "mapping_config_id": country.id}
        script = {"value_type": "script", "script_mode": "exec", "script": "request_data['note']"}
        lines = [("write_date", "changed"), ("country_id", "country", relation), (False, False, script)]
        self.config_.line_ids = self.lines("res.partner", ("id", "no"), *lines)[1:]
        payload = {"code": "ADA", "name": "Eda", "changed": "2026-01-31T00:00:00Z", "note": "x", "bare": None}
        payload |= {"address": {"town": "x", "city": "London"}, "country": {"code": "BE", "name": "x"}}
        ignored = "These keys are ignored: bare, address.town, changed, country.name</p>"
        self.assertIn(ignored, self.try_out([payload]))
        self.assertNotIn("ignored", self.try_out({"code": "ADA", "name": "Eda"} | {"note": "x"}))

    def test_nothing(self):
        self.assertIn("Nothing would change.", self.try_out({"code": "ADA", "name": "Ada"}))

    def test_list_with_a_fault(self):
        new = {"code": "NEW", "name": "New"}
        result = self.try_out([{"code": "ADA", "name": "Eda"}, {"code": "X", "name": "Y", "color": "red"}, new])
        self.assertIn("Records created: 1, found: 1.", result)
        self.assertIn(["0", "name", '"Ada"', '"Eda"'], self.rows(result))
        self.assertIn("/color", result)

    def test_refused(self):
        self.assertIn("/color", self.try_out({"code": "X", "name": "Y", "color": "red"}))
        self.assertIn("would be refused", self.try_out({"code": "X"}))
        self.assertIn("must be an object", self.try_out("7"))
        for text in ("{", "[" * 100000, '{"color": NaN}', r'{"\u0000": 1}', r'{"\ud800": 1}'):
            with self.subTest(text=text[:20]), self.assertRaisesRegex(UserError, "not valid JSON"):
                self.try_out(text)
        self.assertIn("/code", self.try_out(r'{"code": "\ud800"}'))
        self.config_.http_method_ids = self.methods("GET")
        with self.assertRaisesRegex(UserError, "takes nothing"):
            self.try_out({})

    @mute_logger("odoo.sql_db")
    def test_what_the_database_refuses(self):
        name = "".join(sha256(bytes([number])).hexdigest() for number in range(100))  # no index can hold it
        self.assertIn("would be refused", self.try_out({"code": "X", "name": name}))

    def test_what_receives_nothing(self):
        for values in ({"endpoint": False}, {"endpoint": "people", "active": False}):
            self.config_.write(values)
            with self.subTest(**values), self.assertRaisesRegex(UserError, "Partners is archived or has no endpoint"):
                self.try_out({"code": "ADA"})

    def test_record_of_another_model(self):
        values = {"config_id": self.config_.id, "record": f"res.country,{self.env.ref('base.be').id}"}
        wizard = self.env["bj.api.sync.preview"].create(values)
        self.assertEqual(wizard.payload, "Choose a record of the model res.partner.")

    def test_access(self):
        user = new_test_user(self.env, "api-reader", "bj_api_sync.group_user")
        with self.assertRaises(AccessError):
            self.env["bj.api.sync.preview"].with_user(user).create({"config_id": self.config_.id})


@tagged("post_install", "-at_install")
class TestSample(ApiCase):
    """Lines are proposed for the keys of a sample."""

    def setUp(self):
        super().setUp()
        self.config_ = self.config("res.partner", ("ref", "code"), endpoint="sampled")

    def open_sample(self, sample):
        action = self.config_.action_sample()
        form = Form(self.env[action["res_model"]].with_context(**action["context"]))
        form.sample = sample if isinstance(sample, str) else json.dumps(sample)
        return form

    def proposals(self, sample):
        wizard = self.open_sample(sample).save()
        return {line.key: line.field_id.name for line in wizard.line_ids}

    def test_first_lines(self):
        """An exposed configuration has an identifier with its first line."""
        self.config_.line_ids.unlink()
        wizard = self.open_sample({"ref": "C-1", "name": "Ada"}).save()
        with self.assertRaisesRegex(ValidationError, "Is Record Identifier"), self.env.cr.savepoint():
            wizard.action_add()
        with Form(wizard) as form, form.line_ids.edit(0) as line:
            line.is_record_identifier = True
        wizard.action_add()
        self.assertEqual(self.config_.line_ids.mapped("is_record_identifier"), [True, False])

    def test_names_and_labels(self):
        sample = {
            "code": "known already",
            "name": "Ada",
            "isCompany": True,
            "E-Mail": "a@example.com",
            "address": {"city": "Graz", "ZIP": "8010"},
            "country_id": 12,
            "color": "red",
            "tags": ["a"],
            "unknown": 1,
            "credit_limit": None,
        }
        self.assertEqual(
            self.proposals(sample),
            {
                "name": "name",
                "isCompany": "is_company",
                "E-Mail": "email",
                "address.city": "city",
                "address.ZIP": "zip",
                "country_id": "country_id",
                "color": False,  # a number in Odoo
                "tags": False,
                "unknown": False,
                "credit_limit": False,  # restricted to a group
            },
        )

    def test_keys_of_nested_objects(self):
        """What is said of another thing is no field of the record, nor is the other system's id one of Odoo's."""
        sample = {
            "id": 4711,
            "created": {"id": 1, "create_date": "2026-01-31", "display_name": "x"},
            "address": {"city": "Graz", "zip": "8010", "country": {"name": "Austria", "code": "AT"}},
            "customer": {"email": "ada@example.com"},
        }
        proposals = self.proposals(sample)
        fields = {"address.city": "city", "address.zip": "zip", "customer.email": "email"}
        self.assertEqual({key: name for key, name in proposals.items() if name}, fields)
        self.assertEqual(len(proposals), 9)

    def test_no_field_twice(self):
        """A plain key has it, wherever it stands, unless there is a line of the field."""
        sample = {"invoice": {"city": "Graz"}, "ref": "C-1", "city": "Wien", "City": "Linz"}
        self.assertEqual(self.proposals(sample), {"invoice.city": False, "ref": False, "city": "city", "City": False})

    def test_button(self):
        """It is there before anything is proposed: the text may still have the focus."""
        view = self.env["bj.api.sync.sample"].get_view(view_type="form")["arch"]
        [button] = html.fromstring(view).xpath("//button[@name='action_add']")
        self.assertNotIn("invisible", button.attrib)

    def test_keys_of_all_objects(self):
        self.assertEqual(
            self.proposals([{"name": None}, {"name": "Ada", "city": "Graz"}]), {"name": "name", "city": "city"}
        )

    def test_keys_that_have_a_line(self):
        """Neither they, nor what leads into them, nor what is inside of them."""
        self.config_.line_ids[0].external_key = "a.b"
        self.assertEqual(
            self.proposals({"a": {"b": {"name": "x"}, "c": 1}, "name": "y"}), {"a.c": False, "name": "name"}
        )
        self.config_.line_ids[0].external_key = "a.b"
        self.assertEqual(self.proposals({"a": 1, "ab": 1}), {"ab": False})

    def test_add(self):
        form = self.open_sample({"title": "Ada", "city": "Graz", "other": 1})
        with form.line_ids.edit(0) as line:
            line.field_id = self.env["ir.model.fields"]._get("res.partner", "name")
        form.save().action_add()
        lines = [(line.external_key, line.field_id.name, line.value_type) for line in self.config_.line_ids]
        self.assertEqual(lines, [("code", "ref", "plain"), ("title", "name", "plain"), ("city", "city", "plain")])

    def test_what_is_no_sample(self):
        for sample, problem in (
            ("{", "not valid JSON"),
            ("[]", "Expected an object"),
            ("[1]", "Expected an object"),
            ("[" * 100000, "not valid JSON"),
            ('{"a": ' * 100000, "not valid JSON"),
            *(('{"a": ' * depth + "1" + "}" * depth, "not valid JSON") for depth in (995, 5000)),
            ('{"a": NaN}', "NaN is no JSON number"),
            (r'{"a\u0000": 1}', r"no key can be 'a\x00'"),
            (r'{"a": {"\ud800": 1}}', r"no key can be '\ud800'"),
        ):
            form = self.open_sample(sample)
            self.assertIn(problem, form.problem)
            with self.assertRaisesRegex(UserError, "Choose a field"):
                form.save().action_add()

    def test_text_that_is_half_a_character(self):
        wizard = self.open_sample(r'{"name": "\ud800"}').save()
        self.assertEqual(wizard.line_ids.value, r'"\ud800"')
