"""A text that goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import _core
from .arguments import Prompt, callback, checked_path, integer
from .base.whole_file import refuse_printed
from .errors import ArgumentError
from .options import GenerationOptions, OnPrompt, takes_options
from .results import Output
from .stream import TextStream

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Session:
    """A text that goes on: tokens are put behind it or generated there; it can be cut back, split
    in two, and kept in a file. Keys and values of what is there are kept, so that nothing is run
    twice; what is generated depends on the tokens alone.

    Made by :meth:`Model.session` and :meth:`Model.restore`. For one thread at a time, but for the
    ``cancel()`` of its streams.
    """

    def __init__(
        self,
        native: _core.Session,
        ids_of: Callable[[Prompt, bool, bool], list[int]],
        params_of: Callable[[GenerationOptions], _core.GenerationParams],
        keep: Callable[[Session], Session],
    ):
        self._open: _core.Session | None = native
        self._ids_of = ids_of
        self._params_of = params_of
        self._keep = keep
        self._stream: TextStream | None = None  # the latest

    @property
    def _native(self) -> _core.Session:
        if self._open is None:
            raise ArgumentError("the session is closed")
        return self._open

    @property
    def tokens(self) -> list[int]:
        """All of the text: what was appended and what was generated. While a stream is read, tokens
        whose text it has not given yet are among them."""
        return self._native.tokens

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def cached(self) -> int:
        """How many of the first tokens need not be run again."""
        return self._native.cached

    def append(self, text: Prompt, *, special: bool = False) -> None:
        """Puts a text, or token ids, behind all; BOS goes before the first text, unless it is
        there. Ends a stream that is under way. special: as in :meth:`Model.generate`."""
        ids = self._ids_of(text, special, not self.tokens)
        self._end_stream()
        self._native.append(ids)

    @takes_options
    def stream(
        self,
        text: Prompt | None = None,
        *,
        special: bool = False,
        on_prompt: OnPrompt | None = None,
        **options: Unpack[GenerationOptions],
    ) -> TextStream:
        """Appends ``text``, if given, and generates behind it: :meth:`Model.stream`. What has been
        generated stays part of the session, also if the stream is ended early. An end token does
        not become part of it.
        """
        native = self._native
        params = self._params_of(options)
        callback("on_prompt", on_prompt)
        self._end_stream()
        before = len(native.tokens)
        if text is not None:
            self.append(text, special=special)
        try:
            native.begin(params)
        except BaseException:
            native.rewind(before)
            raise
        self._stream = TextStream(native, on_prompt, native.end)
        return self._stream

    @takes_options
    def generate(
        self,
        text: Prompt | None = None,
        *,
        special: bool = False,
        on_prompt: OnPrompt | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Output:
        """Like :meth:`stream`, but waits for the end."""
        with self.stream(text, special=special, on_prompt=on_prompt, **options) as stream:
            return stream.output("".join(stream))

    def rewind(self, length: int) -> None:
        """Keeps the first ``length`` tokens. Ends a stream that is under way."""
        length = integer("length", length)
        self._end_stream()
        self._native.rewind(length)

    def fork(self) -> Session:
        """A second session with the same past; also while a stream is read."""
        return self._keep(Session(self._native.fork(), self._ids_of, self._params_of, self._keep))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Keeps tokens, keys and values in a file; :meth:`Model.restore` goes on from there. The
        file is of use to the same target and kv_type alone. It appears whole, over an earlier one,
        or not at all, and is its owner's alone to read, for it holds the text."""
        path = checked_path("session file", path)
        refuse_printed(path)
        self._native.save(path)

    def close(self) -> None:
        """Ends it. Its keys and values may serve later prompts that begin alike."""
        stream, self._stream, self._open = self._stream, None, None
        if stream is not None:
            stream.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
