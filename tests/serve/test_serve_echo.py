"""gemtp serve: completions that begin with their prompt, as evaluation harnesses request them."""

from __future__ import annotations

import pytest

import gemtp_native as gemtp
from serving import Server

TEXT = "def naïve(x):\n    return x"


@pytest.fixture(scope="module")
def model():
    target, drafter = gemtp.demo_models()
    return gemtp.Model(target, drafter=drafter, threads=1, context=2048)


@pytest.mark.parametrize("tokens", [0, 1, 12])
def test_the_text_begins_with_the_prompt(demo_server: Server, tokens):
    given = {"prompt": TEXT, "max_tokens": tokens}
    plain = demo_server.complete(**given)["choices"][0]
    echoed = demo_server.complete(**given, echo=True)
    assert echoed["choices"][0]["text"] == TEXT + plain["text"]
    assert echoed["choices"][0]["logprobs"] is None
    assert echoed["usage"]["completion_tokens"] == tokens
    chunks = demo_server.stream("/v1/completions", **given, echo=True)
    assert "".join(c["choices"][0]["text"] for c in chunks if c["choices"]) == TEXT + plain["text"]


@pytest.mark.parametrize("as_ids", [False, True])
@pytest.mark.parametrize("top", [0, 1, 5])
def test_log_probabilities_of_the_prompt(demo_server: Server, model, as_ids, top):
    ids = model.tokenize(TEXT)
    given = {"prompt": ids if as_ids else TEXT, "logprobs": top}
    answer = demo_server.complete(**given, max_tokens=3, echo=True)["choices"][0]
    found = answer["logprobs"]
    after = demo_server.complete(**given, max_tokens=3)["choices"][0]["logprobs"]
    shown = ids if as_ids else ids[1:]
    assert {len(found[name]) for name in found} == {len(shown) + 3}
    assert found["token_logprobs"][-3:] == after["token_logprobs"]
    assert found["top_logprobs"][-3:] == after["top_logprobs"]
    scores = found["token_logprobs"][: len(shown)]
    assert scores[0] is None or not as_ids
    assert scores[1 if as_ids else 0 :] == list(model.score(ids))
    for tokens, score, likeliest in zip(
        found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True
    ):
        if top == 0 or score is None:
            assert likeliest is None
        elif not any("\ufffd" in text for text in (tokens, *likeliest)):  # parts of characters
            assert len(likeliest) == top
            assert max(likeliest.values()) >= score
            assert likeliest.get(tokens, score) == score
    # Offsets are places in the text.
    assert answer["text"].startswith(TEXT)
    for i in range(1 if as_ids else 0, len(shown)):
        begin, token = found["text_offset"][i], found["tokens"][i]
        assert answer["text"][begin:].startswith(token) or "\ufffd" in token


def test_a_harness_that_only_scores(demo_server: Server, model):
    """As lm-evaluation-harness does it: two prompts of ids, nothing generated."""
    texts = ["x = 1\n", "for i in range(3):\n"]
    prompts = [model.tokenize(text) for text in texts]
    choices = demo_server.complete(
        prompt=prompts, max_tokens=0, echo=True, logprobs=1, temperature=0, seed=1234
    )["choices"]
    for ids, text, choice in zip(prompts, texts, choices, strict=True):
        assert choice["text"] == text
        assert choice["logprobs"]["token_logprobs"] == [None, *model.score(ids)]


def test_control_tokens_of_a_prompt(demo_server: Server, model):
    given = {"max_tokens": 0, "echo": True, "logprobs": 0}
    special = demo_server.complete(prompt="<bos><|turn>user\n", special=True, **given)["choices"][0]
    assert special["text"] == "<bos><|turn>user\n"
    assert special["logprobs"]["tokens"][:2] == ["<bos>", "<|turn>"]
    one = demo_server.complete(prompt=[5], **given)["choices"][0]
    assert one["logprobs"]["token_logprobs"] == [None]


def test_prompts_that_cannot_be_scored(demo_server: Server):
    for prompt, echo in (("x " * 4000, True), ("x", "yes")):
        answer = demo_server.ask("/v1/completions", {"prompt": prompt, "echo": echo, "logprobs": 1})
        assert answer.status == 400
        assert answer.error["message"]
