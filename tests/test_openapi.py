import json
from datetime import timedelta
from unittest import SkipTest

from lxml import html

from odoo import fields
from odoo.fields import Command
from odoo.tests import tagged

from .common import TOKEN, ApiHttpCase

try:
    from jsonschema import Draft202012Validator, FormatChecker
    from openapi_spec_validator import OpenAPIV31SpecValidator
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012
except ImportError:  # an Odoo of one's own need not have them
    Draft202012Validator = None

RELATIONAL = {"value_type": "relational"}


@tagged("-at_install", "post_install")
class TestOpenapi(ApiHttpCase):
    """The document is valid, complete, true, and tells nobody more than they may know."""

    @classmethod
    def setUpClass(cls):
        if Draft202012Validator is None:
            raise SkipTest("openapi-spec-validator is not installed")
        super().setUpClass()

    def setUp(self):
        super().setUp()
        self.country = self.mapping("res.country", ("code", "code"), ("name", "name"), name="Nation by its code")
        self.tag = self.mapping("res.partner.category", ("name", "name"), name="Tag")
        self.contact = self.mapping("res.partner", ("email", "email"), ("name", "name"), name="Person")
        self.people = self.partner_config(filter_domain="[('ref', '=like', 'T-%')]", limit=50)
        self.add_line("tz", "zone")
        self.add_line("write_date", "changed")
        self.add_line("image_128", "picture")
        self.add_line("parent_id", "parent")
        self.add_line("partner_latitude", "place.latitude")
        self.add_line("country_id", "address.country", **RELATIONAL, mapping_config_id=self.country.id)
        self.add_line("function", "role", value_type="script", script="record.ref or ''")
        self.add_line("comment", "remark", value_type="script", script="request_data.get('note')")
        identifier = {"relation_policy": "create", "relation_output": "identifier"}
        self.add_line("category_id", "tags", **RELATIONAL, **identifier, mapping_config_id=self.tag.id)
        self.add_line("child_ids", "contacts", **RELATIONAL, mapping_config_id=self.contact.id)
        self.ann = self.env["res.partner"].create(
            {
                "name": "Ann",
                "ref": "T-1",
                "tz": "UTC",
                "country_id": self.env.ref("base.be").id,
                "category_id": [Command.create({"name": "Gold"})],
                "child_ids": [Command.create({"name": "Al", "email": "al@example.com"})],
            }
        )
        self.bob = self.env["res.partner"].create({"name": "Bob", "ref": "T-2"})

    def add_line(self, name, key, **values):
        field_id = self.field(self.people.model_name, name)
        self.people.line_ids = [Command.create({"field_id": field_id, "external_key": key, "sequence": 99} | values)]

    def add_param(self, key, name, operator):
        values = {"key": key, "field_id": self.field("res.partner", name), "domain_operator": operator}
        self.people.param_ids = [Command.create(values)]

    def document(self, token=TOKEN, **options):
        response = self.call("GET", "/openapi.json", token=token, **options)
        self.assertEqual(response.status_code, 200)
        return response.json()

    def schema(self, document, name):
        return document["components"]["schemas"][name]["properties"]

    def operation(self, method="get", path="/people"):
        return self.document()["paths"][path][method]

    def params(self, method="get", path="/people"):
        return {param["name"]: param for param in self.operation(method, path)["parameters"] if "name" in param}

    def validate(self, document, schema, value):
        """Validate a value against a schema of the document."""
        resource = Resource.from_contents(document, default_specification=DRAFT202012)
        registry = Registry().with_resource("urn:document", resource)
        schema = json.loads(json.dumps(schema).replace('"#/', '"urn:document#/'))
        validator = Draft202012Validator(schema, registry=registry, format_checker=FormatChecker())
        self.assertFalse([error.message for error in validator.iter_errors(value)])

    def resolve(self, document, part):
        while "$ref" in part:
            target = document
            for key in part["$ref"].split("/")[1:]:
                target = target[key]
            part = target
        return part

    def check(self, method, path, *args, described=None, **options):
        """Send a request, and hold its answer against the document."""
        document = self.document()
        response = self.call(method, path, *args, **options)
        template = described or path.split("?")[0]
        operation = document["paths"][template][method.lower()]
        self.assertIn(str(response.status_code), operation["responses"], response.text)
        described = self.resolve(document, operation["responses"][str(response.status_code)])
        content_type = response.headers["Content-Type"].split(";")[0]
        self.validate(document, described["content"][content_type]["schema"], response.json())
        for name, header in described["headers"].items():
            if self.resolve(document, header).get("required"):
                self.assertIn(name, response.headers)
        known = document["components"]["headers"].keys() & response.headers.keys()
        self.assertLessEqual(known, described["headers"].keys())
        return response

    # the document

    def test_valid(self):
        document = self.document()
        OpenAPIV31SpecValidator(document).validate()
        self.assertEqual(document["openapi"], "3.1.1")
        for schema in document["components"]["schemas"].values():
            Draft202012Validator.check_schema(schema)

    def test_paths(self):
        self.people.http_method_ids = self.methods("GET", "POST")
        document = self.document()
        self.assertEqual(set(document["paths"]), {"/people", "/people/{record_id}"})
        self.assertEqual(set(document["paths"]["/people"]), {"get", "post"})
        self.assertEqual(set(document["paths"]["/people/{record_id}"]), {"get", "parameters"})
        self.assertTrue(document["servers"][0]["url"].endswith("/bj_api_sync/v1"))
        other = self.document(prefix="/api/sync/v1")
        self.assertTrue(other["servers"][0]["url"].endswith("/api/sync/v1"))

    def test_field_types(self):
        schema = self.schema(self.document(), "people")
        self.assertEqual(schema["color"]["type"], "integer")
        self.assertEqual(schema["company"]["type"], "boolean")
        self.assertEqual(schema["email"]["type"], ["string", "null"])
        self.assertEqual(schema["picture"]["format"], "byte")
        self.assertEqual((schema["changed"]["format"], schema["changed"]["readOnly"]), ("date-time", True))
        self.assertEqual(schema["parent"]["type"], ["integer", "null"])
        self.assertEqual(schema["place"]["properties"]["latitude"]["type"], "number")
        self.assertIn("7", schema["place"]["properties"]["latitude"]["description"])
        self.assertIn(None, schema["zone"]["enum"])
        self.assertIn("Europe/Berlin", schema["zone"]["enum"])
        self.assertEqual(schema["email"]["title"], "Email")

    def test_selection_labels(self):
        self.add_line("type", "kind")
        self.assertIn("delivery: Delivery", self.schema(self.document(), "people")["kind"]["description"])

    def test_nested(self):
        document = self.document()
        schema = self.schema(document, "people")
        country = schema["address"]["properties"]["country"]
        self.assertEqual(country["anyOf"], [{"$ref": "#/components/schemas/NationByItsCode.object"}, {"type": "null"}])
        self.assertEqual(set(self.schema(document, "NationByItsCode.object")), {"code", "name"})
        self.assertEqual(schema["tags"]["items"]["type"], "string")
        self.assertEqual(schema["contacts"]["items"]["$ref"], "#/components/schemas/Person.object")
        self.assertEqual(schema["role"].keys() & {"type", "$ref"}, set())

    def test_writing_differs(self):
        document = self.document()
        created = document["components"]["schemas"]["people.create"]
        self.assertFalse({"changed", "id", "role"} & created["properties"].keys())
        self.assertIn("remark", created["properties"])
        self.assertNotIn("additionalProperties", created)
        self.people.strict_keys = True
        created = self.document()["components"]["schemas"]["people.create"]
        self.assertIs(created["additionalProperties"], False)
        self.assertIs(created["properties"]["address"]["additionalProperties"], False)
        self.assertEqual(created["properties"]["changed"]["readOnly"], True)

    def test_required(self):
        config = self.config(
            "res.currency", ("name", "code"), ("symbol", "mark.symbol"), ("rounding", "rounding"), endpoint="money"
        )
        schemas = self.document()["components"]["schemas"]
        self.assertEqual(schemas["money.create"]["required"], ["code", "mark"])
        self.assertEqual(schemas["money.create"]["properties"]["mark"]["required"], ["symbol"])
        self.assertNotIn("required", schemas["money.update"])
        self.assertEqual(schemas["money"]["properties"]["code"]["type"], "string")
        # a script may fill the key in
        script = {"value_type": "script", "script_mode": "exec", "script": "request_data['code'] = 'X'"}
        config.line_ids = [Command.create(script)]
        self.assertEqual(self.document()["components"]["schemas"]["money.create"]["required"], ["mark"])

    def test_same_names(self):
        twin = self.mapping("res.partner.category", ("name", "name"), name="Tag")
        self.add_line("user_id", "seller")
        self.people.line_ids.filtered(lambda line: line.external_key == "tags").mapping_config_id = twin
        schemas = self.document()["components"]["schemas"]
        self.assertIn(f"Tag-{twin.id}.input", schemas)

    def test_parameters(self):
        for key, name, operator in (
            ("like", "name", "ilike"),
            ("above", "color", ">"),
            ("refs", "ref", "in"),
            ("has_city", "city", "set"),
        ):
            self.add_param(key, name, operator)
        params = self.params()
        self.assertEqual(params["like"]["schema"], {"type": "string"})
        self.assertEqual(params["above"]["schema"]["type"], "integer")
        self.assertEqual((params["refs"]["schema"]["type"], params["refs"]["explode"]), ("array", False))
        self.assertEqual(params["has_city"]["schema"], {"type": "boolean"})
        self.assertEqual(params["limit"]["schema"]["default"], 50)
        self.assertIn("-address.city", params["sort"]["schema"]["items"]["enum"])
        self.assertNotIn("contacts", params["sort"]["schema"]["items"]["enum"])
        self.assertIn("address", params["fields"]["schema"]["items"]["enum"])
        self.assertEqual(params["address.country"]["schema"]["type"], "string")
        self.assertFalse({"picture", "remark"} & params.keys())
        self.assertEqual(set(self.params("post")), {"fields", "atomic"})
        self.assertIn({"$ref": "#/components/parameters/Idempotency-Key"}, self.operation("post")["parameters"])
        for name in params.keys() - {"refs", "sort", "fields", "page", "like", "cursor"}:
            values = {"boolean": "true", "integer": "1", "number": "1.5", "string": "x"}
            schema = params[name]["schema"]
            value = (schema.get("enum") or schema.get("examples") or [values[schema["type"]]])[0]
            with self.subTest(name=name):
                self.assertEqual(self.call("GET", "/people", params={name: value}).status_code, 200)
        for key in params["sort"]["schema"]["items"]["enum"]:
            self.assertEqual(self.call("GET", "/people", params={"sort": key}).status_code, 200, key)

    def test_record_id(self):
        path = self.document()["paths"]["/people/{record_id}"]
        self.assertEqual(path["parameters"][0]["schema"]["type"], "integer")
        self.people.record_id_type = "identifier"
        path = self.document()["paths"]["/people/{record_id}"]
        self.assertEqual(path["parameters"][0]["schema"]["type"], "string")

    def test_record_id_without_identifier(self):
        """A configuration without lines has no identifier: the database id stands in the path."""
        self.config("res.country", endpoint="bare", record_id_type="identifier")
        document = self.document()
        self.assertEqual(document["paths"]["/bare/{record_id}"]["parameters"][0]["schema"]["type"], "integer")
        links = document["paths"]["/bare"]["post"]["responses"]["201"]["links"]
        self.assertEqual(links["read"]["parameters"], {"record_id": "$response.body#/data/id"})

    def test_models_without_dates(self):
        self.config("mail.followers", ("id", "id"), ("res_model", "model"), endpoint="followers")
        params = self.params(path="/followers")
        self.assertNotIn("updated_since", params)
        self.assertEqual(params["sort"]["schema"]["items"]["enum"], ["id", "-id", "model", "-model"])

    def test_examples_work(self):
        body = self.operation("post")["requestBody"]["content"]["application/json"]["example"]
        self.assertEqual((body["code"], body["color"]), ("Reference", 1))
        body |= {"code": "T-3", "parent": None, "picture": None}
        body["address"]["country"] = "BE"
        self.assertEqual(self.check("POST", "/people", body).status_code, 201)

    def test_titles(self):
        """Generators of clients name classes after titles, and leave out what has the name of another one."""
        schemas = self.document()["components"]["schemas"].values()
        titles = [schema["title"] for schema in schemas if "title" in schema]
        self.assertEqual(len(titles), len(set(titles)))

    def check_examples(self, document):
        """Validate all examples of a document: those of bodies, and those inside of schemas."""

        def walk(part):
            if isinstance(part, list):
                part = dict(enumerate(part))
            if not isinstance(part, dict):
                return
            for value in [part["example"]] if "schema" in part and "example" in part else ():
                self.validate(document, part["schema"], value)
            for value in part["examples"] if isinstance(part.get("examples"), list) else ():
                self.validate(document, {key: value for key, value in part.items() if key != "examples"}, value)
            for key in part.keys() - {"example", "examples"}:
                walk(part[key])

        walk(document)

    def test_examples_are_as_described(self):
        """Also those of what is answered, of short codes, of identifiers that nobody may write, and of strict ones."""
        self.add_line("company_id", "company_id")
        self.config("res.partner", ("id", "id"), ("name", "name"), endpoint="numbered")
        for policy in ("object", "identifier"):
            values = {"relation_output": policy, "mapping_config_id": self.country.id}
            lines = self.lines("res.partner", ("ref", "code"), ("country_id", "country", RELATIONAL | values))
            self.config("res.partner", endpoint=policy, line_ids=lines, strict_keys=True)
        self.authenticate("admin", "admin")
        document = self.document(token=None)
        self.check_examples(document)
        body = document["paths"]["/people"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
        self.assertEqual(body.keys(), {"status", "data"})
        body = document["paths"]["/identifier"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
        self.assertEqual(body["data"][0], {"id": 7, "code": "Reference", "country": "Co"})

    # security

    def test_security(self):
        def security():
            document = self.document(headers={"X-Key": "k"})
            schemes = document["components"]["securitySchemes"]
            [need] = document["paths"]["/people"]["get"]["security"]
            return [schemes[name] for name in need]

        self.assertEqual(security(), [{"type": "http", "scheme": "bearer"}])
        self.people.header_ids = [Command.create({"key": "X-Key", "value": "k", "purpose": "require"})]
        self.assertEqual(security()[1], {"type": "apiKey", "in": "header", "name": "X-Key"})
        self.people.authorization_type = "none"
        self.assertEqual(len(security()), 1)
        self.people.header_ids = False
        self.assertEqual(security(), [])
        self.assertNotIn("401", self.operation()["responses"])

    def test_networks(self):
        self.partner_config(endpoint="near", authorization_type="none", allowed_networks="192.0.2.0/24")
        self.assertNotIn("/near", self.document(token=None)["paths"])

    def test_rate_limit(self):
        self.assertNotIn("429", self.operation()["responses"])
        self.people.rate_limit = 1
        self.check("GET", "/people")
        response = self.check("GET", "/people")
        self.assertEqual(response.status_code, 429)
        self.people.rate_limit = 99
        for path, headers in (("/people?limit=x", {}), ("/people", {"Accept": "image/png"})):
            self.assertIn("RateLimit", self.check("GET", path, headers=headers).headers)
        self.assertIn("RateLimit", self.check("GET", "/people/0", described="/people/{record_id}").headers)
        for _turn in range(2):
            response = self.check("POST", "/people", {"code": 5}, headers={"Idempotency-Key": "described"})
        self.assertIn("Idempotent-Replayed", response.headers)

    def test_visibility(self):
        def paths(**options):
            return {path.split("/")[1] for path in self.document(**options)["paths"]}

        self.partner_config(endpoint="open", authorization_type="none")
        self.partner_config(endpoint="basic", authorization_type="basic", login="u", password="p")
        self.partner_config(endpoint="keyed", authorization_type="odoo")
        self.partner_config(endpoint="hidden", active=False, authorization_type="none")
        self.assertEqual(paths(token=None), {"open"})
        self.assertEqual(paths(token="wrong"), {"open"})
        self.assertEqual(paths(), {"open", "people"})
        self.assertEqual(paths(token=None, headers={"Authorization": "Basic dTpw"}), {"open", "basic"})
        user = self.new_user("keyed", "base.group_user")
        tomorrow = fields.Datetime.now() + timedelta(days=1)
        key = self.env["res.users.apikeys"].with_user(user)._generate("rpc", "test", tomorrow)
        self.assertEqual(paths(token=key), {"open", "keyed"})
        self.authenticate("keyed", "keyed")
        self.assertEqual(paths(token=None), {"open"})
        user.group_ids += self.env.ref("bj_api_sync.group_user")
        self.assertLessEqual({"open", "people", "basic", "keyed"}, paths(token=None))
        company = self.env["res.company"].create({"name": "Elsewhere"})
        self.people.user_id.company_ids += company
        self.people.company_id = company
        self.assertNotIn("people", paths(token=None))

    def test_signed_webhooks(self):
        """Nobody proves by a signature that they may read the description; logged in one sees what is signed."""
        values = {"authorization_type": "hmac", "signing_style": "github", "signing_secret": "s", "rate_limit": 60}
        self.partner_config(endpoint="hook", **values)
        self.assertNotIn("/hook", self.document(headers={"X-Hub-Signature-256": "sha256=00"})["paths"])
        self.new_user("reader", "bj_api_sync.group_user")
        self.authenticate("reader", "reader")
        document = self.document()
        [need] = document["paths"]["/hook"]["post"]["security"]
        schemes = [document["components"]["securitySchemes"][name] for name in need]
        self.assertEqual([(scheme["in"], scheme["name"]) for scheme in schemes], [("header", "X-Hub-Signature-256")])
        self.assertLessEqual({"401", "429"}, set(document["paths"]["/hook"]["post"]["responses"]))
        self.assertNotIn("429", document["paths"]["/people"]["post"]["responses"])

    def test_components_of_others_are_not_told(self):
        self.assertFalse(self.document(token=None)["paths"])
        self.assertEqual(
            set(self.document(token=None)["components"]["schemas"]),
            {"Error", "Problem", "ItemError", "Changes", "Conflict"},
        )

    def test_no_secrets(self):
        self.people.header_ids = [
            Command.create({"key": "X-Key", "value": "required-secret", "purpose": "require"}),
            Command.create({"key": "X-Answer", "value": "answer-value", "purpose": "answer"}),
        ]
        text = self.call("GET", "/openapi.json", headers={"X-Key": "required-secret"}).text
        self.assertIn("X-Answer", text)
        for secret in (TOKEN, "required-secret", "answer-value", "T-%", "record.ref", "request_data"):
            self.assertNotIn(secret, text)

    def test_restricted_fields_are_not_told(self):
        self.people.user_id = self.new_user("plain", "base.group_user,base.group_partner_manager")
        self.add_line("signup_type", "signup", allow_restricted=True)
        self.assertNotIn('"signup"', json.dumps(self.document()), "nor taken, sorted, filtered by")
        until = fields.Datetime.now() + timedelta(days=1)
        key = self.env["res.users.apikeys"].with_user(self.people.user_id)._generate("rpc", "test", until)
        self.people.write({"authorization_type": "odoo", "user_id": False})
        document = self.document(token=key)
        OpenAPIV31SpecValidator(document).validate()
        self.assertIn("zone", self.schema(document, "people"))
        self.assertNotIn("signup", self.schema(document, "people"))

    # kept, and dropped

    def test_etag(self):
        response = self.call("GET", "/openapi.json")
        etag = response.headers["ETag"]
        self.assertNotIn("Set-Cookie", response.headers)
        self.assertEqual(self.call("GET", "/openapi.json", headers={"If-None-Match": etag}).status_code, 304)
        self.people.name = "Renamed"
        response = self.call("GET", "/openapi.json", headers={"If-None-Match": etag})
        self.assertEqual(response.status_code, 200)
        self.assertIn("Renamed", response.text)

    def test_language(self):
        self.env["res.lang"]._activate_lang("fr_FR")
        self.env["ir.model.fields"]._get("res.partner", "email").with_context(lang="fr_FR").field_description = "Mél"
        document = self.document(headers={"Accept-Language": "fr-FR"})
        self.assertEqual(self.schema(document, "people")["email"]["title"], "Mél")
        self.assertEqual(self.schema(self.document(), "people")["email"]["title"], "Email")

    # the page

    def test_page(self):
        self.people.name = "<b>Bold</b>"
        self.add_param("<i>key</i>", "city", "=")
        response = self.call("GET", "/docs")
        self.assertEqual(response.status_code, 200)
        self.assertIn("script-src 'self'", response.headers["Content-Security-Policy"])
        page = html.fromstring(response.text)
        self.assertEqual(page.xpath("//section[@id='endpoint-people']//h2/text()")[0].strip(), "<b>Bold</b>")
        self.assertFalse(page.xpath("//b | //i | //*[@style] | //script[not(@src)] | //*[@onerror or @onload]"))
        forms = page.xpath("//form[@data-method]")
        self.assertEqual(
            {(form.get("data-method"), form.get("data-path")) for form in forms},
            {
                (method.upper(), path)
                for path, operations in self.document()["paths"].items()
                for method in operations.keys() - {"parameters"}
            },
        )
        etag = response.headers["ETag"]
        self.assertEqual(self.call("GET", "/docs", headers={"If-None-Match": etag}).status_code, 304)

    def test_page_tells_what_the_caller_may_know(self):
        self.partner_config(endpoint="open", authorization_type="none", name="Open")
        page = self.call("GET", "/docs", token=None).text
        self.assertIn("endpoint-open", page)
        self.assertNotIn("people", page)

    def test_button(self):
        action = self.people.action_open_documentation()
        self.assertEqual(action["url"], "/bj_api_sync/v1/docs#endpoint-people")
        self.assertEqual(self.call("GET", action["url"], prefix="").status_code, 200)

    # the truth

    def test_answers_are_as_described(self):
        one = f"/people/{self.ann.id}"
        item = {"code": "T-9", "name": "Neu", "address": {"country": {"code": "DE"}}, "contacts": [{"name": "Kid"}]}
        for method, path, payload, status in (
            ("GET", "/people", None, 200),
            ("GET", "/people?fields=code&count=true&limit=1", None, 200),
            ("GET", "/people?cursor=&limit=1", None, 200),
            ("GET", "/people?limit=x", None, 400),
            ("GET", one, None, 200),
            ("GET", "/people/0", None, 404),
            ("POST", "/people", item, 201),
            ("POST", "/people", item | {"name": "Same"}, 200),
            ("POST", "/people", [item | {"code": "T-10"}, item | {"code": "T-11"}], 201),
            ("POST", "/people", [item, {"code": 5}], 207),
            ("POST", "/people", item | {"color": "red", "address": {"country": "??"}}, 400),
            ("POST", "/people", [{}] * 51, 413),
            ("PUT", one, {"zone": None, "tags": ["Gold", {"name": "New"}]}, 200),
            ("PATCH", one, {"code": "T-2"}, 409),
            ("PATCH", "/people", [{"code": "T-1"}, {"code": "T-404"}], 207),
            ("PATCH", "/people", {"code": "T-404"}, 404),
            ("DELETE", "/people", ["T-1", "T-404"], 207),
            ("DELETE", f"/people/{self.bob.id}", None, 200),
        ):
            with self.subTest(method=method, path=path, status=status):
                described = "/people/{record_id}" if path.startswith("/people/") else None
                response = self.check(method, path, payload, described=described)
                self.assertEqual(response.status_code, status, response.text)

    def test_other_errors_are_as_described(self):
        for status, options in (
            (401, {"token": "wrong"}),
            (406, {"headers": {"Accept": "image/png"}}),
            (400, {"headers": {"Accept": "application/problem+json"}, "params": {"unknown": "1"}}),
        ):
            with self.subTest(status=status):
                response = self.check("GET", "/people", **options)
                self.assertEqual(response.status_code, status)
        response = self.check("POST", "/people", data={"a": 1})
        self.assertEqual(response.status_code, 415)

    def test_safety_is_as_described(self):
        one, described = f"/people/{self.ann.id}", {"described": "/people/{record_id}"}
        etag = self.check("GET", one, **described).headers["ETag"]
        response = self.call("GET", one, headers={"If-None-Match": etag})
        self.assertEqual(response.status_code, 304)
        self.assertIn("304", self.operation("get", "/people/{record_id}")["responses"])
        response = self.check("PUT", one, {"name": "x"}, headers={"If-Match": '"other"'}, **described)
        self.assertEqual(response.status_code, 412)
        for payload in ({"code": "T-1", "name": "Anne"}, [{"code": "T-7", "name": "New"}, {"code": "T-1"}]):
            response = self.check("POST", "/people", payload, headers={"Prefer": "tx=rollback"})
            self.assertIn("changes", response.json())

    def test_xml(self):
        operation = self.operation("post")
        for content in (operation["requestBody"]["content"], operation["responses"]["200"]["content"]):
            self.assertEqual(set(content), {"application/json", "application/xml"})
        tags = self.schema(self.document(), "people")["tags"]
        self.assertEqual((tags["xml"], tags["items"]["xml"]), ({"wrapped": True}, {"name": "item"}))
        response = self.call("GET", f"/people/{self.ann.id}", headers={"Accept": "application/xml"})
        self.assertEqual(response.headers["Content-Type"].split(";")[0], "application/xml")
        self.assertIn("<item>Gold</item>", response.text)

    def test_demo_configurations(self):
        """What the API Sync user of a filled database sees is valid as well."""
        self.authenticate("admin", "admin")
        document = self.document(token=None)
        OpenAPIV31SpecValidator(document).validate()
        self.assertIn("/people", document["paths"])
