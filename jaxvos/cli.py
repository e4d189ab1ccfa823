"""The command line: `jaxvos segment`, `jaxvos evaluate`, `jaxvos demo`."""

import contextlib
import dataclasses
import difflib
import importlib.metadata
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

import jaxvos
from jaxvos.errors import InputError, exit_on_input_error
from jaxvos.training import describe_run, parse

__all__ = ["main"]

_Output = Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="FOLDER")]
_Switch = tyro.conf.FlagCreatePairsOff[bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """Segment a video: masks as palette PNGs, an overlay video, a contact sheet and the numbers of the run.

    Several sequences are segmented one after the other, each into a folder of its name. If one cannot be, that is the
    end, the message names it, and those before it are kept.
    """

    input: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INPUT")]
    """A video file, a folder of frames, a quoted glob of frames, or a folder of sequences, such as that of DAVIS."""
    output: _Output
    """Folder for the results; it must be new or empty."""
    model: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """A .safetensors file, a training run's folder, or an embedded model's name; the embedded default if left out."""
    flow: Annotated[str, tyro.conf.arg(metavar="dis|FOLDER")] = "dis"
    """Where motion comes from: dis computes it here (OpenCV); a folder holds NAME.flo or KITTI's NAME.png for each
    frame, or, for several sequences, a folder of those for each."""
    threshold: float = 0.5
    """Foreground is where its probability reaches this."""
    last_frame: Literal["reuse", "backward", "skip"] = "reuse"
    """The last frame has no next one: reuse the flow before it, negate the flow to the frame before, or skip it."""
    overwrite: _Switch = False
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
        print(_introduce(model, default=self.model is None))
        for index, (name, video) in enumerate(videos.items()):
            story = {"input": str(sequences[name]), "flow": flows[name], **options}
            folder = self.output / name
            with _named(name, f" ({index} of {len(videos)} sequences are finished)"), output_folder(folder) as partial:
                report = _segment(streams.pop(name), partial, video, model, story)
            print(_summary(report, folder))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score predicted masks against ground truth: J and F with mean, recall and decay, as DAVIS defines them."""

    predictions: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PREDICTIONS")]
    """Folder of predicted PNGs: of one sequence, or one folder per sequence; what `jaxvos segment` writes will do."""
    ground_truth: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="GROUND-TRUTH")]
    """A DAVIS folder, its Annotations/RESOLUTION, or one sequence's folder of PNGs."""
    protocol: Annotated[Literal["davis16", "davis17"] | None, tyro.conf.arg(metavar="davis16|davis17")] = None
    """davis16: one foreground; davis17: every object by its id. Left out: by what the ground truth holds."""
    all_frames: _Switch = False
    """Score the first and last frame of each sequence too, which DAVIS leaves out."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="FILE.json")] = None
    """Also write the report, per-frame values included, to this JSON file; an older one is replaced."""

    def run(self) -> None:
        from jaxvos.evaluation import format_table, score_folders, write_report

        if self.output is not None and self.output.is_dir():
            raise InputError(f"{self.output} is a folder: name a file for the report")
        report = score_folders(self.predictions, self.ground_truth, protocol=self.protocol,
                               score_all_frames=self.all_frames, progress=sys.stderr.isatty())  # fmt: skip
        print(format_table(report))
        if self.output is not None:
            write_report(report, self.output)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo:
    """Make a synthetic clip, segment it with the embedded model, and score it against its exact masks."""

    output: Annotated[Path, tyro.conf.arg(name="out", aliases=("-o", "--output"), metavar="FOLDER")] = Path("demo-out")
    """Folder for clip.mp4, its exact masks (ground_truth), scores.json and what `jaxvos segment` writes."""
    seed: int = 0
    """Which clip; none of them was trained on."""
    overwrite: _Switch = False
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
        print(_introduce(model, default=True))
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
            report = _segment(stream(video, model=model), partial, video, model, story)
        print(_summary(report, self.output))
        scores = score_folders(self.output, self.output / "ground_truth", protocol="davis16", progress=False)
        write_report(scores, self.output / "scores.json")
        print(format_table(scores))
        print(f"look at {self.output / 'overlay.mp4'} and {self.output / 'contact_sheet.png'}")


def _introduce(model: Any, *, default: bool) -> str:
    licence = model.metadata.get("licence", "not stated")
    return f"model: {model.name}{' (embedded default)' if default else ''}; licence: {licence}"


def _segment(frames: Any, folder: Path, video: Any, model: Any, story: dict[str, Any]) -> dict[str, Any]:
    from jaxvos.results import write_results

    about = {key: value for key, value in model.metadata.items() if key != "config"}
    story = story | {"model": {"licence": "not stated", **about, "name": model.name}} | describe_run()
    return write_results(frames, folder, fps=video.fps, length=video.length, story=story, title=video.name)


def _summary(report: dict[str, Any], folder: Path) -> str:
    speed = report["frames_per_second"]
    text = f"{report['frames']} frames in {folder}: {speed['everything']:.1f} frames/s with compiling and writing"
    if speed["steady"] is None:
        return text
    return (f"{text}, {speed['steady']:.1f} flow and model, {speed['model']:.1f} model alone "
            f"(compiled in {report['compile_seconds']:.1f} s)")  # fmt: skip


@contextlib.contextmanager
def _named(sequence: str, more: str = "") -> Iterator[None]:
    """Says which sequence it was, if there are several."""
    try:
        yield
    except InputError as error:
        raise (InputError(f"{sequence}: {error}{more}") if sequence else error) from None


_COMMANDS = {"segment": Segment, "evaluate": Evaluate, "demo": Demo}


def main(args: Sequence[str] | None = None) -> None:
    """Runs one command.

    Wrong input is one line on stderr and exit code 2; an interruption is one line too, and code 130 (Ctrl-C) or 143
    (SIGTERM). Either way nothing half-written is left.
    """
    args = list(sys.argv[1:] if args is None else args)
    try:
        with _terminable(), exit_on_input_error():
            _run(args)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except _TerminatedError:
        _fail("terminated", 143)
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has left
        os._exit(0)


def _run(args: list[str]) -> None:
    if not args or args[0] in ("-h", "--help"):
        rows = [f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}" for name, command in _COMMANDS.items()]
        print("\n".join(["usage: jaxvos COMMAND ... (COMMAND --help says more)", "", *rows]))
    elif args == ["--version"]:
        print(f"jaxvos {jaxvos.__version__}, jax {importlib.metadata.version('jax')}")
    elif args[0] in _COMMANDS:
        parse(_COMMANDS[args[0]], args[1:], prog=f"jaxvos {args[0]}").run()
    else:
        close = difflib.get_close_matches(args[0], _COMMANDS, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise InputError(f"there is no command '{args[0]}'; {hint}the commands are: {', '.join(_COMMANDS)}")


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code) from None


class _TerminatedError(BaseException):
    """SIGTERM."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM an exception, so that what is half-written is removed; only the main thread may set that up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
