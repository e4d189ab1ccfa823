"""The one exception that means: the input, not the program, is at fault; and how a program ends on it."""

import contextlib
import sys
from collections.abc import Iterator

__all__ = ["InputError", "exit_on_input_error"]


class InputError(ValueError):
    """Names the offending thing and the remedy in one line; the command line prints it and exits with code 2."""


@contextlib.contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Ends the process with one line on stderr and exit code 2 where the block raises `InputError`."""
    try:
        yield
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
