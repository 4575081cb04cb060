"""Runs Jinja templates of strangers: jinja2's sandbox, with bounds on time, memory and output.

A template sees plain data and a list of filters, functions and methods. Whatever repeats work
(loops, macros, filters, calls) looks at the clock, and whatever makes a value pays for its size
before it is made, so that no template can keep a processor or fill the memory.
"""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import update_wrapper
from typing import Any, cast

import jinja2
from jinja2 import filters, nodes
from jinja2.exceptions import SecurityError, TemplateError, UndefinedError
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from ..errors import ArgumentError, ModelError

SECONDS = 5.0
MAX_OUTPUT = 16_000_000
"""Characters of one rendering."""
MAX_SOURCE = 1_000_000
MAX_WORK = 128_000_000
"""Characters, and 64 for every other element, of all values that a rendering makes."""
MAX_ITEMS = 100_000
"""Of a list that a filter makes; jinja2's own limit for range()."""
MAX_BITS = 4096
"""Of a whole number."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILTERS = _names(
    "abs attr capitalize count d default dictsort first float format groupby indent int items join "
    "last length list lower map max min reject rejectattr replace reverse round safe select "
    "selectattr sort string sum title trim truncate unique upper wordcount"
)
_METHODS: dict[type, frozenset[str]] = {
    str: _names(
        "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit "
        "islower isnumeric isspace istitle isupper join lower lstrip partition removeprefix "
        "removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines startswith "
        "strip swapcase title upper"
    ),
    dict: _names("get items keys values"),
    list: _names("count index"),
    tuple: _names("count index"),
}
_LOOP = _names(
    "changed cycle depth depth0 first index index0 last length nextitem previtem revindex revindex0"
)


class TemplateLimitError(Exception):
    """What a template did that it may not; the end of a sentence."""


class TemplateRefusal(Exception):
    """raise_exception() of a template: its own words about the messages."""


class _Meter:
    """What one rendering may still spend."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.work = MAX_WORK

    def tick(self) -> None:
        if time.monotonic() > self.deadline:
            raise TemplateLimitError(f"takes longer than {self.seconds:g} seconds")

    def pay(self, amount: int) -> None:
        self.work -= amount
        if self.work < 0:
            raise TemplateLimitError("makes values that are too large")

    def pay_for(self, value: Any) -> None:
        """Every part counts as often as it would be printed."""
        if isinstance(value, str):
            self.pay(len(value))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self.pay(64)
                self.pay_for(key)
                self.pay_for(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                self.pay(64)
                self.pay_for(item)


_meter: ContextVar[_Meter | None] = ContextVar("gemtp_template_meter", default=None)


def _now() -> _Meter:
    """Of the rendering that goes on; constants are folded outside of one."""
    return _meter.get() or _Meter(SECONDS)


def _made(value: Any) -> Any:
    meter = _now()
    meter.tick()
    meter.pay_for(value)
    return value


def _each(values: Any) -> Iterator[Any]:
    meter = _now()
    for value in values:
        meter.tick()
        yield value


def _concatenated(values: Iterable[Any]) -> str:
    return _joined("", values)


def _joined(separator: str, values: Iterable[Any]) -> str:
    parts = [_text(value) for value in values]
    _now().pay(sum(map(len, parts)) + len(separator) * len(parts))
    return separator.join(parts)


def _text(value: Any) -> str:
    """str(), for a price where that can be long."""
    if not isinstance(value, (str, int, float, bool, type(None), Undefined)):
        _made(value)
    return str(value)


def _check_replace(text: str, old: str, new: str) -> None:
    count = text.count(old) if old else len(text) + 1
    _now().pay(len(text) + count * len(new))


# What may stand in a format string: no width or precision that makes a long text of a short one.
_WIDE = re.compile(r"%[^a-zA-Z%]*(\*|[0-9]{4})")


def _check_format(template: str) -> None:
    if _WIDE.search(template):
        raise TemplateLimitError("formats with a width that is too large")


def _check_number(value: Any, bound: int = MAX_ITEMS) -> None:
    if isinstance(value, (int, float)) and not -bound <= value <= bound:
        raise TemplateLimitError(f"passes the number {str(value)[:20]}, which is too large")


def _check_items(value: Any) -> None:
    if isinstance(value, (str, list, tuple, dict)) and len(value) > MAX_ITEMS:
        raise TemplateLimitError(f"takes apart a value of {len(value)} parts")


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "-", "*", "**", "%"))
    concat = staticmethod(_concatenated)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, methods in _METHODS.items():
            if isinstance(obj, kind):
                return attr in methods
        if isinstance(obj, LoopContext):
            return attr in _LOOP
        return isinstance(obj, Namespace) and not attr.startswith("_")

    def wrap_str_format(self, value: Any) -> None:
        """str.format is not among the methods."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _now().tick()
        if isinstance(left, str) and operator == "%":
            _check_format(left)
            _made(right)
        elif isinstance(left, (str, list, tuple)) and operator == "+":
            _made(left)
            _made(right)
        elif operator == "*":
            for value, times in ((left, right), (right, left)):
                if isinstance(value, (str, list, tuple)) and isinstance(times, int):
                    meter = _now()
                    if times > 0:
                        meter.pay(times)
                        before = meter.work
                        meter.pay_for(value)
                        meter.pay((before - meter.work) * times)
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length()
            size = bits * max(right, 1) if operator == "**" else bits + right.bit_length()
            if size > MAX_BITS:
                raise TemplateLimitError("computes with numbers that are too large")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805
        _now().tick()
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            if name == "join" and args:
                args = (list(_each(args[0])),)
                _joined(owner, args[0])
            elif name == "replace" and len(args) > 1:
                _check_replace(owner, str(args[0]), str(args[1]))
            result = super().call(__context, __obj, *args, **kwargs)
            if isinstance(result, list):
                _check_items(result)
        else:
            result = super().call(__context, __obj, *args, **kwargs)
        return _made(result)


class _Namespace(Namespace):
    """Keeps no private names, and does not print what it holds."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        Namespace.__init__(self, *args, **kwargs)
        for name in dict(*args, **kwargs):
            _check_name(name)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"the name {name!r} is private")


