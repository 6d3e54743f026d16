from contextlib import contextmanager

from psycopg2.errors import UniqueViolation

from odoo.exceptions import UserError, ValidationError
from odoo.fields import Command
from odoo.tests import new_test_user, tagged
from odoo.tools import mute_logger

from .common import ApiCase


@tagged("-at_install", "post_install")
class TestConfig(ApiCase):
    """What a configuration must be, and that refusals tell what to do."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.env = cls.env(user=cls.env.ref("base.user_admin"))

    def values(self, **values):
        """Return what a JSON-RPC client sends to create a configuration without lines."""
        return {
            "name": "Contacts",
            "request_type": "in",
            "model_id": self.env["ir.model"]._get_id("res.partner"),
            "http_method_ids": self.methods("GET"),
            "endpoint": "test-contacts",
            "bearer_token": "abc",
        } | values

    def out(self, **values):
        lines = self.lines("res.partner", ("ref", "code"), ("name", "name"))
        return self.config(
            "res.partner",
            request_type="out",
            http_method_ids=self.methods("POST"),
            line_ids=lines,
            **({"request_url": "https://example.com/contacts"} | values),
        )

    @contextmanager
    def refused(self, message):
        with self.assertRaises(ValidationError) as caught:
            yield
        self.assertRegex(str(caught.exception), message)

    def line(self, config, field, key, **values):
        return self.env["bj.api.sync.config.line"].create(
            {
                "config_id": config.id,
                "field_id": field and self.field(config.model_name, field),
                "external_key": key,
            }
            | values
        )

    # Creating, in any order

    def test_config_first_lines_later(self):
        config = self.env["bj.api.sync.config"].create(self.values())
        name = self.line(config, "name", "name")
        code = self.line(config, "ref", "code", is_record_identifier=True)
        self.assertEqual(config.line_ids, name | code)
        self.assertEqual(config.limit, 100)
        self.assertEqual(config.company_id, self.env.company)

    def test_lines_with_config(self):
        lines = self.lines("res.partner", ("ref", "code"), ("name", "name"))
        params = [
            Command.create({"key": "city", "field_id": self.field("res.partner", "city"), "domain_operator": "ilike"})
        ]
        headers = [Command.create({"key": "X-Shop", "value": "1"})]
        config = self.env["bj.api.sync.config"].create(
            self.values(
                line_ids=lines, param_ids=params, header_ids=headers, user_id=self.env.ref("base.user_admin").id
            )
        )
        self.assertEqual(config.line_ids.mapped("external_key"), ["code", "name"])
        self.assertEqual(config.header_ids.purpose, "answer")

    def test_endpoint_last(self):
        config = self.env["bj.api.sync.config"].create(
            {"name": "Contacts", "request_type": "in", "model_id": self.env["ir.model"]._get_id("res.partner")}
        )
        self.line(config, "name", "name")
        config.write({"endpoint": False})
        with self.refused("Is Record Identifier"):
            config.write({"endpoint": "later", "http_method_ids": self.methods("GET"), "bearer_token": "abc"})

    def test_changes_are_checked_as_a_whole(self):
        """What is wrong halfway is no error when the whole is right, whatever the order of the commands."""
        config = self.partner_config()
        code, name, email = config.line_ids[:3]
        config.write(
            {
                "line_ids": [
                    Command.update(name.id, {"is_record_identifier": True, "external_key": "code"}),
                    Command.update(code.id, {"is_record_identifier": False, "external_key": "name"}),
                    Command.create({"field_id": email.field_id.id, "external_key": "email"}),
                    Command.delete(email.id),
                ]
            }
        )
        self.assertEqual((code.external_key, name.external_key), ("name", "code"))
        self.assertEqual(config.line_ids.filtered("is_record_identifier"), name)

    def test_copy(self):
        config = self.partner_config(header_ids=[Command.create({"key": "X-Shop", "value": "1"})])
        copy = config.copy({"bearer_token": "other"})
        self.assertEqual(copy.name, "Partners (copy)")
        self.assertFalse(copy.endpoint)
        self.assertEqual(copy.line_ids.mapped("external_key"), config.line_ids.mapped("external_key"))

    def test_pasted_values_are_cleaned(self):
        config = self.partner_config(endpoint=" cleaned ", bearer_token=" Bearer  xyz ")
        self.assertEqual((config.endpoint, config.bearer_token), ("cleaned", "xyz"))
        self.assertTrue(config.endpoint_url.endswith("/bj_api_sync/v1/cleaned"))

    # Request type, methods, URLs

    def test_methods_out(self):
        config = self.out()
        for names in ((), ("POST", "PUT")):
            with self.subTest(names=names), self.refused("exactly one HTTP method"):
                config.http_method_ids = self.methods(*names)

    def test_methods_in(self):
        with self.refused("choose the HTTP methods"):
            self.partner_config(http_method_ids=False)
        self.assertTrue(self.mapping("res.partner", ("ref", "code")))

    def test_endpoint(self):
        for endpoint in ("a/b", "-a", "a b", "ä", "openapi.json", "docs", "a?b"):
            with self.subTest(endpoint=endpoint), self.refused("cannot be used in a URL"):
                self.partner_config(endpoint=endpoint)
        self.assertTrue(self.partner_config(endpoint="v2.Shop_orders-1"))

    @mute_logger("odoo.sql_db")
    def test_endpoint_unique(self):
        self.partner_config(endpoint="once")
        with self.assertRaises(UniqueViolation):
            self.partner_config(endpoint="once")

    def test_endpoint_of_what_went_out_since(self):
        """It is free for others: nobody sees it any more."""
        values = {"request_type": "out", "request_url": "https://example.com", "http_method_ids": self.methods("POST")}
        config = self.partner_config(endpoint="once")
        config.write(values)
        config.flush_recordset()
        self.partner_config(endpoint="once")
        with mute_logger("odoo.sql_db"), self.assertRaises(UniqueViolation):
            config.request_type = "in"

    def test_request_url(self):
        for url in (
            False,
            "example.com/a",
            "ftp://example.com",
            "https://",
            "https://example.com/a b",
            "http://host:port/",
        ):
            with self.subTest(url=url), self.refused("must be absolute"):
                self.out(request_url=url)
        self.assertTrue(self.out(request_url="https://example.com/contacts/{code}?lang=en"))
        with self.refused("{unknown}"):
            self.out(request_url="https://example.com/{unknown}")

    def test_ranges(self):
        for name, value, message in (
            ("connection_timeout", 0, "between 1 and 60"),
            ("connection_timeout", 61, "between 1 and 60"),
            ("read_timeout", 301, "between 1 and 300"),
            ("limit", 0, "between 1 and 1000000"),
            ("page_size", -1, "between 1 and 1000000"),
        ):
            with self.subTest(name=name, value=value), self.refused(message):
                self.out(**{name: value})
        config = self.out()
        with self.refused("between 1 and 1000000"):
            config.limit = 3_000_000_000

    # Authorization

    def test_authorization_type_of_request_type(self):
        with self.refused("not available for the request type Out"):
            self.out(authorization_type="odoo")
        self.assertTrue(self.partner_config(authorization_type="odoo", bearer_token=False, user_id=False))

    def test_credentials(self):
        with self.refused("fill in Bearer Token"):
            self.partner_config(bearer_token=False)
        with self.refused("fill in Login"):
            self.partner_config(authorization_type="basic", password="x")
        with self.refused("fill in Password"):
            self.out(authorization_type="basic", login="x")
        with self.refused("add a header that is required"):
            self.partner_config(authorization_type="header")
        with self.refused("has no colon"):
            self.partner_config(authorization_type="basic", login="a:b", password="x")
        with self.refused("Password has a line break"):
            self.out(authorization_type="basic", login="x", password="x\ny")
        with self.refused("Bearer Token has a line break"):
            self.partner_config(bearer_token="x\ny")

    def test_run_as(self):
        with self.refused("choose the user the requests run as"):
            self.partner_config(user_id=False)
        with self.refused("choose the user the requests run as"):
            self.partner_config(user_id=False, authorization_type="none")
        with self.refused("cannot run as the superuser"):
            self.partner_config(user_id=self.env.ref("base.user_root").id)
        company = self.env["res.company"].create({"name": "Elsewhere"})
        user = new_test_user(self.env, "runner", "base.group_user")
        with self.refused("runner.* has no access to the company Elsewhere"):
            self.partner_config(company_id=company.id, user_id=user.id)

    def test_run_as_of_what_is_sent(self):
        with self.refused("choose the user the requests run as"):
            self.out(user_id=False)
        with self.refused("cannot run as the superuser"):  # who creates the data of a module
            self.out(user_id=self.env.ref("base.user_root").id)
        user = new_test_user(self.env, "runner", "base.group_user")
        self.out(user_id=user.id)
        with self.assertRaisesRegex(UserError, "API configurations run as runner"):
            user.unlink()

    # Model, filter, options

    def test_model(self):
        for name in ("mail.thread", "base.language.export"):
            with self.subTest(name=name), self.refused("no records to synchronize"):
                self.config(name, endpoint="nothing", line_ids=False)

    def test_filter_domain(self):
        for domain in ("[('nothing', '=', 1)]", "[(", "1 + 1", "[('name', '=', unknown)]", "['|']"):
            with self.subTest(domain=domain), self.refused("Filter Domain of Partners is not valid"):
                self.partner_config(filter_domain=domain)
        domain = "[('create_date', '>', datetime.datetime.now() - relativedelta(days=1)), ('user_id', '!=', uid)]"
        self.assertTrue(self.partner_config(filter_domain=domain))
        self.assertTrue(self.partner_config(filter_domain="[('create_date', '<', context_today())]", endpoint="today"))

    def test_delete_policy(self):
        with self.refused("choose Delete"):
            self.config("res.country", ("code", "code"), endpoint="countries", delete_policy="archive")

    def test_record_identifier(self):
        lines = self.lines("res.partner", ("ref", "code"), ("name", "name", {"is_record_identifier": True}))
        with self.refused("Is Record Identifier|only one line"):
            self.partner_config(line_ids=lines)
        with self.refused("on exactly one line"):
            self.partner_config(line_ids=self.lines("res.partner", ("ref", "code", {"is_record_identifier": False})))
        with self.refused("only one line can be the record identifier"):
            self.line(self.partner_config(), "vat", "vat", is_record_identifier=True)

    def test_record_identifier_field(self):
        config = self.mapping("res.partner", ("name", "name", {"is_record_identifier": False}))
        for name in ("child_ids", "image_1920", "is_company", "partner_latitude"):
            with self.subTest(name=name), self.refused("cannot be the record identifier"):
                self.line(config, name, name, is_record_identifier=True)

    def test_record_identifier_is_received(self):
        """Read from the answer alone it is in no payload, whatever comes in."""
        line = {"field_id": self.field("res.partner", "ref"), "is_record_identifier": True, "response_key": "id"}
        lines = [Command.create(line)]
        config, inbound = self.out(), self.partner_config()
        config.line_ids = [Command.clear(), *lines]
        message = "it is the record identifier"
        with self.refused(message):
            config.write({"request_type": "in", "endpoint": "answers"})
        with self.refused(message):
            config.write({"is_pull": True, "http_method_ids": self.methods("GET")})
        with self.refused(message):
            config.counterpart_id = inbound
        with self.refused(message):
            self.partner_config(line_ids=lines, endpoint="answers")
        config.line_ids.external_key = "code"
        config.counterpart_id = inbound
        with self.refused(message):
            config.line_ids.external_key = False

    # Lines

    def test_line_field(self):
        config = self.partner_config()
        with self.refused("choose the field"):
            self.line(config, False, "nothing")
        with self.refused("choose the field"):
            self.line(config, False, "value", value_type="script", script="1")
        with self.refused("does not belong to the model Contact"):
            self.line(config, False, "country", field_id=self.field("res.country", "code"))
        self.assertTrue(self.line(config, False, False, value_type="script", script_mode="exec", script="x = 1"))
        self.assertTrue(self.line(self.out(), False, "value", value_type="script", script="record.name"))

    def test_line_name(self):
        line = self.line(self.out(), False, False, value_type="script", script_mode="exec", script="x = 1", sequence=7)
        self.assertEqual(line.display_name, "Line 7")
        line.sequence = 8
        self.assertEqual(line.display_name, "Line 8")
        line.field_id = self.field("res.partner", "vat")
        self.assertEqual(line.display_name, line.field_id.field_description)
        line.external_key = "vat"
        self.assertEqual(line.display_name, "vat")

    def test_line_external_key(self):
        config = self.partner_config()
        with self.refused("fill in the External API Key"):
            self.line(config, "vat", False)
        for key in ("a..b", ".a", "a.", "a. b"):
            with self.subTest(key=key), self.refused("empty part"):
                self.line(config, "vat", key)
        for key, message in (
            ("name", "“name” is used twice"),
            ("address", "“address” cannot be both a value and the object of “address.city”"),
            ("name.first", "“name” cannot be both a value and the object of “name.first”"),
        ):
            with self.subTest(key=key), self.refused(message):
                self.line(config, "vat", key)
        self.assertTrue(self.line(self.out(), "comment", False, response_key="id"))

    def test_line_relation(self):
        config = self.partner_config()
        country = self.mapping("res.country", ("code", "code"))
        with self.refused("is no relation"):
            self.line(config, "vat", "vat", value_type="relational", mapping_config_id=country.id)
        with self.refused("choose the Mapping Model"):
            self.line(config, "country_id", "country", value_type="relational")
        with self.refused("must be a configuration on the model res.country.state"):
            self.line(config, "state_id", "state", value_type="relational", mapping_config_id=country.id)
        line = self.line(config, "country_id", "country", value_type="relational", mapping_config_id=country.id)
        with self.refused("must be a configuration on the model res.country"):
            country.write({"line_ids": [Command.clear()], "model_id": self.env["ir.model"]._get_id("res.currency")})
        self.assertEqual(line.field_relation, "res.country")

    def test_identifier_only(self):
        """Of a Mapping Model that has one."""
        country = self.mapping("res.country", ("code", "code", {"is_record_identifier": False}))
        relation = {"value_type": "relational", "mapping_config_id": country.id}
        line = self.line(self.partner_config(), "country_id", "country", **relation)
        with self.refused("Test res.country has no record identifier"):
            line.relation_output = "identifier"
        country.line_ids.is_record_identifier = True
        line.relation_output = "identifier"

    def test_deletion_of_mapping_models(self):
        """With all that use them, in any order, but not without."""
        for is_reversed in (False, True):
            country = self.mapping("res.country", ("code", "code"))
            config = self.partner_config()
            self.line(config, "country_id", "country", value_type="relational", mapping_config_id=country.id)
            with self.assertRaisesRegex(ValidationError, f"{country.name}: .* used by: {config.name} / country"):
                country.unlink()
            both = country + config
            (both[::-1] if is_reversed else both).unlink()
            self.assertFalse(both.exists())

    def test_mapping_cycle(self):
        company, person = (
            self.mapping("res.partner", ("ref", "code"), name="Company"),
            self.mapping("res.partner", ("ref", "code"), name="Person"),
        )
        self.line(company, "child_ids", "people", value_type="relational", mapping_config_id=person.id)
        with self.refused("lead from Person back to itself"):
            self.line(person, "parent_id", "company", value_type="relational", mapping_config_id=company.id)
        with self.refused("lead from Person back to itself"):
            self.line(person, "child_ids", "people", value_type="relational", mapping_config_id=person.id)

    def test_line_script(self):
        config = self.partner_config()
        for mode, script in (("eval", False), ("eval", "1 +"), ("eval", "x = 1"), ("exec", "if"), ("eval", "(")):
            with self.subTest(script=script), self.refused("Python Script is not valid"):
                self.line(config, "vat", "vat", value_type="script", script_mode=mode, script=script)
        self.assertTrue(self.line(config, "vat", "vat", value_type="script", script="record.vat or '-'"))

    def test_restricted_field(self):
        config = self.config("res.users", ("login", "login"), endpoint="users")
        name = next(
            name for name, field in self.env["res.users"]._fields.items() if field.groups and not field.relational
        )
        with self.refused("Allow Restricted Field"):
            self.line(config, name, "restricted")
        line = self.line(config, name, "restricted", allow_restricted=True)
        self.assertTrue(line.field_restricted)
        self.assertFalse(config.line_ids[0].field_restricted)

    # Headers and parameters

    def test_headers(self):
        config = self.partner_config()
        for key, value, purpose, message in (
            ("X Shop", "1", "answer", "not a valid header name"),
            ("X-Shop:", "1", "answer", "not a valid header name"),
            ("X-Shop", "1\r\nX-Evil: 1", "answer", "no header can carry"),
            ("X-Shop", False, "require", "fill in its value"),
            ("content-Length", "1", "answer", "made with each message"),
        ):
            with self.subTest(key=key, value=value), self.refused(message):
                config.header_ids = [Command.create({"key": key, "value": value, "purpose": purpose})]

    def test_header_purpose(self):
        config = self.partner_config(
            authorization_type="header", header_ids=[Command.create({"key": "X-Key", "value": "1"})]
        )
        self.assertEqual(config.header_ids.purpose, "require")

    def test_params(self):
        config = self.partner_config()
        for key, name, operator, message in (
            ("limit", "name", "=", "choose another key"),
            ("city", "is_company", "ilike", "makes no sense"),
            ("since", "is_company", ">", "makes no sense"),
        ):
            with self.subTest(key=key), self.refused(message):
                config.param_ids = [
                    Command.create(
                        {"key": key, "field_id": self.field("res.partner", name), "domain_operator": operator}
                    )
                ]
        with self.refused("does not belong to the model Contact"):
            config.param_ids = [Command.create({"key": "code", "field_id": self.field("res.country", "code")})]

    # HTTP methods

    def test_http_methods(self):
        names = self.env["bj.http.method"].search([]).mapped("name")
        self.assertEqual(names, ["GET", "POST", "PUT", "PATCH", "DELETE"])

    def test_copy_is_archived(self):
        """A copy has no secrets, and so is archived until somebody fills them in."""
        config = self.partner_config(
            request_type="out",
            endpoint=False,
            http_method_ids=self.methods("POST"),
            request_url="https://example.com/",
            header_ids=[Command.create({"key": "X-Key", "value": "secret"})],
        )
        copy = config.copy()
        self.assertEqual((copy.active, copy.bearer_token, copy.name), (False, False, "Partners (copy)"))
        self.assertEqual(len(copy.line_ids), len(config.line_ids))
        with self.refused("fill in Bearer Token"):
            copy.active = True
        copy.write({"bearer_token": "new", "active": True})
        self.assertTrue(copy.active)


@tagged("-at_install", "post_install")
class TestIdentifierField(ApiCase):
    """A field that tells records apart is not removed, but for an addon that goes."""

    def make(self, name):
        return self.env["ir.model.fields"].create(
            {
                "model_id": self.env["ir.model"]._get_id("res.partner"),
                "name": name,
                "field_description": name,
                "ttype": "char",
            }
        )

    def test_removal(self):
        field, other = self.make("x_shop_id"), self.make("x_shop_name")
        config = self.config("res.partner", ("x_shop_id", "xid"), ("x_shop_name", "name"), name="Shop", active=False)
        other.unlink()
        self.assertEqual(config.line_ids.field_id, field)
        with self.assertRaisesRegex(UserError, r"x_shop_id .*is the record identifier of Shop"):
            field.unlink()

    def test_uninstallation(self):
        field = self.make("x_shop_id")
        config = self.config("res.partner", ("x_shop_id", "xid"), ("name", "name"))
        field.with_context(_force_unlink=True).unlink()
        self.assertEqual(config.line_ids.mapped("external_key"), ["name"])
