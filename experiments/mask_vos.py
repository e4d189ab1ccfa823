"""Mask-VOS: masks and correspondence from videos without a label (Li et al., CVPR 2023).

    python experiments/mask_vos.py paper --workdir runs/maskvos --data.videos YOUTUBE-VOS/train/JPEGImages
    python experiments/mask_vos.py lite --workdir runs/lite --data.videos DAVIS/JPEGImages/256p --weights imagenet

A preset's line tells the row of the paper's Table 4 (J&F / J / F on DAVIS-2017 validation, ResNet-18), which
`jaxvos evaluate` scores after `jaxvos segment --model WORKDIR`. Steps are those of 3471 videos in batches of 16; frames
are every fifth, as YouTube-VOS lists them. The paper also pre-trains the encoder (as DINO), by settings that it does
not tell; here phase 1 begins at random, or at `--weights`. Measured here: rows of the paper not yet; `lite` below.

`jaxvos fit --videos FOLDER -o RUN --exclude bus horsejump-low kite-walk rollerblade soccerball` on the frames of
DAVIS-2016 train at 256 rows and two other clips: the net and recipe of `lite` with 216 steps in either phase, half an
hour to an hour on 2 vCPU, one seed. J / F on the five sequences left out, by `first_mask.py DAVIS --resolution 256p
--models imagenet RUN --rounds 0 1 2 3`:

    the first mask, copied                                             0.261  0.275
    label propagation, features of ImageNet, untrained                 0.481  0.433
    commit f99dd07, from ImageNet, carried on alone                    0.555  0.552
        and refined, 1, 2 or 3 rounds                                  0.647  0.636
    commit 4e11e36, the layer that sees masks faster: carried on       0.546  0.539
        and refined, 1, 2 or 3 rounds                                  0.650  0.640
    the same from random weights: carried on alone                     0.099  0.070
        and refined, 1 round                                           0.138  0.123
    commit 722b458, where decoders said the whole mask: carried on     0.537  0.524
        and refined, 1, 2, 3 rounds                             J      0.226, 0.182, 0.171

So correspondence pays within minutes, and so does a decoder that corrects the mask that was carried on
(`net.residual`), while one that says the whole mask does not in so few steps (the paper: 21,700 after 65,100 of
correspondence). Rounds after the first change probabilities by 3e-4 at most: the layer that sees masks, which begins
with zeros, has hardly learned (commit f99dd07). From random weights 216 steps of correspondence are far too few:
worse than copying. Clusters by k-means: 5.0 of 5 kept in each video, the largest 27 % of it, so that the background
is cut and never dropped. Trained on clusters by optimal transport: not yet measured (`clusters_study.py` compares the
clusters).

Looked at, refined once: bus is held whole, behind trees too, where leaves are taken for it; rollerblade is lost bit by
bit after her jump, to the boots alone at the end, but later than without refinement.
"""

import dataclasses
from typing import Any, Literal

from jaxvos.data import read_videos
from jaxvos.errors import InputError
from jaxvos.models import pretrained_start, save_model
from jaxvos.self_training import SelfTrainingConfig, learn_from_videos, small_net, small_recipe
from jaxvos.systems import MaskVOSConfig, mask_vos
from jaxvos.training import (
    ExperimentConfig,
    OptimizerConfig,
    TrainingConfig,
    as_json,
    describe_run,
    evolve,
    launch,
)

EPOCH = -(-3471 // 16)
ADAM = OptimizerConfig(lr=1e-4, b1=0.5, weight_decay=5e-4, schedule="thirds")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Videos, which are kept in memory."""

    videos: str | None = None
    """A folder of videos or of folders of frames."""
    short_side: int = 256
    """Rows (or columns, if there are fewer)."""
    stride: int = 1
    """Keep every such frame."""
    max_frames: int = 36
    """Frames of a video at most, evenly spaced."""
    exclude: tuple[str, ...] = ()
    """Videos that are left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ExperimentConfig):
    """One row; `training` is that of the phase that learns correspondence."""

    system_name: Literal["mask_vos"] = "mask_vos"
    """What `jaxvos segment --model WORKDIR` builds."""
    system: MaskVOSConfig = MaskVOSConfig()
    """The nets, their losses, and how masks are carried on."""
    data: DataConfig = DataConfig()
    """What it sees."""
    recipe: SelfTrainingConfig = SelfTrainingConfig()
    """The phases."""
    joint_training: TrainingConfig = TrainingConfig()
    """The phase that also learns to carry clusters on."""
    weights: str | None = None
    """Encoder of frames to begin with: a state dict of a ResNet, or `imagenet` (of EfficientNet-Lite0)."""


PAPER = Config(
    training=TrainingConfig(num_steps=300 * EPOCH, optimizer=ADAM),
    joint_training=TrainingConfig(num_steps=100 * EPOCH, optimizer=dataclasses.replace(ADAM, lr=1e-5,
                                                                                       schedule="constant")),
    recipe=SelfTrainingConfig(refresh=10 * EPOCH),
)  # fmt: skip
RECIPE, FIRST, SECOND = small_recipe(25, steps=(200, 300))
LITE = Config(system=small_net(), recipe=RECIPE, training=FIRST, joint_training=SECOND)
TINY = evolve(
    LITE,
    system={"net": {"encoder": "resnet18", "value_encoder": "resnet18", "encoder_width": 4, "key_width": 8,
                    "value_width": 8, "decoder_widths": (8, 8, 8)}, "memory": {"context": 3}},
    recipe={"size": (32, 32), "batch_size": 2, "refresh": 2, "min_skip": 1, "max_skip": 2},
    data={"short_side": 32, "max_frames": 8},
    joint_training={"optimizer": {"groups": ()}},
)  # fmt: skip
CORRESPONDENCE: dict[str, Any] = {"recipe": {"phases": "correspondence"}}