class _Metered(NodeTransformer):
    """Puts the meter where jinja2 has no hook: loops, literals and the operator ~."""

    @staticmethod
    def _through(name: str, node: nodes.Expr) -> nodes.Filter:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)

    def visit_For(self, node: nodes.For, *args: Any) -> nodes.Node:
        self.generic_visit(node, *args)
        if not isinstance(node.iter, nodes.Filter) or node.iter.name != "_each":
            node.iter = self._through("_each", node.iter)  # type: ignore[arg-type]
        return node

    def visit_Concat(self, node: nodes.Concat, *args: Any) -> nodes.Node:
        self.generic_visit(node, *args)
        return self._through("_concatenated", nodes.List(node.nodes, lineno=node.lineno))

    def _literal(self, node: Any, *args: Any) -> nodes.Node:
        self.generic_visit(node, *args)
        constant = all(isinstance(child, nodes.Const) for child in node.iter_child_nodes())
        if constant or getattr(node, "ctx", "load") != "load":
            return node  # type: ignore[no-any-return]
        return self._through("_made", node)

    visit_List = visit_Tuple = visit_Dict = _literal


class _Generation(Extension):
    """{% generation %} marks what a model writes, for training; here its body is all it is."""

    tags = {"generation"}

    def parse(self, parser: Any) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)  # type: ignore[no-any-return]


def _metered(function: Callable[..., Any], check: Callable[..., None] | None) -> Callable[..., Any]:
    """A filter or test that looks at the clock and pays for what it makes."""
    passed = getattr(function, "jinja_pass_arg", None) is not None

    def call(*args: Any, **kwargs: Any) -> Any:
        own = args[1:] if passed else args
        _now().tick()
        if check is not None:
            check(*own, **kwargs)
        return _made(function(*args, **kwargs))

    if isinstance(function, type) or not hasattr(function, "__name__"):
        return call
    return update_wrapper(call, function)


def _check_arguments(value: Any, *args: Any, **kwargs: Any) -> None:
    _check_items(value)
    for argument in (*args, *kwargs.values()):
        _check_number(argument)


def _check_sum(value: Any, attribute: Any = None, start: Any = 0) -> None:
    _check_items(value)
    if not isinstance(start, (int, float)):
        raise TemplateLimitError("sums what are not numbers")


def _check_round(value: Any, precision: Any = 0, *args: Any) -> None:
    _check_number(precision, 100)


def _check_int(value: Any, *args: Any, **kwargs: Any) -> None:
    if isinstance(value, str) and len(value) > 1000:
        raise TemplateLimitError("computes with numbers that are too large")


def _check_text(value: Any, *args: Any, **kwargs: Any) -> None:
    _text(value)
    for argument in (*args, *kwargs.values()):
        _check_number(argument, 1000)


def _indent(value: str, width: Any = 4, *args: Any, **kwargs: Any) -> None:
    _check_number(width, 100)
    size = len(width) if isinstance(width, str) else int(width)
    _now().pay((value.count("\n") + 1) * size)


def _replace_check(value: Any, old: Any, new: Any, count: Any = None) -> None:
    _check_replace(_text(value), str(old), str(new))


def _format_check(value: Any, *args: Any, **kwargs: Any) -> None:
    _check_format(str(value))
    _made(list(args))


