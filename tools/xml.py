"""XML <-> JSON values, the same way in both directions.

* The name of the root element means nothing: the ``data`` of an answer can be sent back as it is.
* An object is an element with one child per key, a list one with children named ``item``. ``type="object"`` or
  ``type="list"`` says which, where it could be either.
* null is ``xsi:nil="true"``; ``nil`` and ``null`` without a namespace are understood as well.
* Anything else is text. What it stands for is up to the field it goes to, see :class:`codec.Text`.
* A key that is no XML name is escaped as in SQL/XML (ISO/IEC 9075-14): ``_x0020_`` is a space.
* Other attributes, namespaces, comments and processing instructions mean nothing. Characters that XML 1.0 cannot
  hold become U+FFFD.

A document with a DOCTYPE is refused as soon as that is read, so there are no entities to resolve and nothing to
fetch; XInclude is never processed. What libxml2 takes for too large a text is refused as well.
"""

import codecs
import json
import re

from lxml import etree

from .codec import Text

XSI = "http://www.w3.org/2001/XMLSchema-instance"
ROOT, ITEM = "response", "item"
#: elements inside one another
MAX_DEPTH = 100
#: bytes that are parsed at a time
PIECE = 65536
MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
NIL = (f"{{{XSI}}}nil", "nil", "null")
#: characters that names begin with (XML 1.0 section 2.3), as far as they are letters of living languages
LETTERS = "A-Za-z_\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02ff\u0370-\u037d\u037f-\u1fff\u3001-\ud7ff"
#: what is escaped in a name: what cannot be in it, and what would look like an escape
UNNAMEABLE = re.compile(
    rf"^[^{LETTERS}]|[^{LETTERS}0-9.-]|_(?=x[0-9A-Fa-f]{{0,8}}(?:_|[^{LETTERS}0-9.-]))|^\Z", re.DOTALL
)
ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4}|00(?:0[0-9A-Fa-f]|10)[0-9A-Fa-f]{4}|)_")
#: what XML 1.0 cannot hold (section 2.2)
UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def dump(value):
    """Write a JSON value as an XML document in UTF-8.

    :param value: any JSON value
    :rtype: bytes
    """
    root = etree.Element(ROOT, nsmap={"xsi": XSI})
    _fill(root, value)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def parse(data, charset=None):
    """Read an XML document as JSON value, all of whose scalars are :class:`codec.Text` or None.

    :param bytes data: the document
    :param str charset: what its sender says of its encoding: less than a byte order mark, more than its own declaration
        does (RFC 7303 section 3)
    :raises ValueError: if it is no such document, or the charset is unknown
    """
    options = {"resolve_entities": False, "load_dtd": False, "no_network": True, "huge_tree": False}
    encoding = None if data.startswith(MARKS) else charset or None
    try:
        parser = etree.XMLParser(target=_Target(), encoding=encoding, collect_ids=False, **options)
        # in pieces: with all of it at once, some versions of libxml2 read on after a DOCTYPE was refused
        for start in range(0, len(data), PIECE):
            parser.feed(data[start : start + PIECE])
        return parser.close()
    except (etree.XMLSyntaxError, LookupError) as exc:
        raise ValueError(str(exc)) from exc


def escape_name(key):
    """Make an XML name of any key."""
    return UNNAMEABLE.sub(lambda match: f"_x{_hex(match[0])}_", key)


def unescape_name(name):
    """Return the key that :func:`escape_name` made a name of."""
    return ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else "", name)


def _hex(character):
    if not character:
        return ""
    return f"{ord(character):04X}" if ord(character) < 0x10000 else f"{ord(character):08X}"


def _fill(element, value):
    if value is None:
        element.set(NIL[0], "true")
    elif isinstance(value, dict):
        if set(value) <= {ITEM}:
            element.set("type", "object")
        for key, child in value.items():
            _fill(etree.SubElement(element, escape_name(str(key))), child)
    elif isinstance(value, (list, tuple)):
        element.set("type", "list")
        for child in value:
            _fill(etree.SubElement(element, ITEM), child)
    else:
        element.text = UNWRITABLE.sub("\ufffd", value if isinstance(value, str) else json.dumps(value))


def _get_value(name, attributes, children, text):
    """Return what an element stands for.

    :param list children: name and value of the elements in it
    """
    kind, is_nil = attributes.get("type"), any(attributes.get(key) in ("true", "1") for key in NIL)
    if (children or is_nil) and text.strip():
        raise ValueError(f"The element {name} has text where there can be none")
    if is_nil and not children:
        return None
    names = {key for key, _ in children}
    if kind == "list" or (names == {ITEM} and kind != "object"):
        if not names <= {ITEM}:
            raise ValueError(f"The list {name} must have elements named {ITEM} and no others")
        return [value for _, value in children]
    if not children and kind != "object":
        return Text(text)
    result = {unescape_name(key): value for key, value in children}
    if len(result) < len(children):
        raise ValueError(f"{name} has an element twice: a list is an element with elements named {ITEM}")
    return result


class _Target:
    """Makes values of a document while it is parsed, without a tree of it."""

    def __init__(self):
        #: name, attributes, children and texts of the elements that are being read
        self.open, self.value = [], None

    def start(self, tag, attributes):
        if len(self.open) >= MAX_DEPTH:
            raise ValueError(f"More than {MAX_DEPTH} elements inside one another")
        self.open.append((tag.rpartition("}")[2], attributes, [], []))

    def data(self, text):
        *_, texts = self.open[-1]
        texts.append(text)

    def end(self, tag):
        name, attributes, children, texts = self.open.pop()
        self.value = _get_value(name, attributes, children, "".join(texts))
        if self.open:
            *_, siblings, _texts = self.open[-1]
            siblings.append((name, self.value))

    def doctype(self, *arguments):
        raise ValueError("A DOCTYPE is not accepted")

    def close(self):
        return self.value
