from odoo import fields, models


class BjHttpMethod(models.Model):
    _name = "bj.http.method"
    _description = "HTTP Method"
    _order = "id"

    name = fields.Char(required=True)

    _name_uniq = models.UniqueIndex("(name)", "This HTTP method exists already.")
