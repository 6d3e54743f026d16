import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from odoo.tests import BaseCase, tagged

from .common_server import TOKEN, OdooServer, database_copy, free_port, needs_template
from .receiver import Receiver, Reply

#: what both sides tell each other of a partner
KEYS = {"ref": "code", "name": "name", "city": "address.city", "write_date": "changed"}


class ServersCase(BaseCase):
    """Odoo servers that tell another system of every change of a partner, and are told."""

    @classmethod
    def start_side(cls, name, url, port=None):
        """Start a server on a database of its own that sends to a URL."""
        database = cls.enterClassContext(database_copy(f"two_way_{name}"))
        options = ("--workers", "0", "--max-cron-threads", "1")
        side = cls.enterClassContext(OdooServer(database, *options, port=port))
        side.rpc("ir.config_parameter", "set_param", "bj_api_sync.allowed_hosts", "127.0.0.1")
        model = side.rpc("ir.model", "search", [("model", "=", "res.partner")])[0]
        names = side.rpc(
            "ir.model.fields", "search_read", [("model", "=", "res.partner"), ("name", "in", list(KEYS))], ["name"]
        )
        fields = {field["name"]: field["id"] for field in names}
        methods = {row["name"]: row["id"] for row in side.rpc("bj.http.method", "search_read", [], ["name"])}

        def config(name, methods, **values):
            lines = [
                {"field_id": fields[field], "external_key": key, "is_record_identifier": field == "ref"}
                for field, key in KEYS.items()
            ]
            values |= {"name": name, "model_id": model, "bearer_token": TOKEN, "http_method_ids": [(6, 0, methods)]}
            return side.rpc("bj.api.sync.config", "create", values | {"line_ids": [(0, 0, line) for line in lines]})

        inbound = config("Peer in", list(methods.values()), endpoint="peers", record_id_type="identifier")
        out = {"request_type": "out", "counterpart_id": inbound, "filter_domain": "[('ref', '!=', False)]"}
        side.out = config("Peer out", [methods["POST"]], **out, request_url=url)
        side.gone = config("Peer gone", [methods["DELETE"]], **out, request_url=f"{url}/{{code}}")
        for out, trigger in ((side.out, "on_create_or_write"), (side.gone, "on_unlink")):
            action = {"name": "Push", "model_id": model, "state": "bj_api_sync", "bj_api_sync_config_id": out}
            rule = {"name": "Push", "model_id": model, "trigger": trigger, "action_server_ids": [(0, 0, action)]}
            side.rpc("base.automation", "create", rule)
        return side

    def settle(self, *sides, quiet=0.3):
        """Wait until nothing is queued any more on any side, and stays so; return how many deliveries each has."""
        query = "SELECT state, count(*) FROM bj_api_delivery GROUP BY state ORDER BY state"
        started, before, since = time.monotonic(), None, 0
        while time.monotonic() < started + 30:
            now = [dict(side.sql(query)) for side in sides]
            if now != before or {"pending", "sending", "failed"} & set().union(*now):
                before, since = now, time.monotonic()
            if time.monotonic() > since + quiet:
                return [sum(states.values()) for states in now]
            time.sleep(0.05)
        logs = "\n\n".join(side.read_log()[-2000:] for side in sides)
        raise AssertionError(f"does not settle: {now}\n{logs}")

    def find(self, side, code):
        return side.rpc("res.partner", "search_read", [("ref", "=", code)], ["name", "city"])

    def write(self, side, code, **values):
        side.rpc("res.partner", "write", side.rpc("res.partner", "search", [("ref", "=", code)]), values)


