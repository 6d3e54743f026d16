"""The compiled form of a configuration, and the sets of data the engine works on."""

from dataclasses import dataclass, field, replace
from itertools import repeat

from .codec import TO_MANY


class _Absent:
    """The key is not in the payload: the field is left alone."""

    def __bool__(self):
        return False

    def __repr__(self):
        return "ABSENT"


ABSENT = _Absent()


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One configuration line. ``field_name`` is empty for a script without field."""

    id: int
    config_id: int
    label: str
    key: str
    path: tuple
    field_name: str
    field_type: str
    digits: int | None
    #: the most characters a text can have, None if any number
    size: int | None
    value_type: str
    is_identifier: bool
    #: whether the field's name tells that its values must not be logged
    is_secret: bool
    #: whether the database holds the value as it is: no ORM is needed to read it
    is_column: bool
    mapping: "Plan | None"
    relation_output: str
    relation_policy: str
    remove_missing: bool
    script_mode: str
    script: str
    #: whether the script makes the value when records are read
    script_on_read: bool
    response_key: str

    def item_path(self, position):
        """Return the path of one item of the value, which is a list where the relation is one."""
        return (*self.path, position) if self.field_type in TO_MANY else self.path

    @property
    def keys(self):
        """The keys that stand for the line: its own, and those of the objects it is in, ``address`` first."""
        return [".".join(self.path[:depth]) for depth in range(1, len(self.path) + 1)]

    def fault(self, message):
        """Describe what is wrong with the line's value, as :class:`BadPayload` has it."""
        return {"pointer": to_pointer(self.path), "message": message, "line_id": self.id}

    @property
    def is_exec(self):
        """Whether the line runs code without assigning a value."""
        return bool(self.script) and self.script_mode == "exec"


@dataclass(frozen=True, slots=True)
class Plan:
    """One configuration: immutable, cached until any configuration changes."""

    config_id: int
    model: str
    filter_domain: str
    lines: tuple
    exec_lines: tuple
    identifier: PlanLine | None
    #: ``in`` or ``out``: that of the configuration at the top
    direction: str
    strict: bool
    #: (path, known keys) of the objects that dotted keys lead into, the payload itself first
    objects: tuple
    #: those whose fields are written with what is answered
    answer_lines: tuple
    #: whether callers archive and restore records: then identifiers find archived ones as well
    maps_active: bool
    #: whether a line is secret, here or further down
    has_secrets: bool
    #: whether there is a filter domain, here or further down
    is_filtered: bool

    def select(self, keys):
        """Keep only the lines of some keys: ``address`` is all of ``address.*``.

        :param keys: external keys
        :type keys: Collection[str]
        :rtype: Plan
        """
        wanted = set(keys)
        return replace(self, lines=tuple(line for line in self.lines if not wanted.isdisjoint(line.keys)))

    def as_object(self, item):
        """Give a bare identifier the shape of an object."""
        if isinstance(item, dict) or not self.identifier:
            return item
        for part in reversed(self.identifier.path):
            item = {part: item}
        return item


