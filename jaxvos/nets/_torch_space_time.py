"""State dicts of STCN and XMem, in the layout that their authors publish (MIT licence), as Flax variables."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvos.errors import InputError
from jaxvos.nets._torch_flow import describe_fault
from jaxvos.nets._torch_weights import as_variables

__all__ = ["stcn_from_torch", "xmem_from_torch"]

_NORM = ("weight", "bias", "running_mean", "running_var")
_STCN = {  # modules there, and where they are here; of two that fit a name the longer one counts
    "key_encoder": "encoder",
    "key_proj": "",
    "key_comp": "key_comp",
    "value_encoder": "value.encoder",
    "value_encoder.fuser": "value.fuser",
    "decoder": "decoder",
    "decoder.compress": "compress",
}
_XMEM = {
    "key_encoder": "encoder",
    "key_proj": "",
    "value_encoder": "value.encoder",
    "value_encoder.fuser": "value.fuser",
    "value_encoder.hidden_reinforce": "deep_update",
    "decoder": "decoder",
    "decoder.fuser": "fuse",
    "decoder.hidden_update": "",
    "decoder.hidden_update.transform": "update.transform",
}
_LAYERS = (
    (re.compile(r"\bres2\b"), "layer1"),
    (re.compile(r"\b(layer\d)\.(\d)"), r"\1_\2"),
    (re.compile(r"\bdownsample\.(\d)"), r"downsample_\1"),
    (re.compile(r"\bChannelGate\.mlp\.(\d)"), r"mlp_\1"),
    (re.compile(r"\bSpatialGate\.spatial\.conv\b"), "spatial"),
)


def stcn_from_torch(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Converts a published STCN (github hkchengrex/STCN), for the system `stcn` of the same widths.

    The convolutions of its value encoder have biases, each before a normalisation: they move into that one's mean. A
    single-object net, as stage 0 leaves it, has no channel for the masks of others: it gets one of zeros, as it does
    where its authors evaluate it. An early one without attention wants `STCNConfig(attention=False)`.

    Args:
      state: as `read_torch` gives it.

    Returns:
      `{"params": ..., "batch_stats": ...}`.

    Raises:
      InputError: a tensor is missing or unknown, or the value encoder has other inputs.
    """
    tensors = _plain(state)
    attention = any(".attention." in name for name in tensors)
    names = [
        *_key_encoder(), *_value_encoder(biased=True), *_fusion("value_encoder.fuser", attention),
        *_layers("key_proj.key_proj", "key_comp"), *_block("decoder.compress"), *_decoder(),
    ]  # fmt: skip
    return _converted(tensors, names, _STCN, "STCN")


