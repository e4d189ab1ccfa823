"""`jaxvos runs compare`."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxvos.cli._arguments import Output, Switch
from jaxvos.errors import InputError
from jaxvos.training import compare_runs, comparison_as_json, format_comparison, running_mean

if TYPE_CHECKING:
    from jaxvos.training import Comparison

__all__ = ["CompareRuns"]

_RESULTS = ("curves.png", "table.md", "comparison.json")
_RUNS = tyro.conf.arg(metavar="RUN...", help_behavior_hint="(required)")
_NAMES = tyro.conf.arg(metavar="NAME...", help_behavior_hint="(default: all)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareRuns:
    """Compare runs of training: a table of their numbers, the settings in which they differ, and their curves.

    Runs whose configurations differ in nothing but the seed also get a line with mean +- standard deviation (of a
    sample). The loss is the mean of the last 10 % of the log. Of an evaluation there is the last value and the best:
    the highest, but of an error, and of what a run ranks checkpoints by as such, the lowest.
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], _RUNS]
    """Folders of runs: of an experiment, of `jaxvos fit`, or of one phase."""
    output: Output
    """Folder for curves.png, table.md and comparison.json; it must be new or empty."""
    smooth: Annotated[int, tyro.conf.arg(metavar="ENTRIES")] = 1
    """Draw running means over so many entries of the log; evaluations are drawn as they are."""
    metrics: Annotated[tuple[str, ...], _NAMES] = ()
    """Compare these alone, by their names in the log, such as loss eval/J."""
    overwrite: Switch = False
    """Replace an earlier comparison in the output folder; other files there stay."""

    def run(self) -> None:
        from jaxvos.results import check_output, output_folder

        if self.smooth < 1:
            raise InputError(f"means over {self.smooth} entries: give a number from 1 on")
        check_output(self.output, overwrite=self.overwrite, entries=_RESULTS)
        comparison = compare_runs(self.runs, metrics=self.metrics)
        self._check_apart(comparison)
        with output_folder(self.output) as partial:
            self._draw(partial / "curves.png", comparison)
            (partial / "table.md").write_text(format_comparison(comparison, markdown=True) + "\n")
            content = json.dumps(comparison_as_json(comparison), indent=1, allow_nan=False)
            (partial / "comparison.json").write_text(content + "\n")
        print(format_comparison(comparison))
        print(f"\nlook at {self.output / 'curves.png'}")

    def _check_apart(self, comparison: "Comparison") -> None:
        """A run keeps files of the same names in its own folder."""
        output = self.output.resolve()
        for run in (row.run for row in comparison.rows):
            root = (run.folder if run.phase is None else run.folder.parent).resolve()
            if output.is_relative_to(root):
                raise InputError(f"{self.output} is or lies in {root}, a run: choose a folder elsewhere")

    def _draw(self, path: Path, comparison: "Comparison") -> None:
        from jaxvos.drawing import plot_curves

        panels = {}
        for scalar in comparison.scalars:
            entries = 1 if scalar.startswith("eval/") else self.smooth
            panels[scalar] = {row.name: running_mean(row.run.curves[scalar], entries) for row in comparison.rows
                              if scalar in row.run.curves}  # fmt: skip
        runs = f"{len(comparison.rows)} run{'s' if len(comparison.rows) > 1 else ''}"
        plot_curves(path, panels, title=f"{runs}, means over {self.smooth} entries" if self.smooth > 1 else runs)
