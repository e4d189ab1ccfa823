"""`jaxvos datasets`: list and prepare."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from jaxvos.errors import InputError

__all__ = ["ListDatasets", "PrepareDataset"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListDatasets:
    """Say what each data set should look like on disk, how large it is, and under which terms it is."""

    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="NAME")] = None
    """Of this one alone."""

    def run(self) -> None:
        from jaxvos.data import LAYOUTS, find_layout

        chosen = LAYOUTS.values() if self.name is None else [find_layout(self.name)]
        print("\n\n".join(layout.describe() for layout in chosen))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareDataset:
    """Check a data set as it was released, and copy its files into records for fast reading, whole or not at all."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Of those that `jaxvos datasets list` names."""
    source: Annotated[Path, tyro.conf.arg(name="from", metavar="FOLDER|ARCHIVE")]
    """The folder of the release, or an archive of it (zip, tar, tar.gz)."""
    to: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("~/tensorflow_datasets")
    """Where all prepared data sets are; this one goes into a folder of its name there."""

    def run(self) -> None:
        from jaxvos.data import find_layout, prepare_dataset

        find_layout(self.name)
        if self.to.expanduser().is_file():
            raise InputError(f"{self.to} is a file: name a folder for prepared data sets")
        print(prepare_dataset(self.name, self.source, self.to, progress=sys.stderr.isatty()).summary())
