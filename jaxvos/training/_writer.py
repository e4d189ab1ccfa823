"""The log of a run: one line of JSON per entry, and TensorBoard's files where tensorboardX is installed."""

import contextlib
import importlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxvos.errors import InputError
from jaxvos.files import atomic_path

__all__ = ["LogWriter", "read_entries", "read_log"]

_NAME = "log.jsonl"


class LogWriter:
    """Appends to the log of a run that stands at `start_step`; what an earlier run wrote beyond it is dropped.

    Raises:
        InputError: here and below, if the operating system refuses to write: a full disk, say.
    """

    def __init__(self, workdir: Path, start_step: int = 0):
        path = workdir / _NAME
        kept = [entry for entry in read_entries(workdir) if entry["step"] <= start_step] if start_step else []
        for orphan in workdir.glob(f".{path.stem}.*{path.suffix}"):  # of a run that was killed in the lines below
            orphan.unlink()
        with atomic_path(path) as partial:
            partial.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
        self._file = path.open("a")
        self._board = _tensorboard(workdir / "tensorboard", start_step)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one entry; what is not finite becomes null."""
        scalars = {name: float(value) for name, value in scalars.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        with _writing(self._file.name):
            self._file.write(json.dumps({"step": step, **finite}) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the files."""
        with _writing(self._file.name):
            self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(workdir: Path | str) -> dict[str, list[tuple[int, float]]]:
    """Returns the curve of every scalar that a run has logged, as (step, value) pairs.

    Raises:
        InputError: if the folder holds no log, or a line of it is no entry.
    """
    path = Path(workdir) / _NAME
    if not path.is_file():
        raise InputError(f"{path} does not exist: not the folder of a run")
    curves: dict[str, list[tuple[int, float]]] = {}
    for entry in read_entries(path.parent):
        for name, value in entry.items():
            if name != "step" and value is not None:
                curves.setdefault(name, []).append((entry["step"], value))
    return curves


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; make room there or put it right, then start again to go "
            "on from the last whole checkpoint"
        ) from error


def read_entries(workdir: Path) -> list[dict[str, Any]]:
    """Returns the entries of a run's log, none if there is no log; a last line without its end was cut off by a crash.

    Raises:
        InputError: naming the first line that is no entry.
    """
    path = workdir / _NAME
    if not path.is_file():
        return []
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    return [_entry(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.endswith("\n")]


def _entry(line: str, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
        raise InputError(f"{where} is not an entry of a log: remove the line, or restore the file")
    for name, value in entry.items():
        if not isinstance(value, int | float | None):
            raise InputError(f"{where}: {name} is {value!r}, not a number: remove the line, or restore the file")
    return entry


def _tensorboard(folder: Path, start_step: int) -> Any:
    try:
        module = importlib.import_module("tensorboardX")
    except ImportError:
        return None
    return module.SummaryWriter(str(folder), purge_step=start_step + 1)
