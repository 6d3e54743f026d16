"""Secrets that are worthless without a key that is kept outside the database.

The key is the option ``bj_api_sync_secret_key`` of odoo.conf, one or several comma separated Fernet keys,
or else the file ``bj_api_sync.key`` in Odoo's data directory, one key per line, made at first use. The
first key encrypts, all of them decrypt: to change the key put the new one first, restart, and have the
secrets encrypted again (the button in the settings, or ``env["bj.api.sync.secret"]._rotate_secrets()``);
then the old one can go.
"""

import base64
import contextlib
import functools
import hashlib
import hmac
import logging
import os
import tempfile

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from odoo import fields
from odoo.exceptions import UserError
from odoo.tools import SQL, config

_logger = logging.getLogger(__name__)

OPTION = "bj_api_sync_secret_key"
KEY_FILE = "bj_api_sync.key"
#: the secrets already complained about: (database, model, field, id)
_warned = set()


class Ciphertext(str):
    """An encrypted value in Odoo's cache, as opposed to plain text that is yet to be encrypted."""


class EncryptedChar(fields.Char):
    """A Char whose column holds ciphertext, and whose value leaves Odoo through reading only.

    The cache holds the ciphertext too: a value is decrypted at each access, and what cannot be decrypted
    stays as it is in the column. Its models inherit ``bj.api.sync.secret``, which refuses to group and sort
    by it.
    """

    copy = False
    exportable = False
    prefetch = "bj_api_sync_secret"  # fetched when a secret is read, not with common fields

    _description_searchable = False

    def _description_sortable(self, env):
        return False

    def _description_groupable(self, env):
        return False

    def convert_to_cache(self, value, record, validate=True):
        if isinstance(value, Ciphertext):
            return value
        value = super().convert_to_cache(value, record, validate)
        return Ciphertext(encrypt(value)) if value else None

    def convert_to_write(self, value, record):
        return self.convert_to_record(value, record) if isinstance(value, Ciphertext) else value

    def convert_to_record(self, value, record):
        if value is None:
            return False
        try:
            return decrypt(value)
        except (InvalidToken, ValueError):  # nothing must keep a form or list from opening
            self._warn_once(record)
            return False

    def convert_to_export(self, value, record):
        return ""

    def convert_to_column(self, value, record, values=None, validate=True):
        value = self.convert_to_cache(value, record, validate)
        return value and str(value)

    def _insert_cache(self, records, values):
        return super()._insert_cache(records, [value and Ciphertext(value) for value in values])

    def _condition_to_sql(self, field_expr, operator, value, model, alias, query):
        if operator not in ("in", "not in") or any(value):
            raise UserError(self._refusal(model.env))
        column = model._field_to_sql(alias, field_expr, query)
        return SQL("%s IS NULL", column) if operator == "in" else SQL("%s IS NOT NULL", column)

    def filter_function(self, records, field_expr, operator, value):
        if operator != "in" or any(value):
            raise UserError(self._refusal(records.env))
        return super().filter_function(records, field_expr, operator, value)

    def _refusal(self, env):
        return env._("%(field)s is encrypted: one can only ask whether it is set.", field=self._description_string(env))

    def _warn_once(self, record):
        place = (record.env.cr.dbname, self.model_name, self.name, record.id)
        if place not in _warned:
            _warned.add(place)
            _logger.warning(
                "%s: the secret %s.%s of record %s was encrypted with another key and reads as empty: "
                "restore the key (%s in odoo.conf, or %s in the data directory) and restart, or type the secret again.",
                *place,
                OPTION,
                KEY_FILE,
            )


def encrypt(text):
    """Encrypt with the first key.

    :param str text: any text
    :rtype: str
    :raises ValueError: if the configured key is not a Fernet key
    """
    return _fernet().encrypt(text.encode()).decode()


def decrypt(token):
    """Decrypt with whichever key fits.

    :param str token: what :func:`encrypt` returned
    :rtype: str
    :raises cryptography.fernet.InvalidToken: if no key fits
    """
    return _fernet().decrypt(token.encode()).decode()


def rotate(token):
    """Return the token encrypted with the first key.

    :param str token: what :func:`encrypt` returned
    :rtype: str
    :raises cryptography.fernet.InvalidToken: if no key fits
    """
    return _fernet().rotate(token.encode()).decode()


def digest(value):
    """Return a keyed digest, to keep in memory in place of a credential and to compare it in constant time.

    Every process with the same key gives the same digest (keyed BLAKE2b, RFC 7693).

    :param str | bytes value: any credential; text is taken as UTF-8
    :return: 32 bytes
    :rtype: bytes
    """
    data = value if isinstance(value, bytes) else value.encode(errors="surrogateescape")
    return hashlib.blake2b(data, digest_size=32, key=_digest_key(_keys()[0])).digest()


def _fernet():
    return _multi_fernet(_keys())


@functools.lru_cache(maxsize=4)
def _multi_fernet(keys):
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError as exc:
        raise ValueError(f"{OPTION} in odoo.conf, or the file {KEY_FILE}, has a bad Fernet key") from exc


@functools.lru_cache(maxsize=4)
def _digest_key(key):
    return hmac.digest(base64.urlsafe_b64decode(key), b"bj_api_sync digest", "sha256")


def _keys():
    """Return the keys, the encrypting one first.

    :rtype: tuple[str, ...]
    """
    option = config.get(OPTION)
    if option:
        return _split(option.replace(",", "\n"))
    return _read_key_file(config["data_dir"])


def has_changed():
    """Tell whether the key file has other keys by now than those this process uses until it is restarted.

    :rtype: bool
    """
    folder = config["data_dir"]
    return not config.get(OPTION) and _read_key_file.__wrapped__(folder) != _read_key_file(folder)


@functools.cache  # digests that are kept were made with the key of now
def _read_key_file(folder):
    path = os.path.join(folder, KEY_FILE)
    try:
        if not os.path.exists(path):
            _create_key_file(path)
        with open(path, encoding="ascii") as file:
            return _split(file.read())
    except OSError as exc:
        raise ValueError(f"The key file {path} cannot be made or read: {exc}. Or set {OPTION} in odoo.conf.") from exc


@functools.lru_cache(maxsize=4)
def _split(text):
    keys = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not keys:
        raise ValueError(f"No Fernet key in {OPTION} or {KEY_FILE}")
    return keys


def _create_key_file(path):
    """Make the key file, unless another process is first: a link appears with its content, or not at all."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=os.path.dirname(path), prefix=KEY_FILE)  # of mode 0600
    try:
        with open(handle, "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # the other process' key is as good
            os.link(draft, path)
            _logger.warning("Made the key of all API secrets, %s: keep a copy, not with the database's.", path)
    finally:
        os.unlink(draft)


def rotate_column(cr, table, column):
    """Encrypt all values of a column again with the first key; what no key decrypts is left alone.

    :param str table: name of a table with a column ``id``
    :param str column: name of an encrypted column
    :return: number of values encrypted, number of values no key decrypts
    :rtype: tuple[int, int]
    """
    table, column = SQL.identifier(table), SQL.identifier(column)
    cr.execute(SQL("SELECT id, %s FROM %s WHERE %s IS NOT NULL FOR UPDATE", column, table, column))
    rows = cr.fetchall()
    failed = 0
    for row_id, token in rows:
        try:
            cr.execute(SQL("UPDATE %s SET %s = %s WHERE id = %s", table, column, rotate(token), row_id))
        except InvalidToken:
            failed += 1
    return len(rows) - failed, failed
