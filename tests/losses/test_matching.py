"""Losses of DMM-Net against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.losses import best_matches, similarity_loss, soft_iou_loss


def test_soft_iou_is_one_less_the_overlap_of_binary_masks(key):
    p, t = (np.asarray(jax.random.bernoulli(k, 0.4, (6, 7)), np.float32) for k in jax.random.split(key))
    expected = 1 - np.logical_and(p, t).sum() / np.logical_or(p, t).sum()
    assert soft_iou_loss(jnp.asarray(p), jnp.asarray(t)) == pytest.approx(expected, abs=1e-6)
    assert soft_iou_loss(jnp.asarray(t), jnp.asarray(t)) == pytest.approx(0, abs=1e-6)


def test_soft_iou_counts_probabilities(key):
    p, t = jax.random.uniform(key, (5, 4)), jnp.zeros((5, 4)).at[1:3].set(1.0)
    expected = 1 - (p * t).sum() / (p + t - p * t).sum()
    assert soft_iou_loss(p, t) == pytest.approx(float(expected), abs=1e-6)


def test_an_absent_object_costs_one_and_teaches_nothing(key):
    p, nothing = jax.random.uniform(key, (5, 4)), jnp.zeros((5, 4))
    value, gradient = jax.value_and_grad(soft_iou_loss)(p, nothing)
    assert value == 1 and jnp.all(gradient == 0)
    assert np.isfinite(jax.grad(soft_iou_loss)(nothing, nothing)).all()


def test_matches_are_the_best_assignment_of_what_can_be_found():
    iou = jnp.array([[0.9, 0.8, 0.0], [0.85, 0.1, 0.0], [0.1, 0.2, 0.29], [0.9, 0.9, 0.9]])
    rows, cols = jnp.array([True, True, True, False]), jnp.array([True, True, True])
    target, matched = best_matches(iou, row_mask=rows, col_mask=cols)
    assert np.array_equal(target, [[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]])  # greedy would lose the second row
    assert matched.tolist() == [True, True, False, False]
    assert best_matches(iou, row_mask=rows, col_mask=cols, min_iou=0.25)[1].tolist() == [True, True, True, False]
    assert not best_matches(iou, row_mask=rows, col_mask=jnp.zeros(3, bool))[1].any()


def test_targets_have_no_gradient():
    rows, cols = jnp.ones(1, bool), jnp.ones(2, bool)
    gradient = jax.grad(lambda iou: best_matches(iou, row_mask=rows, col_mask=cols)[0].sum())(jnp.array([[0.4, 0.6]]))
    assert jnp.all(gradient == 0)


def test_similarity_loss_is_the_mean_over_pairs_that_exist(key):
    similarity, target = jax.random.normal(key, (3, 4)), jnp.eye(3, 4)
    rows, cols = np.array([True, False, True]), np.array([True, True, False, True])
    expected = np.mean(((similarity - target) ** 2)[np.ix_(rows, cols)])
    loss = similarity_loss(similarity, target, row_mask=jnp.asarray(rows), col_mask=jnp.asarray(cols))
    assert loss == pytest.approx(float(expected), rel=1e-6)
    assert similarity_loss(similarity, target, row_mask=jnp.zeros(3, bool), col_mask=jnp.asarray(cols)) == 0
