"""The one exception that means: the input, not the program, is at fault."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Names the offending thing and the remedy in one line; the command line prints it and exits with code 2."""
