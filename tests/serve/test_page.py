"""The page in a real browser, before a stand-in that says what it is told. test_page_serve.py has
the real server."""

from __future__ import annotations

import json

import pytest

from page_browser import Keys, shown

LONG = "Some words that go on for a while, so that a test can look at them. " * 30
MARKDOWN = """\
## A heading

Some **bold** and `code`, a [link](https://example.org/x).

| a | b |
|---|--:|
| 1 | 22 |

- one
- two

```python
def f(x):
    return x
```
"""
HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\n\n"
    "<iframe src='https://evil.example/'></iframe> &lt;b&gt;\n\n"
    "![pixel](https://evil.example/pixel.png) [go](javascript:window.hacked=3) "
    "[data](data:text/html,x)\n\n"
    "\u202egnp.exe\u202c \u2066x\u2069 \x1b[31mred\x1b]0;title\x07 \x00\n\n"
    "```html\n<style>*{display:none}</style>\n```\n\n"
    f"| a | b |\n|---|---|\n| <b>x</b> | {'w' * 400} |\n\n"
    f"{'x' * 5000}\n\n{'שלום ' * 20}\n"
)


# ---------------------------------------------------------------- answers


def test_an_answer_streams_and_is_rendered(browser, serve):
    server = serve(text=MARKDOWN, round_seconds=0.03)
    browser.open(server.url)
    browser.send("Hello", wait=False)
    lengths = set()
    while browser.script("return Boolean(document.querySelector('#thread[aria-busy]'))"):
        lengths.add(len(browser.text(".message.assistant > .body")))
    browser.answered()
    assert len(lengths) > 3, "it did not grow"
    assert browser.text(".prose h4") == "A heading"
    assert browser.text(".prose strong") == "bold"
    assert browser.find(".prose a").get_attribute("href") == "https://example.org/x"
    assert browser.text(".prose td.to-right") == "22"
    assert [e.text for e in browser.all(".prose li")] == ["one", "two"]
    assert browser.text(".prose pre code") == "def f(x):\n    return x"
    (body,) = server.bodies()
    assert body["messages"] == [{"role": "user", "content": "Hello"}]
    assert isinstance(body["seed"], int)
    assert browser.focused() == "prompt"


def test_tints_add_up(browser, serve):
    browser.open(serve(text=LONG).url)
    browser.send("Hello")
    counts = {
        e.get_attribute("data-source"): int(e.get_attribute("data-count"))
        for e in browser.all(".legend li")
    }
    tokens = int(browser.find(".figures li b").text.replace(",", ""))
    assert set(counts) == {"target", "drafter", "lookup", "grammar"}
    assert sum(counts.values()) == tokens
    for source, count in counts.items():
        spans = len(browser.all(f".body .token.{source}"))
        assert abs(spans - count) <= 1, source  # the space at the end is not shown
    background = "return getComputedStyle(document.querySelector(arguments[0])).backgroundColor"
    line = "return getComputedStyle(document.querySelector(arguments[0])).textDecorationStyle"
    kinds = [".body .token.drafter", ".body .token.lookup", ".body .token.grammar"]
    assert len({browser.script(background, kind) for kind in kinds}) == 3
    assert len({browser.script(line, kind) for kind in kinds}) == 3, "told apart without colour"
    depths = {browser.script(background, f'.body .token.drafter[data-step="{k}"]') for k in (1, 3)}
    assert len(depths) == 2
    browser.press(Keys.ALT, "t")
    assert browser.find("#tints").get_attribute("aria-pressed") == "false"
    assert len({browser.script(background, kind) for kind in kinds}) == 1
    assert not browser.find(".legend").is_displayed()


def test_escape_stops_the_work(browser, serve):
    server = serve(text=LONG, round_seconds=0.05)
    browser.open(server.url)
    browser.send("Hello", wait=False)
    browser.until(lambda: len(shown(browser)) > 20, "text")
    browser.press(Keys.ESCAPE)
    browser.answered()
    assert server.gone.wait(5), "the server went on"
    assert 20 < len(shown(browser)) < len(LONG) / 2
    assert "stopped by you" in browser.text(".figures")
    browser.send("Again")
    assert len(server.bodies()) == 2


