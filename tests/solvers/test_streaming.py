"""`streaming_sinkhorn` is `sinkhorn` on the cost of the features: values, potentials, gradients, without the plan."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.solvers import factorized_sinkhorn, factorized_transport, sinkhorn, streaming_sinkhorn

_STATIC = ("cost", "num_iters", "tolerance", "block_size")


def _unit(x):
    return x / jnp.sqrt((x**2).sum(-1, keepdims=True) + 1e-12)


def _cost(x, y, cost):
    if cost == "cosine":
        return 1 - _unit(x) @ _unit(y).T
    return ((x[:, None] - y) ** 2).sum(-1)


def _problem(n=37, m=29, c=5, seed=0, dtype=jnp.float64):
    rng = np.random.default_rng(seed)
    arrays = rng.normal(size=(n, c)), rng.normal(size=(m, c)) + 0.5, rng.normal(size=(m, 3))
    a, b = rng.uniform(0.2, 1, n), rng.uniform(0.2, 1, m)
    weights = rng.normal(size=(n, 3)), rng.normal(size=n), rng.normal(size=m)
    weights[2][:] -= weights[2].mean() - weights[1].sum() / m  # f and g weighted alike: no dependence on the gauge
    return (tuple(jnp.asarray(z, dtype) for z in (*arrays, a / a.sum(), b / b.sum())),
            tuple(jnp.asarray(z, dtype) for z in weights))  # fmt: skip


@partial(jax.jit, static_argnames=_STATIC)
def _streamed(x, y, values, a, b, epsilon, weights, **options):
    def loss(*point):
        *inputs, epsilon = point
        solution = streaming_sinkhorn(*inputs, epsilon=epsilon, **options)
        return sum(map(jnp.vdot, solution[:3], weights)), solution

    return jax.value_and_grad(loss, range(6), has_aux=True)(x, y, values, a, b, epsilon)


@partial(jax.jit, static_argnames=_STATIC[:3])
def _dense(x, y, values, a, b, epsilon, weights, *, cost, **options):
    def loss(*point):
        x, y, values, a, b, epsilon = point
        solution = sinkhorn(_cost(x, y, cost), a, b, epsilon=epsilon, diff="implicit", **options)
        answers = solution.plan @ values, solution.f, solution.g
        return sum(map(jnp.vdot, answers, weights)), (*answers, solution.error, solution.num_iters)

    return jax.value_and_grad(loss, range(6), has_aux=True)(x, y, values, a, b, epsilon)


@pytest.mark.parametrize("cost, epsilon", [("cosine", 0.1), ("sqeuclidean", 1.0)])
@pytest.mark.parametrize("num_iters", [1, 60])
def test_equals_the_dense_solver(cost, epsilon, num_iters):
    point, weights = _problem()
    point = (*point, jnp.asarray(epsilon))
    (_, solution), gradients = _streamed(*point, weights, cost=cost, num_iters=num_iters, block_size=8)
    (_, expected), expected_gradients = _dense(*point, weights, cost=cost, num_iters=num_iters)
    for ours, theirs in zip(solution, expected, strict=False):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    if num_iters == 60:
        for ours, theirs in zip(gradients, expected_gradients, strict=True):
            if ours.ndim == 1:  # of masses: up to a constant, they stay equal in sum
                ours, theirs = ours - ours.mean(), theirs - theirs.mean()
            np.testing.assert_allclose(ours, theirs, atol=1e-8 * jnp.abs(theirs).max())


def test_gradient_is_finite_differences():
    point, weights = _problem(11, 9)
    point = (*point, jnp.asarray(0.3))
    rng = np.random.default_rng(7)
    run = partial(_streamed, weights=weights, cost="cosine", num_iters=300, block_size=4)
    _, gradients = run(*point)
    for index, gradient in enumerate(gradients):
        direction = jnp.asarray(rng.normal(size=gradient.shape))
        if index in (3, 4):
            direction -= direction.mean()
        ends = [
            run(*point[:index], point[index] + step * direction, *point[index + 1 :])[0][0] for step in (1e-5, -1e-5)
        ]
        np.testing.assert_allclose(jnp.vdot(gradient, direction), (ends[0] - ends[1]) / 2e-5, rtol=1e-5)


@pytest.mark.parametrize("cost", ["cosine", "sqeuclidean"])
def test_float32_is_within_1e_5_of_dense(cost):
    point, weights = _problem(600, 600, 32, dtype=jnp.float32)
    ones = jnp.ones(600, jnp.float32)  # plans of mass 600, as in a transport layer
    point = (*point[:3], ones, ones, jnp.float32(0.05 if cost == "cosine" else 3.0))
    (_, solution), gradients = _streamed(*point, weights, cost=cost, num_iters=20, block_size=128)
    (_, expected), expected_gradients = _dense(*point, weights, cost=cost, num_iters=20)
    for ours, theirs in zip((*solution[:3], *gradients[:3]), (*expected[:3], *expected_gradients[:3]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


def test_masks_and_zero_masses_are_left_out():
    (x, y, values, a, b), weights = _problem()
    rows, columns = jnp.arange(37) % 5 != 2, jnp.arange(29) % 4 != 1
    a, b = jnp.where(rows, a, 0), jnp.where(columns, b, 0)
    a, b = a / a.sum(), b / b.sum()
    options = {"cost": "cosine", "num_iters": 40, "block_size": 10}
    small = streaming_sinkhorn(x[rows], y[columns], values[columns], a[rows], b[columns], epsilon=0.1, **options)
    masked = streaming_sinkhorn(
        jnp.where(rows[:, None], x, jnp.nan), jnp.where(columns[:, None], y, jnp.inf), values,
        jnp.where(rows, a, 9.0), jnp.where(columns, b, 9.0), epsilon=0.1, row_mask=rows, col_mask=columns, **options,
    )  # fmt: skip
    massless = streaming_sinkhorn(x, y, values, a, b, epsilon=0.1, **options)
    for solution in (masked, massless):
        np.testing.assert_allclose(solution.values[rows], small.values, atol=1e-13)
        np.testing.assert_allclose(solution.g[columns], small.g, atol=1e-12)
        assert (
            (solution.values[~rows] == 0).all() and (solution.f[~rows] == 0).all() and (solution.g[~columns] == 0).all()
        )
    _, gradients = _streamed(x, y, values, a, b, jnp.asarray(0.1), weights, **options)
    assert all(bool(jnp.isfinite(g).all()) for g in gradients)
    for masks in ((jnp.zeros(37, bool), columns), (rows, jnp.zeros(29, bool))):
        nothing = streaming_sinkhorn(x, y, values, epsilon=0.1, row_mask=masks[0], col_mask=masks[1], **options)
        assert not nothing.values.any() and not nothing.f.any() and not nothing.g.any() and nothing.error == 0


def test_tolerance_stops_where_the_dense_solver_does():
    (x, y, values, a, b), _ = _problem()
    options = {"epsilon": 0.1, "num_iters": 500, "tolerance": 1e-6}
    solution = streaming_sinkhorn(x, y, values, a, b, **options)
    expected = sinkhorn(_cost(x, y, "cosine"), a, b, **options)
    assert expected.num_iters - 1 <= solution.num_iters <= expected.num_iters < 500
    assert solution.converged and solution.error <= 1e-6


def test_small_epsilon_half_precision_and_vmap():
    (x, y, values, *_), _ = _problem(dtype=jnp.float32)

    @jax.jit
    def run(x, epsilon):
        solution = streaming_sinkhorn(x, y, values, epsilon=epsilon, num_iters=60, block_size=8)
        return solution.values.sum(), solution

    for epsilon in (1e-3, 1e-4):
        (_, solution), gradient = jax.value_and_grad(run, has_aux=True)(x, epsilon)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in (*solution, gradient))
    half = streaming_sinkhorn(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16), values, epsilon=0.1)
    assert half.values.dtype == jnp.float32
    batch = jax.vmap(partial(streaming_sinkhorn, epsilon=0.1, block_size=8))(
        jnp.stack([x, 2 * x + 1]), jnp.stack([y, y]), jnp.stack([values, values])
    )
    np.testing.assert_allclose(batch.values[0], streaming_sinkhorn(x, y, values, epsilon=0.1).values, atol=1e-6)


def test_memory_is_that_of_blocks():
    """XLA's own count: the temporary memory of forward and backward is far below one plan."""
    arrays = [jax.ShapeDtypeStruct((2048, 16), jnp.float32)] * 3

    def loss(x, y, values):
        return streaming_sinkhorn(x, y, values, epsilon=0.1, num_iters=10, block_size=32).values.sum()

    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*arrays).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.15 * 4 * 2048**2


