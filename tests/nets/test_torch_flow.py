"""Weights of flow networks in PyTorch's layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.errors import InputError
from jaxvos.nets import FlowNetS, PWCNet, flownets_from_torch, pwc_net_from_torch

_TRANSPOSED = ("deconv", "upfeat", "upsampled")
_PLAIN = ("predict_flow", "deconv", "upfeat", "upsampled", "dc_conv7")  # layers that are no `Sequential`


def _torch_names(params, *, sequential_deconv):
    """The state dict that a net's own parameters would have been saved as."""
    state = {}
    for layer, leaves in params.items():
        plain = layer.startswith(_PLAIN) and not (sequential_deconv and layer.startswith("deconv"))
        for kind, leaf in leaves.items():
            axes = (2, 3, 0, 1) if layer.startswith(_TRANSPOSED) else (3, 2, 0, 1)
            value = np.asarray(leaf).transpose(axes) if kind == "kernel" else np.asarray(leaf)
            state[f"{layer}.{'' if plain else '0.'}{'weight' if kind == 'kernel' else 'bias'}"] = value
    return state


def _drawn(net, *channels):
    images = [jax.ShapeDtypeStruct((1, 64, 64, c), jnp.float32) for c in channels]
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *images)["params"]
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)


@pytest.fixture(scope="module")
def flownets():
    return _drawn(FlowNetS(width=2, decoder_bias=True), 6)


@pytest.fixture(scope="module")
def pwc():
    return _drawn(PWCNet(), 3, 3)


def test_flownets_comes_back(flownets):
    state = _torch_names(flownets, sequential_deconv=True)
    assert state["deconv5.0.weight"].shape[:2] == (32, 16) and state["conv1.0.weight"].shape == (2, 6, 7, 7)
    found = flownets_from_torch({f"module.{k}": v for k, v in state.items()}, decoder_bias=True)["params"]
    jax.tree.map(np.testing.assert_array_equal, found, flownets)


def test_biases_of_the_decoder(flownets):
    state = _torch_names(flownets, sequential_deconv=True)
    with pytest.raises(InputError, match="decoder_bias=True"):
        flownets_from_torch(state)
    bare = {k: v for k, v in state.items() if k.startswith("conv") or k.endswith("weight")}
    found = flownets_from_torch(bare, decoder_bias=True)["params"]
    assert not found["deconv5"]["bias"].any() and found["predict_flow6"]["bias"].shape == (2,)
    assert "bias" not in flownets_from_torch(bare)["params"]["deconv5"]


def test_bgr_becomes_rgb(flownets):
    state = _torch_names(flownets, sequential_deconv=True)
    kernel, turned = (flownets_from_torch(state, decoder_bias=True, bgr=bgr)["params"]["conv1"]["kernel"]
                      for bgr in (False, True))  # fmt: skip
    np.testing.assert_array_equal(turned, kernel[:, :, [2, 1, 0, 5, 4, 3]])


def test_pwc_net_comes_back_as_rgb(pwc):
    state = _torch_names(pwc, sequential_deconv=False)
    state["deconv2.weight"], state["deconv2.bias"] = np.zeros((2, 2, 4, 4)), np.zeros(2)  # saved, and never used
    found = pwc_net_from_torch(state)["params"]
    np.testing.assert_array_equal(found["conv1a"]["kernel"], pwc["conv1a"]["kernel"][:, :, ::-1])
    del found["conv1a"], state
    jax.tree.map(np.testing.assert_array_equal, found, {k: v for k, v in pwc.items() if k != "conv1a"})


def test_what_is_no_such_net_is_told(flownets, pwc):
    flownets, pwc = _torch_names(flownets, sequential_deconv=True), _torch_names(pwc, sequential_deconv=False)
    with pytest.raises(InputError, match=r"no weights of PWC-Net .*missing: conv1a\.bias and 101 more"):
        pwc_net_from_torch(flownets)
    with pytest.raises(InputError, match=r"no weights of FlowNetS .*missing: conv1\.bias and"):
        flownets_from_torch(pwc)
    with pytest.raises(InputError, match="batch normalisation"):
        flownets_from_torch(flownets | {"conv1.1.running_mean": np.zeros(2)}, decoder_bias=True)


def test_every_fault_is_counted_in_one_line(flownets):
    state = _torch_names(flownets, sequential_deconv=True)
    del state["conv3.0.bias"]
    state["conv7.0.weight"], state["conv4.0.weight"] = np.zeros((1, 1, 3, 3)), np.zeros((16, 8, 5, 5))
    with pytest.raises(InputError) as told:
        flownets_from_torch(state, decoder_bias=True)
    for fault in ("missing: conv3.bias", "unknown: conv7.weight",
                  "of another shape: conv4.weight (16, 8, 5, 5) instead of (16, 8, 3, 3)"):  # fmt: skip
        assert fault in str(told.value)
    assert "\n" not in str(told.value)
