"""Losses of flow, with and without a true one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.losses import end_point_loss, multiscale_flow_loss, photometric_loss, smoothness_loss
from jaxvos.ops import forward_backward_occlusion


@pytest.fixture
def fields():
    rng = np.random.default_rng(0)
    flow, target = rng.normal(0, 3, (2, 8, 12, 2)).astype(np.float32)
    target[2, 3], target[4, 5, 0], target[6] = np.nan, 2e9, np.inf
    return jnp.asarray(flow), jnp.asarray(target)


@pytest.mark.parametrize(("kind", "formula"), [
    ("epe", lambda d: np.sqrt(d + 1e-6)), ("sq", lambda d: d), ("charbonnier", lambda d: (d + 1e-6) ** 0.45),
])  # fmt: skip
def test_distances_where_the_flow_is_known(fields, kind, formula):
    flow, target = (np.asarray(x, np.float64) for x in fields)
    known = [(y, x) for y in range(8) for x in range(12) if y != 6 and (y, x) not in ((2, 3), (4, 5))]
    values = [formula(((flow[place] - target[place]) ** 2).sum()) for place in known]
    assert end_point_loss(*fields, kind=kind) == pytest.approx(np.mean(values), rel=1e-5)
    assert end_point_loss(*fields, kind=kind, reduction="sum") == pytest.approx(np.sum(values), rel=1e-5)
    gradient = jax.grad(functools.partial(end_point_loss, kind=kind))(*fields)
    assert np.isfinite(gradient).all() and not gradient[6].any() and gradient[0].any()
    right = fields[0][:2]
    assert np.isfinite(jax.grad(functools.partial(end_point_loss, kind=kind))(right, right)).all()


def test_its_numbers_are_options(fields):
    base = end_point_loss(*fields, kind="charbonnier")
    assert end_point_loss(*fields, kind="charbonnier", power=0.3) != base
    assert end_point_loss(*fields, kind="charbonnier", epsilon=1.0) != base


def test_no_known_vector_is_no_loss():
    flow, target = jnp.ones((4, 4, 2)), jnp.full((4, 4, 2), jnp.nan)
    value, gradient = jax.value_and_grad(end_point_loss)(flow, target)
    assert value == 0 and not gradient.any()
    assert multiscale_flow_loss({2: flow[:2, :2]}, target, weights=((2, 1.0),)) == 0


def test_levels_learn_from_sparse_flow():
    target = jnp.full((16, 16, 2), jnp.nan).at[3, 3].set(5.0)  # as lidar measures it
    flows = {1: jnp.ones((8, 8, 2)), 2: jnp.ones((4, 4, 2))}
    gradient = jax.grad(functools.partial(multiscale_flow_loss, weights=((1, 1.0), (2, 1.0))))(flows, target)
    for level, (near, far) in {1: (1, 5), 2: (0, 3)}.items():
        assert np.isfinite(gradient[level]).all() and gradient[level][near, near].all()
        assert not gradient[level][far].any()


def test_all_levels_are_judged_in_the_same_units():
    """A loop over cells: sums, weighted, over the cells of the largest level."""
    rng = np.random.default_rng(1)
    target = rng.normal(0, 30, (16, 24, 2)).astype(np.float32)
    target[:4, :4] = np.nan  # two whole cells of level 1 in each direction, and one of level 2
    target[8, 8] = np.nan  # part of a cell
    flows = {level: rng.normal(0, 1, (16 // 2**level, 24 // 2**level, 2)).astype(np.float32) for level in (1, 2)}
    weights = ((2, 0.32), (1, 0.08))
    # a tent of twice the stride, as `resize` shrinks by
    total = 0.0
    for level, weight in weights:
        stride = 2**level
        for cell in np.ndindex(*flows[level].shape[:2]):
            sums, mass = np.zeros(2), 0.0
            for y, x in np.ndindex(16, 24):
                tent = [max(0.0, 1 - abs((p + 0.5) / stride - (c + 0.5))) for p, c in zip((y, x), cell, strict=True)]
                if np.isfinite(target[y, x]).all():
                    sums, mass = sums + tent[0] * tent[1] * target[y, x], mass + tent[0] * tent[1]
            if mass / stride**2 > 1e-3:
                total += weight * np.linalg.norm(flows[level][cell] - sums / mass / 20)
    found = multiscale_flow_loss(jax.tree.map(jnp.asarray, flows), jnp.asarray(target), weights=weights)
    assert found == pytest.approx(total / (8 * 12), rel=1e-3)
    other = {"scale": 10.0}, {"kind": "sq"}, {"weights": ((1, 1.0),)}
    for change in other:
        options = {"weights": weights} | change
        assert multiscale_flow_loss(jax.tree.map(jnp.asarray, flows), jnp.asarray(target), **options) != found


def _moved(shift=(2, 1)):
    y, x = np.mgrid[:32, :40].astype(np.float32)
    field = lambda x, y: np.stack([np.sin(x / 3 + y / 5), np.cos(y / 4), np.sin((x - y) / 4)], -1) / 2 + 0.5  # noqa: E731
    return jnp.asarray(field(x, y)), jnp.asarray(field(x - shift[0], y - shift[1]))


@pytest.mark.parametrize("kind", ["charbonnier", "census", "ssim"])
def test_the_true_flow_looks_best(kind):
    image, other = _moved()
    flows = jnp.array([[2.0, 1.0], [0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 1.0]])
    judge = jax.jit(functools.partial(photometric_loss, kind=kind))
    losses = [float(judge(image, other, jnp.broadcast_to(flow, (32, 40, 2)))) for flow in flows]
    assert losses[0] < 0.3 * min(losses[1:])
    gradient = jax.grad(lambda flow: judge(image, other, flow))(jnp.broadcast_to(flows[1], (32, 40, 2)))
    assert np.isfinite(gradient).all() and gradient.any()
    hidden = jnp.zeros((32, 40), bool).at[:, :30].set(True)
    still = jnp.zeros((32, 40, 2))
    assert judge(image, other, still, occluded=hidden) != judge(image, other, still)
    assert judge(image, other, still, occluded=jnp.ones((32, 40), bool)) == 0


def test_what_leaves_the_frame_is_not_compared():
    image, other = _moved()
    out = jnp.zeros((32, 40, 2)).at[..., 0].set(100.0)
    assert photometric_loss(image, other, out) == 0


def test_census_sees_no_brightness():
    image, other = _moved((0, 0))
    still = jnp.zeros((32, 40, 2))
    assert photometric_loss(image, other * 0.8, still, kind="census") < 0.2 * photometric_loss(
        image, other[:, ::-1], still, kind="census")  # fmt: skip
    assert photometric_loss(image, other * 0.8, still, kind="charbonnier") > 0.05


def test_smoothness():
    image = jnp.zeros((16, 20, 3)).at[:, 10:].set(1.0)
    flat, slope = jnp.ones((16, 20, 2)), jnp.broadcast_to(jnp.arange(20.0)[:, None], (16, 20, 2))
    jump_at_edge = jnp.zeros((16, 20, 2)).at[:, 10:].set(4.0)
    jump_elsewhere = jnp.zeros((16, 20, 2)).at[:, 5:].set(4.0)
    base = float(smoothness_loss(flat, image))
    assert base == pytest.approx(0.002, rel=0.2)  # the square root's
    assert smoothness_loss(jump_at_edge, image) < 0.1 * smoothness_loss(jump_elsewhere, image)
    assert smoothness_loss(jump_at_edge, image, edge_weight=0.0) > 0.05
    assert smoothness_loss(slope, image, order=2) < 0.01 < smoothness_loss(slope, image)
    assert np.isfinite(jax.grad(smoothness_loss)(flat, image)).all()


def test_occlusion_of_a_square_that_moves():
    """What it covers next is hidden; so is what leaves the frame."""
    forward, backward = np.zeros((2, 24, 32, 2), np.float32)
    forward[8:16, 6:14, 0], backward[8:16, 10:18, 0] = 4.0, -4.0
    hidden = np.asarray(forward_backward_occlusion(jnp.asarray(forward), jnp.asarray(backward)))
    expected = np.zeros((24, 32), bool)
    expected[8:16, 14:18] = True
    np.testing.assert_array_equal(hidden, expected)
    leaving = jnp.zeros((24, 32, 2)).at[..., 0].set(5.0)
    assert np.asarray(forward_backward_occlusion(leaving, -leaving)).sum() == 24 * 5
    off = jnp.asarray(backward).at[..., 1].add(0.75)
    counts = [int(forward_backward_occlusion(jnp.asarray(forward), off, **o).sum()) for o in (
        {}, {"alpha": 1.0}, {"beta": 0.1})]  # fmt: skip
    assert counts[1] < counts[0] < counts[2]
