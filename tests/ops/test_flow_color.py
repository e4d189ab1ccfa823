"""Flow colours equal those of the field's common tool, and are defined for every input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvos.ops._flow_color import _WHEEL, flow_to_color

_paint = jax.jit(flow_to_color, static_argnames="max_radius")


def _levels(colors) -> np.ndarray:
    return np.floor(255 * np.asarray(colors, np.float64) + 1e-4).astype(int)


def test_no_motion_is_white():
    assert np.array_equal(flow_to_color(jnp.zeros((4, 5, 2))), np.ones((4, 5, 3)))


def test_directions():
    flow = jnp.array([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]])
    right, down, left, up = np.asarray(flow_to_color(flow))[0]
    np.testing.assert_allclose(right, [1, 0, 0], atol=2e-5)
    assert down[0] > 0.9 and down[1] > 0.8 and down[2] < 0.1  # yellow
    assert left[0] < 0.1 and left[1] > 0.7 and left[2] > 0.9  # cyan to blue
    assert up[0] > 0.3 and up[1] < 0.1 and up[2] > 0.9  # violet


def test_a_fixed_radius_compares_frames_and_darkens_what_is_faster():
    slow, fast = (flow_to_color(jnp.full((1, 1, 2), v), max_radius=8.0) for v in (1.0, 100.0))
    assert slow.min() > 0.7  # nearly white
    assert fast.max() == pytest.approx(0.75)
    assert flow_to_color(jnp.full((1, 1, 2), 1.0)).min() < 0.1  # by its own maximum it is in full colour


def test_unknown_vectors_are_no_motion():
    flow = np.ones((2, 3, 2), np.float32)
    for i, value in enumerate((np.nan, np.inf, -np.inf, 1.666e9, -1e10)):
        flow[i % 2, i // 2, i % 2] = value
    colors = np.asarray(flow_to_color(jnp.asarray(flow)))
    assert np.isfinite(colors).all()
    assert np.array_equal(colors[:, :2], np.ones((2, 2, 3))) and np.array_equal(colors[0, 2], np.ones(3))
    assert colors[1, 2].min() < 0.1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_range_type_and_transformations(key, dtype):
    flow = (30 * jax.random.normal(key, (3, 6, 7, 2))).astype(dtype)
    for radius in (None, 5.0):
        colors = jax.jit(jax.vmap(lambda f, r=radius: flow_to_color(f, max_radius=r)))(flow)
        assert colors.shape == (3, 6, 7, 3) and colors.dtype == jnp.float32
        assert 0 <= colors.min() and colors.max() <= 1
        np.testing.assert_allclose(colors[1], flow_to_color(flow[1], max_radius=radius), atol=1e-5)


@pytest.mark.data
def test_golden_wheel(golden_dir):
    golden = np.load(golden_dir / "flow/crops.npz")
    assert np.array_equal(np.rint(255 * _WHEEL), golden["colorwheel_55x3"])
    colors = _paint(jnp.asarray(golden["wheel_uv"], jnp.float32), max_radius=1.0 - 1e-5)
    expected = np.array(Image.open(golden_dir / "flow/color_wheel_grid_unnormalised.png"), int)
    edge = np.abs(np.linalg.norm(golden["wheel_uv"], axis=-1) - 1) < 1e-6  # at radius 1 rounding decides on darkening
    assert np.abs(_levels(colors) - expected)[~edge].max() <= 1


@pytest.mark.data
@pytest.mark.parametrize("name", ["Dimetrodon", "Grove2", "RubberWhale", "Venus"])
@pytest.mark.parametrize("kind", ["gt", "dis"])
def test_golden_fields(golden_dir, name, kind):
    golden = np.load(golden_dir / "flow/crops.npz")
    flow = golden[f"{name}_{kind}_q"].astype(np.float32) / 256
    flow[~golden[f"{name}_valid"]] = np.nan
    for suffix, radius in (("auto", None), ("radius8", 8.0)):
        expected = np.array(Image.open(golden_dir / f"flow/color_{name}_{kind}_{suffix}.png"), int)
        assert np.abs(_levels(_paint(jnp.asarray(flow), max_radius=radius)) - expected).max() <= 1
