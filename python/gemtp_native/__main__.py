"""Runs `gemtp` and `python -m gemtp_native`."""

import sys


def main() -> int:
    try:
        from .cli import main as command

        return command()
    except KeyboardInterrupt:  # before or after the command handles it
        return 130


if __name__ == "__main__":
    sys.exit(main())
