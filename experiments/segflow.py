"""SegFlow (Cheng et al., ICCV 2017): Table 1 on DAVIS-2016 val, and the flow of Tables 3 and 4.

    python experiments/segflow.py paper --workdir runs/paper --masks.davis DAVIS --flow.sets sintel train_clean \\
        --weights.encoder resnet101.pth --weights.flow flownets.pth
    python experiments/segflow.py lite --workdir runs/lite --masks.davis DAVIS --masks.resolution 256p

Training alternates: masks with the flow branch frozen, then flow with the segmentation branch frozen, each until the
held-out sequences or clips get no better, and the best is kept. `joint` learns both at once from synthetic clips, which
have both. `first_mask.py` scores the result, with and without online learning.

Published J / F / T: full 74.8 / 74.5 / 19.4, -ol 67.4 / 66.7 / 27.6, -of 53.8 / 51.5 / 30.2,
-ol -it 66.9 / 65.8 / 27.9, -fda 73.9 / 74.1 / 22.5, -flo 72.4 / 73.5 / 25.0, -flo -ol 65.4 / 64.0 / 35.4,
-flo -ol -sda 60.6 / 60.4 / 33.5, with flipping 76.1 / 76.0 / 18.2. Not yet measured here: neither their weights nor the
validation split are at hand. Online learning is a matter of scoring: `full` and `-ol` are one training, `paper`.

`lite`, which is embedded as segflow-lite (one round, from pwc-net-lite as it was after 1000 of its steps; half an hour
beside other jobs, 2 vCPU, commit ddf7b2c, seed 0), on the five held-out sequences (`first_mask.py DAVIS --resolution
256p --models segflow --online-steps 60`), J / F: 0.471 / 0.344 without and 0.660 / 0.633 with 60 steps of online
learning, the first mask copied 0.261 / 0.275. Its flow phase took the end-point error on synthetic clips to 0.82 px. A
FlowNetS of a quarter of the channels, from scratch, had not left zero flow after 450 steps: hence the PWC-Net.

    python experiments/segflow.py lite --workdir runs/lite --masks.davis DAVIS --masks.resolution 256p \\
        --weights.flow runs/flow
"""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxvos.data import DavisSequence, FlowDataConfig, ObjectDataConfig, flow_batches, gather, object_batches
from jaxvos.drawing import plot_curves
from jaxvos.evaluation import flow_error
from jaxvos.inference import jitted_predict
from jaxvos.metrics import region_similarity
from jaxvos.models import save_model
from jaxvos.nets import flownets_from_torch, pretrained, pwc_net_from_torch, read_torch
from jaxvos.system import Clip, Frame, System
from jaxvos.systems import PairAugmentationConfig, SegFlowConfig, segflow
from jaxvos.training import (
    ExperimentConfig,
    OptimizerConfig,
    TrainingConfig,
    describe_run,
    evolve,
    fit,
    launch,
    load_variables,
    read_log,
)
from jaxvos.typing import Variables

FLOW_BRANCH = ("flow_net", "flow_scores_.")
MASK_BRANCH = ("encoder", "scores_.")
STRIDE, VALIDATION_SEED, VALIDATION_BATCHES = 4, 10**6, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights to start from."""

    encoder: str | None = None
    """A torchvision state dict, or `imagenet` (EfficientNet-Lite0: from its package)."""
    flow: str | None = None
    """The flow branch's: a FlowNetS or PWC-Net state dict; for a PWC-Net also what `pwc_net.py` trained."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ExperimentConfig):
    """One column; `training` is that of a segmentation phase."""

    system_name: Literal["segflow"] = "segflow"
    """What `jaxvos segment --model WORKDIR/model.safetensors` builds."""
    system: SegFlowConfig = SegFlowConfig()
    """The net."""
    masks: ObjectDataConfig = ObjectDataConfig(batch_size=1, size=(480, 854), num_frames=2, num_objects=1, max_skip=1,
                                               synthetic_share=0.0, jitter=None)  # fmt: skip
    """What segmentation phases see."""
    flow: FlowDataConfig = FlowDataConfig(batch_size=1, size=(384, 768))
    """What flow phases see, and joint training, whose synthetic clips keep their masks."""
    flow_training: TrainingConfig = TrainingConfig()
    """A flow phase."""
    rounds: int = 3
    """How often a segmentation phase is followed by a flow phase; 0 leaves the start as it is (`of`)."""
    joint: bool = False
    """One training on both, by `training`, in place of the rounds."""
    weights: Weights = Weights()
    """Where it starts."""


def _phase(lr: float, metric: str, mode: Literal["max", "min"]) -> TrainingConfig:
    """SGD as published, in the convention of mean losses: 4.1e5 pixels times the rate, the decay divided by as much."""
    return TrainingConfig(
        num_steps=60_000, eval_every=2000, best_metric=metric, best_mode=mode, patience=3, min_delta=1e-3,
        optimizer=OptimizerConfig(name="sgd", lr=lr, b1=0.9, weight_decay=1.22e-9))  # fmt: skip