def test_the_button_stops_too(browser, serve):
    server = serve(text=LONG, round_seconds=0.05)
    browser.open(server.url)
    browser.send("Hello", wait=False)
    browser.click("#send[aria-label=Stop]")
    browser.answered()
    assert server.gone.wait(5)


def test_a_long_prompt_shows_progress(browser, serve):
    browser.open(serve(prompt=(3000, 1.5)).url)
    browser.send("Hello", wait=False)
    browser.until(lambda: "of 3,000 tokens" in browser.text(".waiting"), "progress")
    assert browser.find(".waiting progress").get_attribute("max") == "3000"
    browser.answered()
    assert browser.text(".waiting") == ""


def test_thoughts_are_folded(browser, serve):
    browser.open(serve(reasoning="Hm, let me see.", text="Yes.").url)
    browser.send("Hello")
    assert not browser.find(".thoughts").get_attribute("open")
    assert "Hm, let me see." in browser.text(".thoughts .body")
    assert browser.find(".thoughts summary").text.startswith("Thoughts, ")
    assert shown(browser) == "Yes."


def test_a_race(browser, serve):
    server = serve(text=MARKDOWN, round_seconds=0.01)
    browser.open(server.url)
    browser.send("Hello")
    browser.press(Keys.ALT, "r")
    browser.until(lambda: browser.all(".verdict[data-equal]"), "a verdict")
    assert browser.find(".verdict").get_attribute("data-equal") == "true"
    assert f"equal, byte for byte ({len(MARKDOWN.encode())} bytes)" in browser.find(".verdict").text
    assert float(browser.find(".verdict strong").text.split()[0]) > 1.2
    first, plain, drafted = server.bodies()
    assert [first["draft"], plain["draft"], drafted["draft"]] == ["auto", 0, "auto"]
    assert {**plain, "draft": "auto"} == first == drafted, "the same request"
    assert browser.text(".lane.plain .lane-text") == MARKDOWN
    assert browser.text(".lane.drafted .lane-text") == MARKDOWN
    browser.press(Keys.ESCAPE)
    assert not browser.all("dialog")


def test_a_race_of_different_texts_says_so(browser, serve):
    browser.open(serve(text=lambda body: "Same, " + ("no." if body["draft"] == 0 else "yes.")).url)
    browser.send("Hello")
    browser.press(Keys.ALT, "r")
    browser.until(lambda: browser.all(".verdict[data-equal=false]"), "a verdict")
    assert "differ from byte 7" in browser.find(".verdict").text


# ---------------------------------------------------------------- conversations


def test_conversations_are_kept(browser, serve):
    server = serve(text="One *two* three four five six.")
    browser.open(server.url)
    browser.send("First question")
    browser.click("#new")
    browser.send("Second question")
    browser.driver.refresh()
    browser.until(lambda: len(browser.all("#conversations li")) == 2, "the list")
    browser.click("#conversations li:nth-child(2) .conversation")
    assert browser.text(".message.user .body") == "First question"
    assert shown(browser) == "One two three four five six."
    assert browser.all(".body .token.drafter")
    browser.send("More")
    assert [m["content"] for m in server.bodies()[-1]["messages"]] == [
        "First question",
        "One *two* three four five six.",
        "More",
    ]
    browser.click("#conversations li.current [aria-label^=Delete]")
    browser.click("dialog .danger")
    browser.until(lambda: len(browser.all("#conversations li")) == 1, "one less")
    assert not browser.all(".message")


