"""Reports as files, whole or not at all; an older file of that name is replaced."""

from pathlib import Path

from jaxvos.evaluation._page import format_html
from jaxvos.files import atomic_path
from jaxvos.metrics import MeasureReport, Report, format_csv, format_json

__all__ = ["write_csv", "write_html", "write_report"]


def write_report(report: Report | MeasureReport, path: str | Path) -> None:
    """Writes the report as JSON, with the values of every frame."""
    _write(format_json(report), path)


def write_csv(report: Report | MeasureReport, path: str | Path) -> None:
    """Writes the report as CSV: a row for each object (or sequence) and one for all."""
    _write(format_csv(report), path)


def write_html(report: Report | MeasureReport, path: str | Path, *, images: str | Path | None = None) -> None:
    """Writes the report as one HTML page with tables, curves over time, and the worst frames drawn.

    Args:
        report: of `score_folders`; the files that it was made from are read again.
        path: of the page, which loads nothing from anywhere.
        images: the frames to draw on, a folder per sequence; None takes those beside DAVIS annotations, if any.

    Raises:
        InputError: if images are given and none belongs to a scored frame, or the file cannot be written.
    """
    _write(format_html(report, images=None if images is None else Path(images)), path)


def _write(text: str, path: str | Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
