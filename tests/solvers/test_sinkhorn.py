"""`sinkhorn` against ott-jax, golden values, NumPy, finite differences and the Hungarian algorithm."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.sinkhorn import sinkhorn as slow_sinkhorn
from scipy.optimize import linear_sum_assignment

from jaxvos.solvers import SinkhornSolution, sinkhorn

_STATIC = ("num_iters", "tolerance", "tau_a", "tau_b", "domain", "diff")
_FORMS = [("stabilized", "unroll"), ("stabilized", "implicit"), ("log", "unroll"), ("log", "implicit")]
_DAMPED = ("stabilized", "implicit", 0.8)
_solve = jax.jit(sinkhorn, static_argnames=_STATIC)


def _loss(cost, a, b, weights, epsilon, **options):
    """A scalar of everything that does not depend on the gauge: the plan, and potentials weighted to sum to zero."""
    solution = sinkhorn(cost, a, b, epsilon=epsilon, **options)
    return jnp.vdot(solution.plan, weights) + 0.1 * (jnp.vdot(solution.f, a**2) / jnp.vdot(a, a) + solution.g.mean())


_gradients = jax.jit(jax.grad(_loss, argnums=(0, 1, 2, 4)), static_argnames=_STATIC)


def _problem(n=12, m=9, seed=0):
    rng = np.random.default_rng(seed)
    cost = ((rng.normal(size=(n, 1, 2)) - rng.normal(size=(1, m, 2))) ** 2).sum(-1)
    a, b = rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, m)
    return tuple(map(jnp.asarray, (cost, a / a.sum(), b / b.sum(), rng.normal(size=(n, m)))))


def _ott_plan(cost, a, b, epsilon, num_iters, tau_a=1.0, tau_b=1.0):
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    problem = LinearProblem(Geometry(cost, epsilon=epsilon, relative_epsilon=None), a, b, tau_a=tau_a, tau_b=tau_b)
    solver = Sinkhorn(
        threshold=-1.0, inner_iterations=1, min_iterations=0, max_iterations=num_iters, implicit_diff=None
    )
    return solver(problem).matrix


@pytest.mark.parametrize("num_iters", [1, 2, 12, 31])
def test_plan_equals_ott_after_the_same_iterations(num_iters):
    cost, a, b, _ = _problem()
    expected = _ott_plan(cost, a, b, 0.2, num_iters)
    for domain in ("stabilized", "log"):
        plan = _solve(cost, a, b, epsilon=0.2, num_iters=num_iters, domain=domain).plan
        np.testing.assert_allclose(plan, expected, atol=1e-9)
    np.testing.assert_allclose(slow_sinkhorn(cost, a, b, 0.2, num_iters), expected, atol=1e-12)


@pytest.mark.parametrize("tau_a, tau_b", [(1.0, 1.0), (0.7, 0.9)])
def test_gradient_equals_ott(tau_a, tau_b):
    cost, a, b, weights = _problem()
    taus = {"tau_a": tau_a, "tau_b": tau_b}

    def gradient(plan):
        return jax.jit(jax.grad(lambda cost, epsilon: jnp.vdot(plan(cost, epsilon), weights), (0, 1)))(cost, 0.3)

    for num_iters, forms in ((15, _FORMS[::2]), (300, _FORMS[:2])):
        expected = gradient(lambda c, e, n=num_iters: _ott_plan(c, a, b, e, n, tau_a, tau_b))
        for domain, diff in forms:
            options = taus | {"num_iters": num_iters, "domain": domain, "diff": diff}
            actual = gradient(lambda c, e, options=options: sinkhorn(c, a, b, epsilon=e, **options).plan)
            for ours, theirs in zip(actual, expected, strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.data
def test_golden_values(golden_dir):
    arrays = np.load(golden_dir / "matching" / "sinkhorn.npz")
    cases = json.loads((golden_dir / "matching" / "sinkhorn.json").read_text())["cases"]

    @partial(jax.jit, static_argnames=("tau", "diff"))
    def solve(cost, a, b, weights, epsilon, tau, diff):
        def loss(cost):
            options = {"num_iters": 4000, "tolerance": 1e-13, "tau_a": tau, "tau_b": tau, "diff": diff}
            solution = sinkhorn(cost, a, b, epsilon=epsilon, **options)
            return jnp.vdot(solution.plan, weights), solution

        gradient, solution = jax.grad(loss, has_aux=True)(cost)
        return solution, gradient

    checked = set()
    for case in cases:
        key, index, eps, rho, mode = (case[name] for name in ("key", "case", "eps", "rho", "mode"))
        if eps < 0.05 or index > 2 or (rho is not None and eps != 0.1):
            continue  # time
        x, y, a, b = (jnp.asarray(arrays[f"{name}_{index}"]) for name in ("x", "y", "a", "b"))
        if "_uni" in mode:
            a, b = jnp.full(case["n"], 1 / case["n"]), jnp.full(case["m"], 1 / case["m"])
        cost = ((x[:, None] - y) ** 2).sum(-1)
        if mode.startswith("unb_"):  # the entropy against a b^T is a matter of the cost
            cost = cost - eps * (jnp.log(a)[:, None] + jnp.log(b))
        weights = np.random.RandomState(case["W_seed"]).standard_normal(cost.shape)
        tau = 1.0 if rho is None else rho / (rho + eps)
        solution, gradient = solve(cost, a, b, weights, eps, tau, "implicit")
        rows = slice(None) if case["rows"] == "all" else np.array(case["rows"])
        plan, expected = arrays[f"plan_{key}"], arrays[f"grad_{key}"]
        np.testing.assert_allclose(solution.plan[rows], plan, atol=1e-8 * plan.max(), err_msg=key)
        np.testing.assert_allclose(gradient[rows], expected, atol=1e-6 * np.abs(expected).max(), err_msg=key)
        assert solution.converged, key
        checked.add(mode)
    unbalanced = {"unbent_non_1", "unbent_uni_0.1", "unb_uni_1", "unb_non_1", "unb_non_0.1"}
    assert checked == {"bal_uni", "bal_non"} | unbalanced


def test_log_and_stabilized_agree_in_float32():
    cost, a, b, weights = (z.astype(jnp.float32) for z in _problem(40, 40))
    for num_iters in (1, 20, 50):
        options = {"epsilon": jnp.float32(0.05), "num_iters": num_iters}
        log, kernel = (_solve(cost, a, b, domain=domain, **options) for domain in ("log", "stabilized"))
        np.testing.assert_allclose(kernel.plan, log.plan, atol=5e-7)
        np.testing.assert_allclose(kernel.f, log.f, atol=1e-5)
        np.testing.assert_allclose(kernel.g, log.g, atol=1e-5)
        assert kernel.plan.dtype == jnp.float32


@pytest.mark.parametrize("domain, diff, tau", [*((*form, 1.0) for form in _FORMS), ("log", "unroll", 0.8), _DAMPED])
def test_gradients_are_finite_differences(domain, diff, tau):
    """Unrolled after 7 iterations, far from convergence, and after 15 (two blocks); implicit at convergence."""
    cost, a, b, weights = _problem(5, 6)
    rng = np.random.default_rng(1)
    directions = [jnp.asarray(rng.normal(size=z.shape)) for z in (cost, a, b, jnp.zeros(()))]
    if diff == "implicit":  # the balanced problem exists for equal masses only
        directions[1], directions[2] = (z - z.mean() for z in directions[1:3])
    for num_iters in (7, 15) if diff == "unroll" else (600,):
        options = {"num_iters": num_iters, "domain": domain, "diff": diff, "tau_a": tau, "tau_b": tau}
        points = (cost, a, b, jnp.asarray(0.3))

        def loss(point, weights=weights, options=options):
            cost, a, b, epsilon = point
            if diff == "implicit":  # quantities without gauge: the weights of f and of g must sum to the same
                solution = sinkhorn(cost, a, b, epsilon=epsilon, **options)
                return jnp.vdot(solution.plan, weights) + 0.1 * (solution.f[0] + solution.g[2])
            return _loss(cost, a, b, weights, epsilon, **options)

        value = jax.jit(loss)
        gradient = jax.jit(jax.grad(loss))(points)
        for index, direction in enumerate(directions):
            ends = []
            for step in (1e-5, -1e-5):
                moved = list(points)
                moved[index] = moved[index] + step * direction
                ends.append(float(value(tuple(moved))))
            expected = (ends[0] - ends[1]) / 2e-5
            np.testing.assert_allclose(jnp.vdot(gradient[index], direction), expected, rtol=1e-5, atol=1e-7)


def test_implicit_and_unrolled_gradients_meet_at_convergence():
    cost, a, b, weights = _problem()
    results = [_gradients(cost, a, b, weights, 0.2, num_iters=400, domain=d, diff=how) for d, how in _FORMS]
    for other in results[1:]:
        np.testing.assert_allclose(other[0], results[0][0], atol=1e-9)
        np.testing.assert_allclose(other[3], results[0][3], atol=1e-9)
        for mine, its in zip(other[1:3], results[0][1:3], strict=True):  # up to a constant: masses stay equal
            np.testing.assert_allclose(mine - mine.mean(), its - its.mean(), atol=1e-8)


@pytest.mark.parametrize("domain, diff", _FORMS)
def test_masked_cells_change_nothing(domain, diff):
    cost, _, _, weights = _problem()
    rows, cols = jnp.arange(12) % 4 != 1, jnp.arange(9) % 3 != 2
    alive = rows[:, None] & cols
    options = {"num_iters": 15, "domain": domain, "diff": diff}

    @jax.jit
    def run(cost, weights, epsilon, masks):
        def loss(cost, epsilon):
            solution = sinkhorn(cost, **masks, **options, epsilon=epsilon)
            return jnp.vdot(solution.plan, weights), solution

        return jax.grad(loss, (0, 1), has_aux=True)(cost, epsilon)

    small_gradient, small = run(cost[rows][:, cols], weights[rows][:, cols], 0.2, {})
    for garbage in (jnp.nan, jnp.inf, -1e6):
        gradient, solution = run(jnp.where(alive, cost, garbage), weights, 0.2, {"row_mask": rows, "col_mask": cols})
        assert (solution.plan[~alive] == 0).all()
        assert (gradient[0][~alive] == 0).all()
        np.testing.assert_allclose(solution.plan[rows][:, cols], small.plan, atol=1e-14)
        np.testing.assert_allclose(gradient[0][rows][:, cols], small_gradient[0], atol=1e-12)
        np.testing.assert_allclose(gradient[1], small_gradient[1], atol=1e-11)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in solution)


@pytest.mark.parametrize("domain, diff", _FORMS)
def test_zero_masses_are_left_out(domain, diff):
    cost, a, b, weights = _problem()
    a, b = a.at[3].set(0.0), b.at[jnp.array([0, 5])].set(0.0)
    a, b = a / a.sum(), b / b.sum()
    options = {"num_iters": 60, "domain": domain, "diff": diff}
    solution = _solve(cost, a, b, epsilon=0.2, **options)
    np.testing.assert_allclose(solution.plan.sum(1), a, atol=1e-10)
    np.testing.assert_allclose(solution.plan.sum(0), b, atol=1e-3)
    rows, cols = np.flatnonzero(a), np.flatnonzero(b)
    small = _solve(cost[rows][:, cols], a[rows], b[cols], epsilon=0.2, **options).plan
    np.testing.assert_allclose(solution.plan[rows][:, cols], small, atol=1e-13)
    assert all(bool(jnp.isfinite(g).all()) for g in _gradients(cost, a, b, weights, 0.2, **options))


@pytest.mark.parametrize("domain, diff", _FORMS)
def test_everything_masked_is_nothing(domain, diff):
    cost, _, _, weights = _problem()
    for rows in (jnp.zeros(12, bool), jnp.ones(12, bool)):
        options = {"row_mask": rows, "col_mask": jnp.zeros(9, bool), "num_iters": 15, "domain": domain, "diff": diff}

        def loss(cost, epsilon, options=options):
            solution = sinkhorn(cost, epsilon=epsilon, **options)
            return jnp.vdot(solution.plan, weights) + solution.f.sum() + solution.g.sum(), solution

        gradient, solution = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(jnp.full_like(cost, jnp.nan), 0.2)
        assert (gradient[0] == 0).all() and gradient[1] == 0
        assert (solution.plan == 0).all() and (solution.f == 0).all() and (solution.g == 0).all()
        assert solution.error == 0 and solution.converged


@pytest.mark.parametrize("domain, diff, tau", [*((*form, 1.0) for form in _FORMS), ("log", "unroll", 0.8), _DAMPED])
def test_small_epsilon_stays_finite_in_float32(domain, diff, tau):
    rng = np.random.default_rng(0)
    cost = jnp.asarray(rng.uniform(0, 2, (30, 30)), jnp.float32)
    masses, weights = jnp.ones(30, jnp.float32), jnp.asarray(rng.normal(size=(30, 30)), jnp.float32)
    options = {"num_iters": 60, "domain": domain, "diff": diff, "tau_a": tau, "tau_b": tau}
    for epsilon in (1e-3, 1e-4):
        solution = _solve(cost, masses, masses, epsilon=jnp.float32(epsilon), **options)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in solution)
        gradients = _gradients(cost, masses, masses, weights, jnp.float32(epsilon), **options)
        assert all(bool(jnp.isfinite(g).all()) for g in gradients)
        if tau == 1:
            np.testing.assert_allclose(solution.plan.sum(1), 1, atol=2e-3)


def test_small_epsilon_in_float32_equals_float64():
    cost = jnp.asarray(np.random.default_rng(0).uniform(0, 2, (30, 30)))
    exact = _solve(cost, epsilon=1e-3, num_iters=100, domain="log").plan * 30
    for domain in ("stabilized", "log"):
        plan = _solve(cost.astype(jnp.float32), epsilon=jnp.float32(1e-3), num_iters=100, domain=domain).plan * 30
        np.testing.assert_allclose(plan, exact, atol=2e-3)


def test_half_precision_is_upcast():
    cost, a, b, _ = _problem()
    half = cost.astype(jnp.bfloat16)
    for domain in ("stabilized", "log"):
        solution = _solve(half, epsilon=0.1, domain=domain)
        assert solution.plan.dtype == solution.f.dtype == solution.error.dtype == jnp.float32
        np.testing.assert_allclose(solution.plan.sum(1), 1 / 12, rtol=1e-5)
        np.testing.assert_allclose(solution.plan, _solve(half.astype(jnp.float32), epsilon=0.1, domain=domain).plan)
    gradient = jax.jit(jax.grad(lambda c: sinkhorn(c, epsilon=0.1).plan[0, 0]))(half)
    assert gradient.dtype == jnp.bfloat16 and jnp.isfinite(gradient).all()


@pytest.mark.parametrize("domain, diff", _FORMS)
def test_one_row_and_one_column(domain, diff):
    cost, a, b, weights = _problem()
    options = {"num_iters": 3, "domain": domain, "diff": diff}
    np.testing.assert_allclose(_solve(cost[:1], jnp.ones(1), b, epsilon=0.1, **options).plan[0], b, atol=1e-12)
    np.testing.assert_allclose(_solve(cost[:, :1], a, jnp.ones(1), epsilon=0.1, **options).plan[:, 0], a, atol=1e-12)
    gradient = jax.jit(jax.grad(lambda c: sinkhorn(c, epsilon=0.1, **options).plan.sum()))(cost[:1, :1])
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


@pytest.mark.parametrize("domain, diff", _FORMS)
def test_vmap_of_value_and_gradient(domain, diff):
    costs = jnp.stack([_problem(6, 7, seed)[0] for seed in range(3)])
    weights = _problem(6, 7)[3]
    epsilons = jnp.array([0.1, 0.3, 1.0])

    def loss(cost, epsilon):
        return jnp.vdot(sinkhorn(cost, epsilon=epsilon, num_iters=25, domain=domain, diff=diff).plan, weights)

    one = jax.jit(jax.value_and_grad(loss, (0, 1)))
    value, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1))))(costs, epsilons)
    for index in range(3):
        expected, expected_gradients = one(costs[index], epsilons[index])
        np.testing.assert_allclose(value[index], expected, rtol=1e-10)
        np.testing.assert_allclose(gradients[0][index], expected_gradients[0], atol=1e-10)
        np.testing.assert_allclose(gradients[1][index], expected_gradients[1], atol=1e-10)


def test_marginals_of_any_mass_scale_the_plan():
    cost, a, b, _ = _problem(10, 10)
    ones = jnp.ones(10)
    unit = _solve(cost, ones, ones, epsilon=0.1)
    np.testing.assert_allclose(unit.plan, 10 * _solve(cost, epsilon=0.1).plan, atol=1e-12)
    np.testing.assert_allclose(unit.plan.sum(1), 1, atol=1e-12)


@pytest.mark.parametrize("domain, tau", [("stabilized", 1.0), ("log", 1.0), ("log", 0.8)])
def test_tolerance_stops_early(domain, tau):
    cost, a, b, weights = _problem()
    options = {"domain": domain, "tau_a": tau, "tau_b": tau}
    solution = _solve(cost, a, b, epsilon=0.2, num_iters=500, tolerance=1e-5, **options)
    assert solution.converged and solution.error <= 1e-5 and 1 < solution.num_iters < 500
    fixed = _solve(cost, a, b, epsilon=0.2, num_iters=int(solution.num_iters), **options)
    np.testing.assert_allclose(solution.plan, fixed.plan, atol=1e-12)
    sooner = _solve(cost, a, b, epsilon=0.2, num_iters=int(solution.num_iters) - 2, **options)
    assert sooner.error > 1e-5
    capped = _solve(cost, a, b, epsilon=0.2, num_iters=int(solution.num_iters), tolerance=0.0, **options)
    assert capped.num_iters == solution.num_iters and not capped.converged
    np.testing.assert_allclose(capped.plan, fixed.plan, atol=1e-12)
    implicit = options | {"num_iters": 500, "diff": "implicit"}
    both = jax.vmap(lambda c: _solve(c, a, b, epsilon=0.2, num_iters=500, tolerance=1e-5, **options))(
        jnp.stack([cost, 3 * cost])
    )
    np.testing.assert_allclose(both.plan[0], solution.plan, atol=1e-12)
    assert both.num_iters[1] != both.num_iters[0] and both.converged.all()
    expected = _gradients(cost, a, b, weights, 0.2, **implicit)
    np.testing.assert_allclose(
        _gradients(cost, a, b, weights, 0.2, tolerance=1e-12, **implicit)[0], expected[0], atol=1e-8
    )


def test_unrolled_gradients_need_a_fixed_number_of_iterations():
    cost, *_ = _problem()
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(lambda c: sinkhorn(c, epsilon=0.1, tolerance=1e-3).plan[0, 0])(cost)


def test_error_is_that_of_the_column_marginal():
    cost, a, b, _ = _problem()
    solution = _solve(cost, 5 * a, 5 * b, epsilon=0.1, num_iters=4)
    np.testing.assert_allclose(solution.error, jnp.abs(solution.plan.sum(0) / 5 - b).sum(), rtol=1e-12)
    unbalanced = _solve(cost, a, b, epsilon=0.1, num_iters=300, tau_a=0.9, tau_b=0.9)
    assert unbalanced.error < 1e-10 and unbalanced.converged
    np.testing.assert_allclose(unbalanced.plan.sum(1), a * jnp.exp(-unbalanced.f / 0.1 * (1 / 0.9 - 1)), atol=1e-12)
    np.testing.assert_allclose(unbalanced.plan.sum(0), b * jnp.exp(-unbalanced.g / 0.1 * (1 / 0.9 - 1)), atol=1e-9)


@pytest.mark.parametrize("domain", ["stabilized", "log"])
def test_small_epsilon_is_the_hungarian_algorithm(domain):
    cost = jnp.asarray(np.random.default_rng(3).uniform(size=(8, 8)))
    plan = _solve(cost, jnp.ones(8), jnp.ones(8), epsilon=2e-3, num_iters=2000, domain=domain).plan
    rows, columns = linear_sum_assignment(cost)
    np.testing.assert_array_equal(plan.argmax(1), columns)
    np.testing.assert_allclose(plan[rows, columns], 1, atol=1e-2)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    epsilon=st.floats(0.05, 2.0),
    total=st.floats(0.1, 100.0),
    domain=st.sampled_from(["stabilized", "log"]),
)
def test_marginals_and_permutations(seed, epsilon, total, domain):
    rng = np.random.default_rng(seed)
    cost, a, b = rng.uniform(0, 2, (7, 5)), rng.uniform(0, 1, 7), rng.uniform(0, 1, 5)
    a[rng.integers(7)] = 0
    a, b = total * a / a.sum(), total * b / b.sum()
    rows, columns = rng.permutation(7), rng.permutation(5)
    solution = _solve(cost, a, b, epsilon=epsilon, num_iters=300, domain=domain)
    assert (solution.plan >= 0).all()
    np.testing.assert_allclose(solution.plan.sum(1), a, atol=1e-10 * total)
    np.testing.assert_allclose(jnp.abs(solution.plan.sum(0) - b).sum() / total, solution.error, atol=1e-12)
    permuted = _solve(cost[rows][:, columns], a[rows], b[columns], epsilon=epsilon, num_iters=300, domain=domain)
    np.testing.assert_allclose(permuted.plan, solution.plan[rows][:, columns], atol=1e-10 * total)
    shifted = _solve(cost + rng.normal(size=(7, 1)) + rng.normal(size=5), a, b, epsilon=epsilon, num_iters=300)
    if solution.error < 1e-10 and shifted.error < 1e-10:
        np.testing.assert_allclose(shifted.plan, solution.plan, atol=1e-8 * total)


def test_every_option_matters():
    cost, a, b, _ = _problem()
    base = {"epsilon": 0.2, "num_iters": 5}
    plan = _solve(cost, a, b, **base).plan
    changes = [{"epsilon": 0.3}, {"num_iters": 6}, {"tau_a": 0.9}, {"tau_b": 0.9}, {"tolerance": 1.0}]
    changes += [{"row_mask": jnp.arange(12) > 0}, {"col_mask": jnp.arange(9) > 0}]
    for change in changes:
        assert jnp.abs(_solve(cost, a, b, **base | change).plan - plan).max() > 1e-6, change


def test_the_solution_is_a_pytree():
    solution = _solve(_problem()[0], epsilon=0.1)
    assert isinstance(solution, SinkhornSolution)
    assert len(jax.tree.leaves(solution)) == 7