_TEXT = _names("capitalize lower string title trim truncate upper wordcount")
_CHECKS: dict[str, Callable[..., None] | None] = {
    **dict.fromkeys(_FILTERS, _check_arguments),
    **dict.fromkeys(_TEXT, _check_text),
    **dict.fromkeys(("count", "length", "default", "d", "first", "last", "abs")),
    "sum": _check_sum,
    "round": _check_round,
    "int": _check_int,
    "indent": _indent,
    "replace": _replace_check,
    "format": _format_check,
}


@jinja2.pass_eval_context
def _join(context: Any, value: Any, d: Any = "", attribute: Any = None) -> str:
    if attribute is not None:
        get = filters.make_attrgetter(context.environment, attribute)
        value = (get(item) for item in value)
    return _joined(str(d), _each(value))


def _tojson(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Unlike jinja2's, does not escape for HTML."""
    _check_number(indent, 100)
    _made(x)
    text = json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return str(_made(text))


def _raise_exception(message: Any = "") -> None:
    raise TemplateRefusal(str(message))


def _strftime_now(format: str) -> str:
    if len(format) > 200:
        raise TemplateLimitError("asks for a date in too long a format")
    return datetime.datetime.now().strftime(format)


def _environment() -> _Environment:
    env = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, loopcontrols],
        optimized=False,
        finalize=_printed,
        cache_size=0,
    )
    env.filters = {
        name: _metered(cast(Callable[..., Any], env.filters[name]), _CHECKS[name])
        for name in _FILTERS
        if name != "join"
    }
    env.filters |= {
        "join": _join,
        "tojson": _tojson,
        "_each": _each,
        "_made": _made,
        "_concatenated": _concatenated,
    }
    env.tests = {
        name: _metered(cast(Callable[..., Any], test), None) for name, test in env.tests.items()
    }
    keep = {name: env.globals[name] for name in ("range", "dict", "cycler", "joiner")}
    env.globals.clear()
    env.globals.update(
        keep,
        namespace=_Namespace,
        raise_exception=_raise_exception,
        strftime_now=_strftime_now,
    )
    return env


def _printed(value: Any) -> Any:
    return value if isinstance(value, str) else _text(value)


class Template:
    """A compiled template. `name` stands in sentences: "the chat template of model.gguf"."""

    def __init__(self, source: str, name: str = "the chat template", seconds: float = SECONDS):
        self.name = name
        self._seconds = seconds
        if len(source) > MAX_SOURCE:
            raise ModelError(f"{name} has {len(source)} characters; at most {MAX_SOURCE} are run")
        env = _environment()
        with self._sentences():
            tree = env.parse(source)
            for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends):
                if tree.find(kind) is not None:
                    raise TemplateLimitError("imports or includes another one")
            tree = _Metered().visit(tree)
            code = env.compile(tree)
            self._template = jinja2.Template.from_code(env, code, env.globals)

    def render(self, variables: Mapping[str, Any]) -> str:
        meter = _Meter(self._seconds)
        token = _meter.set(meter)
        pieces: list[str] = []
        size = 0
        try:
            with self._sentences():
                for piece in self._template.generate(**variables):
                    meter.tick()
                    size += len(piece)
                    if size > MAX_OUTPUT:
                        raise TemplateLimitError(f"writes more than {MAX_OUTPUT} characters")
                    pieces.append(piece)
        finally:
            _meter.reset(token)
        return "".join(pieces)

    def _sentences(self) -> _Sentences:
        return _Sentences(self.name)


class _Sentences:
    """Turns whatever goes wrong in a template into one sentence."""

    def __init__(self, name: str):
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, e: BaseException | None, trace: object) -> None:
        if e is None or not isinstance(e, Exception) or isinstance(e, (ArgumentError, ModelError)):
            return
        name, what = self._name, " ".join(str(e).split())[:200]
        other = "use another template"
        if isinstance(e, TemplateLimitError):
            raise ModelError(f"{name} {what}; {other}") from None
        if isinstance(e, SecurityError):
            raise ModelError(f"{name} reaches for what is not its own ({what}); {other}") from None
        if isinstance(e, RecursionError):
            raise ModelError(f"{name} calls itself too deeply; {other}") from None
        if isinstance(e, MemoryError):
            raise ModelError(f"{name} needs more memory than there is; {other}") from None
        if isinstance(e, jinja2.TemplateSyntaxError):
            raise ModelError(f"{name} is damaged: line {e.lineno}: {what}; {other}") from None
        if isinstance(e, TemplateRefusal):
            raise ArgumentError(f"{name} refuses the messages: {what}") from None
        kind_name = (
            "" if isinstance(e, (UndefinedError, TemplateError)) else f"{type(e).__name__}: "
        )
        raise ArgumentError(f"{name} cannot render the messages: {kind_name}{what}") from None
