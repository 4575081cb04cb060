"""JSON schemas without references and without schemas that are put together, as grammars need them.

A flat schema has no $ref, allOf, oneOf, const, annotations and booleans of old drafts: "type" and
"pattern" are lists, and whatever is said twice is said once. Its parts need not be flat.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import ArgumentError
from .pattern import FORMATS
from .schema import resolved

MOST_SCHEMAS = 20_000  # of a function, with all that is made of allOf and anyOf
_MOST_REFERENCES = 100  # that lead to each other
_MOST_SHOWN = 100  # characters
_MOST_ALTERNATIVES = 200  # of two anyOf at once

ANNOTATIONS = frozenset(
    ("title", "description", "default", "examples", "example", "deprecated", "readOnly")
    + ("writeOnly", "$schema", "$id", "$comment", "$defs", "definitions", "$anchor", "$vocabulary")
    + ("discriminator", "xml", "externalDocs", "contentEncoding", "contentMediaType")
    + ("contentSchema", "id", "name", "strict")
)
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
TYPE_OF = {
    **dict.fromkeys(("properties", "required", "additionalProperties", "patternProperties",
                     "propertyNames", "minProperties", "maxProperties",
                     "unevaluatedProperties"), "object"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "unevaluatedItems"), "array"),
    **dict.fromkeys(("pattern", "format", "minLength", "maxLength"), "string"),
    **dict.fromkeys(BOUNDS, "number"),
}  # fmt: skip
"""The type that a keyword is about."""
_UNSUPPORTED = frozenset(
    ("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems")
    + ("dependentRequired", "dependencies", "dependentSchemas", "$dynamicRef", "$recursiveRef")
)
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


class NeverError(Exception):
    """No value satisfies a schema."""


class Flattener:
    """Flattens the schemas in the parameters of a function.

    Args:
        root: the parameters.
        name: the function.
        strict: a keyword that no grammar can follow is an error; otherwise it is left out and
            added to `ignored`.
    """

    def __init__(self, root: dict[str, Any], name: str, strict: bool):
        self._root = root
        self._name = name
        self._strict = strict
        self._count = 0
        self.path: list[str] = []
        """Where the schema stands that is being read, for sentences."""
        self.ignored: set[str] = set()

    def error(self, what: str) -> ArgumentError:
        place = "/".join(self.path)
        place = place if len(place) <= _MOST_SHOWN else f"{place[:_MOST_SHOWN]}..."
        at = f" at /{place}" if place else ""
        return ArgumentError(f"the parameters of the function {self._name!r}{at} {what}")

    def ignore(self, keyword: str, because: str = "") -> None:
        if self._strict:
            why = f" ({because})" if because else ""
            raise self.error(
                f'have "{keyword}", which a strict call cannot be held to{why}; leave it out, or '
                '"strict"'
            )
        self.ignored.add(f'"{keyword}"')

    def checked(self, schema: Any) -> dict[str, Any]:
        """Returns a schema that is not a boolean."""
        if schema is False:
            raise NeverError
        if schema is True:
            return {}
        if not isinstance(schema, dict):
            raise self.error(f"have {json.dumps(schema)[:40]} where a schema has to be")
        self._count += 1
        if self._count > MOST_SCHEMAS:
            raise self.error("are too many schemas, with all that they refer to; simplify them")
        return schema

    def target(self, ref: Any) -> Any:
        found = resolved(self._root, ref) if isinstance(ref, str) else None
        if found is None:
            raise self.error(
                f'refer to {json.dumps(ref)[:60]}, which is not among them; put it into "$defs"'
            )
        return found

    def flat(self, schema: Any, depth: int = 0) -> dict[str, Any]:
        """Returns the schema without $ref, allOf, oneOf, const and annotations."""
        if depth > _MOST_REFERENCES:
            raise self.error("refer to each other too deeply; make them simpler")
        out: dict[str, Any] = {}
        parts = []
        for key, value in _modern(self.checked(schema)).items():
            if key in ANNOTATIONS or key.startswith("x-"):
                continue
            if key == "$ref":
                parts.append(self.target(value))
            elif key == "allOf":
                parts += self._list(key, value)
            elif key in _UNSUPPORTED:
                if value is not False:
                    self.ignore(key)
            else:
                for plain, wanted in self._plain(key, value).items():
                    there = plain in out
                    out[plain] = self._merged(plain, out[plain], wanted) if there else wanted
        for part in parts:
            out = self._both(out, self.flat(part, depth + 1))
        return out

    def _list(self, key: str, value: Any) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise self.error(f'have a "{key}" that is not a list of schemas')
        return value

    def _plain(self, key: str, value: Any) -> dict[str, Any]:
        """Returns a keyword in the form of flat schemas."""
        self._check(key, value)
        if key == "const":
            return {"enum": [value]}
        if key == "type":
            return {"type": self._type_names(value)}
        if key == "anyOf":
            return {"anyOf": self._list(key, value)}
        if key == "oneOf":
            choices = self._list(key, value)
            if not self._apart(choices):
                self.ignore(key, "its alternatives overlap; write anyOf")
            return {"anyOf": choices}
        if key == "pattern":
            return {"pattern": value if isinstance(value, list) else [value]}
        known = not isinstance(value, str) or value in FORMATS
        if (key == "format" and not known) or (key == "required" and isinstance(value, bool)):
            return {}
        return {key: value}

    def _check(self, key: str, value: Any) -> None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if key in BOUNDS and not number:
            raise self.error(f'have a "{key}" that is no number')
        if re.fullmatch("(min|max)(Length|Items|Properties)", key) and not (
            number and value == value // 1 >= 0
        ):
            raise self.error(f'have a "{key}" that is no whole number')
        if key in ("properties", "patternProperties") and not isinstance(value, dict):
            raise self.error(f'have "{key}" that are no object')
        if key in ("enum", "prefixItems") and not isinstance(value, list):
            raise self.error(f'have a "{key}" that is no list')
        names = isinstance(value, list) and all(isinstance(name, str) for name in value)
        if key == "required" and not (names or isinstance(value, bool)):
            raise self.error('have a "required" that is no list of names')
        if key == "format" and not isinstance(value, str):
            raise self.error('have a "format" that is no text')

    def _type_names(self, value: Any) -> list[str]:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self.error("have a type that is no name; write it as text")
        lower = [name.lower() for name in names]
        for name in lower:
            if name not in _TYPES:
                raise self.error(f"have the type {name[:40]!r}, which JSON schema does not know")
        return lower

    def _both(self, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
        """Returns the schema of what satisfies two of them, both flat."""
        if not a or not b:
            return {**a, **b}
        out = {**a, **b}
        for key in a:
            if key in b and a[key] != b[key]:
                out[key] = self._merged(key, a[key], b[key])
        if "properties" in out:
            names = dict.fromkeys([*a.get("properties", {}), *b.get("properties", {})])
            out["properties"] = {n: both_of(member(a, n), member(b, n)) for n in names}
        return out

    def _merged(self, key: str, a: Any, b: Any) -> Any:
        if key in ("properties", "required", "pattern"):
            return a if key == "properties" else list(dict.fromkeys([*a, *b]))
        if key == "type":
            both = [t for t in a if t in b or (t == "integer" and "number" in b)]
            both += [t for t in b if t == "integer" and "number" in a]
            if not both:
                raise NeverError
            return list(dict.fromkeys(both))
        if key == "enum":
            texts = [json.dumps(value, sort_keys=True) for value in b]
            return [value for value in a if json.dumps(value, sort_keys=True) in texts]
        if key == "anyOf":
            if len(a) * len(b) > _MOST_ALTERNATIVES:
                raise self.error('have too many alternatives in "anyOf" at once')
            return [{"allOf": [x, y]} for x in a for y in b]
        if key in ("items", "additionalProperties", "additionalItems", "unevaluatedProperties"):
            return both_of(a, b)
        if key == "nullable":
            return a is True and b is True
        numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
        if numbers and re.match("min|exclusiveMin", key):
            return max(a, b)
        if numbers and re.match("max|exclusiveMax", key):
            return min(a, b)
        if key == "multipleOf" and isinstance(a, int) and isinstance(b, int) and a > 0 and b > 0:
            return math.lcm(a, b)
        if key not in TYPE_OF:
            return a  # no keyword of JSON schema
        self.ignore(key, "it is given twice, by allOf or beside $ref")
        return a

    def _apart(self, choices: list[Any]) -> bool:
        """Whether it is plain to see that no value satisfies two of the schemas."""
        if len(choices) > 100:
            return False
        flat = [self.flat(choice) for choice in choices]
        return all(self._differ(flat[i], flat[j]) for i in range(len(flat)) for j in range(i))

    def _differ(self, a: dict[str, Any], b: dict[str, Any], depth: int = 0) -> bool:
        try:
            both = self._both(a, b)
        except NeverError:
            return True
        if both.get("enum", True) == []:
            return True
        types_a, types_b = ({*self._known_types(x)} for x in (a, b))
        if types_a and types_b and not types_a & types_b:
            return True
        if depth > 3 or types_a != {"object"}:
            return False
        shared = {*a.get("required", ())} & {*b.get("required", ())}
        members = [(member(a, name), member(b, name)) for name in shared]
        return any(self._differ(self.flat(x), self.flat(y), depth + 1) for x, y in members)

    def _known_types(self, flat: Mapping[str, Any]) -> list[str]:
        """Types that a value can only have, with "number" for both kinds of numbers."""
        names = flat.get("type") or [type_name(v) for v in flat.get("enum", ())]
        names = ["number" if name == "integer" else name for name in names]
        return [*names, "null"] if flat.get("nullable") is True and names else names


def _modern(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns what old drafts say in the words of the latest one."""
    out = {**schema}
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(out.get(exclusive), bool):
            excludes = out.pop(exclusive)
            if excludes and bound in out:
                out[exclusive] = out.pop(bound)
    if isinstance(out.get("items"), list):
        out["prefixItems"] = out.pop("items")
        if "additionalItems" in out:
            out["items"] = out["additionalItems"]
    out.pop("additionalItems", None)
    return out


def both_of(a: Any, b: Any) -> Any:
    """Returns the schema of what satisfies two of them."""
    if a is False or b is False:
        return False
    if a in (True, {}) or a == b:
        return b
    return a if b in (True, {}) else {"allOf": [a, b]}


def member(flat: Mapping[str, Any], name: str) -> Any:
    """Returns the schema of an object's member."""
    return flat.get("properties", {}).get(name, flat.get("additionalProperties", True))


def type_name(value: Any) -> str:
    """Returns the type of a value, "integer" for whole numbers."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "integer" if value == value // 1 else "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"
