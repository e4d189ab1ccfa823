"""`hungarian` against SciPy and golden values, `greedy` against a loop."""

import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from jaxvos.solvers import greedy, hungarian

_BATCH = 100
_METHODS = {"hungarian": hungarian, "greedy": greedy}
_whole = jax.jit(lambda method, cost, **null: _METHODS[method](cost, **null), static_argnums=0)


def _instances(shape, dtype):
    """Costs, NaN where masked, masks, and costs of no match; some instances have no row, no column or neither."""
    rng = np.random.default_rng(0)
    costs = rng.uniform(-1, 1, (_BATCH, *shape))
    rows, cols = (rng.random((_BATCH, size)) < 0.7 for size in shape)
    rows[:3], cols[2:5] = False, False
    costs[~(rows[:, :, None] & cols[:, None])] = np.nan
    return costs.astype(dtype), rows, cols, rng.uniform(-1, 0.5, _BATCH).astype(dtype)


def _solve(method, costs, rows, cols, null_costs):
    def run(cost, row_mask, col_mask, null_cost):
        masks = {"row_mask": row_mask, "col_mask": col_mask}
        return method(jnp.nan_to_num(cost)), method(cost, **masks), method(cost, **masks, null_cost=null_cost)

    return jax.jit(jax.vmap(run))(*map(jnp.asarray, (costs, rows, cols, null_costs)))


def _check(solutions, costs, rows, cols, null_costs, total, tolerance):
    """That all are assignments within the masks, and that each costs what `total(cost, null_cost)` says."""
    for solution in solutions:
        assert solution.converged.all() and (solution.error == 0).all() and solution.plan.dtype == costs.dtype
        np.testing.assert_array_equal(solution.plan.sum(2), solution.matched)
        np.testing.assert_array_equal(solution.matched, solution.assignment >= 0)
    everything = np.ones_like(rows), np.ones_like(cols)
    problems = (np.nan_to_num(costs), *everything, None), (costs, rows, cols, None), (costs, rows, cols, null_costs)
    for solution, (costs, rows, cols, null_costs) in zip(solutions, problems, strict=True):
        for index in range(_BATCH):
            there, null_cost = np.ix_(rows[index], cols[index]), null_costs if null_costs is None else null_costs[index]
            cost, plan = costs[index].astype(np.float64)[there], np.asarray(solution.plan[index])[there]
            assert plan.sum() == solution.plan[index].sum() and (plan.sum(0) <= 1).all() and (plan.sum(1) <= 1).all()
            assert set(plan.ravel().tolist()) <= {0, 1}
            if null_cost is None:
                assert plan.sum() == min(plan.shape)
            paid = (plan * cost).sum() + (0 if null_cost is None else null_cost) * (1 - plan.sum(1)).sum()
            expected = total(cost, null_cost)
            np.testing.assert_allclose(paid, expected, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(solution.cost[index], expected, rtol=tolerance, atol=tolerance)


def _optimum(cost, null_cost):
    if null_cost is not None:
        cost = np.concatenate([cost, np.full((len(cost), len(cost)), null_cost)], axis=1)
    return cost[linear_sum_assignment(cost)].sum()


def _slow_greedy(cost, null_cost):
    cost, total, unmatched = cost.copy(), 0.0, len(cost)
    while cost.size and cost.min() <= (1e9 if null_cost is None else null_cost):
        row, column = divmod(int(cost.argmin()), cost.shape[1])
        total, unmatched = total + cost[row, column], unmatched - 1
        cost = np.delete(np.delete(cost, row, 0), column, 1)
    return total + (0 if null_cost is None else null_cost) * unmatched


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-6)])
@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6)])
def test_hungarian_costs_what_scipy_says(shape, dtype, tolerance):
    instances = _instances(shape, dtype)
    with jax.enable_x64(dtype == np.float64):
        _check(_solve(hungarian, *instances), *instances, _optimum, tolerance)


@pytest.mark.parametrize("shape", [(5, 8), (8, 5)])
def test_greedy_costs_what_a_loop_says(shape):
    instances = _instances(shape, np.float64)
    solutions = _solve(greedy, *instances)
    _check(solutions, *instances, _slow_greedy, 1e-12)
    optimal = [_optimum(np.nan_to_num(cost), None) for cost in instances[0]]
    assert (np.asarray(solutions[0].cost) > np.array(optimal) + 0.1).sum() > 10


