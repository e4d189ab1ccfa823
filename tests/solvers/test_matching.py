"""The door `match` through every method, and `sinkhorn_matching`."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from jaxvos.solvers import match, pgd_matching, qp_matching, sinkhorn_matching

_METHODS = ["pgd", "pgd_released", "qp", "sinkhorn", "hungarian", "greedy"]
_sinkhorn = jax.jit(sinkhorn_matching, static_argnames=("num_iters", "tolerance", "diff"))


def _costs(batch, n=4, m=6, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (batch, n, m)))


def _match(cost, row_mask=None, col_mask=None, **options):
    return jax.jit(partial(match, **options))(cost, row_mask=row_mask, col_mask=col_mask)


def _easy(n=4, m=6):
    """The best pair of every row is far ahead of the others."""
    columns = np.random.default_rng(1).permutation(m)[:n]
    return _costs(1, n, m)[0] * 0.1 - 2 * jnp.asarray(np.arange(m) == columns[:, None]), columns


@pytest.mark.parametrize("method", _METHODS)
def test_every_method_finds_an_easy_assignment(method):
    cost, columns = _easy()
    solution = _match(cost, method=method)
    assert solution.assignment.tolist() == columns.tolist() and solution.matched.all()
    np.testing.assert_allclose(solution.cost, cost[jnp.arange(4), columns].sum(), rtol=1e-12)


@pytest.mark.parametrize("method", _METHODS)
def test_every_method_leaves_out_masked_rows_and_columns_and_abstains(method):
    cost, columns = _easy()
    columns = columns.tolist()
    rows, cols = jnp.array([True, False, True, True]), jnp.arange(6) != columns[2]
    # Row 0 is matched, row 1 does not exist, the column of row 2 does not, and row 3 pays less for none.
    cost = cost.at[3].set(0.9).at[1].set(jnp.nan).at[:, columns[2]].set(jnp.nan)
    masks = {"row_mask": rows, "col_mask": cols}
    solution = _match(cost, method=method, **masks, null_cost=-0.8)
    assert solution.assignment.tolist() == [columns[0], -1, -1, -1]
    assert solution.matched.tolist() == [True, False, False, False]
    assert (solution.plan[1] == 0).all() and (solution.plan[:, columns[2]] == 0).all()
    np.testing.assert_allclose(solution.cost, cost[0, columns[0]] - 1.6, rtol=1e-12)


@pytest.mark.parametrize(
    "method, function, options",
    [
        ("pgd", pgd_matching, {"alpha": 0.3, "num_projections": 2, "variant": "printed", "averaged": False}),
        ("pgd_released", partial(pgd_matching, variant="released"), {"alpha": 0.3, "averaged": False}),
        ("qp", qp_matching, {"t": 1.0, "diff": "unroll"}),
        ("sinkhorn", sinkhorn_matching, {"epsilon": 0.5, "diff": "implicit"}),
    ],
)
def test_options_reach_the_method(method, function, options):
    cost, options = _costs(1)[0], options | {"num_iters": 3}
    usual, reached = (_match(cost, method=method, **some).plan for some in ({}, options))
    np.testing.assert_array_equal(reached, jax.jit(partial(function, **options))(cost).plan)
    assert jnp.abs(reached - usual).max() > 1e-3


def test_what_is_not_there_is_named():
    cost = _costs(1)[0]
    with pytest.raises(ValueError, match="match: unknown method 'lap': 'pgd', 'pgd_released', 'qp', 'sinkhorn', 'hun"):
        inspect.unwrap(match)(cost, method="lap")
    with pytest.raises(TypeError, match="match: method 'qp' has no option 'alpha': t, num_iters, tolerance, diff$"):
        match(cost, method="qp", alpha=0.1)
    with pytest.raises(TypeError, match="method 'pgd_released' has no option 'variant': alpha, num_iters, num_proj"):
        match(cost, method="pgd_released", variant="printed")
    with pytest.raises(TypeError, match="method 'greedy' has no option 't': it has none"):
        match(cost, method="greedy", t=1.0)
    with pytest.raises(ValueError, match="null_cost must be finite, got nan"):
        match(cost, method="greedy", null_cost=float("nan"))


@pytest.mark.parametrize("method", _METHODS)
def test_bad_costs_are_named_before_anything_is_computed(method):
    with pytest.raises(ValueError, match=r"cost\[2, 3\] is inf"):
        match(_costs(1)[0].at[2, 3].set(jnp.inf), method=method)


def test_bad_options_of_sinkhorn_are_named():
    cost, solve = _costs(1)[0], inspect.unwrap(sinkhorn_matching)
    for wrong, message in (
        (
            {"row_mask": jnp.ones(6, bool)},
            r"sinkhorn_matching: row_mask has shape \(6,\), and the cost of shape \(4, 6\)",
        ),
        ({"epsilon": 0.0}, "epsilon must be above zero, got 0"),
        ({"num_iters": 0}, "at least one iteration.* got num_iters=0"),
    ):
        with pytest.raises(ValueError, match=message):
            solve(cost, **wrong)
    with pytest.raises(ValueError, match=r"cost must have two axes .* got shape \(1, 4, 6\)"):
        solve(cost[None])


@pytest.mark.parametrize("shape", [(4, 6), (5, 5), (6, 4)])
def test_sinkhorn_goes_to_the_optimal_assignment(shape):
    costs = _costs(8, *shape)
    solution = jax.jit(jax.vmap(lambda cost: sinkhorn_matching(cost, epsilon=0.01, num_iters=500)))(costs)
    distances = []
    for index, cost in enumerate(np.asarray(costs)):
        rows, columns = linear_sum_assignment(cost)
        expected = np.zeros(shape)
        expected[rows, columns] = 1
        np.testing.assert_array_equal(solution.assignment[index], np.where(expected.any(1), expected.argmax(1), -1))
        distances.append(np.abs(solution.plan[index] - expected).max())
    assert max(distances) < 0.3 and np.mean(distances) < 0.06


@jax.jit
def _pair(costs):
    return jax.vmap(partial(sinkhorn_matching, epsilon=0.1, num_iters=300))(costs)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(arrays(float, (4, 6), elements=st.floats(-1, 1, width=16)), st.permutations(range(4)), st.permutations(range(6)))
def test_sinkhorn_plans_are_feasible_and_follow_the_order(cost, row_order, col_order):
    order = np.ix_(row_order, col_order)
    solution = _pair(jnp.asarray(np.stack([cost, cost[order]])))
    plan, ordered = np.asarray(solution.plan)
    assert (plan > 0).all() and (plan.sum(0) <= 1 + 5e-3).all()
    np.testing.assert_allclose(solution.error[0], max(plan.sum(0).max() - 1, 0), atol=1e-12)
    np.testing.assert_allclose(plan.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(ordered, plan[order], atol=1e-12)


def test_sinkhorn_minimises_cost_less_entropy():
    """The optimality conditions: log plan = (row + price - cost) / epsilon, price <= 0, and 0 where there is room."""
    cost = _costs(1, 4, 6)[0]
    solution = _sinkhorn(cost, epsilon=0.2, num_iters=5000, tolerance=1e-13)
    assert solution.converged and 1 < solution.num_iters < 5000
    prices = 0.2 * jnp.log(solution.plan) + cost
    room = solution.plan.sum(0) < 1 - 1e-9
    assert 0 < room.sum() < 6
    prices = prices - prices[:, room][:, :1]
    np.testing.assert_allclose(prices, jnp.broadcast_to(prices[0], prices.shape), atol=1e-9)
    np.testing.assert_allclose(prices[0, room], 0, atol=1e-9)
    assert (prices[0, ~room] < 0).all()


@pytest.mark.parametrize("shape", [(4, 6), (5, 5), (6, 4), (3, 30)])
def test_sinkhorn_is_close_after_the_usual_iterations_whatever_is_added_to_rows(shape):
    costs = _costs(8, *shape)

    @jax.jit
    def solve(costs):
        usual = jax.vmap(partial(sinkhorn_matching, epsilon=0.1))
        long = jax.vmap(partial(sinkhorn_matching, epsilon=0.1, num_iters=5000))
        return usual(costs), usual(costs + 5 * jnp.arange(shape[0])[:, None]), long(costs)

    plan, shifted, exact = (solution.plan for solution in solve(costs))
    # What a whole row pays decides nothing, unless rows compete for being matched at all.
    if shape[0] <= shape[1]:
        np.testing.assert_allclose(shifted, plan, atol=1e-10)
    assert jnp.abs(plan - exact).max() < 5e-2


def test_sinkhorn_gradients_are_finite_differences():
    cost, weights, direction = _costs(3)
    point, moves = (cost, jnp.asarray(0.2), jnp.asarray(0.1)), (direction, jnp.asarray(1.0), jnp.asarray(1.0))

    @jax.jit
    def run(point):
        def loss(point, diff):
            cost, epsilon, null_cost = point
            solution = sinkhorn_matching(cost, epsilon=epsilon, null_cost=null_cost, num_iters=300, diff=diff)
            return jnp.vdot(solution.plan, weights)

        return loss(point, "unroll"), [jax.grad(loss)(point, diff) for diff in ("unroll", "implicit")]

    _, gradients = run(point)
    for index, move in enumerate(moves):
        ends = []
        for step in (1e-6, -1e-6):
            ends.append(run(tuple(z + step * move if index == k else z for k, z in enumerate(point)))[0])
        expected = (ends[0] - ends[1]) / 2e-6
        assert abs(expected) > 1e-3
        for gradient in gradients:
            np.testing.assert_allclose(jnp.vdot(gradient[index], move), expected, atol=1e-6)


def test_sinkhorn_leaves_out_what_is_masked():
    """With columns to spare, and with fewer of them than rows."""
    cost, weights = map(np.asarray, _costs(2, 7, 9))

    @jax.jit
    def run(cost, weights, masks):
        def loss(cost):
            solution = sinkhorn_matching(cost, **masks)
            return jnp.vdot(solution.plan, weights), solution

        return jax.grad(loss, has_aux=True)(cost)

    for rows, cols in ((np.arange(7) % 3 != 1, np.arange(9) % 4 != 2), (np.arange(7) > 1, np.arange(9) < 4)):
        alive = np.ix_(rows, cols)
        small_gradient, small = run(jnp.asarray(cost[alive]), jnp.asarray(weights[alive]), {})
        garbage = np.full_like(cost, np.nan)
        garbage[alive] = cost[alive]
        masks = {"row_mask": jnp.asarray(rows), "col_mask": jnp.asarray(cols)}
        gradient, solution = run(jnp.asarray(garbage), jnp.asarray(weights), masks)
        for whole, part in ((solution.plan, small.plan), (gradient, small_gradient)):
            np.testing.assert_allclose(np.asarray(whole)[alive], part, atol=1e-11)
            assert (np.asarray(whole)[~(rows[:, None] & cols)] == 0).all()
    for nothing in ("row_mask", "col_mask"):
        gradient, solution = run(jnp.asarray(garbage), jnp.asarray(weights), masks | {nothing: masks[nothing] & False})
        assert (solution.plan == 0).all() and (solution.assignment == -1).all() and (gradient == 0).all()
        assert solution.error == 0 and solution.converged


def test_half_precision_is_upcast():
    half = _costs(1)[0].astype(jnp.bfloat16)
    for method in ("qp", "sinkhorn"):
        value, gradient = jax.jit(jax.value_and_grad(lambda c, method=method: match(c, method=method).plan[0, 0]))(half)
        assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize("method", _METHODS)
def test_no_columns_at_all(method):
    solution = _match(jnp.zeros((3, 0)), method=method)
    assert solution.plan.shape == (3, 0) and solution.assignment.tolist() == [-1] * 3 and solution.error < 1e-6
