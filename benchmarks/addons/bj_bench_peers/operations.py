"""The benchmark's operations by hand: with the ORM, as a developer would write them, and in plain SQL."""

import json

#: what is read, and but for the last one written
FIELDS = ["name", "ref", "email", "phone", "street", "city", "zip", "country_id", "is_company", "write_date"]
TRACKING_DISABLED = {
    "tracking_disable": True,
    "mail_create_nolog": True,
    "mail_create_nosubscribe": True,
    "mail_notrack": True,
}


class Orm:
    """Operations as the environment's user, with one request for a whole set."""

    def __init__(self, env):
        self.partners = env["res.partner"]

    def list(self, offset=0):
        return self.partners.search_read([], FIELDS, offset=offset, limit=100, order="id", load=None)

    def one(self, key):
        return self.partners.search_read([("ref", "=", key)], FIELDS, load=None)[0]

    def create(self, values):
        return self.partners.create(values).ids

    def upsert(self, values):
        found = {
            partner.ref: partner
            for partner in self.partners.search_fetch([("ref", "in", [vals["ref"] for vals in values])], ["ref"])
        }
        for vals in values:
            if vals["ref"] in found:
                found[vals["ref"]].write(vals)
        return self.create([vals for vals in values if vals["ref"] not in found])

    def nested(self, values, children):
        return self.create([values | {"child_ids": [(0, 0, child) for child in children]}])


class Sql:
    """The floor: no model, no rules, no hooks, no computed fields but those a partner cannot do without."""

    COLUMNS = ", ".join(FIELDS[:-1])
    RECORDS = """jsonb_to_recordset(%s) AS new(name text, ref text, email text, phone text, street text, city text,
        zip text, country_id int, is_company bool)"""

    def __init__(self, env):
        self.cr = env.cr

    def _query(self, where, *params):
        self.cr.execute(f"SELECT id, {', '.join(FIELDS)} FROM res_partner WHERE active AND {where}", params)
        return self.cr.dictfetchall()

    def list(self, offset=0):
        return self._query("true ORDER BY id LIMIT 100 OFFSET %s", offset)

    def one(self, key):
        return self._query("ref = %s", key)[0]

    def create(self, values):
        query = f"""
            INSERT INTO res_partner (id, {self.COLUMNS}, complete_name, commercial_partner_id, type, active,
                create_uid, write_uid, create_date, write_date)
            SELECT id, {self.COLUMNS}, name, id, 'contact', true, 2, 2, now() AT TIME ZONE 'UTC',
                now() AT TIME ZONE 'UTC'
            FROM (SELECT nextval('res_partner_id_seq') AS id, * FROM {self.RECORDS}) AS numbered
            WHERE NOT EXISTS (SELECT FROM res_partner old WHERE old.ref = numbered.ref)
            RETURNING id"""
        self.cr.execute(query, [json.dumps(values)])
        return [row[0] for row in self.cr.fetchall()]

    def upsert(self, values):
        changes = ", ".join(f"{name} = new.{name}" for name in FIELDS[:-1])
        query = f"""UPDATE res_partner SET {changes}, write_date = now() AT TIME ZONE 'UTC'
            FROM {self.RECORDS} WHERE res_partner.ref = new.ref"""
        self.cr.execute(query, [json.dumps(values)])
        return self.create(values)
