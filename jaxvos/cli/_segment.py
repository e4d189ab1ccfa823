"""`jaxvos segment`."""

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxvos.cli._arguments import Output, Switch
from jaxvos.cli._clusters import first_clusters
from jaxvos.cli._sequences import is_model, named, open_sequences
from jaxvos.cli._story import introduce, segment_into, summarise
from jaxvos.errors import InputError

if TYPE_CHECKING:
    from jaxvos.models import Model

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
    model: Annotated[str | None, tyro.conf.arg(metavar="MODEL", aliases=("--checkpoint",))] = None
    """A .safetensors file, a training run's folder, the name of an embedded model or of its system, such as dmm_net, or
    imagenet for untrained features, by which masks are carried on; if left out, an embedded one: of what moves, of what
    masks mark, or with --proposals or --online beside them, one that has use for those."""
    first_mask: Annotated[Path | None, tyro.conf.arg(metavar="PNG|FOLDER")] = None
    """Objects to follow: an indexed PNG of the first frame, an id for each; for several sequences a folder with
    SEQUENCE.png or SEQUENCE/FIRST-FRAME.png (such as Annotations/480p) for each."""
    mask: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="FRAME:PNG")] = ()
    """The same on any frame of a single video, for models whose objects come and go (of STCN, XMem, Mask-VOS); may be
    repeated. Frames are counted from 0. Ids that are followed are corrected, others are followed from there on."""
    remove: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="FRAME:ID,...")] = ()
    """Ids that are not followed from that frame on; may be repeated."""
    clusters: Switch = False
    """Follow what `jaxvos clusters` keeps of the video, in place of masks; for a run of `jaxvos fit`."""
    proposals: Annotated[str | None, tyro.conf.arg(metavar="FILE|MODEL|FOLDER")] = None
    """Masks that might be objects, for models that choose among such: a file of `jaxvos proposals`, a COCO json, or a
    network; for several sequences a network or a folder with SEQUENCE.npz or SEQUENCE.json. Left out: the embedded
    network."""
    online: bool = False
    """Train on the first frame, whose masks are given, before the rest is segmented."""
    online_steps: int = 100
    """Steps of that, at most; each takes seconds on a CPU."""
    online_heads: Switch = False
    """Train the last layers alone, which is faster."""
    online_patience: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """End it when the loss has not fallen in so many evaluations, one every ten steps."""
    flow: Annotated[str | None, tyro.conf.arg(metavar="dis|MODEL|FOLDER")] = None
    """Where motion comes from, for models that want it: dis computes it here (OpenCV) and is the default; a network
    such as pwc_net estimates it; a folder holds NAME.flo, .pfm or KITTI's .png for each frame, or, for several
    sequences, a folder of those for each."""
    threshold: float = 0.5
    """A pixel belongs to the likeliest object where this is its probability against that of the background."""
    last_frame: Literal["reuse", "backward", "skip"] = "reuse"
    """The last frame has no next one: reuse the flow before it, negate the flow to the frame before, or skip it. For
    models that look at the next frame itself: reuse the last one, look at the one before, or skip it."""
    overwrite: Switch = False
    """Replace earlier results in the output folder; other files there stay."""

    def run(self) -> None:
        from jaxvos.inference import OnlineConfig, stream
        from jaxvos.models import default_model, load_model
        from jaxvos.results import RESULTS, output_folder

        online = OnlineConfig(num_steps=self.online_steps, heads_only=self.online_heads, patience=self.online_patience)
        told = {"masks": _masks(self.mask), "removals": _removals(self.remove)}
        sequences = open_sequences(self.input, self.output, overwrite=self.overwrite, entries=RESULTS)
        if len(sequences) > 1 and (self.mask or self.remove):
            raise InputError(f"--mask and --remove are of a single video, and {self.input} holds {len(sequences)}: "
                             "segment that one by itself")  # fmt: skip
        inputs = {name: self._inputs(name, video.frame_name(0)) for name, (_, video) in sequences.items()}
        default = self.model is None
        marked, matching = self.first_mask is not None or bool(self.mask), self.proposals is not None or self.online
        model = load_model(default_model(marked=marked, matching=matching) if self.model is None else self.model)
        options = {"threshold": self.threshold, "last_frame": self.last_frame}
        if self.clusters:
            self._check_clusters(model, marked=marked)
        streams = {}
        for name, (source, video) in sequences.items():
            if self.clusters:
                with named(name):
                    inputs[name]["first_mask"] = first_clusters(str(source), model, video.size)
            if "flow" in model.system.needs and inputs[name]["flow"] is None:
                inputs[name]["flow"] = "dis"
            with named(name):
                streams[name] = stream(video, model=model, online=online if self.online else None, **inputs[name],
                                       **told, **options)  # fmt: skip
        print(introduce(model, default=default))
        for index, (name, (source, video)) in enumerate(sequences.items()):
            given = {**inputs[name], **({"first_mask": "clusters"} if self.clusters else {})}
            story = {"input": str(source), **given, **told, **options,
                     "online": dataclasses.asdict(online) if self.online else None}  # fmt: skip
            folder = self.output / name
            finished = f" ({index} of {len(sequences)} sequences are finished)"
            with named(name, finished), output_folder(folder) as partial:
                report = segment_into(streams.pop(name), partial, video, model, story)
            print(summarise(report, folder))

    def _check_clusters(self, model: "Model", *, marked: bool) -> None:
        from jaxvos.systems import MaskVOSConfig

        if marked:
            raise InputError("--clusters and masks are two ways to say what to follow: give one")
        if not isinstance(model.config, MaskVOSConfig):
            raise InputError(f"--clusters is for models of jaxvos fit, and {model.name} is none: name one with --model")

    def _inputs(self, sequence: str, first_frame: str) -> dict[str, Any]:
        """What is given besides the frames, of one sequence."""
        flow, mask, proposals = self.flow, self.first_mask, self.proposals
        if sequence and flow is not None and not is_model(flow):
            flow = str(Path(flow) / sequence)
        if sequence and mask is not None:
            mask = _either(mask / f"{sequence}.png", mask / sequence / f"{first_frame}.png")
        if sequence and proposals is not None and not is_model(proposals):
            proposals = str(_either(Path(proposals) / f"{sequence}.npz", Path(proposals) / f"{sequence}.json"))
        return {"flow": flow, "first_mask": None if mask is None else str(mask), "proposals": proposals}


def _masks(texts: tuple[str, ...]) -> dict[int, str]:
    masks = {}
    for text in texts:
        frame, _, path = text.partition(":")
        if not re.fullmatch("[0-9]+", frame) or not path:
            raise InputError(f"--mask {text!r}: give the number of a frame and a file, such as 37:new.png")
        if int(frame) in masks:
            raise InputError(f"--mask: two masks for frame {int(frame)}: put all its objects into one")
        masks[int(frame)] = path
    return masks


def _removals(texts: tuple[str, ...]) -> dict[int, list[int]]:
    removals = {}
    for text in texts:
        if not re.fullmatch("[0-9]+:[0-9]+(,[0-9]+)*", text):
            raise InputError(f"--remove {text!r}: give the number of a frame and ids, such as 50:3 or 50:3,4")
        frame, _, ids = text.partition(":")
        known = removals.setdefault(int(frame), [])
        known += [value for value in map(int, ids.split(",")) if value not in known]
    return removals


def _either(first: Path, second: Path) -> Path:
    return second if second.exists() and not first.exists() else first
