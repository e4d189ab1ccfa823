"""`jaxvos evaluate`."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from jaxvos.cli._arguments import Switch
from jaxvos.errors import InputError
from jaxvos.evaluation import (
    Protocol,
    describe_protocols,
    format_table,
    score_folders,
    write_csv,
    write_html,
    write_report,
)

__all__ = ["DESCRIPTION", "Evaluate"]

_NAMES = tyro.conf.arg(metavar="FILE|NAME,...")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score predictions against ground truth as a benchmark does: J, F and T, or what its protocol asks for."""

    predictions: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PREDICTIONS")]
    """Folder of predicted PNGs: of one sequence, or one folder per sequence; what `jaxvos segment` writes will do."""
    ground_truth: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="GROUND-TRUTH")]
    """A DAVIS folder, its Annotations/RESOLUTION, a folder of sequences, one sequence's folder of PNGs, or another data
    set as it was released."""
    protocol: Annotated[Protocol | None, tyro.conf.arg(metavar="PROTOCOL")] = None
    """One of those above. Left out: davis17 where a first frame of the ground truth has several objects, else davis16.
    """
    sequences: Annotated[str | None, _NAMES] = None
    """Score these sequences alone: names, or a file with one in a line. Left out: all must be predicted, or just one.
    """
    all_frames: Switch = False
    """Score also frames that are given to a system: the first and last of davis16 and davis17, the first of segtrack,
    and those in which objects of youtube-vos begin."""
    resize: Switch = False
    """Bring predictions of another size to that of the ground truth: labels to the nearest, soft maps linearly."""
    stability: Switch = False
    """Compute T under davis17 and davis17-unsupervised too; it takes longer than J and F."""
    no_stability: Switch = False
    """Leave T out under davis16."""
    unseen: Annotated[str | None, _NAMES] = None
    """Categories of youtube-vos that were not trained on, for J_seen, J_unseen, F_seen, F_unseen and G."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Threads and processes; left out: one per core."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="FILE.json")] = None
    """Also write the report, per-frame values included, to this JSON file; an older one is replaced."""
    csv: Annotated[Path | None, tyro.conf.arg(metavar="FILE.csv")] = None
    """Also write a row for each object, or for each sequence where there are no objects."""
    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE.html")] = None
    """Also write a page with tables and curves, whole in itself."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Write all three there: results.json, objects.csv, report.html."""
    images: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Frames to draw the worst predictions on in the page: a folder per sequence; beside DAVIS annotations they are
    found."""

    def run(self) -> None:
        folder = self.report
        if folder is not None and folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file: name a folder for the reports")
        writers = [(write_report, self.output, "results.json"), (write_csv, self.csv, "objects.csv"),
                   (write_html, self.html, "report.html")]  # fmt: skip
        named = [(write, path) for write, path, _ in writers if path is not None]
        for _, path in named:
            if path.is_dir():
                raise InputError(f"{path} is a folder: name a file for the report")
        named += [(write, folder / name) for write, _, name in writers if folder is not None]
        pages = any(write is write_html for write, _ in named)
        if self.images is not None and not pages:
            raise InputError("images are for the page: name it with --html or --report")
        if self.images is not None and not self.images.is_dir():
            raise InputError(f"there is no folder {self.images}: give the frames, a folder per sequence")
        if self.stability and self.no_stability:
            raise InputError("--stability and --no-stability exclude each other: name one")
        if self.no_stability and self.protocol not in (None, "davis16"):
            raise InputError(f"no T under {self.protocol} unless it is asked for: leave out --no-stability")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"{self.workers} workers: give a number from 1 on")
        report = score_folders(
            self.predictions,
            self.ground_truth,
            protocol=self.protocol,
            sequences=_sequences(self.sequences),
            score_all_frames=self.all_frames,
            resize=self.resize,
            stability=True if self.stability else False if self.no_stability else None,
            unseen=_names(self.unseen) if self.unseen is not None else (),
            progress=sys.stderr.isatty(),
            workers=self.workers,
        )
        print(format_table(report))
        for write, path in named:
            if write is write_html:
                write_html(report, path, images=self.images)
            else:
                write(report, path)


DESCRIPTION = f"{Evaluate.__doc__}\n\nprotocols:\n{describe_protocols()}"
"""What the help says first."""


def _sequences(text: str | None) -> tuple[str, ...] | Path | None:
    if text is None:
        return None
    return Path(text) if Path(text).is_file() or Path(text).suffix else _names(text)


def _names(text: str) -> tuple[str, ...]:
    """Returns names from the lines of a file, or from a text with commas between."""
    lines = Path(text).read_text(encoding="utf-8").splitlines() if Path(text).is_file() else text.split(",")
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise InputError(f"no name in '{text}': give names with commas between, or a file with one in a line")
    return names
