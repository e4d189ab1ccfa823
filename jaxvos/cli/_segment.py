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
    """A .safetensors file, a training run's folder, or an embedded model's name; the embedded default if left out."""
    flow: Annotated[str, tyro.conf.arg(metavar="dis|FOLDER")] = "dis"
    """Where motion comes from: dis computes it here (OpenCV); a folder holds NAME.flo, .pfm or KITTI's .png for each
    frame, or, for several sequences, a folder of those for each."""
    threshold: float = 0.5
    """Foreground is where its probability reaches this."""
    last_frame: Literal["reuse", "backward", "skip"] = "reuse"
    """The last frame has no next one: reuse the flow before it, negate the flow to the frame before, or skip it."""
    overwrite: Switch = False
    """Replace earlier results in the output folder; other files there stay."""

    def run(self) -> None:
        from jaxvos.data import find_sequences, open_video
        from jaxvos.inference import stream
        from jaxvos.models import load_model
        from jaxvos.results import check_apart, check_output, output_folder

        check_output(self.output, overwrite=self.overwrite)
        sequences = find_sequences(self.input) or {"": Path(self.input)}
        videos, flows = {}, {}
        for name, source in sequences.items():  # what can be found out is found out before anything is computed
            check_apart(self.output, source.parent if name else source)
            with _named(name):
                check_apart(self.output / name, source)
                check_output(self.output / name, overwrite=self.overwrite)
                videos[name] = open_video(source, minimum_frames=2)
                flows[name] = self.flow if self.flow == "dis" else str(Path(self.flow) / name)
        model = load_model(self.model)
        options = {"threshold": self.threshold, "last_frame": self.last_frame}
        streams = {}
        for name, video in videos.items():
            with _named(name):
                streams[name] = stream(video, model=model, flow=flows[name], **options)
        print(introduce(model, default=self.model is None))
        for index, (name, video) in enumerate(videos.items()):
            story = {"input": str(sequences[name]), "flow": flows[name], **options}
            folder = self.output / name
            with _named(name, f" ({index} of {len(videos)} sequences are finished)"), output_folder(folder) as partial:
                report = segment_into(streams.pop(name), partial, video, model, story)
            print(summarise(report, folder))


@contextlib.contextmanager
def _named(sequence: str, more: str = "") -> Iterator[None]:
    """Says which sequence it was, if there are several."""
    try:
        yield
    except InputError as error:
        raise (InputError(f"{sequence}: {error}{more}") if sequence else error) from None
