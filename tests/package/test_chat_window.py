"""The chat window of tools/examples, on a screen that nobody sees: typed to, looked at, read.

Needs what test_c_api.py needs, FLTK (libfltk1.3-dev), Xvfb and xdotool; with ImageMagick,
GEMTP_SCREENSHOTS names a folder for pictures.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import c_library
import gemtp_native as gemtp

TOOLS = ("Xvfb", "xdotool")
pytestmark = [
    c_library.needs_build,
    pytest.mark.skipif(
        not all(map(shutil.which, TOOLS)), reason=f"{' or '.join(TOOLS)} is not installed"
    ),
    pytest.mark.skipif(
        not Path("/usr/include/FL/Fl.H").exists(), reason="FLTK (libfltk1.3-dev) is not installed"
    ),
]

SCREENS = [(800, 480), (1920, 1080)]
TOKENS = 40


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    prefix = c_library.install(tmp_path_factory.mktemp("installed"))
    return c_library.build_examples(prefix, tmp_path_factory.mktemp("examples")) / "chat"


class Screen:
    """A virtual screen with one window on it."""

    def __init__(self, width: int, height: int, folder: Path):
        self.size = f"{width}x{height}"
        self.transcript = folder / "transcript.txt"
        self._errors = (folder / "errors.txt").open("w+b")
        read, write = os.pipe()
        self._server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{self.size}x24"],
            pass_fds=[write],
            stderr=subprocess.DEVNULL,
        )
        os.close(write)
        with os.fdopen(read) as lines:
            display = lines.readline().strip()
        self._environment = {**os.environ, "DISPLAY": f":{display}", "HOME": str(folder)}
        self._window: subprocess.Popen[bytes] | None = None

    def open(self, *command: object) -> None:
        options = ["--transcript", self.transcript, "--size", self.size]
        self._window = subprocess.Popen(
            list(map(str, [*command, *options])), env=self._environment, stderr=self._errors
        )
        self._xdotool("search", "--sync", "--onlyvisible", "--name", "gemtp", "windowfocus")

    def _xdotool(self, *args: str) -> None:
        subprocess.run(["xdotool", *args], env=self._environment, check=True, timeout=60)

    def title(self) -> str:
        done = subprocess.run(
            ["xdotool", "search", "--onlyvisible", "--name", "gemtp", "getwindowname"],
            env=self._environment,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def type(self, text: str) -> None:
        for i, line in enumerate(text.split("\n")):
            if i:
                self.press("shift+Return")
            if line:
                self._xdotool("type", "--delay", "5", line)

    def press(self, *keys: str) -> None:
        self._xdotool("key", *keys)

    def read(self, longer_than: int = 0, seconds: float = 60) -> str:
        """The conversation, once an answer is complete and there is more of it than before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self._window is not None
            assert self._window.poll() is None, "the window is gone"
            if self.transcript.exists():
                text = self.transcript.read_text(encoding="utf-8")
                if len(text) > longer_than:
                    return text
            time.sleep(0.05)
        raise AssertionError("no answer came")

    def picture(self, name: str) -> None:
        if (folder := os.environ.get("GEMTP_SCREENSHOTS")) and shutil.which("import"):
            time.sleep(0.3)
            path = Path(folder) / f"{name}-{self.size}.png"
            subprocess.run(["import", "-window", "root", path], env=self._environment, check=True)

    def close(self) -> str:
        """What the window wrote to its console."""
        if self._window is not None:
            self._window.send_signal(signal.SIGTERM)
            self._window.wait(20)
        self._server.terminate()
        self._server.wait(20)
        self._errors.seek(0)
        with self._errors:
            return self._errors.read().decode()


@pytest.fixture(params=SCREENS, ids=lambda s: f"{s[0]}x{s[1]}")
def screen(request, tmp_path):
    made = Screen(*request.param, tmp_path)
    yield made
    # The console is silent; Xlib's word when the screen goes first aside.
    assert made.close().replace("X I/O error", "").strip() == ""


@pytest.fixture(scope="module")
def model():
    target, drafter = gemtp.demo_models()
    return gemtp.Model(target, drafter=drafter)


def test_it_goes_on_with_a_text_as_python_does(program, screen, model):
    first, second = "def read_lines(path):\n    ", "\n\ndef main():"
    screen.open(program, *gemtp.demo_models(), "--max-tokens", TOKENS)  # which complete
    assert screen.title() == "target.gguf – gemtp"
    screen.type(first)
    screen.press("Return")
    begun = first + model.generate(first, max_tokens=TOKENS).text
    assert screen.read() == begun
    screen.picture("complete")
    # Behind the tokens that are there, not behind their text anew.
    ids = model.tokenize(first)
    ids += model.generate(first, max_tokens=TOKENS).tokens
    ids += model.tokenize(second, add_bos=False)
    screen.type(second)
    screen.press("Return")
    text = screen.read(longer_than=len(begun))
    assert text == begun + second + model.generate(ids, max_tokens=TOKENS).text


def test_it_chats_as_python_does(program, screen, model):
    screen.open(
        program, *gemtp.demo_models(), "--chat", "--dark", "--max-tokens", TOKENS, "--system", "Be."
    )
    messages = [{"role": "system", "content": "Be."}]
    expected = ""
    for question in ("Open a file", "And close it\nagain"):
        screen.type(question)
        screen.press("Return")
        messages.append({"role": "user", "content": question})
        ids = rendered(model, messages)
        answer = model.generate(ids, max_tokens=TOKENS).text
        messages.append({"role": "assistant", "content": answer})
        before = len(expected)
        expected += ("\n\n" if expected else "") + f"You\n{question}\n\nModel\n{answer}"
        assert screen.read(longer_than=before) == expected
    screen.picture("chat")
    screen.transcript.unlink()
    screen.press("ctrl+n")
    screen.type("Anew")
    screen.press("Return")
    assert screen.read().startswith("You\nAnew\n\nModel\n")


def rendered(model: gemtp.Model, messages: list[dict[str, str]]) -> list[int]:
    """In the built-in format; the demo brings a template of its own."""
    from gemtp_native import _core
    from gemtp_native.chat.messages import prepared

    text, literal = _core.render_chat(prepared(messages), [], False, True)
    tokenizer = gemtp.Tokenizer(gemtp.demo_models()[0])
    return tokenizer._core.encode_chat(text, literal)


def test_esc_stops_and_the_conversation_goes_on(program, screen):
    screen.open(program, *gemtp.demo_models(), "--complete", "--context", 16384)
    screen.type("x = 1")
    screen.press("Return")
    time.sleep(0.5)
    screen.press("Escape")
    stopped = screen.read(seconds=10)  # it would have written for longer
    assert stopped.startswith("x = 1")
    screen.picture("stopped")
    screen.type("y = 2")
    screen.press("Return")
    time.sleep(0.5)
    screen.press("Escape")
    assert screen.read(len(stopped), seconds=10).startswith(stopped + "y = 2")


def test_errors_are_in_the_window(program, screen):
    screen.open(program, *gemtp.demo_models(), "--complete", "--context", 16, "--max-tokens", 4)
    screen.type("a b c d e f g h i j k l m n o p q r s t u v")
    screen.press("Return")
    text = screen.read()
    assert "the context holds 16" in text
    screen.picture("error")
