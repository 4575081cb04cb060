"""Python ends while threads are at work in the core: quietly, at once, and with the exit code that
it would have without them."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

import checkpoints

PRELUDE = """
import asyncio, sys, threading, time
import gemtp_native as gemtp
from gemtp_native import _core
target, drafter = gemtp.demo_models()
model = gemtp.Model(target, drafter=drafter, threads=2)
ids = model.tokenize("def area(self):\\n" * 40, add_bos=True)[:400]
def for_ever(work):
    while True:
        work()
def slow(tokens, logits):
    time.sleep(0.001)
async def read():
    async for _ in model.stream('def f(', max_tokens=400, ignore_eos=True):
        pass
"""

WORK = {
    "generate": "model.generate('def f(', max_tokens=400, ignore_eos=True)",
    "stream": "[p for p in model.stream('def f(', max_tokens=400, ignore_eos=True)]",
    "session": "model.session().generate('def f(', max_tokens=100, ignore_eos=True)",
    "chat": "model.chat([{'role': 'user', 'content': 'Hi'}], max_tokens=200)",
    "template": "model.chat_prompt([{'role': 'user', 'content': 'Hi'}])",
    "grammar": "model.generate('a', regex=f'{time.monotonic_ns()}', max_tokens=3)",
    "async stream": "asyncio.run(read())",
    "tokenize": "model.tokenize('a b c d e f g ' * 20000)",
    "logits": "model.logits(ids)",
    "score": "model._engine.score(ids, 1)",
    "draft": "model.draft(ids, 4)",
    "bench": "_core.Bench(model._engine, False).prefill(200)",
    "load": "gemtp.Model(target, drafter=drafter)",
    "load with progress": "gemtp.Model(target, drafter=drafter, progress=lambda f: None)",
    "encode": "_core.encode(2, np.ones(320000, np.float32))",
    "convert": "convert(folder, os.path.join(folder, f'{threading.get_ident()}.gguf'), 'q4_0', "
    "tokenizer=False, progress=False)",
    "logits_processor": "model.generate('a', max_tokens=400, logits_processor=slow)",
}


CONVERT = """
import os, shutil, tempfile
from gemtp_native.make.convert import convert
folder = shutil.copytree({source!r}, os.path.join(tempfile.mkdtemp(), "model"))
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + script], capture_output=True, text=True, timeout=60
    )


def daemons(work: str, end: str, threads: int = 3) -> str:
    numpy = "import numpy as np\n" if "np." in work else ""
    if work == WORK["convert"]:
        numpy = CONVERT.format(source=str(checkpoints.GOLDEN / "12b" / "target"))
    return f"""
{numpy}{work}
for _ in range({threads}):
    threading.Thread(target=for_ever, args=(lambda: {work},), daemon=True).start()
time.sleep(0.15)
print("end", flush=True)
begin = time.monotonic()
import atexit, os
atexit.register(lambda: None)
{end}
"""


def quiet(done: subprocess.CompletedProcess[str], code: int = 0) -> None:
    assert done.stderr == ""
    assert (done.returncode, done.stdout) == (code, "end\n")


@pytest.mark.parametrize("work", WORK)
def test_daemon_threads(work: str) -> None:
    if work == "grammar":
        pytest.importorskip("llguidance")
    script = daemons(WORK[work], "")
    quiet(run(script))


@pytest.mark.parametrize("call", ["logits(ids[:3])", "score(ids[:3])", "draft(ids[:3], 2)"])
@pytest.mark.parametrize("seconds", [0.02, 0.1])
def test_while_the_first_array_is_made(call: str, seconds: float) -> None:
    """NumPy, which takes a while to import, is not imported before."""
    script = f"""
threading.Thread(target=lambda: model.{call}, daemon=True).start()
time.sleep({seconds})
print("end", flush=True)
"""
    quiet(run(script))


def test_the_end_is_not_waited_for() -> None:
    script = daemons(WORK["logits_processor"], "print(time.time())")
    done = run(script)
    ended = time.time()
    assert done.returncode == 0, done.stderr
    assert ended - float(done.stdout.split()[-1]) < 2


def test_an_exit_code() -> None:
    quiet(run(daemons(WORK["generate"], "sys.exit(3)")), 3)


