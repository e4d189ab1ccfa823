"""Projections against SLSQP and sorting; and the properties that every projection has."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from reference.dmm import simplex as sorted_simplex
from scipy.optimize import minimize

from jaxvos.solvers import (
    project_columns,
    project_columns_printed,
    project_nonnegative,
    project_rows,
    project_simplex,
)

_ROWS, _COLS = np.array([True, False, True, True]), np.array([True, True, False, True, True])
_CAP = np.array([1.0, 0.5, 1.0, 2.0, 0.8])
_ALIVE = np.ix_(_ROWS, _COLS)  # the part that exists, as an index


def _nonnegative(x, row_mask, col_mask):
    return project_nonnegative(jnp.where(row_mask[:, None] & col_mask, x, 0))


def _simplices(x, row_mask, col_mask):
    projected = jax.vmap(partial(project_simplex, mask=col_mask, total=1.5))(x)
    return jnp.where(row_mask[:, None], projected, 0)


def _columns(x, row_mask, col_mask):
    return project_columns(x, cap=jnp.asarray(_CAP), row_mask=row_mask, col_mask=col_mask)


# each with what it makes of a matrix: equations that must be 0, inequalities that must not be negative
_SETS = {
    "rows": (jax.jit(project_rows), lambda x: x.sum(1) - 1, None),
    "columns": (jax.jit(_columns), None, lambda x: _CAP[_COLS] - x.sum(0)),
    "nonnegative": (jax.jit(_nonnegative), None, lambda x: x.ravel()),
    "simplices": (jax.jit(_simplices), lambda x: x.sum(1) - 1.5, lambda x: x.ravel()),
}
_BY_NAME = pytest.mark.parametrize("name", _SETS)


def _matrix(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(0.6, 1.5, (4, 5)))


def _project(name, x):
    return _SETS[name][0](x, row_mask=jnp.asarray(_ROWS), col_mask=jnp.asarray(_COLS))


@_BY_NAME
def test_the_nearest_point_of_the_set(name):
    _, equal, positive = _SETS[name]
    ours = np.asarray(_project(name, _matrix()))
    target = np.asarray(_matrix())[_ALIVE]

    def constraint(kind, function):
        return {"type": kind, "fun": lambda flat: np.asarray(function(flat.reshape(target.shape)))}

    constraints = [constraint(kind, f) for kind, f in (("eq", equal), ("ineq", positive)) if f is not None]
    expected = minimize(
        lambda flat: ((flat - target.ravel()) ** 2).sum() / 2,
        np.zeros(target.size),
        jac=lambda flat: flat - target.ravel(),
        constraints=constraints,
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 300},
    )
    assert expected.success
    np.testing.assert_allclose(ours[_ALIVE].ravel(), expected.x, atol=1e-6)
    assert np.abs(ours[_ALIVE] - target).max() > 0.1


@_BY_NAME
def test_masked_entries_are_ignored(name):
    alive = _ROWS[:, None] & _COLS
    expected = _project(name, _matrix())
    np.testing.assert_array_equal(expected[~alive], 0)
    np.testing.assert_array_equal(_project(name, jnp.where(alive, _matrix(), jnp.nan)), expected)
    gradient = jax.jit(jax.grad(lambda x: jnp.vdot(_project(name, x), _matrix(1))))(
        jnp.where(alive, _matrix(), jnp.nan)
    )
    assert jnp.isfinite(gradient).all() and (gradient[~alive] == 0).all()


@_BY_NAME
def test_gradients(name):
    check_grads(partial(_project, name), (_matrix(),), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


@_BY_NAME
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-2, 1e3))
def test_properties_of_a_projection(name, seed, scale):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, scale, (2, 4, 5))
    once, other = (np.asarray(_project(name, jnp.asarray(z))) for z in (x, y))
    close = partial(np.testing.assert_allclose, atol=1e-12 * (1 + scale))
    close(_project(name, jnp.asarray(once)), once)
    assert np.linalg.norm(once - other) <= np.linalg.norm(x - y) * (1 + 1e-12)
    _, equal, positive = _SETS[name]
    if equal is not None:
        close(equal(once[_ALIVE]), 0)
    if positive is not None:
        assert (positive(once[_ALIVE]) >= -1e-12 * (1 + scale)).all()
    columns = np.flatnonzero(_COLS) if name == "columns" else rng.permutation(np.flatnonzero(_COLS))  # caps differ
    shuffle = np.ix_(rng.permutation(np.flatnonzero(_ROWS)), columns)
    shuffled = x.copy()
    shuffled[_ALIVE] = x[shuffle]
    close(np.asarray(_project(name, jnp.asarray(shuffled)))[_ALIVE], once[shuffle])


def test_columns_below_their_cap_are_left_alone():
    x = jnp.array([[0.5, 0.9], [0.2, 0.7]])
    np.testing.assert_allclose(project_columns(x), [[0.5, 0.6], [0.2, 0.4]])
    np.testing.assert_allclose(project_columns(x, cap=1.6), x)


def test_the_printed_rule_fills_the_other_columns_up():
    x = jnp.array([[0.5, 0.9, jnp.nan], [0.2, 0.7, 5.0]])
    mask = jnp.array([True, True, False])
    np.testing.assert_allclose(project_columns_printed(x, col_mask=mask), [[0.65, 0.6, 0], [0.35, 0.4, 0]], atol=1e-12)
    np.testing.assert_allclose(
        project_columns_printed(x, cap=jnp.array([1.0, 1.6, 0.0]), col_mask=mask), jnp.where(mask, x, 0)
    )
    x = _matrix()
    exact, printed = (
        f(x, row_mask=jnp.asarray(_ROWS), col_mask=jnp.asarray(_COLS))
        for f in (project_columns, project_columns_printed)
    )
    x = jnp.where(_ROWS[:, None] & _COLS, x, 0)
    assert jnp.linalg.norm(printed - x) > jnp.linalg.norm(exact - x) + 0.1


@pytest.mark.parametrize("dtype, atol", [(jnp.float64, 1e-12), (jnp.float32, 1e-6)])
def test_simplex_equals_sorting(dtype, atol):
    """Hard cases: ties, widths apart, a large offset and all entries in the support, in one shape."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 40)) * 10.0 ** rng.integers(-3, 4, (64, 1))
    x[:8] = rng.integers(0, 3, (8, 40))
    x[8] = 7.0
    x[9] = np.linspace(0, 1, 40) ** 8
    x[10] = 0.9 ** np.arange(40)
    x[11] += 1e4
    x = jnp.asarray(x, dtype)
    ours = jax.jit(jax.vmap(partial(project_simplex, total=2.0)))(x)
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, [sorted_simplex(row.astype(np.float64), 2.0) for row in np.asarray(x)], atol=atol)
    np.testing.assert_allclose(ours.sum(1), 2, atol=10 * atol)


def test_gradient_of_the_simplex_is_centred_on_its_support():
    x, weights = jnp.array([2.0, 1.8, 0.3, 1.9]), jnp.array([1.0, 4.0, 8.0, 1.0])
    by_x, by_total = jax.grad(lambda x, total: jnp.vdot(project_simplex(x, total=total), weights), (0, 1))(x, 1.0)
    np.testing.assert_allclose(by_x, [-1, 2, 0, -1], atol=1e-12)
    np.testing.assert_allclose(by_total, 2, atol=1e-12)


def test_simplex_of_little_and_of_nothing():
    np.testing.assert_allclose(project_simplex(jnp.array([-5.0]), total=3.0), [3])
    np.testing.assert_array_equal(project_simplex(jnp.array([1.0, jnp.nan]), mask=jnp.zeros(2, bool)), [0, 0])
    assert project_simplex(jnp.zeros(0)).shape == (0,)
    with pytest.raises(ValueError, match="total must be above zero, got 0"):
        project_simplex(jnp.ones(2), total=0.0)
