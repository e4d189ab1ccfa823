"""The command line: `jaxvos segment`, `jaxvos evaluate`, `jaxvos demo`."""

import dataclasses
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

import jaxvos
from jaxvos.errors import InputError
from jaxvos.training import describe_run, parse

__all__ = ["main"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """Segment a video: masks as palette PNGs, an overlay video, a contact sheet and the numbers of the run."""

    input: tyro.conf.Positional[str]
    """A video file, a folder of frames, a quoted glob, or a data set's folder of sequences (each gets a folder)."""
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """Folder for the results; new or empty."""
    model: str | None = None
    """A .safetensors file, the folder of a training run, or an embedded model's name; the embedded default if left out."""
    flow: str = "dis"
    """Where motion comes from: dis (OpenCV, computed here), or a folder of .flo or KITTI .png files named as the frames."""
    threshold: float = 0.5
    """Foreground is where its probability reaches this."""
    last_frame: Literal["reuse", "backward", "skip"] = "reuse"
    """The last frame has no next one: reuse the flow before it, negate the flow to the frame before, or skip it."""
    overwrite: bool = False
    """Replace earlier results in the output folder."""

    def run(self) -> None:
        from jaxvos.data import find_sequences
        from jaxvos.models import load_model
        from jaxvos.results import check_output

        if not 0 < self.threshold < 1:
            raise InputError(f"--threshold {self.threshold}: a probability between 0 and 1")
        check_output(self.output, overwrite=self.overwrite)
        sequences = find_sequences(self.input)
        model = load_model(self.model)
        print(f"model: {model.name}{' (embedded default)' if self.model is None else ''}; "
              f"licence: {model.metadata.get('licence', 'not stated')}")  # fmt: skip
        if sequences is None:
            self._segment(self.input, model, self.output)
            return
        for name, folder in sequences.items():
            print(f"{name}:")
            self._segment(folder, model, self.output / name)

    def _segment(self, source, model, folder: Path) -> None:
        from jaxvos.data import open_video
        from jaxvos.inference import stream
        from jaxvos.results import output_folder, write_results

        video = open_video(source, minimum_frames=2)
        frames = stream(video, model=model, flow=self.flow, threshold=self.threshold, last_frame=self.last_frame)
        story = {
            "input": str(source),
            "model": {"name": model.name, **{k: v for k, v in model.metadata.items() if k != "config"}},
            "flow": self.flow,
            "threshold": self.threshold,
            "last_frame": self.last_frame,
            **describe_run(),
        }
        with output_folder(folder) as partial:
            report = write_results(frames, partial, fps=video.fps, length=video.length, story=story)
        speed = report["frames_per_second"]
        print(f"{report['frames']} frames in {folder}: {speed['everything']:.1f} frames/s with everything, "
              f"{speed['steady']:.1f} flow and model, {speed['model']:.1f} model alone "
              f"(compiled in {speed['compile_seconds']:.1f} s)")  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score predicted masks against ground truth: J and F with mean, recall and decay, as DAVIS defines them."""

    predictions: tyro.conf.Positional[Path]
    """Folder of predicted PNGs: of one sequence, or one folder per sequence."""
    ground_truth: tyro.conf.Positional[Path]
    """A DAVIS folder, its Annotations/RESOLUTION, or one sequence's folder of PNGs."""
    protocol: Literal["davis16", "davis17"] | None = None
    """davis16: one foreground; davis17: every object by its id. Left out: by what the ground truth holds."""
    all_frames: bool = False
    """Score the first and last frame of each sequence too, which DAVIS leaves out."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    """Also write the report, per-frame values included, to this JSON file."""

    def run(self) -> None:
        from jaxvos.evaluation import format_table, score_folders, write_report

        report = score_folders(self.predictions, self.ground_truth, protocol=self.protocol,
                               score_all_frames=self.all_frames)  # fmt: skip
        print(format_table(report))
        if self.output is not None:
            write_report(report, self.output)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Make a synthetic clip, segment it with the embedded model, and score it against its exact masks."""

    output: Annotated[Path, tyro.conf.arg(name="out", aliases=("-o",))] = Path("demo-out")
    """Folder for the clip, its exact masks and the results."""
    seed: int = 0
    """Which clip; none of them was trained on."""
    overwrite: bool = False
    """Replace an earlier demo in the output folder."""

    def run(self) -> None:
        from jaxvos.data import demo_video, write_mask
        from jaxvos.drawing import VideoWriter
        from jaxvos.evaluation import format_table, score_folders
        from jaxvos.results import check_output, output_folder

        check_output(self.output, overwrite=self.overwrite)
        print(f"making clip {self.seed}")
        clip = demo_video(self.seed)
        truth = self.output / "ground_truth"
        with output_folder(self.output) as partial:
            (partial / "ground_truth").mkdir()
            with VideoWriter(partial / "clip.mp4", fps=12) as video:
                for index, (image, masks) in enumerate(zip(clip.images, clip.masks, strict=True)):
                    video.write((image * 255).round().astype("uint8"))
                    write_mask(partial / "ground_truth" / f"{index:05d}.png", (masks[..., 0] == 0).astype("uint8"))
        Segment(input=str(self.output / "clip.mp4"), output=self.output / "result", overwrite=True).run()
        print(format_table(score_folders(self.output / "result", truth, protocol="davis16")))
        print(f"look at {self.output / 'result' / 'overlay.mp4'} and {self.output / 'result' / 'contact_sheet.png'}")


_COMMANDS = {"segment": Segment, "evaluate": Evaluate, "demo": Demo}


def main(args: Sequence[str] | None = None) -> None:
    """Runs one command; wrong input is one line on stderr and exit code 2."""
    args = list(sys.argv[1:] if args is None else args)
    if args == ["--version"]:
        print(f"jaxvos {jaxvos.__version__}, jax {importlib.metadata.version('jax')}")
        return
    try:
        if not args or args[0] in ("-h", "--help"):
            rows = [f"  {name:<10} {(command.__doc__ or '').strip()}" for name, command in _COMMANDS.items()]
            print("\n".join(["usage: jaxvos COMMAND ... (COMMAND --help says more)", "", *rows]))
            return
        if args[0] not in _COMMANDS:
            raise InputError(f"there is no command '{args[0]}'; the commands are: {', '.join(_COMMANDS)}")
        parse(_COMMANDS[args[0]], args[1:], prog=f"jaxvos {args[0]}").run()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has left
        os._exit(0)
