"""Runs side by side: their numbers, the fields in which their configurations differ, and means over seeds."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np

from jaxvos.errors import InputError
from jaxvos.training._run import Run, read_runs

__all__ = ["Column", "Comparison", "Row", "SeedGroup", "compare_runs", "running_mean"]

_LAST_SHARE = 0.1
_LESS_IS_BETTER = {"loss", "epe", "error", "mae", "fl", "outliers"}
_SEED, _NOT_COMPARED = "training.seed", "workdir"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A number that every run has."""

    scalar: str
    """Of which curve."""
    kind: Literal["last", "max", "min"]
    """Its last value (of what is logged while training, the mean of the last 10 % of its entries) or its best one."""

    @property
    def name(self) -> str:
        """What stands above the column."""
        return f"{self.kind} {self.scalar}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One run, or one phase of it."""

    name: str
    """The end of its path, as much as tells all runs apart."""
    run: Run
    """What its folder tells."""
    numbers: Mapping[str, float]
    """By the name of the column; NaN where there is none."""
    best_steps: Mapping[str, int]
    """Where the best value was, by the name of its column."""
    clips_per_second: float
    """The median of the log."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedGroup:
    """Runs whose configurations differ in their seeds alone."""

    rows: Sequence[Row]
    """Two at least."""
    seeds: Sequence[int]
    """One for each."""
    numbers: Mapping[str, tuple[float, float]]
    """Mean and standard deviation over the runs (of a sample: n - 1), by the name of the column."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare_runs` finds."""

    rows: Sequence[Row]
    """In the order of the folders, the phases of a run by name."""
    columns: Sequence[Column]
    """The numbers of every row."""
    scalars: Sequence[str]
    """The curves to draw: the loss, evaluations, all others."""
    groups: Sequence[SeedGroup]
    """Runs over whose seeds a mean was taken."""
    differences: Mapping[str, Mapping[str, Any]]
    """For each field in which configurations differ its value by the name of the run; runs without it are left out."""
    notes: Sequence[str]
    """What a reader of the numbers should know, in sentences."""


def compare_runs(folders: Sequence[Path | str], *, metrics: Sequence[str] = ()) -> Comparison:
    """Puts runs side by side.

    Whether the highest or the lowest value of an evaluation is the best says a run that ranks checkpoints by it; where
    none does, the lowest of an error (`loss`, `epe`, `mae`, ...), the highest of anything else.

    Args:
        folders: of runs; a run of several phases gives one row for each.
        metrics: the scalars to compare, by their names in the log; if left out, the loss and all evaluations in
            numbers, and all that there are as curves.

    Raises:
        InputError: no folder or no run, the same one twice, a log without an entry, or a metric that no run has.
    """
    runs = _read_all(folders)
    names = _names(runs)
    known = _in_order(dict.fromkeys(name for run in runs for name in run.curves))
    unknown = [name for name in metrics if name not in known]
    if unknown:
        raise InputError(f"no run has logged '{unknown[0]}'; there are: {', '.join(known)}")
    shown = list(dict.fromkeys(metrics)) or [name for name in known if name == "loss" or _is_evaluation(name)]
    columns = [column for scalar in shown for column in _columns(scalar, runs)]
    rows = [_row(name, run, columns) for name, run in zip(names, runs, strict=True)]
    groups, notes = _groups(rows, columns)
    return Comparison(rows=rows, columns=columns, scalars=shown if metrics else known, groups=groups,
                      differences=_differences(rows), notes=[*_gaps(rows, shown), *notes])  # fmt: skip


def running_mean(points: Sequence[tuple[int, float]], entries: int) -> list[tuple[int, float]]:
    """Returns a curve whose every value is the mean of so many entries up to there, as far as they are finite.

    Args:
        points: (step, value) pairs; a value that is not finite stays so.
        entries: how many; there are fewer at the beginning.
    """
    values = np.array([value for _, value in points], np.float64)
    windows = [values[max(0, i + 1 - entries) : i + 1] for i in range(len(values))]
    means = [float(np.mean(window[np.isfinite(window)])) if np.isfinite(window[-1]) else math.nan for window in windows]
    return [(step, mean) for (step, _), mean in zip(points, means, strict=True)]


def _read_all(folders: Sequence[Path | str]) -> list[Run]:
    if not folders:
        raise InputError("no run is given: name the folders of those to compare")
    runs: list[Run] = []
    seen: dict[Path, Path] = {}
    for run in (run for folder in folders for run in read_runs(folder)):
        place = run.folder.resolve()
        if place in seen:
            also = "" if seen[place] == run.folder else f", as {seen[place]} too"
            raise InputError(f"the run {run.folder} is given twice{also}: name each run once")
        seen[place] = run.folder
        runs.append(run)
    return runs


