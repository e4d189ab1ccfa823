"""A comparison of runs as a table, for a terminal or in Markdown, and as JSON."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxvos.training._compare import Comparison, Row, SeedGroup

__all__ = ["comparison_as_json", "format_comparison"]


def format_comparison(comparison: Comparison, *, markdown: bool = False) -> str:
    """Returns the runs with their numbers, means over seeds, the fields that differ, and the notes.

    Args:
        comparison: of `compare_runs`.
        markdown: tables of Markdown, rather than columns for a terminal.
    """
    table = _markdown if markdown else _aligned
    header = ["run", "step", *(column.name for column in comparison.columns), "clips/s", "commit", "device"]
    rows = [_run_cells(row) for row in comparison.rows]
    parts = [table([header, *rows, *(_group_cells(group) for group in comparison.groups)])]
    names = [row.name for row in comparison.rows]
    if comparison.differences:
        fields = [[field, *(_told(values, row) for row in comparison.rows)]
                  for field, values in comparison.differences.items()]  # fmt: skip
        parts.append(table([["field", *names], *fields]))
    elif len(names) > 1:
        parts.append("The configurations do not differ, as far as they are known.")
    if comparison.notes:
        parts.append("\n".join(f"{'- ' if markdown else ''}note: {note}" for note in comparison.notes))
    return "\n\n".join(parts)


def comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    """Returns the same facts as what JSON can hold; a number that does not exist is None.

    A field that a run lacks, or that is not known of it, is not there among its differences.
    """
    runs = [{"name": row.name, "folder": str(row.run.folder), "phase": row.run.phase, "step": row.run.step,
             "num_steps": row.run.num_steps, "numbers": _finite(row.numbers), "best_steps": dict(row.best_steps),
             "clips_per_second": _finite({"": row.clips_per_second})[""], "commit": row.run.commit,
             "device": row.run.device, "configuration_known": row.run.complete}
            for row in comparison.rows]  # fmt: skip
    groups = [{"runs": [row.name for row in group.rows], "seeds": list(group.seeds),
               "numbers": {name: _finite({"mean": mean, "std": std}) for name, (mean, std) in group.numbers.items()}}
              for group in comparison.groups]  # fmt: skip
    return {"runs": runs, "groups": groups, "differences": {k: dict(v) for k, v in comparison.differences.items()},
            "notes": list(comparison.notes)}  # fmt: skip


def _run_cells(row: Row) -> list[str]:
    run = row.run
    step = f"{run.step} of {'?' if run.num_steps is None else run.num_steps}"
    numbers = [_number(value) for value in row.numbers.values()]
    return [row.name, step, *numbers, _number(row.clips_per_second), _short(run.commit), run.device]


def _group_cells(group: SeedGroup) -> list[str]:
    more = len(group.rows) - 1
    numbers = ["-" if math.isnan(mean) else f"{_number(mean)} +- {std:.2g}" for mean, std in group.numbers.values()]
    return [f"{group.rows[0].name} and {more} more seed{'s' if more > 1 else ''}", "", *numbers, "", "", ""]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _short(commit: str) -> str:
    """Seven digits of a hash, and whether the source was changed since."""
    return re.sub(r"^([0-9a-f]{7})[0-9a-f]+", r"\1", commit)


def _told(values: Mapping[str, Any], row: Row) -> str:
    """A value of a configuration as it may be written down."""
    if row.name not in values:
        return "absent" if row.run.complete else "?"
    value = values[row.name]
    return value if isinstance(value, str) else json.dumps(value)


def _finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return "\n".join(lines)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    header, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *body))