def test_edited_messages_and_new_answers_are_branches(browser, serve):
    server = serve(text=lambda body: f"Answer to {body['messages'][-1]['content']}, {body['seed']}")
    server.script.props["default_generation_settings"] = {"temperature": 1.0}
    browser.open(server.url)
    browser.send("one")
    first = shown(browser)
    browser.press(Keys.ALT, "a")
    browser.until(lambda: len(server.bodies()) == 2, "another answer")
    browser.answered()
    assert shown(browser) != first, "a new seed"
    assert "2/2" in browser.text(".assistant .branches")
    browser.click(".assistant .branches [aria-label^=Earlier]")
    assert shown(browser) == first
    browser.find("#prompt").send_keys(Keys.ARROW_UP)
    browser.press(Keys.CONTROL, "a")
    browser.press("two", Keys.CONTROL)
    browser.click(".editor .strong")
    browser.until(lambda: len(server.bodies()) == 3, "the edited message")
    browser.answered()
    assert server.bodies()[-1]["messages"] == [{"role": "user", "content": "two"}]
    browser.click(".user .branches [aria-label^=Earlier]")
    assert shown(browser) == first


def test_an_answer_that_must_be_the_same_again(browser, serve):
    browser.open(serve().url)
    browser.send("one")
    browser.click("[aria-label^='Regenerate']")
    browser.answered()
    assert "the temperature is 0" in browser.text("#notice")
    browser.click("#notice .button")
    assert browser.find("#set-temperature").is_displayed()
    browser.press(Keys.ESCAPE)


def fill(browser, values):
    for name, value in values.items():
        browser.find(f"#set-{name}").clear()
        browser.find(f"#set-{name}").send_keys(value)


