"""A report as one HTML page: nothing is loaded from anywhere, so it can be sent and kept."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jaxvos.evaluation._attributes import attribute_means, find_attributes
from jaxvos.evaluation._charts import bar, curves, legend
from jaxvos.evaluation._markup import Markup, element
from jaxvos.evaluation._pictures import Picture, worst_frames
from jaxvos.metrics import MeasureReport, Report, SequenceMeasures, SequenceScores

__all__ = ["format_html"]

_COLOURS = ("#3b6ea5", "#c2703d")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 960px; margin: 2em auto;
  padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #ddd }
table { border-collapse: collapse } th, td { padding: .2em .8em .2em 0; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 1px solid #999; font-weight: 600 }
tbody tr:hover { background: #f6f6f6 } td { font-variant-numeric: tabular-nums } p.note { color: #666; margin: .2em 0 }
svg { vertical-align: middle } svg text { font: 11px system-ui, sans-serif; fill: #666 }
details { margin: .4em 0 } summary { cursor: pointer } details svg { width: 100%; max-width: 720px; display: block }
figure { margin: 0 0 1.2em } figure img { width: 49%; margin-right: 1% } figcaption { color: #666 }
"""


def format_html(report: Report | MeasureReport, *, images: Path | None) -> str:
    """Returns the page: numbers over all, bars by sequence, attributes, the worst frames, and curves over time.

    Args:
        report: of `score_folders`; the files that it was made from are read again for the worst frames.
        images: frames to draw on; None takes those beside DAVIS annotations, if they are there.
    """
    sections = [_about(report), element("h2", "Over all"), _summary(report), element("h2", "By sequence"),
                _sequences(report)]  # fmt: skip
    if isinstance(report, Report):
        if means := attribute_means(report, find_attributes(Path(report.ground_truth))):
            rows = [[kind, str(count), _number(j), _number(f)] for kind, (count, j, f) in means.items()]
            sections += [element("h2", "By attribute"), _table(["attribute", "objects", "J", "F"], rows)]
        if pictures := worst_frames(report, images):
            sections += [element("h2", "Worst frames: prediction, ground truth"), *map(_figure, pictures)]
    sections += [element("h2", "Over time"), *map(_details, report.sequences)]
    title = f"{report.protocol}: {Path(report.predictions).name}"
    head = element("head", element("meta", charset="utf-8"), element("title", title), element("style", Markup(_STYLE)))
    body = element("body", element("h1", title), *sections)
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def _about(report: Report | MeasureReport) -> Markup:
    lines = [f"predictions: {report.predictions}", f"ground truth: {report.ground_truth}",
             f"{len(report.sequences)} sequences, {report.num_frames} frames", *report.notes]  # fmt: skip
    for what, names in (("no predictions", report.not_predicted), ("no ground truth", report.not_annotated)):
        if names:
            lines.append(f"not scored, {what}: {', '.join(names)}")
    return element("div", *(element("p", line, class_="note") for line in lines))


def _summary(report: Report | MeasureReport) -> Markup:
    if isinstance(report, MeasureReport):
        return _table(["measure", "value"], [[name, _number(value)] for name, value in report.measures.items()])
    rows = [[name, *map(_number, values)] for name, values in (("J", report.j), ("F", report.f))]
    rows.append(["J&F", _number(report.j_and_f), "", ""])
    if any(item.t_frames for item in report.objects):
        rows.append(["T", _number(report.t), "", ""])
    rows += [[name, _number(value), "", ""] for name, value in report.extra.items()]
    return _table(["measure", "mean", "recall", "decay"], rows)


def _sequences(report: Report | MeasureReport) -> Markup:
    if isinstance(report, MeasureReport):
        names = list(report.measures)[:2]
        values = [(s.name, [s.measures[name] for name in names], len(s.frames)) for s in report.sequences]
    else:
        names = ["J", "F"]
        values = [(s.name, [s.j.mean, s.f.mean], len(s.frames)) for s in report.sequences]
    highest = [max([1e-9, *(row[1][i] for row in values if row[1][i] == row[1][i])]) for i in range(len(names))]
    limits = [1.0 if isinstance(report, Report) else high for high in highest]
    rows = []
    for name, numbers, frames in values:
        cells: list[str] = [name, str(frames)]
        for value, limit, colour in zip(numbers, limits, _COLOURS, strict=False):
            cells += [_number(value), bar(value, limit=limit, colour=colour)]
        rows.append(cells)
    return _table(["sequence", "frames", *(text for name in names for text in (name, ""))], rows)


def _details(sequence: SequenceScores | SequenceMeasures) -> Markup:
    charts: Mapping[str, Mapping[str, Sequence[float]]]
    if isinstance(sequence, SequenceScores):
        charts = {"J": {str(item.label): item.j_frames for item in sequence.objects},
                  "F": {str(item.label): item.f_frames for item in sequence.objects}}  # fmt: skip
        shown = f"{sequence.name}: J {_number(sequence.j.mean)}, F {_number(sequence.f.mean)}"
    else:
        charts = {name: {name: values} for name, values in sequence.by_frame.items()}
        shown = ", ".join(f"{name} {_number(sequence.measures[name])}" for name in sequence.by_frame)
        shown = f"{sequence.name}: {shown}"
    drawn = [part for name, lines in charts.items()
             for part in (element("p", name, class_="note"), curves(lines, sequence.frames, name=name))]  # fmt: skip
    if isinstance(sequence, SequenceScores) and len(sequence.objects) > 1:
        drawn.insert(0, legend([str(item.label) for item in sequence.objects]))
    return element("details", element("summary", shown), *drawn)


def _figure(picture: Picture) -> Markup:
    images = [element("img", src=uri, alt=what) for uri, what in ((picture.prediction, "prediction"),
                                                                  (picture.ground_truth, "ground truth"))]  # fmt: skip
    caption = f"{picture.sequence}, frame {picture.frame}: J {_number(picture.j)}"
    return element("figure", *images, element("figcaption", caption))


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Markup:
    head = element("thead", element("tr", *(element("th", text) for text in header)))
    body = element("tbody", *(element("tr", *(element("td", cell) for cell in row)) for row in rows))
    return element("table", head, body)


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"
