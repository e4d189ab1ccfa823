"""Scores of what is in memory: during training, over held-out videos, and of one sequence."""

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from jaxvos.data import FrameStore, gather, share_of
from jaxvos.errors import InputError
from jaxvos.evaluation._objects import collect_objects, find_objects, score_frame
from jaxvos.evaluation._pairing import scored_frames
from jaxvos.inference import jitted_predict
from jaxvos.metrics import (
    SequenceScores,
    boundary_measure,
    flow_metric,
    grouped,
    mean_metric,
    region_similarity,
)
from jaxvos.system import Clip, Frame, System
from jaxvos.typing import Variables

__all__ = ["FrameScores", "flow_error", "held_out_scores", "score_masks", "score_sequence"]

_Labels = UInt8[np.ndarray, "_ _"]


class FrameScores(NamedTuple):
    """J and F of one object in every frame, in [0, 1]."""

    j: Float64[np.ndarray, "t"]
    f: Float64[np.ndarray, "t"]


def held_out_scores(system: System, variables: Variables, store: FrameStore, *, stride: int = 4) -> dict[str, float]:
    """Returns mean J (over frames, then over sequences) of the foreground, at the size of the stored frames.

    Quick enough to be called during training: every `stride`-th frame is judged, by one of the processes if there are
    several. The benchmark's own numbers come from `score_folders`, at the size of the annotations.
    """
    predict, metric = jitted_predict(system), grouped(mean_metric())
    state = metric.zero()
    for index in share_of(range(0, len(store.images), stride)):
        image, flow = (jnp.asarray(x[index], jnp.float32) for x in (store.images, store.flow))
        frame = Frame(image / 255, flow=flow)
        _, prediction = predict(variables, system.start(variables, frame, None), frame)
        found = np.asarray(prediction.masks)[..., 0] < 0.5
        state = metric.update(state, store.sequences[index], region_similarity(store.masks[index] > 0, found))
    scores = metric.compute(functools.reduce(metric.merge, gather(state)))
    return {"J": scores.mean, **{f"J_{name}": value for name, value in scores.groups.items()}}


def flow_error(system: System, variables: Variables, clip: Clip) -> float:
    """Returns the mean end-point error in pixels over all frames but the last of clips whose flow is known.

    With several processes, each of which has clips of its own, it is that of them all.
    """
    if clip.flow is None:
        raise ValueError("there is nothing to compare with: give `flow` in the Clip")
    predict, metric = jitted_predict(system), flow_metric()
    state = metric.zero()
    for images, truth in zip(clip.images, clip.flow, strict=True):
        for index in range(len(images) - 1):
            frame = Frame(jnp.asarray(images[index]), next_image=jnp.asarray(images[index + 1]))
            memory = system.start(variables, frame, None)
            found = predict(variables, memory, frame)[1].flow
            state = metric.update(state, np.asarray(found), np.asarray(truth[index]))
    return metric.compute(functools.reduce(metric.merge, gather(state))).epe


def score_masks(ground_truth: Bool[np.ndarray, "t h w"], predicted: Bool[np.ndarray, "t h w"]) -> FrameScores:
    """Returns J and F of one object in every frame given: for held-out videos in training scripts.

    The benchmark's numbers are those of `[1:-1]`, summarised by `jaxvos.metrics.statistics`.
    """
    scores = [(region_similarity(truth, drawn), boundary_measure(truth, drawn))
              for truth, drawn in zip(ground_truth, predicted, strict=True)]  # fmt: skip
    j, f = np.array(scores, np.float64).reshape(-1, 2).T
    return FrameScores(j, f)


def score_sequence(
    ground_truth: Sequence[_Labels],
    predictions: Sequence[_Labels],
    *,
    protocol: Literal["davis16", "davis17"] = "davis17",
    score_all_frames: bool = False,
    name: str = "sequence",
) -> SequenceScores:
    """Scores one sequence that is in memory.

    Args:
        ground_truth: labels of every frame, 0 is the background.
        predictions: as many frames, of the same size, with the labels of the ground truth. A label that is never
            predicted scores as an empty mask.
        protocol: see `PROTOCOLS`.
        score_all_frames: count the first and the last frame too, which the benchmark does not.
        name: what the result and the errors call this sequence.

    Returns:
        J and F per object and frame.

    Raises:
        InputError: for frames that do not correspond, and for labels the ground truth does not have.
    """
    if len(ground_truth) != len(predictions):
        raise InputError(f"{name}: {len(predictions)} predictions for {len(ground_truth)} frames of ground truth")
    if protocol not in ("davis16", "davis17"):
        raise InputError(f"protocol {protocol} is not for a sequence in memory: davis16 or davis17")
    ends = 0 if score_all_frames else 1
    indices = scored_frames(range(len(ground_truth)), name, start=ends, end=ends)
    objects = find_objects(ground_truth[0], name, merged=protocol == "davis16")
    scores = [score_frame(ground_truth[index], predictions[index], objects, f"{name} frame {index}")
              for index in indices]  # fmt: skip
    return SequenceScores(name, tuple(map(str, indices)), collect_objects(objects, scores))
