"""J and F of models that are told what to follow, and of baselines, beside one another.

    python experiments/first_mask.py DAVIS --resolution 256p --models dmm_net runs/dmm --proposals runs/proposals
    python experiments/first_mask.py --video schoolgirls.mp4 --masks schoolgirls_masks --models dmm_net

Sequences are those that training holds out, or one video with a folder of masks. The baselines are the first mask in
every frame and, for each model, matched proposals without refinement, by greedy and by optimal matching. First and
last frames do not count, as in DAVIS; objects of all sequences are averaged.

Measured 2026-11-26 on 2 busy vCPU, commit 14d928d, proposals of mask-rcnn-lite, one seed:

    schoolgirls.mp4, 7 objects                J      F
    the first mask, copied                0.263  0.513
    greedy, not refined                   0.149  0.370
    hungarian, not refined                0.154  0.372
    pgd, not refined                      0.145  0.352
    greedy                                0.268  0.414
    hungarian                             0.269  0.420
    pgd                                   0.265  0.423

    held-out sequences, one object each       J      F
    the first mask, copied                0.261  0.275
    hungarian, not refined                0.583  0.574
    hungarian                             0.637  0.680

    the same, --models segflow --online-steps 60, commit of its weights (ddf7b2c)
    segflow-lite                          0.471  0.344
    segflow-lite, 60 steps online         0.660  0.633

    --models stcn, commit a263cbc (the rows of copying are the same)
    stcn-lite, held-out sequences         0.712  0.676
    stcn-lite, schoolgirls.mp4            0.223  0.256

The girls look alike and stand close to one another, their best proposals overlap them by 0.40 on average, and copying
is hard to beat where most of them hardly move.
"""

import functools
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from tqdm import tqdm

from jaxvos.data import DataConfig, Video, find_sequence, open_video, read_annotation, write_proposals
from jaxvos.errors import InputError, exit_on_input_error
from jaxvos.evaluation import score_sequence
from jaxvos.inference import OnlineConfig, propose_video, stream
from jaxvos.models import PROPOSALS, Model, load_model
from jaxvos.systems import MaskVOSConfig, dmm_net, mask_vos
from jaxvos.training import evolve


class Sequence(NamedTuple):
    """Frames, and the ids of every one."""

    name: str
    video: Video
    masks: list[np.ndarray]


def copy_first(sequence: Sequence) -> Iterable[np.ndarray]:
    return (sequence.masks[0] for _ in sequence.masks)


def segment(model: Model, proposals: Path, online: OnlineConfig | None, sequence: Sequence) -> Iterable[np.ndarray]:
    files = proposals / f"{sequence.name}.npz" if "proposals" in model.system.needs else None
    frames = stream(sequence.video, model=model, first_mask=sequence.masks[0], online=online, proposals=files)
    return (frame.mask for frame in frames)


def variant(model: Model, method: str, *, refined: bool) -> Model:
    """The same net with another matcher, or without its refiner."""
    changes = {} if refined else {"refiner": "none", "iou_source": "matched"}
    config = evolve(model.config, matching={"test_method": method}, **changes)
    words = f"{method}{'' if refined else ', not refined'}"
    return model._replace(name=f"{model.name}, {words}", system=dmm_net(config), config=config)


def refined(model: Model, rounds: int) -> Model:
    """The same Mask-VOS with so many rounds of refinement."""
    config = evolve(model.config, memory={"rounds": rounds})
    return model._replace(name=f"{model.name}, {rounds} rounds", system=mask_vos(config), config=config)


def score(sequences: list[Sequence], segment: Callable[[Sequence], Iterable[np.ndarray]]) -> tuple[float, float]:
    """Returns mean J and F over the objects of all sequences."""
    objects = []
    for sequence in tqdm(sequences, leave=False):
        predicted = list(segment(sequence))
        objects += score_sequence(sequence.masks, predicted, protocol="davis17", name=sequence.name).objects
    return float(np.mean([each.j.mean for each in objects])), float(np.mean([each.f.mean for each in objects]))


def main(
    davis: tyro.conf.Positional[Path | None] = None,
    *,
    resolution: str | None = None,
    held_out: tuple[str, ...] = DataConfig().held_out,
    video: Path | None = None,
    masks: Path | None = None,
    models: tuple[str, ...] = ("dmm_net",),
    methods: tuple[str, ...] = ("greedy", "hungarian"),
    rounds: tuple[int, ...] = (),
    proposals: str = PROPOSALS,
    online_steps: int = 0,
    online_lr: float | None = None,
    online_heads: bool = False,
) -> None:
    """Prints the table.

    Args:
      davis: DAVIS folder.
      resolution: folder within its JPEGImages.
      held_out: sequences to score.
      video: a video to score instead.
      masks: folder with a mask for each of its frames.
      models: as `jaxvos segment --model` takes them.
      methods: matchers in prediction, a row for each without refinement and one with it.
      rounds: of refinement, a row for each, of models of Mask-VOS; those of its configuration if left out.
      proposals: the network that proposes, for all rows alike.
      online_steps: also a row with so many steps of online learning.
      online_lr: its learning rate, if not the system's own.
      online_heads: train the last layers alone.
    """
    sequences = _open(davis, resolution, held_out, video, masks)
    rows: list[tuple[str, Callable[[Sequence], Iterable[np.ndarray]]]] = [("the first mask, copied", copy_first)]
    with tempfile.TemporaryDirectory() as folder:
        loaded = [load_model(model) for model in models]
        for sequence in sequences if any("proposals" in model.system.needs for model in loaded) else ():
            found = propose_video(load_model(proposals), sequence.video, num_proposals=50)
            write_proposals(Path(folder) / f"{sequence.name}.npz", found)
        for model in loaded:
            matches = "proposals" in model.system.needs
            each = [variant(model, method, refined=refined) for refined in (False, True) for method in methods
                    if matches]  # fmt: skip
            if isinstance(model.config, MaskVOSConfig):
                each += [refined(model, number) for number in rounds]
            for changed in each or [model]:
                rows.append((changed.name, functools.partial(segment, changed, Path(folder), None)))
            if online_steps:
                online = OnlineConfig(num_steps=online_steps, lr=online_lr, heads_only=online_heads)
                learning = functools.partial(segment, model, Path(folder), online)
                rows.append((f"{model.name}, {online_steps} steps online", learning))
        print(f"{'model':44}      J      F   s/frame", flush=True)
        for name, row in rows:
            started = time.perf_counter()
            j, f = score(sequences, row)
            seconds = (time.perf_counter() - started) / sum(len(sequence.masks) for sequence in sequences)
            print(f"{name:44}  {j:.3f}  {f:.3f}  {seconds:8.2f}", flush=True)


def _open(
    davis: Path | None, resolution: str | None, held_out: tuple[str, ...], video: Path | None, masks: Path | None
) -> list[Sequence]:
    if (davis is None) == (video is None) or (video is None) != (masks is None):
        raise InputError("name a DAVIS folder, or a video with --masks")
    if video is not None and masks is not None:
        opened = open_video(video)
        paths = [masks / f"{opened.frame_name(index)}.png" for index, _ in enumerate(opened)]
        return [Sequence(opened.name, opened, [read_annotation(path) for path in paths])]
    assert davis is not None
    found = [find_sequence(davis, name, resolution=resolution) for name in held_out]
    return [Sequence(s.name, s.frames(), [s.mask(index) for index in range(len(s))]) for s in found]


if __name__ == "__main__":
    with exit_on_input_error():
        tyro.cli(main, description=__doc__)
