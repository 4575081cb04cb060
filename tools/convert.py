#!/usr/bin/env python3
"""Converts a Hugging Face folder to GGUF; `gemtp convert` from a checkout, without a build."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

from gemtp_native.cli.convert import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
