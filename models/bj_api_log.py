from odoo import fields, models


class BjApiLog(models.Model):
    """One exchange with another system, as it happened."""

    _name = "bj.api.log"
    _description = "API Log"
    _order = "id desc"
    _log_access = False

    name = fields.Char(required=True)
    create_date = fields.Datetime("Created on", default=fields.Datetime.now, readonly=True, index=True)
    config_id = fields.Many2one("bj.api.sync.config", "API Configuration", ondelete="set null", index="btree_not_null")
    direction = fields.Selection([("in", "In"), ("out", "Out")])
    status = fields.Selection([("success", "Success"), ("error", "Error"), ("skipped", "Skipped")], required=True)
    method = fields.Char()
    url = fields.Char("URL")
    response_code = fields.Integer(aggregator=None)
    request_headers = fields.Text()
    request_body = fields.Text()
    response_headers = fields.Text()
    response_body = fields.Text()
    duration = fields.Float("Duration (s)", digits=(12, 4), aggregator="avg")
    error_message = fields.Text()
    trace_id = fields.Char("Trace ID", index="btree_not_null")
    model = fields.Char("Model Name", index="btree_not_null")
    record_id = fields.Many2oneReference("Record", model_field="model")
    record_count = fields.Integer("Records")
    remote_address = fields.Char()
    user_id = fields.Many2one("res.users", "User", ondelete="set null")
    company_id = fields.Many2one("res.company", "Company", ondelete="set null", index="btree_not_null")
