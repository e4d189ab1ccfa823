"""Where arrays live: the state on every device, the batch split between them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxvos.errors import InputError
from jaxvos.system import Clip

__all__ = ["make_mesh", "place", "replicated", "shard_clip"]


def make_mesh() -> Mesh:
    """Returns a mesh of all devices (of all processes) along one axis, `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of the state: a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Puts a copy of a tree on the devices; the copy may be donated and the original lives on."""
    return jax.device_put(jax.tree.map(jnp.array, tree), sharding)


def shard_clip(clip: Clip, mesh: Mesh) -> Clip:
    """Lifts this process's part of a batch to global arrays that are split along the batch.

    Raises:
        InputError: if the batch cannot be split evenly.
    """
    batch, devices = clip.images.shape[0], len(mesh.local_devices)
    if batch % devices:
        raise InputError(f"a batch of {batch} clips does not split over {devices} devices; use a multiple of {devices}")
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), clip)
