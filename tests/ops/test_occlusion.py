"""Occlusion by a check of the flow back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.ops import forward_backward_occlusion

find = jax.jit(forward_backward_occlusion, static_argnames=("alpha", "beta"))


@pytest.mark.parametrize(("alpha", "beta"), [(0.01, 0.5), (0.3, 0.0)])
def test_is_the_loop(alpha, beta):
    rng = np.random.default_rng(0)
    noise, motion = rng.normal(0, 0.6, (2, 10, 12, 2)), np.array([1.5, -0.8])
    forward, backward = (motion + noise[0]).astype(np.float32), (noise[1] - motion).astype(np.float32)
    expected = np.zeros((10, 12), bool)
    for y, x in np.ndindex(10, 12):
        column, row = forward[y, x] + (x, y)
        if not (0 <= row <= 9 and 0 <= column <= 11):
            expected[y, x] = True
            continue
        back = np.zeros(2)
        for r, c in np.ndindex(10, 12):
            back += max(0, 1 - abs(r - row)) * max(0, 1 - abs(c - column)) * backward[r, c]
        both = (forward[y, x] ** 2).sum() + (back**2).sum()
        expected[y, x] = ((forward[y, x] + back) ** 2).sum() > alpha * both + beta
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_array_equal(find(forward, backward, alpha=alpha, beta=beta), expected)


def test_a_disc_that_moves_hides_what_it_covers():
    """By half pixels, but for a rim of one pixel along the outlines."""
    y, x = np.mgrid[:40, :48]
    disc = lambda dx: (x - 16 - dx) ** 2 + (y - 20) ** 2 < 81  # noqa: E731
    motion = np.array([5.5, 0], np.float32)
    forward, backward = disc(0)[..., None] * motion, disc(5.5)[..., None] * -motion
    hidden = np.asarray(find(forward, backward))
    where = disc(0) + 2 * disc(5.5)  # 2: what it covers
    around = np.stack([where[r : 38 + r, c : 46 + c] for r in range(3) for c in range(3)])
    certain, inner = (around == around[0]).all(0), np.s_[1:-1, 1:-1]
    assert (certain & (where[inner] == 2)).sum() > 20
    np.testing.assert_array_equal(hidden[inner][certain], where[inner][certain] == 2)


@pytest.mark.parametrize("unknown", [np.nan, np.inf, 2e9])
def test_unknown_flow_is_hidden(unknown):
    still = jnp.zeros((6, 8, 2))
    assert not find(still, still).any()
    for fields in ((still.at[2, 3, 0].set(unknown), still), (still, still.at[2, 3, 0].set(unknown))):
        assert find(*fields)[2, 3]
