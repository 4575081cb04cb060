"""Models that several tests share, built once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import checkpoints
import gemtp_native
from gemtp_native.cli import main
from scripted_model import scripted_model
from serving import Server, serving

if TYPE_CHECKING:
    from page_browser import Browser


@pytest.fixture(scope="session", autouse=True)
def nobodys_machine(tmp_path_factory):
    """No test reads or writes a profile, or a proof, of whoever runs it. Models open on the CPU,
    also where there is a GPU, unless a test, or whoever runs it, names another device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMTP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        if "GEMTP_DEVICE" not in os.environ:
            patch.setenv("GEMTP_DEVICE", "cpu")
        yield


@pytest.fixture
def hangups_heard():
    """Programs that a test starts hear SIGHUP, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def gemtp_main(capsys):
    """main(argv) in this process -> (exit code, stdout, stderr)."""

    def call(*args: object) -> tuple[int, str, str]:
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as e:  # argparse
            code = e.code
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> checkpoints.Pair:
    """An E2B-like pair in F32 whose drafter is often, not always, right; with a long context."""
    folder = tmp_path_factory.mktemp("pair")
    checkpoints.agreeing("e2b", folder)
    for part in ("target", "drafter"):
        _lengthen_context(folder / part, 1 << 17)
    return checkpoints.to_gguf(folder, folder, "f32")


@pytest.fixture(scope="session")
def other_pair(tmp_path_factory) -> checkpoints.Pair:
    """A 12B-like pair: other widths, another vocabulary, a plain head."""
    folder = tmp_path_factory.mktemp("other")
    return checkpoints.to_gguf(checkpoints.committed("12b", folder), folder, "q8_0")


@pytest.fixture(scope="session")
def demo_server(tmp_path_factory, nobodys_machine) -> Iterator[Server]:
    """`gemtp serve` of the shipped pair."""
    pytest.importorskip("uvicorn")
    target, drafter = gemtp_native.demo_models()
    options = ["--drafter", drafter, "--context", 2048, "--parallel", 8, "--queue", 40]
    with serving(tmp_path_factory.mktemp("serve"), target, *options) as server:
        yield server


@pytest.fixture(scope="session")
def scripted(tmp_path_factory) -> Path:
    return scripted_model(tmp_path_factory.mktemp("scripted") / "scripted.gguf")


@pytest.fixture(scope="session")
def scripted_server(tmp_path_factory, nobodys_machine, scripted) -> Iterator[Server]:
    """`gemtp serve` of a model that thinks and calls a tool."""
    pytest.importorskip("uvicorn")
    with serving(tmp_path_factory.mktemp("serve"), scripted, "--context", 1024) as server:
        yield server


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    from page_browser import CHROMIUM, DRIVER, Browser

    if not CHROMIUM or not DRIVER:
        pytest.skip(
            "chromium and chromedriver are not installed (Debian: chromium chromium-driver)"
        )
    browser = Browser()
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """Afterwards: nothing was asked of others, and the browser had nothing to complain of but what
    a test put into `expected`."""
    chromium.complaints()
    chromium.addresses()
    chromium.expected = ()
    yield chromium
    own = ("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:,")
    assert not [a for a in chromium.addresses() if not a.startswith(own)]
    assert not [c for c in chromium.complaints() if not any(e in c for e in chromium.expected)]


def _lengthen_context(folder: Path, length: int) -> None:
    config = checkpoints.read_config(folder)
    for part in (config, config.get("text_config", {})):
        if "max_position_embeddings" in part:
            part["max_position_embeddings"] = length
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
