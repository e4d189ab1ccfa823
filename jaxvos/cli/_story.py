"""What the commands that segment say of themselves, on the terminal and in `results.json`."""

from pathlib import Path
from typing import Any

from jaxvos.training import describe_run

__all__ = ["introduce", "segment_into", "summarise"]


def introduce(model: Any, *, default: bool) -> str:
    licence = model.metadata.get("licence", "not stated")
    return f"model: {model.name}{' (embedded default)' if default else ''}; licence: {licence}"


def segment_into(frames: Any, folder: Path, video: Any, model: Any, story: dict[str, Any]) -> dict[str, Any]:
    from jaxvos.results import write_results

    about = {key: value for key, value in model.metadata.items() if key != "config"}
    story = story | {"model": {"licence": "not stated", **about, "name": model.name}} | describe_run()
    return write_results(frames, folder, fps=video.fps, length=video.length, story=story, title=video.name)


def summarise(report: dict[str, Any], folder: Path) -> str:
    speed = report["frames_per_second"]
    text = f"{report['frames']} frames in {folder}: {speed['everything']:.1f} frames/s with compiling and writing"
    for verb, frames in (("told on", report.get("masks")), ("removed on", report.get("removals"))):
        if frames:
            text += f", objects {verb} frame{'s' if len(frames) > 1 else ''} {', '.join(map(str, sorted(frames)))}"
    if report["online_seconds"]:
        text += f", {report['online_seconds']:.1f} s of online learning included"
    if speed["steady"] is None:
        return text
    return (f"{text}, {speed['steady']:.1f} with the model's inputs, {speed['model']:.1f} model alone "
            f"(compiled in {report['compile_seconds']:.1f} s)")  # fmt: skip
