"""Caps, dustbins, starts, the dual value, and what `sinkhorn` refuses."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.sinkhorn import sinkhorn as slow_sinkhorn

from jaxvos.solvers import sinkhorn

_STATIC = ("num_iters", "tolerance", "tau_a", "tau_b", "capped", "anneal", "domain", "diff")
_solve = jax.jit(sinkhorn, static_argnames=_STATIC)


def _problem(n=6, m=9, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(0, 2, (n, m))), jnp.asarray(rng.normal(size=(n, m)))


def _central(function, point, direction, step=1e-6):
    return (function(point + step * direction) - function(point - step * direction)) / (2 * step)


# ------------------------------------------------------------------------------------------------------ capped columns


@pytest.mark.parametrize("n, m", [(6, 9), (6, 6), (1, 4)])
def test_capped_plans_meet_the_optimality_conditions(n, m):
    """Primal and dual feasible, and no price on a column that is not full: the optimum of a convex problem."""
    for seed in range(3):
        cost, _ = _problem(n, m, seed)
        cost = cost.at[:, 0].add(-1.0)  # a column that all rows want
        solution = _solve(cost, jnp.ones(n), jnp.ones(m), epsilon=0.2, num_iters=3000, capped=True)
        plan, columns = solution.plan, solution.plan.sum(0)
        np.testing.assert_allclose(plan, jnp.exp((solution.f[:, None] + solution.g - cost) / 0.2), rtol=1e-9)
        np.testing.assert_allclose(plan.sum(1), 1, atol=1e-12)
        assert (columns <= 1 + 1e-6).all() and (solution.g <= 0).all()
        np.testing.assert_allclose((columns - 1) * solution.g, 0, atol=1e-6)
        assert solution.converged and solution.error < 1e-6
        primal = jnp.vdot(plan, cost) + 0.2 * jnp.sum(plan * (jnp.log(plan) - 1))
        np.testing.assert_allclose(solution.value, primal, atol=1e-6)


def test_caps_that_do_not_bind_are_a_softmax_and_caps_that_must_bind_are_equalities():
    cost, _ = _problem(6, 6)
    free = _solve(cost, jnp.ones(6), jnp.full(6, 6.0), epsilon=0.3, capped=True).plan
    np.testing.assert_allclose(free, jax.nn.softmax(-cost / 0.3, axis=1), atol=1e-14)
    full = _solve(cost, epsilon=0.3, num_iters=2000, capped=True).plan
    np.testing.assert_allclose(full, _solve(cost, epsilon=0.3, num_iters=2000, domain="log").plan, atol=1e-9)


def test_capped_gradients_three_ways():
    cost, weights = _problem()
    cost = cost.at[:, :2].add(-1.0)

    @partial(jax.jit, static_argnames="diff")
    def run(cost, epsilon, caps, diff):
        def loss(cost, epsilon, caps):
            solution = sinkhorn(cost, jnp.ones(6), caps, epsilon=epsilon, num_iters=800, capped=True, diff=diff)
            return jnp.vdot(solution.plan, weights) + jnp.vdot(solution.g, weights[0])

        return jax.value_and_grad(loss, (0, 1, 2))(cost, epsilon, caps)

    point = cost, jnp.asarray(0.2), jnp.full(9, 0.9)
    unrolled, implicit = (run(*point, diff=diff)[1] for diff in ("unroll", "implicit"))
    for index in range(3):
        np.testing.assert_allclose(implicit[index], unrolled[index], atol=1e-8)
        direction = jnp.asarray(np.random.default_rng(1).normal(size=point[index].shape))

        def value(moved, index=index):
            return run(*point[:index], moved, *point[index + 1 :], diff="implicit")[0]

        expected = _central(value, point[index], direction)
        np.testing.assert_allclose(jnp.vdot(implicit[index], direction), expected, rtol=1e-5)
    assert (jnp.abs(unrolled[2]) > 1e-3).any() and (jnp.abs(unrolled[2]) == 0).any(), "some caps bind, some do not"


# ------------------------------------------------------------------------------------------------------------ dustbin


def test_a_dustbin_is_one_more_row_and_column():
    cost, _ = _problem()
    a, b = jnp.linspace(0.5, 1.5, 6), jnp.linspace(1.0, 0.2, 9)
    solution = _solve(cost, a, b, epsilon=0.1, num_iters=200, dustbin=0.4)
    padded = np.full((7, 10), 0.4)
    padded[:6, :9] = cost
    expected = slow_sinkhorn(padded, np.append(a, b.sum()), np.append(b, a.sum()), 0.1, 200)
    np.testing.assert_allclose(solution.plan, expected, atol=1e-12)
    assert solution.plan.shape == (7, 10) and solution.f.shape == (7,) and solution.g.shape == (10,)
    cheap, dear = (_solve(cost, a, b, epsilon=0.1, num_iters=200, dustbin=d).plan[:6, :9].sum() for d in (-3.0, 3.0))
    assert cheap < 0.01 < 0.9 * min(a.sum(), b.sum()) < dear


def test_a_learned_dustbin_gets_its_gradient_and_masks_hold():
    cost, weights = _problem()
    rows = jnp.arange(6) != 2
    a, b = jnp.ones(6), jnp.ones(9)

    @partial(jax.jit, static_argnames="diff")
    def run(dustbin, cost, diff):
        def loss(dustbin, cost):
            options = {"epsilon": 0.2, "num_iters": 400, "diff": diff}
            plan = sinkhorn(cost, a, b, dustbin=dustbin, row_mask=rows, **options).plan
            return jnp.vdot(plan[:-1, :-1], weights), plan

        return jax.value_and_grad(loss, has_aux=True)(dustbin, cost)

    cost = cost.at[2].set(jnp.nan)
    (_, plan), unrolled = run(0.3, cost, "unroll")
    assert (plan[2] == 0).all()
    np.testing.assert_allclose(run(0.3, cost, "implicit")[1], unrolled, rtol=1e-7)
    expected = _central(lambda d: run(d, cost, "unroll")[0][0], 0.3, 1.0)
    np.testing.assert_allclose(unrolled, expected, rtol=1e-6)
    assert abs(expected) > 1e-3


# ------------------------------------------------------------------------------------------------------------- starts


@pytest.mark.parametrize("domain", ["stabilized", "log"])
def test_a_warm_start_goes_on_where_the_last_one_stopped(domain):
    cost, _ = _problem(9, 9)
    first = _solve(cost, epsilon=0.1, num_iters=7, domain=domain)
    both = _solve(cost, epsilon=0.1, num_iters=5, f_init=first.f, domain=domain)
    once = _solve(cost, epsilon=0.1, num_iters=12, domain=domain)
    np.testing.assert_allclose(both.plan, once.plan, atol=1e-13)
    np.testing.assert_allclose(both.f, once.f, atol=1e-12)
    again = _solve(cost, epsilon=0.1, num_iters=99, tolerance=1e-6, f_init=once.f, domain=domain)
    cold = _solve(cost, epsilon=0.1, num_iters=99, tolerance=1e-6, domain=domain)
    assert again.converged and again.num_iters == cold.num_iters - 12


def test_the_gradient_with_respect_to_a_start_is_that_of_the_iterations():
    cost, weights = _problem()

    @jax.jit
    def loss(f):
        return jnp.vdot(sinkhorn(cost, epsilon=0.1, num_iters=3, f_init=f).plan, weights)

    point, direction = jnp.linspace(-0.3, 0.2, 6), weights[:, 0]
    np.testing.assert_allclose(jnp.vdot(jax.grad(loss)(point), direction), _central(loss, point, direction), rtol=1e-6)


@pytest.mark.parametrize("domain", ["stabilized", "log"])
def test_annealing_is_a_chain_of_warm_starts_and_converges_sooner(domain):
    cost, weights = _problem(8, 8)
    solution = _solve(cost, epsilon=0.01, num_iters=6, anneal=2, domain=domain)
    f = None
    for epsilon, num_iters in ((0.04, 10), (0.02, 10), (0.01, 6)):
        staged = _solve(cost, epsilon=epsilon, num_iters=num_iters, f_init=f, domain=domain)
        f = staged.f
    np.testing.assert_allclose(solution.plan, staged.plan, atol=1e-12)
    assert solution.num_iters == 26
    larger, _ = _problem(40, 40)
    options = {"epsilon": 1e-3, "domain": domain}
    cold, warm = (_solve(larger, num_iters=120 - 10 * stages, anneal=stages, **options) for stages in (0, 10))
    assert cold.num_iters == warm.num_iters and warm.error < 0.2 * cold.error

    @jax.jit
    def loss(cost):
        return jnp.vdot(sinkhorn(cost, epsilon=0.05, num_iters=4, anneal=2, domain=domain).plan, weights)

    direction = jnp.asarray(np.random.default_rng(5).normal(size=cost.shape))
    expected = _central(loss, cost, direction)
    np.testing.assert_allclose(jnp.vdot(jax.grad(loss)(cost), direction), expected, rtol=1e-5)


# -------------------------------------------------------------------------------------------------------------- value


@pytest.mark.parametrize("taus", [(1.0, 1.0), (0.8, 0.9), (1.0, 0.7)])
def test_value_is_the_least_cost_and_its_gradient_the_envelope(taus):
    cost, _ = _problem()
    a, b = jnp.linspace(0.5, 1.5, 6), jnp.linspace(0.5, 1.5, 9)
    a, b, epsilon = a / a.sum(), b / b.sum(), jnp.asarray(0.2)

    @partial(jax.jit, static_argnames="num_iters")
    def run(cost, a, b, epsilon, num_iters=500):
        def value(cost, a, b, epsilon):
            solution = sinkhorn(cost, a, b, epsilon=epsilon, num_iters=num_iters, tau_a=taus[0], tau_b=taus[1])
            return solution.value, solution

        return jax.value_and_grad(value, (0, 1, 2, 3), has_aux=True)(cost, a, b, epsilon)

    (value, solution), gradients = run(cost, a, b, epsilon)
    P = solution.plan
    primal = jnp.vdot(P, cost) + epsilon * jnp.sum(P * (jnp.log(P) - 1))
    for tau, sums, masses in ((taus[0], P.sum(1), a), (taus[1], P.sum(0), b)):
        if tau < 1:
            primal += epsilon * tau / (1 - tau) * jnp.sum(sums * jnp.log(sums / masses) - sums + masses)
    np.testing.assert_allclose(value, primal, atol=1e-10)
    np.testing.assert_allclose(gradients[0], P, atol=1e-12)
    if taus == (1.0, 1.0):
        np.testing.assert_allclose(gradients[1], solution.f, atol=1e-12)
        np.testing.assert_allclose(gradients[2], solution.g, atol=1e-12)
    expected = _central(lambda e: run(cost, a, b, e)[0][0], epsilon, 1.0)
    np.testing.assert_allclose(gradients[3], expected, rtol=1e-6)
    early = run(cost, a, b, epsilon, num_iters=2)[0][0]
    assert early < value, "a lower bound before convergence"


def test_value_needs_no_unrolling():
    """Where the iterations cannot be differentiated, the envelope can: the loop stops by tolerance."""
    cost, _ = _problem()
    solution = _solve(cost, epsilon=0.2, num_iters=500, tolerance=1e-12, diff="implicit")
    gradient = jax.jit(
        jax.grad(lambda c: sinkhorn(c, epsilon=0.2, num_iters=500, tolerance=1e-12, diff="implicit").value)
    )(cost)
    np.testing.assert_allclose(gradient, solution.plan, atol=1e-10)


# ---------------------------------------------------------------------------------------------------------- bad input

_COST = np.zeros((3, 4))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"cost": _COST[0]}, r"two axes.*\(4,\)"),
        ({"epsilon": -0.1}, "epsilon must be above zero, got -0.1"),
        ({"epsilon": float("nan")}, "epsilon must be finite, got nan"),
        ({"a": np.ones(4) / 4}, r"a has shape \(4,\), and the cost of shape \(3, 4\) needs \(3,\)"),
        ({"b": np.ones(4)}, "a sums to 1 and b to 4"),
        ({"a": np.array([1.5, -0.5, 0.0])}, "a must be finite and not negative, the least is -0.5"),
        ({"a": 5 * np.ones(3), "b": np.ones(4), "capped": True}, "a sums to 15 and b to 4"),
        ({"cost": np.where(np.arange(12).reshape(3, 4) == 6, np.nan, 0)}, r"cost\[1, 2\] is nan, one of 1 of 12"),
        ({"row_mask": np.ones(4, bool)}, r"row_mask has shape \(4,\).*\(3, 4\) needs \(3,\)"),
        ({"col_mask": np.ones(4)}, "col_mask must be boolean, got float64"),
        ({"num_iters": 0}, "num_iters=0"),
        ({"anneal": -1}, "anneal=-1"),
        ({"tau_a": 0.0}, "tau_a=0.0"),
        ({"tau_b": 1.5}, "tau_b=1.5"),
        ({"tau_b": 0.5, "capped": True}, "be 1 where capped"),
        ({"f_init": np.zeros(4)}, r"f_init has shape \(4,\)"),
        ({"domain": "fast"}, "unknown domain 'fast': 'stabilized', 'log'"),
        ({"diff": "none"}, "unknown diff 'none': 'unroll', 'implicit'"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_traced(arguments, message):
    arguments = {"cost": _COST, "epsilon": 0.1} | arguments
    arrays = {name: jnp.asarray(value) for name, value in arguments.items() if isinstance(value, np.ndarray)}
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(sinkhorn)(**arguments | arrays)  # past the shape checker, which only tests have