@dataclass(slots=True)
class Batch:
    """The payloads of one level: those of the request, or all nested ones below one line.

    ``items`` tells which item of the request each payload belongs to, ``pointers`` where in it. ``errors`` has the
    faults of each item of the request, so that the good items can go on.
    """

    payloads: list
    pointers: list
    items: list
    errors: dict = field(default_factory=dict)
    #: nested payloads: which object of the level above each one is in
    parents: list = field(default_factory=list)
    #: nested payloads: the indices of those that were sent as bare identifiers
    bare: set = field(default_factory=set)

    @classmethod
    def of(cls, payloads, items=None):
        """Make the batch of a request.

        :param list payloads: JSON objects
        :param items: their indices in the request, when they are not all of it
        :rtype: Batch
        """
        items = list(range(len(payloads))) if items is None else items
        return cls(payloads, [""] * len(payloads), items)

    def column(self, path):
        """Return one raw value per payload, ABSENT where the key is not there.

        :param tuple path: the parts of an external key
        :rtype: list
        """
        if len(path) == 1:
            key = path[0]
            return [payload.get(key, ABSENT) for payload in self.payloads]
        return [self._walk(payload, path) for payload in self.payloads]

    def subset(self, indices):
        """Return the batch of some payloads; it notes faults in the same place."""
        return Batch(
            [self.payloads[index] for index in indices],
            [self.pointers[index] for index in indices],
            [self.items[index] for index in indices],
            self.errors,
            [self.parents[index] for index in indices] if self.parents else [],
        )

    def quiet(self):
        """Return the same batch; faults noted in it are forgotten."""
        return replace(self, errors={})

    def fault(self, index, path, message, line_id=None, status=400):
        """Note a fault of the payload at ``index``, the first one of each place.

        :param int index: which payload
        :param tuple path: where in it
        :param str message: what was expected, for the person who sent it
        :param int line_id: the configuration line
        :param int status: the HTTP status an item with this fault is answered with
        """
        faults, pointer = self.errors.setdefault(self.items[index], []), self.pointer(index, path)
        if all(fault["pointer"] != pointer for fault in faults):  # what follows from a fault is none itself
            faults.append({"pointer": pointer, "message": message, "line_id": line_id, "status": status})

    def pointer(self, index, path):
        """Return the JSON pointer of a path in the payload at ``index``; a bare identifier has nothing in it."""
        if index in self.bare:
            return self.pointers[index]
        return self.pointers[index] + to_pointer(path)

    @staticmethod
    def _walk(payload, path):
        for part in path:
            if payload is None:  # null clears all that would be in the object
                return None
            if not isinstance(payload, dict) or part not in payload:
                return ABSENT
            payload = payload[part]
        return payload


@dataclass(slots=True)
class Row:
    """One payload on its way into one record."""

    plan: Plan
    item: int
    #: the identifier, None if the payload has none
    key: object = None
    #: the values to write: ORM values, or Rows and Links not stored yet
    vals: dict = field(default_factory=dict)
    #: the matched record, later the stored one; 0 as long as there is none
    record_id: int = 0
    created: bool = False
    stored: bool = False
    #: why the record stays as it is: a conflict
    kept: str = ""

    @property
    def place(self):
        """What tells its record from others: its id, its identifier, or that it is a new one."""
        if self.record_id or self.key is None:
            return self.record_id or id(self)
        return self.plan.model, self.plan.identifier.field_name, self.key

    def merge(self, later):
        """Take the values of a later row of the same record: they count, but lines of a one2many come together."""
        for name, value in later.vals.items():
            known = self.vals.get(name)
            are_links = isinstance(known, Links) and isinstance(value, Links)
            if are_links and value.kind == "one2many" and not value.remove_missing:
                known.add(value.targets)
            else:
                self.vals[name] = value


@dataclass(slots=True)
class Links:
    """The value of a relation whose records may have to be stored first.

    :param list targets: ids and Rows
    :param str kind: ``many2one``, ``many2many`` or ``one2many``
    :param bool remove_missing: whether other children are removed (one2many)
    """

    targets: list
    kind: str
    remove_missing: bool = False

    @property
    def rows(self):
        """The targets that are rows."""
        return [target for target in self.targets if isinstance(target, Row)]

    def add(self, targets):
        """Link more records; those that are linked already are merged."""
        known = {row.place: row for row in self.rows}
        for target in targets:
            if isinstance(target, Row) and target.place in known:
                known[target.place].merge(target)
            else:
                self.targets.append(target)