def test_a_factorized_transport_can_stream_its_groups():
    x, y = (jnp.asarray(np.random.default_rng(seed).normal(size=(6, 8, 4))) for seed in (0, 1))

    def match(x, y, mask):
        ones = mask.astype(x.dtype)
        both = jnp.concatenate([x, y], axis=1)
        return *jnp.split(_move(x, y, both, ones), 2, axis=1), None

    def _move(x, y, both, ones):
        return streaming_sinkhorn(x, y, both, ones, ones, epsilon=0.1, num_iters=20, block_size=5).values

    solution = factorized_transport(x, y, match, order=("long",))
    expected = factorized_sinkhorn(x, y, epsilon=0.1, num_iters=20, order=("long",))
    np.testing.assert_allclose(solution.x, expected.x, atol=1e-12)
    np.testing.assert_allclose(solution.y, expected.y, atol=1e-12)


def test_every_option_matters():
    (x, y, values, a, b), _ = _problem()
    base = {"epsilon": 0.1, "num_iters": 5}
    plain = streaming_sinkhorn(x, y, values, a, b, **base).values
    for change in ({"epsilon": 0.2}, {"num_iters": 6}, {"cost": "sqeuclidean"}, {"tolerance": 1.0},
                   {"row_mask": jnp.arange(37) > 0}, {"col_mask": jnp.arange(29) > 0}):  # fmt: skip
        if "mask" in next(iter(change)):
            moved = streaming_sinkhorn(x, y, values, **base | change).values
        else:
            moved = streaming_sinkhorn(x, y, values, a, b, **base | change).values
        assert jnp.abs(moved - plain).max() > 1e-6, change


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"values": jnp.zeros((3, 2))}, r"values \(m, d\), got \(5, 2\), \(4, 2\), \(3, 2\)"),
        ({"epsilon": 0.0}, "epsilon must be above zero"),
        ({"a": jnp.ones(5)}, "a sums to 5 and b to 1"),
        ({"col_mask": jnp.ones(5, bool)}, r"col_mask has shape \(5,\)"),
        ({"block_size": 0}, "block_size=0"),
        ({"num_iters": 0}, "num_iters=0"),
        ({"cost": "l1"}, "unknown cost 'l1': 'cosine', 'sqeuclidean'"),
    ],
)
def test_wrong_input_is_refused(arguments, message):
    arrays = {"x": jnp.zeros((5, 2)), "y": jnp.zeros((4, 2)), "values": jnp.zeros((4, 2)), "epsilon": 0.1}
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(streaming_sinkhorn)(**arrays | arguments)
