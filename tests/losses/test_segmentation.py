"""Cross-entropies against NumPy, and what "foreground everywhere" costs."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvos.losses import edge_cross_entropy, mask_cross_entropy


def test_mask_cross_entropy_counts_both_classes(key):
    logits = jax.random.normal(key, (5, 6, 2))
    masks = jax.nn.one_hot(jax.random.bernoulli(key, 0.3, (5, 6)).astype(int), 2)
    p = np.exp(logits) / np.sum(np.exp(logits), -1, keepdims=True)
    np.testing.assert_allclose(mask_cross_entropy(logits, masks), -np.mean(np.sum(masks * np.log(p), -1)), rtol=1e-5)
    everywhere = jnp.broadcast_to(jnp.array([-9.0, 9.0]), logits.shape)
    assert mask_cross_entropy(everywhere, masks) > mask_cross_entropy(logits, masks)


def test_edge_cross_entropy_and_its_balance(key):
    logits, edges = jax.random.normal(key, (8, 9)), jax.random.bernoulli(key, 0.1, (8, 9)).astype(jnp.float32)
    p, share = 1 / (1 + np.exp(-np.asarray(logits))), float(edges.mean())
    terms = np.where(edges > 0, np.log(p), np.log(1 - p))
    np.testing.assert_allclose(edge_cross_entropy(logits, edges), -terms.mean(), rtol=1e-5)
    weights = np.where(edges > 0, 1 - share, share)
    balanced = edge_cross_entropy(logits, edges, pos_weight="hed")
    np.testing.assert_allclose(balanced, -(weights * terms).mean(), rtol=1e-5)


def test_extreme_logits_stay_finite():
    logits = jnp.full((4, 4), 1e4)
    value, gradient = jax.value_and_grad(lambda x: edge_cross_entropy(x, jnp.zeros((4, 4))))(logits)
    assert np.isfinite(value) and np.isfinite(gradient).all()
