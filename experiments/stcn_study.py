r"""Does correspondence training earn its place? STCN with pixels, with objects, with both and with neither.

    JAX_COMPILATION_CACHE_DIR=/tmp/xla python experiments/stcn_study.py DAVIS --workdir runs/stcn_study --seeds 0 1 2 \
        --steps 160 --clips 12

The net of stcn-lite from ImageNet's encoders, at 112 x 192. Every condition sees the same clips, half of them synthetic
with figures that are copies of one another, half of DAVIS train without the held-out sequences. Judged on synthetic
clips of two such copies and on the held-out sequences: J and F after the first mask, and how often a place of an object
finds that object, and not its copy or the background, where its key finds its nearest in the first frame (`match`; only
frames that lie at least 12, or 20, behind it).

Measured 2026-11-27 on 2 vCPU beside other jobs, commit 031e967, the command above; mean and deviation of three seeds:

                       copies J        copies match           DAVIS J           DAVIS F       DAVIS match
    host            39.6 +- 4.7          60.6 +- 5.7        47.8 +- 1.8       43.0 +- 2.7       67.4 +- 3.0
    host + pixels   41.7 +- 1.9          57.4 +- 4.6        41.4 +- 1.6       37.4 +- 2.3       50.4 +- 2.1
    host + objects  39.0 +- 5.0          59.6 +- 5.1        48.4 +- 1.7       43.1 +- 2.6       67.8 +- 5.3
    host + both     42.5 +- 1.6          55.5 +- 5.8        41.2 +- 1.4       37.3 +- 2.2       48.7 +- 2.4

At this scale correspondence training does not earn its place. Object-level coherence changes nothing beyond the
spread. Pixel-level consistency costs 6 points of J and 17 of matching on real videos, in every seed; on copies it gains
2 points of J within the spread of the host, and matches no better. The paper lets these losses in after 30,000 steps,
to a host that follows already, and trains 150,000: here none of the rows has converged (the host with 250 steps of seed
0 reaches 52.8 on copies and 54.9 on DAVIS).
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxvos.data import (
    AffineRange,
    Augmentation,
    ObjectDataConfig,
    SyntheticConfig,
    find_sequence,
    object_batches,
    synthetic_clip,
)
from jaxvos.errors import exit_on_input_error
from jaxvos.evaluation import score_sequence
from jaxvos.files import atomic_path
from jaxvos.inference import stream
from jaxvos.models import FIRST_MASK, Model, load_model, pretrained_start
from jaxvos.ops import Keys, resize, similarity
from jaxvos.systems import CorrespondenceConfig, STCNConfig, stcn, stcn_keys
from jaxvos.training import OptimizerConfig, TrainingConfig, evolve, fit
from jaxvos.typing import Variables

SIZE = (112, 192)
CONDITIONS: dict[str, CorrespondenceConfig | None] = {
    "host": None,
    "host + pixels": CorrespondenceConfig(boxes="none", ramp=(0, 60)),
    "host + objects": CorrespondenceConfig(pixels="none", min_box=16.0, ramp=(0, 60)),
    "host + both": CorrespondenceConfig(min_box=16.0, ramp=(0, 60)),
}
Results = dict[str, list[dict[str, float]]]


class Judged(NamedTuple):
    """A video to judge by."""

    name: str
    frames: list[np.ndarray]
    masks: list[np.ndarray]  # ids
    distant: int  # frames from here on lie far from the first


def data(davis: Path) -> ObjectDataConfig:
    motion = Augmentation(flip=0.5, frame=AffineRange(rotation=4.0, shear=2.0, scale=(0.95, 1.05)))
    return ObjectDataConfig(
        davis=(davis,), resolution="256p", size=SIZE, num_frames=4, adjacent=True, num_objects=2, max_skip=8,
        crop=(0.6, 1.0), reverse=0.5, min_area=0.002, jitter=None, augmentation=motion, synthetic_share=0.5,
        synthetic=SyntheticConfig(lookalikes=0.8, min_objects=2, distractors=8))  # fmt: skip


def train(davis: Path, config: STCNConfig, seed: int, steps: int) -> Variables:
    system = stcn(config)
    optimizer = OptimizerConfig(
        lr=5e-4, groups=(("encoder", 1e-4), ("value/encoder", 2e-4)), schedule="cosine", warmup_steps=20, clip_norm=1.0,
        weight_decay=1e-7, frozen=("encoder/conv_stem", "encoder/bn0", "encoder/blocks_[0-2]"))  # fmt: skip
    training = TrainingConfig(num_steps=steps, seed=seed, log_every=steps, optimizer=optimizer)
    start = pretrained_start(system, dict.fromkeys(("encoder", "value/encoder"), "efficientnet_lite0"), "imagenet")
    return fit(system, object_batches(data(davis), seed=seed)[0], training, variables=start, progress=False).variables


def copies(clips: int) -> Iterable[Judged]:
    """Synthetic clips that no training sees, each of two figures alike."""
    config = SyntheticConfig(height=SIZE[0], width=SIZE[1], num_frames=16, num_objects=2, min_objects=2, lookalikes=1.0,
                             min_area=0.04, max_area=0.15, distractors=8)  # fmt: skip
    index = 0
    while clips:
        clip = synthetic_clip((10**6, index), config)
        index += 1
        if clip.masks[0].sum(axis=(0, 1)).min() < 0.01 * SIZE[0] * SIZE[1]:
            continue  # one hides behind the other where they are told
        clips -= 1
        frames = list((255 * clip.images).round().astype(np.uint8))
        yield Judged("copies", frames, list(clip.masks.argmax(axis=-1).astype(np.uint8)), 12)


def held_out(davis: Path) -> Iterable[Judged]:
    for name in ObjectDataConfig().held_out:
        sequence = find_sequence(davis, name, resolution="256p")
        yield Judged("DAVIS", list(sequence.frames()), [sequence.mask(i) for i in range(len(sequence))], 20)


def match(config: STCNConfig, look: Callable[[np.ndarray], Keys], video: Judged) -> float:
    """Share of an object's places in distant frames whose nearest in the first frame is of the same object."""
    keys = [look(frame) for frame in (video.frames[0], *video.frames[video.distant :])]
    labels = [_cells(mask) for mask in (video.masks[0], *video.masks[video.distant :])]
    shares = []
    for key, label in zip(keys[1:], labels[1:], strict=True):
        found = labels[0][np.asarray(similarity(key, keys[0]).argmax(axis=-1))]
        shares += [np.mean(found[label == each] == each) for each in np.unique(labels[0]) if each and each in label]
    return float(np.mean(shares)) if shares else np.nan


