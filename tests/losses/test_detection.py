"""Each term against a loop over samples."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.losses import (
    box_regression_loss,
    object_cross_entropy,
    objectness_loss,
    region_mask_loss,
    smooth_l1,
)

RNG = np.random.default_rng(0)
LOGITS, POSITIVE, SAMPLED = RNG.normal(0, 3, (2, 6)), RNG.random((2, 6)) < 0.4, RNG.random((2, 6)) < 0.7
NOTHING = jnp.zeros((2, 6), bool)


def _log_sigmoid(x):
    return -np.log1p(np.exp(-x))


def _samples():
    return [index for index in np.ndindex(2, 6) if SAMPLED[index]]


def test_smooth_l1_is_a_parabola_between_two_lines():
    errors = np.array([-2.0, -0.5, -0.1, 0.0, 0.3, 0.5, 4.0])
    for beta in (0.5, 1.0):
        expected = [0.5 * e * e / beta if abs(e) < beta else abs(e) - 0.5 * beta for e in errors]
        np.testing.assert_allclose(smooth_l1(jnp.array(errors), beta=beta), expected, rtol=1e-6)


def test_objectness_is_the_mean_over_what_was_sampled():
    expected = np.mean([-_log_sigmoid(LOGITS[i] if POSITIVE[i] else -LOGITS[i]) for i in _samples()])
    loss = objectness_loss(jnp.array(LOGITS), jnp.array(POSITIVE), jnp.array(SAMPLED))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("classes", [2, 4])
def test_all_classes_but_the_first_are_an_object(classes):
    logits = RNG.normal(0, 2, (2, 6, classes))
    chance = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.mean([-np.log(chance[i][1:].sum() if POSITIVE[i] else chance[i][0]) for i in _samples()])
    loss = object_cross_entropy(jnp.array(logits), jnp.array(POSITIVE), jnp.array(SAMPLED))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_boxes_are_a_sum_over_positives_by_the_number_of_samples():
    deltas, targets = RNG.normal(0, 1, (2, 2, 6, 4))
    errors = [smooth_l1(jnp.array(deltas[i] - targets[i]), beta=0.2).sum() for i in _samples() if POSITIVE[i]]
    targets[~POSITIVE] = 1e6
    args = [jnp.array(x) for x in (deltas, targets, POSITIVE, SAMPLED)]
    loss = box_regression_loss(*args, beta=0.2)
    np.testing.assert_allclose(loss, sum(errors) / SAMPLED.sum(), rtol=1e-5)
    assert box_regression_loss(*args) != loss


def test_masks_are_a_mean_over_the_pixels_of_positives():
    logits, targets = RNG.normal(0, 2, (2, 6, 3, 5)), (RNG.random((2, 6, 3, 5)) < 0.5).astype(np.float32)
    terms = -(targets * _log_sigmoid(logits) + (1 - targets) * _log_sigmoid(-logits))
    loss = region_mask_loss(jnp.array(logits), jnp.array(targets), jnp.array(POSITIVE))
    np.testing.assert_allclose(loss, terms[POSITIVE].mean(), rtol=1e-5)


def test_without_samples_every_term_is_zero():
    logits = jnp.array(LOGITS)
    assert objectness_loss(logits, NOTHING, NOTHING) == 0
    assert object_cross_entropy(jnp.stack([logits, logits], -1), NOTHING, NOTHING) == 0
    assert box_regression_loss(jnp.ones((2, 6, 4)), jnp.zeros((2, 6, 4)), NOTHING, NOTHING) == 0
    assert region_mask_loss(jnp.ones((2, 6, 3, 3)), jnp.ones((2, 6, 3, 3)), NOTHING) == 0
