"""One loop for every system: `fit`, what it needs, and what it leaves behind."""

from jaxvos.training._checkpoint import Checkpoints
from jaxvos.training._compare import Column, Comparison, Row, SeedGroup, compare_runs, running_mean
from jaxvos.training._compare_format import comparison_as_json, format_comparison
from jaxvos.training._config import (
    ExperimentConfig,
    HostsConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainingConfig,
    evolve,
)
from jaxvos.training._fit import Data, Evaluate, fit
from jaxvos.training._initial import load_variables, override_variables
from jaxvos.training._launch import launch, parse
from jaxvos.training._optimizer import make_optimizer
from jaxvos.training._provenance import as_json, describe_run
from jaxvos.training._run import Run, read_runs
from jaxvos.training._state import TrainState, create_state
from jaxvos.training._step import train_step
from jaxvos.training._weights import match_variables, read_shapes, save_variables
from jaxvos.training._writer import read_log

__all__ = [
    "Checkpoints",
    "Column",
    "Comparison",
    "Data",
    "Evaluate",
    "ExperimentConfig",
    "HostsConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "Row",
    "Run",
    "SeedGroup",
    "TrainState",
    "TrainingConfig",
    "as_json",
    "compare_runs",
    "comparison_as_json",
    "create_state",
    "describe_run",
    "evolve",
    "fit",
    "format_comparison",
    "launch",
    "load_variables",
    "make_optimizer",
    "match_variables",
    "override_variables",
    "parse",
    "read_log",
    "read_runs",
    "read_shapes",
    "running_mean",
    "save_variables",
    "train_step",
]