@pytest.mark.data
def test_golden_values(golden_dir):
    golden = np.load(golden_dir / "matching" / "dmm.npz")
    cases = json.loads((golden_dir / "matching" / "dmm.json").read_text())["cases"]
    # Padded to one shape, so that there is one program.
    padded = np.zeros((len(cases), 9, 51))
    rows, cols = np.zeros((len(cases), 9), bool), np.zeros((len(cases), 51), bool)
    for index, case in enumerate(cases):
        cost = golden[f"C_{case['i']}"]
        padded[index, : cost.shape[0], : cost.shape[1]] = cost
        rows[index, : cost.shape[0]], cols[index, : cost.shape[1]] = True, True
    solve = jax.jit(jax.vmap(lambda cost, rows, cols: hungarian(cost, row_mask=rows, col_mask=cols)))
    solution = solve(*map(jnp.asarray, (padded, rows, cols)))
    for index, case in enumerate(cases):
        assert solution.assignment[index, : case["n"]].tolist() == case["hungarian_cols"]
        np.testing.assert_allclose(solution.cost[index], case["hungarian_cost"], rtol=1e-6)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(arrays(np.int8, (4, 5), elements=st.integers(-2, 2)))
def test_ties(cost):
    cost = cost.astype(np.float64)
    solution = _whole("hungarian", jnp.asarray(cost))
    assert sorted(set(solution.assignment.tolist())) == sorted(solution.assignment.tolist())
    assert solution.cost == _optimum(cost, None)
    assert _whole("greedy", jnp.asarray(cost)).cost == _slow_greedy(cost, None)


def test_greedy_takes_the_first_of_equal_pairs():
    assert _whole("greedy", jnp.zeros((4, 5))).assignment.tolist() == [0, 1, 2, 3]
    assert _whole("greedy", jnp.zeros((4, 5)).at[0, 3].set(-1).at[2, 3].set(-1)).assignment.tolist() == [3, 0, 1, 2]
    for second, expected in (([0.0, 1.0], [-1, 0]), ([1.0, 1.0], [0, 1])):
        cost = jnp.array([[1.0, 2.0], second])
        assert _whole("greedy", cost, null_cost=jnp.asarray(1.0)).assignment.tolist() == expected


@pytest.mark.parametrize("method", _METHODS)
def test_nothing_to_match(method):
    for shape in ((0, 0), (0, 3)):
        solution = _whole(method, jnp.zeros(shape))
        assert solution.plan.shape == shape and solution.assignment.shape == (0,) and solution.converged
    for null, paid in (({}, 0.0), ({"null_cost": jnp.asarray(0.5)}, 1.5)):
        solution = _whole(method, jnp.zeros((3, 0)), **null)
        assert solution.assignment.tolist() == [-1] * 3 and not solution.matched.any() and solution.converged
        assert solution.plan.shape == (3, 0) and solution.cost == paid


@pytest.mark.parametrize("method", _METHODS)
def test_the_plan_has_no_gradient_and_the_cost_has_one(method):
    cost = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, 5)))
    plan, cost_gradient = jax.jit(jax.jacrev(lambda cost: (lambda s: (s.plan, s.cost))(_METHODS[method](cost))))(cost)
    assert (plan == 0).all()
    np.testing.assert_array_equal(cost_gradient, _whole(method, cost).plan)
    half = _whole(method, cost.astype(jnp.bfloat16))
    assert half.plan.dtype == half.cost.dtype == jnp.float32 and half.matched.all()


@pytest.mark.parametrize("method", _METHODS)
def test_costs_that_are_not_finite_are_refused_or_ended(method):
    cost = jnp.zeros((4, 5)).at[2, 3].set(jnp.nan)
    with pytest.raises(ValueError, match=rf"{method}: cost\[2, 3\] is nan"):
        _METHODS[method](cost)
    with pytest.raises(ValueError, match=rf"{method}: col_mask has shape \(4,\), and the cost of shape \(4, 5\) needs"):
        inspect.unwrap(_METHODS[method])(cost, col_mask=jnp.ones(4, bool))
    for bad in (cost, jnp.full((4, 5), jnp.nan), jnp.full((4, 5), jnp.inf)):  # no check while it is traced: it must end
        solution = _whole(method, bad)
        assert method == "greedy" or not solution.converged
