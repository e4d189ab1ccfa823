"""Losses of flow from images alone, against loops in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.losses import photometric_loss, smoothness_loss

SIZE = (12, 14)
KINDS = {"charbonnier": 0, "census": 3, "ssim": 1}  # and the radius of the window


def _fetch(other, flow, y, x):
    """What the flow fetches for a pixel, and whether it lies within the frame."""
    h, w = other.shape[:2]
    row, column = y + flow[y, x, 1], x + flow[y, x, 0]
    top, left = int(np.floor(row)), int(np.floor(column))
    value = np.zeros(other.shape[2])
    for r, a in ((top, 1 - (row - top)), (top + 1, row - top)):
        for c, b in ((left, 1 - (column - left)), (left + 1, column - left)):
            value += a * b * other[np.clip(r, 0, h - 1), np.clip(c, 0, w - 1)]
    return value, 0 <= row <= h - 1 and 0 <= column <= w - 1


def _distance(kind, a, b):
    """Of two windows, `(side, side, 3)`."""
    if kind == "charbonnier":
        return np.sqrt((a - b) ** 2 + 1e-6).mean()
    if kind == "census":
        grey = [255 * x @ (0.299, 0.587, 0.114) for x in (a, b)]
        signs = [(x - x[3, 3]) / np.sqrt(0.81 + (x - x[3, 3]) ** 2) for x in grey]
        squared = (signs[0] - signs[1]) ** 2
        return (squared / (0.1 + squared)).mean()
    means = a.mean((0, 1)), b.mean((0, 1))
    covariance = ((a - means[0]) * (b - means[1])).mean((0, 1))
    variances = a.var((0, 1)) + b.var((0, 1))
    alike = (2 * means[0] * means[1] + 1e-4) / (means[0] ** 2 + means[1] ** 2 + 1e-4)
    return ((1 - alike * (2 * covariance + 9e-4) / (variances + 9e-4)) / 2).mean()


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    image, other = rng.random((2, *SIZE, 3)).astype(np.float32)
    flow = rng.uniform(-1.5, 1.5, (*SIZE, 2)).astype(np.float32)
    flow[4:8, 4:10] *= 0.2
    return image, other, flow, rng.random(SIZE) < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_photometric_loss_is_the_loop(scene, kind):
    image, other, flow, occluded = scene
    (h, w), r = SIZE, KINDS[kind]
    fetched, inside = np.zeros_like(image, np.float64), np.zeros(SIZE, bool)
    for y, x in np.ndindex(h, w):
        fetched[y, x], inside[y, x] = _fetch(other, flow, y, x)
    values = []
    for y, x in np.ndindex(h, w):
        window = np.s_[y - r : y + r + 1, x - r : x + r + 1]
        if r <= y < h - r and r <= x < w - r and inside[window].all() and not occluded[y, x]:
            values.append(_distance(kind, image[window].astype(np.float64), fetched[window]))
    assert 5 < len(values) < h * w  # some are left out, some are not
    each = jax.vmap(functools.partial(photometric_loss, kind=kind))
    found = each(image[None], other[None], flow[None], occluded=jnp.asarray(occluded)[None])
    assert found[0] == pytest.approx(np.mean(values), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_pixels_of_motion_leave_nothing(kind):
    world = np.random.default_rng(1).random((24, 28, 3)).astype(np.float32)
    image, other = jnp.asarray(world[2:22, 4:24]), jnp.asarray(world[1:21, 2:22])
    judge = jax.jit(jax.value_and_grad(lambda flow: photometric_loss(image, other, flow, kind=kind)))
    true, gradient = judge(jnp.broadcast_to(jnp.array([2.0, 1.0]), (20, 20, 2)))
    assert abs(true) < 1.1e-3 and np.isfinite(gradient).all()
    for wrong in ([0.0, 0.0], [1.0, 1.0], [2.0, 2.0]):
        assert judge(jnp.broadcast_to(jnp.array(wrong), (20, 20, 2)))[0] > 0.05


@pytest.mark.parametrize("edge_weight", [0.0, 10.0])
@pytest.mark.parametrize("order", [1, 2])
def test_smoothness_loss_is_the_loop(scene, order, edge_weight):
    image, _, flow, _ = (np.asarray(x, np.float64) for x in scene)
    total = 0.0
    for turn in (lambda x: x, lambda x: x.swapaxes(0, 1)):  # downwards, then to the right
        field, picture, values = turn(flow), turn(image), []
        for y, x in np.ndindex(field.shape[0] - order, field.shape[1]):
            edges = [np.abs(picture[y + i + 1, x] - picture[y + i, x]).mean() for i in range(order)]
            step = field[y + 1, x] - field[y, x]
            if order == 2:
                step = field[y + 2, x] - 2 * field[y + 1, x] + field[y, x]
            values.append(np.exp(-edge_weight * max(edges)) * np.sqrt(step**2 + 1e-6))
        total += np.mean(values)
    found = smoothness_loss(jnp.asarray(scene[2]), jnp.asarray(scene[0]), order=order, edge_weight=edge_weight)
    assert found == pytest.approx(total, rel=1e-4)
