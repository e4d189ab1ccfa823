"""`pgd_matching` against NumPy, the released layer's golden values, theorem 1 and the Hungarian algorithm."""

from functools import partial

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from reference import dmm
from scipy.optimize import linear_sum_assignment

from jaxvos.solvers import (
    MatchingSolution,
    dykstra,
    pgd_matching,
    project_columns,
    project_nonnegative,
    project_rows,
)

_VARIANTS = "per_column", "printed", "released"
_SHORT = {"num_iters": 5, "num_projections": 2}
_LONG = {"alpha": 3.0, "num_iters": 60, "num_projections": 300, "averaged": False}
_STATIC = "num_iters", "num_projections", "variant", "averaged"
_solve = jax.jit(pgd_matching, static_argnames=_STATIC)


@partial(jax.jit, static_argnames=_STATIC)
def _solve_all(costs, row_masks, col_masks, **options):
    return jax.vmap(lambda c, r, k: pgd_matching(c, row_mask=r, col_mask=k, **options))(costs, row_masks, col_masks)


@partial(jax.jit, static_argnames=_STATIC)
def _solve_with_gradient(weights, cost, null_cost=None, **options):
    """The solution, and the gradient of the weighted plan by the costs and by `null_cost`, where there is one."""

    def loss(cost, null_cost):
        solution = pgd_matching(cost, null_cost=null_cost, **options)
        return jnp.vdot(solution.plan, weights), solution

    (_, solution), gradients = jax.value_and_grad(loss, 0 if null_cost is None else (0, 1), True)(cost, null_cost)
    return solution, gradients


def _cost(n=4, m=6, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (n, m)))


def _pad(costs, n, m):
    """Costs of any shapes as one batch, NaN where there is nothing, and their masks."""
    batch = np.full((len(costs), n, m), np.nan)
    rows, cols = np.zeros((len(costs), n), bool), np.zeros((len(costs), m), bool)
    for index, cost in enumerate(costs):
        batch[index, : cost.shape[0], : cost.shape[1]] = cost
        rows[index, : cost.shape[0]], cols[index, : cost.shape[1]] = True, True
    return jnp.asarray(batch), jnp.asarray(rows), jnp.asarray(cols)


@pytest.mark.parametrize("variant", _VARIANTS)
def test_equals_numpy(variant):
    cost = _cost()
    mean, last = dmm.matching(cost, variant, 0.3, **_SHORT)
    solution = _solve(cost, alpha=0.3, variant=variant, **_SHORT)
    assert isinstance(solution, MatchingSolution) and solution.num_iters == _SHORT["num_iters"]
    np.testing.assert_allclose(solution.plan, mean, atol=1e-12)
    np.testing.assert_allclose(
        _solve(cost, alpha=0.3, variant=variant, averaged=False, **_SHORT).plan, last, atol=1e-12
    )
    np.testing.assert_array_equal(solution.assignment, mean.argmax(1))
    assert solution.matched.all() and not solution.converged
    np.testing.assert_allclose(solution.cost, np.asarray(cost)[np.arange(4), mean.argmax(1)].sum(), atol=1e-12)
    violation = max(np.abs(mean.sum(1) - 1).max(), (mean.sum(0) - 1).max(), (-mean).max())
    np.testing.assert_allclose(solution.error, violation, atol=1e-12)


@pytest.mark.data
def test_golden_values_of_the_released_layer(golden_dir):
    """All instances in one padded batch: float64 without the early stop, gradients, and float32."""
    arrays = np.load(golden_dir / "matching" / "dmm.npz")

    def padded(name, like):
        """Zeros for the instances of which nothing is stored."""
        values = [arrays.get(f"{name}_{i}", np.zeros_like(arrays[f"{like}_{i}"])) for i in range(24)]
        return np.nan_to_num(_pad(values, 8, 50)[0])

    batch, rows, cols = _pad([arrays[f"C_{i}"] for i in range(24)], 8, 50)
    weights = jnp.asarray(padded("gradW", "C"))
    for averaged, name in ((True, "mean64"), (False, "final64")):
        options = {"variant": "released", "averaged": averaged, "num_iters": 40, "num_projections": 5}
        solution, gradients = jax.vmap(
            lambda w, c, r, k, o=options: _solve_with_gradient(w, c, row_mask=r, col_mask=k, **o)
        )(weights, batch, rows, cols)
        np.testing.assert_allclose(solution.plan, padded(f"X_{name}", "C"), atol=1e-9)
        np.testing.assert_allclose(gradients, padded(f"grad_{name}", "C"), atol=1e-9)
    single = _solve_all(batch.astype(jnp.float32), rows, cols, **options).plan
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, padded("X_final64", "C"), atol=1e-5)


