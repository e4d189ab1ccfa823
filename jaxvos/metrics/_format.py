"""A report as lines for a terminal, as JSON and as CSV."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxvos.metrics._report import MeasureReport, ObjectScores, Report, SequenceScores

__all__ = ["format_csv", "format_json", "format_table"]

_PROTOCOLS = {"davis16": "davis16: all objects of a frame as one foreground",
              "davis17": "davis17: each object by its label"}  # fmt: skip
_COLUMNS = ("J", "J recall", "J decay", "F", "F recall", "F decay")


def format_table(report: Report | MeasureReport) -> str:
    """Returns the report as lines for a terminal: one row per sequence, then the numbers over all."""
    lines = _table(report) if isinstance(report, Report) else _measure_table(report)
    if report.not_predicted:
        lines.append(f"not scored, no predictions: {', '.join(report.not_predicted)}")
    if report.not_annotated:
        lines.append(f"not scored, no ground truth: {', '.join(report.not_annotated)}")
    return "\n".join([*lines, *report.notes])


def format_json(report: Report | MeasureReport) -> str:
    """Returns the report as JSON, per-frame values included. A number that does not exist (NaN) is `null`."""
    if isinstance(report, Report):
        totals = _numbers(report) | dict(report.extra) | {"objects": len(report.objects)}
        about = {"protocol": report.protocol, "score_all_frames": report.score_all_frames}
        sequences = {
            s.name: _numbers(s)
            | {"frames": s.frames, "objects": {str(item.label): _object(item) for item in s.objects}}
            for s in report.sequences
        }
    else:
        totals, about = dict(report.measures), {"protocol": report.protocol}
        sequences = {s.name: {**s.measures, "frames": s.frames, "by_frame": s.by_frame} for s in report.sequences}
    content = about | {
        "predictions": report.predictions,
        "ground_truth": report.ground_truth,
        "global": totals | {"frames": report.num_frames},
        "sequences": sequences,
        "not_predicted": report.not_predicted,
        "not_annotated": report.not_annotated,
        "notes": report.notes,
    }
    return json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"


def format_csv(report: Report | MeasureReport) -> str:
    """Returns the report as CSV: a row for each object, or for each sequence where there are no objects.

    The last row, `all`, has the numbers over all. A number that does not exist (NaN) is an empty field.
    """
    if isinstance(report, Report):
        header = ["sequence", "object", "frames", *_COLUMNS, "J&F", "T"]
        rows = [[sequence.name, item.label, len(item.j_frames), *_row(item)]
                for sequence in report.sequences for item in sequence.objects]  # fmt: skip
        rows.append(["all", "all", report.num_frames, *_row(report)])
    else:
        header = ["sequence", "frames", *report.measures]
        rows = [[s.name, len(s.frames), *s.measures.values()] for s in report.sequences]
        rows.append(["all", report.num_frames, *report.measures.values()])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if value != value else value for value in row] for row in rows])
    return text.getvalue()


def _table(report: Report) -> list[str]:
    stable = any(item.t_frames for item in report.objects)
    names = [sequence.name for sequence in report.sequences]
    width = max(map(len, [*names, "all objects"]))
    header = f"{'sequence':{width}}  objects  frames    J&F |      J  recall   decay |      F  recall   decay"
    header += " |      T" if stable else ""
    counted = "all frames count" if report.score_all_frames else "first and last frames do not count"
    described = _PROTOCOLS.get(report.protocol)
    lines = [f"protocol {described}; {counted}" if described else f"protocol {report.protocol}", header]
    lines.append("-" * len(header))
    lines += [_line(sequence.name, width, len(sequence.objects), len(sequence.frames), sequence, stable)
              for sequence in report.sequences]  # fmt: skip
    lines += ["-" * len(header), _line("all objects", width, len(report.objects), report.num_frames, report, stable)]
    return lines + [f"{name}: {_rounded(value)}" for name, value in report.extra.items()]


def _measure_table(report: MeasureReport) -> list[str]:
    names = [sequence.name for sequence in report.sequences]
    width = max(map(len, [*names, "all"]))
    header = "  ".join([f"{'sequence':{width}}", "frames", *(f"{name:>8}" for name in report.measures)])
    lines = [f"protocol {report.protocol}", header, "-" * len(header)]
    lines += [_measures(s.name, width, len(s.frames), s.measures) for s in report.sequences]
    return [*lines, "-" * len(header), _measures("all", width, report.num_frames, report.measures)]


def _line(
    name: str, width: int, objects: int, frames: int, scores: SequenceScores | Report, stable: bool
) -> str:  # fmt: skip
    j, f = scores.j, scores.f
    text = (
        f"{name:{width}}  {objects:7d}  {frames:6d}  {scores.j_and_f:5.3f} |"
        f"  {j.mean:5.3f}  {j.recall:6.3f}  {j.decay:6.3f} |  {f.mean:5.3f}  {f.recall:6.3f}  {f.decay:6.3f}"
    )
    return f"{text} |  {scores.t:5.3f}" if stable else text


def _measures(name: str, width: int, frames: int, measures: Mapping[str, float]) -> str:
    columns = (f"{_rounded(value):>{max(8, len(key))}}" for key, value in measures.items())
    return "  ".join([f"{name:{width}}", f"{frames:6d}", *columns])


def _rounded(value: float) -> str:
    return f"{value:.4f}"


def _row(scores: ObjectScores | Report) -> Sequence[float]:
    return [*scores.j, *scores.f, (scores.j.mean + scores.f.mean) / 2, scores.t]


def _numbers(scores: SequenceScores | Report) -> dict[str, Any]:
    objects: Iterable[ObjectScores] = scores.objects
    stability = {"T": scores.t} if any(item.t_frames for item in objects) else {}
    return {"J&F": scores.j_and_f, "J": scores.j._asdict(), "F": scores.f._asdict(), **stability}


def _object(item: ObjectScores) -> dict[str, Any]:
    numbers = {"J": item.j._asdict(), "F": item.f._asdict(), "J_frames": item.j_frames, "F_frames": item.f_frames}
    if item.t_frames:
        numbers |= {"T": item.t, "T_frames": item.t_frames}
    return numbers if item.proposal is None else numbers | {"proposal": item.proposal}


def _finite(content: Any) -> Any:
    """Puts null for what is no number, in whatever contains it."""
    if isinstance(content, Mapping):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, tuple | list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
