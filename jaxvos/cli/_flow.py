"""`jaxvos flow`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxvos.cli._arguments import Output, Switch
from jaxvos.cli._sequences import is_model, named, open_sequences
from jaxvos.cli._story import introduce
from jaxvos.errors import InputError
from jaxvos.training import describe_run

if TYPE_CHECKING:
    from jaxvos.models import Model

__all__ = ["EstimateFlow"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EstimateFlow:
    """Estimate the optical flow of a video: flow files, colour pictures, a colour video, a contact sheet and numbers.

    Red is motion to the right, cyan to the left, yellow downwards, violet upwards, and white is none. One speed
    has one colour in the whole video. Several sequences go one after the other, each into a folder of its name.
    """

    input: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INPUT")]
    """A video file, a folder of frames, a quoted glob of frames, or a folder of sequences, such as that of DAVIS."""
    output: Output
    """Folder for the results; it must be new or empty."""
    model: Annotated[str, tyro.conf.arg(metavar="dis|MODEL|FOLDER")] = "dis"
    """What estimates it: dis (OpenCV); or a .safetensors file, a training run's folder, or the name of a network that
    estimates flow, such as pwc_net. A folder of flow files, named as the frames, is read instead (unknown vectors
    become 0); for several sequences, a folder of those for each."""
    format: Literal["flo", "png", "pfm"] = "flo"
    """Of the flow files: .flo of Middlebury, .png of KITTI (steps of 1/64 pixel, below 512 pixels), or .pfm."""
    radius: Annotated[float | None, tyro.conf.arg(metavar="PIXELS")] = None
    """The speed that is painted in full colour; if left out, 99 % of the video's vectors are no faster, and it is one
    pixel at least."""
    last_frame: Literal["skip", "reuse", "backward"] = "skip"
    """The last frame has no next one: skip it, reuse the flow before it, or negate the flow to the frame before."""
    overwrite: Switch = False
    """Replace earlier results in the output folder; other files there stay."""

    def run(self) -> None:
        from jaxvos.inference import open_flow
        from jaxvos.results import FLOW_RESULTS, output_folder, write_flow_results

        sequences = open_sequences(self.input, self.output, overwrite=self.overwrite, entries=FLOW_RESULTS)
        model = self._load()
        providers = {}
        for name in sequences:
            with named(name):
                providers[name] = open_flow(model or self._place(name))
        print(f"flow: {self.model}" if model is None else introduce(model, default=False))
        for index, (name, (source, video)) in enumerate(sequences.items()):
            folder = self.output / name
            story = {"input": str(source), "model": self._about(model, name), "last_frame": self.last_frame,
                     "format": self.format, **describe_run()}  # fmt: skip
            earlier = [f"flow/*.{kind}" for kind in ("flo", "png", "pfm")]
            with (
                named(name, f" ({index} of {len(sequences)} sequences are finished)"),
                output_folder(folder, outdated=earlier) as partial,
            ):
                report = write_flow_results(video, providers[name], partial, kind=self.format, radius=self.radius,
                                            last_frame=self.last_frame, story=story)  # fmt: skip
            print(_summarise(report, folder))

    def _load(self) -> "Model | None":
        from jaxvos.models import load_model

        if self.model == "dis" or not is_model(self.model):
            return None
        try:
            return load_model(self.model)
        except InputError as error:
            raise InputError(f"{error}; or give dis, or a folder of flow files") from None

    def _place(self, sequence: str) -> str:
        return self.model if self.model == "dis" else str(Path(self.model) / sequence)

    def _about(self, model: "Model | None", sequence: str) -> dict[str, Any]:
        if model is None:
            return {"name": self._place(sequence)}
        about = {key: value for key, value in model.metadata.items() if key != "config"}
        return {"licence": "not stated", **about, "name": model.name}


def _summarise(report: dict[str, Any], folder: Path) -> str:
    seconds, speed = report["seconds"], report["speed"]
    each = "" if seconds["per_frame"] is None else f", {seconds['per_frame']:.2f} s each"
    return (f"flow of {report['frames']} frames in {folder}{each} ({seconds['everything']:.1f} s with all else); "
            f"mean speed {speed['mean']:.2f} px, full colour is {report['radius']:.1f} px")  # fmt: skip
