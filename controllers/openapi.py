import json
from functools import partial

from odoo.http import Controller, request, route

from ..tools import schema
from .main import PREFIXES

#: only what this server sends itself, no inline script or style (W3C Content Security Policy Level 3)
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)

#: both answer everybody, with what they may see
ROUTING = {"type": "http", "auth": "public", "methods": ["GET"], "readonly": True, "save_session": False}


class BjApiSyncOpenapiController(Controller):
    """The description of the endpoints, for machines and for people.

    It tells of an endpoint what everybody may know (No Auth), whose credentials come along, or, to API Sync users who
    are logged in, what the record rules let them see.
    """

    def _get_visible(self):
        """Return the names of the endpoints that the caller may know of.

        :rtype: tuple[str]
        """
        env = request.env
        shown = set()
        if env.user.has_group("bj_api_sync.group_user"):
            shown.update(env["bj.api.sync.config"].search([("endpoint", "!=", False)]).mapped("endpoint"))
        inbound, accepts = env["bj.api.sync.inbound"], env["ir.http"]._bj_accepts
        return tuple(name for name in inbound._get_exposed() if name in shown or accepts(inbound._endpoint(name)))

    def _get_server(self):
        prefix = next(prefix for prefix in PREFIXES if request.httprequest.path.startswith(f"{prefix}/"))
        return request.env["bj.api.sync.config"].get_base_url() + prefix

    def _get_text(self):
        return request.env["bj.api.sync.openapi"]._get_text(self._get_visible(), self._get_server())

    def _respond(self, content, content_type):
        """Answer what depends on who asks; RFC 9110 section 13 lets the caller keep it as long as it is the same."""
        response = request.make_response(
            content,
            [
                ("Content-Type", f"{content_type}; charset=utf-8"),
                ("Cache-Control", "private, no-cache"),
                ("Vary", "Authorization, Cookie, Accept-Language"),
                ("X-Content-Type-Options", "nosniff"),
            ],
        )
        response.add_etag()
        return response.make_conditional(request.httprequest)

    @route([f"{prefix}/openapi.json" for prefix in PREFIXES], **ROUTING)
    def openapi(self):
        """Answer the OpenAPI document."""
        return self._respond(self._get_text(), "application/json")

    @route([f"{prefix}/docs" for prefix in PREFIXES], **ROUTING)
    def docs(self):
        """Answer a page to read the description, and to try the endpoints."""
        values = self._get_page_values(json.loads(self._get_text()))
        page = request.env["ir.qweb"]._render("bj_api_sync.openapi_docs", values)
        response = self._respond(page, "text/html")
        response.headers["Content-Security-Policy"] = PAGE_POLICY
        return response

    def _get_page_values(self, document):
        resolve = partial(schema.resolve, components=document["components"])

        def operations(tag):
            return [
                operation
                | {
                    "path": path,
                    "method": method,
                    "parameters": [*map(resolve, [*item.get("parameters", ()), *operation["parameters"]])],
                }
                for path, item in document["paths"].items()
                for method, operation in item.items()
                if method != "parameters" and tag in operation["tags"]
            ]

        return {
            "document": document,
            "scripts": request.env["ir.qweb"]._get_asset_links("bj_api_sync.assets_docs", css=False),
            "lang": (request.env.lang or "en_US").replace("_", "-"),
            "operations": operations,
            "resolve": resolve,
            "rows": partial(schema.rows, components=document["components"]),
            "describe_type": schema.describe_type,
            "dumps": partial(json.dumps, ensure_ascii=False, indent=2),
        }
