"""Schemas, patterns and grammars that overwhelm a compiler: small texts, large results.

``python grammar_bombs.py [WORDS]`` compiles each as the server would, and prints the cost.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

from gemtp_native.grammar.schema import FORMATS

Bomb = tuple[str, str, str]
"""Name; "json_schema", "regex" or "grammar"; the text."""

SIZES = (1000, 100_000, 10_000_000)
COUNTS = (100, 2000, 20_000)
DEPTHS = (5, 10, 20, 40)
CLASSES = ["L", "N", "P", "S", "Z", "Lu", "Ll", "Greek", "Cyrillic", "Han", "Arabic"]


def bombs() -> Iterator[Bomb]:
    for group in (_repetitions, _bounds, _nests, _lists, _chains, _products, _classes, _numbers):
        yield from group()
    for at, schemas in ((_SELVES, "self"), (_SINGLE, "single")):
        for name, schema in at.items():
            yield f"{schemas}-{name}", "json_schema", json.dumps(schema)


def _regexes(**texts: str) -> Iterator[Bomb]:
    return ((name, "regex", text) for name, text in texts.items())


def _schemas(**schemas: Any) -> Iterator[Bomb]:
    return ((name, "json_schema", json.dumps(schema)) for name, schema in schemas.items())


def _grammars(**texts: str) -> Iterator[Bomb]:
    return ((name, "grammar", text) for name, text in texts.items())


def _named(group: Iterator[Bomb], size: int) -> Iterator[Bomb]:
    return ((f"{name}-{size}", kind, text) for name, kind, text in group)


def _repetitions() -> Iterator[Bomb]:
    for n in SIZES:
        yield from _named(
            _regexes(
                some=f"a{{1,{n}}}",
                exact=f"(ab|cd){{{n}}}",
                words=f"\\w{{0,{n}}}",
                dots=f"(.*a){{{n}}}",
            ),
            n,
        )
        yield from _named(
            _grammars(
                rule=f'start: ("a" | "b" start){{{n}}}', terminal=f"start: A\nA: /[ab]/{{{n}}}"
            ),
            n,
        )


def _bounds() -> Iterator[Bomb]:
    text = {"type": "string"}
    for n in SIZES:
        pattern = {**text, "pattern": "^[a-z]+@[a-z]+$", "minLength": n // 2, "maxLength": n}
        item = {"type": "object", "properties": {"a": text}}
        yield from _named(
            _schemas(
                longest={**text, "maxLength": n},
                shortest={**text, "minLength": n},
                pattern_and_length=pattern,
                min_items={"type": "array", "minItems": n, "items": {"type": "integer"}},
                max_items={"type": "array", "maxItems": n, "items": item},
                multiple={"type": "integer", "multipleOf": n},
                between={"type": "integer", "minimum": -n * 7919, "maximum": n * 7907},
                min_members={"type": "object", "additionalProperties": text, "minProperties": n},
            ),
            n,
        )


def _nests() -> Iterator[Bomb]:
    for k in (2, 3, 4, 5, 6, 8, 12):
        yield from _named(
            _regexes(
                nested="(" * k + "a" + "{1,10})" * k,
                stars="(" * k + "a" + "*)+" * k,
                nested_classes="(" * k + "[a-z]" + "{10})" * k,
            ),
            k,
        )
    yield from _regexes(
        brackets="(" * 90 + ")" * 90,
        empty="(){1000000}",
        options="(a?){5000}a{5000}",
        fewer_options="(a?){500}a{500}",
        states_20="(a|b)*a(a|b){20}",
        states_200="(a|b)*a(a|b){200}",
        two_places="(?:.*a.{20}b.*)(?:.*c.{20}d.*)",
        ahead="(?=a)b",
        behind="(?<!a)b",
        back="(a)\\1",
        endless="a{999999999999}",
        backwards="a{5,2}",
    )


def _lists() -> Iterator[Bomb]:
    text, number = {"type": "string"}, {"type": "integer"}

    def members(n: int, **more: Any) -> dict[str, Any]:
        return {"type": "object", "properties": {f"p{i}": text for i in range(n)}, **more}

    def of(name: str, n: int, part: Callable[[int], Any]) -> dict[str, Any]:
        return {name: [part(i) for i in range(n)]}

    def letter(i: int) -> str:
        return chr(97 + i % 26)

    for n in COUNTS:
        yield from _named(
            _schemas(
                texts={"enum": [f"value number {i * 7919 % 1000003}" for i in range(n)]},
                numbers={"enum": list(range(n))},
                required=members(n, required=[f"p{i}" for i in range(n)]),
                optional=members(n),
                any_of=of("anyOf", n, lambda i: members(1, required=["p0"], title=str(i))),
                any_named=of(
                    "anyOf",
                    n,
                    lambda i: {
                        "type": "object",
                        "properties": {f"k{i}": number},
                        "required": [f"k{i}"],
                    },
                ),
                any_pattern=of(
                    "anyOf", n, lambda i: {**text, "pattern": f"^a*b{{{i % 50}}}[{letter(i)}-z]+$"}
                ),
                one_of=of(
                    "oneOf", n, lambda i: {"properties": {"t": {"const": i}}, "required": ["t"]}
                ),
                all_of=of("allOf", n, lambda i: {"properties": {f"k{i}": number}}),
                all_pattern=of(
                    "allOf", min(n, 2000), lambda i: {**text, "pattern": f".*{letter(i)}.*"}
                ),
                patterns={
                    "type": "object",
                    "patternProperties": {f"^a{i}.*$": number for i in range(n)},
                },
                items={"type": "array", "prefixItems": [number] * n},
                constant={"const": "x" * n * 10},
            ),
            n,
        )
        yield from _named(
            _regexes(
                words="|".join(f"word{i * 7919 % 1000003}" for i in range(n)),
                word_lists="(" + "|".join(f"w{i}" for i in range(n)) + "){1,20}",
                literal="a" * n * 10,
            ),
            n,
        )


def _chains() -> Iterator[Bomb]:
    for n in COUNTS:
        last = {f"d{n}": {"type": "null"}}
        member = {
            f"d{i}": {
                "type": "object",
                "properties": {"n": {"$ref": f"#/$defs/d{i + 1}"}},
                "required": ["n"],
            }
            for i in range(n)
        }
        plain = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(n)}
        rules = "\n".join(f'r{i}: "x" r{i + 1} | "y" r{i * 7 % n}' for i in range(n))
        choices = " | ".join("start start" if i % 2 else '"a"' for i in range(min(n, 4000)))
        yield from _named(
            _schemas(
                chain={"$defs": {**member, **last}, "$ref": "#/$defs/d0"},
                references={"$defs": {**plain, **last}, "$ref": "#/$defs/d0"},
            ),
            n,
        )
        yield from _named(
            _grammars(rules=f'start: r0\n{rules}\nr{n}: "z"', ambiguous=f"start: {choices}"), n
        )
    deep: Any = {"type": "integer"}
    for _ in range(95):
        deep = {"type": "array", "items": deep}
    yield from _schemas(deep=deep)


def _products() -> Iterator[Bomb]:
    def object_of(name: str) -> dict[str, Any]:
        kind = {"type": "integer"}
        return {"type": "object", "properties": {name: kind}, "required": [name]}

    for k in DEPTHS:

        def doubled(part: Callable[[Any], Any], k: int = k) -> dict[str, Any]:
            defs = {f"d{i}": part({"$ref": f"#/$defs/d{i + 1}"}) for i in range(k)}
            return {"$defs": {**defs, f"d{k}": {"type": "string"}}, "$ref": "#/$defs/d0"}

        pairs = [{"anyOf": [object_of(f"a{i}"), object_of(f"b{i}")]} for i in range(k)]
        kinds = [
            {
                "oneOf": [
                    {"type": "string", "pattern": f"^.*a{i}.*$"},
                    {"type": "integer", "minimum": i},
                ]
            }
            for i in range(k)
        ]
        ten = {"type": "array", "minItems": 10, "maxItems": 10}
        yield from _named(
            _schemas(
                twice=doubled(lambda d: {"type": "object", "properties": {"l": d, "r": d}}),
                all_twice=doubled(lambda d: {"allOf": [d, d]}),
                any_twice=doubled(lambda d: {"anyOf": [d, d]}),
                pairs={"allOf": pairs},
                kinds={"allOf": kinds},
                arrays=reduce(lambda s, _: {**ten, "items": s}, range(k), {"type": "integer"}),
            ),
            k,
        )
        rules = "\n".join(f"a{i}: a{i + 1} a{i + 1}" for i in range(k))
        terminals = "\n".join(f"A{i}: A{i + 1} A{i + 1}" for i in range(k))
        both = " & ".join(f"/(.*x.{{{i}}}y.*)/" for i in range(k))
        yield from _named(
            _grammars(
                rules_twice=f'start: a0\n{rules}\na{k}: "x"',
                terminals_twice=f"start: A0\n{terminals}\nA{k}: /[ab]/",
                both=f"start: A\nA: {both}",
                neither=f"start: A\nA: ~/(.*x.{{{k}}}y.*)/ & /[xy]{{1,{k * 10}}}/",
            ),
            k,
        )


def _classes() -> Iterator[Bomb]:
    yield from _regexes(
        letters=r"\p{L}{1,5000}",
        no_letters=r"[^\p{L}\p{N}]{0,3000}x",
        cases="(?i)" + "ſßẞKÅ" * 500,
        many_classes="|".join(rf"\p{{{c}}}+" for c in CLASSES) * 40,
        large_class="[" + "".join(chr(0x100 + i * 3) for i in range(10000)) + "]{100}",
    )


def _numbers() -> Iterator[Bomb]:
    most = 1.7976931348623157e308
    yield from _schemas(
        tiny_step={"type": "number", "multipleOf": 0.000001},
        step_and_range={
            "type": "number",
            "multipleOf": 0.0001,
            "minimum": 0.12345,
            "maximum": 98765.4,
        },
        three_steps={"allOf": [{"type": "integer", "multipleOf": m} for m in (997, 991, 983)]},
        all_floats={"type": "number", "minimum": -most, "maximum": most},
        long_range={"type": "integer", "minimum": -(10**300), "maximum": 10**300},
    )


_A = {"$ref": "#/$defs/a"}
_SELVES: dict[str, Any] = {
    "itself": {"$ref": "#"},
    "two": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": _A}, **_A},
    "all": {"$defs": {"a": {"allOf": [_A, {"type": "object"}]}}, **_A},
    "any": {"$defs": {"a": {"anyOf": [_A, _A]}}, **_A},
    "member": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "items": {"type": "array", "items": {"$ref": "#"}, "minItems": 2},
}
"""No finite text follows any of these."""

_MEMBER = {"type": "object", "properties": {f"r{k}": {"type": "string"} for k in range(10)}}
_SINGLE: dict[str, Any] = {
    "tree": {"type": "array", "items": {"$ref": "#"}},
    "long_pattern": {
        "type": "string",
        "pattern": "^(a+b+){1,50}$",
        "minLength": 500,
        "maxLength": 5000,
    },
    "pattern_and_format": {"type": "string", "pattern": ".*a.{30}b.*", "format": "uri"},
    "formats": {"properties": {f: {"type": "string", "format": f} for f in sorted(FORMATS)}},
    "wide": {
        "properties": {
            f"p{i}": {"type": "object", "properties": {f"q{j}": _MEMBER for j in range(10)}}
            for i in range(30)
        }
    },
    "dependent": {"dependentRequired": {f"a{i}": [f"a{i + 1}"] for i in range(500)}},
}


def main() -> None:
    import gemtp_native as gemtp
    from gemtp_native.grammar import Grammars, source_of, trial

    model = gemtp.Model(gemtp.demo_models()[0], threads=1, context=256)
    grammars = Grammars()
    grammars.constraint(model._engine, source_of(regex="a"))
    before = most = trial.memory()
    longest, count = 0.0, 0
    for name, kind, text in bombs():
        if sys.argv[1:] and not any(word in name for word in sys.argv[1:]):
            continue
        begin, said = time.perf_counter(), "compiled"
        try:
            grammars.constraint(model._engine, source_of(**{kind: text}))
        except gemtp.ArgumentError as e:
            said = str(e)
        took = time.perf_counter() - begin
        most, longest, count = max(most, trial.memory()), max(longest, took), count + 1
        print(f"{name:28} {took:6.2f} s  {said[:100]}", flush=True)
    grown = (most - before) >> 20
    print(f"{count} bombs: at most {longest:.2f} s for one, and {grown} MiB more than before")


if __name__ == "__main__":
    main()
