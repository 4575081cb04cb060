"""The settings that all measurements share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .. import _core
from ..arguments import device_name, gpu_layer_count, is_f16, thread_count


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How the models are opened; see :class:`Model`. Raises ArgumentError for values that are
    invalid for every model."""

    threads: int | None = None
    kv_type: Literal["f16", "f32"] = "f16"
    device: str | None = None
    gpu_layers: int | Literal["auto"] | None = None

    def __post_init__(self) -> None:
        thread_count(self.threads)
        is_f16(self.kv_type)
        _core.select_device(device_name(self.device))
        gpu_layer_count(self.gpu_layers)

    @property
    def engine(self) -> dict[str, Any]:
        """These settings as keywords of :class:`Model`."""
        return {name: getattr(self, name) for name in EngineSettings.__dataclass_fields__}
