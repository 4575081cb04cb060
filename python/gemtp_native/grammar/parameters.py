"""The rules of a grammar for the arguments of a function, made from its parameters."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .flat_schema import ANNOTATIONS, BOUNDS, TYPE_OF, Flattener, NeverError, type_name
from .pattern import FORMATS, PatternError, contained, excluded

_MOST_CHARACTERS = 30_000_000
DEEPEST = 60
"""Most brackets that are open at once: readers of calls, and of messages with calls, stop at 64."""

# Keys without quotes, as text/tool_call.cc reads them.
_KEY_EDGE = r"""[^\s:,{}\[\]"'\x00-\x20\x7f]"""
_KEY = rf"""{_KEY_EDGE}([^:,{{}}\[\]"'\x00-\x1f\x7f]{{0,62}}{_KEY_EDGE})?"""
_BARE = re.compile(_KEY.replace("{0,62}", "*"))


def shared_rules(quote: int) -> Iterator[tuple[str, str]]:
    """Yields the rules, name and body, to which those of arguments refer. quote: the token."""
    yield "quote", f"<[{quote}]>"
    yield "integer", "/-?(0|[1-9][0-9]{0,63})/"
    yield "number", r"/-?(0|[1-9][0-9]{0,63})(\.[0-9]{1,64})?([eE][+-]?[0-9]{1,2})?/"
    yield "TEXT", "/(?s:.)*/"
    yield "KEY", f"/{_KEY}/"
    yield "text", "quote TEXT quote"
    yield "scalar", 'text | number | "true" | "false" | "null"'
    # Values of any kind, by the number of brackets that are open around them.
    for depth in range(DEEPEST):
        yield f"any{depth}", f"scalar | object{depth} | array{depth}"
        yield f"object{depth}", f'"{{" (member{depth} ("," member{depth})*)? "}}"'
        yield f"member{depth}", f'KEY ":" any{depth + 1}'
        yield f"array{depth}", f'"[" (any{depth + 1} ("," any{depth + 1})*)? "]"'
    yield f"any{DEEPEST}", "scalar"


class Parameters:
    """Writes the rules.

    Args:
        schema: the parameters, as they are declared.
        name: the function.
        strict: whether a keyword that no grammar can follow is an error.
        rules: where the rules are put.
        prefix: the beginning of their names.
    """

    def __init__(self, schema: Any, name: str, strict: bool, rules: dict[str, str], prefix: str):
        self._schema = schema
        self._flattener = Flattener(schema, name, strict)
        self._rules = rules
        self._prefix = prefix
        # The rule of a schema, as JSON, and of the depth where it stands; None: it has no values.
        self._known: dict[tuple[str, int], str | None] = {}
        self._depth = 0  # brackets that are open
        self._characters = 0

    @property
    def ignored(self) -> set[str]:
        """Keywords that the rules do not follow."""
        return self._flattener.ignored

    def arguments(self) -> str:
        """Returns the rule of the arguments."""
        parameters = self._schema
        if parameters in (None, {}, []):
            return '"{" "}"'
        if not isinstance(parameters, dict):
            raise self._flattener.error("are no object; pass a JSON schema")
        try:
            closed = "additionalProperties" not in parameters
            return self._value({"allOf": [parameters, {"type": "object"}]}, closed)
        except NeverError:
            raise self._flattener.error("are satisfied by no object") from None

    def _rule(self, body: str) -> str:
        """A rule of its own, for what would otherwise be written several times."""
        name = f"{self._prefix}{len(self._rules)}"
        self._rules[name] = body
        return name

    # ------------------------------------------------------------ any schema

    def _value(self, schema: Any, closed: bool = False) -> str:
        """Returns the rule of a schema. closed: an object has only the properties that it lists."""
        schema = self._flattener.checked(schema)
        if not schema:
            return f"any{self._depth}"
        text = json.dumps(schema)
        self._characters += len(text)
        if self._characters > _MOST_CHARACTERS:
            raise self._flattener.error("are too large, with all that they refer to; simplify them")
        key = (text, self._depth)
        if key in self._known:
            known = self._known[key]
            if known is None:
                raise NeverError
            return known
        name = self._known[key] = self._rule("")
        try:
            self._rules[name] = self._body(schema, closed)
        except NeverError:
            self._rules[name] = '"null"'  # nobody refers to it
            self._known[key] = None
            raise
        return name

    def _body(self, schema: dict[str, Any], closed: bool) -> str:
        rest = {key for key in schema if key not in ANNOTATIONS}
        if rest == {"$ref"}:
            return self._value(self._flattener.target(schema["$ref"]))
        flat = self._flattener.flat(schema)
        nullable = flat.pop("nullable", False) is True
        try:
            body = self._alternatives(flat, closed)
        except NeverError:
            if not nullable:
                raise
            return '"null"'
        return f'{body} | "null"' if nullable else body

    def _alternatives(self, flat: dict[str, Any], closed: bool) -> str:
        if "enum" in flat:
            return self._one_of(flat)
        if "anyOf" in flat:
            rest = {key: value for key, value in flat.items() if key != "anyOf"}
            whole = [{"allOf": [rest, a]} if rest else a for a in flat["anyOf"]]
            return self._either(lambda schema: self._value(schema, closed), whole)
        if types := self._types(flat):
            return self._either(lambda name: self._of_type(name, flat, closed), types)
        return f"any{self._depth}"

    def _either(self, written: Callable[[Any], str], choices: Iterable[Any]) -> str:
        out = []
        for choice in choices:
            try:
                out.append(written(choice))
            except NeverError:
                continue
        if not out:
            raise NeverError
        return " | ".join(dict.fromkeys(out))

    def _types(self, flat: Mapping[str, Any]) -> list[str]:
        """Names of the types; of a schema without a type, those that its keywords are about."""
        given = flat.get("type")
        if given is None:
            return list(dict.fromkeys(TYPE_OF[key] for key in flat if key in TYPE_OF))
        return [t for t in given if not (t == "integer" and "number" in given)]

    def _of_type(self, name: str, flat: dict[str, Any], closed: bool) -> str:
        if name == "object":
            return self._object(flat, closed)
        if name == "array":
            return self._array(flat)
        if name == "string":
            return self._string(flat)
        if name == "boolean":
            return '"true" | "false"'
        return '"null"' if name == "null" else self._number(name, flat)

    # ------------------------------------------------------------ scalars

    def _one_of(self, flat: dict[str, Any]) -> str:
        others = [k for k in flat if k in TYPE_OF or k == "anyOf"]
        checked = ("minLength", "maxLength", *BOUNDS[:4])
        for key in others:
            if key not in checked:
                self._flattener.ignore(key, "beside an enum")
        values = [v for v in flat["enum"] if _fits(v, flat)]
        if not values:
            raise NeverError
        return " | ".join(dict.fromkeys(map(self._constant, values)))

    def _constant(self, value: Any) -> str:
        if isinstance(value, str):
            return f"quote {literal(value)} quote" if value else "quote quote"
        if isinstance(value, dict):
            members = [f"{self._key(key)} {self._constant(item)}" for key, item in value.items()]
            return f'"{{" {_listed(members)} "}}"'
        if isinstance(value, list):
            return f'"[" {_listed(map(self._constant, value))} "]"'
        return literal(json.dumps(value))

    def _number(self, name: str, flat: Mapping[str, Any]) -> str:
        bounds = {key: flat[key] for key in BOUNDS if key in flat}
        if not bounds:
            return name
        schema = {"type": name, **bounds, "x-guidance": {"whitespace_flexible": False}}
        return self._rule(f"%json {json.dumps(schema)}")

    def _string(self, flat: Mapping[str, Any]) -> str:
        least, most = self._counts(flat, "minLength", "maxLength")
        parts = []
        for pattern in flat.get("pattern", ()):
            try:
                parts.append(contained(pattern))
            except PatternError as e:
                self._flattener.ignore("pattern", str(e))
        if "format" in flat:
            parts.append(FORMATS[flat["format"]])
        if least or most < math.inf:
            parts.append(f"(?s:.){_times(least, most)}")
        if not parts:
            return "text"
        terminal = f"{self._prefix.upper()}T{len(self._rules)}"
        self._rules[terminal] = " & ".join(f"/{part}/" for part in parts)
        return f"quote {terminal} quote"

    def _counts(self, flat: Mapping[str, Any], low: str, high: str) -> tuple[int, float]:
        """Returns the least and the most; without a bound, infinity."""
        least, most = flat.get(low, 0), flat.get(high, math.inf)
        if least > most:
            raise NeverError
        return int(least), most

    # ------------------------------------------------------------ arrays and objects

    def _below(self, schema: Any, *steps: str) -> str:
        """Returns the rule of a schema inside an array or object."""
        if self._depth == DEEPEST:
            raise NeverError
        length = len(self._flattener.path)
        self._flattener.path += [step.replace("~", "~0").replace("/", "~1") for step in steps]
        self._depth += 1
        try:
            return self._value(schema)
        finally:
            self._depth -= 1
            del self._flattener.path[length:]

    def _array(self, flat: Mapping[str, Any]) -> str:
        least, most = self._counts(flat, "minItems", "maxItems")
        first, rest = flat.get("prefixItems", []), flat.get("items", True)
        items: list[str] = []
        try:
            for i, part in enumerate(first[: int(min(most, len(first)))]):
                items.append(self._below(part, "prefixItems", str(i)))
            item = self._below(rest, "items")
        except NeverError:  # it can go no further
            item = ""
            most = min(most, len(items))
        if least > most:
            raise NeverError
        if most == 0:
            return '"[" "]"'
        needed = max(least - len(items), 0)
        left = most - len(items)
        more = ""
        if item and left > 0:
            if items:
                more = _more(item, needed, left)
            else:
                more = f"{item} {_more(item, max(needed - 1, 0), left - 1)}"
                more = f"({more})?" if not needed else more
        for i in reversed(range(len(items))):
            part = f"{self._comma(i)}{items[i]} {more}"
            more = part if i < least else f"({part})?"
            if i % 20 == 19:  # brackets are not nested too deeply
                more = self._rule(more)
        return f'"[" {more} "]"'

    @staticmethod
    def _comma(place: int) -> str:
        return '"," ' if place else ""

    def _key(self, name: str) -> str:
        if _BARE.fullmatch(name):
            return literal(f"{name}:")
        return f'quote {literal(name)} quote ":"' if name else 'quote quote ":"'

    def _object(self, flat: Mapping[str, Any], closed: bool) -> str:
        properties = flat.get("properties", {})
        required = flat.get("required", [])
        extra = flat.get("additionalProperties", flat.get("unevaluatedProperties"))
        patterns = flat.get("patternProperties", {})
        properties = {**properties}
        for name in required:
            if name not in properties:
                properties[name] = True if extra is None else extra
        if extra is None:
            extra = not (properties or patterns or closed)
        properties, extra = self._named(flat, properties, extra)
        members = {}
        for name, part in properties.items():
            try:
                value = self._below(part, "properties", name)
                members[name] = f"{self._key(name)} {value}"
            except NeverError:
                if name in required:
                    raise
        others = self._others(flat, extra, [*properties])
        least, most = self._counts(flat, "minProperties", "maxProperties")
        if most < len(members) or (most < math.inf and members and others):
            self._flattener.ignore("maxProperties")
        if least > max(len(required), 1):
            self._flattener.ignore("minProperties")
        if not members:
            if not others or most == 0:
                if least:
                    raise NeverError
                return '"{" "}"'
            more = f"{others} {_more(others, 0, most - 1)}"
            return f'"{{" {more} "}}"' if least else f'"{{" ({more})? "}}"'
        orders = dict.fromkeys([(*members,), (*sorted(members, key=str.lower),)])
        chains = [self._chain([(members[n], n in required) for n in o], others) for o in orders]
        some = "" if required or least else "?"
        return f'"{{" ({" | ".join(chains)}){some} "}}"'

    def _named(
        self, flat: Mapping[str, Any], properties: dict[str, Any], extra: Any
    ) -> tuple[dict[str, Any], Any]:
        """Returns properties and additionalProperties under an enum of `propertyNames`."""
        names = flat.get("propertyNames")
        if names is None or names is True or extra is False:
            return properties, extra
        known = self._flattener.flat(names)
        if "enum" in known and not properties and "patternProperties" not in flat:
            return {n: extra for n in known["enum"] if isinstance(n, str)}, False
        if {*known} - {"type"}:
            self._flattener.ignore("propertyNames")
        return properties, extra

    def _others(self, flat: Mapping[str, Any], extra: Any, names: list[str]) -> str:
        """Returns the rule of a member that is not listed; "" if there can be none."""
        patterns = flat.get("patternProperties", {})
        if patterns and names:
            self._flattener.ignore("patternProperties", "beside properties")
            patterns = {}
        try:
            keys = {pattern: contained(pattern) for pattern in patterns}
        except PatternError as e:
            self._flattener.ignore("patternProperties", str(e))
            keys = {}
        out = []
        for pattern, part in [*((p, patterns[p]) for p in keys), (None, extra)]:
            try:
                value = self._below(part, "additionalProperties")
            except NeverError:
                continue
            parts = ["KEY", *(f"~/{key}/" for p, key in keys.items() if p != pattern)]
            parts += [f"/{keys[pattern]}/"] if pattern is not None else []
            parts += [f"~/{excluded(names)}/"] if names else []
            terminal = f"{self._prefix.upper()}K{len(self._rules)}"
            self._rules[terminal] = " & ".join(parts)
            out.append(f'{terminal} ":" {value}')
        return self._rule(" | ".join(out)) if out else ""

    def _chain(self, members: list[tuple[str, bool]], others: str) -> str:
        """Returns one or more members in their order, each if it is required or else perhaps, then
        others."""
        more = _more(others, 0, math.inf) if others else ""
        begins: list[str] = []
        for member, required in reversed(members):
            more = self._rule(more) if more.count(" ") > 1 else more
            if required:
                begins = []
            begins.append(f"{member} {more}")
            more = f'"," {member} {more}' if required else f'("," {member})? {more}'
        if others and not any(required for _, required in members):
            begins.insert(0, f"{others} {_more(others, 0, math.inf)}")
        return " | ".join(reversed(begins))


def spelled(value: Any, quote: str) -> str:
    """Returns a value in the format of calls, with keys in the order in which templates have them.
    quote: stands for the quote token."""
    if isinstance(value, str):
        return f"{quote}{value}{quote}"
    if isinstance(value, Mapping):
        names = sorted(value, key=str.lower)
        keys = [name if _BARE.fullmatch(name) else spelled(name, quote) for name in names]
        members = zip(keys, names, strict=True)
        return f"{{{','.join(f'{key}:{spelled(value[name], quote)}' for key, name in members)}}}"
    if isinstance(value, list):
        return f"[{','.join(spelled(item, quote) for item in value)}]"
    return json.dumps(value)


def literal(text: str) -> str:
    """Returns a text as a grammar has it."""
    return json.dumps(text)


def _times(least: int, most: float) -> str:
    return f"{{{least},{'' if most == math.inf else int(most)}}}"


def _more(item: str, least: int, most: float) -> str:
    """Returns further items of a list."""
    return f'("," {item}){_times(least, most)}' if most > 0 else ""


def _listed(items: Iterable[str]) -> str:
    return ' "," '.join(items)


def _fits(value: Any, flat: Mapping[str, Any]) -> bool:
    """Whether a value has the type, the length and the size that stand beside its enum."""
    types = flat.get("type")
    name = type_name(value)
    if types and name not in types and not (name == "integer" and "number" in types):
        return False
    if name == "string":
        return bool(flat.get("minLength", 0) <= len(value) <= flat.get("maxLength", math.inf))
    if name not in ("integer", "number"):
        return True
    return bool(
        flat.get("minimum", -math.inf) <= value <= flat.get("maximum", math.inf)
        and flat.get("exclusiveMinimum", -math.inf) < value < flat.get("exclusiveMaximum", math.inf)
    )
