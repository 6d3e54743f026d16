from odoo.http import Controller, request, route

from .main import PREFIXES


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
        exposed = env["bj.api.sync.openapi"]._get_exposed()
        return tuple(name for name in exposed if name in shown or accepts(inbound._endpoint(name)))

    def _get_server(self):
        prefix = next(prefix for prefix in PREFIXES if request.httprequest.path.startswith(f"{prefix}/"))
        return request.env["bj.api.sync.config"].get_base_url() + prefix

    def _respond(self, content, content_type, etag):
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
        response.set_etag(etag)
        return response.make_conditional(request.httprequest)

    @route(
        [f"{prefix}/openapi.json" for prefix in PREFIXES],
        type="http",
        auth="public",
        methods=["GET"],
        readonly=True,
        save_session=False,
    )
    def openapi(self):
        """Answer the OpenAPI document."""
        text, etag = request.env["bj.api.sync.openapi"]._get_text(self._get_visible(), self._get_server())
        return self._respond(text, "application/json", etag)
