"""Runs requests on the model, on worker threads, and passes on their events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

from .answers import Answer
from .bodies import Bodies, give_back
from .channel import Channel
from .errors import DEVICE_FAILED, RequestError, draining, timed_out
from .http import Gone, Request, dumps, event_data
from .job import Ended, Event, Job, Primed, Round
from .metrics import Metrics
from .requests import Work
from .settings import ServerSettings
from .slots import Slots
from .tokens import TokenTexts

if TYPE_CHECKING:
    from ..model import Model

T = TypeVar("T")
Gates = dict[int, asyncio.Event]
"""By index of a leading job: set when its prompt has been run."""


class Service:
    """For use on the event loop's thread, which it never blocks."""

    def __init__(self, model: Model, settings: ServerSettings, metrics_info: dict[str, str]):
        model._check_options({"draft": settings.draft, **settings.sampling})
        self.model = model
        self.settings = settings
        self.slots = Slots(settings.parallel, settings.queue)
        self.connections: Callable[[], float] = lambda: 0
        self.metrics = Metrics(
            lambda: self.slots.running,
            lambda: self.slots.waiting,
            lambda: self.connections(),
            metrics_info,
        )
        self.draining = False
        self.failure: str | None = None
        """What a GPU says since it has failed; no request can be answered any more."""
        self._texts = TokenTexts(model)
        self._generators = ThreadPoolExecutor(settings.parallel, "gemtp-job")
        self._helpers = ThreadPoolExecutor(2, "gemtp-helper")
        self._open: set[Channel[Event]] = set()
        self.bodies = Bodies(settings.max_bodies, self._give_back)

    @property
    def idle(self) -> bool:
        return not self._open

    async def off_loop(self, work: Callable[[], T]) -> T:
        """Runs work off the event loop that takes more than a moment, but no pass of the model."""
        return await asyncio.get_running_loop().run_in_executor(self._helpers, work)

    def _give_back(self) -> None:
        """Returns freed memory to the system soon, when the latest answer has been released,
        too."""

        def submit() -> None:
            with suppress(RuntimeError):  # it has been closed
                self._helpers.submit(give_back)

        asyncio.get_running_loop().call_later(_SOON, submit)

    @cached_property
    def _longest(self) -> int:
        """Characters of the longest token."""
        tokenizer = self.model._engine.tokenizer
        return max(len(tokenizer.token_text(id)) for id in range(tokenizer.vocab_size))

    def check_length(self, work: Work) -> None:
        """Rejects prompts that are certainly too long, before tokens are counted."""
        most = max(job.prompt.characters for job in work.jobs)
        if most > self.model.context and most > self.model.context * self._longest:
            raise RequestError(
                f"the prompt has {most} characters, which are more than the context's "
                f"{self.model.context} tokens can spell; shorten it",
                code="context_length_exceeded",
            )

    def stop(self) -> None:
        """Ends all running jobs with an error."""
        for channel in list(self._open):
            channel.end(draining())

    def close(self) -> None:
        self._generators.shutdown(wait=True, cancel_futures=True)
        self._helpers.shutdown(wait=True, cancel_futures=True)

    # ---------------------------------------------------------------- a request

    async def answer(self, request: Request, work: Work) -> None:
        """Runs a request until it is answered or the client has gone."""
        if self.draining:
            raise draining()
        arrival = self.slots.admit(len(work.jobs))
        channel: Channel[Event] = Channel(self.settings.buffer)
        for job in work.jobs:
            job.arrived = request.arrived
        gates = {s.leader: asyncio.Event() for s in work.jobs if s.leader is not None}
        tasks = [asyncio.create_task(self._run(s, arrival, channel, gates)) for s in work.jobs]
        for task in tasks:
            task.add_done_callback(lambda _: self.slots.leave())
        watcher = asyncio.create_task(self._watch(request, channel))
        left = self.settings.timeout - (time.perf_counter() - request.arrived)
        timer = asyncio.get_running_loop().call_later(
            max(left, 0), channel.end, timed_out(self.settings.timeout)
        )
        self._open.add(channel)
        try:
            await self._send(request, work, channel, gates)
            self.metrics.request_time.observe(time.perf_counter() - request.arrived)
        except Gone:
            self.metrics.cancelled.add()
        finally:
            timer.cancel()
            watcher.cancel()
            channel.end(Gone())
            for job, task in zip(work.jobs, tasks, strict=True):
                job.cancel()
                task.cancel()  # those waiting for their turn; others end by themselves
            await asyncio.gather(*tasks, watcher, return_exceptions=True)
            self._open.discard(channel)

    async def _run(self, job: Job, arrival: int, channel: Channel[Event], gates: Gates) -> None:
        if job.leader not in (None, job.index):
            await gates[job.leader].wait()
        await self.slots.acquire(arrival, job.index)
        work = asyncio.get_running_loop().run_in_executor(
            self._generators, job.run, self.model, channel
        )
        try:
            while not work.done():
                try:
                    await asyncio.shield(work)
                except asyncio.CancelledError:
                    job.cancel()
        finally:
            self.slots.release()
            self._count(job)

    async def _watch(self, request: Request, channel: Channel[Event]) -> None:
        await request.until_gone()
        channel.end(Gone())

    async def _send(
        self, request: Request, work: Work, channel: Channel[Event], gates: Gates
    ) -> None:
        answer = Answer(work, self.settings.name, self._texts)
        wait = self.settings.send_timeout
        try:
            while not answer.complete:
                events = await channel.get()
                if _is_much(events, work):
                    chunks = await self.off_loop(partial(_taken, answer, events))
                else:
                    chunks = _taken(answer, events)
                for event in events:
                    if isinstance(event, Primed):
                        gates[event.index].set()
                    if isinstance(event, Ended):
                        self._count(work.jobs[event.index])
                        self._count_end(event)
                if not work.stream:
                    continue
                if not request.answered:
                    await request.begin_events()
                await request.events(chunks, wait, last=answer.complete)
            if not work.stream:
                await request.respond_written(await self.off_loop(lambda: dumps(answer.whole())))
        except RequestError as e:
            if e.code == DEVICE_FAILED:
                self.failure = e.message
            if not request.answered:
                raise
            await request.end_events(e)

    def _count(self, job: Job) -> None:
        """Counts a job once, before its answer is sent or when it has been cancelled."""
        if job.stats is not None:
            self.metrics.count(job.stats)
            job.stats = None

    def _count_end(self, event: Ended) -> None:
        self.metrics.finished.add(label=event.finish_reason)
        self.metrics.queue_time.observe(event.queue_seconds)
        if event.first_seconds is not None:
            self.metrics.first_token.observe(event.queue_seconds + event.first_seconds)


_SOON = 0.5  # seconds
_MUCH = 1000  # tokens and log-probabilities


def _is_much(events: list[Event], work: Work) -> bool:
    """Whether serializing the events takes more than a moment."""
    each = 1 + (work.logprobs or 0)
    return sum(len(e.tokens) for e in events if isinstance(e, Round)) * each > _MUCH


def _taken(answer: Answer, events: list[Event]) -> bytes:
    chunks = [chunk for event in events for chunk in answer.take(event)]
    return event_data(chunks)
