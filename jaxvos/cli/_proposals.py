"""`jaxvos proposals`."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from jaxvos.errors import InputError

__all__ = ["Propose"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Propose:
    """Propose masks of objects in every frame of a video, or take them from another detector, into one file.

    The file is what `jaxvos segment --proposals` reads: NAME.npz, or NAME.json in COCO's form (masks as RLE, which
    loses their soft values). Its fields are documented in jaxvos/data/_proposals.py.
    """

    input: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INPUT")]
    """A video file, a folder of frames, or a quoted glob of frames."""
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="FILE.npz|FILE.json")]
    """The file; an older one is replaced."""
    model: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """A proposal network: a .safetensors file, a training run's folder, or an embedded model's name; the embedded one
    if left out."""
    detections: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json|FILE.npz")] = None
    """What another detector found, as COCO json (RLE or polygons; image_id is a frame's number or name, or images are
    listed), instead of a network. Boxes are made tight, and of boxes that overlap the better one is kept."""
    num_proposals: int = 50
    """Proposals of a frame at most; the best are kept."""
    sheet: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """Also draw the best ten of some frames there."""

    def run(self) -> None:
        from jaxvos.data import clean_proposals, open_video, read_proposals, write_proposals
        from jaxvos.drawing import write_image
        from jaxvos.inference import propose_video
        from jaxvos.models import PROPOSALS, load_model
        from jaxvos.results import check_apart, proposal_sheet

        if self.output.suffix.lower() not in (".npz", ".json"):
            raise InputError(f"{self.output}: name a file that ends in .npz or .json")
        if self.output.is_dir() or (self.sheet is not None and self.sheet.is_dir()):
            raise InputError(f"{self.output if self.output.is_dir() else self.sheet} is a folder: name a file")
        if self.sheet is not None:  # found out before anything is computed
            if self.sheet.suffix.lower() not in (".png", ".jpg", ".jpeg"):
                raise InputError(f"{self.sheet}: name a picture that ends in .png or .jpg")
            check_apart(self.sheet, self.input)
        if self.num_proposals < 1:
            raise InputError(f"{self.num_proposals} proposals of a frame: give a number from 1 on")
        if self.detections is not None and self.model is not None:
            raise InputError("--model and --detections are two sources of proposals: name one")
        if self.detections is not None and self.detections.resolve() == self.output.resolve():
            raise InputError(f"{self.output} would replace the detections it is made from: name another file")
        video = open_video(self.input)
        if self.detections is None:
            model = load_model(PROPOSALS if self.model is None else self.model)
            print(f"model: {model.name}; licence: {model.metadata.get('licence', 'not stated')}")
            found = propose_video(model, video, num_proposals=self.num_proposals, progress=sys.stderr.isatty())
        else:
            names = tuple(video.frame_name(index) for index, _ in enumerate(video))
            found = read_proposals(self.detections, names=names, size=video.size)
            cleaned = clean_proposals(found.proposals, video.size, num_proposals=self.num_proposals)
            found = dataclasses.replace(found, proposals=cleaned)
        write_proposals(self.output, found)
        count = int(found.proposals.valid.sum())
        print(f"{count} proposals of {len(found)} frames in {self.output} ({count / len(found):.1f} a frame)")
        if self.sheet is not None:
            write_image(self.sheet, proposal_sheet(video, found))
            print(f"look at {self.sheet}")
