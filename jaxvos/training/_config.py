"""What a training run is told: frozen dataclasses whose field docstrings are the `--help`."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import jax

from jaxvos.errors import InputError

__all__ = ["ExperimentConfig", "HostsConfig", "OptimizerConfig", "ParallelConfig", "TrainingConfig", "evolve"]

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
class ParallelConfig:
    """How a run is laid out on the devices of all processes. The numbers are those of one device, but for the order of
    sums."""

    model: int = 1
    """Devices of one process that share the largest kernels; groups of so many split the batch."""
    split_optimizer: bool = False
    """Split the optimizer's moments over the devices that split the batch, rather than have a copy on each."""
    min_split: int = 2**16
    """Arrays of fewer entries are copied to every device, whatever is split."""

    def __post_init__(self):
        for name in ("model", "min_split"):
            _check(getattr(self, name) >= 1, f"parallel.{name} must be at least 1, not {getattr(self, name)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What `fit` does."""

    num_steps: int = 10_000
    """Updates in all, those before a resume included."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How gradients become updates."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the layers of the net; parameters, running statistics, solvers and losses are float32 either way."""
    accumulate: int = 1
    """Parts of a batch that are computed one after the other; their gradients are averaged before the one update."""
    remat: tuple[str, ...] = ()
    """Regexes of modules, such as `encoder/layer3_.*`, whose inside is not kept for the gradient but computed again."""
    ema: float | None = None
    """Decay of a running mean of the parameters; where there is one it is evaluated, and what a finished run gives."""
    parallel: ParallelConfig = ParallelConfig()
    """How the devices share the work."""
    profile: tuple[int, int] | None = None
    """First and last step that JAX's profiler traces, into the folder `profile` of the run."""
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
        _check(self.ema is None or 0 < self.ema < 1, f"ema must lie between 0 and 1, not {self.ema}")
        _check(self.profile is None or 1 <= self.profile[0] <= self.profile[1],
               f"profile must be a first and a last step, from 1 on, not {self.profile}")  # fmt: skip
        for name in ("num_steps", "accumulate", "log_every", "checkpoint_every", "keep", "eval_every", "patience"):
            value = getattr(self, name)
            _check(value is None or value >= 1, f"{name} must be at least 1, not {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostsConfig:
    """The processes of a run, the same command in each. They see one another's folders, or at least the workdir."""

    coordinator: str | None = None
    """Address of process 0, HOST:PORT; with it, the two numbers below."""
    num_processes: int | None = None
    """Processes in all."""
    process_id: int | None = None
    """Which one this is, from 0."""
    detect: bool = False
    """Take all three from the cluster (Slurm, Open MPI, Kubernetes, Cloud TPU), as JAX finds them."""
    timeout: int = 100
    """Seconds without a sign of life of a process after which the others end, with a message."""

    def __post_init__(self):
        told = [value is not None for value in (self.coordinator, self.num_processes, self.process_id)]
        _check(all(told) or not any(told), "hosts wants coordinator, num_processes and process_id, or none of them")
        _check(not (self.detect and any(told)), "hosts.detect finds what is told beside it: leave one of them out")
        port = (self.coordinator or ":0").rpartition(":")[2]
        _check(port.isdecimal() and ":" in (self.coordinator or ":"),
               f"hosts.coordinator '{self.coordinator}' is no HOST:PORT: give the address of process 0 and a free port")
        if self.num_processes is not None and self.process_id is not None:
            known = 0 <= self.process_id < self.num_processes
            _check(known, f"hosts.process_id {self.process_id} is none of {self.num_processes}: count from 0")
        _check(self.timeout >= 1, f"hosts.timeout must be at least 1 second, not {self.timeout}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """What every experiment has; a script adds its system and its data."""

    workdir: Path | None = None
    """Folder of this run: configuration, log and checkpoints; a run that was stopped goes on from there."""
    training: TrainingConfig = TrainingConfig()
    """Steps, optimizer, log and checkpoints."""
    hosts: HostsConfig = HostsConfig()
    """Where the run has more than one process."""
    compile_cache: Path | None = None
    """Folder where compiled programs are kept, for the next start of the same run."""

    @property
    def results(self) -> Path | None:
        """Folder for what this process writes after training: the workdir, for the first process alone."""
        return self.workdir if jax.process_index() == 0 else None


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
