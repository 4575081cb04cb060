"""Random parameters of functions, many of them odd, and random calls under a grammar."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

_NAMES = [*(f"p{i}" for i in range(6)), "k e", "Z"]
_VALUES: list[Any] = ["a", "b", 1, 2, None, True, "c d", [1], {"x": 1}]


class ParametersMaker:
    def __init__(self, seed: int):
        self._random = random.Random(seed)

    def make(self) -> dict[str, Any]:
        out = self._object(0)
        out["$defs"] = {name: self._schema(1) for name in ("a", "b")}
        return out

    def _maybe(self, share: float, **members: Any) -> dict[str, Any]:
        return members if self._random.random() < share else {}

    def _scalar(self) -> Any:
        r = self._random
        low, high = r.randint(-5, 5), r.randint(6, 20)
        return r.choice(
            [
                {"type": "integer", **self._maybe(0.5, minimum=low), **self._maybe(0.5, maximum=9)},
                {"type": "number", **self._maybe(0.5, exclusiveMinimum=low, maximum=high)},
                {"type": "string", **self._maybe(0.5, minLength=low % 3), "maxLength": 2 + low % 4},
                {
                    "type": r.sample(["string", "integer", "null", "boolean", "number"], 2),
                    "maxLength": 4,
                    "maximum": 9,
                    "minimum": -2,
                },
                {"enum": r.sample(_VALUES, r.randint(1, 4))},
                {"const": r.choice(_VALUES)},
                {
                    "type": "string",
                    "pattern": r.choice(["^a+$", "b", "^x|y$", r"^\d{2,3}$"]),
                    "maxLength": 6,
                },
                True,
                {"type": "boolean"},
            ]
        )

    def _schema(self, depth: int) -> Any:
        r = self._random
        share = r.random()
        if depth > 3 or share < 0.3:
            return self._scalar()
        below = [self._schema(depth + 1) for _ in range(r.randint(1, 3))]
        if share < 0.5:
            return self._object(depth)
        if share < 0.6:
            bounds = self._maybe(0.4, minItems=r.randint(0, 2))
            return {"type": "array", "items": below[0], "maxItems": r.randint(0, 3), **bounds}
        if share < 0.65:
            rest = r.choice([False, True, self._scalar()])
            return {"type": "array", "prefixItems": below, "items": rest, "maxItems": 4}
        if share < 0.75:
            beside: Any = r.choice([{}, {"type": "object"}, {"maximum": 7}, {"maxLength": 3}])
            return {"anyOf": below, **beside}
        if share < 0.8:
            return {"oneOf": below}
        if share < 0.9:
            parts = [self._object(depth + 1), self._object(depth + 1)]
            return {"allOf": r.choice([below[:2], parts]), **self._maybe(0.3, maximum=5)}
        beside = r.choice([{}, {"description": "x"}, {"maximum": 6}, {"required": ["p0"]}])
        return {"$ref": r.choice(["#/$defs/a", "#/$defs/b", "#"]), **beside}

    def _object(self, depth: int) -> dict[str, Any]:
        r = self._random
        names = r.sample(_NAMES, r.randint(0, 4))
        more = r.choice([False, True, self._scalar()])
        return {
            **self._maybe(0.8, type="object"),
            "properties": {name: self._schema(depth + 1) for name in names},
            **self._maybe(0.7, required=r.sample(names, r.randint(0, len(names)))),
            **self._maybe(0.1, required=["p0"]),
            **self._maybe(0.5, additionalProperties=more),
            **self._maybe(0.1, minProperties=r.randint(0, 3)),
            **self._maybe(0.1, maxProperties=r.randint(0, 5)),
            **self._maybe(0.1, patternProperties={"^p": self._scalar()}),
        }


def random_tokens(matcher: Any, seed: int, closing: Collection[int], most: int) -> list[int]:
    """Returns tokens that follow a grammar to its end; fewer than that after `most`. closing:
    tokens that are preferred at times, so that texts end."""
    r = random.Random(seed)
    out: list[int] = []
    while len(out) < most and not matcher.is_stopped():
        mask = matcher.compute_bitmask()
        allowed = [
            8 * i + bit for i, byte in enumerate(mask) for bit in range(8) if byte >> bit & 1
        ]
        preferred = [token for token in allowed if token in closing]
        out.append(r.choice(preferred if preferred and r.random() < 0.35 else allowed))
        assert matcher.consume_token(out[-1]), matcher.get_error()
    return out
