"""Writes a GGUF with other metadata and unchanged tensors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .. import _core
from ..base.input_file import open_input
from ..base.whole_file import replacing
from ..errors import FileError
from .file import Layout, Metadata, pad, read_contents

_PIECE = 16 << 20  # bytes copied at a time


def rewrite(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    change: Callable[[Metadata], None],
    keep: Callable[[str], bool] = lambda _: True,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> int:
    """Writes `source` (all of its parts, if it has several) to the single file `out`, with the
    metadata changed by `change` and without the tensors that are not to be kept. Returns the size
    of `out`, which appears complete or not at all. Tensors of types that gemtp does not support are
    copied, too."""
    contents = read_contents(Path(source))
    sizes = {t[0]: t[3] for t in _core.GgufFile(source).tensors}  # checked to lie within the file
    tensors = [t for t in contents.tensors if keep(t.name)]
    layout = Layout()
    for tensor in tensors:
        layout.add(tensor.name, tensor.shape, tensor.kind, sizes[tensor.name])
    change(contents.metadata)
    contents.metadata.remove("general.alignment")  # the new layout has the default alignment
    header = layout.header(contents.metadata)
    total = len(header) + layout.data_size
    with replacing(Path(out), total) as handle:
        handle.write(header)
        for tensor in tensors:
            with open_input(tensor.file) as data:
                data.seek(tensor.offset)
                left = sizes[tensor.name]
                while left:
                    piece = data.read(min(left, _PIECE))
                    if not piece:
                        raise FileError(
                            f"{tensor.file} ends inside {tensor.name}: it changed while being read."
                        )
                    handle.write(piece)
                    left -= len(piece)
                    progress(handle.tell(), total)
            pad(handle, sizes[tensor.name])
    return total
