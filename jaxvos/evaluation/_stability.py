"""Temporal instability T of whole sequences, in processes: it is NumPy on small arrays, which threads cannot share."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jaxvos.data import read_annotation
from jaxvos.evaluation._job import Job
from jaxvos.evaluation._plans import Plan
from jaxvos.evaluation._reading import read_labels
from jaxvos.metrics import ObjectScores, sequence_stability

__all__ = ["add_stability"]

_CHUNK = 12  # pairs of frames
_WORTH_PROCESSES = 240  # pairs: what starting a process costs


class _Task(NamedTuple):
    """Consecutive frames of one sequence; a first frame of the ground truth stands in for its prediction."""

    truth: Path
    drawn: tuple[Path, ...]
    begins: bool
    merged: bool
    void: int
    labels: tuple[tuple[int, int], ...]  # of each object, in the ground truth and in the prediction
    resize: bool


def add_stability(
    job: Job, plans: Sequence[Plan], objects: Sequence[tuple[ObjectScores, ...]]
) -> list[tuple[ObjectScores, ...]]:
    """Returns the objects of every sequence with T, by the benchmark's convention.

    The ground truth stands in for the prediction of the first frame, and the last frame is left out, whichever frames
    count for J and F.
    """
    tasks = [list(_tasks(job, plan, items)) for plan, items in zip(plans, objects, strict=True)]
    flat = [task for of_sequence in tasks for task in of_sequence]
    results = iter(_run(flat, workers=job.workers, progress=job.progress))
    added = []
    for of_sequence, items in zip(tasks, objects, strict=True):
        rows = np.concatenate([np.empty((len(items), 0)), *(next(results) for _ in of_sequence)], axis=1)
        added.append(tuple(item._replace(t_frames=tuple(row.tolist())) for item, row in zip(items, rows, strict=True)))
    return added


def _tasks(job: Job, plan: Plan, items: Sequence[ObjectScores]) -> Iterator[_Task]:
    annotated, folder = job.annotated[plan.name], job.predicted[plan.name]
    (first,), *_ = annotated.files.values()
    drawn = [folder / f"{name}.png" for name in list(annotated.files)[1:-1]]
    labels = tuple((item.label, item.proposal or item.label) for item in items)
    for start in range(0, len(drawn), _CHUNK):
        chunk = tuple(drawn[max(start - 1, 0) : start + _CHUNK])
        yield _Task(first, chunk, start == 0, plan.objects.merged, plan.objects.void, labels, job.resize)


def _run(tasks: list[_Task], *, workers: int | None, progress: bool) -> list[np.ndarray]:
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    pairs = sum(len(task.drawn) * len(task.labels) for task in tasks)

    def shown(results: Iterator[np.ndarray]) -> list[np.ndarray]:
        return list(tqdm(results, total=len(tasks), unit="chunk", desc="T", disable=not progress))

    if workers <= 1 or pairs < _WORTH_PROCESSES:
        return shown(map(_stability, tasks))
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))  # JAX does not outlive a fork
    try:
        with _uninterrupted():
            results = pool.map(_stability, tasks)
        return shown(results)
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes started here inherit that Ctrl-C is ignored: this one, not each of them, is to say what happened."""
    if threading.current_thread() is not threading.main_thread():  # which alone may set that up
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stability(task: _Task) -> np.ndarray:
    """Returns T from each frame to the next, a row for each object."""
    truth = read_annotation(task.truth)
    maps = [read_labels(path, truth, resize=task.resize) for path in task.drawn]
    return np.stack([sequence_stability(_masks(task, truth, maps, *labels)) for labels in task.labels])


def _masks(task: _Task, truth: np.ndarray, maps: Sequence[np.ndarray], label: int, drawn: int) -> Iterator[np.ndarray]:
    belongs: Callable[[np.ndarray], np.ndarray] = (lambda m: m != 0) if task.merged else (lambda m: m == drawn)
    if task.begins:
        yield (truth != 0) & (truth != task.void) if task.merged else truth == label
    yield from map(belongs, maps)
