"""A running generation that yields pieces of text."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from . import _core
from .base.closing import Closing
from .base.counted import counted
from .base.ending import sleeping_at_end
from .base.forking import begins_anew_in_child
from .base.log import logger
from .options import OnPrompt
from .results import DepthReport, Output, Stats, Token

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_log = logger("model")


class TextStream(Closing, Iterator[str], AsyncIterator[str]):
    """Yields pieces of text as they are generated, each valid UTF-8, for ``for`` and ``async for``.

    Work happens only while a piece is requested; ``close()`` (or leaving a ``with`` block) ends it.
    Any thread may call ``cancel()`` and ``close()``; everything else is for one thread at a time.
    """

    def __init__(
        self,
        generation: _core.Work,
        on_prompt: OnPrompt | None = None,
        on_close: Callable[[], None] | None = None,
    ):
        self._generation: _core.Work | None = generation
        self._on_prompt = on_prompt
        self._on_close = on_close
        self.begin_in_child()
        begins_anew_in_child(self)
        self._closed = False
        self._worker: ThreadPoolExecutor | None = None  # for async iteration
        self._pending: list[Token] = []
        self._tokens: list[Token] = []
        self._prompt_shown = -1
        self._record(generation)

    def begin_in_child(self) -> None:
        self._working = threading.Lock()  # held by the thread that runs the generation

    def __repr__(self) -> str:
        return f"<TextStream: {counted(len(self._tokens), 'token')}, {self.finish_reason}>"

    # ---------------------------------------------------------------- a round at a time

    def steps(self) -> Iterator[list[Token]]:
        """Yields the tokens of each draft-verify round."""
        while (step := self.next_step()) is not None:
            if step:
                yield step

    async def asteps(self) -> AsyncIterator[list[Token]]:
        """:meth:`steps` for ``async for``."""
        while (step := await self.anext_step()) is not None:
            if step:
                yield step

    def next_step(self) -> list[Token] | None:
        """Runs the next round and returns its tokens: an empty list within the prompt, None after
        the end."""
        step = self._work()
        self._show_prompt()
        return step

    async def anext_step(self) -> list[Token] | None:
        """:meth:`next_step`, awaited; cancelling the task stops the generation."""
        import asyncio  # imported late: callers that do not await start sooner
        from concurrent.futures import ThreadPoolExecutor

        if self._generation is None:
            return None
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, "gemtp-stream")
        with sleeping_at_end():
            step = asyncio.wrap_future(self._worker.submit(self._work))
        step.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            tokens = await asyncio.shield(step)
        except asyncio.CancelledError:
            self.close()
            await asyncio.wait([step])  # takes milliseconds
            raise
        self._show_prompt()
        return tokens

    def _work(self) -> list[Token] | None:
        try:
            with self._working:
                generation = self._generation
                if generation is None:
                    return None
                if generation.done:
                    self._end(generation)
                    return None
                try:
                    step = [
                        Token(id, cast(Any, source), text, logprob, top)
                        for id, source, text, logprob, top in generation.step()
                    ]
                except BaseException:
                    self._end(generation)
                    raise
                self._tokens += step
                if generation.done and generation.tail and not step:
                    step = [Token(-1, "target", generation.tail)]
                self._follow(generation)
                return step
        finally:
            if self._closed:
                self.close()

    def _follow(self, generation: _core.Work) -> None:
        self._finish_reason = generation.finish_reason
        self._prompt_done = generation.prompt_done

    def _record(self, generation: _core.Work) -> None:
        self._follow(generation)
        self._stats = generation.stats
        self._depth = generation.depth_report

    def _show_prompt(self) -> None:
        done = self._prompt_done
        if self._on_prompt is None or done <= self._prompt_shown:
            return
        self._prompt_shown = done
        try:
            self._on_prompt(done, self._stats["prompt_tokens"])
        except BaseException:
            self.close()
            raise

    # ---------------------------------------------------------------- a piece at a time

    def __next__(self) -> str:
        while (text := self._take_text()) is None:
            step = self.next_step()
            if step is None:
                self.close()
                raise StopIteration
            self._pending = step
        return text

    async def __anext__(self) -> str:
        while (text := self._take_text()) is None:
            step = await self.anext_step()
            if step is None:
                self.close()
                raise StopAsyncIteration
            self._pending = step
        return text

    def _take_text(self) -> str | None:
        while self._pending:
            text = self._pending.pop(0).text
            if text:
                return text
        return None

    # ---------------------------------------------------------------- its end

    def cancel(self) -> None:
        """Stops the work, even in the middle of a prompt: the thread that waits for a piece gets
        CancelledError within milliseconds; if there is none, the next request for a piece does."""
        generation = self._generation
        if generation is not None:
            generation.cancel()

    def close(self) -> None:
        """Stops the work and gives its K/V cache back to the model."""
        self._closed = True
        self._pending = []
        if self._generation is None:
            return
        self.cancel()
        self._unless_at_work(self._end)  # otherwise that thread does it

    def _unless_at_work(self, act: Callable[[_core.Work], None]) -> None:
        """Calls ``act``, unless a thread is running the generation or it has ended."""
        if self._working.acquire(blocking=False):
            try:
                if self._generation is not None:
                    act(self._generation)
            finally:
                self._working.release()

    def _end(self, generation: _core.Work) -> None:
        self._record(generation)
        self._generation = None
        if self._worker is not None:
            self._worker.shutdown(wait=False)
        on_close, self._on_close = self._on_close, None  # the callback may keep a session alive
        if on_close is not None:
            on_close()
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s", _summary(self._stats, self._finish_reason))

    # ---------------------------------------------------------------- what it has given

    @property
    def tokens(self) -> list[int]:
        """The token ids generated so far."""
        return [t.id for t in self._tokens]

    @property
    def finish_reason(self) -> str:
        """ "unfinished", "stop", "length", "context" (as in :class:`Output`) or "cancelled"."""
        return self._finish_reason

    @property
    def stats(self) -> Stats:
        """The statistics so far. While another thread runs the generation: those read last."""
        self._unless_at_work(self._record)
        if self._closed:  # closed by another thread meanwhile
            self.close()
        depth = None if self._depth is None else DepthReport(**self._depth)
        return Stats(**self._stats, depth=depth)

    def output(self, text: str) -> Output:
        """Returns the result so far; ``text`` is the concatenation of its pieces."""
        logprobs = [t.logprob for t in self._tokens if t.logprob is not None]
        top = [t.top_logprobs for t in self._tokens] if logprobs else []
        return Output(text, self.tokens, self.finish_reason, self.stats, logprobs, top)


def _summary(s: dict[str, Any], finish_reason: str) -> str:
    return (
        f"prompt: {counted(s['prompt_tokens'], 'token')} ({s['cached_tokens']} of them cached) in "
        f"{s['prompt_seconds']:.3f} s; "
        f"{counted(s['tokens'], 'token')} in {s['decode_seconds']:.3f} s, "
        f"{s['tokens_per_second']:.1f} tokens/s; {s['accepted']} of {s['drafted']} drafts accepted "
        f"in {counted(s['rounds'], 'round')}; {finish_reason}"
    )
