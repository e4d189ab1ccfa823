"""XMem (Cheng and Schwing, ECCV 2022), the second host of space-time correspondence training (Zhang et al., CVPR 2023).

    python experiments/xmem.py static --workdir runs/s0 --data.davis STILLS --weights resnet50.pth
    python experiments/xmem.py video --workdir runs/s3 --data.davis DAVIS --training.init-from runs/s0
    python experiments/xmem.py lite --workdir runs/lite --data.davis DAVIS --data.resolution 256p

Published for the host, trained on DAVIS and YouTube-VOS after static images (s03): DAVIS-2016 validation J&F 91.5,
DAVIS-2017 86.2 (five trainings: median 86.2, deviation 0.23), test-dev 81.0, YouTube-VOS 2018 85.7; without static
images (s2) 84.5 on DAVIS-2017. Of correspondence training no table was at hand. Measured here: not yet measured.
"""

import dataclasses
from typing import Literal

from jaxvos.data import AffineRange, Augmentation, ColourRange, ObjectDataConfig, SyntheticConfig, object_batches
from jaxvos.drawing import plot_curves
from jaxvos.models import pretrained_start, save_run
from jaxvos.nets import read_torch, xmem_from_torch
from jaxvos.systems import CorrespondenceConfig, XMemConfig, xmem
from jaxvos.training import (
    ExperimentConfig,
    OptimizerConfig,
    TrainingConfig,
    evolve,
    fit,
    launch,
    read_log,
)
from jaxvos.typing import Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ExperimentConfig):
    """One row."""

    system_name: Literal["xmem"] = "xmem"
    """What `jaxvos segment --model WORKDIR` builds."""
    system: XMemConfig = XMemConfig()
    """The net."""
    data: ObjectDataConfig = ObjectDataConfig()
    """What it sees."""
    weights: str | None = None
    """Key encoder to start from: a state dict of a ResNet, or `imagenet`; so does a value encoder of the same kind. Or
    the whole net: the state dict of a published XMem."""


MOTION = Augmentation(
    flip=0.5, frame=AffineRange(rotation=15.0, shear=10.0), clip=AffineRange(rotation=15.0, shear=10.0),
    clip_colour=ColourRange(brightness=0.1, contrast=0.03, saturation=0.03, grey=0.05),
    frame_colour=ColourRange(brightness=0.01, contrast=0.01, saturation=0.01),
)  # fmt: skip
VIDEO = Config(
    data=ObjectDataConfig(
        batch_size=8, size=(384, 384), num_frames=8, num_objects=3, crop=(0.36, 1.0), reverse=0.5, synthetic_share=0.0,
        jitter=None, held_out=(), augmentation=MOTION, skip_ramp=((0, 5), (11_000, 10), (22_000, 15), (33_000, 20),
                                                                  (44_000, 25), (99_000, 5))),
    # the decay by ten at 80,000 steps is left out: schedules are smooth here
    training=TrainingConfig(num_steps=110_000, optimizer=OptimizerConfig(lr=1e-5, weight_decay=0.05, decoupled=True)),
)  # fmt: skip
STATIC = evolve(VIDEO, data={"batch_size": 16, "num_frames": 3, "static": True, "skip_ramp": ()},
                training={"num_steps": 150_000})  # fmt: skip
LITE = evolve(
    VIDEO,
    system={"key_encoder": "efficientnet_lite0", "value_encoder": "efficientnet_lite0", "value_width": 128,
            "decoder_widths": (128, 96, 64), "hidden_width": 32, "memory": {"short_side": 256},
            "objective": {"keep": 0.3, "keep_ramp": (100, 400), "dice_weight": 0.5}},
    data={"batch_size": 4, "num_frames": 3, "num_objects": 2, "size": (144, 256), "crop": (0.6, 1.0),
          "synthetic_share": 0.35, "held_out": ObjectDataConfig().held_out, "min_area": 0.002,
          "skip_ramp": ((0, 3), (100, 6), (250, 10)),
          "synthetic": SyntheticConfig(lookalikes=0.4, min_objects=1, distractors=8),
          "augmentation": evolve(MOTION, frame={"rotation": 4.0, "shear": 2.0, "scale": (0.95, 1.05)},
                                 clip_colour={"brightness": 0.2, "contrast": 0.1, "saturation": 0.2})},
    weights="imagenet",
    training={"num_steps": 550, "checkpoint_every": 50, "log_every": 10, "optimizer": {
        "lr": 5e-4, "groups": (("encoder", 1e-4), ("value/encoder", 2e-4)), "schedule": "cosine", "warmup_steps": 50,
        "clip_norm": 1.0, "frozen": ("encoder/conv_stem", "encoder/bn0", "encoder/blocks_[0-2]")}},
)  # fmt: skip
TINY = evolve(
    LITE,
    system={"key_encoder": "resnet18", "value_encoder": "resnet18", "encoder_width": 4, "key_width": 8,
            "value_width": 8, "hidden_width": 4, "decoder_widths": (8, 8, 8)},
    data={"batch_size": 2, "size": (32, 48), "skip_ramp": ()},
    weights=None, training={"num_steps": 100, "optimizer": {"frozen": (), "groups": ()}},
)  # fmt: skip

# the last frame follows the one before it at once
PIXELS = {"system": {"correspondence": CorrespondenceConfig(boxes="none")},
          "data": {"adjacent": True}}  # fmt: skip
OBJECTS = {"system": {"correspondence": CorrespondenceConfig(pixels="none", boxes="random")}}
BOTH = {**PIXELS, "system": {"correspondence": CorrespondenceConfig(boxes="random")}}

PRESETS = {
    "static": ("stage 0: images that are moved about", STATIC),
    "video": ("stage 3: DAVIS and YouTube-VOS", VIDEO),
    "pixels": ("stage 3 and pixel-level consistency", evolve(VIDEO, **PIXELS)),
    "objects": ("stage 3 and object-level coherence, of random boxes", evolve(VIDEO, **OBJECTS)),
    "both": ("stage 3 and both", evolve(VIDEO, **BOTH)),
    "lite": ("EfficientNet-Lite0, a CPU's hour", LITE),
    "lite_both": ("lite and both, of masks", evolve(
        LITE, data=PIXELS["data"], system={"correspondence": CorrespondenceConfig(min_box=16.0, ramp=(100, 300))})),
    "tiny": ("a thin ResNet-18 at 32 x 48, for tests", TINY),
}


def main(config: Config) -> None:
    batches, _ = object_batches(config.data, seed=config.training.seed)
    state = fit(xmem(config.system), batches, config.training, workdir=config.workdir, variables=_start(config))
    folder = config.results
    if folder is None:
        return
    plot_curves(folder / "curves.png", read_log(folder), title="XMem")
    start = config.training.init_from
    save_run(
        folder, state.variables, system=config.system_name, config=config.system, data=config.data.origin,
        licence=config.data.licence, started_from={"weights": config.weights, "init_from": start and str(start)},
    )  # fmt: skip


def _start(config: Config) -> Variables | None:
    """A published net as a whole, or encoders from a file, as far as they are used: up to stride 16."""
    if config.weights is None:
        return None
    if config.weights != "imagenet":
        state = read_torch(config.weights)
        if any(name.endswith("key_encoder.conv1.weight") for name in state):
            return xmem_from_torch(state)
    kind, encoders = config.system.key_encoder, ("encoder", "value/encoder")
    alike = encoders if config.system.value_encoder == kind else encoders[:1]
    return pretrained_start(xmem(config.system), dict.fromkeys(alike, kind), config.weights)


if __name__ == "__main__":
    launch(PRESETS, main)
