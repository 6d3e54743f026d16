import contextlib
import datetime
import os
import resource
import sys
import unittest
from pathlib import Path

from odoo.tests import BaseCase, tagged

from ..tools import codec

BIG = 10**400


@tagged("-at_install", "post_install")
class TestCodec(BaseCase):
    """The table of JSON values and ORM values, type by type, both ways."""

    def assert_parsed(self, field_type, table):
        for value, expected in table:
            with self.subTest(type=field_type, value=value):
                result = codec.parse(field_type, value)
                self.assertEqual(result, expected)
                self.assertIs(type(result), type(expected))

    def assert_refused(self, field_type, *values, selection=None):
        for value in values:
            with self.subTest(type=field_type, value=repr(value)[:60]), self.assertRaises(ValueError):
                codec.parse(field_type, value, selection)

    def assert_serialized(self, field_type, table, digits=None):
        for value, expected in table:
            with self.subTest(type=field_type, value=value):
                [result] = codec.serialize_column(field_type, [value], digits)
                self.assertEqual(result, expected)
                self.assertIs(type(result), type(expected))

    # JSON -> ORM

    def test_text(self):
        for field_type in ("char", "text", "html"):
            self.assert_parsed(
                field_type, [("a", "a"), (" a ", " a "), ("", False), ("0", "0"), ("ß€\U0001f600", "ß€😀")]
            )
            self.assert_refused(field_type, 5, 1.5, True, False, [], ["a"], {}, {"a": 1}, "a\x00b", "\x00")
            self.assert_refused(field_type, "\ud800", "a\udfffb")  # halves of surrogate pairs
        self.assertEqual(codec.parse("char", "ß€", size=2), "ß€")
        with self.assertRaises(ValueError):
            codec.parse("char", "ß€a", size=2)

    def test_selection(self):
        self.assertEqual(codec.parse("selection", "draft", ["draft", "done"]), "draft")
        self.assert_refused("selection", "Draft", "other", "", 1, True, ["draft"], selection=["draft", "done"])

    def test_integer(self):
        self.assert_parsed(
            "integer",
            [
                (0, 0),
                (-5, -5),
                ("7", 7),
                (" -7 ", -7),
                ("+7", 7),
                (3.0, 3),
                (2**31 - 1, 2**31 - 1),
                (-(2**31), -(2**31)),
            ],
        )
        self.assert_refused("integer", 2**31, -(2**31) - 1, BIG, str(2**31), "9" * 5000, 1e300)
        self.assert_refused("integer", True, False, 1.5, "1.5", "1e3", "0x10", "1_000", "", " ", "a", [], {}, [1])
        self.assert_refused("integer", float("nan"), float("inf"), "nan")

    def test_float(self):
        for field_type in ("float", "monetary"):
            self.assert_parsed(
                field_type, [(0, 0.0), (1, 1.0), (-1.5, -1.5), ("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), (" 2 ", 2.0)]
            )
            self.assert_refused(field_type, True, False, "", "a", "1,5", "1.5.2", "1_0", [], {}, BIG, -BIG, "1" * 400)
            self.assert_refused(field_type, float("nan"), float("inf"), -float("inf"), "nan", "inf", "1e999", 1e305)

    def test_boolean(self):
        self.assert_parsed("boolean", [(True, True), (False, False)])
        self.assert_refused("boolean", 0, 1, 0.0, "true", "false", "1", "", [], {})

    def test_date(self):
        self.assert_parsed(
            "date", [("2026-01-31", datetime.date(2026, 1, 31)), ("2024-02-29", datetime.date(2024, 2, 29))]
        )
        self.assert_refused("date", "2026-02-29", "2026-13-01", "0000-01-01", "31.01.2026", "2026-1-31", "20260131", "")
        self.assert_refused(
            "date",
            "2026-01-31T00:00:00Z",
            "2026-01-31 ",
            "today",
            20260131,
            True,
            [],
            {},
            "\uff12\uff10\uff12\uff16-01-31",
        )

    def test_datetime(self):
        moment = datetime.datetime(2026, 1, 31, 13, 5)
        self.assert_parsed(
            "datetime",
            [
                ("2026-01-31T13:05:00Z", moment),
                ("2026-01-31T13:05:00", moment),
                ("2026-01-31 13:05:00", moment),
                ("2026-01-31T13:05", moment),
                ("2026-01-31T13:05:00.999999Z", moment),
                ("2026-01-31T13:05:00.123456789Z", moment),
                ("2026-01-31T15:05:00+02:00", moment),
                ("2026-01-31T07:35:00-0530", moment),
                ("2026-01-31T14:05+01", moment),
                ("20260131T130500Z", moment),
                ("2026-02-01T00:00:00+00:00", datetime.datetime(2026, 2, 1)),
                ("2026-01-01T00:30:00+01:00", datetime.datetime(2025, 12, 31, 23, 30)),
            ],
        )
        self.assert_refused(
            "datetime", "2026-01-31", "2026-02-30T00:00:00Z", "2026-01-31T25:00:00Z", "13:05", "now", ""
        )
        self.assert_refused(
            "datetime", "2026-01-31T13:05:00+99:00", "2026-01-31T13:05:00 Europe/Berlin", 0, True, [], {}
        )
        self.assert_refused("datetime", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00")

    def test_binary(self):
        self.assert_parsed("binary", [("aGVsbG8=", "aGVsbG8="), ("", False)])
        self.assert_refused("binary", "aGVsbG8", "hällo", "a b=", "====", "data:;base64,aGVsbG8=", 5, True, [], {})

    def test_many2one(self):
        for field_type in ("many2one", "many2one_reference"):
            self.assert_parsed(field_type, [(1, 1), (2**31 - 1, 2**31 - 1)])
            self.assert_refused(field_type, 0, -1, True, "1", 1.0, 1.5, [1], {"id": 1}, 2**31, BIG)

    def test_to_many(self):
        for field_type in codec.TO_MANY:
            self.assert_parsed(field_type, [([], []), ([3, 1], [3, 1])])
            self.assert_refused(field_type, 1, "1", "", True, {}, [True], ["1"], [None], [[1]], [0], [1, 2**40])

    def test_reference(self):
        self.assert_parsed("reference", [("res.partner,3", "res.partner,3")])
        self.assert_refused("reference", "res.partner", "res.partner,", "3", "Res,3", ["res.partner", 3], 3, "")
        self.assert_refused("reference", "res.partner,0", "res.partner,2147483648", "res.partner,²")
        self.assert_refused("reference", "res.users,3", selection=["res.partner"])

    def test_json(self):
        """What could not be written into an answer is not stored."""
        self.assert_parsed("json", [(value, value) for value in ({"a": [1, "é", None]}, [], "", 0, False)])
        deep = []
        for _level in range(900):
            deep = [deep]
        self.assert_refused("json", deep, 2**70, {"a": "\ud800"}, {"\ud800": 1})

    @unittest.skipUnless(sys.platform == "linux", "limits and their facts are those of Linux")
    def test_json_when_memory_is_short(self):
        """It is refused, as Python does; orjson by itself would end the process with a signal."""
        text = "x" * 40_000_000  # orjson would ask for 320 MB
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                limit = pages * resource.getpagesize() + 200_000_000
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
                try:
                    codec.dump_json(text)
                except MemoryError:
                    os._exit(0)
            os._exit(1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_types_without_exchange(self):
        self.assert_refused("properties", {}, [])
        self.assert_refused("", "a")

    def test_null_is_not_parsed(self):
        """Clearing is decided where the key is known; no type takes null for a value."""
        for field_type in set(codec.PARSERS) - {"json"}:
            self.assert_refused(field_type, None)

    # ORM -> JSON

    def test_serialize(self):
        for field_type in ("char", "text", "html", "selection"):
            self.assert_serialized(field_type, [("a", "a"), (False, None), (None, None), ("", None)])
        self.assert_serialized("integer", [(5, 5), (0, 0), (False, 0), (None, 0)])
        self.assert_serialized("boolean", [(True, True), (False, False), (None, False)])
        self.assert_serialized("float", [(1.5, 1.5), (0.0, 0.0), (None, 0.0)])
        self.assert_serialized("float", [(0.1 + 0.2, 0.3), (2.675, 2.68), (1.0, 1.0), (None, 0.0)], digits=2)
        self.assert_serialized("float", [(1234.5678, 1235.0)], digits=0)
        self.assert_serialized("monetary", [(9.99, 9.99), (None, 0.0)])
        self.assert_serialized("date", [(datetime.date(2026, 1, 31), "2026-01-31"), (False, None), (None, None)])
        self.assert_serialized(
            "datetime",
            [
                (datetime.datetime(2026, 1, 31, 13, 5), "2026-01-31T13:05:00Z"),
                (datetime.datetime(2026, 1, 31, 13, 5, 0, 999), "2026-01-31T13:05:00Z"),
                (False, None),
            ],
        )
        self.assert_serialized("binary", [(b"aGVsbG8=", "aGVsbG8="), (False, None), (b"", None)])
        self.assert_serialized("many2one", [(3, 3), (False, None), (None, None)])
        self.assert_serialized("reference", [("res.partner,3", "res.partner,3"), (False, None)])
        for field_type in codec.TO_MANY:
            self.assert_serialized(field_type, [((3, 1), [3, 1]), ((), [])])

    def test_what_goes_out_comes_in(self):
        for field_type, value in (
            ("char", "a"),
            ("integer", -3),
            ("float", 1.25),
            ("boolean", True),
            ("date", datetime.date(2026, 1, 31)),
            ("datetime", datetime.datetime(2026, 1, 31, 13, 5)),
            ("many2one", 3),
            ("many2many", [1, 2]),
        ):
            with self.subTest(type=field_type):
                [out] = codec.serialize_column(field_type, [value])
                self.assertEqual(codec.parse(field_type, out), value)

    # query parameters

    def test_query_text(self):
        for field_type, text, expected in (
            ("char", "", False),
            ("char", "a", "a"),
            ("boolean", "true", True),
            ("boolean", "TRUE", True),
            ("boolean", "0", False),
            ("integer", "7", 7),
            ("many2one", "12", 12),
            ("one2many", "12", 12),
            ("date", "2026-01-31", datetime.date(2026, 1, 31)),
            ("datetime", "2026-01-31T15:05:00 02:00", datetime.datetime(2026, 1, 31, 13, 5)),  # + was not encoded
        ):
            with self.subTest(type=field_type, text=text):
                result = codec.parse_text(field_type, text)
                self.assertEqual(result, expected)
                self.assertIs(type(result), type(expected))
        for field_type, text in (
            ("boolean", "maybe"),
            ("integer", "1.5"),
            ("many2one", "-1"),
            ("many2one", "0"),
            ("many2one", "²"),
            ("many2one", "9" * 30),
            ("date", "tomorrow"),
            ("char", "\x00"),
        ):
            with self.subTest(type=field_type, text=text), self.assertRaises(ValueError):
                codec.parse_text(field_type, text)