def _cells(mask: np.ndarray) -> np.ndarray:
    """The id that most of the pixels of each place have."""
    ids = np.arange(mask.max() + 1)
    share = resize(jnp.asarray(mask[..., None] == ids, jnp.float32), (SIZE[0] // 16, SIZE[1] // 16))
    return np.asarray(share.argmax(axis=-1)).reshape(-1)


def score(config: STCNConfig, variables: Variables, videos: list[Judged]) -> dict[str, float]:
    model = Model("study", stcn(config), variables, config, {})

    @jax.jit
    def look(frame: np.ndarray) -> Keys:
        image = resize(jnp.asarray(frame, jnp.float32) / 255, SIZE)
        return Keys(stcn_keys(config, variables, image[None]).key.reshape(-1, config.key_width))

    scores: dict[str, list[float]] = {}
    for video in videos:
        found = [frame.mask for frame in stream(np.stack(video.frames), model=model, first_mask=video.masks[0])]
        objects = score_sequence(video.masks, found, protocol="davis17", name=video.name).objects
        scores.setdefault(f"{video.name} J", []).extend(100 * each.j.mean for each in objects)
        scores.setdefault(f"{video.name} F", []).extend(100 * each.f.mean for each in objects)
        scores.setdefault(f"{video.name} match", []).append(100 * match(config, look, video))
    return {name: float(np.nanmean(values)) for name, values in scores.items()}


def main(davis: tyro.conf.Positional[Path], *, workdir: Path, seeds: tuple[int, ...] = (0, 1, 2), steps: int = 250,
         clips: int = 16) -> None:  # fmt: skip
    """Trains every condition with every seed and prints the table.

    Args:
      davis: DAVIS folder, with frames of 256 rows.
      workdir: gets `table.txt`.
      seeds: of the nets and of what they see.
      steps: updates of a condition.
      clips: synthetic ones to judge by.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    videos, results = [*copies(clips), *held_out(davis)], Results()
    base = evolve(load_model(FIRST_MASK).config, memory={"short_side": SIZE[0]}, objective={"keep_ramp": (50, 200)})
    for seed in seeds:
        for name, correspondence in CONDITIONS.items():
            config = evolve(base, correspondence=correspondence)
            row = score(config, train(davis, config, seed, steps), videos)
            results.setdefault(name, []).append(row)
            print(f"{name}, seed {seed}: {row}", flush=True)
            _write(results, workdir / "table.txt")


def _write(results: Results, path: Path) -> None:
    """The table so far: means over seeds, and their standard deviation."""
    columns = list(next(iter(results.values()))[0])
    lines = [f"{'':16}seeds " + " ".join(f"{column:>14}" for column in columns)]
    for name, rows in results.items():
        cells = [f"{np.mean(v):6.2f} +- {np.std(v):4.2f}" for c in columns if (v := [row[c] for row in rows])]
        lines.append(f"{name:16}{len(rows):5} " + " ".join(cells))
    with atomic_path(path) as partial:
        partial.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    with exit_on_input_error():
        tyro.cli(main, description=__doc__)
