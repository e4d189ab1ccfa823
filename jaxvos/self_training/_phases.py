"""The phases of Mask-VOS, as calls of `fit`: correspondence, then clustering and training in turn."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvos.data import UnlabelledVideo, unlabelled_batches
from jaxvos.drawing import contact_sheet, evenly_spaced, overlay, plot_curves, write_image
from jaxvos.errors import InputError
from jaxvos.files import atomic_path
from jaxvos.self_training._clusters import cluster_videos
from jaxvos.self_training._config import SelfTrainingConfig
from jaxvos.system import Clip
from jaxvos.systems import Clusters, MaskVOSConfig, cluster_masks, mask_vos, value_from_frames
from jaxvos.training import TrainingConfig, evolve, fit, override_variables, read_log
from jaxvos.typing import Key, Variables

__all__ = ["learn_from_videos"]

_MASKS_ALONE = ("value", "join", "decoder")
_TILES = 24


def learn_from_videos(
    videos: Sequence[UnlabelledVideo], system: MaskVOSConfig, config: SelfTrainingConfig, *, training: TrainingConfig,
    joint_training: TrainingConfig, workdir: Path, variables: Variables | None = None, progress: bool = True,
) -> Variables:  # fmt: skip
    """Trains Mask-VOS on videos; a run that was stopped goes on, and ends as if it had not been.

    Args:
      videos: to learn from.
      system: the nets and their losses.
      config: the phases.
      training: of the first; its seed is also that of clips and clusters.
      joint_training: of the second, whose schedule should not depend on its length if clusters are made again.
      workdir: gets a folder for each phase, with log and checkpoints, and a picture of its curves; the clusters and a
        contact sheet of them for each time they were made; and `health.json`, which tells for each time how many
        clusters were kept.
      variables: to begin from, or a part of their tree (a pretrained encoder, say). Unless that part has one, the
        encoder of frames with masks begins the second phase as that of frames, where both are of one kind.
      progress: show bars and a few words.

    Returns:
      The variables in the end.

    Raises:
      InputError: not one cluster of any video is kept, or as `fit`.
    """
    clips: dict[str, Any] = {
        "size": config.size, "batch_size": config.batch_size, "num_objects": config.num_objects, "crop": config.crop,
        "min_skip": config.min_skip, "max_skip": config.max_skip, "seed": training.seed}  # fmt: skip
    say = print if progress else lambda message: None
    told = "value" in (variables or {}).get("params", {})  # the encoder of frames with masks has learned already
    if config.phases != "joint":
        say("phase 1: correspondence")
        training = evolve(training, optimizer={"frozen": (*training.optimizer.frozen, *_MASKS_ALONE)})
        variables = fit(mask_vos(system), unlabelled_batches(videos, masks=False, **clips), training,
                        workdir=workdir / "correspondence", variables=variables,
                        progress=progress).variables  # fmt: skip
        _plot(workdir, "correspondence")
    else:
        clip = Clip(jnp.zeros((1, 3, *config.size, 3)))
        initial = jax.jit(mask_vos(system).init)(jax.random.key(training.seed), clip)
        variables = override_variables(initial, variables or {})
    if config.phases == "correspondence":
        return variables
    joint = evolve(system, objective={"batch_norm": config.joint_batch_norm})
    steps = joint_training.num_steps
    labels: list[Any] | None = None
    if system.net.value_encoder == system.net.encoder and not told:
        variables = value_from_frames(system, variables)
    for number, begin in enumerate(range(0, steps, config.refresh or steps)):
        own = jax.random.fold_in(jax.random.key(training.seed), number)
        found = _clustered(own, videos, joint, config, variables, labels, workdir, number, progress=progress)
        health = _note_health(workdir, number, begin, found, labels)
        labels = [each.labels for each in found]
        say(f"phase 2, clusters {number}: {health}")
        if not any(each.kept.any() for each in found):
            most = config.clusters.max_share
            raise InputError(f"all clusters of all {len(videos)} videos are dropped, larger than {most:g} of their "
                             "video: raise clusters.max_share or clusters.num_clusters")  # fmt: skip
        shown = [video.with_labels(np.asarray(cluster_masks(each, size=each.labels.shape[1:])))
                 for video, each in zip(videos, found, strict=True)]  # fmt: skip
        _draw(workdir / f"clusters-{number:03d}.png", shown)
        so_far = evolve(joint_training, num_steps=min(steps, begin + (config.refresh or steps)))
        variables = fit(mask_vos(joint), unlabelled_batches(shown, masks=True, **clips), so_far,
                        workdir=workdir / "joint", variables=variables, progress=progress).variables  # fmt: skip
        _plot(workdir, "joint")
    return variables


def _clustered(
    key: Key, videos: Sequence[UnlabelledVideo], system: MaskVOSConfig, config: SelfTrainingConfig,
    variables: Variables, previous: list[Any] | None, workdir: Path, number: int, *, progress: bool,
) -> list[Clusters]:  # fmt: skip
    """The clusters of a round: those that were made before the run was stopped, or new ones."""
    path = workdir / f"clusters-{number:03d}.npz"
    if path.is_file():
        with np.load(path) as arrays:
            fields = [[arrays[f"{field}-{i}"] for field in Clusters._fields]
                      for i in range(len(arrays.files) // len(Clusters._fields))]  # fmt: skip
        found = [Clusters(*each) for each in fields]
        if [len(each.labels) for each in found] != [len(video) for video in videos]:
            raise InputError(f"{workdir} holds clusters of other videos: give those, or another folder for the run")
        return found
    found = cluster_videos(key, videos, system, variables, config.clusters, previous=previous, progress=progress)
    if not any(each.kept.any() for each in found):
        return found  # which ends the run; they are made again when it goes on, perhaps as the message advises
    arrays = {f"{field}-{i}": value for i, each in enumerate(found) for field, value in each._asdict().items()}
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return found


def _note_health(
    workdir: Path, number: int, step: int, found: list[Clusters], previous: list[Any] | None
) -> str:  # fmt: skip
    """Writes how many clusters are kept, and which share of the cells changed theirs, and says so."""
    path = workdir / "health.json"
    rounds = json.loads(path.read_text())[:number] if path.is_file() else []
    kept = np.array([each.kept.sum() for each in found])
    largest = np.array([each.shares.max() for each in found])
    rounds.append({"step": step, "videos": len(found), "without_kept": int(np.sum(kept == 0)),
                   "mean_kept": float(kept.mean()), "mean_largest_share": float(largest.mean()),
                   "changed": _changed(found, previous)})  # fmt: skip
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(rounds, indent=1) + "\n")
    return (f"{kept.mean():.1f} kept of each video, none of {np.sum(kept == 0)} of {len(found)}; the largest has "
            f"{100 * largest.mean():.0f} % on average")  # fmt: skip


def _changed(found: list[Clusters], previous: list[Any] | None) -> float | None:
    if previous is None:
        return None
    return float(np.mean([np.mean(each.labels != old) for each, old in zip(found, previous, strict=True)]))


def _plot(workdir: Path, phase: str) -> None:
    plot_curves(workdir / f"{phase}.png", read_log(workdir / phase), title=f"Mask-VOS, {phase}")


def _draw(path: Path, videos: list[UnlabelledVideo]) -> None:
    """The middle frame of each video with what is kept, of at most so many videos."""
    shown = [videos[i] for i in evenly_spaced(len(videos), _TILES)]
    middle = [len(video) // 2 for video in shown]
    tiles = [overlay(video.image(i), video.mask(i)) for video, i in zip(shown, middle, strict=True)]
    write_image(path, contact_sheet(tiles, columns=4, labels=[video.name for video in shown]))
