"""The protocols that give other measures than J and F: of saliency maps, of classes, of optical flow."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxvos.data import read_flow
from jaxvos.errors import InputError
from jaxvos.evaluation._job import Job
from jaxvos.evaluation._pairing import Pair, pair_frames
from jaxvos.evaluation._protocols import PROTOCOLS
from jaxvos.evaluation._reading import in_parallel, read_labels, read_soft
from jaxvos.metrics import (
    MeasureReport,
    Metric,
    SequenceMeasures,
    flow_metric,
    saliency_metric,
    semantic_metric,
)

__all__ = ["MEASURED", "score_measures"]

_PARTS, _VOID = 20, 255
_SALIENCY = {"MAE": "mae", "max F": "max_f", "adaptive F": "adaptive_f", "S": "structure"}
_FLOW = {
    "EPE": "epe", "EPE 0-10": "epe_slow", "EPE 10-40": "epe_medium", "EPE 40+": "epe_fast", ">1px": "out_1px",
    ">3px": "out_3px", ">5px": "out_5px", "Fl-all": "fl_all", "angle": "angular",
}  # fmt: skip


class _Measure(NamedTuple):
    """How frames are read and judged; `names` are those of the metric's scores, and the first two are kept by frame."""

    metric: Metric
    names: Mapping[str, str]
    read: Callable[[Job, str, Pair], tuple[Any, Any]]


def score_measures(job: Job) -> MeasureReport:
    """Scores a job under one of the protocols that do not give J and F."""
    measure = MEASURED[job.protocol]
    pairs = {name: pair_frames(job.annotated[name], job.predicted[name], list(job.annotated[name].files),
                               suffixes=job.suffixes) for name in job.names}  # fmt: skip
    tasks = [(name, pair) for name in job.names for pair in pairs[name]]
    found = in_parallel(functools.partial(_state, job, measure), tasks, workers=job.workers, progress=job.progress)
    states = iter(found)
    sequences = tuple(_sequence(measure, name, pairs[name], [next(states) for _ in pairs[name]]) for name in job.names)
    return MeasureReport(protocol=job.protocol, measures=_numbers(measure, found), sequences=sequences,
                         notes=(PROTOCOLS[job.protocol].summary,), **job.story)  # fmt: skip


def _state(job: Job, measure: _Measure, task: tuple[str, Pair]) -> Any:
    name, pair = task
    drawn, truth = measure.read(job, name, pair)
    try:
        return measure.metric.update(measure.metric.zero(), drawn, *truth)
    except InputError as error:
        raise InputError(f"{pair.drawn}: {error}") from None


def _sequence(measure: _Measure, name: str, pairs: Sequence[Pair], states: Sequence[Any]) -> SequenceMeasures:
    frames = [_numbers(measure, [state]) for state in states]
    by_frame = {key: tuple(frame[key] for frame in frames) for key in list(measure.names)[:2]}
    return SequenceMeasures(name, tuple(pair.name for pair in pairs), _numbers(measure, states), by_frame)


def _numbers(measure: _Measure, states: Sequence[Any]) -> dict[str, float]:
    scores = measure.metric.compute(functools.reduce(measure.metric.merge, states))
    return {name: float(getattr(scores, field)) for name, field in measure.names.items()}


def _read_map(job: Job, name: str, pair: Pair) -> tuple[Any, Any]:
    truth = job.annotated[name].read(pair.truth)
    return read_soft(pair.drawn, truth, resize=job.resize)[0], ((truth != 0),)


def _read_parts(job: Job, name: str, pair: Pair) -> tuple[Any, Any]:
    truth = job.annotated[name].read(pair.truth)
    return read_labels(pair.drawn, truth, resize=job.resize), (truth,)


def _read_vectors(job: Job, name: str, pair: Pair) -> tuple[Any, Any]:
    """A vector that a file of predictions calls unknown is none; the metric refuses it where the truth is known."""
    (truth, valid), (drawn, known) = read_flow(pair.truth[0]), read_flow(pair.drawn)
    drawn = np.where(known[..., None], drawn, np.float32(np.nan))
    return drawn, (np.where(valid[..., None], truth, np.float32(np.nan)),)


_MAPS = _Measure(saliency_metric(), _SALIENCY, _read_map)
MEASURED: Mapping[str, _Measure] = {
    "visal": _MAPS,
    "saliency": _MAPS,
    "vip": _Measure(semantic_metric(_PARTS, ignore_label=_VOID), {"mIoU": "miou", "accuracy": "accuracy"}, _read_parts),
    "flow": _Measure(flow_metric(), _FLOW, _read_vectors),
}
"""The protocols of this file."""
