"""What is written out for editors, readers and other programs says what the core's tables say."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

import gemtp_native as gemtp
from gemtp_native import _core, options
from gemtp_native.export import Sampling
from gemtp_native.export.schema import schema
from gemtp_native.make.convert.config import _SAMPLING
from gemtp_native.options import DEFAULTS, NUMBERS, OPTIONS

ROOT = Path(__file__).resolve().parent.parent.parent
SPECIAL = {"draft": "Draft | None", "logprobs": "int | Literal[False] | None"}


def docstrings() -> dict[str, str]:
    """Of the members of GenerationOptions, from the text of the module."""
    found = {}
    for node in ast.parse(Path(options.__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name in ("TokenOptions", "GenerationOptions"):
            for member, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(member, ast.AnnAssign):
                    found[member.target.id] = text.value.value
    return found


def test_the_typed_dict_has_every_option():
    assert gemtp.GenerationOptions.__annotations__.keys() == DEFAULTS.keys()


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda o: o.name)
def test_the_typed_dict_and_the_table(option):
    number = f"{'int' if option.whole else 'float'} | None"
    annotation = gemtp.GenerationOptions.__annotations__[option.name].__forward_arg__
    assert annotation == SPECIAL.get(option.name, number)
    assert option.least <= option.default <= option.most
    assert isinstance(option.default, int if option.whole else float)
    assert option.name in SPECIAL or DEFAULTS[option.name] == option.default
    default = DEFAULTS[option.name]
    said = str(default) if option.name in SPECIAL else f"{default:g}"
    assert re.search(rf"(?<![\w.-]){re.escape(said)}(?![\w.])", docstrings()[option.name])


def test_numbers_are_kept_and_refused_by_the_core():
    for name in NUMBERS:
        params = _core.GenerationParams()
        for value in (OPTIONS[name].default, OPTIONS[name].most):
            if not (OPTIONS[name].below_most and value == OPTIONS[name].most):
                params.set(name, value)
        for value in (float("nan"), OPTIONS[name].least - 1e300):
            with pytest.raises(gemtp.ArgumentError, match=f"^{name} is .* but must be "):
                params.set(name, value)


def test_chats_show_all_their_options():
    Model = gemtp.Model
    of_chats = inspect.signature(Model.chat_stream).parameters
    assert of_chats.keys() - {"self", "messages"} == gemtp.ChatOptions.__annotations__.keys()
    for method in (Model.chat, Model.achat):
        assert inspect.signature(method).parameters == of_chats
        assert inspect.signature(method).return_annotation == "Reply"
    assert of_chats["thinking"].default is False
    assert of_chats["temperature"].default == 0
    assert of_chats["max_tokens"].default is None
    for method in (Model.generate, Model.stream, Model.agenerate, gemtp.Session.stream):
        assert inspect.signature(method).parameters.keys() >= DEFAULTS.keys()


def test_stats_have_every_figure_of_the_core():
    model = gemtp.Model(*gemtp.demo_models())
    figures = model.stream("def f(")._stats
    types = get_type_hints(gemtp.Stats)
    assert list(types) == [*figures, "depth"]
    for name, value in figures.items():
        assert type(value) is (list if types[name] == list[int] else types[name]), name


@pytest.mark.parametrize("name", OPTIONS)
def test_the_c_abi_has_every_option(name):
    header = (ROOT / "csrc/include/gemtp.h").read_text(encoding="utf-8")
    (members,) = re.findall(r"struct gemtp_generate_options \{(.*?)\n\}", header, re.DOTALL)
    assert re.search(rf" {name};", members)
    reading = (ROOT / "csrc/api/c/session.cc").read_text(encoding="utf-8")
    assert re.search(rf"fn\(p\.(sampling\.)?{name}, o\.{name}\);", reading)


def test_what_gemtp_json_takes_is_what_the_options_may_be():
    properties = schema()["properties"]["sampling"]["properties"]
    assert [f.name for f in fields(Sampling)] == list(properties)
    for f in fields(Sampling):
        option, said = OPTIONS[f.name], properties[f.name]
        assert (said["type"] == "integer") == option.whole
        assert f.default == option.default == said["default"]
        assert option.least <= said.get("minimum", said.get("exclusiveMinimum"))
        assert said["maximum"] <= option.most
    draft = schema()["properties"]["draft"]["anyOf"][1]
    assert (draft["minimum"], draft["maximum"]) == (0, options.MAX_DRAFT)


def test_the_converter_writes_what_the_core_reads():
    """It runs without the core, so it has a table of its own."""
    for name, key, low, high in _SAMPLING:
        option = OPTIONS[name]
        assert key == option.key
        assert option.least <= low <= high <= option.most
        assert not (option.above_least and low == option.least)
        assert not (option.below_most and high == option.most)


def test_later_seeds():
    for seed in (0, 7, 2**64 - 3, -5, -(2**63)):
        assert options.later_seed(seed, 1) == (seed + 1) % 2**64
    for seed, n in ((-2, 1), (2**64 - 2, 1), (2**64 - 9, 8)):
        assert options.later_seed(seed, n) == 0  # -1 would be a random one