@pytest.mark.data
def test_the_released_start_by_hand(golden_dir):
    """Ties and positive costs: one step too small to see leaves the mean at the start."""
    arrays = np.load(golden_dir / "matching" / "dmm.npz")
    costs, starts = ([arrays[f"hand_{name}_{i}"] for i in range(4)] for name in ("C", "X_init"))
    solution = _solve_all(*_pad(costs, 3, 6), alpha=1e-13, num_iters=1, num_projections=1, variant="released")
    np.testing.assert_allclose(solution.plan, np.nan_to_num(_pad(starts, 3, 6)[0]), atol=1e-12)
    for cost, start in zip(costs, starts, strict=True):
        np.testing.assert_array_equal(dmm.best_pairs(cost), start)


def test_theorem_1():
    """With K steps the bound holds for epsilon = 6 r0^2 / (alpha K), the K of the theorem solved for epsilon."""
    alpha, num_iters, n, m = 0.3, 80, 3, 6
    costs = jnp.stack([_cost(n, m, seed) for seed in range(20)])
    pairs = [linear_sum_assignment(cost) for cost in costs]
    best = np.stack([np.eye(m)[columns] for _, columns in pairs])
    r0 = np.linalg.norm(best - 1 / m, axis=(1, 2))
    epsilon = 6 * r0**2 / (alpha * num_iters)
    assert (alpha < np.minimum(15 * r0, r0 / np.linalg.norm(costs, axis=(1, 2)))).all()
    assert (epsilon > 0.5).all() and (epsilon < 0.9).all()

    plan = jax.vmap(lambda c: _solve(c, alpha=alpha, num_iters=num_iters, num_projections=400).plan)(costs)
    sets = project_rows, project_columns, project_nonnegative
    nearest = jax.vmap(jax.jit(lambda x: dykstra(x, sets, num_iters=2000, tolerance=1e-12).x))(plan)
    gap = np.abs((costs * (plan - best)).sum((1, 2)))
    assert (np.linalg.norm(plan - nearest, axis=(1, 2)) <= epsilon).all()
    assert (gap <= epsilon).all() and gap.max() > 1e-3


@pytest.mark.parametrize("variant, null_cost", [("per_column", None), ("printed", -0.2), ("released", -0.2)])
def test_padding_changes_nothing(variant, null_cost):
    """Masked rows and columns in between, of NaN; plan and gradients of the rest to the last digits."""
    cost, weights, rows, cols = _cost(), _cost(seed=1), np.array([0, 2, 3, 5]), np.array([1, 2, 3, 5, 7, 8])
    inside, outside = np.ix_(rows, cols), np.ones((6, 9), bool)
    padded, padded_weights = np.full((6, 9), np.nan), np.zeros((6, 9))
    padded[inside], padded_weights[inside], outside[inside] = cost, weights, False
    masks = {"row_mask": jnp.asarray(np.isin(np.arange(6), rows)), "col_mask": jnp.asarray(np.isin(np.arange(9), cols))}
    options = _SHORT | {"variant": variant, "null_cost": null_cost}
    expected, theirs = _solve_with_gradient(weights, cost, **options)
    solution, ours = _solve_with_gradient(jnp.asarray(padded_weights), jnp.asarray(padded), **masks, **options)
    np.testing.assert_allclose(solution.plan[inside], expected.plan, atol=1e-12)
    np.testing.assert_array_equal(solution.plan[outside], 0)
    assignment = np.full(6, -1)
    assignment[rows] = np.where(expected.matched, cols[expected.assignment], -1)
    np.testing.assert_array_equal(solution.assignment, assignment)
    np.testing.assert_array_equal(solution.matched, assignment >= 0)
    np.testing.assert_allclose([solution.cost, solution.error], [expected.cost, expected.error], atol=1e-12)
    if null_cost is not None:
        (ours, by_null), (theirs, by_null_unpadded) = ours, theirs
        np.testing.assert_allclose(by_null, by_null_unpadded, atol=1e-12)
        assert abs(by_null) > 1e-3
    np.testing.assert_allclose(ours[inside], theirs, atol=1e-12)
    np.testing.assert_array_equal(ours[outside], 0)


@pytest.mark.parametrize("null_cost", [None, -0.6])
def test_all_shapes_end_at_the_best_matching(null_cost):
    """Fewer, as many and more rows than columns, none of either, in one batch; with abstention where it is cheaper."""
    shapes = [(4, 6), (6, 4), (5, 5), (1, 7), (6, 1), (3, 0), (0, 3), (6, 7), (2, 2)]
    costs = [np.asarray(_cost(n, m, seed)) for seed, (n, m) in enumerate(shapes)]
    batch, row_masks, col_masks = _pad(costs, 6, 7)
    solution = _solve_all(batch, row_masks, col_masks, null_cost=null_cost, **_LONG)
    for index, cost in enumerate(costs):
        n, m = cost.shape
        free = np.full((n, n if null_cost is not None else max(n - m, 0)), null_cost or 0.0)
        rows, columns = linear_sum_assignment(np.concatenate([cost, free], axis=1))
        expected = np.full(6, -1)
        expected[rows] = np.where(columns < m, columns, -1)
        optimum = np.concatenate([cost, free], axis=1)[rows, columns].sum()
        np.testing.assert_array_equal(solution.assignment[index], expected)
        np.testing.assert_array_equal(solution.matched[index], expected >= 0)
        np.testing.assert_allclose(solution.cost[index], optimum, atol=1e-12)
        plan = np.asarray(solution.plan[index])[:n, :m]
        soft = (cost * plan).sum() + (1 - plan.sum(1)).sum() * (null_cost or 0.0)
        np.testing.assert_allclose(soft, optimum, atol=1e-3)
    assert solution.converged.all() and (solution.error < 1e-3).all()
    assert null_cost is None or (solution.assignment[7] == -1).any()  # a row that could have had a column


