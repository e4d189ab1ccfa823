"""State dicts of flow networks as Flax variables."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvos.errors import InputError
from jaxvos.nets._flownets import FlowNetS
from jaxvos.nets._pwc_net import PWCNet

__all__ = ["describe_fault", "flownets_from_torch", "pwc_net_from_torch"]

_Shapes = dict[str, dict[str, jax.ShapeDtypeStruct]]  # of the parameters, by layer

_TRANSPOSED = ("deconv", "upfeat", "upsampled")


def flownets_from_torch(
    state: Mapping[str, np.ndarray], *, decoder_bias: bool = False, bgr: bool = False
) -> dict[str, Any]:
    """Converts a FlowNetS: the names are those of the PyTorch port (FlowNetPytorch, MIT), without normalisations.

    The original Caffe weights, which must be renamed so, have biases in the decoder and want BGR; their licence is
    for research alone. None comes with jaxvos.

    Args:
      state: as `read_torch` gives it, of any width.
      decoder_bias: what the `FlowNetS` has; biases that are missing become zeros.
      bgr: the weights were trained on BGR images; the first convolution is turned to RGB.

    Returns:
      `{"params": ...}`.

    Raises:
      InputError: tensors are missing, unknown or of another shape, or there are normalisations or biases that the net
        has no place for.
    """
    if any(name.endswith("running_mean") for name in state):
        raise InputError("these are weights of FlowNetS with batch normalisation: give those of the net without")
    tensors = _plain(state)
    width = next(iter(np.shape(tensors.get("conv1.weight", 0))), 64)
    shapes = _flownets_shapes(width, decoder_bias)
    decoder = [f"{name}.bias" for name in shapes if not name.startswith("conv")]
    if decoder_bias:
        tensors = {name: np.zeros(shapes[name.split(".")[0]]["bias"].shape) for name in decoder} | tensors
        surplus = []
    else:
        surplus = [name for name in decoder if tensors.pop(name, None) is not None]
    layers = _layers(tensors, shapes, "FlowNetS")
    if surplus:
        raise InputError(f"there is {surplus[0]}, as in Caffe's FlowNetS: build the net with decoder_bias=True")
    if bgr:
        kernel = layers["conv1"]["kernel"]
        layers["conv1"]["kernel"] = np.concatenate([kernel[:, :, 2::-1], kernel[:, :, :2:-1]], axis=2)
    return {"params": layers}


def pwc_net_from_torch(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Converts the published PyTorch weights of PWC-Net (NVlabs, CC BY-NC-SA 4.0), which do not come with jaxvos.

    They want BGR: the first convolution is turned to RGB. `deconv2`, which the published forward pass does not use, is
    left out.

    Args:
      state: as `read_torch` gives it.

    Returns:
      `{"params": ...}`, for `PWCNet` as it is by default.

    Raises:
      InputError: tensors are missing, unknown or of another shape.
    """
    tensors = {name: value for name, value in _plain(state).items() if not name.startswith("deconv2.")}
    layers = _layers(tensors, _pwc_net_shapes(), "PWC-Net")
    layers["conv1a"]["kernel"] = np.ascontiguousarray(layers["conv1a"]["kernel"][:, :, ::-1])
    return {"params": layers}


@functools.cache
def _flownets_shapes(width: int, decoder_bias: bool) -> _Shapes:
    pair = jax.ShapeDtypeStruct((1, 64, 64, 6), jnp.float32)
    return jax.eval_shape(FlowNetS(width, decoder_bias=decoder_bias).init, jax.random.key(0), pair)["params"]


@functools.cache
def _pwc_net_shapes() -> _Shapes:
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return jax.eval_shape(PWCNet().init, jax.random.key(0), image, image)["params"]


def _plain(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names without the data-parallel prefix; the convolution of a `Sequential` is called `NAME.0`."""
    return {name.removeprefix("module.").replace(".0.", "."): value for name, value in state.items()}


def _layers(tensors: Mapping[str, np.ndarray], shapes: _Shapes, net: str) -> dict[str, dict[str, np.ndarray]]:
    """Kernels and biases by layer, each with its axes in Flax's order."""
    places = {f"{layer}.{'weight' if leaf == 'kernel' else leaf}": (layer, leaf, _torch_shape(layer, shape.shape))
              for layer, leaves in shapes.items() for leaf, shape in leaves.items()}  # fmt: skip
    found = {name: np.shape(value) for name, value in tensors.items()}
    wrong = (f"{name} {found[name]} instead of {shape}" for name, (_, _, shape) in places.items()
             if found.get(name, shape) != shape)  # fmt: skip
    faults = [*describe_fault("missing", (name for name in places if name not in tensors)),
              *describe_fault("unknown", (name for name in tensors if name not in places)),
              *describe_fault("of another shape", wrong)]  # fmt: skip
    if faults:
        raise InputError(f"these are no weights of {net} ({'; '.join(faults)}): give its state dict")
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, (layer, leaf, _) in places.items():
        value = np.asarray(tensors[name])
        if leaf == "kernel":
            value = value.transpose((2, 3, 0, 1) if layer.startswith(_TRANSPOSED) else (2, 3, 1, 0))
        layers.setdefault(layer, {})[leaf] = np.ascontiguousarray(value, np.float32)
    return layers


def _torch_shape(layer: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a kernel in PyTorch: in, out, y, x where it is transposed, and else out, in, y, x."""
    if len(shape) < 4:
        return shape
    y, x, c, d = shape
    return (c, d, y, x) if layer.startswith(_TRANSPOSED) else (d, c, y, x)


def describe_fault(kind: str, names: Iterable[str]) -> list[str]:
    """The first name and how many more, in words; nothing if there are none."""
    found = list(names)
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return [f"{kind}: {found[0]}{more}"] if found else []
