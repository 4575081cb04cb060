"""Templates that are rendered here instead of by jinja2 in a process of its own, known by their
text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ..base.ending import at_end, sleep_at_end

at_end(lambda: None)  # from then on, other threads get no prompts, as where a process makes them


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()


class Turns:
    """The template of the shipped pair: turns of trimmed text."""

    def render(self, variables: Mapping[str, Any], marks: Mapping[int, str] | None = None) -> str:
        """Renders like `sandbox.Template`."""
        sleep_at_end()
        parts = [variables["bos_token"]]
        for message in variables["messages"]:
            role = "model" if message["role"] == "assistant" else message["role"]
            text = str(message.get("content", "")).translate(marks or {}).strip()
            parts.append(f"<|turn>{role}\n{text}<turn|>\n")
        if variables["add_generation_prompt"]:
            parts.append("<|turn>model\n")
        return "".join(parts)


AS_TYPED = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"


class AsTyped(Turns):
    """AS_TYPED, for models that complete texts: questions and answers are one text."""

    def render(self, variables: Mapping[str, Any], marks: Mapping[int, str] | None = None) -> str:
        sleep_at_end()
        texts = [str(m.get("content", "")).translate(marks or {}) for m in variables["messages"]]
        return "".join([variables["bos_token"], *texts])


_KNOWN = {
    "8212e5cd19a19bdc4c579fc0266926be676b7aa99573aafce87d601a0477e766": Turns,
    _digest(AS_TYPED): AsTyped,
}


def known_template(source: str) -> Turns | None:
    """Returns the renderer of a template that is known."""
    known = _KNOWN.get(_digest(source))
    return known() if known else None
