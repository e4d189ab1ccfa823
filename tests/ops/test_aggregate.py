"""Objects that share pixels: the published formula, and what a person marked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.ops import soft_aggregate, tell_masks

RNG = np.random.default_rng(0)
P = RNG.uniform(size=(3, 4, 2)).astype(np.float32)


def _formula(p):
    """Log-odds of the background, on which no object is, and of each object."""
    p = np.concatenate([np.prod(1 - p, axis=-1, keepdims=True), p], axis=-1).astype(float)
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return np.log(p / (1 - p))


def _shares(logits):
    return np.asarray(jax.nn.softmax(logits))


def test_logits_are_the_log_odds_of_each():
    np.testing.assert_allclose(soft_aggregate(jnp.array(P)), _formula(P), rtol=1e-4, atol=1e-5)


def test_the_share_of_one_object_alone_is_its_probability_over_the_odds():
    """Of one object, the odds are p / (1 - p) and their inverse: the share is p^2 / (p^2 + (1 - p)^2)."""
    p = P[..., :1]
    np.testing.assert_allclose(_shares(soft_aggregate(jnp.array(p)))[..., 1:], p**2 / (p**2 + (1 - p) ** 2), atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_certainty_is_clipped(value):
    logits = np.asarray(soft_aggregate(jnp.full((1, 1, 2), value)))
    np.testing.assert_allclose(logits, _formula(np.full((1, 1, 2), value, np.float32)), rtol=0.02)
    assert np.abs(logits).max() < 17


def test_gradients_are_finite_at_certainty():
    p = jnp.array([[[0.0, 1.0, 0.5]]])
    alive = jnp.array([True, True, False])
    gradient = jax.grad(lambda x: jnp.sum(jax.nn.softmax(soft_aggregate(x, alive=alive)) ** 2))(p)
    assert np.isfinite(gradient).all()


def test_slots_without_an_object_change_nothing():
    padded = np.concatenate([P[..., :1], np.ones((3, 4, 1), np.float32), P[..., 1:]], axis=-1)
    logits = soft_aggregate(jnp.array(padded), alive=jnp.array([True, False, True]))
    assert np.all(np.asarray(logits)[..., 2] == -np.inf)
    np.testing.assert_array_equal(np.asarray(logits)[..., [0, 1, 3]], soft_aggregate(jnp.array(P)))
    assert np.all(_shares(logits)[..., 2] == 0)
    nobody = _shares(soft_aggregate(jnp.array(P), alive=jnp.zeros(2, bool)))
    np.testing.assert_array_equal(nobody, np.broadcast_to([1.0, 0, 0], nobody.shape))


def test_half_precision_stays_finite():
    """`1 - 1e-7` is 1 in bfloat16, whose log-odds are infinite."""
    logits = soft_aggregate(jnp.array([[[0.0, 1.0, 0.999]]], jnp.bfloat16))
    assert logits.dtype == jnp.float32 and np.isfinite(logits).all()


FOUND = np.asarray(RNG.dirichlet(np.ones(4), size=(2, 3)), np.float32)  # background and three objects


def _tell(told):
    return np.asarray(tell_masks(jnp.array(FOUND), jnp.array(told, jnp.float32)))


def test_what_is_told_is_so_and_the_others_keep_their_proportions():
    told = np.zeros_like(FOUND)
    told[0, 0, 1] = told[0, 1, 3] = 1
    told[1, 2, 1] = 0.25
    masks = _tell(told)
    np.testing.assert_allclose(masks.sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(masks[..., [1, 3]], told[..., [1, 3]], atol=1e-7)  # where it is, and nowhere else
    np.testing.assert_allclose(masks[1, 0, 0] / masks[1, 0, 2], FOUND[1, 0, 0] / FOUND[1, 0, 2], rtol=1e-5)
    left = FOUND[1, 2, [0, 2]] / FOUND[1, 2, [0, 2]].sum()
    np.testing.assert_allclose(masks[1, 2, [0, 2]], 0.75 * left, atol=1e-6)


def test_where_nothing_is_left_of_a_pixel_the_background_has_it():
    found, told = np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.float32)
    found[..., 1], told[0, 0, 1] = 1, 1
    masks = tell_masks(jnp.array(found), jnp.array(told))
    np.testing.assert_array_equal(masks, np.array([[[0, 1], [1, 0]]]))


def test_nothing_told_changes_nothing():
    background = np.zeros_like(FOUND)
    background[..., 0] = 1  # that of the background is not looked at
    np.testing.assert_array_equal(_tell(np.zeros_like(FOUND)), FOUND)
    np.testing.assert_array_equal(_tell(background), FOUND)


def test_everything_told_is_all_there_is():
    told = np.eye(4, dtype=np.float32)[RNG.integers(1, 4, (2, 3))]
    told[0, 0] = [0, 0, 0, 1]
    told[0, 1] = [0, 1, 0, 0]
    told[0, 2] = [0, 0, 1, 0]
    np.testing.assert_array_equal(_tell(told), told)