PAPER = Config(training=_phase(4.1e-3, "J", "max"), flow_training=_phase(4.1e-4, "epe", "min"))
LITE = evolve(
    PAPER,
    system={"backbone": "efficientnet_lite0", "flow_net": "pwc_net_lite", "input_size": (192, 320),
            "skip_scale": (1.0, 1.0, 1.0), "flow_multiscale": True,
            "augmentation": PairAugmentationConfig(rotation=10.0, scale=(0.8, 1.4))},
    masks={"batch_size": 4, "size": (192, 320), "synthetic_share": 0.3},
    flow={"batch_size": 4, "size": (192, 320), "pool": 1500},
    weights={"encoder": "imagenet"},
    training={"num_steps": 800, "eval_every": 200, "checkpoint_every": 200, "patience": 2, "optimizer": {
        "name": "adam", "lr": 1e-3, "groups": (("encoder", 1e-4),), "schedule": "cosine", "warmup_steps": 50,
        "frozen": ("encoder/conv_stem", "encoder/bn0", "encoder/blocks_[0-2]")}},
    flow_training={"num_steps": 400, "eval_every": 200, "checkpoint_every": 200, "patience": 2, "optimizer": {
        "name": "adam", "lr": 1e-4, "schedule": "cosine", "warmup_steps": 50}},
    rounds=1,
)  # fmt: skip
TINY = evolve(
    LITE,
    system={"backbone": "resnet18", "backbone_width": 8, "flow_net": "flownets", "flow_width": 2,
            "input_size": (64, 64)},
    masks={"batch_size": 2, "size": (64, 64)}, flow={"batch_size": 2, "size": (64, 64), "pool": 8},
    weights={"encoder": None},
    training={"num_steps": 50, "eval_every": 25, "optimizer": {"groups": (), "frozen": ()}},
    flow_training={"num_steps": 50, "eval_every": 25},
)  # fmt: skip
NONE = {"fusion": "none"}
PRESETS = {
    "paper": ("full, and ol without online learning: 74.8 / 67.4", PAPER),
    "it": ("one round, -ol -it: 66.9", evolve(PAPER, rounds=1)),
    "of": ("no offline training: 53.8 after online learning", evolve(PAPER, rounds=0)),
    "fda": ("online learning from frames that do not move: 73.9",
            evolve(PAPER, system={"next_frame": {"method": "copy"}})),
    "flo": ("the segmentation branch alone: 72.4, without online learning 65.4", evolve(PAPER, system=NONE)),
    "sda": ("and without augmentation, -flo -ol -sda: 60.6",
            evolve(PAPER, system={**NONE, "augmentation": {"probability": 0.0}})),
    "flip": ("averaged with the mirrored frames: 76.1", evolve(PAPER, system={"tta_flip": True})),
    "flow_to_seg": ("flow helps masks, not the other way", evolve(PAPER, system={"seg_to_flow": False})),
    "seg_to_flow": ("masks help flow, not the other way: what Tables 3 and 4 lack",
                    evolve(PAPER, system={"flow_to_seg": False})),
    "release": ("the released code: flow from a head beside that of the masks, cut out, plain sums",
                evolve(PAPER, system={"fusion": "release", "align": "crop", "class_balance": "none",
                                      "loss_reduction": "sum", "flow_loss": "sq"},
                       training={"optimizer": {"lr": 1e-9, "weight_decay": 5e-4}},
                       flow_training={"optimizer": {"lr": 1e-10, "weight_decay": 5e-4}})),
    **{f"flow_{name}": (f"its flow phases on {words}", evolve(PAPER, flow={"sets": sets, "crop": None}))
       for name, words, sets in (
           ("sintel", "Sintel clean, EPE 2.50 there after training", (("sintel", "train_clean"),)),
           ("sintel_final", "Sintel final, 2.61", (("sintel", "train_final"),)),
           ("kitti", "KITTI 2012 and 2015, 4.40", (("kitti12_flow", "train"), ("kitti15_flow", "train"))),
           ("chairs", "Flying Chairs, 2.83 on its test", (("flying_chairs", "train"),)),
           ("monkaa", "Monkaa clean, 4.06; validation 7.94", (("monkaa", "train_clean"),)),
           ("monkaa_final", "Monkaa final, 3.78; validation 7.90", (("monkaa", "train_final"),)),
           ("driving", "Driving clean, 9.17; test 37.91", (("driving", "train_clean"),)),
           ("driving_final", "Driving final, 9.41; test 37.93", (("driving", "train_final"),)))},
    "joint": ("both at once on synthetic clips", evolve(PAPER, joint=True, flow={"keep_masks": True})),
    "lite": ("EfficientNet-Lite0 and pwc-net-lite (--weights.flow), half a CPU's hour", LITE),
    "tiny": ("a few channels at 64 px, for tests", TINY),
}  # fmt: skip


