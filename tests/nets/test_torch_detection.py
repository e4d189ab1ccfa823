"""Names and axes of Mask R-CNN's state dicts, on made-up tensors of either layout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.errors import InputError
from jaxvos.nets import BoxHead, MaskHead, mask_rcnn_from_torch
from jaxvos.system import Clip
from jaxvos.systems import MaskRCNNConfig, mask_rcnn
from jaxvos.training import match_variables

WIDTH, FPN, HIDDEN, CLASSES, SIZE = 2, 3, 5, 4, 2  # classes with the background; cells of a region
EXPANDED = [4 * WIDTH * 2**stage for stage in range(4)]
CONFIG = MaskRCNNConfig(backbone="resnet50", backbone_width=WIDTH, fpn_width=FPN, roi_size=SIZE, box_head_width=HIDDEN,
                        mask_head_width=FPN, mask_head_layers=2, num_classes=CLASSES - 1)  # fmt: skip


def _layer(state, rng, name, *shape):
    state[f"{name}.weight"] = rng.normal(size=shape).astype(np.float32)
    state[f"{name}.bias"] = rng.normal(size=shape[1] if "conv5_mask" in name else shape[0]).astype(np.float32)


def _body(rng, stem):
    """A ResNet-50's names, as short as they come."""
    state = {}

    def conv_norm(conv, norm, *shape):
        state[f"{conv}.weight"] = rng.normal(size=shape).astype(np.float32)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{leaf}"] = rng.random(shape[0]).astype(np.float32) + 0.5

    conv_norm(f"{stem}conv1", f"{stem}bn1", WIDTH, 3, 7, 7)
    inputs = WIDTH
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width, outputs = WIDTH * 2**stage, EXPANDED[stage]
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}."
            shapes = ((width, inputs, 1, 1), (width, width, 3, 3), (outputs, width, 1, 1))
            for i, shape in enumerate(shapes, 1):
                conv_norm(f"{name}conv{i}", f"{name}bn{i}", *shape)
            if block == 0:
                conv_norm(f"{name}downsample.0", f"{name}downsample.1", outputs, inputs, 1, 1)
            inputs = outputs
    return {f"backbone.body.{name}": value for name, value in state.items()}


@functools.cache
def _state(layout):
    """The same tensors under the names of each layout."""
    rng = np.random.default_rng(0)
    ours = layout == "maskrcnn-benchmark"
    state = _body(rng, "stem." if ours else "")
    inner, layer = {
        "torchvision": ("inner_blocks.{}.0", "layer_blocks.{}.0"),
        "old torchvision": ("inner_blocks.{}", "layer_blocks.{}"),
        "maskrcnn-benchmark": ("fpn_inner{}", "fpn_layer{}"),
    }[layout]
    for stage in range(4):
        _layer(state, rng, f"backbone.fpn.{inner.format(stage + ours)}", FPN, EXPANDED[stage], 1, 1)
        _layer(state, rng, f"backbone.fpn.{layer.format(stage + ours)}", FPN, FPN, 3, 3)
    _layer(state, rng, "rpn.head.conv" + (".0.0" if layout == "torchvision" else ""), FPN, FPN, 3, 3)
    _layer(state, rng, "rpn.head.cls_logits", 3, FPN, 1, 1)
    _layer(state, rng, "rpn.head.bbox_pred", 12, FPN, 1, 1)
    extractor, predictor = ("box.feature_extractor", "box.predictor") if ours else ("box_head", "box_predictor")
    _layer(state, rng, f"roi_heads.{extractor}.fc6", HIDDEN, FPN * SIZE * SIZE)
    _layer(state, rng, f"roi_heads.{extractor}.fc7", HIDDEN, HIDDEN)
    _layer(state, rng, f"roi_heads.{predictor}.cls_score", CLASSES, HIDDEN)
    _layer(state, rng, f"roi_heads.{predictor}.bbox_pred", 4 * CLASSES, HIDDEN)
    extractor, predictor = ("mask.feature_extractor", "mask.predictor") if ours else ("mask_head", "mask_predictor")
    for i in range(2):
        name = f"{i}.0" if layout == "torchvision" else f"mask_fcn{i + 1}"
        _layer(state, rng, f"roi_heads.{extractor}.{name}", FPN, FPN, 3, 3)
    _layer(state, rng, f"roi_heads.{predictor}.conv5_mask", FPN, FPN, 2, 2)
    _layer(state, rng, f"roi_heads.{predictor}.mask_fcn_logits", CLASSES, FPN, 1, 1)
    return state


