"""Losses of masks over live slots, against loops over pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import correspondence as loops

from jaxvos.losses import bootstrapped_cross_entropy, dice_loss, mask_cross_entropy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (5, 6, 4)).astype(np.float32)
ALIVE = np.array([True, True, False, True])
MASKS = np.eye(4, dtype=np.float32)[RNG.choice([0, 1, 3], (5, 6))]
ALL = np.ones(4, bool)

bootstrapped = jax.jit(bootstrapped_cross_entropy)
dice = jax.jit(dice_loss, static_argnames="smooth")


def _arrays(*values):
    return tuple(jnp.asarray(value) for value in values)


@pytest.mark.parametrize("keep", [0.04, 0.15, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("alive", [ALIVE, ALL], ids=["live", "all"])
def test_the_hardest_pixels_count(keep, alive):
    expected = loops.bootstrapped_cross_entropy(LOGITS, MASKS, keep, alive)
    found = bootstrapped(*_arrays(LOGITS, MASKS), jnp.float32(keep), alive=jnp.asarray(alive))
    assert found == pytest.approx(expected, rel=1e-5)


def test_all_pixels_are_the_plain_mean_exactly():
    logits, masks = _arrays(LOGITS, MASKS)
    plain = jax.jit(mask_cross_entropy)(logits, masks)
    assert bootstrapped(logits, masks, jnp.float32(1.0)) == plain
    assert bootstrapped(logits, masks, jnp.float32(1 + 1e-6)) == plain  # as a schedule may round


def test_the_share_is_traced():
    counted = jax.jit(jax.value_and_grad(bootstrapped_cross_entropy))
    for keep in (0.2, 0.4, 0.9):
        loss, _ = counted(*_arrays(LOGITS, MASKS), jnp.float32(keep))
        assert loss == pytest.approx(loops.bootstrapped_cross_entropy(LOGITS, MASKS, keep, ALL), rel=1e-5)
    assert counted._cache_size() == 1


def test_of_equal_pixels_only_so_many_count():
    """Every pixel costs the same: a threshold would keep all of them, and ranks keep five."""
    gradient = jax.grad(bootstrapped_cross_entropy)(*_arrays(0 * LOGITS, MASKS), 5 / 30)
    assert np.count_nonzero(np.abs(np.asarray(gradient)).sum(-1)) == 5


def test_the_gradient_is_that_of_the_chosen_pixels_alone():
    gradient = np.asarray(jax.grad(bootstrapped_cross_entropy)(*_arrays(LOGITS, MASKS), 0.3))
    p = np.exp(LOGITS - LOGITS.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    loss = -np.log((p * MASKS).sum(-1))
    hard = loss >= np.sort(loss.ravel())[-9]
    np.testing.assert_allclose(gradient, np.where(hard[..., None], (p - MASKS) / 9, 0), atol=1e-6)


@pytest.mark.parametrize("smooth", [1.0, 0.1])
def test_dice_is_a_mean_over_live_slots(smooth):
    logits, masks, alive = _arrays(LOGITS, MASKS, ALIVE)
    expected = loops.dice(LOGITS, MASKS, ALIVE, smooth)
    assert dice(logits, masks, alive=alive, smooth=smooth) == pytest.approx(expected, rel=1e-5)
    assert dice(logits, masks, smooth=smooth) == pytest.approx(loops.dice(LOGITS, MASKS, ALL, smooth), rel=1e-5)


def test_dice_of_perfect_masks_is_nothing():
    masks = jnp.asarray(MASKS)
    assert dice(1e3 * masks, masks) == pytest.approx(0, abs=1e-6)  # slot 2, rightly empty, included
    assert dice(-1e3 * masks, masks) > 0.7



def _hardest(logits, masks, **options):
    return bootstrapped(logits, masks, jnp.float32(0.3), **options)


LOSSES = [pytest.param(_hardest, id="bootstrapped"), pytest.param(dice, id="dice")]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dead", [np.nan, -np.inf, 50.0])
def test_what_dead_slots_hold_does_not_matter(loss, dead):
    logits, masks = LOGITS.copy(), MASKS.copy()
    without = loss(*_arrays(logits[..., ALIVE], masks[..., ALIVE]), alive=jnp.ones(3, bool))
    logits[..., 2], masks[..., 2] = dead, dead
    value, gradient = jax.value_and_grad(lambda x: loss(x, jnp.asarray(masks), alive=jnp.asarray(ALIVE)))(
        jnp.asarray(logits))  # fmt: skip
    assert value == pytest.approx(float(without), rel=1e-6)
    assert np.isfinite(gradient).all() and not gradient[..., 2].any() and gradient[..., 0].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_slot_of_no_probability_is_no_trouble_without_alive(loss):
    """Aggregated logits of a slot that is dead are minus infinity, and its mask is empty: 0 times infinity."""
    logits = LOGITS.copy()
    logits[..., 2] = -np.inf
    value, gradient = jax.value_and_grad(loss)(*_arrays(logits, MASKS))
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_unknown_pixels_do_not_count(loss):
    masks, unknown = MASKS.copy(), MASKS.copy()
    unknown[:2] = np.nan
    known = loss(*_arrays(LOGITS[2:], masks[2:]))
    value, gradient = jax.value_and_grad(loss)(*_arrays(LOGITS, unknown))
    assert value == pytest.approx(float(known), rel=1e-6)
    assert np.isfinite(gradient).all() and not gradient[:2].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_alive_or_known_is_no_loss(loss):
    logits, masks = _arrays(LOGITS, MASKS)
    unknown, dead = jnp.full_like(masks, jnp.nan), jnp.zeros(4, bool)
    for labels, alive in ((masks, dead), (unknown, dead), (unknown, jnp.asarray(ALIVE))):
        value, gradient = jax.value_and_grad(lambda x, m=labels, a=alive: loss(x, m, alive=a))(logits)
        assert value == 0 and not gradient.any()
