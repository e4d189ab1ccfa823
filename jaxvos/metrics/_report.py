"""What an evaluation found: per frame, per object, per sequence, over all; as a table and as JSON."""

import json
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from jaxvos.metrics._statistics import Statistics, statistics

__all__ = ["ObjectScores", "Report", "SequenceScores", "format_json", "format_table"]


class ObjectScores(NamedTuple):
    """J and F of one object in each scored frame, in [0, 1]."""

    label: int
    j_frames: tuple[float, ...]
    f_frames: tuple[float, ...]

    @property
    def j(self) -> Statistics:
        """Region similarity over the frames."""
        return statistics(self.j_frames)

    @property
    def f(self) -> Statistics:
        """Contour accuracy over the frames."""
        return statistics(self.f_frames)


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
    def j_and_f(self) -> float:
        """The mean of mean J and mean F: the number that systems are ranked by."""
        return (self.j.mean + self.f.mean) / 2

    @property
    def num_frames(self) -> int:
        """Scored frames, over all sequences."""
        return sum(len(sequence.frames) for sequence in self.sequences)


_PROTOCOLS = {"davis16": "davis16: all objects of a frame as one foreground",
              "davis17": "davis17: each object by its label"}


def format_table(report: Report) -> str:
    """Returns the report as lines for a terminal: one row per sequence, then the average over all objects."""
    names = [sequence.name for sequence in report.sequences]
    width = max(map(len, [*names, "all objects"]))
    header = f"{'sequence':{width}}  objects  frames    J&F |      J  recall   decay |      F  recall   decay"
    counted = "all frames count" if report.score_all_frames else "first and last frames do not count"
    lines = [f"protocol {_PROTOCOLS.get(report.protocol, report.protocol)}; {counted}", header, "-" * len(header)]
    lines += [_row(sequence.name, width, len(sequence.objects), len(sequence.frames), sequence)
              for sequence in report.sequences]
    lines += ["-" * len(header), _row("all objects", width, len(report.objects), report.num_frames, report)]
    if report.not_predicted:
        lines.append(f"not scored, no predictions: {', '.join(report.not_predicted)}")
    if report.not_annotated:
        lines.append(f"not scored, no ground truth: {', '.join(report.not_annotated)}")
    return "\n".join(lines)


def format_json(report: Report) -> str:
    """Returns the report as JSON, per-frame values included. A number that does not exist (NaN) is `null`."""
    sequences = {sequence.name: _numbers(sequence) | {
        "frames": list(sequence.frames),
        "objects": {str(item.label): {"J": _finite(item.j), "F": _finite(item.f), "J_frames": list(item.j_frames),
                                      "F_frames": list(item.f_frames)} for item in sequence.objects},
    } for sequence in report.sequences}
    content = {
        "protocol": report.protocol,
        "score_all_frames": report.score_all_frames,
        "predictions": report.predictions,
        "ground_truth": report.ground_truth,
        "global": _numbers(report) | {"objects": len(report.objects), "frames": report.num_frames},
        "sequences": sequences,
        "not_predicted": list(report.not_predicted),
        "not_annotated": list(report.not_annotated),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _average(items: Iterable[Statistics]) -> Statistics:
    return Statistics(*(float(value) for value in np.mean(list(items), axis=0)))


def _row(name: str, width: int, objects: int, frames: int, scores: SequenceScores | Report) -> str:
    j, f = scores.j, scores.f
    return (f"{name:{width}}  {objects:7d}  {frames:6d}  {scores.j_and_f:5.3f} |"
            f"  {j.mean:5.3f}  {j.recall:6.3f}  {j.decay:6.3f} |  {f.mean:5.3f}  {f.recall:6.3f}  {f.decay:6.3f}")


def _numbers(scores: SequenceScores | Report) -> dict[str, Any]:
    return {"J&F": scores.j_and_f, "J": _finite(scores.j), "F": _finite(scores.f)}


def _finite(values: Statistics) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values._asdict().items()}
