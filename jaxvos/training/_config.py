"""What a training run is told: frozen dataclasses whose field docstrings are the `--help`."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from jaxvos.errors import InputError

__all__ = ["ExperimentConfig", "OptimizerConfig", "TrainingConfig", "evolve"]

_ConfigT = TypeVar("_ConfigT")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How gradients become updates. Paths are like `encoder/conv1/kernel`; a regex matches a path or a folder of it."""

    name: Literal["adam", "sgd"] = "adam"
    """The rule: Adam, or stochastic gradient descent with momentum."""
    lr: float = 1e-3
    """Learning rate of every parameter that no group names."""
    groups: tuple[tuple[str, float], ...] = ()
    """Learning rates of parts, as pairs of a regex over parameter paths and a rate; the first match counts."""
    b1: float = 0.9
    """Decay of the first moment (Adam), or the momentum (SGD)."""
    b2: float = 0.999
    """Decay of the second moment (Adam only)."""
    weight_decay: float = 1e-5
    """Weight decay, of every trained parameter."""
    decoupled: bool = False
    """Decay the weights directly (AdamW) rather than through the gradient (an L2 penalty, as PyTorch's Adam)."""
    schedule: Literal["constant", "poly", "cosine", "thirds"] = "constant"
    """What happens to all learning rates over `num_steps`: nothing, (1 - t)^0.9, half a cosine down to zero, or they
    are halved after each third."""
    warmup_steps: int = 0
    """Steps over which all learning rates first rise linearly."""
    clip_norm: float | None = None
    """Largest global norm of the gradient; larger ones are scaled down to it."""
    frozen: tuple[str, ...] = ()
    """Regexes of what stays as it is: parameters, and the running statistics of the modules matched."""

    def __post_init__(self):
        _check(self.lr > 0, f"lr must be positive, not {self.lr}")
        _check(all(lr >= 0 for _, lr in self.groups), f"a group's learning rate must not be negative: {self.groups}")
        _check(0 <= self.b1 < 1 and 0 <= self.b2 < 1, f"b1 and b2 must lie in [0, 1), not {self.b1} and {self.b2}")
        _check(self.weight_decay >= 0, f"weight_decay must not be negative, not {self.weight_decay}")
        _check(self.warmup_steps >= 0, f"warmup_steps must not be negative, not {self.warmup_steps}")
        _check(self.clip_norm is None or self.clip_norm > 0, f"clip_norm must be positive, not {self.clip_norm}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What `fit` does."""

    num_steps: int = 10_000
    """Updates in all, those before a resume included."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How gradients become updates."""
    seed: int = 0
    """Seed of the initial parameters and of all randomness inside the loss."""
    init_from: Path | None = None
    """Weights (.safetensors) or a run's folder; parameters of the same name and shape start from there."""
    log_every: int = 50
    """Steps between lines of the log; a line holds means since the line before."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    keep: int = 2
    """How many of the latest checkpoints are kept."""
    eval_every: int | None = None
    """Steps between evaluations, beside the one at the end."""
    best_metric: str | None = None
    """Metric of the evaluation whose best checkpoint is kept as well."""
    best_mode: Literal["max", "min"] = "max"
    """Whether the best is the highest or the lowest."""
    patience: int | None = None
    """Evaluations without a better `best_metric` after which training ends, with the best variables; after a resume
    they are counted anew."""
    min_delta: float = 0.0
    """By how much it must be better to count as such."""

    def __post_init__(self):
        _check(self.patience is None or (self.best_metric is not None and self.eval_every is not None),
               "patience needs evaluations and their best_metric: set eval_every and best_metric")  # fmt: skip
        for name in ("num_steps", "log_every", "checkpoint_every", "keep", "eval_every", "patience"):
            value = getattr(self, name)
            _check(value is None or value >= 1, f"{name} must be at least 1, not {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """What every experiment has; a script adds its system and its data."""

    workdir: Path | None = None
    """Folder of this run: configuration, log and checkpoints; a run that was stopped goes on from there."""
    training: TrainingConfig = TrainingConfig()
    """Steps, optimizer, log and checkpoints."""


def evolve(config: _ConfigT, **changes: Any) -> _ConfigT:
    """Returns a copy with some fields changed; a dict given for a nested config changes fields of that one.

    Example:
        `evolve(BASE, training={"num_steps": 2, "optimizer": {"lr": 3e-4}})`
    """
    for name, change in changes.items():
        current = getattr(config, name)
        if dataclasses.is_dataclass(current) and isinstance(change, dict):
            changes[name] = evolve(current, **change)
    return cast(_ConfigT, dataclasses.replace(cast(Any, config), **changes))
