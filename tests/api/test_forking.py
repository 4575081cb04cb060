"""fork() while threads are at work with a model: the child can use it or is told why not, and
neither process waits for what the other has."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork()")

PRELUDE = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import gemtp_native as gemtp
from gemtp_native import _core
target, drafter = gemtp.demo_models()
model = gemtp.Model(target, drafter=drafter, threads=2)
OPTIONS = dict(max_tokens=30, ignore_eos=True, seed=3, temperature=0.7)
text = model.generate("def f(", **OPTIONS).text
other = gemtp.Model(target, threads=2)

def child(work):
    "What work() says in a child, which has five seconds."
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = work()
        except gemtp.Error as e:
            said = f"{type(e).__name__}: {e}"
        os.write(write, said.encode())
        if os.environ.get("EXIT") == "whole":
            sys.exit(0)
        os._exit(0)
    os.close(write)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.002)
    else:
        os.kill(pid, 9)
        raise AssertionError("the child hangs")
    assert status == 0, status
    with os.fdopen(read) as f:
        return f.read()

LOST = ("ArgumentError: the model was at work in another thread when this process was forked; "
        "open it again in this process, or fork while nothing is at work")
"""

BUSY = {
    "generate": "model.generate('while', max_tokens=100, ignore_eos=True)",
    "long prompt": "model.generate('x y z ' * 600, max_tokens=1)",
    "sessions": "model.session().fork().close()",
    "cache": "model.clear_cache()",
    "logits": "model.logits([2, 5, 6] * 50)",
    "grammar": "model.generate('a', max_tokens=30, logits_processor=lambda t, l: None)",
}


def run(script: str, exit: str = "") -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script],
        capture_output=True,
        text=True,
        timeout=120,
        env={**__import__("os").environ, "EXIT": exit},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("busy", BUSY)
@pytest.mark.parametrize("exit", ["at once", "whole"])
def test_while_another_thread_is_at_work(busy: str, exit: str) -> None:
    script = f"""
stop = False
def work():
    while not stop:
        {BUSY[busy]}
threads = [threading.Thread(target=work) for _ in range(2)]
for t in threads:
    t.start()
said = []
for i in range(8):
    said.append(child(lambda: model.generate("def f(", **OPTIONS).text))
    time.sleep(0.001 * (i % 7))
stop = True
for t in threads:
    t.join()
assert set(said) <= {{text, LOST}}, said
assert model.generate("def f(", **OPTIONS).text == text
assert child(lambda: model.generate("def f(", **OPTIONS).text) == text
"""
    run(script, exit)


def test_a_model_that_was_at_work_can_be_closed_in_a_child() -> None:
    run("""
stop = False
session = model.session()
session.append("def f(")
def work():
    while not stop:
        model.generate('while', max_tokens=300, ignore_eos=True)
def keep():
    while not stop:
        session.generate(max_tokens=20, ignore_eos=True)
        session.rewind(5)
threads = [threading.Thread(target=work), threading.Thread(target=keep)]
for t in threads:
    t.start()
def close():
    model.close()
    model.close()
    return "closed"
def read():
    try:
        return str(len(session.tokens))
    except gemtp.Error as e:
        return f"{type(e).__name__}: {e}"
said = []
for i in range(20):
    said += [child(close), child(read)]
    time.sleep(0.001 * (i % 7))
stop = True
for t in threads:
    t.join()
assert set(said[::2]) == {"closed"}, said
assert all(s == LOST or s.isdecimal() for s in said[1::2]), said
assert LOST in said
""")


def test_a_model_that_was_not_at_work_is_the_childs_too() -> None:
    run("""
stop = False
def work():
    while not stop:
        other.generate('while', max_tokens=100, ignore_eos=True)
thread = threading.Thread(target=work)
thread.start()
for _ in range(10):
    assert child(lambda: model.generate("def f(", **OPTIONS).text) == text
stop = True
thread.join()
""")


def test_a_stream_between_two_pieces_goes_on_in_the_child() -> None:
    run("""
stream = model.stream("def f(", **OPTIONS)
begun = next(stream)
assert child(lambda: begun + "".join(stream)) == text
assert begun + "".join(stream) == text
""")


def test_a_fork_within_a_call_of_the_core() -> None:
    """The child comes back to a pass whose threads it has not."""
    run("""
said = []
def fork(tokens, logits):
    if not said:
        said.append(None)
        said.append(child(lambda: "a child"))
assert model.generate("def f(", logits_processor=fork, **OPTIONS).text == text
assert said[1] == "a child"
forked = []
def split(tokens, logits):
    if not forked:
        forked.append(os.fork())
try:
    out = model.generate("def f(", logits_processor=split, **OPTIONS).text
except gemtp.ArgumentError as e:
    out = f"ArgumentError: {e}"
if forked[0] == 0:
    os._exit(0 if out == LOST else 7)
assert out == text
assert os.waitpid(forked[0], 0)[1] == 0
""")


def test_multiprocessing_forks() -> None:
    run("""
import multiprocessing
def work(_):
    return model.generate("def f(", **OPTIONS).text
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(work, range(3)) == [text] * 3
""")
