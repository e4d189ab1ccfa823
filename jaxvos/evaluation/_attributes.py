"""The attributes of DAVIS sequences (occlusion, motion blur, ...), where a file beside the data lists them."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxvos.metrics import Report

__all__ = ["attribute_means", "find_attributes"]

_FILES = ("db_info.yml", "db_info.yaml", "attributes.txt", "attributes")


def find_attributes(ground_truth: Path) -> dict[str, tuple[str, ...]]:
    """Returns the attributes of each sequence, from a file in the data set or in a folder above; nothing without one.

    `db_info.yml` is that of the DAVIS-2016 toolkit; a text file has a sequence and its attributes in each line.
    """
    root = ground_truth.resolve()
    places = [root / "Annotations", root, *root.parents[:3]]
    path = next((place / name for place in places for name in _FILES if (place / name).is_file()), None)
    if path is None:
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    return _from_yaml(text) if path.suffix in (".yml", ".yaml") else _from_lines(text)


def attribute_means(report: Report, attributes: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[int, float, float]]:
    """Returns for each attribute the number of objects in sequences that have it, and their mean J and F."""
    kinds = sorted({kind for sequence in report.sequences for kind in attributes.get(sequence.name, ())})
    means = {}
    for kind in kinds:
        items = [o for s in report.sequences if kind in attributes.get(s.name, ()) for o in s.objects]
        means[kind] = len(items), float(np.mean([o.j.mean for o in items])), float(np.mean([o.f.mean for o in items]))
    return means


def _from_yaml(text: str) -> dict[str, tuple[str, ...]]:
    """Reads the one shape that the file has: entries that begin with a hyphen and have a name and a list."""
    found = {}
    for entry in re.split(r"^\s*-\s+(?=\w+:)", text, flags=re.MULTILINE)[1:]:
        name = re.search(r"^\s*name:\s*['\"]?([\w.-]+)", entry, flags=re.MULTILINE)
        listed = re.search(r"^\s*attributes:\s*\[([^\]]*)\]", entry, flags=re.MULTILINE)
        below = re.search(r"^\s*attributes:\s*\n((?:\s*-\s+\w+\s*\n)+)", entry, flags=re.MULTILINE)
        kinds = listed or below
        if name and kinds:
            found[name[1]] = tuple(re.findall(r"\w+", kinds[1]))
    return found


def _from_lines(text: str) -> dict[str, tuple[str, ...]]:
    rows = [re.findall(r"[\w.-]+", line) for line in text.splitlines() if not line.lstrip().startswith("#")]
    return {name: tuple(kinds) for name, *kinds in (row for row in rows if row)}
