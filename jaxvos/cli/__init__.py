"""The command line: `jaxvos COMMAND`, one file for each command."""

import contextlib
import difflib
import importlib.metadata
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jaxvos
from jaxvos.cli._clusters import DrawClusters
from jaxvos.cli._datasets import ListDatasets, PrepareDataset
from jaxvos.cli._demo import Demo
from jaxvos.cli._evaluate import DESCRIPTION, Evaluate
from jaxvos.cli._export import Export
from jaxvos.cli._fit import Fit
from jaxvos.cli._flow import EstimateFlow
from jaxvos.cli._models import ListModels
from jaxvos.cli._proposals import Propose
from jaxvos.cli._runs import CompareRuns
from jaxvos.cli._segment import Segment
from jaxvos.cli._submit import Submit
from jaxvos.errors import InputError, exit_on_input_error
from jaxvos.training import parse

__all__ = ["main"]


class _Command(NamedTuple):
    """A dataclass with `run`, and what its help says first if not its docstring."""

    kind: type[Any]
    description: str | None = None

    @property
    def summary(self) -> str:
        return (self.kind.__doc__ or "").splitlines()[0]


class _Group(NamedTuple):
    """Commands that begin with the same word."""

    summary: str
    commands: Mapping[str, _Command]


_COMMANDS: Mapping[str, _Command | _Group] = {
    "segment": _Command(Segment),
    "proposals": _Command(Propose),
    "flow": _Command(EstimateFlow),
    "fit": _Command(Fit),
    "clusters": _Command(DrawClusters),
    "models": _Command(ListModels),
    "runs": _Group("Runs of training, side by side.", {"compare": _Command(CompareRuns)}),
    "export": _Command(Export),
    "evaluate": _Command(Evaluate, DESCRIPTION),
    "submit": _Command(Submit),
    "datasets": _Group(
        "Data sets: what they look like on disk, and how they are prepared.",
        {"list": _Command(ListDatasets), "prepare": _Command(PrepareDataset)},
    ),
    "demo": _Command(Demo),
}


def main(args: Sequence[str] | None = None) -> None:
    """Runs one command.

    Wrong input is one line on stderr and exit code 2; an interruption is one line too, and code 130 (Ctrl-C) or 143
    (SIGTERM). Either way nothing half-written is left.
    """
    args = list(sys.argv[1:] if args is None else args)
    try:
        with _terminable(), exit_on_input_error():
            _run(args)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except _TerminatedError:
        _fail("terminated", 143)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has left
        os._exit(0)


def _run(args: list[str], commands: Mapping[str, _Command | _Group] = _COMMANDS, prog: str = "jaxvos") -> None:
    if not args or args[0] in ("-h", "--help"):
        rows = [f"  {name:<10} {command.summary}" for name, command in commands.items()]
        print("\n".join([f"usage: {prog} COMMAND ... (COMMAND --help says more)", "", *rows]))
    elif args == ["--version"] and commands is _COMMANDS:
        print(f"jaxvos {jaxvos.__version__}, jax {importlib.metadata.version('jax')}")
    elif args[0] not in commands:
        close = difflib.get_close_matches(args[0], commands, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise InputError(f"there is no command '{args[0]}'; {hint}the commands are: {', '.join(commands)}")
    elif isinstance(command := commands[args[0]], _Group):
        _run(args[1:], command.commands, f"{prog} {args[0]}")
    else:
        parse(command.kind, args[1:], prog=f"{prog} {args[0]}", description=command.description).run()


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code) from None


class _TerminatedError(BaseException):
    """SIGTERM."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM an exception, so that what is half-written is removed; only the main thread may set that up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
