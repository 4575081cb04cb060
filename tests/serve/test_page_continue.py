"""Answers that were cut, on the page in a real browser: the mark, and going on."""

from __future__ import annotations

from page_browser import Keys, shown

TEXT = "One two three four five six seven eight nine ten eleven twelve."


def legend(browser):
    return sum(int(e.get_attribute("data-count")) for e in browser.all(".legend li"))


def proceed(browser):
    browser.click(".cut .button")
    browser.answered()
    assert browser.focused() == "prompt", "the button is gone"


def test_an_answer_that_was_cut_goes_on(browser, serve):
    server = serve(text=TEXT)
    browser.open(server.url)
    browser.set_settings(max_tokens=5)
    browser.send("Count")
    assert browser.text(".cut p") == "Cut off at the maximum number of tokens."
    cut = shown(browser)
    assert TEXT.startswith(cut)
    assert cut != TEXT
    browser.press(Keys.ALT, "c")
    browser.until(lambda: len(server.bodies()) == 2, "the request")
    browser.answered()
    assert len(browser.all(".message.assistant")) == 1, "in the same answer"
    assert shown(browser).startswith(cut)
    first, second = server.bodies()
    assert second["messages"] == [
        {"role": "user", "content": "Count"},
        {"role": "assistant", "content": cut},
    ]
    assert second["continue_final_message"] is True
    assert second["seed"] == first["seed"], "as if it had not been cut"
    assert browser.text(".figures li b").split("\n")[0] == "10"
    assert legend(browser) == 10
    proceed(browser)
    assert shown(browser) == TEXT
    assert "The answer was cut off: 10 tokens" in browser.text("#said")
    assert "The answer is complete" in browser.text("#said p:last-child")
    assert not browser.all(".cut")
    assert "complete" in browser.text(".figures")
    tokens = legend(browser)
    browser.driver.refresh()
    browser.until(lambda: browser.all(".legend"), "the answer")
    assert shown(browser) == TEXT
    assert legend(browser) == tokens
    browser.press(Keys.ALT, "r")
    browser.until(lambda: browser.all(".verdict[data-equal=true]"), "a race of all of it")
    assert browser.text(".lane.drafted .lane-text") == TEXT
    browser.press(Keys.ESCAPE)


def test_a_thought_that_was_cut_goes_on(browser, serve):
    server = serve(text="Yes.", reasoning="Let me think about this for a moment, please.")
    browser.open(server.url)
    browser.set_settings(max_tokens=4, thinking=True)
    browser.send("Well?")
    thought = browser.text(".thoughts .body")
    assert thought
    assert shown(browser) == "The model’s answer is empty."
    proceed(browser)
    assert server.bodies()[1]["messages"][-1] == {
        "role": "assistant",
        "content": "",
        "reasoning_content": thought,
    }
    assert browser.text(".thoughts .body").startswith(thought)
    assert len(browser.text(".thoughts .body")) > len(thought)


def test_an_answer_that_was_stopped_goes_on(browser, serve):
    server = serve(text="word " * 200, round_seconds=0.03)
    browser.open(server.url)
    browser.send("Hello", wait=False)
    browser.until(lambda: len(shown(browser)) > 20, "text")
    browser.press(Keys.ESCAPE)
    browser.answered()
    assert browser.text(".cut p") == "You stopped this answer."
    length = len(shown(browser))
    server.script.round_seconds = 0
    proceed(browser)
    assert len(shown(browser)) > length
    assert shown(browser) == ("word " * 200).strip()


def test_a_lost_answer_goes_on(browser, serve):
    browser.expected = ("net::ERR",)
    server = serve(text=TEXT, break_after=2, round_seconds=0.01)
    browser.open(server.url)
    browser.send("Hello")
    server.script.break_after = None
    browser.click(".trouble .button:last-child")
    browser.until(lambda: shown(browser) == TEXT, "the answer")
    browser.answered()
    assert not browser.all(".trouble")


def test_only_the_latest_answer_goes_on(browser, serve):
    browser.open(serve(text=TEXT).url)
    browser.set_settings(max_tokens=8)
    browser.send("Count")
    browser.send("Again")
    assert len(browser.all(".message.assistant")) == 2
    assert len(browser.all(".cut")) == 1


def test_a_full_context_says_so(browser, serve):
    server = serve(text=TEXT, prompt_tokens=92)
    server.script.props["context"] = 100
    browser.open(server.url)
    browser.set_settings(max_tokens=8)
    browser.send("Count")
    assert "context of 100 tokens is full" in browser.text(".cut p")
    assert not browser.all(".cut .button")


def test_json_is_made_again_longer(browser, serve):
    """What follows a schema cannot go on in the middle."""
    server = serve(text='{"a": [1, 2, 3, 4, 5, 6]}')
    browser.open(server.url)
    browser.set_settings(max_tokens=8, schema='{"type": "object"}')
    browser.send("Count")
    assert browser.text(".cut .button") == "Regenerate with up to 16 tokens"
    proceed(browser)
    first, second = server.bodies()
    assert second == {**first, "max_tokens": 16}
    assert len(browser.all(".message.assistant")) == 1


def test_a_text_goes_on(browser, serve):
    server = serve(text=lambda body: TEXT.removeprefix(body["prompt"]))
    server.script.props |= {"mode": "completion"}
    browser.open(server.url)
    browser.set_settings(max_tokens=4)
    browser.send("One two")
    proceed(browser)
    assert len(browser.all(".message")) == 1
    assert TEXT.startswith(shown(browser))
    first, second = server.bodies()
    assert second["prompt"].startswith("One two three")
    assert second["seed"] == first["seed"]
    proceed(browser)
    assert shown(browser) == TEXT