@pytest.mark.parametrize("layout", ["torchvision", "old torchvision", "maskrcnn-benchmark"])
def test_every_leaf_of_the_system_is_filled(layout):
    clip = Clip(jax.ShapeDtypeStruct((1, 1, 64, 64, 3), jnp.float32))
    expected = jax.eval_shape(mask_rcnn(CONFIG).init, jax.random.key(0), clip)
    found = mask_rcnn_from_torch({f"module.{name}": value for name, value in _state(layout).items()})
    match_variables(found, expected)
    same = mask_rcnn_from_torch(_state("torchvision"))["params"]
    for part in ("fpn", "rpn", "box_head", "mask_head"):
        jax.tree.map(np.testing.assert_array_equal, found["params"][part], same[part])


def test_levels_and_weights_are_where_they_belong():
    state = _state("torchvision")
    params = mask_rcnn_from_torch(state)["params"]
    weight = state["backbone.fpn.inner_blocks.3.0.weight"]
    np.testing.assert_array_equal(params["fpn"]["inner_5"]["kernel"][0, 0], weight[..., 0, 0].T)
    np.testing.assert_array_equal(params["fpn"]["layer_2"]["bias"], state["backbone.fpn.layer_blocks.0.0.bias"])
    weight = state["rpn.head.conv.0.0.weight"]
    np.testing.assert_array_equal(params["rpn"]["conv"]["kernel"][2, 0, 1], weight[:, 1, 2, 0])


def test_the_first_dense_layer_reads_a_map_in_torchs_order():
    state, rng = _state("torchvision"), np.random.default_rng(1)
    head = BoxHead(CLASSES, HIDDEN)
    x = rng.normal(size=(6, SIZE, SIZE, FPN)).astype(np.float32)
    y = x.transpose(0, 3, 1, 2).reshape(6, -1)
    for name in ("box_head.fc6", "box_head.fc7"):
        y = np.maximum(y @ state[f"roi_heads.{name}.weight"].T + state[f"roi_heads.{name}.bias"], 0)
    name = "roi_heads.box_predictor.bbox_pred"
    expected = (y @ state[f"{name}.weight"].T + state[f"{name}.bias"]).reshape(6, CLASSES, 4)
    _, deltas = head.apply({"params": mask_rcnn_from_torch(state)["params"]["box_head"]}, jnp.array(x))
    np.testing.assert_allclose(deltas, expected, rtol=1e-3, atol=1e-3)


def test_the_transposed_convolution_is_torchs():
    """out[2 i + a, 2 j + b] = in[i, j] weight[:, :, a, b]."""
    state, rng = _state("torchvision"), np.random.default_rng(1)
    x = rng.normal(size=(1, 2, 3, FPN)).astype(np.float32)
    name = "roi_heads.mask_predictor."
    y = np.zeros((4, 6, FPN), np.float32)
    for i, j, a, b in np.ndindex(2, 3, 2, 2):
        y[2 * i + a, 2 * j + b] = x[0, i, j] @ state[f"{name}conv5_mask.weight"][:, :, a, b]
    y = np.maximum(y + state[f"{name}conv5_mask.bias"], 0)
    expected = y @ state[f"{name}mask_fcn_logits.weight"][..., 0, 0].T + state[f"{name}mask_fcn_logits.bias"]
    params = mask_rcnn_from_torch(state)["params"]["mask_head"]
    masks = MaskHead(CLASSES, FPN, 0).apply({"params": params}, jnp.array(x))
    np.testing.assert_allclose(masks[0], expected, atol=1e-4)


def test_an_encoder_alone_is_refused():
    body = {name: value for name, value in _state("torchvision").items() if name.startswith("backbone.body")}
    with pytest.raises(InputError, match="no box_head, fpn, mask_head, rpn"):
        mask_rcnn_from_torch(body)
