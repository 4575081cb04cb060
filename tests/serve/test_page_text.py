"""What the page makes of an answer's text in a real browser: formulas and the colours of code."""

from __future__ import annotations

import pytest

from page_browser import Keys, shown

FORMULAS = r"""
Inline \(a+b\), $\frac{1}{2}$, and $5 and $6 are prices.

\[
\sum_{i=1}^{n} x_i
+ \int_0^1 f(x)\,dx = \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}
\]

Not known: \(\foo{x}_1 *y*\).
"""
HOSTILE = (
    r"\(\text{<img src=x onerror=window.hacked=1>}\) $\href{javascript:1}{x}$ "
    r"$\text{<script>window.hacked=2</script>}$ \[\begin{pmatrix}<b>\end{pmatrix}\]"
    "\n\n$"
    + r"\frac" * 150
    + "$\n\n$"
    + "{" * 900
    + "$\n\n$a\u202eb$ \\("
    + "x_" * 4000
    + "\\)\n\n"
    + "\\(" * 3000
)
CODE = '''\
```python
@cache
def f(x: int) -> str:  # a comment
    """A doc
    string."""
    return f"a{x}" or None + 0x1F
```

```json
{"key": true}
```

```diff
-a
+b
```
'''
CONTRAST = """
const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
const light = (colour) => {
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data;
  return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
};
const ground = light(getComputedStyle(document.querySelector(".code")).backgroundColor);
return Object.fromEntries([...document.querySelectorAll("pre [class^=code-]")].map((e) => {
  const [low, high] = [light(getComputedStyle(e).color), ground].sort((a, b) => a - b);
  return [e.className, (high + 0.05) / (low + 0.05)];
}));
"""
COLOURS = """
return new Set([...document.querySelectorAll("pre *")].map(e => getComputedStyle(e).color)).size
"""


def test_formulas(browser, serve):
    browser.open(serve(text=FORMULAS).url, width=360, height=740)
    browser.send("Hello")
    namespace = "http://www.w3.org/1998/Math/MathML"
    found = browser.script(
        "return [...document.querySelectorAll('.prose math')]"
        ".map(e => [e.namespaceURI, e.getAttribute('display'), e.getAttribute('alttext')])"
    )
    display = FORMULAS[FORMULAS.index("\\[") : FORMULAS.index("\\]") + 2]
    assert found == [
        [namespace, "inline", "\\(a+b\\)"],
        [namespace, "inline", "$\\frac{1}{2}$"],
        [namespace, "block", display],
    ]
    assert "$5 and $6 are prices." in shown(browser)
    assert "Not known: \\(\\foo{x}_1 *y*\\)." in shown(browser)
    height = "return document.querySelector(arguments[0]).getBoundingClientRect().height"
    assert browser.script(height, "mfrac") > 1.5 * browser.script(height, "mfrac mn"), "one above"
    top = "return document.querySelector(arguments[0]).getBoundingClientRect().top"
    assert browser.script(top, "munderover > :last-child") < browser.script(
        top, "munderover > mo"
    ), "limits"
    assert browser.find(".formula").get_attribute("aria-label") == "Formula"
    assert browser.sideways() <= 0


def test_hostile_formulas_are_text(browser, serve):
    browser.open(serve(text=HOSTILE).url, width=360, height=740)
    browser.set_settings(max_tokens=99_999)
    browser.send("Hello")
    assert browser.script("return window.hacked") is None
    assert not browser.all("#thread :is(script, img, b:not(.legend b, .figures b), .prose a)")
    assert "<img src=x onerror=window.hacked=1>".replace(" ", "\u00a0") in shown(browser)
    assert "$\\href{javascript:1}{x}$" in shown(browser)
    assert "U+202E" in shown(browser)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_code_has_colours_where_tints_are_off(browser, serve, theme):
    browser.open(serve(text=CODE).url, prefers_color_scheme=theme)
    browser.send("Hello")
    assert browser.script(COLOURS) == 1, "tints are on"
    browser.press(Keys.ALT, "t")
    assert browser.script(COLOURS) > 6
    contrast = browser.script(CONTRAST)
    assert len(contrast) == 11, contrast
    assert min(contrast.values()) >= 4.5, contrast
    assert browser.text("pre:first-of-type .code-comment") == "# a comment"
    assert browser.text("pre code").startswith("@cache\ndef f(x: int)")


def test_code_grows_without_flicker(browser, serve):
    """Lines that are complete stay the same elements."""
    lines = 300
    text = (
        "```python\n" + "".join(f"x_{i} = {i}  # line\n" for i in range(lines)) + "```\n\nThe end."
    )
    browser.open(serve(text=text, round_seconds=0.002).url)
    browser.set_settings(max_tokens=9999)
    browser.script(
        "window.removed = 0; window.first = null;"
        "new MutationObserver((changes) => {"
        "  const comment = document.querySelector('pre code > .code-comment');"
        "  if (!document.querySelector('#thread[aria-busy]')) return;"
        "  if (comment) window.first ??= comment;"
        "  if (window.first && !window.first.isConnected) window.removed += 1;"
        "}).observe(document.querySelector('#thread'), {childList: true, subtree: true})"
    )
    browser.send("Hello")
    assert browser.script("return window.first !== null")
    assert browser.script("return window.removed") == 0
    assert browser.text("pre code") == "\n".join(f"x_{i} = {i}  # line" for i in range(lines))
    assert shown(browser).endswith("The end.")


def test_arrows_meet_each_token_once(browser, serve):
    """Colours of code split tokens into several elements."""
    browser.open(serve(text="```js\nlet a = 'x y z w';\n```").url)
    browser.send("Hello")
    spans = browser.script(
        "return [...document.querySelectorAll('.body .token')].map(e => e.dataset.token)"
    )
    browser.script("document.querySelector('.assistant > .body').focus()")
    met = []
    for _ in range(len(set(spans))):
        browser.press(Keys.ARROW_RIGHT)
        met.append(browser.script("return document.querySelector('.marked').dataset.token"))
    assert met == list(dict.fromkeys(spans))