def main(config: Config) -> None:
    system, variables = segflow(config.system), _start(config)
    masks, sequences = object_batches(config.masks, seed=config.training.seed)
    flow = flow_batches(config.flow, seed=config.training.seed)
    clips = _validation(config)
    judge = functools.partial(mask_scores, system, sequences, clips)
    mask_phase = config.training, masks, judge, FLOW_BRANCH[: _branches(config)]
    flow_phase = config.flow_training, flow, functools.partial(flow_scores, system, clips), MASK_BRANCH
    phases = []
    for number in range(1, config.rounds + 1):
        phases += [(f"round{number}_masks", *mask_phase), (f"round{number}_flow", *flow_phase)]
    if config.joint:
        phases = [("joint", config.training, flow, judge, ())]
    for name, training, batches, evaluate, frozen in phases:
        variables = run_phase(config, name, system, training, batches, evaluate, frozen, variables)
    if config.results is not None and variables is not None:
        _save(config, config.results / "model.safetensors", variables)


def run_phase(
    config: Config, name: str, system: System, training: TrainingConfig, batches: Any, evaluate: Any,
    frozen: tuple[str, ...], variables: Variables | None,
) -> Variables:  # fmt: skip
    """Trains one branch, or goes on with that; what is finished is read."""
    folder = None if config.workdir is None else config.workdir / name
    if folder is not None and (folder / "model.safetensors").exists():
        return load_variables(folder / "model.safetensors")[0]
    training = evolve(training, optimizer={"frozen": (*training.optimizer.frozen, *frozen)})
    state = fit(system, batches, training, workdir=folder, variables=variables, evaluate=evaluate)
    variables = jax.device_get(state.variables)
    if folder is not None and config.results is not None:
        plot_curves(folder / "curves.png", read_log(folder), title=f"SegFlow, {name}")
        _save(config, folder / "model.safetensors", variables)
    return variables


def mask_scores(
    system: System, sequences: Sequence[DavisSequence], clips: list[Clip], variables: Variables, step: int
) -> dict[str, float]:
    """Mean J of what moves: of every fourth frame of the held-out sequences; of the validation clips without these."""
    predict = jitted_predict(system)

    def score(image: np.ndarray, following: np.ndarray, truth: np.ndarray) -> float:
        frame = Frame(jnp.asarray(image), next_image=jnp.asarray(following))
        found = predict(variables, system.start(variables, frame, None), frame)[1].masks
        return float(region_similarity(truth, np.asarray(found)[..., 0] < 0.5))

    pixels = lambda image: image.astype(np.float32) / 255  # noqa: E731
    by_sequence = [
        np.mean([score(pixels(s.image(i)), pixels(s.image(i + 1)), s.mask(i) > 0) for i in s.annotated[:-1:STRIDE]])
        for s in sequences
    ]  # fmt: skip
    by_clip = [] if sequences else [score(images[0], images[1], masks[0, ..., 0] < 0.5) for clip in clips
                                    for images, masks in zip(clip.images, clip.masks, strict=True)]  # fmt: skip
    return {"J": float(np.mean(by_sequence or [j for part in gather(by_clip) for j in part]))}


def flow_scores(system: System, clips: list[Clip], variables: Variables, step: int) -> dict[str, float]:
    """Mean end-point error over synthetic clips that no training sees, in pixels."""
    return {"epe": float(np.mean([flow_error(system, variables, clip) for clip in clips]))}


def _branches(config: Config) -> int:
    """How many patterns of FLOW_BRANCH there are parameters for."""
    return 2 if config.system.fusion == "release" else 1


def _validation(config: Config) -> list[Clip]:
    data = dataclasses.replace(config.flow, batch_size=8, sets=(), pool=None, keep_masks=True)
    batches = flow_batches(data, seed=VALIDATION_SEED)(0)
    clips = [next(batches) for _ in range(VALIDATION_BATCHES)]
    batches.close()
    return clips


def _start(config: Config) -> Variables | None:
    """The weights given, as a part of the tree of variables."""
    start: dict[str, dict[str, Any]] = {}
    if config.weights.encoder is not None:
        loaded = pretrained(config.system.backbone, config.weights.encoder)
        start = {part: {"encoder": values} for part, values in loaded.items()}
    if config.weights.flow is not None:
        loaded = _flow_weights(config.system.flow_net, config.weights.flow)
        start.setdefault("params", {})["flow_net"] = loaded["params"]
    return start or None


def _flow_weights(flow_net: str, source: str) -> Variables:
    if source.endswith(".safetensors") or Path(source).is_dir():
        return load_variables(source)[0]
    return (flownets_from_torch if flow_net == "flownets" else pwc_net_from_torch)(read_torch(source))


def _save(config: Config, path: Path, variables: Variables) -> None:
    seen = [folder.name for folder in config.masks.davis] + [" ".join(pair) for pair in config.flow.sets]
    save_model(path, variables, system=config.system_name, config=config.system, half=True, metadata={
        "data": f"{', '.join(seen)} without {', '.join(config.masks.held_out)}" if seen else "synthetic clips",
        "licence": f"as the data: trained on {', '.join(seen)} (DAVIS: non-commercial)" if seen else "Apache-2.0",
        "started_from": dataclasses.asdict(config.weights),
        "command": f"python experiments/segflow.py {' '.join(sys.argv[1:])}",
        **describe_run(),
    })  # fmt: skip


if __name__ == "__main__":
    launch(PRESETS, main)
