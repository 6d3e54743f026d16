# Runs in Odoo's shell, which gives it `env`; OPTIONS come before it.
import contextlib
import json
import os
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
import urllib3

from odoo.fields import Command
from odoo.modules.registry import Registry

url = f"http://127.0.0.1:{OPTIONS['port']}/partners"  # noqa: F821
count = OPTIONS.get("count", 500)  # noqa: F821
env["ir.config_parameter"].set_param("bj_api_sync.allowed_hosts", "127.0.0.1")  # noqa: F821
env = env(context={"tracking_disable": True})  # noqa: F821
model = env["ir.model"]._get_id("res.partner")
lines = {"ref": "code", "name": "name", "city": "city", "street": "street", "email": "email"}
fields_ = {name: env["ir.model.fields"]._get("res.partner", name) for name in lines}
env["base.automation"].search([]).active = False


def make_config(name, **values):
    return env["bj.api.sync.config"].create(
        {
            "name": name,
            "request_type": "out",
            "http_method_ids": [Command.set(env.ref("bj_api_sync.http_method_post").ids)],
            "request_url": url,
            "model_id": model,
            "authorization_type": "bearer",
            "bearer_token": "secret",
            "user_id": env.ref("base.user_admin").id,
            "line_ids": [
                Command.create(
                    {"field_id": fields_[key].id, "external_key": label, "is_record_identifier": key == "ref"}
                )
                for key, label in lines.items()
            ],
            **values,
        }
    )


def make_rule(**action):
    action = env["ir.actions.server"].create({"name": "Push", "model_id": model, **action})
    return env["base.automation"].create(
        {
            "name": "Push",
            "model_id": model,
            "trigger": "on_create_or_write",
            "trigger_field_ids": [Command.link(fields_["street"].id)],
            "action_server_ids": [Command.link(action.id)],
        }
    )


config, lists = make_config("one by one"), make_config("lists", is_paginated=True, page_size=100)
rules = {
    "webhook": make_rule(
        state="webhook", webhook_url=url, webhook_field_ids=[Command.set([field.id for field in fields_.values()])]
    ),
    "ours": make_rule(state="bj_api_sync", bj_api_sync_config_id=config.id),
    "lists": make_rule(state="bj_api_sync", bj_api_sync_config_id=lists.id),
}
for rule in rules.values():
    rule.active = False
values = [
    {"name": f"Partner {number}", "ref": f"B{number}", "city": "Graz", "email": f"p{number}@example.com"}
    for number in range(count)
]
partners = env["res.partner"].create(values)
env["ir.cron"].search([]).active = False
env.cr.commit()
step = 0


def write(rule):
    """Change all records in one write, with one rule on or none; return the seconds until it is committed."""
    global step  # noqa: PLW0603
    step += 1
    for name, other in rules.items():
        other.active = name == rule
    env.cr.commit()
    Registry(env.cr.dbname).check_signaling()
    partners.invalidate_recordset()
    partners.mapped("street")
    start = time.perf_counter()
    partners.write({"street": f"Street {step}"})
    env.cr.commit()
    return time.perf_counter() - start


def payloads():
    return [json.dumps({label: partner[key] for key, label in lines.items()}).encode() for partner in partners]


def session():
    with requests.Session() as client:
        for body in payloads():
            client.post(url, data=body, timeout=10)


def pool8():
    local = threading.local()

    def post(body):
        if not hasattr(local, "client"):
            local.client = requests.Session()
        local.client.post(url, data=body, timeout=10)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(post, payloads()))


def bare():
    pool = urllib3.HTTPConnectionPool("127.0.0.1", OPTIONS["port"])  # noqa: F821
    for body in payloads():
        pool.urlopen("POST", "/partners", body=body)


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def dispatch(rule, plain):
    caller = write(rule) - plain
    start = time.perf_counter()
    while env["bj.api.delivery"].search_count([("state", "in", ("pending", "failed", "sending"))]):
        env["bj.api.dispatcher"]._run()
        env.cr.commit()
    seconds = time.perf_counter() - start
    env.cr.execute("SELECT state, sum(record_count)::int FROM bj_api_delivery GROUP BY state")
    states = env.cr.fetchall()
    assert states == [("sent", count)], states
    env.cr.execute("SELECT count(*) FROM bj_api_delivery")
    rows = {"deliveries": env.cr.fetchone()[0]}
    for table in ("bj_api_delivery_attempt", "bj_api_log"):
        env.cr.execute(f"SELECT count(*) FROM {table}")
        rows[table] = env.cr.fetchone()[0]
    env.cr.execute("TRUNCATE bj_api_delivery_attempt, bj_api_log, bj_api_delivery CASCADE")
    env.cr.commit()
    env.invalidate_all()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"seconds": seconds, "caller": caller, "rows": rows, "memory": memory}