@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (0, 0), (1, 1)])
def test_tiny_shapes(shape):
    for variant in ("per_column", "released"):
        solution = _solve(jnp.full(shape, -0.5), num_iters=2, num_projections=1, variant=variant, averaged=False)
        np.testing.assert_allclose(solution.plan, np.ones(shape), atol=1e-12)
        np.testing.assert_array_equal(solution.assignment, [0] if shape == (1, 1) else [-1] * shape[0])
        np.testing.assert_allclose([solution.cost, solution.error], [-0.5 if shape == (1, 1) else 0, 0], atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"variant": "printed", "null_cost": 0.3}, {"variant": "released"}])
def test_vmap_equals_one_by_one(options):
    costs = jnp.stack([_cost(seed=seed) for seed in range(3)])
    together = jax.vmap(lambda c: _solve(c, **_SHORT, **options))(costs)
    for index in range(3):
        alone = _solve(costs[index], **_SHORT, **options)
        for ours, theirs in zip(alone, together, strict=True):
            np.testing.assert_allclose(ours, theirs[index], atol=1e-12)


def test_gradients():
    """Of all variants at once, by cost, step size and `null_cost`, in both modes."""
    kinds = [("per_column", True), ("printed", False), ("released", True)]

    @jax.jit
    def plans(cost, alpha, null_cost):
        return [
            pgd_matching(cost, alpha=alpha, null_cost=null_cost, variant=variant, averaged=averaged, **_SHORT).plan
            for variant, averaged in kinds
        ]

    values = _cost(), jnp.asarray(0.3), jnp.asarray(-0.2)
    check_grads(plans, values, order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


def test_half_precision_is_upcast():
    half, weights = _cost().astype(jnp.bfloat16), _cost(seed=1).astype(jnp.float32)
    solution, gradient = _solve_with_gradient(weights, half, **_SHORT)
    full, full_gradient = _solve_with_gradient(weights, half.astype(jnp.float32), **_SHORT)
    assert solution.plan.dtype == solution.cost.dtype == solution.error.dtype == jnp.float32
    np.testing.assert_array_equal(solution.plan, full.plan)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient, full_gradient.astype(jnp.bfloat16))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), alpha=st.floats(0.01, 2.0))
def test_permutations_and_constants(seed, alpha):
    rng = np.random.default_rng(seed)
    cost, rows, columns = rng.uniform(-1, 1, (4, 6)), rng.permutation(4), rng.permutation(6)
    plan = np.asarray(_solve(jnp.asarray(cost), alpha=alpha, **_SHORT).plan)
    assert (plan >= 0).all()
    permuted = _solve(jnp.asarray(cost[rows][:, columns]), alpha=alpha, **_SHORT).plan
    np.testing.assert_allclose(permuted, plan[rows][:, columns], atol=1e-12)
    shifted = _solve(jnp.asarray(cost + rng.normal(size=(4, 1))), alpha=alpha, **_SHORT).plan
    np.testing.assert_allclose(shifted, plan, atol=1e-12)


def test_every_option_matters():
    base = _SHORT | {"alpha": 0.2}
    plan = _solve(_cost(), **base).plan
    changes = [{"alpha": 0.3}, {"num_iters": 6}, {"num_projections": 3}, {"variant": "printed"}]
    changes += [{"variant": "released"}, {"averaged": False}, {"null_cost": 0.0}]
    for change in changes:
        assert jnp.abs(_solve(_cost(), **base | change).plan - plan).max() > 1e-3, change


@pytest.fixture
def unchecked():
    """Without jaxtyping, as users run it: it would refuse some arguments before the solver does."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"num_iters": 0}, "num_iters must be at least one, got 0"),
        ({"num_projections": 0}, "num_projections must be at least one, got 0"),
        ({"alpha": 0.0}, "alpha must be above zero"),
        ({"row_mask": jnp.ones(6, bool)}, "row_mask has shape"),
        ({"variant": "paper"}, "unknown variant 'paper'"),
        ({"cost": jnp.full((4, 6), jnp.nan)}, "not finite"),
    ],
)
def test_wrong_arguments_are_refused(wrong, message, unchecked):
    with pytest.raises(ValueError, match=message):
        pgd_matching(**({"cost": _cost()} | wrong))
