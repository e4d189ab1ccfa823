"""Checkpoints of a run. The only file that knows Orbax."""

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN, PreservationPolicy

from jaxvos.errors import InputError
from jaxvos.training._paths import flatten, unflatten
from jaxvos.training._state import TrainState

__all__ = ["Checkpoints", "load_checkpoint", "load_story"]


def _handlers() -> dict[str, Any]:
    return {
        "variables": ocp.PyTreeCheckpointHandler(),
        "trainer": ocp.PyTreeCheckpointHandler(),
        "metadata": ocp.JsonCheckpointHandler(),
    }


class Checkpoints:
    """The checkpoints in a folder: the latest few and, if evaluations are ranked, the best.

    A checkpoint becomes visible only when it is whole. Saving returns as soon as the state is copied.
    """

    def __init__(self, folder: Path, *, keep: int = 2, best_metric: str | None = None, best_mode: str = "max"):
        policies: list[PreservationPolicy] = [LatestN(keep)]
        if best_metric is not None:
            rank = functools.partial(_rank, name=best_metric, sign=1.0 if best_mode == "max" else -1.0)
            policies.append(BestN(get_metric_fn=rank, n=1, keep_checkpoints_without_metrics=False))
        self._folder = folder.resolve()
        self._best_metric = best_metric
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies), cleanup_tmp_directories=True
        )

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        """Made at the first use, so that a run that fails before it leaves no folder behind."""
        return ocp.CheckpointManager(self._folder, item_handlers=_handlers(), options=self._options)

    def latest_step(self) -> int | None:
        """Returns the step of the latest whole checkpoint, or None."""
        return _latest_step(self._folder)

    def save(
        self, step: int, state: TrainState, metadata: Mapping[str, Any], metrics: Mapping[str, float] | None = None
    ) -> None:
        """Saves a state, the story of the run, and the metric that ranks it if there is one."""
        if metrics is not None and self._best_metric is not None:
            metrics = {self._best_metric: metrics[self._best_metric]}
        else:
            metrics = None
        items = {
            "variables": ocp.args.PyTreeSave(flatten(state.variables)),
            "trainer": ocp.args.PyTreeSave(_trainer(state)),
            "metadata": ocp.args.JsonSave(dict(metadata)),
        }
        self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def restore(self, step: int, abstract: TrainState, shardings: TrainState) -> TrainState:
        """Reads a state onto the devices, whichever it was saved from.

        Args:
            step: which.
            abstract: shapes of the state.
            shardings: where each leaf shall live.

        Raises:
            InputError: if the checkpoint is that of another configuration, naming the first parameter that differs.
        """
        want = {"variables": flatten(abstract.variables), "trainer": _trainer(abstract)}
        saved = self._manager.item_metadata(step)
        for item, leaves in want.items():
            _check_same(saved[item].tree, leaves, f"{self._folder}/{step}")

        located = {"variables": flatten(shardings.variables), "trainer": _trainer(shardings)}
        items = {
            item: ocp.args.PyTreeRestore(
                restore_args={name: ocp.ArrayRestoreArgs(sharding=sharding) for name, sharding in leaves.items()}
            )
            for item, leaves in located.items()
        }
        found = self._manager.restore(step, args=ocp.args.Composite(**items))
        variables = [found["variables"][name] for name in want["variables"]]
        trainer = found["trainer"]
        rest = {
            part: jax.tree.unflatten(jax.tree.structure(tree), [trainer[f"{part}/{name}"] for name in flatten(tree)])
            for part, tree in (("opt_state", abstract.opt_state), ("average", abstract.average))
        }
        return TrainState(
            step=trainer["step"],
            variables=jax.tree.unflatten(jax.tree.structure(abstract.variables), variables),
            key=jax.random.wrap_key_data(trainer["key"]),
            **rest,
        )

    def close(self) -> None:
        """Waits until what was saved is written."""
        if "_manager" in vars(self):
            self._manager.wait_until_finished()
            self._manager.close()


def load_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the variables (as NumPy arrays) and the metadata of a run's latest checkpoint, or of one given directly.

    Parameters are their running mean, if the run kept one.

    Args:
        folder: a run's folder, its `checkpoints`, or one of those.

    Raises:
        InputError: if there is no checkpoint.
    """
    folder = folder.resolve()
    if not (folder / "variables").is_dir():
        folder = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
        folder /= str(_latest_step(folder))
    if not (folder / "variables").is_dir():
        raise InputError(f"{folder.parent} holds no checkpoint")
    variables = _read(folder / "variables", prefix="")
    mean = _read(folder / "trainer", prefix="average/")
    variables |= {name.replace("average", "params", 1): leaf for name, leaf in mean.items()}
    return unflatten(variables), dict(_handlers()["metadata"].restore(folder / "metadata"))


def _read(folder: Path, *, prefix: str) -> dict[str, Any]:
    """The leaves whose names begin so, as NumPy arrays."""
    handler: Any = ocp.PyTreeCheckpointHandler()
    leaves = {name: leaf for name, leaf in handler.metadata(folder).tree.items() if name.startswith(prefix)}
    if not leaves:
        return {}
    as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in leaves}
    return handler.restore(folder, args=ocp.args.PyTreeRestore(leaves, restore_args=as_numpy, partial_restore=True))


def load_story(workdir: Path) -> dict[str, Any]:
    """Reads the metadata of a run's latest checkpoint; of a run without one there are none."""
    folder = (workdir / "checkpoints").resolve()
    step = _latest_step(folder)
    return {} if step is None else dict(_handlers()["metadata"].restore(folder / str(step) / "metadata"))


def _latest_step(folder: Path) -> int | None:
    if not folder.is_dir():
        return None
    found = ocp.path.step.standard_name_format().find_all(folder.resolve())
    return max((checkpoint.step for checkpoint in found), default=None)


def _trainer(state: TrainState) -> dict[str, Any]:
    """All but the variables, with flat names; an abstract state, or one of shardings, gives such an answer."""
    key = state.key
    if isinstance(key, jax.ShapeDtypeStruct):
        key = jax.eval_shape(jax.random.key_data, key)
    elif isinstance(key, jax.Array):
        key = jax.random.key_data(key)
    return {"step": state.step, "key": key, **flatten({"opt_state": state.opt_state, "average": state.average})}


def _rank(metrics: Mapping[str, float], *, name: str, sign: float) -> float:
    value = sign * metrics.get(name, math.nan)
    return -math.inf if math.isnan(value) else value


def _check_same(saved: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    names = [*expected, *(name for name in saved if name not in expected)]
    for name in sorted(names, key=lambda name: not name.startswith("params/")):
        have, want = (
            f"{leaves[name].dtype}{list(leaves[name].shape)}" if name in leaves else "absent"
            for leaves in (saved, expected)
        )
        if have != want:
            raise InputError(f"{where} is of another configuration: {name} is {have} there and {want} here")
