"""JSON Schema (draft 2020-12, the dialect of OpenAPI 3.1) of what ``codec`` makes of each field type, and of shapes."""

from .codec import INT4, TO_MANY


def reference(section, name):
    """Refer to a component of the document."""
    return {"$ref": f"#/components/{section}/{name}"}


def resolve(part, components):
    """Follow a reference, and those it leads to; what is none stays as it is."""
    while "$ref" in part:
        *_path, section, name = part["$ref"].split("/")
        part = components[section][name]
    return part


def array_of(items):
    """Describe a list; in XML it is an element around elements named ``item`` (OpenAPI 3.1.1, section 4.8.26)."""
    return {"type": "array", "items": items | {"xml": {"name": "item"}}, "xml": {"wrapped": True}}


def object_of(properties, required=None):
    """Describe an object; unless told otherwise, it always has all of its properties."""
    return {"type": "object", "properties": properties, "required": list(properties if required is None else required)}


ID = {"type": "integer", "format": "int32", "minimum": 1, "maximum": INT4[-1], "examples": [7]}
#: the values of each field type, in the vocabulary of the OpenAPI format registry
SCHEMAS = {
    "char": {"type": "string"},
    "text": {"type": "string"},
    "html": {"type": "string", "contentMediaType": "text/html", "examples": ["<p>Text</p>"]},
    "selection": {"type": "string"},
    "integer": {"type": "integer", "format": "int32", "minimum": INT4[0], "maximum": INT4[-1], "examples": [1]},
    "float": {"type": "number", "format": "double", "examples": [1.5]},
    "monetary": {"type": "number", "format": "double", "examples": [9.95]},
    "boolean": {"type": "boolean", "examples": [True]},
    "date": {"type": "string", "format": "date", "examples": ["2026-01-31"]},
    "datetime": {"type": "string", "format": "date-time", "examples": ["2026-01-31T13:05:00Z"]},
    "binary": {"type": "string", "format": "byte", "contentEncoding": "base64", "examples": ["T2Rvbw=="]},
    "many2one": ID,
    "many2one_reference": ID,
    "one2many": array_of(ID),
    "many2many": array_of(ID),
    "reference": {"type": "string", "pattern": r"^[a-z_][a-z0-9_.]*,[0-9]+$", "examples": ["res.partner,7"]},
}
#: what is never null when it is read, and becomes zero or empty when null is written
NEVER_NULL = ("integer", "float", "monetary", "boolean", *TO_MANY)


def nullable(schema):
    """Let a schema match null as well.

    :param dict schema: a JSON Schema
    :rtype: dict
    """
    if not schema or "null" in schema.get("type", ()):
        return schema
    if not isinstance(schema.get("type"), str):
        return {"anyOf": [*schema.get("anyOf", [schema]), {"type": "null"}]}
    result = schema | {"type": [schema["type"], "null"]}
    return result | {"enum": [*schema["enum"], None]} if "enum" in schema else result


def not_null(schema):
    """Undo :func:`nullable` for a plain value.

    :param dict schema: the JSON Schema of a value that is neither object nor list
    :rtype: dict
    """
    if not isinstance(schema.get("type"), list):
        return schema
    result = schema | {"type": schema["type"][0]}
    return result | {"enum": [value for value in schema["enum"] if value is not None]} if "enum" in schema else result


def place(root, path, schema, required=False):
    """Put a property into an object, a dotted key into objects inside of it.

    :param dict root: the schema of an object
    :param tuple path: the parts of the key
    :param dict schema: the property
    :param bool required: whether the object is not complete without
    """
    for depth, part in enumerate(path):
        properties = root.setdefault("properties", {})
        if required and part not in root.setdefault("required", []):
            root["required"].append(part)
        root = properties.setdefault(part, {"type": "object"} if depth < len(path) - 1 else schema)


def close(schema):
    """Let an object, and those that its dotted keys make, have no other keys.

    :param dict schema: the JSON Schema of an object; it is changed
    """
    schema["additionalProperties"] = False
    for part in schema["properties"].values():
        if "properties" in part:
            close(part)


def example(schema, components, writing=False):
    """Make up a value that a schema describes; what may be missing and has none, such as a dry run's changes, is.

    :param dict schema: a JSON Schema
    :param dict components: the Components Object, with the schemas it refers to
    :param bool writing: leave out what is read only
    :return: a JSON value
    """
    own, schema = schema, resolve(schema, components)
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return example(schema[key][0], components, writing)
    if "const" in schema:
        return schema["const"]
    if "properties" in schema:
        parts = own.get("properties", {}) | schema["properties"]  # a reference may require more
        values = {
            key: example(part, components, writing)
            for key, part in parts.items()
            if not (writing and part.get("readOnly"))
        }
        return {key: value for key, value in values.items() if value is not None or key in schema.get("required", ())}
    if "items" in schema:
        value = example(schema["items"], components, writing)
        return value if value is None else [value]
    return schema.get("title", "text") if "string" in schema.get("type", ()) else None


def describe_type(schema):
    """Name the type of a schema in a few words, such as ``string (date) | null``.

    :param dict schema: a JSON Schema
    :rtype: str
    """
    if "$ref" in schema:
        return "object"
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return " | ".join(dict.fromkeys(describe_type(part) for part in schema[key]))
    types = schema.get("type", "any")
    types = [types] if isinstance(types, str) else types
    detail = schema.get("format") if schema.get("format") not in ("int32", "double") else None
    texts = [f"{name} ({detail})" if detail and name != "null" else name for name in types]
    if "array" in types:
        texts = [f"list of {describe_type(schema['items'])}" if name == "array" else name for name in texts]
    return " | ".join(texts)


def rows(schema, components, prefix=""):
    """List the properties of an object and of the objects in it, as the rows of a table.

    :param dict schema: the JSON Schema of an object, or of what may be one
    :param dict components: the Components Object, with the schemas it refers to
    :param str prefix: the key of the object, with a dot behind
    :return: key, type, schema, required
    :rtype: list[tuple[str, str, dict, bool]]
    """
    target = resolve(schema, components)
    for part in target.get("oneOf") or target.get("anyOf") or ():
        if found := rows(part, components, prefix):
            return found
    if "items" in target:
        return rows(target["items"], components, prefix)
    needed = {*schema.get("required", ()), *target.get("required", ())}  # a reference may require more
    result = []
    for key, part in target.get("properties", {}).items():
        result.append((f"{prefix}{key}", describe_type(part), part, key in needed))
        result += rows(part, components, f"{prefix}{key}.")
    return result
