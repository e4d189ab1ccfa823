"""`factorized_transport` and its partitions against dense matrices, identities and the plain solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.sinkhorn import factorized, group_of_tokens

from jaxvos.solvers import (
    factorized_sinkhorn,
    factorized_transport,
    merge_long,
    merge_short,
    sinkhorn,
    split_long,
    split_short,
)

_STATIC = ("num_iters", "partition", "layout", "order", "tolerance", "domain", "diff", "groups_at_once")
_transport = jax.jit(factorized_sinkhorn, static_argnames=_STATIC)
_ORDERS = [("long",), ("short",), ("long", "short"), ("short", "long")]


def _maps(height, width, channels=5, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=(height, width, channels))) for _ in range(2))


@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    partition=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    layout=st.sampled_from(["grid", "raster"]),
)
def test_split_and_merge_are_inverse(height, width, partition, layout):
    x = jnp.arange(height * width * 2.0).reshape(height, width, 2) + 1
    options = {"partition": partition, "layout": layout}
    for stage, split, merge in (("long", split_long, merge_long), ("short", split_short, merge_short)):
        groups = split(x, **options)
        assert groups.shape[0 if stage == "long" else 1] == partition[0] * partition[1]
        np.testing.assert_array_equal(merge(groups, height, width, **options), x)
        expected = group_of_tokens(height, width, partition, layout, stage)
        tokens = {group: [] for group in expected}
        for token, group in enumerate(expected):
            tokens[group].append(float(x.reshape(-1, 2)[token, 0]))
        actual = [sorted(float(v) for v in group[:, 0] if v > 0) for group in groups]
        assert sorted(filter(None, actual)) == sorted(sorted(group) for group in tokens.values())


@pytest.mark.parametrize("layout", ["grid", "raster"])
@pytest.mark.parametrize("size", [(4, 8), (5, 7), (1, 3)])
def test_identity_returns_its_input_bit_for_bit(layout, size):
    x, y = _maps(*size)
    for order in [*_ORDERS, ("long", "short", "long")]:
        result = factorized_transport(x, y[..., :3], lambda x, y, mask: (x, y, None), layout=layout, order=order)
        np.testing.assert_array_equal(result.x, x)
        np.testing.assert_array_equal(result.y, y[..., :3])
        assert len(result.stages) == len(order)


@pytest.mark.parametrize("layout", ["grid", "raster"])
@pytest.mark.parametrize("size", [(4, 8), (5, 7)])
def test_equals_dense_permuted_block_diagonal_matrices(layout, size):
    x, y = _maps(*size)
    for order in _ORDERS:
        result = _transport(x, y, epsilon=0.3, num_iters=12, layout=layout, order=order)
        expected_x, expected_y, _ = factorized(x, y, 0.3, 12, (2, 4), layout, order)
        np.testing.assert_allclose(result.x, expected_x, atol=1e-10)
        np.testing.assert_allclose(result.y, expected_y, atol=1e-10)


def test_two_stages_reach_every_place():
    x, y = _maps(4, 8)
    for layout in ("grid", "raster"):
        _, _, (long, short) = factorized(x, y, 0.3, 5, (2, 4), layout, ("long", "short"))
        assert (long > 0).mean() < 0.2 and (short > 0).mean() < 0.3
        assert ((short > 0).astype(float) @ (long > 0) > 0).all()


def test_one_group_is_plain_sinkhorn():
    x, y = _maps(3, 5)
    result = _transport(x, y, epsilon=0.2, num_iters=15, partition=(1, 1), order=("long",))
    flat_x, flat_y = (z.reshape(15, 5) for z in (x, y))
    unit_x, unit_y = (z / jnp.linalg.norm(z, axis=-1, keepdims=True) for z in (flat_x, flat_y))
    ones = jnp.ones(15)
    solution = sinkhorn(1 - unit_x @ unit_y.T, ones, ones, epsilon=0.2, num_iters=15)
    np.testing.assert_allclose(result.stages[0].plan[0], solution.plan, atol=1e-11)
    np.testing.assert_allclose(result.x.reshape(15, 5), solution.plan @ flat_x, atol=1e-11)
    np.testing.assert_allclose(result.y.reshape(15, 5), solution.plan @ flat_y, atol=1e-11)


def test_raster_is_the_grid_of_one_row():
    x, y = _maps(4, 8)
    for order in (("long", "short"),):
        results = [
            _transport(x, y, num_iters=5, layout=layout, partition=partition, order=order)
            for layout, partition in (("raster", (2, 4)), ("grid", (1, 8)))
        ]
        np.testing.assert_allclose(results[0].x, results[1].x, atol=1e-13)
        np.testing.assert_allclose(results[0].y, results[1].y, atol=1e-13)


@pytest.mark.parametrize("layout", ["grid", "raster"])
def test_padding_leaks_nothing(layout):
    x, y = _maps(5, 7)
    result = _transport(x, y, num_iters=10, layout=layout)
    ones = _transport(x, jnp.ones_like(x), epsilon=0.05, num_iters=10, layout=layout).y
    np.testing.assert_allclose(ones, 1, atol=1e-10)  # plans of unit rows: no mass went to the padding
    for name, solution in zip(("long", "short"), result.stages, strict=True):
        split = split_long if name == "long" else split_short
        alive = split(jnp.ones((5, 7, 1)), layout=layout)[..., 0] > 0
        assert (solution.plan[~(alive[:, :, None] & alive[:, None, :])] == 0).all()
        np.testing.assert_allclose(solution.plan.sum(2), alive, atol=1e-10)


def test_groups_that_are_all_padding_are_harmless():
    x, y = _maps(1, 1)
    run = jax.jit(jax.value_and_grad(lambda x, y: factorized_sinkhorn(x, y).x.sum(), (0, 1)))
    value, gradients = run(x, y)
    np.testing.assert_allclose(value, x.sum(), atol=1e-12)
    np.testing.assert_allclose(gradients[0], 1, atol=1e-9)
    np.testing.assert_allclose(gradients[1], 0, atol=1e-9)


@pytest.mark.parametrize("diff", ["unroll", "implicit"])
def test_gradients_are_finite_differences(diff):
    x, y = _maps(3, 5, 3)
    rng = np.random.default_rng(1)
    weights = [jnp.asarray(rng.normal(size=x.shape)) for _ in range(2)]
    moves = [jnp.asarray(rng.normal(size=x.shape)) for _ in range(2)]

    @jax.jit
    def loss(x, y, epsilon):
        result = factorized_sinkhorn(
            x, y, epsilon=epsilon, num_iters=13 if diff == "unroll" else 400, partition=(1, 2), diff=diff
        )
        return jnp.vdot(result.x, weights[0]) + jnp.vdot(result.y, weights[1])

    gradient = jax.jit(jax.grad(loss, (0, 1, 2)))(x, y, 0.3)
    step = 1e-6
    for index, move in enumerate([*moves, jnp.ones(())]):
        ends = []
        for sign in (step, -step):
            point = [x, y, 0.3]
            point[index] = point[index] + sign * move
            ends.append(float(loss(*point)))
        np.testing.assert_allclose(jnp.vdot(gradient[index], move), (ends[0] - ends[1]) / (2 * step), rtol=1e-6)


def test_zero_tokens_have_finite_gradients_in_float32():
    x, y = (z.astype(jnp.float32).at[1, 2].set(0) for z in _maps(4, 8))
    for dtype, diff in ((jnp.float32, "unroll"), (jnp.bfloat16, "implicit")):
        run = jax.jit(jax.grad(lambda x, y, d=diff: (factorized_sinkhorn(x, y, diff=d).x ** 2).sum(), (0, 1)))
        for gradient in run(x.astype(dtype), y.astype(dtype)):
            assert gradient.dtype == dtype and jnp.isfinite(gradient).all()
    assert _transport(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)).x.dtype == jnp.bfloat16


def test_groups_at_once_and_vmap_change_no_result():
    pairs = [_maps(4, 8, seed=seed) for seed in range(2)]
    xs, ys = (jnp.stack(z) for z in zip(*pairs, strict=True))

    def loss(x, y, groups_at_once):
        result = factorized_sinkhorn(x, y, num_iters=5, groups_at_once=groups_at_once)
        return (result.x**2).sum() + (result.y**3).sum()

    expected = [jax.jit(jax.value_and_grad(lambda x, y: loss(x, y, None), (0, 1)))(*pair) for pair in pairs]
    for count in (1, 3):
        run = jax.jit(jax.vmap(jax.value_and_grad(lambda x, y, count=count: loss(x, y, count), (0, 1))))
        value, gradients = run(xs, ys)
        for index in range(2):
            np.testing.assert_allclose(value[index], expected[index][0], rtol=1e-12)
            np.testing.assert_allclose(gradients[0][index], expected[index][1][0], atol=1e-10)
            np.testing.assert_allclose(gradients[1][index], expected[index][1][1], atol=1e-10)


def test_every_option_matters():
    x, y = _maps(4, 8)
    base = _transport(x, y, num_iters=5)
    changes = [{"epsilon": 0.1}, {"num_iters": 6}, {"partition": (4, 2)}, {"layout": "raster"}, {"tolerance": 10.0}]
    for change in changes + [{"order": order} for order in _ORDERS if order != ("long", "short")]:
        other = _transport(x, y, **{"num_iters": 5} | change)
        assert jnp.abs(other.x - base.x).max() > 1e-6, change
    for same in ({"domain": "log"}, {"diff": "implicit"}):
        np.testing.assert_allclose(_transport(x, y, num_iters=5, **same).x, base.x, atol=1e-10)


def test_permuting_a_group_permutes_its_answer():
    """Rows of windows exchanged: a long group is permuted, so the outcome is."""
    x, y = _maps(6, 4)
    run = {"num_iters": 8, "partition": (2, 2), "order": ("long",)}
    order = jnp.array([4, 5, 0, 1, 2, 3])
    np.testing.assert_allclose(_transport(x[order], y[order], **run).x, _transport(x, y, **run).x[order], atol=1e-11)


def test_an_empty_order_is_refused():
    x, y = _maps(2, 4)
    with pytest.raises(ValueError, match="order"):
        factorized_sinkhorn(x, y, order=())
