import http.client
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psutil

from odoo.tests import BaseCase, tagged

from .common_server import OdooServer, database_copy, needs_template, sql
from .receiver import Receiver


@tagged("-at_install", "post_install")
@needs_template
class TestCrash(BaseCase):
    """Processes that are killed (kill -9) at work: nothing is lost, and nothing is done twice."""

    def test_workers_killed_between_data_and_answer(self):
        """An Idempotency-Key is committed with the data: who was not answered asks again, and it is done once."""
        codes = [f"CRASH-{number}" for number in range(150)]
        with (
            database_copy("crash_in") as database,
            OdooServer(database, "--workers", "2", "--max-cron-threads", "0") as server,
        ):

            def post(code):
                with suppress(OSError, http.client.HTTPException):
                    return server.call("POST", "/partners", {"code": code, "name": code}, **{"Idempotency-Key": code})

            with ThreadPoolExecutor(4) as pool, self.killer(server) as kills:
                first = list(pool.map(post, codes))
            server.wait()
            again = [post(code) for code in codes]
            unanswered = first.count(None)
            self.assertGreater(len(kills), 10)
            self.assertGreater(unanswered, 5)
            # data without its key would be found by its identifier and updated: 200
            self.assertEqual(Counter(answer[0] for answer in again), {201: len(codes)})
            for before, (_status, headers, body) in zip(first, again, strict=True):
                if before:
                    self.assertEqual((before[0], before[2]), (201, body))
                    self.assertEqual(headers["Idempotent-Replayed"], "true")
            found = server.sql("SELECT ref, id FROM res_partner WHERE ref LIKE 'CRASH-%'")
            answered = [(body["data"]["code"], body["data"]["id"]) for _status, _headers, body in again]
            self.assertEqual(sorted(found), sorted(answered))
            [[keys]] = server.sql("SELECT count(*) FROM bj_api_idempotency_key WHERE key LIKE 'CRASH-%'")
            self.assertEqual(keys, len(codes))

    @contextmanager
    def killer(self, server):
        """Kill a worker of a server every now and then, for the time of the block; gives those that were killed."""
        process, kills, done = psutil.Process(server.process.pid), [], threading.Event()

        def kill():
            while not done.wait(random.uniform(0.02, 0.2)):  # noqa: S311  no secret
                with suppress(psutil.NoSuchProcess):
                    kills.append(random.choice(process.children()))  # noqa: S311
                    kills[-1].kill()

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            yield kills
        finally:
            done.set()
            thread.join()

    def test_sender_killed(self):
        """What a killed server was sending is taken over by another, with the same id."""
        count = 60
        with database_copy("crash_out") as database, Receiver() as receiver:
            receiver.on("/in", delay=0.2)
            with OdooServer(database, "--max-cron-threads", "1") as server:
                server.send_to(receiver)
                records = server.push(f"OUT-{number}" for number in range(count))
                receiver.wait_for(12)
                server.process.send_signal(signal.SIGKILL)
                server.process.wait()
            states = dict(self.states(server))
            self.assertGreater(states["sending"], 5)
            arrived = len(receiver.requests)
            self.assertLess(arrived, count)
            receiver._scripts.clear()
            server.sql(
                "UPDATE bj_api_delivery SET next_attempt = next_attempt - '61 s'::interval WHERE state = 'sending'"
            )
            with OdooServer(database, "--max-cron-threads", "1") as other:
                deadline = time.monotonic() + 30
                while self.states(other) != [("sent", count)] and time.monotonic() < deadline:
                    sql(f"SELECT pg_notify('cron_trigger', '{database}')")  # else it looks after a minute
                    time.sleep(0.2)
                self.assertEqual(self.states(other), [("sent", count)])
                lapsed = other.sql("SELECT count(*) FROM bj_api_delivery_attempt WHERE code = 0")[0][0]
            ids = {}
            for request in receiver.requests:
                ids.setdefault(request.json["code"], []).append(request.headers["idempotency-key"])
            self.assertEqual(set(ids), {f"OUT-{number}" for number in range(count)})
            self.assertEqual({len(set(keys)) for keys in ids.values()}, {1})
            repeated = len(receiver.requests) - count
            self.assertGreater(repeated, 0, "some were on the way when it was killed")
            self.assertLessEqual(repeated, lapsed)
            self.assertEqual(len(records), count)

    def states(self, server):
        return server.sql("SELECT state, count(*)::int FROM bj_api_delivery GROUP BY state ORDER BY state")
