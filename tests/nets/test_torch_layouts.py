"""A ResNet is found in state dicts of detectors and of RVOS, and computes what it did there."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.errors import InputError
from jaxvos.nets import ResNet, resnet_from_torch


def _resnet18(width=2):
    """Torchvision's names, at a small width, without `num_batches_tracked` (as in its first files)."""
    rng, state = np.random.default_rng(0), {}

    def conv(name, out, inside, size):
        state[f"{name}.weight"] = rng.normal(size=(out, inside, size, size)).astype(np.float32)

    def norm(name, channels):
        for leaf, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            state[f"{name}.{leaf}"] = rng.uniform(low, low + 1, size=channels).astype(np.float32)

    conv("conv1", width, 3, 7)
    norm("bn1", width)
    inside = width
    for layer in range(4):
        out = width * 2**layer
        for block in range(2):
            name = f"layer{layer + 1}.{block}"
            conv(f"{name}.conv1", out, inside, 3)
            norm(f"{name}.bn1", out)
            conv(f"{name}.conv2", out, out, 3)
            norm(f"{name}.bn2", out)
            if inside != out:
                conv(f"{name}.downsample.0", out, inside, 1)
                norm(f"{name}.downsample.1", out)
            inside = out
    return state


PLAIN = _resnet18()
EXPECTED = resnet_from_torch(PLAIN)


def _placed(prefix, *, stem="", beside=()):
    state = {prefix + (stem if name.startswith(("conv1", "bn1")) else "") + name: x for name, x in PLAIN.items()}
    return {**{name: np.ones((2, 2), np.float32) for name in beside}, **state}


def _tracked(prefix):
    return {f"{prefix}bn1.num_batches_tracked": np.array(3)}


def _flat(tree, *path):
    if isinstance(tree, dict):
        return {k: v for name, branch in tree.items() for k, v in _flat(branch, *path, name).items()}
    return {"/".join(path): tree}


def _assert_equal(actual, expected):
    actual, expected = _flat(actual), _flat(expected)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


@pytest.mark.parametrize("state", [
    {**PLAIN, "fc.weight": np.ones((5, 16)), "fc.bias": np.ones(5)},
    {**_placed("module."), **_tracked("module.")},
    {**_placed("base.", beside=["sk5.weight", "bn5.weight", "base.fc.weight"]), **_tracked("base.")},
    _placed("module.base.", beside=["module.sk5.weight"]),
    _placed("encoder.base.", beside=["decoder.clstm_list.0.Gates.weight", "encoder.bn5.weight"]),
    _placed("module.encoder.base."),
    {**_placed("backbone.body.", beside=["backbone.fpn.inner_blocks.0.weight"]), **_tracked("backbone.body.")},
], ids=["torchvision", "parallel", "rvos", "rvos-parallel", "dmm", "dmm-parallel", "detector-v2"])  # fmt: skip
def test_the_same_resnet_is_found_in_every_layout(state):
    _assert_equal(resnet_from_torch(state), EXPECTED)


def test_frozen_normalisation_of_detectors_has_no_epsilon():
    state = _placed("backbone.body.", beside=["rpn.head.conv.weight"])
    state["backbone.body.layer2.0.bn1.running_var"] = np.array([1e-8, 1e-6, 0, 1], np.float32)
    actual = resnet_from_torch(state)
    variance = np.float32(1e-5) + actual["batch_stats"]["layer2_0"]["bn1"]["var"]
    np.testing.assert_allclose(variance[[0, 1, 3]], [1e-8, 1e-6, 1], rtol=1e-3)
    assert 0 < variance[2] < 2e-9
    _assert_equal(actual["params"], EXPECTED["params"])


def test_maskrcnn_benchmark_sees_the_same_image_another_way():
    """Its stem on `255 * bgr - mean` is ours on normalised RGB (but at the border, where ours pads with the mean)."""
    state = _placed("module.backbone.body.", stem="stem.", beside=["module.rpn.head.conv.weight"])
    variables = resnet_from_torch(state)
    rgb = np.random.default_rng(1).uniform(size=(1, 24, 24, 3)).astype(np.float32)
    bgr = 255 * rgb[..., ::-1] - np.array([102.9801, 115.9465, 122.7717])
    kernel, norm = PLAIN["conv1.weight"].transpose(2, 3, 1, 0), {k[4:]: PLAIN[k] for k in PLAIN if k.startswith("bn1")}
    windows = np.lib.stride_tricks.sliding_window_view(bgr[0], (7, 7), axis=(0, 1))[1::2, 1::2]  # centres 4, 6, ...
    theirs = np.einsum("yxcij,ijcd->yxd", windows, kernel) - norm["running_mean"]
    theirs = theirs / np.sqrt(norm["running_var"]) * norm["weight"] + norm["bias"]
    net = ResNet(18, 2)
    bound, x = net.bind(variables), (rgb - jnp.array(net.normalization[0])) / jnp.array(net.normalization[1])
    ours = bound.bn1(bound.conv1(x), use_running_average=True)[0, 2:-2, 2:-2]
    np.testing.assert_allclose(ours, theirs[: ours.shape[0], : ours.shape[1]], rtol=1e-4, atol=1e-2)
    rest = {k: v for k, v in _flat(variables["params"]).items() if not k.startswith("conv1")}
    for name, value in rest.items():
        np.testing.assert_array_equal(value, _flat(EXPECTED["params"])[name])


@pytest.mark.parametrize("state", [{"features.0.weight": np.ones((2, 3, 7, 7))}, {}])
def test_an_unknown_layout_is_told_by_its_first_name(state):
    with pytest.raises(InputError, match=next(iter(state), "nothing")):
        resnet_from_torch(state)
