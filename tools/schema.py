"""JSON Schema (draft 2020-12, the dialect of OpenAPI 3.1) of what ``codec`` makes of each field type, and of shapes."""

from .codec import INT4, TO_MANY

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
    "one2many": {"type": "array", "items": ID},
    "many2many": {"type": "array", "items": ID},
    "reference": {"type": "string", "pattern": r"^[a-z_][a-z0-9_.]*,[0-9]+$", "examples": ["res.partner,7"]},
}
#: what is never null when it is read, and becomes zero or empty when null is written
NEVER_NULL = ("integer", "float", "monetary", "boolean", *TO_MANY)


def nullable(schema):
    """Let a schema match null as well.

    :param dict schema: a JSON Schema
    :rtype: dict
    """
    if not schema:
        return schema
    if schema.get("type") == "null" or "null" in schema.get("type", ()):
        return schema
    if isinstance(schema.get("type"), str):
        result = schema | {"type": [schema["type"], "null"]}
        return result | {"enum": [*schema["enum"], None]} if "enum" in schema else result
    if "anyOf" in schema:
        return schema | {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]}


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
        if required:
            root.setdefault("required", [])
            if part not in root["required"]:
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


def example(schema, schemas, writing=False):
    """Make up a value that a schema describes.

    :param dict schema: a JSON Schema
    :param dict schemas: those it refers to, by name
    :param bool writing: leave out what is read only
    :return: a JSON value
    """
    if "$ref" in schema:
        return example(schemas[schema["$ref"].rpartition("/")[2]], schemas, writing)
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return example(schema[key][0], schemas, writing)
    if "const" in schema:
        return schema["const"]
    if "properties" in schema:
        parts = schema["properties"].items()
        return {key: example(part, schemas, writing) for key, part in parts if not (writing and part.get("readOnly"))}
    if "items" in schema:
        return [example(schema["items"], schemas, writing)]
    return schema.get("title", "text") if "string" in schema.get("type", ()) else None


def name_items(part):
    """Tell how lists are written in XML: an element around elements named ``item`` (OpenAPI 3.1.1, section 4.8.26).

    :param part: a document, or a part of it
    :return: the same with ``xml`` in the schemas of lists
    """
    if isinstance(part, list):
        return [name_items(value) for value in part]
    if not isinstance(part, dict):
        return part
    result = {key: name_items(value) for key, value in part.items()}
    if part.get("type") in ("array", ["array", "null"]):
        result |= {"items": result["items"] | {"xml": {"name": "item"}}, "xml": {"wrapped": True}}
    return result


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


def rows(schema, schemas, prefix=""):
    """List the properties of an object and of the objects in it, as the rows of a table.

    :param dict schema: the JSON Schema of an object, or of what may be one
    :param dict schemas: those it refers to, by name
    :param str prefix: the key of the object, with a dot behind
    :return: key, type, schema, required
    :rtype: list[tuple[str, str, dict, bool]]
    """
    result = []
    needed = set(schema.get("required", ()))
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
        needed |= set(schema.get("required", ()))
    for key in ("oneOf", "anyOf"):
        for part in schema.get(key, ()):
            if found := rows(part, schemas, prefix):
                return found
    if "items" in schema:
        return rows(schema["items"], schemas, prefix)
    for key, part in schema.get("properties", {}).items():
        result.append((f"{prefix}{key}", describe_type(part), part, key in needed))
        result += rows(part, schemas, f"{prefix}{key}.")
    return result