def run_jobs(plain):
    """Let queue_job's runner work off a job per record: one that posts, and ours."""
    for peer in ("queue_job", "ours on queue_job"):
        start = time.perf_counter()
        if peer == "queue_job":
            for partner in partners:
                partner.with_delay(channel="root.bj_api_sync")._bench_push(url)
            env.cr.commit()
            caller = time.perf_counter() - start
        else:
            caller = write("ours") - plain
        while count_jobs():
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        if peer != "queue_job":
            env.cr.execute("SELECT state, sum(record_count)::int FROM bj_api_delivery GROUP BY state")
            states = env.cr.fetchall()
            assert states == [("sent", count)], states
        env.cr.execute("TRUNCATE bj_api_delivery_attempt, bj_api_log, bj_api_delivery, queue_job CASCADE")
        env.cr.commit()
        env.invalidate_all()
        yield peer, {"seconds": seconds, "caller": caller}


def count_jobs():
    env.cr.execute("SELECT count(*) FROM queue_job WHERE state NOT IN ('done', 'failed')")
    [number] = env.cr.fetchone()
    env.cr.commit()
    return number


def note(peer, **result):
    print("@" + json.dumps({"peer": peer} | result), flush=True)


def run_rounds():
    for number in range(OPTIONS["rounds"] + 1):  # noqa: F821
        show = note if number else (lambda *args, **kwargs: None)  # the first is to warm up
        plain = min(write(None) for _ in range(2))
        show("plain", seconds=plain)
        if OPTIONS.get("jobs"):  # noqa: F821
            show("webhook", seconds=write("webhook") - plain)
            for peer, result in run_jobs(plain):
                show(peer, **result)
            continue
        if number:
            show("webhook", seconds=write("webhook") - plain)
            for name, function in (("session", session), ("pool8", pool8), ("urllib3", bare)):
                show(name, seconds=timed(function))
        show("ours", **dispatch("ours", plain))
        show("lists", **dispatch("lists", plain))


def many(pair="d.target, d.config_id", record="1000000 + n", wait="1 s"):
    """Return a statement that copies the first delivery, so many times."""
    return f"""
        INSERT INTO bj_api_delivery (
            create_date, target, config_id, record_id, record_ids, next_attempt, state, operation, method, model, url,
            url_source, body, content_type, record_count, idempotency_key, attempt_count)
        SELECT d.create_date, {pair}, {record}, ARRAY[{record}], d.next_attempt + interval '{wait}', 'pending',
               d.operation, d.method, d.model, d.url, d.url_source, d.body, d.content_type, 1, md5(random()::text), 0
          FROM (SELECT * FROM bj_api_delivery ORDER BY id LIMIT 1) AS d, generate_series(1, %s) AS n"""


FIRST_COPY = "(SELECT min(id) FROM bj_api_sync_config WHERE name = 'copy')"
#: what lies in the outbox besides the 2,000 that are sent
GROWTH = {
    "nothing else": "SELECT %s",
    "100,000 due of other records": many(),
    "100,000 due of the same 1,000 records": many(record="1000000 + n %% 1000"),
    "100,000 that wait for their next attempt": many(wait="1 d"),
    "100,000 to 20 targets that rest": many(pair="'rest' || n %% 20, d.config_id"),
    "100,000 of 100 configurations, paused": many(pair=f"d.target, {FIRST_COPY} + n %% 100"),
}


def read_cpu():
    """Return the seconds that this process and PostgreSQL's for this database have worked."""
    env.cr.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE 'client%'"
    )
    ticks = 0
    for (pid,) in env.cr.fetchall():
        with contextlib.suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def grow():
    sent, model = 2000, env["bj.api.delivery"]
    env["bj.api.sync.config"].create([config.copy_data({"name": "copy", "is_paused": True})[0] for _ in range(100)])
    env.cr.execute(
        "INSERT INTO bj_api_target (name, failures, paused_until)"
        " SELECT 'rest' || n, 9, now() + interval '1 d' FROM generate_series(0, 19) AS n"
    )
    for peer, query in GROWTH.items():
        best = {}
        for _round in range(3):
            env.cr.execute("TRUNCATE bj_api_delivery_attempt, bj_api_log, bj_api_delivery CASCADE")
            config._enqueue(partners[:1])
            env.cr.execute(many(record="-n", wait="0 s"), [sent])
            env.cr.execute(query, [100_000])
            env.cr.execute("DELETE FROM bj_api_delivery WHERE record_id = %s", partners[:1].ids)
            env.cr.execute("ANALYZE bj_api_delivery")
            env.cr.commit()
            cpu, start, done = read_cpu(), time.perf_counter(), 0
            while done < sent:
                env["bj.api.dispatcher"]._run()
                env.cr.commit()
                done = model.search_count([("state", "=", "sent")])
            cost = {"seconds": (time.perf_counter() - start) / done, "cpu": (read_cpu() - cpu) / done}
            best = {key: min(value, best.get(key, value)) for key, value in cost.items()}  # the machine is shared
        note(peer, **best)


grow() if OPTIONS.get("growth") else run_rounds()  # noqa: F821
