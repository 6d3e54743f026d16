from odoo.http import Controller, request, route

PREFIXES = ("/bj_api_sync/v1", "/api/sync/v1")
PATHS = ("", "/<endpoint>", "/<endpoint>/<bj_record_ref:record_ref>")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class BjApiSyncConfigController(Controller):
    """The routes of inbound configurations."""

    def _is_readonly(self, rule, args):
        return request.httprequest.method in SAFE_METHODS

    @route(
        [f"{prefix}{path}" for prefix in PREFIXES for path in PATHS],
        type="bj_api_sync",
        auth="bj_api_sync",
        readonly=_is_readonly,
        save_session=False,
    )
    def serve(self, endpoint=None, record_ref=""):
        """Serve any request to an endpoint; the dispatcher has parsed it and makes the response of the answer.

        No ``methods`` are declared: Odoo would answer others itself, and not as JSON.
        """
        return request.dispatcher.serve()
