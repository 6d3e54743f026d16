from odoo import fields


class EncryptedChar(fields.Char):
    """A Char that is encrypted in the database."""
