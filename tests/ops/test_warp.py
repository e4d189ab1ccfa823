"""Backward warping against PyTorch's values and gradients, and against pixels that are merely moved."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from jaxvos.ops import warp, warp_coverage

warps = jax.jit(jax.vmap(warp))
warps_nearest = jax.jit(jax.vmap(functools.partial(warp, border="nearest")))
coverages = jax.jit(jax.vmap(warp_coverage))


@pytest.fixture(scope="module", params=["warp_a", "warp_b", "warp_c"])
def golden(golden_dir, request):
    """One case, channels last: `warp_b` is one row high, which PyTorch cannot leave; `warp_c` flows by whole pixels."""
    with np.load(golden_dir / "nets/layers.npz") as layers:
        case = {k.split("/")[1]: np.moveaxis(layers[k], 1, -1) for k in layers if k.startswith(request.param)}
    if request.param == "warp_b":
        case["flow"][..., 1] = 0
    return jax.tree.map(jnp.array, case)


@pytest.mark.data
def test_golden_values(golden):
    x, flow = golden["x"], golden["flow"]
    zeros, coverage = warps(x, flow), coverages(flow)[..., None]
    np.testing.assert_allclose(zeros, golden["zeros"], atol=1e-5)
    np.testing.assert_allclose(coverage, golden["coverage"], atol=1e-5)
    np.testing.assert_allclose(zeros * (coverage >= 0.9999), golden["pwc"], atol=1e-5)
    np.testing.assert_allclose(warps_nearest(x, flow), golden["border"], atol=1e-5)
    assert float(jnp.abs(golden["border"] - golden["zeros"]).max()) > 0.1


@pytest.mark.data
def test_golden_gradients(golden):
    loss = lambda x, flow: jnp.sum(jax.vmap(warp)(x, flow) * golden["cot"])  # noqa: E731
    gradient = jax.jit(jax.grad(loss, (0, 1)))
    to_x, to_flow = gradient(golden["x"], golden["flow"])
    np.testing.assert_allclose(to_x, golden["grad_x"], atol=1e-5)
    axes = [0, 1] if golden["x"].shape[1] > 1 else [0]
    wrong = jnp.abs(to_flow - golden["grad_flow"])[..., axes] > 2e-5
    assert jnp.sum(wrong) <= jnp.all(golden["flow"] == jnp.round(golden["flow"]))
    _, to_the_left = gradient(golden["x"], golden["flow"] - 1e-4)  # a whole pixel has two slopes: PyTorch rounds
    np.testing.assert_allclose(to_the_left[..., axes][wrong], golden["grad_flow"][..., axes][wrong], atol=1e-3)


@pytest.mark.parametrize(("function", "mode"), [(warps, "constant"), (warps_nearest, "nearest")])
def test_values_of_scipy_between_pixels_and_far_outside(key, function, mode):
    x = jax.random.normal(key, (2, 6, 9, 3))
    flow = jax.random.normal(jax.random.key(1), (2, 6, 9, 2)) * jnp.array([6, 4])
    flow = flow.at[0, 0, 0].set(jnp.array([-1e4, 3e6])).at[1, 3, 4].set(jnp.array([0.25, -0.5]))
    rows, columns = np.mgrid[:6, :9]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="constant" if mode == "constant" else "edge")
    for image, vectors, warped in zip(padded, np.asarray(flow), function(x, flow), strict=True):
        at = (rows + vectors[..., 1] + 1, columns + vectors[..., 0] + 1)
        expected = [map_coordinates(image[..., c], at, order=1, mode=mode) for c in range(3)]
        np.testing.assert_allclose(warped, np.stack(expected, -1), atol=1e-5)


def test_whole_pixels_are_fetched_from_where_the_flow_points(key):
    x = jax.random.normal(key, (1, 5, 8, 2))
    flow = jnp.broadcast_to(jnp.array([2.0, -1.0]), (1, 5, 8, 2))  # two to the right, one up
    warped = warps(x, flow)
    np.testing.assert_array_equal(warped[:, 1:, :6], x[:, :4, 2:])
    assert not jnp.any(warped[:, 0]) and not jnp.any(warped[:, :, 6:])
    np.testing.assert_array_equal(warps_nearest(x, flow)[:, 1:, 6:], jnp.repeat(x[:, :4, -1:], 2, axis=2))
    np.testing.assert_array_equal(warps(x, jnp.zeros((1, 5, 8, 2))), x)


def test_coverage_is_the_share_that_lies_within():
    flow = np.zeros((1, 4, 4, 2), np.float32)
    flow[0, 1, 3] = 0.25, 0  # a quarter over the right border
    flow[0, 3, 0] = -0.5, 0.5  # over a corner
    flow[0, 2, 2] = 40, 0
    expected = np.ones((4, 4))
    expected[1, 3], expected[3, 0], expected[2, 2] = 0.75, 0.25, 0
    np.testing.assert_allclose(coverages(jnp.array(flow))[0], expected)


def test_a_batch_is_its_images(key):
    x, flow = jax.random.normal(key, (3, 5, 7, 2)), 2 * jax.random.normal(jax.random.key(1), (3, 5, 7, 2))
    one = jax.jit(warp)
    np.testing.assert_allclose(warps(x, flow), jnp.stack([one(*pair) for pair in zip(x, flow, strict=True)]), atol=1e-6)
