"""Scores folders of predicted masks against ground truth, as the DAVIS benchmark does.

Both protocols drop the first and the last frame of every sequence, as the official semi-supervised evaluations of
DAVIS-2016 and DAVIS-2017 do, and average over objects:

- `davis17`: every label of the first ground-truth frame is an object, compared with the same label of the prediction.
  255 is void there and counts as background, as in the official code.
- `davis16`: whatever is not background is one foreground, in the ground truth and in the prediction. 255 is foreground,
  unless the first frame of the ground truth has labels from 1 to 254 too: then it is void, and background.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, UInt8
from tqdm import tqdm

from jaxvos.data import FrameStore, read_mask
from jaxvos.errors import InputError
from jaxvos.files import atomic_path
from jaxvos.inference import jitted_predict
from jaxvos.metrics import (
    ObjectScores,
    Report,
    SequenceScores,
    boundary_measure,
    format_json,
    format_table,
    region_similarity,
)
from jaxvos.system import Frame, System
from jaxvos.typing import Variables

__all__ = ["FrameScores", "Protocol", "Report", "format_table", "held_out_scores", "score_folders", "score_masks",
           "score_sequence", "write_report"]

Protocol = Literal["davis16", "davis17"]
_Labels = UInt8[np.ndarray, "_ _"]
_VOID = 255


class FrameScores(NamedTuple):
    """J and F of one object in every frame, in [0, 1]."""

    j: Float64[np.ndarray, "t"]
    f: Float64[np.ndarray, "t"]


def held_out_scores(system: System, variables: Variables, store: FrameStore, *, stride: int = 4) -> dict[str, float]:
    """Returns mean J (over frames, then over sequences) of the foreground, at the size of the stored frames.

    Quick enough to be called during training: every `stride`-th frame is judged. The benchmark's own numbers come from
    `score_folders`, at the size of the annotations.
    """
    predict = jitted_predict(system)
    scores: dict[str, list[float]] = {}
    for index in range(0, len(store.images), stride):
        image, flow = (jnp.asarray(x[index], jnp.float32) for x in (store.images, store.flow))
        frame = Frame(image / 255, flow=flow)
        _, prediction = predict(variables, system.start(variables, frame, None), frame)
        found = np.asarray(prediction.masks)[..., 0] < 0.5
        scores.setdefault(store.sequences[index], []).append(region_similarity(store.masks[index] > 0, found))
    means = {f"J_{name}": float(np.mean(values)) for name, values in scores.items()}
    return {"J": float(np.mean(list(means.values()))), **means}


def score_masks(ground_truth: Bool[np.ndarray, "t h w"], predicted: Bool[np.ndarray, "t h w"]) -> FrameScores:
    """Returns J and F of one object in every frame given: for held-out videos in training scripts.

    The benchmark's numbers are those of `[1:-1]`, summarised by `jaxvos.metrics.statistics`.
    """
    scores = [(region_similarity(truth, drawn), boundary_measure(truth, drawn))
              for truth, drawn in zip(ground_truth, predicted, strict=True)]
    j, f = np.array(scores, np.float64).reshape(-1, 2).T
    return FrameScores(j, f)


def score_sequence(ground_truth: Sequence[_Labels], predictions: Sequence[_Labels], *, protocol: Protocol = "davis17",
                   score_all_frames: bool = False, name: str = "sequence") -> SequenceScores:
    """Scores one sequence that is in memory.

    Args:
        ground_truth: labels of every frame, 0 is the background.
        predictions: as many frames, of the same size, with the labels of the ground truth. A label that is never
            predicted scores as an empty mask.
        protocol: see the top of this module.
        score_all_frames: count the first and the last frame too, which the benchmark does not.
        name: what the result and the errors call this sequence.

    Returns:
        J and F per object and frame.

    Raises:
        InputError: for frames that do not correspond, and for labels the ground truth does not have.
    """
    if len(ground_truth) != len(predictions):
        raise InputError(f"{name}: {len(predictions)} predictions for {len(ground_truth)} frames of ground truth")
    indices = _scored(range(len(ground_truth)), name, score_all_frames)
    objects = _find_objects(ground_truth[0], name, protocol)
    scores = [_score_frame(ground_truth[index], predictions[index], objects, f"{name} frame {index}")
              for index in indices]
    return _collect(name, [str(index) for index in indices], objects, scores)


def score_folders(predictions: str | Path, ground_truth: str | Path, *, protocol: Protocol | None = None,
                  sequences: Sequence[str] | None = None, score_all_frames: bool = False, progress: bool = True,
                  workers: int | None = None) -> Report:
    """Scores a folder of predicted masks against a folder of ground truth. Nothing is cached: scores are always new.

    Args:
        predictions: PNGs of one sequence, or one folder of PNGs per sequence; either may keep them in a folder
            `masks`, as `jaxvos segment` does. Files are named as in the ground truth. Only scored frames are read.
        ground_truth: a DAVIS root (its `Annotations/480p`, or the only resolution there), a folder of sequences, or the
            PNGs of one sequence. Two single sequences belong together whatever their names are.
        protocol: see the top of this module. None takes `davis17` if the first ground-truth frame of any sequence
            holds more than one object, else `davis16`; the report says which.
        sequences: which to score; each must be in both folders. None takes those that both have, and the report
            lists the others.
        score_all_frames: count the first and the last frame too, which the benchmark does not.
        progress: show a bar on standard error.
        workers: threads; None takes one per core.

    Returns:
        The scores of every sequence, object and frame.

    Raises:
        InputError: names the file or folder that is missing, of another size, not made of labels, or the ground truth
            itself.
    """
    predictions, ground_truth = Path(predictions), Path(ground_truth)
    own, annotated = _find_sequences(ground_truth)
    _, predicted = _find_sequences(predictions)
    if len(annotated) == len(predicted) == 1:
        predicted = dict(zip(annotated, predicted.values(), strict=True))
    names = _choose(annotated, predicted, sequences)
    if inside := [predicted[name] for name in names if predicted[name].resolve().is_relative_to(own.resolve())]:
        raise InputError(f"predictions {inside[0]} lie in the folder of the ground truth, {own}: keep the two apart")
    frames = {name: _pair_frames(annotated[name], predicted[name], score_all_frames) for name in names}
    first = {name: _pngs(annotated[name])[0] for name in names}
    if protocol is None:
        protocol = "davis17" if any(len(_objects_in(read_mask(path))) > 1 for path in first.values()) else "davis16"
    objects = {name: _find_objects(read_mask(path), str(path), protocol) for name, path in first.items()}
    tasks = [(truth, drawn, objects[name]) for name in names for truth, drawn in frames[name]]
    scores = iter(list(tqdm(_run(_score_files, tasks, workers or os.cpu_count() or 1), total=len(tasks), unit="frame",
                            disable=not progress)))
    return Report(
        protocol=protocol, score_all_frames=score_all_frames, predictions=str(predictions),
        ground_truth=str(ground_truth),
        sequences=tuple(_collect(name, [truth.stem for truth, _ in frames[name]], objects[name],
                                 [next(scores) for _ in frames[name]]) for name in names),
        not_predicted=() if sequences else tuple(sorted(annotated.keys() - predicted.keys())),
        not_annotated=() if sequences else tuple(sorted(predicted.keys() - annotated.keys())),
    )


def write_report(report: Report, path: str | Path) -> None:
    """Writes the report as JSON, whole or not at all; an older report of that name is replaced."""
    text = format_json(report)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------- one frame


class _Objects(NamedTuple):
    """What the objects of a sequence are: its labels, or all of them as one."""

    labels: tuple[int, ...]
    merged: bool
    void: int  # the label that is background in a merged ground truth; 0 where there is none


def _labels_in(mask: _Labels) -> tuple[int, ...]:
    return tuple((np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[1:]) + 1).tolist())


def _objects_in(first: _Labels) -> tuple[int, ...]:
    """Returns the labels of a ground-truth mask but for the void."""
    return tuple(label for label in _labels_in(first) if label != _VOID)


def _find_objects(first: _Labels, where: str, protocol: Protocol) -> _Objects:
    labels = _objects_in(first)
    if protocol == "davis16":
        return _Objects(labels=(1,), merged=True, void=_VOID if labels else 0)
    if protocol != "davis17":
        raise InputError(f"unknown protocol {protocol}: davis16 or davis17")
    if not labels:
        remedy = " but 255, which is void in davis17: use davis16 for 0/255 masks" if (first == _VOID).any() else ""
        raise InputError(f"the first ground-truth frame defines the objects, and {where} has no label{remedy}")
    return _Objects(labels=labels, merged=False, void=_VOID)


def _score_frame(truth: _Labels, drawn: _Labels, objects: _Objects, where: str) -> list[tuple[float, float]]:
    """Returns J and F of every object in one frame."""
    if truth.shape != drawn.shape:
        sizes = [f"{mask.shape[1]}x{mask.shape[0]}" for mask in (drawn, truth)]
        raise InputError(f"{where} is {sizes[0]} and the ground truth {sizes[1]} (width x height): "
                         "predict at the size of the ground truth")
    return [(region_similarity(annotation, segmentation), boundary_measure(annotation, segmentation))
            for annotation, segmentation in _split(truth, drawn, objects, where)]


def _split(truth: _Labels, drawn: _Labels, objects: _Objects, where: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if objects.merged:
        yield (truth != 0) & (truth != objects.void), drawn != 0
        return
    if unknown := [label for label in _labels_in(drawn) if label not in objects.labels]:
        raise InputError(f"{where} has label {unknown[0]}, and the objects of the first ground-truth frame are "
                         f"{', '.join(map(str, objects.labels))}: use those labels, or davis16 to score all as one")
    for label in objects.labels:
        yield truth == label, drawn == label


def _score_files(task: tuple[Path, Path, _Objects]) -> list[tuple[float, float]]:
    truth, drawn, objects = task
    return _score_frame(read_mask(truth), read_mask(drawn), objects, str(drawn))


def _run(function: Callable, tasks: Sequence, workers: int) -> Iterable:
    """Maps over threads (decoding, OpenCV and NumPy let go of the interpreter); after an error the rest is dropped."""
    if workers == 1:
        yield from map(function, tasks)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(function, tasks)
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(name: str, frames: Sequence[str], objects: _Objects,
             scores: Sequence[list[tuple[float, float]]]) -> SequenceScores:
    """Turns scores by frame into scores by object."""
    by_object = [tuple(zip(*rows, strict=True)) for rows in zip(*scores, strict=True)]
    return SequenceScores(name, tuple(frames), tuple(
        ObjectScores(label, j, f) for label, (j, f) in zip(objects.labels, by_object, strict=True)))


# ------------------------------------------------------------------------------------------------------------ folders


def _find_sequences(root: Path) -> tuple[Path, dict[str, Path]]:
    """Returns the folder that all PNGs below a root lie in, and that of the PNGs of each sequence, by its name."""
    if not root.is_dir():
        raise InputError(f"no folder {root}")
    if (root / "Annotations").is_dir():
        root = _resolution(root / "Annotations")
    if (folder := _with_masks(root)) is not None:
        return folder, {(root.resolve().parent if root.name == "masks" else root.resolve()).name: folder}
    children = {child.name: _with_masks(child) for child in sorted(root.iterdir()) if child.is_dir()}
    found = {name: folder for name, folder in children.items() if folder is not None}
    if not found:
        raise InputError(f"no PNG in {root}, its folders, or a folder `masks` in them")
    return root, found


def _with_masks(folder: Path) -> Path | None:
    """Returns the folder that holds the PNGs: `masks` in this one, or this one."""
    return next((place for place in (folder / "masks", folder) if _pngs(place)), None)


def _pngs(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.png"))


def _resolution(annotations: Path) -> Path:
    """Returns the folder of sequences in the `Annotations` of DAVIS; that folder itself if it has no resolutions."""
    children = [child for child in sorted(annotations.iterdir()) if child.is_dir()]
    if any(_with_masks(child) for child in children):
        return annotations
    if len(children) == 1:
        return children[0]
    if annotations / "480p" in children:
        return annotations / "480p"
    raise InputError(f"{annotations} has several resolutions or none "
                     f"({', '.join(child.name for child in children) or 'empty'}): name one of its folders")


def _choose(annotated: dict[str, Path], predicted: dict[str, Path], sequences: Sequence[str] | None) -> list[str]:
    """Returns the names of the sequences to score."""
    for name in sequences or ():
        for kind, found in (("ground truth", annotated), ("predictions", predicted)):
            if name not in found:
                raise InputError(f"no sequence {name} in the {kind} (found: {_some(list(found))})")
    names = list(dict.fromkeys(sequences)) if sequences else [name for name in annotated if name in predicted]
    if not names:
        raise InputError(f"the predictions ({_some(list(predicted))}) and the ground truth ({_some(list(annotated))}) "
                         "have no sequence in common: name folders alike")
    return names


def _pair_frames(annotated: Path, predicted: Path, score_all_frames: bool) -> list[tuple[Path, Path]]:
    """Returns ground truth and prediction of every scored frame, and refuses the sequence if one is missing."""
    truths = _scored(_pngs(annotated), str(annotated), score_all_frames)
    pairs = [(truth, predicted / truth.name) for truth in truths]
    missing = [drawn for _, drawn in pairs if not drawn.is_file()]
    if missing:
        raise InputError(f"{len(missing)} of {len(pairs)} scored frames of {annotated} have no prediction, "
                         f"the first is {missing[0]}: name predictions as the ground truth")
    if pairs[0][0].samefile(pairs[0][1]):
        raise InputError(f"{pairs[0][1]} is the file of the ground truth: every score would be 1")
    return pairs


def _scored(frames: Sequence, where: str, score_all_frames: bool) -> Sequence:
    scored = frames if score_all_frames else frames[1:-1]
    if not scored:
        raise InputError(f"{where}: nothing to score in {len(frames)} frames, of which the first and the last do not "
                         "count; score all frames instead")
    return scored


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
