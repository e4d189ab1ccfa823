"""`jaxvos export`."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated

import tyro

from jaxvos.cli._arguments import Switch
from jaxvos.cli._story import introduce
from jaxvos.errors import InputError

__all__ = ["Export"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write a model as one file that runs without jaxvos: its functions as StableHLO, its weights and its story.

    The lines of jax that run it, and what it holds, are documented in jaxvos/inference/_exported.py. Every model can be
    exported, for frames of one size; it is then what `jaxvos segment` runs on each frame. Not exported are: training,
    and hence --online (in Python, a model that was adapted can be); gradients; reading videos, and finding the flow or
    the proposals that a model wants (export pwc_net or mask_rcnn beside it, and hand over what they answer); a system
    of your own that calls Python back from within its functions.
    """

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """A .safetensors file, a training run's folder, the name of an embedded model or of its system, such as stcn, or
    imagenet."""
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="FILE.zip")]
    """The file; it must be new."""
    size: Annotated[str | None, tyro.conf.arg(metavar="ROWSxCOLUMNS")] = None
    """Of the frames, such as 480x854, which it is for nets that take any; if left out, that of the net's input."""
    objects: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Objects that are followed at most, for models that are told what to follow; 1 if left out."""
    num_proposals: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Proposals of a frame, for models that choose among such; 50 if left out."""
    proposal_size: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Rows and columns of the proposals' masks; 28, as those of Mask R-CNN, if left out."""
    platforms: Annotated[tuple[str, ...], tyro.conf.arg(metavar="cpu|cuda|rocm|tpu")] = ("cpu",)
    """Where it will run, one or several; none but a CPU is needed here."""
    overwrite: Switch = False
    """Replace an older file."""

    def run(self) -> None:
        from jaxvos.inference import export_model, save_exported
        from jaxvos.models import load_model

        if self.output.suffix.lower() != ".zip":
            raise InputError(f"{self.output} is not named as an archive: use .zip")
        if self.output.is_dir():
            raise InputError(f"{self.output} is a folder: name a file")
        if self.output.exists() and not self.overwrite:
            raise InputError(f"{self.output} exists: choose another file or add --overwrite")
        size = None if self.size is None else _size(self.size)
        model = load_model(self.model)
        exported = export_model(model, size=size, num_objects=self.objects, num_proposals=self.num_proposals,
                                proposal_size=self.proposal_size, platforms=self.platforms)  # fmt: skip
        save_exported(self.output, exported)
        print(introduce(model, default=False))
        rows, columns = exported.about["size"]
        objects = exported.about["objects"]
        told = "" if objects is None else f", {objects} object{'s' if objects > 1 else ''}"
        print(f"{', '.join(exported.functions)} for frames of {rows}x{columns} (rows x columns){told}, on "
              f"{', '.join(exported.about['platforms'])}, in {self.output} "
              f"({self.output.stat().st_size / 1e6:.1f} MB)")  # fmt: skip


def _size(text: str) -> tuple[int, int]:
    if not re.fullmatch("[0-9]+x[0-9]+", text):
        raise InputError(f"--size {text!r}: give rows and columns, such as 480x854")
    rows, columns = text.split("x")
    return int(rows), int(columns)
