"""JSON as it is printed and written."""

from __future__ import annotations

import json
from typing import Any


def json_text(value: Any, indent: int | None = None) -> str:
    """Readable, in any language. Bytes of a path that are not UTF-8 become escapes (\\udcff), as
    which Python reads them."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
