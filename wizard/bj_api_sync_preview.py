import json
import shlex
from http import HTTPStatus

from markupsafe import Markup

from odoo import api, fields, models
from odoo.exceptions import UserError

from ..exceptions import DATABASE_REFUSALS, REFUSALS
from ..models.bj_api_log import prettify
from ..models.bj_api_sync_inbound import get_nested
from ..tools import codec, oauth, redact
from ..tools.plan import ABSENT, Batch, Operation
from ..tools.transaction import rehearsal

WRITING = ("POST", "PUT", "PATCH")


class BjApiSyncPreview(models.TransientModel):
    """Shows what a configuration would do, and does nothing: the request a record makes, or what a payload changes."""

    _name = "bj.api.sync.preview"
    _description = "API Preview"

    config_id = fields.Many2one("bj.api.sync.config", "API Configuration", required=True, ondelete="cascade")
    request_type = fields.Selection(related="config_id.request_type")
    model_id = fields.Many2one(related="config_id.model_id")
    record = fields.Reference("_select_models")
    request = fields.Text(compute="_compute_request")
    command = fields.Text("The Same with curl", compute="_compute_request")
    payload = fields.Text(compute="_compute_payload", store=True, readonly=False, help="JSON, as it would be received.")
    result = fields.Html(readonly=True)

    @api.model
    def _select_models(self):
        return [(model.model, model.name) for model in self.env["ir.model"].sudo().search([])]

    @api.depends("config_id", "record")
    def _compute_request(self):
        for wizard in self:
            is_shown = wizard.record and wizard.request_type == "out"
            wizard.request, wizard.command = wizard._rehearse("_describe_request") if is_shown else (False, False)

    @api.depends("config_id", "record")
    def _compute_payload(self):
        """Begin with what the endpoint answers for a record."""
        for wizard in self:
            if wizard.record and wizard.request_type == "in":
                wizard.payload, _command = wizard._rehearse("_describe_record")

    def _rehearse(self, name):
        """Call a method with the configuration and the record as its user sees it, and take back what scripts write.

        :return: what the method returns, or what it is refused with, and False
        :rtype: tuple[str, str | bool]
        """
        self.config_id.sudo(False).check_access("read")  # stored fields are computed as superuser
        config_id, model, record_id = self.config_id.id, self.record._name, self.record.id
        if model != self.config_id.model_name:
            return self.env._("Choose a record of the model %s.", self.config_id.model_name), False
        with rehearsal(self.env) as env:
            config = env["bj.api.sync.config"].sudo().browse(config_id)
            try:
                return getattr(env[self._name], name)(config, env[model].browse(record_id))
            except REFUSALS as exc:
                return exc.args[0], False

    def _describe_record(self, config, record):
        """Return what the endpoint answers for a record, as text."""
        mapper = self.env["bj.api.sync.mapper"]
        record = self.env["bj.api.sync.outbound"]._run_as(config, record)
        [data] = mapper._serialize(mapper._plan(config.id), record)
        return json.dumps(data, indent=2, ensure_ascii=False, default=str), False

    def _describe_request(self, config, record):
        """Return the request that a record makes as text, secrets masked as in logs, and as a curl command."""
        outbound = self.env["bj.api.sync.outbound"]
        found, _skipped, message = outbound._select(config, record)
        if not found:
            return message, False
        [request] = outbound._prepare_requests(config, outbound._serialize(config, found))
        grant = oauth.Grant(token=redact.MASK)
        call = self.env["bj.api.sync.client"]._prepare_call(config, request, grant=grant)
        if request.error or call.refusal:
            return request.error or call.refusal, False
        shown = self.env["bj.api.log"]._prepare_values(
            {
                "config_id": config.id,
                "status": "success",
                "url": call.url,
                "request_headers": call.shown_headers,
                "request_body": call.body,
            }
        )
        headers, body = shown["request_headers"].splitlines(), shown.get("request_body") or ""
        parts = [["curl", "--request", call.method, shown["url"]], *(["--header", line] for line in headers)]
        parts += [["--data-raw", body]] if body else []
        text = "\n".join([f"{call.method} {shown['url']}", *headers, "", prettify(body)])
        return text, " \\\n  ".join(map(shlex.join, parts))

    def action_try(self):
        """Receive the payload as the endpoint would, tell what changes, and take it all back."""
        self.ensure_one()
        config = self.config_id
        config.check_access("write")
        try:
            payload = codec.parse_typed_json(self.payload or "")
        except (ValueError, RecursionError) as exc:
            raise UserError(self.env._("The payload is not valid JSON: %s", exc)) from exc
        endpoint = config.endpoint_url and self.env["bj.api.sync.inbound"]._endpoint(config.endpoint)
        if not endpoint:
            raise UserError(
                self.env._("%(config)s is archived or has no endpoint: it receives nothing.", config=config.name)
            )
        method = next((method for method in WRITING if method in endpoint.methods), None)
        if not method:
            raise UserError(self.env._("This endpoint takes nothing: it has none of the methods POST, PUT and PATCH."))
        user_id = endpoint.user_id or self.env.uid
        context = self.env["bj.api.sync.inbound"]._get_context(user_id, endpoint.company_id)
        if not context:
            raise UserError(self.env._("The user has no access to the company of this endpoint."))
        with rehearsal(self.env(user=user_id, context=context)) as env:
            inbound, operation = env["bj.api.sync.inbound"], Operation(method, payload=payload, dry_run=True)
            plan = env["bj.api.sync.mapper"]._plan(endpoint.config_id)
            ignored = self._list_ignored(plan, [item for item in operation.items if isinstance(item, dict)])
            try:
                answer = inbound._handle(endpoint, operation)
                result = self._render_changes(answer) + self._render_ignored(ignored)
            except DATABASE_REFUSALS as exc:
                env.cr.rollback()
                result = self._render_errors(inbound._get_database_error(endpoint, exc))
            except REFUSALS as exc:
                result = self._render_errors(exc)
        self.result = result
        return {
            "type": "ir.actions.act_window",
            "name": self.env._("Preview"),
            "res_model": self._name,
            "res_id": self.id,
            "view_mode": "form",
            "target": "new",
        }

    def _list_ignored(self, plan, objects):
        """List the keys that change nothing: unknown ones, which no script names, and those of read-only fields.

        :rtype: list[str]
        """
        batch, fields_ = Batch.of(objects), self.env[plan.model]._fields
        scripts = [line.script for line in (*plan.exec_lines, *plan.lines)]
        unknown = [
            ".".join((*path, key))
            for path, known in plan.objects
            for value in batch.column(path)
            if isinstance(value, dict)
            for key in value
            if key not in known and not any(key in script for script in scripts)
        ]
        read_only = [
            line.key
            for line in plan.lines
            if line.path and line.value_type == "plain" and not line.is_identifier
            if not self.env["bj.api.sync.mapper"]._is_writable(fields_[line.field_name])
            if any(value is not ABSENT for value in batch.column(line.path))
        ]
        nested = [
            f"{line.key}.{key}"
            for line in plan.lines
            if line.mapping
            for key in self._list_ignored(line.mapping, get_nested(batch, line))
        ]
        return list(dict.fromkeys(unknown + read_only + nested))

    def _render_ignored(self, keys):
        return _render(self.env._("These keys are ignored: %s", ", ".join(keys)), (), ()) if keys else Markup()

    def _render_changes(self, answer):
        """Return a table of the changed keys of each item, and of what is wrong with others."""
        many = isinstance(answer.body["data"], list)
        changes = answer.body["changes"] if many else [answer.body["changes"]]
        created = answer.body["meta"]["created"] if many else answer.status == HTTPStatus.CREATED
        rows = [
            (number if many else "", key, _show(value["old"]), _show(value["new"]))
            for number, change in enumerate(changes)
            for key, value in change.items()
            if key != "id"
        ]
        title = self.env._(
            "Records created: %(created)s, found: %(found)s.", created=int(created), found=len(changes) - created
        )
        if not rows:
            title = self.env._("Nothing would change.")
        head = ("", self.env._("Key"), self.env._("Before"), self.env._("After"))
        return _render(title, head, rows) + self._render_faults(answer.body.get("errors", ()))

    def _render_errors(self, exc):
        """Return what a refusal says."""
        return _render(self.env._("It would be refused: %s", exc.args[0]), (), ()) + self._render_faults(
            getattr(exc, "errors", ())
        )

    def _render_faults(self, errors):
        rows = [(error.get("index", ""), error.get("pointer", ""), error.get("message", "")) for error in errors]
        if not rows:
            return Markup()
        head = ("", self.env._("Where"), self.env._("What is wrong"))
        return _render(self.env._("What would be refused:"), head, rows)


def _show(value):
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _render(title, head, rows):
    cells = Markup().join(Markup("<th>%s</th>") % text for text in head)
    body = Markup().join(
        Markup("<tr>%s</tr>") % Markup().join(Markup("<td>%s</td>") % text for text in row) for row in rows
    )
    table = Markup('<table class="table table-sm"><thead><tr>%s</tr></thead><tbody>%s</tbody></table>') % (cells, body)
    return Markup("<p>%s</p>") % title + (table if rows else Markup())
