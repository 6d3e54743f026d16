from odoo.http import Controller, request, route

from .operations import TRACKING_DISABLED, Orm, Sql


class Peers(Controller):
    """Controllers without key and configuration: what is left is Odoo's HTTP layer and the work itself."""

    def _is_readonly(self, rule, args):
        return args["operation"] in ("list", "one")

    @route(
        "/bj_bench/<any(orm, orm_off, sql):way>/<any(list, one, create, upsert, nested):operation>",
        type="http",
        auth="none",
        methods=["POST"],
        csrf=False,
        readonly=_is_readonly,
        save_session=False,
    )
    def serve(self, way, operation):
        request.update_env(user=2)
        if way == "orm_off":
            request.update_context(**TRACKING_DISABLED)
        room = Sql(request.env) if way == "sql" else Orm(request.env)
        return request.make_json_response(getattr(room, operation)(**request.get_json_data()))
