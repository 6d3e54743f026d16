import ast
from pathlib import Path

from lxml import etree

from odoo.tests import BaseCase, tagged

ROOT = Path(__file__).resolve().parent.parent
#: the rooms of production code
ROOMS = ("controllers", "models", "tools", "wizard")
#: who may commit, and why
COMMITTERS = {
    "controllers/dispatcher.py": "the log of a failed request survives the rollback of the request",
}
#: who may send, and why: all else goes through the client
SENDERS = {
    "models/bj_api_sync_client.py": "the way out",
    "tools/transport.py": "the wire of the client",
}
#: where the other system's side is played
FOREIGN = ("controllers/", "models/ir_http.py")


class Module:
    """One Python file, read for what it imports and calls."""

    def __init__(self, path):
        self.path = path
        self.name = path.relative_to(ROOT).as_posix()
        self.tree = ast.parse(path.read_text())

    def imports(self):
        """Yield the absolute names of all that is imported, wherever in the file."""
        package = self.name.split("/")[:-1]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parents = package[: len(package) - node.level + 1]
                    base = ".".join(["addon", *parents, *filter(None, [base])])
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)

    def calls(self, name):
        """Tell whether a method or function of that name is called."""
        return any(
            isinstance(node, ast.Call) and name in (getattr(node.func, "attr", ""), getattr(node.func, "id", ""))
            for node in ast.walk(self.tree)
        )

    def uses(self, name):
        """Tell whether a name or attribute is used."""
        return any(name in (getattr(node, "id", ""), getattr(node, "attr", "")) for node in ast.walk(self.tree))


def reads(imported, *packages):
    return any(imported == package or imported.startswith(f"{package}.") for package in packages)


@tagged("-at_install", "post_install")
class TestLaws(BaseCase):
    """The arrows between the rooms, read from the imports."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
        cls.modules = [Module(path) for path in [*files, ROOT / "exceptions.py", ROOT / "__init__.py"]]

    def importers(self, *packages):
        return {module.name for module in self.modules if any(reads(name, *packages) for name in module.imports())}

    def test_the_reader_reads(self):
        """What the other tests rely on: relative and nested imports are seen."""
        self.assertGreater(len(self.modules), 20)
        mapper = next(module for module in self.modules if module.name == "models/bj_api_sync_mapper.py")
        self.assertLessEqual({"odoo.models", "addon.tools.plan", "addon.exceptions.BadPayload"}, set(mapper.imports()))
        self.assertTrue(mapper.calls("_match"))
        self.assertFalse(mapper.calls("commit"))

    def test_only_transport_knows_the_request(self):
        strangers = {name for name in self.importers("odoo.http") if not name.startswith(FOREIGN)}
        self.assertEqual(strangers, set())

    def test_only_the_client_sends(self):
        senders = self.importers("requests", "urllib3", "http.client", "urllib.request", "httpx", "aiohttp", "socket")
        self.assertEqual(senders - set(SENDERS), set())
        self.assertEqual(self.importers("requests"), {"models/bj_api_sync_client.py"})

    def test_only_the_script_room_evaluates(self):
        room = "models/bj_api_sync_script.py"
        self.assertEqual(self.importers("odoo.tools.safe_eval"), {room})
        for function in ("safe_eval", "eval", "exec", "compile", "__import__"):
            callers = {module.name for module in self.modules if self.calls_builtin(module, function)}
            with self.subTest(function=function):
                self.assertLessEqual(callers, {room})

    def calls_builtin(self, module, function):
        """Calls of a plain name: ``re.compile`` is another function."""
        return any(
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function
            for node in ast.walk(module.tree)
        )

    def test_tools_know_no_model(self):
        forbidden = ("odoo.models", "odoo.api", "odoo.http", "odoo.addons", "addon.models", "addon.controllers")
        for module in self.modules:
            if not module.name.startswith("tools/"):
                continue
            wrong = [name for name in module.imports() if reads(name, *forbidden)]
            with self.subTest(module=module.name):
                self.assertEqual(wrong, [])

    def test_the_mapper_knows_neither_http_nor_logs(self):
        foreign = ("odoo.http", "werkzeug", "requests", "urllib3", "logging")
        engine = ("models/bj_api_sync_mapper.py", "models/bj_api_sync_value.py", "tools/plan.py", "tools/codec.py")
        for module in (module for module in self.modules if module.name in engine):
            with self.subTest(module=module.name):
                wrong = [name for name in module.imports() if reads(name, *foreign)]
                self.assertEqual(wrong, [])
                text = module.path.read_text()
                for word in ("bj.api.log", "bj.api.sync.inbound", "bj.api.sync.outbound", "bj.api.sync.client"):
                    self.assertNotIn(f'"{word}"', text)

    def test_models_and_tools_import_no_controller(self):
        strangers = {name for name in self.importers("addon.controllers") if not name.startswith("controllers/")}
        self.assertEqual(strangers, {"__init__.py"})

    def test_only_listed_files_commit(self):
        committers = {module.name for module in self.modules if module.calls("commit")}
        self.assertEqual(committers, set(COMMITTERS))

    def test_nothing_bypasses_the_access_of_a_request(self):
        """The engine and the inbound room never work as superuser, but to read configurations."""
        for module in self.modules:
            if module.name == "models/bj_api_sync_inbound.py" or module.name == "models/bj_api_sync_mapper.py":
                lines = [line for line in module.path.read_text().splitlines() if "sudo()" in line]
                with self.subTest(module=module.name):
                    self.assertLessEqual(len(lines), 3, lines)
                self.assertFalse(module.uses("SUPERUSER_ID"))

    def test_no_code_of_others(self):
        words = ("vendor" + "ed", "copied" + " from", "third_party", "taken" + " from odoo", "backport")
        for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
            text = path.read_text().lower()
            with self.subTest(path=path.name):
                self.assertEqual([word for word in words if word in text], [])


@tagged("-at_install", "post_install")
class TestViewLaws(BaseCase):
    """Other addons inherit views by the names of their parts."""

    def test_every_part_has_a_name(self):
        nameless = []
        files = [path for folder in ("views", "wizard") for path in sorted((ROOT / folder).glob("*.xml"))]
        self.assertTrue(files)
        for path in files:
            for node in etree.parse(path).iterfind(".//field[@name='arch']//*"):
                if node.tag in ("group", "page", "button", "filter") and not node.get("name"):
                    if node.tag == "group" and node.getparent().tag == "search":
                        continue
                    nameless.append(f"{path.name}:{node.sourceline} <{node.tag}>")
        self.assertEqual(nameless, [])

    def test_names_are_told_apart(self):
        for path in sorted((ROOT / "views").glob("*.xml")):
            for arch in etree.parse(path).iterfind(".//field[@name='arch']"):
                for tag in ("group", "page"):
                    names = [node.get("name") for node in arch.iter(tag) if node.get("name")]
                    with self.subTest(path=path.name, line=arch.sourceline, tag=tag):
                        self.assertEqual(sorted(names), sorted(set(names)))
