"""Boundary targets against their definitions, written as slow loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.ops import disc_edges, sobel_edges


def _mask():
    mask = np.zeros((12, 15), np.float32)
    mask[3:8, 4:9] = mask[0:3, 10:15] = mask[11, 0] = 1
    return mask


def test_sobel_edges_are_where_the_filter_responds():
    mask = _mask()
    padded = np.pad(mask, 1, mode="edge")
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    expected = np.zeros_like(mask)
    for y, x in np.ndindex(*mask.shape):
        window = padded[y : y + 3, x : x + 3]
        expected[y, x] = abs(np.sum(window * kernel)) + abs(np.sum(window * kernel.T)) > 0
    np.testing.assert_array_equal(sobel_edges(jnp.array(mask)), expected)
    assert expected[3:8, 4].all() and expected[3:8, 3].all() and not expected[5, 6]  # a band two pixels wide


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_disc_edges_are_where_a_disc_holds_two_labels(radius):
    mask = _mask()
    expected = np.zeros_like(mask)
    for y, x in np.ndindex(*mask.shape):
        for v, u in np.ndindex(*mask.shape):
            if (y - v) ** 2 + (x - u) ** 2 <= radius**2 and mask[v, u] != mask[y, x]:
                expected[y, x] = 1
    np.testing.assert_array_equal(disc_edges(jnp.array(mask), radius=radius), expected)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_mask_has_no_edge(value):
    mask = jnp.full((7, 9), value)
    assert not sobel_edges(mask).any() and not disc_edges(mask, radius=2).any()
