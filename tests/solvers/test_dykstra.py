"""`dykstra` against SLSQP on the intersection and against NumPy round by round."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from reference import dmm
from scipy.optimize import minimize

from jaxvos.solvers import dykstra, project_columns, project_columns_printed, project_nonnegative, project_rows

_SETS = project_rows, project_columns, project_nonnegative
_solve = jax.jit(dykstra, static_argnames=("projections", "num_iters", "tolerance"))


def _points(batch=6):
    """Points like those of the matching layer: uniform rows after a gradient step of size 4 on random costs."""
    return 1 / 5 - 4 * jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (batch, 3, 5)))


def _nearest(target):
    n, m = target.shape
    answer = minimize(
        lambda flat: ((flat - target.ravel()) ** 2).sum() / 2,
        np.full(n * m, 1 / m),
        jac=lambda flat: flat - target.ravel(),
        bounds=[(0, None)] * (n * m),
        constraints=[
            {"type": "eq", "fun": lambda flat: flat.reshape(n, m).sum(1) - 1},
            {"type": "ineq", "fun": lambda flat: 1 - flat.reshape(n, m).sum(0)},
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert answer.success
    return answer.x.reshape(n, m)


def test_rounds_end_at_the_nearest_point_of_the_intersection():
    points = _points()
    solution = jax.vmap(lambda x: _solve(x, _SETS, num_iters=5000, tolerance=1e-10))(points)
    assert solution.converged.all() and (solution.num_iters < 5000).all()
    expected = np.stack([_nearest(x) for x in np.asarray(points)])
    np.testing.assert_allclose(solution.x, expected, atol=1e-6)

    printed = project_rows, project_columns_printed, project_nonnegative
    stalled = jax.vmap(lambda x: _solve(x, printed, num_iters=5000, tolerance=1e-10))(points)
    assert not stalled.converged.any()
    distance = np.linalg.norm(stalled.x - expected, axis=(1, 2))
    assert distance.mean() > 0.1


@pytest.mark.parametrize("num_iters", [1, 7])
def test_equals_numpy_round_by_round(num_iters):
    point = _points()[0]
    solution = _solve(point, _SETS, num_iters=num_iters)
    x, corrections = dmm.dykstra(np.asarray(point), (dmm.rows, dmm.columns, dmm.nonnegative), num_iters)
    np.testing.assert_allclose(solution.x, x, atol=1e-12)
    np.testing.assert_allclose(solution.corrections, corrections, atol=1e-12)
    assert solution.num_iters == num_iters and not solution.converged
    again = _solve(solution.x, _SETS, num_iters=1, corrections=solution.corrections)
    np.testing.assert_allclose(again.x, _solve(point, _SETS, num_iters=num_iters + 1).x, atol=1e-12)


def test_error_sees_what_the_point_does_not_show():
    """A square and a line through it: from far away the point stands still while the corrections walk."""
    normal = jnp.array([-0.5, 1.0])
    sets = (lambda x: jnp.clip(x, 0, 1), lambda x: x - (jnp.vdot(normal, x) - 0.1) / 1.25 * normal)
    early, later, end = (_solve(jnp.array([-10.0, 10.0]), sets, num_iters=count) for count in (2, 7, 100))
    np.testing.assert_allclose(early.x, later.x, atol=1e-12)
    np.testing.assert_allclose(later.error, 0.72, atol=1e-12)  # from the corner (0, 1) down to the line
    assert not later.converged and end.converged
    np.testing.assert_allclose(end.x, [0, 0.1], atol=1e-6)


def test_tolerance_stops_early():
    point = _points()[1]
    solution = _solve(point, _SETS, num_iters=5000, tolerance=1e-4)
    assert solution.converged and solution.error <= 1e-4
    fixed = _solve(point, _SETS, num_iters=int(solution.num_iters))
    np.testing.assert_allclose(solution.x, fixed.x, atol=1e-12)
    np.testing.assert_allclose(solution.error, fixed.error, atol=1e-12)
    assert _solve(point, _SETS, num_iters=int(solution.num_iters) - 1).error > 1e-4
    assert not _solve(point, _SETS, num_iters=3, tolerance=1e-4).converged


def test_gradients():
    point, options = _points()[2], {"num_iters": 7}
    check_grads(lambda x: _solve(x, _SETS, **options).x, (point,), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)
    until = partial(_solve, projections=_SETS, num_iters=5000, tolerance=1e-12)
    check_grads(lambda x: until(x).x, (point,), order=1, modes=("fwd",), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(lambda x: until(x).x[0, 0])(point)


def test_one_set_of_any_shape_is_its_projection():
    solution = dykstra(jnp.array([2.0, -1.0]), (project_nonnegative,), num_iters=2)
    np.testing.assert_array_equal(solution.x, [2, 0])
    assert solution.converged and solution.error == 0


@pytest.mark.parametrize(
    "sets, wrong, message",
    [
        ((), {"num_iters": 1}, "at least one projection"),
        (_SETS, {"num_iters": 0}, "num_iters=0"),
        (_SETS, {"num_iters": 1, "corrections": (jnp.zeros((3, 5)),)}, "1 corrections for 3 projections"),
    ],
)
def test_wrong_arguments_are_refused(sets, wrong, message):
    with pytest.raises(ValueError, match=message):
        dykstra(_points()[0], sets, **wrong)
