"""A text that can be continued."""

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
    """A text that can be continued: tokens are appended or generated at its end; it can be rewound,
    forked and saved to a file. Keys and values of its tokens are kept, so no token is run twice.
    The generated text depends only on the tokens.

    Made by :meth:`Model.session` and :meth:`Model.restore`. Only one thread at a time may use it,
    except for ``cancel()`` of its streams.
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
        self._stream: TextStream | None = None  # the latest stream

    @property
    def _native(self) -> _core.Session:
        if self._open is None:
            raise ArgumentError("the session is closed")
        return self._open

    @property
    def tokens(self) -> list[int]:
        """All tokens of the text, appended and generated. While a stream is read, they include
        tokens whose text it has not yielded yet."""
        return self._native.tokens

    def __repr__(self) -> str:
        return "<closed Session>" if self._open is None else f"<Session of {len(self)} tokens>"

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def cached(self) -> int:
        """Number of leading tokens that need not be run again."""
        return self._native.cached

    def append(self, text: Prompt, *, special: bool = False) -> None:
        """Appends a text or token ids; BOS is put before the first text unless it is there. Ends a
        running stream. special: as in :meth:`Model.generate`."""
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
        """Appends ``text``, if given, and generates after it, like :meth:`Model.stream`. Generated
        tokens stay part of the session even if the stream is ended early, except for an end token.
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
        """Like :meth:`stream`, but runs to the end and returns the output."""
        with self.stream(text, special=special, on_prompt=on_prompt, **options) as stream:
            return stream.output("".join(stream))

    def rewind(self, length: int) -> None:
        """Keeps the first ``length`` tokens. Ends a running stream."""
        length = integer("length", length)
        self._end_stream()
        self._native.rewind(length)

    def fork(self) -> Session:
        """Returns a second session with the same tokens; works while a stream is read, too."""
        return self._keep(Session(self._native.fork(), self._ids_of, self._params_of, self._keep))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves tokens, keys and values to a file, for :meth:`Model.restore`. The file can be used
        only with the same target and kv_type. It appears complete, replacing an earlier one, or not
        at all. Only its owner may read it, because it contains the text."""
        path = checked_path("session file", path)
        refuse_printed(path)
        self._native.save(path)

    def close(self) -> None:
        """Ends the session. Its keys and values may serve later prompts that begin alike."""
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