@tagged("-at_install", "post_install")
@needs_template
class TestTwoDatabases(ServersCase):
    """Two Odoo servers on two databases."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        ports = free_port(), free_port()
        cls.a, cls.b = cls.sides = [
            cls.start_side(name, f"http://127.0.0.1:{other}/bj_api_sync/v1/peers", port)
            for name, port, other in zip("ab", ports, reversed(ports), strict=True)
        ]

    def at_once(self, function):
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(function, self.sides))

    def settle(self, quiet=0.3):
        return super().settle(*self.sides, quiet=quiet)

    def assert_same(self, code, **values):
        found = [self.find(side, code) for side in self.sides]
        self.assertEqual([len(records) for records in found], [1, 1])
        for [record] in found:
            self.assertEqual({name: record[name] for name in values}, values)

    @contextmanager
    def sending_at_once(self):
        """Send nothing during the block, and then from both sides at the same moment."""
        self.at_once(lambda side: side.rpc("bj.api.sync.config", "action_pause", side.out))
        yield
        self.at_once(lambda side: side.rpc("bj.api.sync.config", "action_resume", side.out))

    def create_both(self, code):
        self.a.rpc("res.partner", "create", {"ref": code, "name": "Before", "city": "Graz"})
        self.settle()

    def set_policies(self, *policies):
        for side, policy in zip(self.sides, policies, strict=True):
            side.rpc("bj.api.sync.config", "write", side.out, {"conflict_policy": policy})

    def test_there_and_nothing_back(self):
        a, b = self.settle()
        self.create_both("T-1")
        self.assert_same("T-1", name="Before", city="Graz")
        self.write(self.a, "T-1", name="From A")
        self.assertEqual(self.settle(), [a + 2, b], "a creation and a change")
        self.assert_same("T-1", name="From A")
        self.write(self.b, "T-1", city="Linz")
        self.assertEqual(self.settle(), [a + 2, b + 1])
        self.assert_same("T-1", name="From A", city="Linz")
        self.write(self.a, "T-1", name="Before")  # there and back again is news
        self.assertEqual(self.settle(2), [a + 3, b + 1])
        self.assert_same("T-1", name="Before")

    def test_created_on_both(self):
        a, b = self.settle()
        with self.sending_at_once():  # one that arrives while the other is not committed yet finds none
            self.at_once(lambda side: side.rpc("res.partner", "create", {"ref": "T-2", "name": "Twin", "city": "Wien"}))
        count_a, count_b = self.settle()
        self.assert_same("T-2", name="Twin", city="Wien")
        self.assertLessEqual(max(count_a - a, count_b - b), 3)

    def test_deleted(self):
        self.create_both("T-3")
        a, b = self.settle()
        self.b.rpc("res.partner", "unlink", self.b.rpc("res.partner", "search", [("ref", "=", "T-3")]))
        self.assertEqual(self.settle(), [a, b + 1])
        self.assertEqual([self.find(side, "T-3") for side in self.sides], [[], []])

    def test_deleted_on_one_side_and_changed_on_the_other(self):
        """Whichever way they cross, both sides have the record, or none."""
        for delay in (0, 0.05, 0.1, 0.2):
            code = f"T-3-{delay}"
            self.create_both(code)
            self.settle()
            found = [side.rpc("res.partner", "search", [("ref", "=", code)]) for side in self.sides]
            self.a.rpc("res.partner", "write", found[0], {"name": "Changed"})
            time.sleep(delay)
            self.b.rpc("res.partner", "unlink", found[1])
            self.settle()
            names = [[record["name"] for record in self.find(side, code)] for side in self.sides]
            self.assertIn(names, ([["Changed"], ["Changed"]], [[], []]), delay)

    def test_changed_there_before_they_knew_of_the_deletion(self):
        self.create_both("T-10")
        self.settle()
        self.b.rpc("bj.api.sync.config", "action_pause", self.b.gone)
        self.b.rpc("res.partner", "unlink", self.b.rpc("res.partner", "search", [("ref", "=", "T-10")]))
        self.write(self.a, "T-10", name="Changed")
        for _time in range(200):
            if self.find(self.b, "T-10"):
                break
            time.sleep(0.05)
        self.b.rpc("bj.api.sync.config", "action_resume", self.b.gone)
        self.settle()
        self.assert_same("T-10", name="Changed")

    def change_both(self, code, *policies):
        """Change a partner on both sides while nothing is sent, then have both send at the same moment."""
        for side, policy in zip(self.sides, policies, strict=True):
            side.rpc("bj.api.sync.config", "write", side.out, {"conflict_policy": policy})
        self.create_both(code)
        before = self.settle()
        with self.sending_at_once():
            self.write(self.a, code, name="From A")
            time.sleep(1)  # dates tell seconds apart
            self.write(self.b, code, name="From B")
        for now, then in zip(self.settle(), before, strict=True):
            self.assertLessEqual(now - then, 6)
        return [self.find(side, code)[0]["name"] for side in self.sides]

    def test_one_side_wins(self):
        self.assertEqual(self.change_both("T-4", "odoo", "remote"), ["From A", "From A"])

    def test_newest_wins(self):
        self.assertEqual(self.change_both("T-5", "newest", "newest"), ["From B", "From B"])

    def test_the_same_policy_on_both_sides(self):
        """Whoever it is that wins, it is the same one on both sides."""
        for policy in ("remote", "odoo"):
            with self.subTest(policy=policy):
                name_a, name_b = self.change_both(f"T-6-{policy}", policy, policy)
                self.assertEqual(name_a, name_b)

    def test_ask(self):
        """What comes in while ours still waits is kept for somebody to decide."""
        self.create_both("T-7")
        self.a.rpc("bj.api.sync.config", "write", self.a.out, {"conflict_policy": "ask", "is_paused": True})
        self.write(self.a, "T-7", name="From A")
        self.write(self.b, "T-7", name="From B")
        self.settle()
        self.assertEqual([self.find(side, "T-7")[0]["name"] for side in self.sides], ["From A", "From B"])
        self.a.rpc("bj.api.sync.config", "action_resume", self.a.out)
        [link] = self.a.rpc("bj.api.link", "search", [("conflict_date", "!=", False)])
        self.a.rpc("bj.api.link", "action_take_theirs", link)
        self.settle()
        self.assert_same("T-7", name="From B")


@tagged("-at_install", "post_install")
@needs_template
class TestAnswersLater(ServersCase):
    """A system that posts back what it made of a partner before it answers."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.receiver = cls.enterClassContext(Receiver())
        cls.side = cls.start_side("echo", f"{cls.receiver.url}/peers")
        cls.receiver.on("/peers", body=cls.post_back)

    @classmethod
    def post_back(cls, request):
        """Keep the name in capitals, and count what came in."""
        made = {"name": request.json["name"].upper(), "address": {"city": str(len(cls.receiver.requests))}}
        status, _headers, _body = cls.side.call("POST", "/peers", request.json | made)
        return Reply(status=status)

    def test_it_ends(self):
        for policy, most in (("odoo", 4), ("ask", 1)):
            with self.subTest(policy=policy):
                self.side.rpc("bj.api.sync.config", "write", self.side.out, {"conflict_policy": policy})
                [before] = self.settle(self.side)
                self.side.rpc("res.partner", "create", {"ref": policy, "name": "Before", "city": "Graz"})
                [created] = self.settle(self.side, quiet=1)
                self.assertLessEqual(created - before, most)
                self.write(self.side, policy, name="After")
                [changed] = self.settle(self.side, quiet=1)
                self.assertLessEqual(changed - created, most)
                [record] = self.find(self.side, policy)
                self.assertEqual(record["name"], "After" if policy == "ask" else "AFTER")
