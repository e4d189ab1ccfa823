"""Variables as a safetensors file with flat names, such as `params/encoder/conv1/kernel`."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxvos.errors import InputError
from jaxvos.files import atomic_path
from jaxvos.training._paths import flatten, unflatten
from jaxvos.typing import Variables

__all__ = ["load_weights", "match_variables", "merge_variables", "read_shapes", "save_variables"]


def save_variables(
    path: Path | str,
    variables: Variables,
    metadata: Mapping[str, Any] | None = None,
    *,
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Writes variables and their story to a safetensors file, whole or not at all.

    Args:
        path: the file.
        variables: nested dicts of arrays.
        metadata: anything that JSON can hold.
        dtype: how floating-point arrays are stored; one that float16 cannot hold stays float32.
    """
    from safetensors.numpy import save

    story = {"metadata": json.dumps(dict(metadata or {}))}
    arrays = {name: _stored(np.asarray(leaf), dtype) for name, leaf in flatten(variables).items()}
    with atomic_path(path) as partial:
        partial.write_bytes(save(arrays, metadata=story))


def load_weights(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads what `save_variables` wrote: nested dicts of NumPy arrays (float16 as float32), and the metadata.

    Raises:
        InputError: if there is no such file, or it is not a safetensors file.
    """
    with _opened(path) as file:
        metadata = _metadata(file)
        flat = {name: file.get_tensor(name) for name in file.keys()}
    half = np.dtype(np.float16)
    return unflatten({name: x.astype(np.float32) if x.dtype == half else x for name, x in flat.items()}), metadata


def read_shapes(path: Path | str) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Reads the header alone of what `save_variables` wrote: the shape of each flat name, and the metadata.

    Raises:
        InputError: as `load_weights`.
    """
    with _opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, _metadata(file)


def match_variables(variables: Variables, expected: Variables) -> None:
    """Checks that variables have the names and shapes of a model's (abstract ones will do).

    Raises:
        InputError: naming the first that is missing, of another shape, or unknown.
    """
    have, want = _shapes(variables), _shapes(expected)
    for name, shape in want.items():
        if name not in have:
            raise InputError(f"the weights lack {name} {shape}: they belong to another model")
        if have[name] != shape:
            raise InputError(f"{name} has shape {have[name]} in the weights and {shape} in the model")
    for name in have:
        if name not in want:
            raise InputError(f"the weights hold {name}, which the model lacks: they belong to another model")


def merge_variables(base: Variables, part: Variables) -> tuple[dict[str, Any], list[str]]:
    """Replaces the leaves of `base` that `part` has too, by name and shape; also returns the names replaced."""
    old, new = flatten(base), flatten(part)
    names = [name for name, leaf in old.items() if name in new and np.shape(new[name]) == np.shape(leaf)]
    leaves = [new[name].astype(leaf.dtype) if name in names else leaf for name, leaf in old.items()]
    return jax.tree.unflatten(jax.tree.structure(base), leaves), names


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(f"{path} does not exist")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file: {error}") from error


def _metadata(file: Any) -> dict[str, Any]:
    return json.loads((file.metadata() or {}).get("metadata", "{}"))


def _shapes(tree: Variables) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in flatten(tree).items()}


def _stored(array: np.ndarray, dtype: str) -> np.ndarray:
    array = np.ascontiguousarray(array) if array.ndim else array
    if array.dtype.kind in "iub":
        return array
    array = array.astype(np.float32)
    fits = np.all(np.abs(array) <= np.finfo(np.float16).max)
    return array.astype(np.float16) if dtype == "float16" and fits else array
