"""The page in a real browser, before the real server."""

from __future__ import annotations

import json

import pytest

import gemtp_native
from page_browser import Browser, Keys, shown
from scripted_model import ANSWER
from serving import Server, serving

PROMPT = "def read_lines(path):\n    "
NEWLINE = Keys.SHIFT + Keys.ENTER + Keys.SHIFT


def type_of(text: str) -> str:
    """Keys that write text of several lines."""
    return text.replace("\n", NEWLINE)


def set_settings(browser: Browser, **values: object) -> None:
    browser.press(Keys.ALT, "s")
    for name, value in values.items():
        browser.find(f"#set-{name}").clear()
        browser.find(f"#set-{name}").send_keys(str(value))
    browser.click(".settings .strong")


def counts(browser: Browser) -> dict[str, int]:
    return {
        e.get_attribute("data-source"): int(e.get_attribute("data-count"))
        for e in browser.all(".legend li")
    }


@pytest.fixture(scope="module")
def model():
    target, drafter = gemtp_native.demo_models()
    return gemtp_native.Model(target, drafter=drafter, threads=1, context=2048)


@pytest.fixture
def texts(browser: Browser, demo_server: Server) -> Browser:
    """The page of the shipped pair, which goes on with Python code."""
    browser.open(demo_server.url)
    browser.script("localStorage.clear()")
    browser.open(demo_server.url)
    browser.click(".modes .button:last-child")
    browser.click("#prompt")
    return browser


def test_a_text_is_what_python_says(texts, model):
    set_settings(texts, temperature=0.8, seed=5, max_tokens=80)
    texts.send(type_of(PROMPT))
    expected = model.generate(PROMPT, max_tokens=80, temperature=0.8, seed=5)
    assert shown(texts) == PROMPT + expected.text
    found = counts(texts)
    assert sum(found.values()) == expected.stats.tokens
    assert found["drafter"] > 0
    assert "accepted" in texts.text("#live")
    figures = texts.text(".figures")
    assert f"{expected.stats.tokens} tokens" in figures
    assert "of drafts accepted" in figures
    # Going on from there is going on with the whole text.
    texts.find("#prompt").send_keys(Keys.ENTER)
    texts.until(lambda: len(texts.all(".message.assistant")) == 2, "the second part")
    texts.answered()
    whole = PROMPT + expected.text
    more = model.generate(whole, max_tokens=80, temperature=0.8, seed=5).text
    assert shown(texts) == more


def test_a_text_that_was_cut_goes_on_as_if_it_had_not_been(texts, model):
    set_settings(texts, temperature=0.8, seed=5, max_tokens=40)
    texts.send(type_of(PROMPT))
    assert "Cut off" in texts.text(".cut p")
    used = model.generate(PROMPT, max_tokens=40, temperature=0.8, seed=5).stats
    assert texts.text(".context span") == f"{used.prompt_tokens + used.tokens} / 2,048"
    texts.click(".cut .button")
    texts.until(lambda: sum(counts(texts).values()) == 80, "40 tokens more")
    texts.answered()
    expected = model.generate(PROMPT, max_tokens=80, temperature=0.8, seed=5)
    assert shown(texts) == PROMPT + expected.text


def test_sampling_options_are_what_python_takes(texts, model):
    options = {"temperature": 0.9, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "seed": 3}
    options |= {"repetition_penalty": 1.1, "presence_penalty": 0.2, "frequency_penalty": 0.1}
    options |= {"penalty_last_n": 30, "max_tokens": 60}
    texts.set_settings(**options, stop=["\n\n"])
    texts.send(type_of(PROMPT))
    expected = model.generate(PROMPT, **options, stop=["\n\n"])
    assert shown(texts) == PROMPT + expected.text


def test_a_full_context_has_no_way_on(texts):
    texts.set_settings(temperature=1.0, seed=4, max_tokens=5000)
    texts.script("document.querySelector('#prompt').value = 'x = 1\\n'.repeat(300)")
    texts.send(" ")
    assert "context of 2,048 tokens is full" in texts.text(".cut p")
    assert not texts.all(".cut .button")


