"""Kinds of options that several commands have."""

from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["Output", "Switch"]

Output = Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="FOLDER")]
Switch = tyro.conf.FlagCreatePairsOff[bool]
