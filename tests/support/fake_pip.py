"""Stands in for pip, which would need the network: checks that what is to be installed exists."""

from __future__ import annotations

import re
import sys
from pathlib import Path

command, *names = sys.argv[1:]
project = Path("pyproject.toml").read_text("utf-8")
assert command == "install"
for name in names:
    extras = re.fullmatch(r"\.\[([\w,]+)\]", name)
    assert extras, name
    for extra in extras[1].split(","):
        assert re.search(rf"^{extra} = \[", project, re.M), extra
