"""What a system wants beside the image: flow, the next frame, and proposals from a file or a network."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from jaxvos.data import (
    FlowProvider,
    LastFrame,
    Video,
    VideoProposals,
    best_proposals,
    flow_provider,
    read_proposals,
    with_flow,
)
from jaxvos.errors import InputError
from jaxvos.inference._fold import jitted_predict, jitted_start
from jaxvos.models import FLOW, PROPOSALS, Model, load_model
from jaxvos.system import Frame, Proposals

__all__ = ["ProposalProvider", "Taken", "estimate_flow", "open_flow", "open_proposals", "propose", "propose_video",
           "take_frames"]

ProposalProvider = Callable[[str, UInt8[np.ndarray, "h w 3"]], Proposals]
"""Gives the proposals of a frame, from its name and its pixels."""

_FILES = (".npz", ".json")


class Taken(NamedTuple):
    """A frame with all that a system wants of it."""

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    frame: Frame
    flow_seconds: float
    proposal_seconds: float


def estimate_flow(model: Model) -> FlowProvider:
    """Returns the flow that a network estimates from a frame to the next.

    Raises:
      InputError: the model is one that looks at no second frame.
    """
    if "next_image" not in model.system.needs:
        raise InputError(f"{model.name} estimates no flow: give a flow network, such as {FLOW}")
    predict, start = jitted_predict(model.system), jitted_start(model.system)

    def compute(image: np.ndarray, next_image: np.ndarray, *, name: str) -> np.ndarray:
        del name
        frame = Frame(*(jnp.asarray(x, jnp.float32) / 255 for x in (image, next_image)))
        memory = start(model.variables, frame, None)
        return np.asarray(predict(model.variables, memory, frame)[1].flow)

    return compute


def open_flow(source: str | Path | Model | FlowProvider) -> FlowProvider:
    """Finds where flow comes from.

    Args:
      source: `dis` (OpenCV), a folder of flow files, a function of two frames, or a flow network: a model, or what
        `load_model` takes for one.

    Raises:
      InputError: it is none of these, cannot be read, or the model estimates no flow.
    """
    if isinstance(source, Model):
        return estimate_flow(source)
    if not isinstance(source, str | Path):
        return flow_provider(source)
    path = Path(source).expanduser()
    if str(source) == "dis" or (path.is_dir() and not (path / "config.json").is_file()):
        return flow_provider(source)
    try:
        return estimate_flow(load_model(source))
    except InputError as error:
        raise InputError(f"{error}; flow also comes from 'dis' or a folder of flow files") from None


def propose(model: Model) -> ProposalProvider:
    """Returns the proposals of a network, frame by frame.

    Raises:
      InputError: the model is one that proposes nothing.
    """
    if "proposals" in model.system.needs or not hasattr(model.config, "num_proposals"):
        raise InputError(f"{model.name} makes no proposals: give a proposal network, such as {PROPOSALS}")
    predict = jitted_predict(model.system)

    def proposals(name: str, image: np.ndarray) -> Proposals:
        del name
        return predict(model.variables, (), Frame(jnp.asarray(image, jnp.float32) / 255))[1].proposals

    return proposals


def propose_video(model: Model, video: Video, *, num_proposals: int, progress: bool = True) -> VideoProposals:
    """Runs a proposal network over a whole video.

    Args:
      model: the network.
      video: of any length; all proposals are held in memory, about 160 kB a frame.
      num_proposals: of a frame at most; those of the highest scores are kept.
      progress: show a bar where standard error is a terminal.

    Raises:
      InputError: the model proposes nothing, or the video cannot be read.
    """
    proposals, names, found = propose(model), [], []
    bar = tqdm(video.items(), total=video.length, unit="frame", desc="proposing", disable=None if progress else True)
    for name, image in bar:
        names.append(name)
        found.append(jax.device_get(proposals(name, image)))
    stacked = best_proposals(Proposals(*map(np.stack, zip(*found, strict=True))), num_proposals=num_proposals)
    return VideoProposals(video.name, tuple(names), video.size, stacked, model.name)


def open_proposals(source: str | Path | Model | None, video: Video) -> ProposalProvider:
    """Finds the proposals of a video.

    Args:
      source: a file as `jaxvos proposals` writes it or in COCO's form; a proposal network, or what `load_model` takes
        for one; the embedded network if None.
      video: whose; a file must have all its frames, by their names.

    Raises:
      InputError: the file or the network cannot be read, or the file is of other frames or of another size.
    """
    if isinstance(source, str | Path) and Path(source).suffix.lower() in _FILES:
        return _from_file(Path(source), video)
    return propose(source if isinstance(source, Model) else load_model(PROPOSALS if source is None else source))


def _from_file(path: Path, video: Video) -> ProposalProvider:
    names = video.stems
    if names is None and video.length is not None:  # what a container declares is not always what it holds
        names = tuple(video.frame_name(index) for index, _ in enumerate(video))
    stored: VideoProposals = read_proposals(path, names=names, size=video.size)

    def proposals(name: str, image: np.ndarray) -> Proposals:
        del image
        return stored.find(name)

    return proposals


def take_frames(
    video: Video,
    *,
    flow: FlowProvider | None,
    proposals: ProposalProvider | None,
    next_image: bool,
    last_frame: LastFrame,
) -> Iterator[Taken]:
    """Yields the frames of a video with the flow and the proposals that there is a provider of, and with the next."""
    alone = ((name, image, None, 0.0) for name, image in video.items())
    frames = alone if flow is None else with_flow(video, flow, last_frame=last_frame)
    paired = _with_next(frames, last_frame) if next_image else ((each, None) for each in frames)
    for (name, image, vectors, flow_seconds), following in paired:
        frame = Frame(
            jnp.asarray(image, jnp.float32) / 255,
            next_image=None if following is None else jnp.asarray(following, jnp.float32) / 255,
            flow=None if vectors is None else jnp.asarray(vectors),
        )
        started = time.perf_counter()
        if proposals is not None:
            frame = frame._replace(proposals=jax.tree.map(jnp.asarray, proposals(name, image)))
            jax.block_until_ready(frame.proposals)
        yield Taken(name, image, frame, flow_seconds, time.perf_counter() - started)


def _with_next(frames: Iterable[Any], last_frame: LastFrame) -> Iterator[tuple[Any, np.ndarray]]:
    """Pairs each frame with the image of the next; the last with itself, with the one before, or leaves it out."""
    previous = current = None
    for following in frames:
        if current is not None:
            yield current, following[1]
        previous, current = current, following
    if current is not None and last_frame != "skip":
        yield current, (current if last_frame == "reuse" or previous is None else previous)[1]