def _row(*, objective: dict[str, Any] | None = None, memory: dict[str, Any] | None = None,
         net: dict[str, Any] | None = None, **changes: Any) -> Config:  # fmt: skip
    return evolve(PAPER, system={"objective": objective or {}, "memory": memory or {}, "net": net or {}}, **changes)


def _plain(**objective: Any) -> Config:
    """Correspondence alone, and label propagation."""
    return _row(objective=objective, memory={"rounds": 0}, **CORRESPONDENCE)


PRESETS = {
    "paper": ("ResNet-18, all of it: 74.5 / 71.6 / 77.4", PAPER),
    "resnet50": ("Table 1, ResNet-50: 75.6 / 73.3 / 77.8", _row(net={"encoder": "resnet50"})),
    "short": ("4a, short-term loss alone: 57.4 / 55.8 / 58.9", _plain(long_weight=0.0)),
    "long": ("4a, long-term loss alone: 67.2 / 64.9 / 69.5", _plain(short_weight=0.0)),
    "corr": ("4a and 4f, both: 68.8 / 66.7 / 70.9", _plain()),
    "seg": ("4a, fake objects alone: 62.3 / 60.5 / 64.0",
            _row(objective={"short_weight": 0.0, "long_weight": 0.0}, recipe={"phases": "joint"})),
    **{f"context{n}": (f"4b, {n} frames beside the first: {score}", _row(memory={"context": n})) for n, score in (
        (0, "68.8 / 65.7 / 71.9"), (15, "73.2 / 70.4 / 76.0"), (25, "73.5 / 70.9 / 76.1"),
        (30, "72.8 / 70.2 / 75.3"))},
    **{f"clusters{m}": (f"4c, {m} clusters: {score}", evolve(PAPER, recipe={"clusters": {"num_clusters": m}}))
       for m, score in ((2, "67.5 / 65.2 / 69.8"), (3, "71.6 / 69.0 / 74.2"), (8, "72.5 / 69.6 / 75.4"),
                        (10, "70.1 / 67.3 / 72.9"))},
    "never": ("4d, clustered once: 71.1 / 68.3 / 73.9", evolve(PAPER, recipe={"refresh": None})),
    **{f"every{n}": (f"4d, clustered every {n} epochs: {score}", evolve(PAPER, recipe={"refresh": n * EPOCH}))
       for n, score in ((20, "72.8 / 69.9 / 75.7"), (15, "73.9 / 70.8 / 77.0"), (5, "72.5 / 69.5 / 75.5"),
                        (1, "69.7 / 66.7 / 72.6"))},
    "rounds0": ("4e, what the memory says, decoded: 69.7 / 67.3 / 72.1", _row(net={"coarse_branch": False})),
    **{f"rounds{n}": (f"4e, {n} rounds of refinement: {score}", _row(memory={"rounds": n})) for n, score in (
        (1, "72.6 / 69.8 / 75.4"), (2, "73.9 / 71.1 / 76.7"), (4, "74.3 / 71.2 / 77.3"), (5, "74.0 / 71.0 / 77.0"))},
    "mast": ("4f, colours: 65.5 / 63.3 / 67.6", _plain(scheme="mast")),
    "mast_seg": ("4f, and fake objects: 69.0 / 66.4 / 71.6", _row(objective={"scheme": "mast"})),
    "crw": ("4f, walks there and back: 67.6 / 64.6 / 70.6", _plain(scheme="crw")),
    "crw_seg": ("4f, and fake objects: 71.8 / 68.3 / 75.3", _row(objective={"scheme": "crw"})),
    "dul": ("what the released code trains, with its weights", _plain(scheme="dul", long_weight=1.0)),
    "literal": ("codes of places added as they are, a plain affinity over all frames", _row(
        memory={"top_k": None, "radius": None, "backend": "online"},
        recipe={"clusters": {"position": "add", "position_weight": 8.0}})),
    **{f"ot_{name}": (f"clustered by optimal transport, sizes {name}", evolve(
        PAPER, recipe={"clusters": {"method": "ot", "marginals": name}})) for name in ("learned", "balanced", "box")},
    "lite": ("EfficientNet-Lite0, a CPU's hour", LITE),
    "lite_ot": ("and optimal transport", evolve(LITE, recipe={"clusters": {"method": "ot"}})),
    "tiny": ("a thin ResNet-18 at 32 px, for tests", TINY),
}  # fmt: skip


def main(config: Config) -> None:
    if config.data.videos is None or config.workdir is None:
        raise InputError("it learns from videos and keeps what it learns: give --data.videos and --workdir")
    data = {name: value for name, value in dataclasses.asdict(config.data).items() if name != "videos"}
    folder = read_videos(config.data.videos, **data)
    for name, reason in folder.skipped.items():
        print(f"skipped {name}: {reason}")
    start = None if config.weights is None else pretrained_start(
        mask_vos(config.system), {"encoder": config.system.net.encoder}, config.weights)  # fmt: skip
    variables = learn_from_videos(folder.videos, config.system, config.recipe, training=config.training,
                                  joint_training=config.joint_training, workdir=config.workdir,
                                  variables=start)  # fmt: skip
    story = {"data": f"{len(folder.videos)} videos of {config.data.videos}, without labels", "licence": "as the videos",
             "started_from": config.weights, "run": as_json(config), **describe_run()}  # fmt: skip
    save_model(config.workdir / "model.safetensors", variables, system=config.system_name, config=config.system,
               metadata=story, half=True)  # fmt: skip


if __name__ == "__main__":
    launch(PRESETS, main)
