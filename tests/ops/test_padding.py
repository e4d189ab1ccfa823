"""Padding to a net's stride, and back."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.ops import centre_crop, centre_pad

X = np.random.default_rng(0).uniform(size=(17, 33, 2)).astype(np.float32)


@pytest.mark.parametrize("size", [(1, 1), (15, 16), (16, 17), (17, 33)])
def test_sides_become_multiples_and_come_back(size):
    x = X[: size[0], : size[1]]
    padded = centre_pad(jnp.array(x), 16)
    assert all(n % 16 == 0 and n - m < 16 for n, m in zip(padded.shape[:2], size, strict=True))
    np.testing.assert_array_equal(centre_crop(padded, size), x)
    np.testing.assert_allclose(padded.sum(), x.sum(), rtol=1e-5)  # nothing but zeros was added


def test_as_much_before_as_after_and_one_more_after():
    padded = np.asarray(centre_pad(jnp.ones((13, 14, 1)), 16))
    rows, columns = np.flatnonzero(padded[:, 8, 0]), np.flatnonzero(padded[8, :, 0])
    assert (rows[0], 15 - rows[-1]) == (1, 2) and (columns[0], 15 - columns[-1]) == (1, 1)


def test_a_multiple_stays_as_it_is():
    np.testing.assert_array_equal(centre_pad(jnp.array(X[:16, :32]), 16), X[:16, :32])


@pytest.mark.parametrize("value", [(0.5,), (0.25, 0.75)])
def test_the_padding_has_the_value_of_its_channel(value):
    padded = np.asarray(centre_pad(jnp.array(X[:14, :14]), 16, value=value))
    border = np.ones((16, 16), bool)
    border[1:15, 1:15] = False
    np.testing.assert_allclose(padded[border], np.broadcast_to(value, (border.sum(), 2)))
    np.testing.assert_allclose(padded[1:15, 1:15], X[:14, :14], atol=1e-7)
