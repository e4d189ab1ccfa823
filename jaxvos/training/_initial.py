"""Where parameters start when not from scratch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxvos.errors import InputError
from jaxvos.training._checkpoint import load_checkpoint
from jaxvos.training._paths import flatten
from jaxvos.training._sharding import place
from jaxvos.training._state import TrainState
from jaxvos.training._weights import load_weights, match_variables, merge_variables
from jaxvos.typing import Variables

__all__ = ["load_variables", "override_variables", "start_from"]


def load_variables(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads variables, as nested dicts of NumPy arrays, and their metadata.

    Args:
        path: a safetensors file, the folder of a run (its latest checkpoint), or the folder of one checkpoint.

    Raises:
        InputError: if nothing readable is there.
    """
    path = Path(path)
    return load_checkpoint(path) if path.is_dir() else load_weights(path)


def override_variables(base: Variables, part: Variables) -> dict[str, Any]:
    """Replaces leaves of `base` by those of `part`, which may be any part of the same tree.

    Raises:
        InputError: if `part` holds a name that `base` lacks, or another shape.
    """
    names = flatten(part)
    match_variables(part, {name: leaf for name, leaf in flatten(base).items() if name in names})
    return merge_variables(base, part)[0]


def start_from(
    state: TrainState, shardings: TrainState, *, variables: Variables | None, path: Path | None,
    say: Callable[[str], Any],
) -> TrainState:  # fmt: skip
    """Puts other parameters in the place of those that a new state has.

    Args:
        state: before the first update.
        shardings: where each leaf of it lives.
        variables: a part of its tree, or all of it; as it is if None.
        path: weights, or a run's folder; what agrees with the state in name and shape comes from there.
        say: is told in words how much did.

    Raises:
        InputError: as `override_variables`, or if no parameter at `path` agrees.
    """
    if variables is None and path is None:
        return state
    initial = state.variables if variables is None else override_variables(state.variables, variables)
    if path is not None:
        initial, summary = _warm_start(initial, path)
        say(f"starting from {summary}")
    state = state._replace(variables=place(initial, shardings.variables))
    return state if state.average is None else state._replace(average=place(initial["params"], shardings.average))


def _warm_start(base: Variables, path: Path) -> tuple[dict[str, Any], str]:
    """Starts from a file or folder of weights wherever names and shapes agree; also says in words how much did.

    Raises:
        InputError: if no parameter agrees.
    """
    loaded, _ = load_variables(path)
    merged, names = merge_variables(base, loaded)
    params = [name for name in names if name.startswith("params/")]
    if not params:
        raise InputError(f"no parameter in {path} has the name and shape of one of this model's")
    total, offered = len(jax.tree.leaves(base["params"])), len(jax.tree.leaves(loaded.get("params", {})))
    return merged, f"{len(params)} of {total} parameters from {path} ({offered - len(params)} there not used)"
