"""What an evaluation found: per frame, per object, per sequence, over all."""

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from jaxvos.metrics._statistics import Statistics, statistics

__all__ = ["MeasureReport", "ObjectScores", "Report", "SequenceMeasures", "SequenceScores"]

_NONE: Mapping[str, float] = MappingProxyType({})


class ObjectScores(NamedTuple):
    """J and F of one object in each scored frame, in [0, 1]; of one that starts later, in the last of them."""

    label: int
    j_frames: tuple[float, ...]
    f_frames: tuple[float, ...]
    t_frames: tuple[float, ...] = ()  # from each frame to the next, NaN where there is no outline; () if not asked for
    proposal: int | None = None  # the label that was assigned to it, where labels are not given beforehand

    @property
    def j(self) -> Statistics:
        """Region similarity over the frames."""
        return statistics(self.j_frames)

    @property
    def f(self) -> Statistics:
        """Contour accuracy over the frames."""
        return statistics(self.f_frames)

    @property
    def t(self) -> float:
        """Temporal instability as DAVIS publishes it, five times the mean without NaN; NaN where there is none."""
        return 5 * _mean_of_known(self.t_frames)


class SequenceScores(NamedTuple):
    """The objects of one sequence; `frames` names the frames that were scored."""

    name: str
    frames: tuple[str, ...]
    objects: tuple[ObjectScores, ...]

    @property
    def j(self) -> Statistics:
        """Region similarity, averaged over the objects."""
        return _average(item.j for item in self.objects)

    @property
    def f(self) -> Statistics:
        """Contour accuracy, averaged over the objects."""
        return _average(item.f for item in self.objects)

    @property
    def t(self) -> float:
        """Temporal instability, averaged over the objects that have one; NaN where none has."""
        return _mean_of_known([item.t for item in self.objects])

    @property
    def j_and_f(self) -> float:
        """The mean of mean J and mean F."""
        return (self.j.mean + self.f.mean) / 2


class Report(NamedTuple):
    """An evaluation. Its global numbers are averages over all objects of all sequences, as the benchmark's are."""

    protocol: str
    score_all_frames: bool
    predictions: str
    ground_truth: str
    sequences: tuple[SequenceScores, ...]
    not_predicted: tuple[str, ...] = ()  # sequences of the ground truth that the predictions lack
    not_annotated: tuple[str, ...] = ()  # sequences of the predictions that the ground truth lacks
    extra: Mapping[str, float] = _NONE  # numbers over all that only this protocol has
    notes: tuple[str, ...] = ()  # what a reader of the numbers has to know

    @property
    def objects(self) -> tuple[ObjectScores, ...]:
        """All objects, sequence after sequence."""
        return tuple(item for sequence in self.sequences for item in sequence.objects)

    @property
    def j(self) -> Statistics:
        """Region similarity, averaged over all objects."""
        return _average(item.j for item in self.objects)

    @property
    def f(self) -> Statistics:
        """Contour accuracy, averaged over all objects."""
        return _average(item.f for item in self.objects)

    @property
    def t(self) -> float:
        """Temporal instability, averaged over all objects that have one; NaN where none has."""
        return _mean_of_known([item.t for item in self.objects])

    @property
    def j_and_f(self) -> float:
        """The mean of mean J and mean F: the number that systems are ranked by."""
        return (self.j.mean + self.f.mean) / 2

    @property
    def num_frames(self) -> int:
        """Scored frames, over all sequences."""
        return sum(len(sequence.frames) for sequence in self.sequences)


class SequenceMeasures(NamedTuple):
    """The measures of one sequence, and of each of its frames, by name."""

    name: str
    frames: tuple[str, ...]
    measures: Mapping[str, float]
    by_frame: Mapping[str, tuple[float, ...]]


class MeasureReport(NamedTuple):
    """An evaluation by measures other than J and F; `measures` are over all frames, as the protocol averages."""

    protocol: str
    predictions: str
    ground_truth: str
    measures: Mapping[str, float]
    sequences: tuple[SequenceMeasures, ...]
    not_predicted: tuple[str, ...] = ()
    not_annotated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_frames(self) -> int:
        """Scored frames, over all sequences."""
        return sum(len(sequence.frames) for sequence in self.sequences)


def _average(items: Iterable[Statistics]) -> Statistics:
    return Statistics(*(float(value) for value in np.mean(list(items), axis=0)))


def _mean_of_known(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
