"""One run as its folder tells it: its curves, its configuration, and where it was computed."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvos.errors import InputError
from jaxvos.training._checkpoint import load_story
from jaxvos.training._provenance import flat_fields
from jaxvos.training._writer import read_entries

__all__ = ["Run", "read_runs"]

_LOG, _CONFIG, _FIT_CONFIG = "log.jsonl", "config.json", "run.json"  # the last is that of `jaxvos fit`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run, or one phase of a run of several."""

    folder: Path
    """That of the log."""
    phase: str | None
    """Name of the phase, if there are several."""
    curves: Mapping[str, Sequence[tuple[int, float]]]
    """(step, value) pairs of every scalar; NaN where the log has null."""
    config: Mapping[str, Any]
    """Fields by their full names, such as `training.optimizer.lr`."""
    complete: bool
    """Whether these are all; otherwise they are those that `fit` was told, or none."""
    commit: str
    """Of the source, or "unknown"."""
    device: str
    """Number and kind of the devices, or "unknown"."""

    @property
    def step(self) -> int:
        """Updates that the log tells of."""
        return max(points[-1][0] for points in self.curves.values())

    @property
    def num_steps(self) -> int | None:
        """Updates in all, if that is known."""
        return self.config.get(f"{self._training}.num_steps")

    @property
    def ranking(self) -> tuple[str | None, str | None]:
        """The metric that ranks checkpoints, and whether "max" or "min" is best."""
        return self.config.get(f"{self._training}.best_metric"), self.config.get(f"{self._training}.best_mode")

    @property
    def _training(self) -> str:
        """The part of the configuration that is this phase's, such as `joint_training`, or that of all, `training`."""
        parts = dict.fromkeys(name.split(".")[0] for name in self.config if "_training." in name)
        own = [part for part in parts if (self.phase or "").endswith(part.removesuffix("_training"))]
        return own[0] if own else "training"


def read_runs(folder: Path | str) -> list[Run]:
    """Reads a run; one of several phases gives a `Run` for each that has logged something, by name.

    Args:
        folder: where the log is, or, of a run of several phases, their folders.

    Raises:
        InputError: if that is no run, if nothing is logged yet, or if a file cannot be read.
    """
    folder = Path(os.path.abspath(folder))
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: check the path")
    if (folder / _LOG).is_file():
        parent = folder.parent
        is_phase = not (folder / _CONFIG).is_file() and not (parent / _LOG).is_file() and _claims(parent)
        runs = [_read(folder, parent if is_phase else folder, folder.name if is_phase else None)]
    else:
        phases = sorted(path.parent for path in folder.glob(f"*/{_LOG}"))
        whole = [path.name for path in phases if _claims(path)]
        if whole:
            raise InputError(f"{folder} is not a run, but holds some ({', '.join(whole)}): name them, as in {folder}/*")
        runs = [_read(path, folder, path.name) for path in phases]
        if not phases and not _claims(folder):
            raise InputError(f"{folder} is not the folder of a run: there is no {_LOG} in it, nor in a folder of it")
    runs = [run for run in runs if run.curves]
    if not runs:
        raise InputError(f"the run {folder} has logged nothing yet: wait for its first entry, or leave it out")
    return runs


def _claims(folder: Path) -> bool:
    return (folder / _CONFIG).is_file() or (folder / _FIT_CONFIG).is_file()


def _read(folder: Path, root: Path, phase: str | None) -> Run:
    """Reads the log in `folder`, of a run that is described in `root`."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for entry in read_entries(folder):
        for name, value in entry.items():
            if name != "step":
                curves.setdefault(name, []).append((entry["step"], math.nan if value is None else float(value)))
    story, complete = {}, True
    if (root / _CONFIG).is_file():
        story = _read_json(root / _CONFIG, "config", dict)
        config = flat_fields(story["config"])
    else:
        story = load_story(folder)
        if (root / _FIT_CONFIG).is_file():
            config = _fit_fields(_read_json(root / _FIT_CONFIG, "seed", int))
        else:
            config, complete = flat_fields({"training": story.get("config", {})}), False
    return Run(folder=folder, phase=phase, curves=curves, config=config, complete=complete,
               commit=story.get("commit", "unknown"), device=story.get("device", "unknown"))  # fmt: skip


def _fit_fields(settings: dict[str, Any]) -> dict[str, Any]:
    """What `jaxvos fit` was told, in the words of a configuration."""
    fields = flat_fields(settings)
    first, second = fields.pop("number of steps", (None, None))
    named = {"training.num_steps": first, "joint_training.num_steps": second, "training.seed": fields.pop("seed", None)}
    return fields | {name: value for name, value in named.items() if value is not None}


def _read_json(path: Path, needed: str, kind: type) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get(needed), kind):
        raise InputError(f"{path} is not what a run writes: restore it, or leave this run out")
    return content
