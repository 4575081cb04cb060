"""Parameters of functions that calls can be held to, all of them with short texts."""

from __future__ import annotations

from typing import Any

WORD = {"type": "string", "maxLength": 12}
SHORT = {"type": "string", "pattern": "^[a-z]{1,4}$"}
INTEGER = {"type": "integer", "minimum": -9, "maximum": 99}


def of(name: str, schema: Any, *, required: bool = True, **more: Any) -> dict[str, Any]:
    """Parameters with one property."""
    out = {"type": "object", "properties": {name: schema}, "additionalProperties": False, **more}
    return {**out, "required": [name]} if required else out


def objects(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*required], **more}


_NODE = objects(
    {"value": INTEGER, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "value"
)
_TREE = objects(
    {"name": SHORT, "children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}}, "name"
)
_CAT = objects({"kind": {"const": "cat"}, "lives": INTEGER}, "kind", "lives")
_DOG = objects({"kind": {"const": "dog"}, "name": WORD}, "kind")

SCHEMAS: dict[str, Any] = {
    "none": None,
    "empty": {},
    "object": {"type": "object"},
    "no properties": {"type": "object", "properties": {}},
    "string": of("city", WORD),
    "empty string": of("a", {"type": "string", "maxLength": 0}),
    "exact length": of("a", {"type": "string", "minLength": 7, "maxLength": 7}),
    "pattern": of("zip", {"type": "string", "pattern": "^[0-9]{5}(-[0-9]{4})?$"}),
    "loose pattern": of("a", {"type": "string", "pattern": "b/c|^x", "maxLength": 9}),
    "pattern with classes": of("a", {"type": "string", "pattern": r"^\w[\w.-]{1,6}\d\s?\/$"}),
    "pattern and length": of("a", {"type": "string", "pattern": "^[ab]+$", "maxLength": 5}),
    "date": of("a", {"type": "string", "format": "date"}),
    "date-time": of("a", {"type": "string", "format": "date-time"}),
    "time": of("a", {"type": "string", "format": "time"}),
    "duration": of("a", {"type": "string", "format": "duration", "maxLength": 12}),
    "email": of("a", {"type": "string", "format": "email", "maxLength": 30}),
    "hostname": of("a", {"type": "string", "format": "hostname", "maxLength": 30}),
    "ipv4": of("a", {"type": "string", "format": "ipv4"}),
    "ipv6": of("a", {"type": "string", "format": "ipv6"}),
    "uuid": of("a", {"type": "string", "format": "uuid"}),
    "uri": of("a", {"type": "string", "format": "uri", "maxLength": 40}),
    "unknown format": of("a", {"type": "string", "format": "color", "maxLength": 7}),
    "integer": of("n", {"type": "integer", "minimum": -(10**9), "maximum": 10**9}),
    "positive": of("n", {"type": "integer", "exclusiveMinimum": 0, "maximum": 1000}),
    "multiple": of("n", {"type": "integer", "multipleOf": 5, "minimum": 5, "maximum": 500}),
    "number": of("n", {"type": "number", "minimum": 0, "exclusiveMaximum": 1}),
    "negative": of("n", {"type": "number", "maximum": -0.5, "minimum": -4.25}),
    "boolean": of("on", {"type": "boolean"}),
    "null": of("a", {"type": "null"}),
    "types": of("a", {"type": ["integer", "null", "boolean"], "minimum": 0, "maximum": 9}),
    "enum": of("unit", {"type": "string", "enum": ["celsius", "fahrenheit"]}),
    "mixed enum": of("a", {"enum": ["a b", "", 'say "x", {y}', 3, -0.5, True, None, [{"k": "v"}]]}),
    "const": of("a", {"const": {"b": ["<|\"|>", 1e22], "a:b": "é\n"}}),
    "filtered enum": of("a", {"type": "integer", "enum": ["a", 1, 20, 3.5], "maximum": 9}),
    "numbers of an enum": of("a", {"type": "number", "enum": [1, 12, 123, 1.5]}),
    "optional": objects({"a": INTEGER, "b": {"type": "boolean"}, "c": SHORT}),
    "some required": objects({"z": INTEGER, "m": SHORT, "a": {"type": "boolean"}}, "m"),
    "all required": objects({"z": INTEGER, "m": SHORT, "A": {"type": "null"}}, "z", "m", "A"),
    "nested": of("at", objects({"lat": INTEGER, "lon": INTEGER}, "lat", "lon")),
    "deep": of("a", of("b", of("c", of("d", INTEGER)))),
    "array": of("a", {"type": "array", "items": INTEGER, "minItems": 1, "maxItems": 4}),
    "array of one": of("a", {"type": "array", "items": WORD, "minItems": 1, "maxItems": 1}),
    "no items": of("a", {"type": "array", "maxItems": 0}),
    "tuple": of("a", {"type": "array", "prefixItems": [INTEGER, SHORT], "items": False,
                      "minItems": 2}),
    "tuple and more": of("a", {"type": "array", "prefixItems": [INTEGER, SHORT],
                               "items": {"type": "boolean"}, "minItems": 1, "maxItems": 4}),
    "arrays of arrays": of("a", {"type": "array", "maxItems": 3, "items":
                                 {"type": "array", "items": INTEGER, "maxItems": 2}}),
    "objects in an array": of("a", {"type": "array", "maxItems": 2, "items":
                                    objects({"x": INTEGER, "y": SHORT}, "y")}),
    "anyOf": of("a", {"anyOf": [INTEGER, SHORT, {"type": "null"}]}),
    "anyOf beside keywords": of("a", {"type": "string", "maxLength": 5, "anyOf": [
        {"pattern": "^a"}, {"pattern": "z$", "minLength": 2}]}),
    "anyOf of objects": {"type": "object", "properties": {"a": INTEGER, "b": SHORT},
                         "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    "oneOf": of("pet", {"oneOf": [_CAT, _DOG]}),
    "oneOf of types": of("a", {"oneOf": [INTEGER, {"type": "array", "items": INTEGER,
                                                   "maxItems": 2}]}),
    "allOf": of("a", {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]}),
    "allOf of objects": {"allOf": [objects({"a": INTEGER}, "a"),
                                   objects({"b": SHORT, "a": {"maximum": 5}}, "b")]},
    "$ref": of("a", {"$ref": "#/$defs/x"}, **{"$defs": {"x": INTEGER}}),
    "$ref beside keywords": of("a", {"$ref": "#/definitions/x~1y", "maximum": 3},
                               definitions={"x/y": INTEGER}),
    "list": of("a", {"$ref": "#/$defs/node"}, **{"$defs": {"node": _NODE}}),
    "tree": _TREE,
    "map": of("a", {"type": "object", "additionalProperties": INTEGER, "maxProperties": 3}),
    "map of at least one": of("a", {"type": "object", "additionalProperties": {"type": "boolean"},
                                    "minProperties": 1, "maxProperties": 2}),
    "map of patterns": of("a", {"type": "object", "patternProperties": {"^x": INTEGER, "y$": SHORT},
                                "additionalProperties": False, "maxProperties": 2}),
    "map of names": of("a", {"type": "object", "propertyNames": {"enum": ["p", "q"]},
                             "additionalProperties": INTEGER}),
    "nullable": of("a", {"$ref": "#/$defs/x"}, **{"$defs": {"x": {"type": ["string", "null"],
                                                                  "maxLength": 3}}}),
    "odd names": objects({"a b": INTEGER, "c:d": SHORT, "": {"type": "null"}, "é{": INTEGER,
                          '"q"': INTEGER, "quote": INTEGER}, "a b", "c:d", "", "é{", '"q"'),
    "required but not listed": objects({"a": INTEGER}, "a", "b", additionalProperties=SHORT),
    "impossible option": objects({"a": INTEGER, "b": False, "c": {"enum": []}}, "a"),
    "bounds of an old schema": of("n", {"type": "integer", "minimum": 0, "exclusiveMaximum": 5}),
    "many": objects({f"p{i}": INTEGER for i in range(30)}, *(f"p{i}" for i in range(0, 30, 2))),
    "unevaluated": {"allOf": [objects({"a": INTEGER}, "a")], "properties": {"b": SHORT},
                    "unevaluatedProperties": False},
}  # fmt: skip
