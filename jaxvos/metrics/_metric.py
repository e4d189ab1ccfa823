"""What a measure over a data set is: four pure functions on a state, so that processes and hosts can share the work."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxvos.errors import InputError

__all__ = [
    "GroupScores",
    "GroupState",
    "MeanState",
    "Metric",
    "add_states",
    "grouped",
    "mean_metric",
    "ratio",
    "require_same_size",
]

State = Any  # a named tuple of sums
Scores = Any  # numbers, or a named tuple of them


class Metric(NamedTuple):
    """A measure over many frames, kept as a state that can be pickled.

    States are named tuples of sums. No function changes its arguments. `merge` is associative and commutative up to
    the rounding of sums, and `zero()` is neutral, so that frames may be split among processes in any way: each updates
    a state of its own from `zero()`, and the merged state has the scores of all of them.

    Attributes:
        zero: the state before the first frame; its scores are NaN.
        update: takes a state and what there is to judge, and returns the state with that counted in.
        merge: takes two states and returns that of both.
        compute: the scores of a state.
    """

    zero: Callable[[], State]
    update: Callable[..., State]
    merge: Callable[[State, State], State]
    compute: Callable[[State], Scores]


class MeanState(NamedTuple):
    """A sum and the number of its terms."""

    total: np.float64
    count: np.int64


def mean_metric() -> Metric:
    """Makes the mean of a number per frame, such as `region_similarity`: `update(state, value)`; a NaN does not count.

    Grouped by video (`grouped`) it is the mean over videos of the mean over annotated frames, for FBMS; grouped twice,
    by category and video, it has the J of each category and their mean, for YouTube-Objects.
    """

    def update(state: MeanState, value: float) -> MeanState:
        return state if np.isnan(value) else add_states(state, MeanState(np.float64(value), np.int64(1)))

    return Metric(
        lambda: MeanState(np.float64(0), np.int64(0)), update, add_states, lambda state: ratio(state.total, state.count)
    )


class GroupState(NamedTuple):
    """The state of every group, by name in alphabetical order."""

    states: tuple[tuple[str, Any], ...] = ()


class GroupScores(NamedTuple):
    """The scores of every group, and their mean: number by number over the groups, without the NaN among them."""

    mean: Any
    groups: dict[str, Any]


def grouped(metric: Metric) -> Metric:
    """Makes a metric that keeps the frames of each group apart: a mean over videos of each video's scores.

    `update(state, name, ...)` passes all but the name on to the metric. Groups nest: the scores of
    `grouped(grouped(metric))` are those of `update(state, category, video, ...)`, and their mean is over categories of
    the mean over videos.
    """

    def update(state: GroupState, name: str, *judged: Any, **named: Any) -> GroupState:
        states = dict(state.states)
        states[name] = metric.update(states.get(name, metric.zero()), *judged, **named)
        return GroupState(tuple(sorted(states.items())))

    def merge(first: GroupState, second: GroupState) -> GroupState:
        states = dict(first.states)
        for name, other in second.states:
            states[name] = metric.merge(states[name], other) if name in states else other
        return GroupState(tuple(sorted(states.items())))

    def compute(state: GroupState) -> GroupScores:
        groups = {name: metric.compute(part) for name, part in state.states}
        return GroupScores(_average(list(groups.values()) or [metric.compute(metric.zero())]), groups)

    return Metric(GroupState, update, merge, compute)


def add_states(first: State, second: State) -> State:
    """Returns the state whose fields are the sums of the fields of two states."""
    return type(first)(*(a + b for a, b in zip(first, second, strict=True)))


def ratio(total: Any, count: Any) -> Any:
    """Returns total / count, a float for numbers and an array for arrays; NaN where there is nothing to count."""
    total, count = np.broadcast_arrays(np.asarray(total, np.float64), count)
    quotient = np.divide(total, count, out=np.full(total.shape, np.nan), where=count != 0)
    return quotient if quotient.ndim else float(quotient)


def require_same_size(predicted: np.ndarray, truth: np.ndarray, what: str) -> None:
    """Raises `InputError` unless a prediction has the height and width of its ground truth."""
    if predicted.shape[:2] != truth.shape[:2]:
        sizes = [f"{array.shape[1]}x{array.shape[0]}" for array in (predicted, truth)]
        raise InputError(
            f"the {what} is {sizes[0]} and the ground truth {sizes[1]} (width x height): "
            "bring both to the size of the ground truth"
        )


def _average(scores: Sequence[Any]) -> Any:
    """Returns the mean of scores of one kind, without NaN."""
    kind = type(scores[0])
    if kind is GroupScores:
        return _average([item.mean for item in scores])
    if isinstance(scores[0], tuple):
        return kind(*map(_average, zip(*scores, strict=True)))
    values = np.asarray(scores, np.float64)
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(0), known.sum(0))