def test_stopping_ends_the_work_of_the_server(texts, demo_server):
    set_settings(texts, temperature=1.5, max_tokens=1900)
    texts.send("def f(", wait=False)
    texts.until(lambda: len(texts.all(".body .token")) > 20, "tokens")
    texts.press(Keys.ESCAPE)
    texts.answered()
    demo_server.wait_for("gemtp_requests_processing", 0, 5)
    assert "stopped by you" in texts.text(".figures")
    tokens = sum(counts(texts).values())
    assert 20 < tokens < 1900
    # What was stopped can be raced as far as it came.
    texts.press(Keys.ALT, "r")
    texts.until(lambda: texts.all(".verdict[data-equal]"), "a verdict")
    assert texts.find(".verdict").get_attribute("data-equal") == "true"
    texts.press(Keys.ESCAPE)


def test_a_race_ends_with_equal_texts(texts):
    set_settings(texts, temperature=0.7, seed=3, max_tokens=120)
    texts.send(type_of(PROMPT))
    text = shown(texts)
    texts.press(Keys.ALT, "r")
    texts.until(lambda: texts.all(".verdict[data-equal]"), "a verdict")
    verdict = texts.find(".verdict")
    assert verdict.get_attribute("data-equal") == "true"
    assert "as fast with drafts" in verdict.text
    for lane in ("plain", "drafted"):
        assert PROMPT + texts.text(f".lane.{lane} .lane-text") == text
    assert not texts.all(".lane.plain .token:not(.target)")
    assert texts.all(".lane.drafted .token.drafter")
    texts.press(Keys.ESCAPE)


def test_a_schema(texts):
    pytest.importorskip("llguidance")
    properties = {"answer": {"const": "a long word"}}
    schema = {"type": "object", "properties": properties, "required": ["answer"]}
    set_settings(texts, schema=json.dumps(schema))
    texts.send("def f(")
    assert '"answer"' in shown(texts)
    assert counts(texts)["grammar"] > 3


def test_a_refusal_is_the_servers_sentence(texts):
    texts.expected = ("400",)
    texts.script("document.querySelector('#prompt').value = 'x = 1\\n'.repeat(3000)")
    texts.send(" ")
    assert "context" in texts.text(".trouble")


def test_a_chat_with_thoughts(browser, scripted_server):
    browser.open(scripted_server.url)
    browser.click(".modes .button:first-child")
    browser.press(Keys.ALT, "s")
    browser.click("#set-thinking")
    browser.click(".settings .strong")
    browser.send("the sum?")
    assert "add them first" in browser.text(".thoughts .body")
    assert ANSWER not in browser.text(".thoughts .body")
    assert browser.text(".figures").count("tokens") >= 1


def test_a_chat_that_was_cut_goes_on(browser, scripted_server):
    browser.open(scripted_server.url)
    browser.set_settings(max_tokens=3, thinking=True, mode="chat", temperature=0)
    browser.send("the sum?")
    assert "Cut off" in browser.text(".cut p")
    thought = browser.text(".thoughts .body")
    browser.click(".cut .button")
    browser.answered()
    assert not browser.all(".trouble")
    assert browser.text(".thoughts .body").startswith(thought)
    assert sum(counts(browser).values()) > 3


def test_a_key_is_asked_for(browser, tmp_path, scripted):
    pytest.importorskip("uvicorn")
    browser.expected = ("401",)
    with serving(tmp_path, scripted, "--context", 512, GEMTP_API_KEY="secret") as server:
        browser.driver.get(server.url)
        browser.until(lambda: browser.all("#key"), "the question")
        browser.find("#key").send_keys("wrong", Keys.ENTER)
        browser.until(lambda: "refused this key" in browser.text("dialog .problem"), "a refusal")
        browser.find("#key").send_keys("secret", Keys.ENTER)
        browser.until(lambda: browser.find("#prompt").is_enabled(), "the page")


def test_a_server_that_ends_and_comes_back(browser, tmp_path, scripted):
    pytest.importorskip("uvicorn")
    browser.expected = ("net::ERR", "ERR_")
    with serving(tmp_path, scripted, "--context", 512) as server:
        browser.open(server.url)
        port = server.port
    browser.send("Hello")
    assert "does not answer" in browser.text(".trouble")
    browser.until(lambda: browser.find("#notice").is_displayed(), "a notice")
    with serving(tmp_path, scripted, "--context", 512, "--port", port):
        browser.until(lambda: not browser.find("#notice").is_displayed(), "the page found it")
        browser.click(".trouble .button")
        browser.until(lambda: not browser.all(".trouble"), "an answer")
        browser.answered()
