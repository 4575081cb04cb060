"""Checks the behaviour of commands that reject their input."""

from __future__ import annotations


def assert_one_error(result: tuple[int, str, str], *words: str) -> None:
    """Asserts that a command printed one error. result: as returned by the fixture `gemtp_main`."""
    code, out, err = result
    assert (code, out) == (1, "")
    assert err.startswith("gemtp: error: ")
    assert err.count("\n") == 1
    assert "unexpected" not in err
    for word in words:
        assert word in err
