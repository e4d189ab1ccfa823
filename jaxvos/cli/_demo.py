"""`jaxvos demo`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from jaxvos.cli._arguments import Switch
from jaxvos.cli._story import introduce, segment_into, summarise
from jaxvos.errors import InputError

__all__ = ["Demo"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Make a synthetic clip, segment it with the embedded model, and score it against its exact masks."""

    output: Annotated[Path, tyro.conf.arg(name="out", aliases=("-o", "--output"), metavar="FOLDER")] = Path("demo-out")
    """Folder for clip.mp4, its exact masks (ground_truth), scores.json and what `jaxvos segment` writes."""
    seed: int = 0
    """Which clip; none of them was trained on."""
    overwrite: Switch = False
    """Replace an earlier demo in the output folder; other files there stay."""

    def run(self) -> None:
        from jaxvos.data import demo_video, open_video, write_mask
        from jaxvos.drawing import VideoWriter
        from jaxvos.evaluation import format_table, score_folders, write_report
        from jaxvos.inference import stream
        from jaxvos.models import load_model
        from jaxvos.results import RESULTS, check_output, output_folder

        if self.seed < 0:
            raise InputError(f"seed {self.seed}: give a number from 0 on")
        made = ("clip.mp4", "ground_truth", "scores.json")
        check_output(self.output, overwrite=self.overwrite, entries=(*made, *RESULTS))
        model = load_model()
        print(introduce(model, default=True))
        print(f"making clip {self.seed}")
        clip = demo_video(self.seed)
        with output_folder(self.output) as partial:
            (partial / "ground_truth").mkdir()
            with VideoWriter(partial / "clip.mp4", fps=12) as writer:
                for index, (image, masks) in enumerate(zip(clip.images, clip.masks, strict=True)):
                    writer.write((image * 255).round().astype("uint8"))
                    write_mask(partial / "ground_truth" / f"{index:05d}.png", (masks[..., 0] == 0).astype("uint8"))
            video = open_video(partial / "clip.mp4", minimum_frames=2)
            story = {"input": "clip.mp4", "seed": self.seed, "flow": "dis"}
            report = segment_into(stream(video, model=model), partial, video, model, story)
        print(summarise(report, self.output))
        scores = score_folders(self.output, self.output / "ground_truth", protocol="davis16", progress=False)
        write_report(scores, self.output / "scores.json")
        print(format_table(scores))
        print(f"look at {self.output / 'overlay.mp4'} and {self.output / 'contact_sheet.png'}")
