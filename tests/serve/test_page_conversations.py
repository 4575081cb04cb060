"""Conversations on the page in a real browser: addresses, names, search, files, the context."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemtp_native.chat.messages import prepared
from page_browser import Browser, Keys, shown

UNKNOWN = "not in this browser"


def titles(browser: Browser) -> list[str]:
    return [e.text for e in browser.all("#conversations .name")]


def fragment(browser: Browser) -> str:
    return browser.script("return location.hash")


def questions(browser: Browser) -> str:
    return browser.text(".message.user .body")


def reload(browser: Browser) -> None:
    browser.driver.refresh()
    browser.until(lambda: browser.find("#prompt").is_enabled(), "the page")


def stored(browser: Browser) -> dict[str, str]:
    return browser.script("return {...localStorage}")


# ---------------------------------------------------------------- addresses


def test_reload_back_and_forward(browser, serve):
    browser.open(serve(text=lambda body: f"To {body['messages'][-1]['content']}").url)
    assert fragment(browser) == ""
    browser.send("one")
    first = fragment(browser)
    assert first.startswith("#chat=")
    reload(browser)
    assert questions(browser) == "one"
    assert shown(browser) == "To one"
    browser.click("#new")
    assert fragment(browser) == ""
    browser.send("two")
    second = fragment(browser)
    assert second not in ("", first)
    browser.driver.back()
    browser.until(lambda: questions(browser) == "one", "the first one")
    assert fragment(browser) == first
    browser.driver.forward()
    browser.until(lambda: questions(browser) == "two", "the second one")
    browser.click("#conversations li:nth-child(2) .conversation")
    assert fragment(browser) == first
    assert browser.find("[aria-current=true]").text == "one"
    browser.driver.back()
    browser.until(lambda: questions(browser) == "two", "back again")


def test_an_address_of_another_window(browser, serve):
    server = serve()
    browser.open(server.url)
    browser.send("one")
    address = browser.driver.current_url
    browser.driver.get("about:blank")
    browser.driver.get(address)
    browser.until(lambda: questions(browser) == "one", "the conversation")


@pytest.mark.parametrize("name", ["nothing", "constructor", "__proto__", "%00", "x" * 4000])
def test_an_unknown_address(browser, serve, name):
    browser.open(f"{serve().url}#chat={name}")
    known = name in ("nothing", "constructor")  # the others are no addresses of chats
    assert (UNKNOWN in browser.text("#notice")) == known
    assert not browser.all(".message")
    browser.send("Hello")
    assert shown(browser) == "Hello there."
    assert fragment(browser).startswith("#chat=")
    assert not browser.find("#notice").is_displayed()


def test_a_deleted_conversation(browser, serve):
    browser.open(serve().url)
    browser.send("one")
    browser.click("#new")
    browser.send("two")
    browser.click("#conversations li:nth-child(2) .conversation")
    browser.click("#conversations li.current [aria-label^=Delete]")
    browser.click("dialog .danger")
    browser.until(lambda: titles(browser) == ["two"], "one less")
    assert fragment(browser) == ""
    assert not browser.all(".message")
    browser.driver.back()
    browser.until(lambda: questions(browser) == "two", "what was open before")


def test_deleting_what_is_being_written(browser, serve):
    server = serve(text="word " * 400, round_seconds=0.03)
    browser.open(server.url)
    browser.send("one", wait=False)
    browser.until(lambda: len(shown(browser)) > 10, "text")
    browser.click("#conversations .conversation")
    assert not server.gone.is_set(), "choosing what is open stops nothing"
    browser.click("#conversations [aria-label^=Delete]")
    browser.click("dialog .danger")
    assert server.gone.wait(5)
    browser.until(lambda: not browser.all("#thread[aria-busy]"), "the end")
    reload(browser)
    assert titles(browser) == []


def test_a_page_that_is_left_keeps_what_came(browser, serve):
    browser.open(serve(text="word " * 400, round_seconds=0.03).url)
    browser.send("one", wait=False)
    browser.until(lambda: len(shown(browser)) > 40, "text")
    reload(browser)
    assert questions(browser) == "one"
    assert shown(browser).startswith("word word word")
    assert "Interrupted: the page was closed" in browser.text(".cut")
    assert browser.all(".body .token.drafter"), "with its tokens"


def test_a_notice_ends_with_its_conversation(browser, serve):
    browser.open(serve().url)
    browser.send("one")
    browser.click("[aria-label^=Regenerate]")
    browser.answered()
    assert browser.text("#notice p") == (
        "The answer stays the same, because the temperature is 0 or the seed is fixed."
    )
    assert browser.text("#live")
    browser.click("#new")
    assert not browser.find("#notice").is_displayed()
    assert browser.text("#live") == "", "nor do the figures stay"
    browser.click("#conversations .conversation")
    browser.click("[aria-label^=Regenerate]")
    browser.answered()
    browser.click("#notice .button:last-child")
    assert not browser.find("#notice").is_displayed()


# ---------------------------------------------------------------- names and words


def test_names(browser, serve):
    browser.open(serve().url)
    browser.send("one")
    browser.click("#conversations [aria-label^=Rename]")
    assert browser.focused() == "Name of this chat"
    browser.press("A better name")
    browser.press(Keys.ENTER)
    assert titles(browser) == ["A better name"]
    assert browser.text("#title") == "A better name"
    assert browser.focused() == "A better name"
    browser.press(Keys.F2)
    browser.press("nothing")
    browser.press(Keys.ESCAPE)
    assert titles(browser) == ["A better name"]
    browser.press(Keys.F2)
    browser.press(Keys.CONTROL, "a")
    browser.press(Keys.BACKSPACE)
    browser.press(Keys.ENTER)
    assert titles(browser) == ["A better name"], "an empty name is none"
    browser.press(Keys.F2)
    browser.press("<b>x</b>")
    browser.click("#prompt")
    assert titles(browser) == ["<b>x</b>"], "leaving the field keeps the name"
    browser.send("more")
    reload(browser)
    assert titles(browser) == ["<b>x</b>"]
    assert browser.script("return document.title").startswith("<b>x</b>")


def test_search(browser, serve):
    browser.open(serve(text=lambda body: f"The café of {body['messages'][-1]['content']}").url)
    browser.send("Paris")
    assert not browser.find("#search").is_displayed(), "one conversation needs no search"
    browser.click("#new")
    browser.send("Rome")
    field = browser.find("#search")
    field.send_keys("CAFE par")
    assert titles(browser) == ["Paris"]
    assert "The café of Paris" in browser.text("#conversations .fine")
    assert "1 chat found." in browser.text("#said p:last-child")
    field.send_keys("x")
    assert titles(browser) == []
    assert "No chat has these words" in browser.text("#conversations")
    browser.press(Keys.ESCAPE)
    assert titles(browser) == ["Rome", "Paris"]
    field.send_keys("rom")
    browser.click("#conversations .conversation")
    assert questions(browser) == "Rome"
    assert titles(browser) == ["Rome"], "the search stays"


# ---------------------------------------------------------------- files


def test_what_export_writes_can_be_imported(browser, serve, tmp_path):
    browser.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    browser.open(serve(text="Yes, *it* is.", reasoning="Hm.").url)
    browser.send("Is it so?")
    before = browser.text(".assistant > .below")
    for choice, name in ((2, "Is-it-so.json"), (3, "Is-it-so.messages.json")):
        browser.click("#open-export")
        browser.click(f".choice:nth-child({choice})")
        browser.until((tmp_path / name).exists, name)
    browser.script("localStorage.clear()")
    browser.open(browser.script("return location.origin"))
    browser.find("#files").send_keys(str(tmp_path / "Is-it-so.json"))
    browser.until(lambda: titles(browser) == ["Is it so?"], "the conversation")
    assert fragment(browser).startswith("#chat=")
    assert shown(browser) == "Yes, it is."
    assert browser.text(".assistant > .below") == before, "with tokens and figures"
    browser.find("#files").send_keys(str(tmp_path / "Is-it-so.messages.json"))
    browser.until(lambda: len(titles(browser)) == 2, "the messages")
    assert shown(browser) == "Yes, it is."
    assert "Hm." in browser.text(".assistant .thoughts .body")
    messages = json.loads((tmp_path / "Is-it-so.messages.json").read_text())["messages"]
    assert [m["role"] for m in prepared(messages)] == ["user", "assistant"], "gemtp chat"


def test_what_gemtp_chat_saves_can_be_imported(browser, serve, tmp_path):
    server = serve(text="Fine.")
    file = tmp_path / "saved.json"
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hi.", "reasoning_content": "A greeting."},
    ]
    file.write_text(json.dumps({"messages": messages}))
    browser.open(server.url)
    browser.find("#files").send_keys(str(file))
    browser.until(lambda: titles(browser) == ["Hello"], "the conversation")
    assert "Be brief." in browser.text(".message.system")
    browser.send("How are you?")
    (body,) = server.bodies()
    assert [(m["role"], m["content"]) for m in body["messages"]] == [
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", "Hi."),
        ("user", "How are you?"),
    ]


def test_damaged_files_change_nothing(browser, serve, tmp_path):
    browser.open(serve().url)
    browser.send("one")
    before = stored(browser)
    for name, content, sentence in (
        ("a.json", b"{", "“a.json” is not JSON."),
        ("b.md", b"# A chat", "“b.md” is not JSON."),
        ("c.json", b'{"name": "x"}', "“c.json” is no conversation."),
        ("d.json", b'{"messages": [{"role": "tool"}]}', "calls of tools"),
        ("e.json", b"\xff\xfe\x00", "“e.json” is not JSON."),
    ):
        file = Path(tmp_path / name)
        file.write_bytes(content)
        browser.find("#files").send_keys(str(file))
        browser.until(lambda s=sentence: s in browser.text("#notice"), sentence)
        assert stored(browser) == before
        assert questions(browser) == "one"
    browser.click("#notice .button")
    assert not browser.find("#notice").is_displayed()


# ---------------------------------------------------------------- the context, the model


def test_the_context_meter(browser, serve):
    server = serve(text="One two three.", prompt_tokens=700)
    server.script.props["context"] = 1000
    browser.open(server.url)
    assert not browser.all(".context")
    browser.send("Hello")
    assert browser.text(".context span") == "704 / 1,000"
    meter = browser.find(".context meter")
    assert meter.get_attribute("aria-label") == "Context used: 704 of 1,000 tokens"
    assert float(meter.get_attribute("value")) == pytest.approx(0.704)
    server.script.prompt_tokens = 900
    browser.send("More")
    assert "larger --context" in browser.find(".context").get_attribute("title")
    reload(browser)
    assert browser.text(".context span") == "904 / 1,000"
    browser.click("#new")
    assert not browser.all(".context")


def test_model_information(browser, serve):
    server = serve()
    server.script.props["model_sampling"] = {"temperature": 1.0, "top_k": 64, "top_p": 0.949999988}
    browser.open(server.url)
    browser.click("#model")
    facts = dict(
        zip(
            browser.text("dialog dt").split("\n"),
            browser.text("dialog dd").split("\n"),
            strict=True,
        )
    )
    assert facts["Model"] == "gemma-4-E2B-it-Q4_K_M"
    assert facts["Context"] == "8,192 tokens"
    assert facts["Recommended sampling"] == "temperature 1, top-k 64, top-p 0.95"
    assert facts["Server"] in server.url
    browser.press(Keys.ESCAPE)
    assert browser.focused() == "model"