def test_settings_reach_the_request(browser, serve):
    server = serve()
    browser.open(server.url)
    browser.press(Keys.ALT, "s")
    fill(browser, {"system": "Be brief.", "temperature": "0.7", "top_p": "2", "schema": "{"})
    fill(browser, {"seed": "11", "max_tokens": "33", "top_k": "40", "min_p": "0.05"})
    browser.click(".sampling summary")
    fill(browser, {"repetition_penalty": "1.1", "presence_penalty": "-0.5"})
    fill(browser, {"frequency_penalty": "0,25", "penalty_last_n": "64"})
    browser.script("document.querySelector('#set-stop').value = 'END\\\\n\\n\\n###'")
    browser.click("#set-thinking")
    browser.click(".settings .strong")
    assert browser.text("#problem-top_p") == "Top-p is a number from 0 to 1."
    assert "not JSON" in browser.text("#problem-schema")
    assert browser.focused() == "set-top_p"
    fill(browser, {"top_p": "0.9", "schema": '{"type": "object"}'})
    browser.click(".settings .strong")
    browser.script(
        "const d = document.querySelector('#draft'); d.value = '3';"
        "d.dispatchEvent(new Event('change'))"
    )
    browser.send("Hello")
    (body,) = server.bodies()
    wanted = {"temperature": 0.7, "top_p": 0.9, "seed": 11, "max_tokens": 33, "draft": 3}
    wanted |= {"top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1, "presence_penalty": -0.5}
    wanted |= {"frequency_penalty": 0.25, "penalty_last_n": 64, "stop": ["END\n", "###"]}
    assert wanted.items() <= body.items()
    assert body["thinking"] is True
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    browser.driver.refresh()
    browser.until(lambda: browser.find("#prompt").is_enabled(), "the page")
    browser.press(Keys.ALT, "s")
    assert browser.find("#set-seed").get_attribute("value") == "11"
    assert browser.find("#set-stop").get_attribute("value") == "END\\n\n###"
    assert browser.find(".sampling details").get_attribute("open")
    browser.click("#reset-sampling")
    browser.click(".settings .strong")
    browser.click("#new")
    browser.send("Hello")
    body = server.bodies()[-1]
    names = {"temperature", "top_p", "top_k", "min_p", "penalty_last_n", "stop"}
    assert not names & set(body), "the server's defaults count"


def test_the_models_sampling_is_the_default(browser, serve):
    server = serve()
    advised = {"temperature": 1.0, "top_k": 64, "top_p": 0.949999988}
    server.script.props |= {"model_sampling": advised}
    server.script.props["default_generation_settings"] = {**advised, "min_p": 0.0}
    browser.open(server.url)
    browser.press(Keys.ALT, "s")
    sentence = "Empty fields use what the model's makers recommend"
    assert browser.text("#sampling-defaults") == (
        f"{sentence}: temperature 1, top-k 64, top-p 0.95."
    )
    shown = {n: browser.find(f"#set-{n}").get_attribute("placeholder") for n in advised}
    assert shown == {"temperature": "1", "top_k": "64", "top_p": "0.95"}
    browser.press(Keys.ESCAPE)
    server.script.props["default_generation_settings"] = {**advised, "temperature": 0.5}
    browser.open(server.url)
    browser.press(Keys.ALT, "s")
    said = browser.text("#sampling-defaults")
    assert "the server's defaults: temperature 0.5, top-k 64" in said
    assert "recommend temperature 1, top-k 64" in said
    browser.press(Keys.ESCAPE)
    server.script.props["model_sampling"] = {}
    browser.open(server.url)
    browser.press(Keys.ALT, "s")
    assert "The model's file recommends nothing." in browser.text("#sampling-defaults")
    browser.press(Keys.ESCAPE)


def test_export(browser, serve, tmp_path):
    browser.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    browser.open(serve(text="Yes.").url)
    browser.send("Is it so?")
    for choice, name in ((1, "Is-it-so.md"), (2, "Is-it-so.json")):
        browser.click("#open-export")
        browser.click(f".choice:nth-child({choice})")
        file = tmp_path / name
        browser.until(file.exists, name)
    assert (tmp_path / "Is-it-so.md").read_text() == (
        "# Is it so?\n\n## You\n\nIs it so?\n\n## Model\n\nYes.\n"
    )
    assert json.loads((tmp_path / "Is-it-so.json").read_text())["format"] == "gemtp conversation"


# ---------------------------------------------------------------- text from strangers


def test_hostile_text_is_only_text(browser, serve):
    browser.open(serve(text=HOSTILE).url, width=360, height=740)
    browser.send(
        HOSTILE.replace("\n", " ").replace("\x00", "").replace("\x1b", "").replace("\x07", "")
    )
    assert browser.script("return window.hacked") is None
    assert not browser.all("#thread :is(script, img, iframe, style, b:not(.legend b, .figures b))")
    assert "<script>window.hacked = 1</script>" in shown(browser)
    addresses = browser.script("return [...document.querySelectorAll('.body a')].map(a => a.href)")
    evil = "https://evil.example/"
    assert addresses == [evil, f"{evil}pixel.png"], "links, not loaded"
    assert browser.find(".body a").get_attribute("rel") == "noopener noreferrer nofollow"
    controls = browser.text(".body.prose .control").split("\n")
    assert {"U+202E", "U+202C", "U+2066", "U+001B", "U+0007", "U+0000"} <= set(controls)
    assert "\u202e" not in shown(browser)
    assert browser.sideways() <= 0
    assert browser.script("return document.title").endswith("gemtp")


def test_a_huge_line(browser, serve):
    """Tens of thousands of tokens in one paragraph: time must not grow with their square."""
    browser.open(serve(text="word " * 20_000).url)
    browser.press(Keys.ALT, "s")
    browser.find("#set-max_tokens").clear()
    browser.find("#set-max_tokens").send_keys("100000")
    browser.click(".settings .strong")
    browser.send("Hello")
    assert len(browser.text(".message.assistant > .body")) == 5 * 20_000 - 1
    assert browser.sideways() <= 0


# ---------------------------------------------------------------- what can go wrong


def test_a_connection_that_breaks(browser, serve):
    browser.expected = ("net::ERR",)
    server = serve(text="One two three four five six seven.", break_after=2, round_seconds=0.01)
    browser.open(server.url)
    browser.send("Hello")
    assert "connection broke before the answer was complete" in browser.text(".trouble")
    assert shown(browser).startswith("One")
    server.script.break_after = None
    seed = server.bodies()[-1]["seed"]
    browser.click(".trouble .button")
    browser.until(lambda: shown(browser) == "One two three four five six seven.", "the answer")
    browser.answered()
    assert server.bodies()[-1]["seed"] == seed, "the same text"
    assert len(browser.all(".message.assistant")) == 1
    assert not browser.find("#notice").is_displayed(), "the server is there"


def test_a_server_that_is_gone(browser, serve):
    browser.expected = ("net::ERR",)
    server = serve()
    browser.open(server.url)
    server.close()
    browser.send("Hello")
    assert "does not answer" in browser.text(".trouble")
    browser.until(lambda: "gemtp serve" in browser.text("#notice"), "a notice")


def test_an_error_in_the_stream(browser, serve):
    browser.open(serve(text=LONG, error_after=2).url)
    browser.send("Hello")
    assert "a number that is none" in browser.text(".trouble")


def test_a_server_without_room(browser, serve):
    browser.expected = ("503",)
    server = serve(refuse=(503, "All 4 places are taken", {"Retry-After": "3"}))
    browser.open(server.url)
    browser.send("Hello")
    sentence = "The server is busy. All 4 places are taken. Try again in 3 s."
    assert sentence in browser.text(".trouble")
    server.script.refuse = None
    browser.click(".trouble .button")
    browser.until(lambda: shown(browser) == "Hello there.", "an answer")


def test_a_refused_request(browser, serve):
    browser.expected = ("400",)
    browser.open(serve(refuse=(400, "the prompt is longer than the context", {})).url)
    browser.send("Hello")
    assert "the prompt is longer than the context." in browser.text(".trouble")


def test_a_key(browser, serve):
    browser.expected = ("401",)
    server = serve(key="secret")
    size = {"width": 1000, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.driver.get(server.url)
    browser.until(lambda: browser.all("#key"), "the question")
    browser.find("#key").send_keys("wrong", Keys.ENTER)
    browser.until(lambda: "refused this key" in browser.text("dialog .problem"), "a refusal")
    browser.press(Keys.ESCAPE)
    browser.click("#notice .button")
    browser.find("#key").send_keys("secret", Keys.ENTER)
    browser.until(lambda: browser.find("#prompt").is_enabled(), "the page")
    browser.send("Hello")
    assert shown(browser) == "Hello there."
    assert browser.script("return JSON.stringify(localStorage)").find("secret") < 0
    browser.driver.refresh()
    browser.until(lambda: browser.find("#prompt").is_enabled(), "the key is still known")


def test_a_model_without_chat_template(browser, serve):
    server = serve(text="\n    return x")
    server.script.props |= {"chat": False, "mode": "completion"}
    browser.open(server.url)
    browser.send("def f(x):")
    (body,) = server.bodies()
    assert body["prompt"] == "def f(x):"
    assert shown(browser) == "def f(x):\n    return x"
    assert len(browser.all(".message")) == 1
    browser.find("#prompt").send_keys(Keys.ENTER)
    browser.until(lambda: len(server.bodies()) == 2, "it goes on")
    browser.answered()
    assert server.bodies()[-1]["prompt"] == "def f(x):\n    return x"


def test_a_server_without_structured_output(browser, serve):
    server = serve()
    server.script.props["structured"] = False
    browser.open(server.url)
    browser.press(Keys.ALT, "s")
    assert not browser.find("#set-schema").is_enabled()
    assert "gemtp-native[grammar]" in browser.text("#hint-schema")
    browser.press(Keys.ESCAPE)


# ---------------------------------------------------------------- for everyone


def test_dark_and_light(browser, serve):
    server = serve()
    ground = "return getComputedStyle(document.body).backgroundColor"
    browser.open(server.url, prefers_color_scheme="dark")
    dark = browser.script(ground)
    browser.media(prefers_color_scheme="light")
    light = browser.script(ground)
    assert dark != light
    browser.press(Keys.ALT, "s")
    browser.click("#theme-dark")
    assert browser.script(ground) == dark
    browser.press(Keys.ESCAPE)
    browser.driver.refresh()
    assert browser.script(ground) == dark


@pytest.mark.parametrize("width", [320, 360, 820])
def test_small_screens_do_not_scroll_sideways(browser, serve, width):
    browser.open(serve(text=MARKDOWN + LONG).url, width=width, height=640)
    assert browser.sideways() <= 0
    browser.send("A question " + "x" * 200)
    assert browser.sideways() <= 0
    edges = "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility())"
    edges += ".map(e => e.getBoundingClientRect()).flatMap(r => [r.left, r.right])"
    row = browser.script(edges, ".underline label, #live > *, #open-help")
    assert row == sorted(row), "nothing lies over its neighbour"
    assert browser.find("#draft").is_displayed()
    assert "Drafts" in browser.find(".underline label").text, "what is Auto"
    assert browser.find("#model").size["width"] > 30
    assert browser.find(".context meter").is_displayed()
    browser.script("document.querySelector('#scroll').scrollTop = 0")
    for open_it in (("#open-settings",), ("#open-help",), ("#open-export",)):
        browser.click(*open_it)
        assert browser.sideways() <= 0, open_it
        browser.press(Keys.ESCAPE)
    browser.press(Keys.ALT, "r")
    browser.until(lambda: browser.all(".verdict[data-equal]"), "a verdict")
    assert browser.sideways() <= 0
    browser.press(Keys.ESCAPE)
    if width < 760:
        browser.click("#open-sidebar")
        browser.until(lambda: browser.find("#new").is_displayed(), "the list")
        assert browser.focused() == "new"
        browser.press(Keys.ESCAPE)
        browser.until(lambda: not browser.find("#new").is_displayed(), "the list is gone")


def test_the_keyboard_alone(browser, serve):
    browser.open(serve(text="One two three four five six seven eight nine.").url)
    assert browser.focused() == "prompt"
    browser.press("Hello")
    browser.press(Keys.ENTER)
    browser.answered()
    order = []
    for _ in range(40):
        browser.press(Keys.SHIFT, Keys.TAB)
        order.append(browser.focused())
        if order[-1].startswith("Answer."):
            break
    assert order[0].startswith("Race"), order
    assert order[-1].startswith("Answer."), order
    browser.press(Keys.ARROW_RIGHT)
    browser.press(Keys.ARROW_RIGHT)
    assert "round 1 of" in browser.text("#tip")
    assert "place 2 of its drafts" in browser.text("#tip")
    assert "place 2 of its drafts" in browser.text("#said p:last-child")
    assert "Hello" not in browser.text("#tip")
    browser.press("/")
    assert browser.focused() == "prompt"
    assert not browser.find("#tip").is_displayed()
    browser.press(Keys.ALT, "s")
    assert browser.script("return Boolean(document.activeElement.closest('dialog'))")
    browser.press(Keys.ESCAPE)
    assert browser.focused() == "prompt"
    browser.press(Keys.ALT, "n")
    assert not browser.all(".message")


def test_what_is_said_aloud(browser, serve):
    browser.open(serve(text="First paragraph.\n\nSecond paragraph.", round_seconds=0.05).url)
    browser.send("Hello")
    said = browser.text("#said")
    assert browser.find("#said").get_attribute("aria-live") == "polite"
    assert "The model is answering." in said
    assert "The answer is complete" in said


def test_reduced_motion_skips_the_replay(browser, serve):
    browser.open(serve(text=LONG, round_seconds=0.01).url, prefers_reduced_motion="reduce")
    browser.send("Hello")
    browser.press(Keys.ALT, "r")
    browser.until(lambda: browser.all(".verdict[data-equal]"), "a verdict")
    browser.script("document.querySelector('#race-speed').value = '16'")
    browser.click("dialog .row .button")
    assert browser.all(".verdict[data-equal]"), "at once"
    browser.press(Keys.ESCAPE)
