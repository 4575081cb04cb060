"""A real browser for tests of the page: Chromium, driven by Selenium."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed: pip install '.[browser]'")

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
PATIENCE = 20.0  # seconds


class Browser:
    """A browser window, and the actions of tests in it."""

    expected: tuple[str, ...] = ()
    """Parts of warnings that a test provokes."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ):
            options.add_argument(argument)
        options.binary_location = CHROMIUM or ""
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))

    # ---------------------------------------------------------------- the window

    def open(self, url: str, width: int = 1280, height: int = 860, **features: str) -> None:
        """Opens a page. features: of media queries, such as prefers_color_scheme="dark"."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.media(**features)
        self.driver.get(url)
        self.until(lambda: self.script("return !document.querySelector('#prompt')?.disabled"))

    def set_settings(self, **values: Any) -> None:
        """Loads the page again with these settings, named as in request.js."""
        self.script(
            "const old = JSON.parse(localStorage.getItem('gemtp.settings') ?? '{}');"
            "localStorage.setItem('gemtp.settings', JSON.stringify({...old, ...arguments[0]}))",
            values,
        )
        self.driver.refresh()
        self.until(lambda: self.script("return !document.querySelector('#prompt')?.disabled"))

    def media(self, **features: str) -> None:
        named = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": named})

    def script(self, source: str, *args: Any) -> Any:
        return self.driver.execute_script(source, *args)

    def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Waits for the condition's first truthy value and returns it."""
        end = time.monotonic() + PATIENCE
        while True:
            value = None
            with contextlib.suppress(StaleElementReferenceException):  # drawn anew meanwhile
                value = condition()
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"never came: {what or condition}; log: {self.complaints()}")
            time.sleep(0.02)

    # ---------------------------------------------------------------- the page

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Returns the text of elements, visible or not; "" if there are none."""
        texts = "[...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        return self.script(f"return {texts}.join('\\n')", selector)

    def press(self, *keys: str) -> None:
        """Sends keys to the focused element."""
        actions = webdriver.ActionChains(self.driver)
        held = [k for k in keys[:-1] if k in (Keys.ALT, Keys.SHIFT, Keys.CONTROL)]
        for key in held:
            actions.key_down(key)
        for key in keys[len(held) :]:
            actions.send_keys(key)
        for key in held:
            actions.key_up(key)
        actions.perform()

    def send(self, text: str, wait: bool = True) -> None:
        self.find("#prompt").send_keys(text, Keys.ENTER)
        if wait:
            self.answered()

    def answered(self) -> None:
        self.until(
            lambda: self.script(
                "return document.querySelector('.message.assistant')"
                " && !document.querySelector('#thread[aria-busy]')"
            ),
            "the end of an answer",
        )

    def click(self, selector: str) -> None:
        self.until(lambda: self.all(selector), selector)
        self.find(selector).click()

    def focused(self) -> str:
        """Returns a name for the focused element."""
        return self.script(
            "const e = document.activeElement;"
            "return e.id || e.getAttribute('aria-label') || e.textContent.trim() || e.tagName"
        )

    def sideways(self) -> int:
        """Returns the pixels by which the page, or the open dialog, could be scrolled sideways."""
        return self.script(
            "const roots = [document.documentElement, document.body,"
            " ...document.querySelectorAll('#scroll, header, #composer, dialog, .dialog-body'),"
            " ...document.querySelectorAll('.fields')];"
            "return Math.max(...roots.map(e => e.scrollWidth - e.clientWidth), "
            " ...[...document.querySelectorAll('body *')].filter(e =>"
            "  e.checkVisibility()"
            "  && !e.closest('.unseen, .skip, pre, .table, .formula, #sidebar, #to-end'))"
            " .map(e => Math.round(e.getBoundingClientRect().right - innerWidth)))"
        )

    # ---------------------------------------------------------------- its logs

    def complaints(self) -> list[str]:
        """Returns the browser's warnings since the last call."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
        ]

    def addresses(self) -> list[str]:
        """Returns the URLs of all requests since the last call."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return found


def shown(browser: Browser) -> str:
    """Returns the text of the latest answer."""
    return browser.script(
        "return [...document.querySelectorAll('.message.assistant > .body')].at(-1).textContent"
    )
