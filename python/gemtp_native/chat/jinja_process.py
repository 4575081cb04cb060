"""Runs in a process of its own: jinja2's sandbox, for templates of strangers.

The bounds on time and memory are those of the process, which `base.limited_process` starts and
ends. A request is (source, variables, marks, seconds) in marshal's form, for variables that are
None to be compiled only. An answer is one byte that says what it is (see below), and text.
"""

from __future__ import annotations

import datetime
import json
import marshal
import signal
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

TEXT, REFUSED, DAMAGED, UNBOUNDED = b"T", b"R", b"D", b"U"
"""Kinds of answers: the rendered text, or the end of a sentence about the messages, the template or
a limit."""

MAX_BITS = 4096
"""Limit on the bits of an integer."""


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


class _LimitError(Exception):
    """A template did something forbidden; the message is the end of a sentence."""


class _Refusal(Exception):
    """A template called raise_exception(); the message is its own, about the messages."""


# ---------------------------------------------------------------- what a template sees


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("*", "**"))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, methods in _METHODS.items():
            if isinstance(obj, kind):
                return attr in methods
        if isinstance(obj, LoopContext):
            return attr in _LOOP
        return isinstance(obj, Namespace) and not attr.startswith("_")

    def wrap_str_format(self, value: Any) -> None:
        """Keeps str.format from being called."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length()
            size = bits * max(right, 1) if operator == "**" else bits + right.bit_length()
            if size > MAX_BITS:
                raise _LimitError("computes with numbers that are too large")
        return super().call_binop(context, operator, left, right)


class _Namespace(Namespace):
    """A namespace without private names that does not print its content."""

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


class _Generation(Extension):
    """{% generation %} marks the model's text for training; here it is replaced by its body."""

    tags = {"generation"}

    def parse(self, parser: Any) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)  # type: ignore[no-any-return]


def _int(value: Any, default: Any = 0, base: int = 10) -> Any:
    if isinstance(value, str) and len(value) > 1000:
        raise _LimitError("computes with numbers that are too large")
    return jinja2.filters.do_int(value, default, base)


def _round(value: Any, precision: Any = 0, method: Any = "common") -> Any:
    if isinstance(precision, (int, float)) and not -100 <= precision <= 100:
        raise _LimitError(f"rounds to {str(precision)[:20]} digits, which are too many")
    return jinja2.filters.do_round(value, precision, method)


def _tojson(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Unlike jinja2's, does not escape for HTML."""
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: Any = "") -> None:
    raise _Refusal(str(message))


def _strftime_now(format: str) -> str:
    if len(format) > 200:
        raise _LimitError("asks for a date in too long a format")
    return datetime.datetime.now().strftime(format)


def _environment() -> _Environment:
    env = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, loopcontrols],
        optimized=False,
        cache_size=0,
    )
    env.filters = {name: env.filters[name] for name in _FILTERS}
    env.filters |= {"int": _int, "round": _round, "tojson": _tojson}
    keep = {name: env.globals[name] for name in ("range", "dict", "cycler", "joiner")}
    env.globals.clear()
    env.globals.update(
        keep,
        namespace=_Namespace,
        raise_exception=_raise_exception,
        strftime_now=_strftime_now,
    )
    return env


@lru_cache(maxsize=4)
def _compiled(source: str) -> jinja2.Template:
    env = _environment()
    tree = env.parse(source)
    for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends):
        if tree.find(kind) is not None:
            raise _LimitError("imports or includes another one")
    return jinja2.Template.from_code(env, env.compile(tree), env.globals)


# ---------------------------------------------------------------- messages with marks


class _Key(str):
    """Returns a changed key that sorts like the original."""

    original: str

    def lower(self) -> str:
        return self.original.lower()

    def __lt__(self, other: str) -> bool:
        return self.original < getattr(other, "original", other)

    def __gt__(self, other: str) -> bool:
        return self.original > getattr(other, "original", other)


def _marked(value: Any, marks: Mapping[int, str]) -> Any:
    """Returns the value with other characters in all texts."""
    if isinstance(value, str):
        return value.translate(marks)
    if isinstance(value, dict):
        return {_marked_key(k, marks): _marked(v, marks) for k, v in value.items()}
    if isinstance(value, list):
        return [_marked(v, marks) for v in value]
    return value


def _marked_key(key: str, marks: Mapping[int, str]) -> str:
    changed = key.translate(marks)
    if changed == key:
        return key
    out = _Key(changed)
    out.original = key
    return out


# ---------------------------------------------------------------- the process


def _render(
    source: str,
    variables: dict[str, Any] | None,
    marks: Mapping[int, str] | None,
    max_output: int,
) -> str:
    template = _compiled(source)
    if variables is None:
        return ""
    if marks is not None:
        changed = {key: _marked(variables[key], marks) for key in ("messages", "tools")}
        variables = {**variables, **changed}
    pieces: list[str] = []
    size = 0
    for piece in template.generate(**variables):
        size += len(piece)
        if size > max_output:
            raise _LimitError(f"writes more than {max_output} characters")
        pieces.append(piece)
    return "".join(pieces)


def _answer(request: bytes, max_output: int) -> tuple[bytes, str]:
    """Renders; every error in a template becomes the end of one sentence."""
    try:
        source, variables, marks, seconds = marshal.loads(request)
        _alarm(seconds + 1)  # in case the parent process that would end this one is gone
        return TEXT, _render(source, variables, marks, max_output)
    except MemoryError:
        raise  # `limited_main` reports it
    except _LimitError as e:
        return UNBOUNDED, str(e)
    except RecursionError:
        return UNBOUNDED, "is nested, or calls itself, too deeply"
    except SecurityError as e:
        return DAMAGED, f"reaches for what is not its own ({_line(e)})"
    except jinja2.TemplateSyntaxError as e:
        return DAMAGED, f"is damaged: line {e.lineno}: {_line(e)}"
    except SyntaxError as e:  # from Python, for the code that jinja2 generates
        return DAMAGED, f"cannot be compiled: {_line(e)}"
    except _Refusal as e:
        return REFUSED, f"refuses the messages: {_line(e)}"
    except TemplateError as e:
        return REFUSED, f"cannot render the messages: {_line(e)}"
    except Exception as e:
        if "integer string conversion" in str(e):  # Python's own limit, with its own advice
            return UNBOUNDED, "computes with numbers that are too large"
        return REFUSED, f"cannot render the messages: {type(e).__name__}: {_line(e)}"
    finally:
        _alarm(0)


def _line(e: Exception) -> str:
    return " ".join(str(e)[:2000].split())[:200]


def _alarm(seconds: float) -> None:
    """Ends the process after so many seconds, whatever it is doing; 0 cancels that."""
    if sys.platform != "win32":  # there the process is in a job that ends with its parent
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _has_room(memory: int) -> bool:
    """Whether half of the memory is still available, so that the remains of a large rendering do
    not reduce the next one's share."""
    try:
        bytes(memory // 2)  # zeros that are not read take addresses, but no memory
    except MemoryError:
        return False
    return True


def prepared(memory: int, max_output: int) -> Callable[[bytes], tuple[list[bytes], bool]]:
    """Called by `limited_main`."""
    _compiled("{{ 1 }}")  # builds jinja2's tables

    def answer(request: bytes) -> tuple[list[bytes], bool]:
        kind, text = _answer(request, max_output)
        reusable = _has_room(memory)
        return [kind, text.encode("utf-8", "surrogatepass")], reusable

    return answer
