"""The cost volume against PWC-Net's values and gradients, and against a loop over displacements."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.ops import correlation


def _loop(f1, f2, radius):
    """One displacement after another, in double precision."""
    h, w, _ = f1.shape
    padded = np.pad(np.asarray(f2, float), ((radius, radius), (radius, radius), (0, 0)))
    moved = [padded[dy : dy + h, dx : dx + w] for dy in range(2 * radius + 1) for dx in range(2 * radius + 1)]
    return np.stack([np.mean(np.asarray(f1, float) * m, axis=-1) for m in moved], -1)


@pytest.fixture(scope="module", params=["corr_a", "corr_b", "corr_c"])
def golden(golden_dir, request):
    """One case, channels last."""
    with np.load(golden_dir / "nets/layers.npz") as layers:
        case = {k.split("/")[1]: np.moveaxis(layers[k], 1, -1) for k in layers if k.startswith(request.param)}
    return jax.tree.map(jnp.array, case)


@pytest.mark.data
def test_golden_values_and_gradients(golden):
    def loss(f1, f2):
        out = jax.vmap(correlation)(f1, f2)
        return jnp.sum(out * golden["cot"]), out

    (to_f1, to_f2), out = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(golden["f1"], golden["f2"])
    np.testing.assert_allclose(out, golden["out"], atol=1e-5)
    np.testing.assert_allclose(to_f1, golden["grad_f1"], atol=1e-5)
    np.testing.assert_allclose(to_f2, golden["grad_f2"], atol=1e-5)
    if "out_leaky" in golden:
        np.testing.assert_allclose(jax.nn.leaky_relu(out, 0.1), golden["out_leaky"], atol=1e-5)


@pytest.mark.parametrize(("radius", "shape"), [(1, (4, 33, 5)), (2, (1, 16, 3)), (4, (3, 17, 2)), (6, (5, 1, 4)),
                                               (0, (3, 4, 2))])  # fmt: skip
def test_a_loop_over_displacements(radius, shape):
    f1, f2 = (jax.random.normal(jax.random.key(i), shape) for i in range(2))
    found = jax.jit(functools.partial(correlation, radius=radius))(f1, f2)
    assert found.shape == (*shape[:2], (2 * radius + 1) ** 2)
    np.testing.assert_allclose(found, _loop(f1, f2, radius), atol=1e-5)


def test_a_moved_map_is_found_where_it_went(key):
    f1 = jax.random.normal(key, (12, 20, 64))
    f2 = jnp.roll(f1, (1, -2), axis=(0, 1))  # one down, two to the left
    best = jnp.argmax(jax.jit(functools.partial(correlation, radius=2))(f1, f2), axis=-1)[2:-2, 2:-2]
    assert jnp.all(best == (1 + 2) * 5 + (-2 + 2))


def test_a_batch_is_its_pairs():
    f1, f2 = (jax.random.normal(jax.random.key(i), (3, 4, 18, 2)) for i in range(2))
    one = jax.jit(functools.partial(correlation, radius=1))
    together = jax.jit(jax.vmap(one))(f1, f2)
    np.testing.assert_allclose(together, jnp.stack([one(*pair) for pair in zip(f1, f2, strict=True)]), atol=1e-6)
