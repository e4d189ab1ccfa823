"""Where arrays live: the batch is split between devices, the state is copied to each or split as well.

`jax.jit` over a `Mesh` is what `pmap` has become: one program, written for the whole batch, that XLA divides by where
its inputs live. Gradients and BatchNorm's statistics are those of the whole batch, without an axis name in any layer.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jaxvos.errors import InputError
from jaxvos.system import Clip
from jaxvos.training._config import ParallelConfig
from jaxvos.training._state import TrainState

__all__ = ["make_mesh", "on_this_process", "place", "shard_clip", "state_shardings"]


def make_mesh(model: int = 1) -> Mesh:
    """Returns a mesh of all devices of all processes, with the axes `data` and `model`.

    Args:
        model: devices along `model`, which belong to one process.

    Raises:
        InputError: if the devices of a process do not split so.
    """
    here = jax.local_device_count()
    if here % model:
        raise InputError(f"parallel.model {model} does not divide the {here} devices of a process: give a divisor")
    axes = ("data", "model")
    return jax.make_mesh((jax.device_count() // model, model), axes, axis_types=(AxisType.Auto,) * len(axes))


def state_shardings(abstract: TrainState, mesh: Mesh | AbstractMesh, config: ParallelConfig) -> TrainState:
    """Says where each leaf of the state lives.

    A kernel is split along its longest axis that the devices of `model` divide, a moment of the optimizer also along
    the next such axis for those of `data`. What is small, or has no such axis, is copied to all.

    Args:
        abstract: shapes of the state.
        mesh: the devices.
        config: what is split.

    Returns:
        A `NamedSharding` in the place of every leaf.
    """
    split = {"model": mesh.shape["model"]}
    more = {"data": mesh.shape["data"]} if config.split_optimizer else {}
    locate = lambda tree, **axes: jax.tree.map(  # noqa: E731
        lambda leaf: NamedSharding(mesh, _spec(leaf.shape, axes, config.min_split)), tree)  # fmt: skip
    everywhere = locate(abstract)
    return everywhere._replace(
        variables={**everywhere.variables, "params": locate(abstract.variables["params"], **split)},
        opt_state=locate(abstract.opt_state, **split, **more),
        average=locate(abstract.average, **split),
    )


def _spec(shape: tuple[int, ...], axes: dict[str, int], min_split: int) -> PartitionSpec:
    names: list[str | None] = [None] * len(shape)
    for name, count in axes.items() if np.prod(shape) >= min_split else ():
        free = [axis for axis, size in enumerate(shape) if names[axis] is None and size % count == 0]
        if count > 1 and free:
            names[max(free, key=lambda axis: (shape[axis], axis))] = name
    return PartitionSpec(*names)


def place(tree: Any, shardings: Any) -> Any:
    """Puts a copy of a tree on the devices; the copy may be donated and the original lives on.

    Leaves that are spread over several processes stay where they are.
    """

    def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf
        array = np.array(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: np.array(array[index]))

    return jax.tree.map(put, tree, shardings)


def on_this_process(tree: Any) -> Any:
    """Gives arrays that a single process may compute with: with one process the same ones, else copies of its own."""
    if jax.process_count() == 1:
        return tree
    whole = jax.jit(lambda x: x, out_shardings=jax.tree.map(_copied, tree))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), whole)


def _copied(leaf: jax.Array) -> NamedSharding:
    assert isinstance(leaf.sharding, NamedSharding)
    return NamedSharding(leaf.sharding.mesh, PartitionSpec())


def shard_clip(clip: Clip, mesh: Mesh, parts: int = 1) -> Clip:
    """Lifts this process's part of a batch to global arrays that are split along the batch.

    Args:
        clip: NumPy arrays.
        mesh: the devices.
        parts: into which the batch is cut before (`accumulate`).

    Raises:
        InputError: if the batch cannot be split evenly.
    """
    batch, model = clip.images.shape[0], mesh.shape["model"]
    groups = len(mesh.local_devices) // model
    if batch % (groups * parts):
        devices = f"{groups} devices" if model == 1 else f"{groups} groups of {model} devices"
        times = "" if parts == 1 else f", {parts} parts each"
        raise InputError(f"a batch of {batch} clips does not split over {devices}{times}; use a multiple of "
                         f"{groups * parts}")  # fmt: skip
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), clip)
