"""Resizing keeps constants and scales flow vectors with the picture."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvos.ops import resize, resize_flow


def test_flow_vectors_scale_with_the_picture():
    flow = jnp.broadcast_to(jnp.array([3.0, -2.0]), (10, 20, 2))
    np.testing.assert_allclose(resize_flow(flow, (20, 30))[7, 9], [4.5, -4.0], rtol=1e-5)


def test_shrinking_averages_and_the_same_size_is_the_same_array(key):
    image = jax.random.uniform(key, (8, 8, 3))
    np.testing.assert_allclose(resize(image, (4, 4)).mean(), image.mean(), atol=0.02)
    assert resize(image, (8, 8)) is image
    nearest = resize(image, (3, 5), method="nearest")
    assert set(np.ravel(nearest).tolist()) <= set(np.ravel(image).tolist())