def test_ctrl_c() -> None:
    interrupt = """
import _thread, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
_thread.interrupt_main()
time.sleep(5)
"""
    done = run(daemons(WORK["stream"], interrupt))
    assert done.stdout == "end\n"
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert done.stderr.count("Traceback") == 1
    assert done.returncode in (1, 130, -2)


def test_a_call_that_does_not_come_back() -> None:
    """Longer than the end waits: its thread sleeps where Python would end it."""
    script = """
def long(tokens, logits):
    time.sleep(1.5)
work = lambda: model.generate('a', max_tokens=9, ignore_eos=True, logits_processor=long)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
class Last:
    def __del__(self, sleep=time.sleep):
        sleep(1.5)
sys.last = Last()
print("end", flush=True)
"""
    quiet(run(script))


def test_an_exit_handler_that_waits_for_a_thread_gets_it() -> None:
    script = """
import atexit
stop = threading.Event()
def work():
    try:
        while not stop.is_set():
            model.generate('a', max_tokens=40, ignore_eos=True, logits_processor=slow)
    except gemtp.CancelledError:
        pass
thread = threading.Thread(target=work, daemon=True)
thread.start()
time.sleep(0.2)
def end():
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    print("end", flush=True)
"""
    quiet(run(script + "atexit.register(end)\n"))  # before the core's handler
    early = (
        "import atexit\nhandlers = []\natexit.register(lambda: [h() for h in handlers])\n"
        + PRELUDE
        + script
        + "handlers.append(end)\n"
    )
    done = subprocess.run([sys.executable, "-c", early], capture_output=True, text=True, timeout=60)
    quiet(done)


def test_an_exit_handler_generates() -> None:
    script = """
import atexit
def end():
    assert model.generate('a', max_tokens=5, logits_processor=slow).tokens
    print("end", flush=True)
"""
    quiet(run(script + "atexit.register(end)\n"))


def test_an_exit_handler_that_waits_for_a_chat_gets_it() -> None:
    early = """
import atexit
def end():
    thread.join(20)
    assert not thread.is_alive()
    print("end", flush=True)
atexit.register(end)  # called when processes have been ended
"""
    script = """
def work():
    try:
        while True:
            model.chat_prompt([{'role': 'user', 'content': 'Hi'}])
    except gemtp.CancelledError:
        pass
thread = threading.Thread(target=work, daemon=True)
thread.start()
time.sleep(0.5)
"""
    command = [sys.executable, "-c", early + PRELUDE + script]
    quiet(subprocess.run(command, capture_output=True, text=True, timeout=60))


def test_an_exit_handler_chats() -> None:
    script = """
import atexit
def end():
    assert model.chat_prompt([{'role': 'user', 'content': 'Hi'}])
    print("end", flush=True)
atexit.register(end)
model.chat_prompt([{'role': 'user', 'content': 'Hi'}])
"""
    quiet(run(script))


@pytest.mark.parametrize("work", ["generate", "chat_prompt"])
def test_threads_that_python_waits_for(work: str) -> None:
    calls = {
        "generate": "pool.submit(model.generate, 'def f(', max_tokens=100, ignore_eos=True)",
        "chat_prompt": "pool.submit(model.chat_prompt, [{'role': 'user', 'content': 'Hi'}])",
    }
    script = f"""
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(3)
for _ in range(3):
    {calls[work]}
print("end", flush=True)
"""
    quiet(run(script))


@pytest.mark.parametrize("before", ["", "import gemtp_native._core"])
def test_another_interpreter_is_told(before: str) -> None:
    """Where a call of the core would wait for ever."""
    script = f"""
{before}
try:
    import _xxsubinterpreters as interpreters
except ImportError:
    import _interpreters as interpreters
import sys
interpreter = interpreters.create()
interpreters.run_string(interpreter, f"import sys; sys.path[:] = {{sys.path!r}}")
interpreters.run_string(interpreter, "try:\\n  import gemtp_native._core\\n"
                                     "except ImportError as e:\\n  print(e)")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    ours = "gemtp_native works in the main interpreter of a process only"
    assert done.stdout.startswith((ours, "module gemtp_native._core does not support"))


def test_asyncio_with_a_stream_under_way() -> None:
    script = """
async def main():
    task = asyncio.create_task(read())
    await asyncio.sleep(0.1)
asyncio.run(main())
print("end", flush=True)
"""
    quiet(run(script))
