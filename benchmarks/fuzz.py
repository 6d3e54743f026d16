"""./dev fuzz: malformed and well-formed requests by the thousand, made from the OpenAPI document by schemathesis.

A server of its own serves several configurations: flat, nested, every field type, strict with the identifier in the
URL, read only. Whatever it answers must be as described, and never a 500. What is found is printed, and the exit
status is 1.

    ./dev fuzz                     about two minutes
    ./dev fuzz --max-time 30       anything else is passed on to schemathesis
"""

import os
import subprocess
import sys

from _house import CACHE, house, say

TOKEN = "fuzz-token"
SECONDS = "110"
SEED = "20261"
# Not negative_data_rejection and positive_data_acceptance: numbers as strings are taken although the description
# does not promise it, and Odoo's business rules refuse much that no schema can tell.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "allow_header_conformance",
    "unsupported_method",
    "ignored_auth",
    "use_after_free",
]
#: runs in Odoo's shell; ``TOKEN`` is put in front
CONFIGURE = '''
from odoo.fields import Command

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PARTNER = "res.partner"


def field(model, name):
    return env["ir.model.fields"]._get(model, name).id


def config(model, endpoint, lines, methods=METHODS, params=(), **values):
    """Make a configuration; the first line is the record identifier."""
    return env["bj.api.sync.config"].create({
        "name": f"Fuzz {endpoint or model}",
        "model_id": env["ir.model"]._get_id(model),
        "endpoint": endpoint,
        "http_method_ids": [Command.set(env["bj.http.method"].search([("name", "in", methods)]).ids)],
        "authorization_type": "bearer",
        "bearer_token": TOKEN,
        "user_id": env.ref("base.user_admin").id,
        "line_ids": [
            Command.create({
                "sequence": sequence,
                "field_id": field(model, name),
                "external_key": key,
                "is_record_identifier": sequence == 0,
                **(more[0] if more else {}),
            })
            for sequence, (name, key, *more) in enumerate(lines)
        ],
        "param_ids": [
            Command.create({"key": key, "field_id": field(model, name), "domain_operator": operator})
            for key, name, operator in params
        ],
        **values,
    })


def nested(mapping, **values):
    return {"value_type": "relational", "mapping_config_id": mapping.id, **values}


def make_model():
    """A model with a field of every type; return their names."""
    plain = ("char", "text", "html", "integer", "float", "boolean", "date", "datetime", "binary", "json")
    fields = {f"x_{ttype}": {"ttype": ttype} for ttype in plain}
    choices = [Command.create({"value": value, "name": value.title()}) for value in ("new", "done")]
    fields |= {
        "x_code": {"ttype": "char", "required": True},
        "x_many2one": {"ttype": "many2one", "relation": PARTNER},
        "x_many2many": {"ttype": "many2many", "relation": PARTNER},
        "x_selection": {"ttype": "selection", "selection_ids": choices},
        "x_reference": {
            "ttype": "reference", "selection_ids": [Command.create({"value": PARTNER, "name": "Contact"})],
        },
        "x_parent": {"ttype": "many2one", "relation": "x_fuzz"},
        "x_currency_id": {"ttype": "many2one", "relation": "res.currency"},
    }
    later = {
        "x_children": {"ttype": "one2many", "relation": "x_fuzz", "relation_field": "x_parent"},
        "x_monetary": {"ttype": "monetary", "currency_field": "x_currency_id"},
    }
    model = env["ir.model"].create({"name": "Fuzz", "model": "x_fuzz"})
    for group in (fields, later):
        env["ir.model.fields"].create([
            {"name": name, "field_description": name[2:].title(), "model_id": model.id, **values}
            for name, values in group.items()
        ])
    env["ir.model.access"].create({
        "name": "Fuzz", "model_id": model.id, "group_id": env.ref("base.group_user").id,
        "perm_read": True, "perm_write": True, "perm_create": True, "perm_unlink": True,
    })
    return [name for name in fields | later if name != "x_code"]


names = make_model()
country = config("res.country", False, [("code", "code"), ("name", "name")])
tag = config("res.partner.category", False, [("name", "name"), ("color", "color")])
person = config(PARTNER, False, [("email", "email"), ("name", "name"), ("function", "role")])
operators = ("=", "!=", "ilike", "not ilike", "=ilike", ">", ">=", "<", "<=", "in", "not in", "set")
config(
    PARTNER, "flat",
    [("ref", "code"), ("name", "name"), ("email", "email"), ("color", "color"), ("is_company", "company"),
     ("city", "address.city"), ("partner_latitude", "address.latitude"), ("tz", "zone"), ("write_date", "changed")],
    params=[(f"name{index}", "name", operator) for index, operator in enumerate(operators)]
    + [("color_in", "color", "in"), ("since", "create_date", ">="), ("parent", "parent_id", "=")],
    filter_domain="[('ref', '!=', False)]", delete_policy="archive", is_paginated=True, page_size=5,
)
config(
    PARTNER, "nested",
    [("ref", "code"), ("name", "name"),
     ("country_id", "address.country", nested(country, relation_output="identifier")),
     ("category_id", "tags", nested(tag, relation_policy="upsert")), ("parent_id", "company", nested(person)),
     ("child_ids", "contacts", nested(person, remove_missing=True)),
     ("comment", "note", {"value_type": "script", "script": "record.ref or ''"})],
    filter_domain="[('ref', '!=', False)]", limit=20,
)
config("x_fuzz", "types", [("x_code", "code"), *((name, name[2:]) for name in names)])
config(
    "x_fuzz", "strict", [("x_integer", "number"), ("x_code", "code"), ("x_date", "at.date"), ("x_datetime", "at.time")],
    strict_keys=True, record_id_type="identifier", existing_policy="error", all_or_nothing=True,
)
config(
    "res.partner.category", "tags", [("name", "name"), ("color", "color"), ("parent_id", "parent", nested(tag))],
    strict_keys=True, record_id_type="identifier",
)
config("res.country", "lands", [("code", "code"), ("name", "name")], methods=("GET",), authorization_type="none")
env["x_fuzz"].create([{"x_code": f"F{index}", "x_integer": index} for index in range(5)])
env[PARTNER].create([{"name": f"Fuzz {index}", "ref": f"F{index}"} for index in range(10)])
env.cr.commit()
print("configured")
'''


def fuzz(port, options):
    """Run schemathesis on a server; return its exit status."""
    url = f"http://127.0.0.1:{port}/bj_api_sync/v1"
    command = [
        os.environ["BJ_DEV_FUZZ"], "run", f"{url}/openapi.json", "--url", url,
        "--header", f"Authorization: Bearer {TOKEN}", "--checks", ",".join(CHECKS),
        "--max-time", SECONDS, "--seed", SEED, "--request-timeout", "60",
        "--continue-on-failure", "--suppress-health-check", "all", "--warnings", "off", *options,
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, env=environment, cwd=CACHE, check=False).returncode


def main():
    with house("fuzz") as server:
        if "configured" not in server.odoo("--no-http", command=("shell",), script=f"TOKEN = {TOKEN!r}\n{CONFIGURE}"):
            sys.exit(f"The configurations could not be made, see {server.log}")
        with server.serve() as port:
            say("fuzzing")
            status = fuzz(port, sys.argv[1:])
    say("nothing found" if not status else f"found something, see above; the server's log: {server.log}")
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())