def xmem_from_torch(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Converts a published XMem (github hkchengrex/XMem), for the system `xmem` of the same widths.

    A single-object net gets a channel of zeros for the masks of others.

    Args:
      state: as `read_torch` gives it.

    Returns:
      `{"params": ..., "batch_stats": ...}`.

    Raises:
      InputError: a tensor is missing or unknown, or the value encoder has other inputs.
    """
    updates = (f"decoder.hidden_update.{layer}" for layer in ("g16_conv", "g8_conv", "g4_conv", "transform"))
    names = [
        *_key_encoder(), *_value_encoder(biased=False),
        *_fusion("value_encoder.fuser", attention=True), *_fusion("decoder.fuser", attention=True),
        *_layers("key_proj.key_proj", "key_proj.d_proj", "key_proj.e_proj", "value_encoder.hidden_reinforce.transform"),
        *_layers(*updates), *_decoder(),
    ]  # fmt: skip
    return _converted(_plain(state), names, _XMEM, "XMem")


# ---- what a state dict holds ---------------------------------------------------------------------------------------
def _plain(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the data-parallel prefix, and without counts of training steps."""
    named = {name.removeprefix("module."): value for name, value in state.items()}
    return {name: value for name, value in named.items() if not name.endswith("num_batches_tracked")}


def _layers(*modules: str) -> list[str]:
    """Of layers with biases."""
    return [f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")]


def _key_encoder() -> list[str]:
    return _resnet("key_encoder", {"res2": 3, "layer2": 4, "layer3": 6}, depth=3, biased=False)


def _value_encoder(*, biased: bool) -> list[str]:
    return _resnet("value_encoder", {"layer1": 2, "layer2": 2, "layer3": 2}, depth=2, biased=biased)


def _resnet(module: str, stages: dict[str, int], *, depth: int, biased: bool) -> list[str]:
    """Of a ResNet up to stride 16, with blocks of `depth` convolutions."""
    pairs = [("conv1", "bn1")]
    for i, (stage, blocks) in enumerate(stages.items()):
        for block in (f"{stage}.{number}" for number in range(blocks)):
            pairs += [(f"{block}.conv{number}", f"{block}.bn{number}") for number in range(1, depth + 1)]
            if block.endswith(".0") and (i > 0 or depth == 3):
                pairs.append((f"{block}.downsample.0", f"{block}.downsample.1"))
    leaves = ("weight", "bias") if biased else ("weight",)
    return [f"{module}.{layer}.{leaf}" for conv, norm in pairs
            for layer, kinds in ((conv, leaves), (norm, _NORM)) for leaf in kinds]  # fmt: skip


def _block(module: str, *, wider: bool = True) -> list[str]:
    """Of a residual block without normalisations."""
    return _layers(*(f"{module}.{layer}" for layer in ("conv1", "conv2", *(["downsample"] if wider else []))))


def _fusion(module: str, attention: bool) -> list[str]:
    gates = (f"{module}.attention.{gate}" for gate in ("ChannelGate.mlp.1", "ChannelGate.mlp.3",
                                                       "SpatialGate.spatial.conv"))  # fmt: skip
    return [*_block(f"{module}.block1"), *(_layers(*gates) if attention else ()),
            *_block(f"{module}.block2", wider=False)]  # fmt: skip


def _decoder() -> list[str]:
    return [*_layers("decoder.up_16_8.skip_conv", "decoder.up_8_4.skip_conv", "decoder.pred"),
            *_block("decoder.up_16_8.out_conv"), *_block("decoder.up_8_4.out_conv", wider=False)]  # fmt: skip


# ---- where it belongs ----------------------------------------------------------------------------------------------
def _converted(
    tensors: dict[str, np.ndarray], names: list[str], places: Mapping[str, str], net: str
) -> dict[str, Any]:
    faults = [*describe_fault("missing", (name for name in names if name not in tensors)),
              *describe_fault("unknown", sorted(tensors.keys() - set(names)))]  # fmt: skip
    if faults:
        raise InputError(f"these are no weights of {net} ({'; '.join(faults)}): give the state dict of a published one")
    tensors = _without_biases(tensors)
    first = tensors["value_encoder.conv1.weight"]
    if first.shape[1] not in (4, 5):
        raise InputError(f"value_encoder.conv1.weight of {net} has {first.shape[1]} input channels: want 5, an image "
                         "and the masks of an object and of others, or 4 without the last")  # fmt: skip
    masks = np.zeros((len(first), 2, *first.shape[2:]), first.dtype)
    masks[:, : first.shape[1] - 3] = first[:, 3:]
    tensors = {**tensors, "value_encoder.conv1.weight": first[:, :3]}
    paths = {name: _path(name, places) for name in tensors} | {"mask_conv": ["value", "mask_conv", "weight"]}
    return as_variables({**tensors, "mask_conv": masks}, paths.items())


def _without_biases(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Moves the bias of a convolution before a normalisation into the mean that this one takes off."""
    tensors = dict(tensors)
    for module in [name.removesuffix(".bias") for name in tensors if name.endswith(".bias")]:
        norm = module.replace("conv", "bn").replace("downsample.0", "downsample.1")
        mean = f"{norm}.running_mean"
        if norm != module and mean in tensors:
            tensors[mean] = tensors[mean] - tensors.pop(f"{module}.bias")
    return tensors


def _path(name: str, places: Mapping[str, str]) -> list[str]:
    module = max((module for module in places if name.startswith(f"{module}.")), key=len)
    place = places[module] + name.removeprefix(module)
    for pattern, layer in _LAYERS:
        place = pattern.sub(layer, place)
    return place.strip(".").split(".")
