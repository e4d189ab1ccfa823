"""`qp_matching` and `project_birkhoff` against optimality certificates, SciPy, finite differences and assignments."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment, minimize

from jaxvos.solvers import project_birkhoff, qp_matching

_STATIC = ("num_iters", "tolerance", "diff")
_solve = jax.jit(qp_matching, static_argnames=_STATIC)
_birkhoff = jax.jit(project_birkhoff, static_argnames=_STATIC)
_EXACT = {"num_iters": 5000, "tolerance": 1e-12}


@jax.jit
def _solve_all(costs, t):
    return jax.vmap(lambda cost: qp_matching(cost, t=t, **_EXACT))(costs)


def _costs(batch=8, n=4, m=6, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (batch, n, m)))


def _gap(Y, X):
    """How far the feasible X may be from the projection of Y, squared: the projection of Y has a gap of zero.

    X is the projection if and only if no feasible Z has `<Y - X, Z - X> > 0`, and the best Z is an assignment.
    """
    slope = np.asarray(Y - X)
    return slope[linear_sum_assignment(-slope)].sum() - (slope * np.asarray(X)).sum()


@pytest.mark.parametrize("t", [0.5, 4.0, 20.0])
def test_plan_is_the_projection(t):
    costs = _costs()
    solution = _solve_all(costs, t)
    assert solution.converged.all() and (solution.error <= 1e-12).all() and (solution.num_iters < 2000).all()
    np.testing.assert_allclose(solution.plan.sum(2), 1, atol=1e-12)
    for cost, plan in zip(costs, solution.plan, strict=True):
        assert abs(_gap(-t * cost, plan)) < 1e-10


def test_plan_solves_the_quadratic_programme():
    cost = np.asarray(_costs(1, 3, 4)[0])
    rows = {"type": "eq", "fun": lambda x: x.reshape(3, 4).sum(1) - 1}
    columns = {"type": "ineq", "fun": lambda x: 1 - x.reshape(3, 4).sum(0)}
    expected = minimize(
        lambda x: (cost.ravel() * x).sum() + (x**2).sum() / 8, np.full(12, 1 / 4), method="SLSQP", bounds=[(0, 1)] * 12,
        constraints=[rows, columns], options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    np.testing.assert_allclose(_solve(jnp.asarray(cost), **_EXACT).plan, expected.x.reshape(3, 4), atol=1e-6)


def test_the_error_decays_faster_than_with_the_number_of_iterations():
    costs = _costs()
    exact = _solve_all(costs, 4.0).plan
    errors = []
    for num_iters in (5, 20, 80):
        plans = jax.vmap(lambda cost, num_iters=num_iters: _solve(cost, num_iters=num_iters).plan)(costs)
        errors.append(float(jnp.abs(plans - exact).max(axis=(1, 2)).mean()))
    assert errors[1] < 0.05 * errors[0] and errors[2] < 1e-4 * errors[1] and errors[2] < 1e-8


@jax.jit
def _gradients(cost, t, null_cost, weights):
    def loss(cost, t, null_cost, diff):
        return jnp.vdot(qp_matching(cost, t=t, null_cost=null_cost, num_iters=300, diff=diff).plan, weights)

    return [jax.grad(loss, (0, 1, 2))(cost, t, null_cost, diff) for diff in ("implicit", "unroll")]


def test_implicit_and_unrolled_gradients_are_finite_differences():
    cost, weights, direction = _costs(3, seed=1)
    point, moves = (cost, jnp.asarray(1.5), jnp.asarray(-0.3)), (direction, jnp.asarray(1.0), jnp.asarray(1.0))
    implicit, unrolled = _gradients(*point, weights)
    for index, move in enumerate(moves):
        ends = []
        for step in (1e-6, -1e-6):
            cost, t, null_cost = (z + step * move if index == k else z for k, z in enumerate(point))
            ends.append(jnp.vdot(_solve(cost, t=t, null_cost=null_cost, **_EXACT).plan, weights))
        expected = (ends[0] - ends[1]) / 2e-6
        assert abs(expected) > 1e-3
        np.testing.assert_allclose(jnp.vdot(implicit[index], move), expected, atol=1e-6)
        np.testing.assert_allclose(unrolled[index], implicit[index], atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 5), (6, 4)])
def test_gradients_where_every_column_is_full(shape):
    """The multipliers are not unique then."""
    costs, weights = _costs(8, *shape), _costs(8, *shape, seed=9)

    def loss(costs, diff):
        plans = jax.vmap(lambda cost: qp_matching(cost, t=2.0, num_iters=200, diff=diff).plan)(costs)
        return jnp.vdot(plans, weights)

    @jax.jit
    def gradients(costs):
        return jax.grad(loss)(costs, "implicit"), jax.grad(loss)(costs, "unroll")

    implicit, unrolled = gradients(costs)
    assert (jnp.abs(implicit).max(axis=(1, 2)) > 0).sum() > 3
    np.testing.assert_allclose(implicit, unrolled, atol=1e-6)


def test_unrolled_gradient_is_that_of_the_iterations_made():
    cost, weights, direction = _costs(3)

    @jax.jit
    def run(cost):
        def loss(cost, diff):
            return jnp.vdot(qp_matching(cost, t=20.0, num_iters=3, diff=diff).plan, weights)

        return jax.value_and_grad(loss)(cost, "unroll"), jax.grad(loss)(cost, "implicit")

    ends = [run(cost + step * direction)[0][0] for step in (1e-6, -1e-6)]
    expected = (ends[0] - ends[1]) / 2e-6
    (_, unrolled), implicit = run(cost)
    np.testing.assert_allclose(jnp.vdot(unrolled, direction), expected, atol=1e-6)
    assert abs(jnp.vdot(implicit, direction) - expected) > 1e-2


def test_masked_cells_change_nothing():
    cost, weights = _costs(2, 7, 9)
    rows, cols = jnp.arange(7) % 3 != 1, jnp.arange(9) % 4 != 2
    alive = rows[:, None] & cols

    @jax.jit
    def run(cost, weights, masks):
        def loss(cost):
            solution = qp_matching(cost, **masks, num_iters=30)
            return jnp.vdot(solution.plan, weights), solution

        return jax.grad(loss, has_aux=True)(cost)

    small_gradient, small = run(cost[rows][:, cols], weights[rows][:, cols], {})
    for garbage in (jnp.nan, -1e6):
        gradient, solution = run(jnp.where(alive, cost, garbage), weights, {"row_mask": rows, "col_mask": cols})
        assert (solution.plan[~alive] == 0).all() and (gradient[~alive] == 0).all()
        assert (solution.assignment[~rows] == -1).all() and not solution.matched[~rows].any()
        np.testing.assert_allclose(solution.plan[rows][:, cols], small.plan, atol=1e-12)
        np.testing.assert_allclose(gradient[rows][:, cols], small_gradient, atol=1e-12)
        np.testing.assert_allclose((solution.cost, solution.error), (small.cost, small.error), atol=1e-12)
    for masks in ({"row_mask": jnp.zeros(7, bool)}, {"row_mask": rows, "col_mask": jnp.zeros(9, bool)}):
        gradient, solution = run(jnp.full_like(cost, jnp.nan), weights, {"row_mask": rows, "col_mask": cols} | masks)
        assert (solution.plan == 0).all() and (gradient == 0).all() and (solution.assignment == -1).all()
        assert solution.error == 0 and solution.cost == 0 and solution.converged


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    arrays(float, (2, 4, 6), elements=st.floats(-3, 3, width=16)), st.permutations(range(4)), st.permutations(range(6))
)
def test_properties_of_a_projection(costs, row_order, col_order):
    costs = jnp.asarray(costs)
    shifted = costs[0] + jnp.arange(4.0)[:, None]
    plans = _solve_all(jnp.stack([*costs, costs[0][jnp.array(row_order)][:, jnp.array(col_order)], shifted]), 4.0).plan
    assert (plans >= 0).all() and (plans.sum(1) <= 1 + 1e-9).all()
    np.testing.assert_allclose(plans.sum(2), 1, atol=1e-12)
    assert jnp.linalg.norm(plans[0] - plans[1]) <= 4 * jnp.linalg.norm(costs[0] - costs[1]) + 1e-9
    np.testing.assert_allclose(plans[2], plans[0][jnp.array(row_order)][:, jnp.array(col_order)], atol=1e-9)
    np.testing.assert_allclose(plans[3], plans[0], atol=1e-9)  # what a whole row pays decides nothing


@pytest.mark.parametrize("shape", [(4, 6), (5, 5), (6, 4)])
def test_goes_to_the_optimal_assignment(shape):
    costs = _costs(8, *shape)
    solution = _solve_all(costs, 200.0)
    for index, cost in enumerate(np.asarray(costs)):
        rows, columns = linear_sum_assignment(cost)
        expected = np.zeros(shape)
        expected[rows, columns] = 1
        np.testing.assert_allclose(solution.plan[index], expected, atol=1e-9)
        np.testing.assert_array_equal(solution.assignment[index] >= 0, expected.any(1))
        np.testing.assert_allclose(solution.cost[index], cost[rows, columns].sum(), atol=1e-9)


def test_rows_abstain_where_nothing_is_cheaper():
    cost = jnp.array([[0.1, 0.9, 0.8], [0.2, 0.9, 0.7]])
    for null_cost, expected in ((0.5, [0, -1]), (5.0, [0, 2]), (-1.0, [-1, -1])):
        solution = _solve(cost, t=100.0, num_iters=200, null_cost=null_cost)
        assert solution.assignment.tolist() == expected
        paid = [null_cost if column < 0 else float(cost[row, column]) for row, column in enumerate(expected)]
        np.testing.assert_allclose(solution.cost, sum(paid), atol=1e-12)
    assert _solve(cost[:, :0]).assignment.tolist() == [-1, -1]
    assert _solve(cost[:0]).plan.shape == (0, 3) and _solve(cost[:0, :0]).plan.shape == (0, 0)


def test_vmap_is_one_by_one_and_tolerance_stops_early():
    costs = jnp.concatenate([_costs(3), 10 * _costs(3, seed=1)])
    together = _solve_all(costs, 4.0)
    assert len(set(together.num_iters.tolist())) > 2
    for index, cost in enumerate(costs):
        alone = _solve(cost, **_EXACT)
        np.testing.assert_allclose(together.plan[index], alone.plan, atol=1e-13)
        assert alone.num_iters == together.num_iters[index]
    early = _solve(costs[0], num_iters=5000, tolerance=1e-3)
    assert early.converged and early.error <= 1e-3 and 1 < early.num_iters < together.num_iters[0]
    np.testing.assert_allclose(early.plan, together.plan[0], atol=1e-3)
    hardest = costs[together.num_iters.argmax()]
    capped = _solve(hardest, num_iters=2, tolerance=1e-12)
    assert not capped.converged and capped.num_iters == 2 and capped.error > 1e-3
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(lambda cost: _solve(cost, tolerance=1e-3, diff="unroll").plan[0, 0])(costs[0])
    implicit = jax.grad(lambda cost: jnp.vdot(_solve(cost, **_EXACT).plan, costs[1]))(costs[0])
    fixed = jax.grad(lambda cost: jnp.vdot(_solve(cost).plan, costs[1]))(costs[0])
    np.testing.assert_allclose(implicit, fixed, atol=1e-12)


def test_precision():
    costs = _costs(8)
    exact = _solve_all(costs, 4.0)
    single = jax.jit(jax.vmap(lambda cost: qp_matching(cost, num_iters=200)))(costs.astype(jnp.float32))
    np.testing.assert_allclose(single.plan, exact.plan, atol=2e-6)
    half = costs[0].astype(jnp.bfloat16)
    solution, gradient = jax.jit(jax.value_and_grad(lambda c: qp_matching(c).plan[0, 0]))(half)
    assert solution.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    large = _solve((costs[0] + 1e4).astype(jnp.float32), num_iters=200).plan
    np.testing.assert_allclose(large, exact.plan[0], atol=2e-2)  # the rounding of the costs alone is 1e-3, times t


def test_birkhoff_is_the_projection():
    x = 3 * _costs(8, 6, 6)
    project = jax.vmap(lambda x: _birkhoff(x, **_EXACT))
    plans = project(x)
    for dimension in (1, 2):
        np.testing.assert_allclose(plans.sum(dimension), 1, atol=1e-12)
    assert (plans >= 0).all()
    assert all(abs(_gap(y, plan)) < 1e-10 for y, plan in zip(x, plans, strict=True))
    np.testing.assert_allclose(project(x.swapaxes(1, 2)), plans.swapaxes(1, 2), atol=1e-10)
    np.testing.assert_allclose(project(plans), plans, atol=1e-10)
    np.testing.assert_allclose(jax.vmap(_birkhoff)(x), plans, atol=1e-6)
    assert jnp.abs(jax.vmap(lambda x: _birkhoff(x, num_iters=3))(x) - plans).max() > 1e-2
    assert _birkhoff(x[0].astype(jnp.bfloat16)).dtype == jnp.float32


def test_gradient_of_birkhoff():
    x, weights, direction = _costs(3, 5, 5)

    def gradient(diff):
        return jax.jit(jax.grad(lambda x: jnp.vdot(project_birkhoff(x, num_iters=400, diff=diff), weights)))(x)

    ends = [jnp.vdot(_birkhoff(x + step * direction, **_EXACT), weights) for step in (1e-6, -1e-6)]
    implicit = gradient("implicit")
    np.testing.assert_allclose(jnp.vdot(implicit, direction), (ends[0] - ends[1]) / 2e-6, atol=1e-6)
    np.testing.assert_allclose(gradient("unroll"), implicit, atol=1e-6)


def test_nan_is_not_hidden():
    x = _costs(1, 4, 4)[0].at[1, 2].set(jnp.nan)
    assert jnp.isnan(_birkhoff(x)[1]).any()
    solution = _solve(x)
    assert jnp.isnan(solution.plan).any() and not solution.converged


@pytest.mark.parametrize(
    "options, message",
    [
        ({"t": 0.0}, "t must be above zero, got 0"),
        ({"num_iters": 0}, "num_iters must be above zero, got 0"),
        ({"tolerance": -1.0}, "tolerance must be zero or more, got -1"),
        ({"diff": "forward"}, "unknown diff 'forward': 'implicit', 'unroll'"),
        ({"row_mask": jnp.ones(3, bool)}, r"row_mask has shape \(3,\), and the cost of shape \(4, 6\) needs \(4,\)"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(qp_matching)(_costs(1)[0], **options)  # past the shape checker, which only tests have


def test_bad_matrices_are_named():
    with pytest.raises(ValueError, match=r"cost\[1, 2\] is nan"):
        qp_matching(_costs(1)[0].at[1, 2].set(jnp.nan))
    with pytest.raises(ValueError, match=r"x must be a square matrix, got shape \(4, 6\)"):
        inspect.unwrap(project_birkhoff)(_costs(1)[0])
