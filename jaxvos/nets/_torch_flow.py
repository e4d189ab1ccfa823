"""State dicts of flow networks as Flax variables."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxvos.errors import InputError

__all__ = ["flownets_from_torch", "pwc_net_from_torch"]

_FLOWNETS = (
    *("conv1", "conv2", "conv3", "conv3_1", "conv4", "conv4_1", "conv5", "conv5_1", "conv6", "conv6_1"),
    *(f"deconv{level}" for level in (5, 4, 3, 2)),
    *(f"predict_flow{level}" for level in (6, 5, 4, 3, 2)),
    *(f"upsampled_flow{level}_to_{level - 1}" for level in (6, 5, 4, 3)),
)
_PWC_NET = (
    *(f"conv{level}{part}" for level in range(1, 7) for part in ("a", "aa", "b")),
    *(f"conv{level}_{index}" for level in range(2, 7) for index in range(5)),
    *(f"predict_flow{level}" for level in range(2, 7)),
    *(f"{part}{level}" for part in ("deconv", "upfeat") for level in range(3, 7)),
    *(f"dc_conv{index}" for index in range(1, 8)),
)
_TRANSPOSED = ("deconv", "upfeat", "upsampled")


def flownets_from_torch(
    state: Mapping[str, np.ndarray], *, decoder_bias: bool = False, bgr: bool = False
) -> dict[str, Any]:
    """Converts a FlowNetS: the names are those of the PyTorch port (FlowNetPytorch, MIT), without normalisations.

    The original Caffe weights, which must be renamed so, have biases in the decoder and want BGR; their licence is
    for research alone. None comes with jaxvos.

    Args:
      state: as `read_torch` gives it.
      decoder_bias: what the `FlowNetS` has; biases that are missing become zeros.
      bgr: the weights were trained on BGR images; the first convolution is turned to RGB.

    Returns:
      `{"params": ...}`.

    Raises:
      InputError: layers are missing, or there are normalisations or biases that the net has no place for.
    """
    layers = _layers(state, _FLOWNETS, "FlowNetS")
    if any(name.endswith("running_mean") for name in state):
        raise InputError("these are weights of FlowNetS with batch normalisation: give those of the net without")
    for name, layer in layers.items():
        if name.startswith("conv"):
            continue
        if decoder_bias:
            layer.setdefault("bias", np.zeros(layer["kernel"].shape[-1], np.float32))
        elif "bias" in layer:
            raise InputError(f"{name} has a bias, as Caffe's FlowNetS has: build the net with decoder_bias=True")
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
      `{"params": ...}`.

    Raises:
      InputError: layers are missing.
    """
    layers = _layers(state, _PWC_NET, "PWC-Net")
    layers["conv1a"]["kernel"] = layers["conv1a"]["kernel"][:, :, ::-1]
    return {"params": layers}


def _layers(state: Mapping[str, np.ndarray], names: Iterable[str], net: str) -> dict[str, dict[str, np.ndarray]]:
    """Kernels and biases by layer; convolutions of a `Sequential` are called `NAME.0`."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    plain = {key.removeprefix("module.").replace(".0.", "."): value for key, value in state.items()}
    missing = [name for name in names if f"{name}.weight" not in plain]
    if missing:
        raise InputError(f"the weights lack {len(missing)} layers of {net}, such as {missing[0]}: give its state dict")
    for name in names:
        # transposed convolutions: in, out, y, x; the others: out, in, y, x
        axes = (2, 3, 0, 1) if name.startswith(_TRANSPOSED) else (2, 3, 1, 0)
        layers[name] = {"kernel": np.ascontiguousarray(plain[f"{name}.weight"].transpose(axes), np.float32)}
        if f"{name}.bias" in plain:
            layers[name]["bias"] = np.asarray(plain[f"{name}.bias"], np.float32)
    return layers