def _names(runs: Sequence[Run]) -> list[str]:
    """The ends of the paths, of as few folders as tell all runs apart; a phase comes after its run."""
    length = 1
    while len(set(names := [_end(run, length) for run in runs])) < len(runs):
        length += 1
    return names


def _end(run: Run, length: int) -> str:
    return str(PurePath(*run.folder.parts[-length - (run.phase is not None) :]))


def _is_evaluation(scalar: str) -> bool:
    return scalar.startswith("eval/")


def _in_order(scalars: Mapping[str, Any]) -> list[str]:
    return sorted(scalars, key=lambda name: (name != "loss", not _is_evaluation(name)))


def _columns(scalar: str, runs: Sequence[Run]) -> list[Column]:
    last = Column(scalar=scalar, kind="last")
    if not _is_evaluation(scalar):
        return [last]
    metric = scalar.removeprefix("eval/")
    told = [mode for best_metric, mode in (run.ranking for run in runs) if best_metric == metric]
    less = told[0] == "min" if told else not _LESS_IS_BETTER.isdisjoint(re.split("[^a-z]+", metric.lower()))
    return [last, Column(scalar=scalar, kind="min" if less else "max")]


def _row(name: str, run: Run, columns: Sequence[Column]) -> Row:
    numbers, best_steps = {}, {}
    for column in columns:
        points = run.curves.get(column.scalar, [])
        finite = [(value, step) for step, value in points if math.isfinite(value)]
        if column.kind == "last":
            count = 1 if _is_evaluation(column.scalar) else math.ceil(_LAST_SHARE * len(points))
            numbers[column.name] = float(np.mean([value for _, value in points[-count:]])) if points else math.nan
        elif finite:
            best = (max if column.kind == "max" else min)(value for value, _ in finite)
            numbers[column.name] = best
            best_steps[column.name] = next(step for value, step in finite if value == best)
        else:
            numbers[column.name] = math.nan
    speeds = [value for _, value in run.curves.get("clips_per_second", [])]
    return Row(name=name, run=run, numbers=numbers, best_steps=best_steps,
               clips_per_second=float(np.median(speeds)) if speeds else math.nan)  # fmt: skip


def _is_seed(field: str) -> bool:
    """That of the training, or of a later phase's, such as `joint_training.seed`."""
    return field.endswith(_SEED)


def _groups(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[list[SeedGroup], list[str]]:
    """The groups, and what is wrong with some of them, or why they are none."""
    alike: list[tuple[dict[str, Any], list[Row]]] = []
    for row in (row for row in rows if row.run.complete and _SEED in row.run.config):
        rest = {name: value for name, value in row.run.config.items() if name != _NOT_COMPARED and not _is_seed(name)}
        rest["phase"] = row.run.phase
        known = next((members for other, members in alike if other == rest), None)
        if known is None:
            alike.append((rest, [row]))
        else:
            known.append(row)
    groups, notes = [], []
    for members in (members for _, members in alike if len(members) > 1):
        names = ", ".join(row.name for row in members)
        seeds = [tuple(value for name, value in row.run.config.items() if _is_seed(name)) for row in members]
        if len(set(seeds)) < len(seeds):
            notes.append(f"no mean over {names}: of one configuration, but two have the same seed")
            continue
        if len({row.run.step for row in members}) > 1:
            notes.append(f"the mean over {names} is of runs that stand at different steps")
        values = {column.name: [row.numbers[column.name] for row in members] for column in columns}
        numbers = {name: (float(np.mean(each)), float(np.std(each, ddof=1))) for name, each in values.items()}
        groups.append(SeedGroup(rows=members, seeds=[row.run.config[_SEED] for row in members], numbers=numbers))
    return groups, notes


def _differences(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    differences = {}
    for field in dict.fromkeys(name for row in rows for name in row.run.config if name != _NOT_COMPARED):
        there = {row.name: row.run.config[field] for row in rows if field in row.run.config}
        lacking = any(row.run.complete for row in rows if row.name not in there)
        values = list(there.values())
        if lacking or any(value != values[0] for value in values):
            differences[field] = there
    return differences


def _gaps(rows: Sequence[Row], scalars: Sequence[str]) -> list[str]:
    """Where the log has null."""
    notes = []
    for row in rows:
        for scalar in scalars:
            steps = [step for step, value in row.run.curves.get(scalar, []) if not math.isfinite(value)]
            if steps:
                more = f" and {len(steps) - 1} more" if len(steps) > 1 else ""
                notes.append(f"{scalar} of {row.name} is not finite at step {steps[0]}{more}")
    return notes
