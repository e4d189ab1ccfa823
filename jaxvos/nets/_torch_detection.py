"""State dicts of Mask R-CNN, as torchvision and maskrcnn-benchmark save them, as Flax variables."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvos.errors import InputError
from jaxvos.nets._torch_weights import resnet_from_torch

__all__ = ["mask_rcnn_from_torch"]

# names in either layout, without the last part, and where they belong; a lower level has the lower number everywhere
_FPN = re.compile(r"backbone\.fpn\.(?:fpn_)?(inner|layer)(?:_blocks\.)?(\d)(?:\.0)?")
_HEADS = [
    (re.compile(r"rpn\.head\.(conv|cls_logits|bbox_pred)(?:\.0\.0)?"), "rpn"),
    (re.compile(r"roi_heads\.(?:box_head|box_predictor|box\.\w+)\.(fc6|fc7|cls_score|bbox_pred)"), "box_head"),
    (re.compile(r"roi_heads\.(?:mask_head|mask_predictor|mask\.\w+)\.(mask_fcn\d|mask_fcn_logits|conv5_mask)"),
     "mask_head"),
]  # fmt: skip
_NUMBERED_MASK_LAYER = re.compile(r"roi_heads\.mask_head\.(\d)\.0")


def mask_rcnn_from_torch(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Converts a Mask R-CNN on a ResNet with a feature pyramid, for the system `mask_rcnn` of the same shape.

    The layouts are those of torchvision (`maskrcnn_resnet50_fpn`: set `num_classes` 90 and `roi_aligned` False) and of
    maskrcnn-benchmark (COCO: 80). Whoever has such a file must see what its licence allows: none comes with jaxvos.
    maskrcnn-benchmark counts the last pixel of a box once more, which is not undone; of its encoder `resnet_from_torch`
    tells more.

    Args:
      state: as `read_torch` gives it.

    Returns:
      `{"params": ..., "batch_stats": ...}`.

    Raises:
      InputError: an encoder, the pyramid or a head is missing.
    """
    state = {name.removeprefix("module."): value for name, value in state.items()}
    body = resnet_from_torch(state)
    params: dict[str, Any] = {"backbone": body["params"]}
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        place = _place(module)
        if place is not None and leaf in ("weight", "bias"):
            head, layer = place
            node = params.setdefault(head, {}).setdefault(layer, {})
            value = _in_order(layer, value, state)
            node["kernel" if leaf == "weight" else "bias"] = np.ascontiguousarray(value, np.float32)
    missing = {"fpn", "rpn", "box_head", "mask_head"} - set(params)
    if missing:
        raise InputError(f"the weights have no {', '.join(sorted(missing))}: give the state dict of a Mask R-CNN with "
                         "a feature pyramid, from torchvision or maskrcnn-benchmark")  # fmt: skip
    return {"params": params, "batch_stats": {"backbone": body["batch_stats"]}}


def _place(module: str) -> tuple[str, str] | None:
    """The part of the net, and the layer in it, that a module of PyTorch becomes."""
    if found := _FPN.fullmatch(module):
        first = 1 if "fpn_inner" in module or "fpn_layer" in module else 0
        return "fpn", f"{found[1]}_{int(found[2]) - first + 2}"
    if found := _NUMBERED_MASK_LAYER.fullmatch(module):
        return "mask_head", f"mask_fcn{int(found[1]) + 1}"
    return next(((head, found[1]) for pattern, head in _HEADS if (found := pattern.fullmatch(module))), None)


def _in_order(layer: str, value: np.ndarray, state: Mapping[str, np.ndarray]) -> np.ndarray:
    """Brings the axes of a weight into Flax's order."""
    match layer, value.ndim:
        case "conv5_mask", 4:  # a transposed convolution: in, out, y, x
            return value.transpose(2, 3, 0, 1)
        case "fc6", 2:  # its input is a map of channels, flattened: c, y, x there and y, x, c here
            return value.reshape(len(value), *_fc6_input(value, state)).transpose(2, 3, 1, 0).reshape(-1, len(value))
        case _, 4:
            return value.transpose(2, 3, 1, 0)
        case _, 2:
            return value.T
        case _:
            return value


def _fc6_input(weight: np.ndarray, state: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """Channels, rows and columns of what the first dense layer sees."""
    channels = next(len(value) for name, value in state.items() if name.startswith("rpn.head.conv."))
    side = round((weight.shape[1] / channels) ** 0.5)
    return channels, side, side
