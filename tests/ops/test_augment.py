"""Geometric augmentation: flips are exact, flow vectors turn with the picture, borders show no motion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.ops import Affine, random_affine, transform_flow, transform_image


def test_a_certain_flip_mirrors_exactly(key):
    image = jax.random.uniform(key, (6, 9, 3))
    flip = random_affine(key, flip=1.0)
    np.testing.assert_allclose(transform_image(image, flip), image[:, ::-1], atol=1e-6)
    flow = jax.random.normal(key, (6, 9, 2))
    np.testing.assert_allclose(transform_flow(flow, flip, vectors=True), flow[:, ::-1] * jnp.array([-1, 1]), atol=1e-5)
    np.testing.assert_allclose(transform_flow(flow, flip, vectors=False), flow[:, ::-1], atol=1e-5)


def test_no_change_is_the_identity(key):
    image = jax.random.uniform(key, (5, 8, 3))
    np.testing.assert_allclose(transform_image(image, random_affine(key)), image, atol=1e-6)


def test_a_magnified_rotated_translation_is_still_one_motion():
    """Where frame 2 is frame 1 moved by v, the transformed frames are moved by the transformed v."""
    grid = np.stack(np.meshgrid(np.arange(64.0), np.arange(64.0)), -1)
    blob = lambda centre: jnp.array(np.exp(-np.sum((grid - centre) ** 2, -1) / 30))[..., None]  # noqa: E731
    v, centre, angle = np.array([4.0, -2.0]), np.array([30.0, 34.0]), np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    transform = Affine(jnp.array(turn / 1.3, jnp.float32), jnp.zeros(2))
    first, second = (transform_image(blob(c), transform)[..., 0] for c in (centre, centre + v))
    mean = lambda x: np.sum(grid * np.asarray(x)[..., None], (0, 1)) / np.sum(x)  # noqa: E731
    flow = transform_flow(jnp.broadcast_to(jnp.array(v, jnp.float32), (64, 64, 2)), transform, vectors=True)
    np.testing.assert_allclose(flow[32, 32], mean(second) - mean(first), atol=0.05)


def test_beyond_the_border_masks_repeat_and_flow_rests():
    transform = Affine(2.0 * jnp.eye(2), jnp.zeros(2))  # half the size: the border comes into view
    flow = transform_flow(jnp.ones((16, 16, 2)), transform, vectors=False)
    assert float(jnp.abs(flow[0, 0]).max()) == 0 and float(flow[8, 8, 0]) == 1
    mask = transform_image(jnp.ones((16, 16, 1)), transform, method="nearest")
    assert float(mask.min()) == 1


def test_a_shift_moves_by_its_share_of_the_frame(key):
    image = jax.random.uniform(key, (8, 12, 2))
    moved = transform_image(image, Affine(jnp.eye(2), jnp.array([0.25, -0.5])), border="constant")
    np.testing.assert_allclose(moved[:4, 3:], image[4:, :9], atol=1e-6)
    assert float(jnp.abs(moved[4:]).max()) == float(jnp.abs(moved[:, :3]).max()) == 0
    turned = Affine(jnp.array([[0.0, 1.0], [-1.0, 0.0]]), jnp.array([0.25, 0.0]))  # moved after it has turned
    square = image[:, :8]
    found = transform_image(square, turned, border="constant")
    np.testing.assert_allclose(found[:, 2:], np.rot90(square, -1)[:, :6], atol=1e-5)


def test_a_shear_slants_the_vertical_and_keeps_rows_and_areas():
    transform = random_affine(jax.random.key(3), shear=30.0)
    slant = float(transform.matrix[0, 1])
    assert 0.01 < abs(slant) < np.tan(np.deg2rad(30))
    np.testing.assert_allclose(transform.matrix, [[1, slant], [0, 1]], atol=1e-6)


@pytest.mark.parametrize(
    "option", [{"flip": 0.5}, {"rotation": 10.0}, {"scale": (0.5, 2.0)}, {"shear": 10.0}, {"shift": 0.1}]
)
def test_every_option_draws_different_transforms(option):
    draw = jax.jit(jax.vmap(lambda key: jnp.concatenate([x.ravel() for x in random_affine(key, **option)])))
    draws = {tuple(row) for row in np.asarray(draw(jax.random.split(jax.random.key(0), 12))).round(5)}
    assert len(draws) == 2 if "flip" in option else len(draws) == 12


def test_the_draws_are_those_that_published_numbers_were_trained_with():
    """Nor does a shift, which came later, change the matrix."""
    matrix = random_affine(jax.random.key(3), flip=0.5, rotation=10.0, scale=(0.8, 1.2), shift=0.1).matrix
    np.testing.assert_allclose(matrix, [[-1.08230448, -0.18072937], [-0.18072937, 1.08230448]], rtol=1e-6)
