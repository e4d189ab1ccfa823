"""FlowNetS against PyTorch's values, and what another net adds to it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.nets import FlowNetS, flownets_from_torch

LEVELS = (6, 5, 4, 3, 2)
_WIDTHS = {2: 2, 3: 4, 4: 8, 5: 8, 6: 16}  # channels of the encoder, in those of its first level


def _pair(golden, size):
    images = golden[f"input_{size}_u8"].astype(np.float32) / 255 - np.array([0.45, 0.432, 0.411], np.float32)
    return jnp.concatenate([images[0], images[1]], axis=-1)[None]


@pytest.mark.data
def test_golden_values(golden_dir):
    """A 32nd of the channels, at a size of which every level is odd somewhere."""
    golden = np.load(golden_dir / "nets" / "flownets.npz")
    weights = {name.removeprefix("tiny/w/"): golden[name] for name in golden.files if name.startswith("tiny/w/")}
    found = jax.jit(FlowNetS(width=2).apply)(flownets_from_torch(weights), _pair(golden, "70x90"))
    for level in LEVELS:
        np.testing.assert_allclose(np.moveaxis(found.flows[level], -1, 1), golden[f"tiny/out/flow{level}"], atol=2e-6)
    for level in LEVELS[1:]:
        features = np.moveaxis(found.features[level], -1, 1)
        np.testing.assert_allclose(features, golden[f"tiny/out/concat{level}"], atol=2e-6)


@pytest.mark.data
@pytest.mark.slow
def test_golden_values_of_the_published_width(golden_dir):
    story = json.loads((golden_dir / "nets" / "nets.json").read_text())["flownets"]
    golden, draw, weights = np.load(golden_dir / "nets" / "flownets.npz"), np.random.RandomState(story["seed"]), {}
    for name, shape in story["keys"]:
        transposed = "deconv" in name or "upsampled" in name
        fan = shape[0] * np.prod(shape[2:]) / 4 if transposed else np.prod(shape[1:])
        scale = np.sqrt(2 / fan) if len(shape) > 1 else 0.1
        weights[name] = (draw.standard_normal(shape) * scale).astype(np.float32)
    variables, net = flownets_from_torch(weights), jax.jit(FlowNetS().apply)
    for size in ("64x96", "70x90"):
        found = net(variables, _pair(golden, size))
        for level in LEVELS:
            expected = golden[f"full_{size}_flow{level}"]
            tolerance = 1e-4 * np.abs(expected).max()
            np.testing.assert_allclose(np.moveaxis(found.flows[level], -1, 1), expected, atol=tolerance)


@pytest.mark.parametrize("inject", ["heads", "decoder"])
def test_what_is_injected_counts_once_its_kernels_do(key, inject):
    draw = lambda *shape: jax.random.normal(key, (1, *shape))  # noqa: E731
    levels = {level: draw(64 // 2**level, 64 // 2**level, 2 * _WIDTHS[level]) for level in LEVELS}
    extra = {4: draw(2, 2, 3), 2: draw(9, 9, 5)}
    net = FlowNetS(width=2, injected=(4, 2), inject=inject)
    decode = lambda params, extra: net.apply({"params": params}, levels, extra=extra, method="decode")  # noqa: E731
    params = jax.jit(lambda key: net.init(key, levels, extra=extra, method="decode"))(key)["params"]
    extras = {name: leaves for name, leaves in params.items() if "extra" in name}
    predictors = {"predict_extra_4", "predict_extra_2"}
    assert set(extras) == predictors | ({"deconv_extra_4"} if inject == "decoder" else set())

    def flow2(params):
        output = decode(params, extra)
        return jnp.sum(output.flows[2] ** 2), output

    judge = jax.jit(jax.grad(flow2, has_aux=True))
    gradient, start = judge(params)
    assert all(np.abs(gradient[name]["kernel"]).max() > 0 for name in extras)
    alone = jax.jit(lambda params: FlowNetS(width=2).apply({"params": params}, levels, method="decode"))
    jax.tree.map(np.testing.assert_array_equal, start, alone({k: v for k, v in params.items() if k not in extras}))
    _, changed = judge(params | jax.tree.map(lambda leaf: leaf + 0.1, extras))
    assert all(np.abs(changed.flows[level] - start.flows[level]).max() > 1e-3 for level in (4, 2))
    enlarged = slice(8, 12)  # of the features of level 3: what `deconv3` gives
    same = np.array_equal(changed.features[3][..., enlarged], start.features[3][..., enlarged])
    assert same == (inject == "heads")


def test_the_bias_of_the_decoder_is_an_option():
    pair = jax.ShapeDtypeStruct((1, 64, 64, 6), jnp.float32)
    with_bias, without = (jax.eval_shape(FlowNetS(width=2, decoder_bias=bias).init, jax.random.key(0), pair)["params"]
                          for bias in (True, False))  # fmt: skip
    for name in ("deconv5", "predict_flow2", "upsampled_flow6_to_5"):
        assert "bias" in with_bias[name] and "bias" not in without[name]
