"""`jaxvos segment`."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxvos.cli._arguments import Output, Switch
from jaxvos.cli._story import introduce, segment_into, summarise
from jaxvos.errors import InputError

__all__ = ["Segment"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """Segment a video: masks as palette PNGs, an overlay video, a contact sheet and the numbers of the run.

    Several sequences are segmented one after the other, each into a folder of its name. If one cannot be, that is the
    end, the message names it, and those before it are kept.
    """

    input: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INPUT")]
    """A video file, a folder of frames, a quoted glob of frames, or a folder of sequences, such as that of DAVIS."""
    output: Output
    """Folder for the results; it must be new or empty."""
    model: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """A .safetensors file, a training run's folder, or the name of an embedded model or of its system, such as dmm_net;
    if left out, the embedded default: what moves, or with a first mask, what that marks."""
    first_mask: Annotated[Path | None, tyro.conf.arg(metavar="PNG|FOLDER")] = None
    """Objects to follow: an indexed PNG of the first frame, an id for each; for several sequences a folder with
    SEQUENCE.png or SEQUENCE/FIRST-FRAME.png (such as Annotations/480p) for each."""
    proposals: Annotated[str | None, tyro.conf.arg(metavar="FILE|MODEL|FOLDER")] = None
    """Masks that might be objects, for models that choose among such: a file of `jaxvos proposals`, a COCO json, or a
    network; for several sequences a network or a folder with SEQUENCE.npz or SEQUENCE.json. Left out: the embedded
    network."""
    online: Switch = False
    """Train on the first frame, whose masks are given, before the rest is segmented."""
    online_steps: int = 100
    """Steps of that; each takes seconds on a CPU."""
    flow: Annotated[str | None, tyro.conf.arg(metavar="dis|FOLDER")] = None
    """Where motion comes from, for models that want it: dis computes it here (OpenCV) and is the default; a folder
    holds NAME.flo, .pfm or KITTI's .png for each frame, or, for several sequences, a folder of those for each."""
    threshold: float = 0.5
    """A pixel belongs to the likeliest object where this is its probability against that of the background."""
    last_frame: Literal["reuse", "backward", "skip"] = "reuse"
    """The last frame has no next one: reuse the flow before it, negate the flow to the frame before, or skip it."""
    overwrite: Switch = False
    """Replace earlier results in the output folder; other files there stay."""

    def run(self) -> None:
        from jaxvos.data import find_sequences, open_video
        from jaxvos.inference import stream
        from jaxvos.models import FIRST_MASK, load_model
        from jaxvos.results import check_apart, check_output, output_folder

        check_output(self.output, overwrite=self.overwrite)
        if self.online_steps < 1:
            raise InputError(f"{self.online_steps} steps of online learning: give a number from 1 on")
        sequences = find_sequences(self.input) or {"": Path(self.input)}
        videos, inputs = {}, {}
        for name, source in sequences.items():  # what can be found out is found out before anything is computed
            check_apart(self.output, source.parent if name else source)
            with _named(name):
                check_apart(self.output / name, source)
                check_output(self.output / name, overwrite=self.overwrite)
                videos[name] = open_video(source, minimum_frames=2)
                inputs[name] = self._inputs(name, videos[name].frame_name(0))
        default = self.model is None
        model = load_model(FIRST_MASK if default and self.first_mask is not None else self.model)
        options = {"threshold": self.threshold, "last_frame": self.last_frame,
                   "online_steps": self.online_steps if self.online else 0}  # fmt: skip
        streams = {}
        for name, video in videos.items():
            if "flow" in model.system.needs and inputs[name]["flow"] is None:
                inputs[name]["flow"] = "dis"
            with _named(name):
                streams[name] = stream(video, model=model, **inputs[name], **options)
        print(introduce(model, default=default))
        for index, (name, video) in enumerate(videos.items()):
            story = {"input": str(sequences[name]), **inputs[name], **options}
            folder = self.output / name
            with _named(name, f" ({index} of {len(videos)} sequences are finished)"), output_folder(folder) as partial:
                report = segment_into(streams.pop(name), partial, video, model, story)
            print(summarise(report, folder))

    def _inputs(self, sequence: str, first_frame: str) -> dict[str, str | None]:
        """What is given besides the frames, of one sequence."""
        flow, mask, proposals = self.flow, self.first_mask, self.proposals
        if sequence and flow is not None and flow != "dis":
            flow = str(Path(flow) / sequence)
        if sequence and mask is not None:
            mask = _either(mask / f"{sequence}.png", mask / sequence / f"{first_frame}.png")
        if sequence and proposals is not None and not _is_model(Path(proposals)):
            proposals = str(_either(Path(proposals) / f"{sequence}.npz", Path(proposals) / f"{sequence}.json"))
        return {"flow": flow, "first_mask": None if mask is None else str(mask), "proposals": proposals}


def _either(first: Path, second: Path) -> Path:
    return second if second.exists() and not first.exists() else first


def _is_model(path: Path) -> bool:
    """Tells a network from a folder of proposal files."""
    return not path.is_dir() or (path / "config.json").is_file()


@contextlib.contextmanager
def _named(sequence: str, more: str = "") -> Iterator[None]:
    """Says which sequence it was, if there are several."""
    try:
        yield
    except InputError as error:
        raise (InputError(f"{sequence}: {error}{more}") if sequence else error) from None
