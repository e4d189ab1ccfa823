"""Checkpoints of a run. The only file that knows Orbax."""

import contextlib
import errno
import functools
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
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

# Without these nothing can be read. Orbax's own mark of success is not among them: its older versions made none.
_PARTS = (
    "_CHECKPOINT_METADATA",
    "metadata/metadata",
    *(f"{item}/{name}" for item in ("variables", "trainer") for name in ("_METADATA", "manifest.ocdbt")),
)
_UNFINISHED = ".orbax-checkpoint-tmp"  # part of the name of every folder that Orbax has not finished
_TRASH = f"old{_UNFINISHED}"


def _handlers() -> dict[str, Any]:
    return {
        "variables": ocp.PyTreeCheckpointHandler(),
        "trainer": ocp.PyTreeCheckpointHandler(),
        "metadata": ocp.JsonCheckpointHandler(),
    }


class Checkpoints:
    """The checkpoints in a folder: the latest few and, if evaluations are ranked, the best.

    A checkpoint becomes visible only when it is whole, and invisible before it is deleted, which is when the next one
    is saved. Saving returns as soon as the state is copied; if it fails later, the next call says so.
    """

    def __init__(self, folder: Path, *, keep: int = 2, best_metric: str | None = None, best_mode: str = "max"):
        policies: list[PreservationPolicy] = [LatestN(keep)]
        rank = None
        if best_metric is not None:
            rank = functools.partial(_rank, name=best_metric, sign=1.0 if best_mode == "max" else -1.0)
            policies.append(BestN(get_metric_fn=rank, n=1, keep_checkpoints_without_metrics=False))
        self._folder = folder.resolve()
        self._best_metric = best_metric
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies),
            best_fn=rank,  # writes the metrics down, so that the best is known after a new start too
            todelete_subdir=_TRASH,
        )

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        """Made at the first use, so that a run that fails before it leaves no folder behind."""
        logging.getLogger("absl").addFilter(_tells_news)
        if jax.process_index() == 0 and self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.is_dir() and (_UNFINISHED in path.name or (_is_step(path) and not _is_whole(path))):
                    shutil.rmtree(path)
        return ocp.CheckpointManager(self._folder, item_handlers=_handlers(), options=self._options)

    def latest_step(self) -> int | None:
        """Returns the step of the latest whole checkpoint, or None."""
        return _latest_step(self._folder)

    def save(
        self, step: int, state: TrainState, metadata: Mapping[str, Any], metrics: Mapping[str, float] | None = None
    ) -> None:
        """Saves a state, the story of the run, and the metric that ranks it if there is one.

        Raises:
            InputError: if the operating system refuses this checkpoint, or refused the one before: a full disk, say.
        """
        if self._best_metric is not None:
            metrics = {self._best_metric: metrics[self._best_metric]} if metrics is not None else {}
        else:
            metrics = None
        items = {
            "variables": ocp.args.PyTreeSave(flatten(state.variables)),
            "trainer": ocp.args.PyTreeSave(_trainer(state)),
            "metadata": ocp.args.JsonSave(dict(metadata)),
        }
        with _saving(self._folder):
            self._manager.wait_until_finished()
            self._empty_trash()
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def restore(self, step: int, abstract: TrainState, shardings: TrainState) -> TrainState:
        """Reads a state onto the devices, whichever it was saved from.

        Args:
            step: which.
            abstract: shapes of the state.
            shardings: where each leaf shall live.

        Raises:
            InputError: if the checkpoint is that of another configuration, naming the first parameter that differs,
                or if it is damaged.
        """
        want = {"variables": flatten(abstract.variables), "trainer": _trainer(abstract)}
        manager, where = self._manager, self._folder / str(step)
        with _reading(where):
            saved = manager.item_metadata(step)
        for item, leaves in want.items():
            _check_same(saved[item].tree, leaves, str(where))

        located = {"variables": flatten(shardings.variables), "trainer": _trainer(shardings)}
        items = {
            item: ocp.args.PyTreeRestore(
                restore_args={name: ocp.ArrayRestoreArgs(sharding=sharding) for name, sharding in leaves.items()}
            )
            for item, leaves in located.items()
        }
        with _reading(where):
            found = manager.restore(step, args=ocp.args.Composite(**items))
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
        """Waits until what was saved is written.

        Raises:
            InputError: if the operating system refuses it.
        """
        if "_manager" in vars(self):
            with _saving(self._folder):
                try:
                    self._manager.wait_until_finished()
                    self._empty_trash()
                finally:
                    self._manager.close()

    def _empty_trash(self) -> None:
        if jax.process_index() == 0 and (self._folder / _TRASH).is_dir():
            shutil.rmtree(self._folder / _TRASH)


def load_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the variables (as NumPy arrays) and the metadata of a run's latest checkpoint, or of one given directly.

    Parameters are their running mean, if the run kept one.

    Args:
        folder: a run's folder, its `checkpoints`, or one of those.

    Raises:
        InputError: if there is no checkpoint, or it is damaged.
    """
    folder = folder.resolve()
    if not (folder / "variables").is_dir():
        folder = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
        folder /= str(_latest_step(folder))
    if not (folder / "variables").is_dir():
        raise InputError(f"{folder.parent} holds no checkpoint")
    with _reading(folder):
        variables = _read(folder / "variables", prefix="")
        mean = _read(folder / "trainer", prefix="average/")
        metadata = dict(_handlers()["metadata"].restore(folder / "metadata"))
    variables |= {name.replace("average", "params", 1): leaf for name, leaf in mean.items()}
    return unflatten(variables), metadata


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
    return max((int(path.name) for path in folder.iterdir() if _is_step(path) and _is_whole(path)), default=None)


def _tells_news(record: logging.LogRecord) -> bool:
    """Not so what Orbax's threads print of an error before the next call raises it."""
    return record.exc_info is None or "orbax" not in record.pathname


def _is_step(path: Path) -> bool:
    return re.fullmatch(r"0|[1-9][0-9]*", path.name) is not None


def _is_whole(checkpoint: Path) -> bool:
    """Whether it has all its parts; one that was not on the disk yet when the machine went off is an empty file."""
    return all((checkpoint / part).is_file() and (checkpoint / part).stat().st_size > 0 for part in _PARTS)


@contextlib.contextmanager
def _saving(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        code = _error_code(error)
        if code is None:
            raise
        raise InputError(
            f"cannot save a checkpoint in {folder}: {os.strerror(code)}; make room there or put it right, then start "
            "again to go on from the last whole checkpoint"
        ) from error


@contextlib.contextmanager
def _reading(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        code = _error_code(error)
        if code not in (None, errno.ENOENT):
            raise InputError(
                f"cannot read {checkpoint}: {os.strerror(code)}; put that right, then start again"
            ) from error
        raise InputError(
            f"{checkpoint} is damaged: a file in it is cut off, missing or not what was written; delete that folder to "
            "go on from the checkpoint before it"
        ) from error


def _error_code(error: Exception) -> int | None:
    """The operating system's number for what went wrong, which TensorStore puts into its messages."""
    if isinstance(error, OSError):
        return error.errno
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return None if code is None else int(code[1])


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