def to_pointer(path):
    """Write a path as JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def list_objects(paths):
    """Return the objects that paths lead into, as (path, known keys); the payload itself may have an ``id`` too.

    :param paths: the paths of all keys
    :type paths: Iterable[tuple]
    :rtype: tuple[tuple[tuple, frozenset]]
    """
    objects = {(): {"id"}}
    for path in paths:
        for depth, part in enumerate(path):
            objects.setdefault(path[:depth], set()).add(part)
    return tuple((path, frozenset(keys)) for path, keys in objects.items())


def build_objects(keys_by_column, columns, count):
    """Put columns together to objects, nesting the dotted keys.

    :param keys_by_column: one path per column
    :type keys_by_column: Sequence[tuple]
    :param columns: lists of ``count`` values
    :type columns: Sequence[list]
    :return: ``count`` objects
    :rtype: list[dict]
    """
    if not columns:
        return [{} for _ in range(count)]
    if all(len(path) == 1 for path in keys_by_column):
        keys = [path[0] for path in keys_by_column]
        return list(map(dict, map(zip, repeat(keys), zip(*columns, strict=True))))  # without a loop in Python
    objects = []
    for row in zip(*columns, strict=True):
        result = {}
        for path, value in zip(keys_by_column, row, strict=True):
            target = result
            for part in path[:-1]:
                target = target.setdefault(part, {})
            target[path[-1]] = value
        objects.append(result)
    return objects


def flatten(data, prefix=""):
    """Return an object with the keys of its nested objects as dotted keys."""
    result = {}
    for key, value in data.items():
        if isinstance(value, dict):
            result |= flatten(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


@dataclass(frozen=True, slots=True)
class Param:
    """A configured query parameter."""

    key: str
    field_name: str
    field_type: str
    operator: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What serving an inbound configuration needs; of the secrets that callers must know, digests."""

    config_id: int
    name: str
    model: str
    methods: tuple
    authorization_type: str
    #: the digests of the credentials of the authorization type, in the order it defines; empty where there is no secret
    credentials: tuple
    #: (name, digest of the value) of the headers a request must have
    required_headers: tuple
    #: (name, value) of the headers every answer has
    answer_headers: tuple
    signing_style: str
    #: encrypted
    signing_secrets: tuple
    #: the limits: what is empty or 0 is not limited, and costs nothing; bytes
    max_body_size: int
    #: requests per minute
    rate_limit: int
    networks: tuple
    cors_origins: frozenset
    user_id: int
    company_id: int
    limit: int
    page_size: int
    is_paginated: bool
    params: dict
    record_id_type: str
    existing_policy: str
    delete_policy: str
    all_or_nothing: bool
    tracking_disable: bool

    @property
    def is_locked(self):
        """Whether nobody can come in, because a secret is empty or cannot be decrypted."""
        return not all((*self.credentials, *(expected for _name, expected in self.required_headers)))


@dataclass(frozen=True, slots=True)
class Operation:
    """One request, free of HTTP objects.

    :param str method: GET, POST, PUT, PATCH or DELETE
    :param str record_ref: the record in the path, empty for the whole collection
    :param dict args: the query parameters: name -> list of texts
    :param payload: the parsed body, None if there was none
    :param matches: tells whether a representation is the one the caller knows; None if the caller does not care
    :param bool dry_run: whether the changes are to be told, field by field
    """

    method: str
    record_ref: str = ""
    args: dict = field(default_factory=dict)
    payload: object = None
    matches: object = None
    dry_run: bool = False

    @property
    def is_list(self):
        """Whether the body is a list of items, of which some may fail."""
        return isinstance(self.payload, list)

    @property
    def items(self):
        """The items of the body, be it a list of them or a single one."""
        return self.payload if self.is_list else [self.payload]


@dataclass(slots=True)
class Answer:
    """What an operation answers, free of HTTP objects.

    ``location`` is the reference of a created record below the endpoint, ``links`` are the query parameters
    of the pages around a list, ``record_ids`` are the records concerned.
    """

    status: int
    body: dict
    headers: dict = field(default_factory=dict)
    location: str = ""
    links: dict = field(default_factory=dict)
    record_ids: tuple = ()
