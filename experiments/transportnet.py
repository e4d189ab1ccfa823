"""TransportNet (Zhang et al., ICCV 2021), Table 3 and Table 1: mean J on DAVIS-2016 val / FBMS test.

    python experiments/transportnet.py paper --workdir runs/paper --data.davis DAVIS \\
        --weights.appearance resnet101.pth --weights.motion resnet50.pth
    python experiments/transportnet.py lite --workdir runs/lite
    python experiments/transportnet.py lite --workdir runs/davis --data.davis DAVIS --data.resolution 256p

Published: sh 83.4 / 75.0, lsh 82.4 / 73.2, ssh 83.9 / 77.4, none 80.4 / 68.2, res5 83.3 / 72.7, res45 83.8 / 76.4,
noedge 84.3 / 76.3, paper 84.5 / 78.7. Measured here with the published encoders: not yet measured (their ImageNet
weights and the validation split are not at hand).

`lite`, mean J / F on the five held-out training sequences (`held_out.py`; seed 0, 2 vCPU): on synthetic clips, 3000
steps, 64 min, 66.4 / 69.4; then 900 steps with `--data.davis DAVIS --data.resolution 256p --data.synthetic-share 0.25
--training.init-from runs/lite/model.safetensors`, 12 min, 71.0 / 73.1 (all foreground: 6.9; untrained: 0.1).
"""

import dataclasses
from typing import Literal

from jaxvos.data import DataConfig, training_data
from jaxvos.drawing import plot_curves
from jaxvos.evaluation import held_out_scores
from jaxvos.models import save_run
from jaxvos.nets import BackboneName, pretrained
from jaxvos.systems import AugmentationConfig, TransportNetConfig, transportnet
from jaxvos.training import (
    ExperimentConfig,
    OptimizerConfig,
    TrainingConfig,
    evolve,
    fit,
    launch,
    read_log,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """ImageNet weights to start from."""

    appearance: str | None = None
    """A torchvision state dict, or `imagenet` (EfficientNet-Lite0: from its package)."""
    motion: str | None = None
    """The same for the motion stream."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ExperimentConfig):
    """One row."""

    system_name: Literal["transportnet"] = "transportnet"
    """What `jaxvos segment --model WORKDIR` builds."""
    system: TransportNetConfig = TransportNetConfig()
    """The net."""
    data: DataConfig = DataConfig()
    """What it sees."""
    weights: Weights = Weights()
    """Where it starts."""


PAPER = Config(training=TrainingConfig(
    num_steps=125_000,  # 25 epochs of 10,000 frames (MATNet's schedule; the paper states none)
    optimizer=OptimizerConfig(lr=1e-3, groups=(("appearance|motion", 1e-4),), weight_decay=1e-5),
))  # fmt: skip
ROBUST = {"apply": "to_appearance", "residual": True}
LITE = evolve(
    PAPER,
    system={
        "backbone_app": "efficientnet_lite0", "backbone_mot": "efficientnet_lite0", "decoder_width": 64,
        "input_size": (224, 384), "transport": ROBUST,
        "augmentation": AugmentationConfig(scale=(0.75, 1.5), flow="vector"),
    },
    data={"batch_size": 4, "size": (160, 256)},
    weights={"appearance": "imagenet", "motion": "imagenet"},
    training={"num_steps": 3000, "checkpoint_every": 250, "optimizer": {
        "lr": 1e-3, "groups": (("appearance|motion", 3e-4),), "schedule": "cosine", "warmup_steps": 100}},
)  # fmt: skip
TINY = evolve(
    PAPER,
    system={"backbone_app": "resnet18", "backbone_mot": "resnet18", "backbone_width": 8, "decoder_width": 16,
            "input_size": (64, 64)},
    data={"size": (64, 64)},
    training={"num_steps": 200},
)  # fmt: skip


def _row(transport: dict | None = None, **system) -> Config:
    return evolve(PAPER, system={"transport": transport or {}, **system})


PRESETS = {
    "paper": ("LSSH at Res3-5, edge loss: 84.5 / 78.7", PAPER),
    "sh": ("dense Sinkhorn: 83.4 / 75.0", _row({"matcher": "sh"})),
    "lsh": ("long-distance groups alone: 82.4 / 73.2", _row({"matcher": "lsh"})),
    "ssh": ("short-distance groups alone: 83.9 / 77.4", _row({"matcher": "ssh"})),
    "none": ("no matching: 80.4 / 68.2", _row({"matcher": "none"})),
    "res5": ("LSSH at Res5: 83.3 / 72.7", _row(stages=(5,))),
    "res45": ("LSSH at Res4-5: 83.8 / 76.4", _row(stages=(4, 5))),
    "noedge": ("without the edge loss: 84.3 / 76.3", _row(edge_loss=False)),
    "paper_literal": ("the formulae to the letter: similarities normalised as they are, on the flattened map",
                      _row({"kernel": "raw_sim", "layout": "raster", "final_norm": "col"})),
    "robust": ("aligned pairs, residual, dustbin, learned embeddings",
               _row({**ROBUST, "marginals": "dustbin", "proj_dim": 128})),
    "lite": ("EfficientNet-Lite0 streams, a CPU's afternoon", LITE),
    "tiny": ("thin ResNet-18s at 64 px, for tests", TINY),
}  # fmt: skip


def main(config: Config) -> None:
    system = transportnet(config.system)
    batches, held_out = training_data(config.data, seed=config.training.seed)
    state = fit(
        system, batches, config.training, workdir=config.workdir, variables=_start(config),
        evaluate=None if held_out is None else lambda variables, step: held_out_scores(system, variables, held_out),
    )  # fmt: skip
    folder = config.results
    if folder is None:
        return
    plot_curves(folder / "curves.png", read_log(folder), title="TransportNet")
    davis, start = config.data.davis is not None, config.training.init_from
    save_run(
        folder, state.variables, system=config.system_name, config=config.system,
        data=f"DAVIS-2016 train without {', '.join(config.data.held_out)}" if davis else "synthetic clips",
        licence="non-commercial: trained on DAVIS (CC BY-NC 4.0)" if davis else "Apache-2.0",
        started_from=dataclasses.asdict(config.weights) | {"init_from": start and str(start)},
    )  # fmt: skip


def _start(config: Config) -> dict | None:
    """ImageNet weights of the streams, as a part of the tree of variables."""
    streams: dict[str, tuple[BackboneName, str | None]] = {
        "appearance": (config.system.backbone_app, config.weights.appearance),
        "motion": (config.system.backbone_mot, config.weights.motion),
    }
    loaded = {stream: pretrained(name, source) for stream, (name, source) in streams.items() if source is not None}
    if not loaded:
        return None
    return {part: {stream: v[part] for stream, v in loaded.items()} for part in ("params", "batch_stats")}


if __name__ == "__main__":
    launch(PRESETS, main)
