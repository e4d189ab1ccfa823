"""The transport layer: what it computes, that every option changes it, and that it has no parameters as published."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.nets import Transport, TransportConfig

BASE = TransportConfig(num_iters=8, epsilon=0.2)


@functools.cache
def _maps():
    """Post-ReLU features of an odd-sized map; motion is appearance moved by one cell, and noise."""
    key = jax.random.key(3)
    x_a = jax.nn.relu(jax.random.normal(key, (1, 5, 7, 6)) + 0.3)
    x_m = jnp.roll(x_a, 1, axis=2) + 0.1 * jax.random.uniform(jax.random.fold_in(key, 1), x_a.shape)
    return x_a, x_m


@functools.cache
def _run(config):
    """Outputs, sown plans and parameters."""
    layer, maps = Transport(config), _maps()

    def forward(maps):
        outputs, variables = layer.init_with_output(jax.random.key(0), *maps, mutable=True)
        return outputs, variables.get("intermediates", {}), variables.get("params", {})

    return jax.jit(forward)(maps)


def _gradient(config):
    """Of a projection of the outputs, with respect to the maps."""
    layer = Transport(config)
    return jax.jit(jax.grad(lambda maps: sum(jnp.sum(jnp.sin(3 * y)) for y in layer.apply({}, *maps))))(_maps())


def test_it_has_no_parameters_as_published():
    assert _run(BASE)[2] == {}


def test_none_returns_its_input():
    outputs = _run(TransportConfig(matcher="none"))[0]
    assert all(y is x or (y == x).all() for y, x in zip(outputs, _maps(), strict=True))


def test_shared_plan_moves_both_maps_and_rows_are_averages():
    """Dense, so that the plan is one matrix: Y = P X for both (Eq. 8)."""
    outputs, sown, _ = _run(dataclasses.replace(BASE, matcher="sh"))
    plan = sown["plans"][0][0][0, 0]
    assert plan.shape == (35, 35)
    np.testing.assert_allclose(plan.sum(1), 1, atol=1e-5)
    for x, y in zip(_maps(), outputs, strict=True):
        np.testing.assert_allclose(y[0].reshape(35, -1), plan @ x[0].reshape(35, -1), atol=1e-5)


def test_a_sharp_plan_undoes_a_shift():
    """With the pair (Xa, P Xm), motion that was moved by one cell comes back to where it belongs."""
    config = TransportConfig(matcher="sh", apply="to_appearance", epsilon=0.02, num_iters=50)
    y_a, y_m = _run(config)[0]
    x_a, x_m = _maps()
    cosine = lambda a, b: jnp.mean(jnp.sum(a * b, -1) / jnp.linalg.norm(a, axis=-1) / jnp.linalg.norm(b, axis=-1))  # noqa: E731
    assert (y_a == x_a).all()
    assert cosine(y_m, x_a) > 0.98 > 0.9 > cosine(x_m, x_a)


def test_similarity_and_cost_kernels_give_the_same_plan():
    """exp(-C / 2 epsilon) with C = 2 - 2 s is exp(s / epsilon) but for a constant; what is not: the raw cost."""
    raw_sim, raw_cost = (_run(dataclasses.replace(BASE, matcher="sh", kernel=k))[1]["plans"][0][0][0, 0]
                         for k in ("raw_sim", "raw_cost"))  # fmt: skip
    x_a, x_m = (x[0].reshape(35, -1) for x in _maps())
    similarity = (x_a / np.linalg.norm(x_a, axis=1)[:, None]) @ (x_m / np.linalg.norm(x_m, axis=1)[:, None]).T
    rank = lambda plan: np.corrcoef(np.ravel(plan), np.ravel(similarity))[0, 1]  # noqa: E731
    assert rank(raw_sim) > 0.5 and rank(raw_cost) < -0.5  # normalising the cost rewards expensive pairs


def test_plans_of_half_precision_features_are_as_exact_as_others():
    """The solver runs in float32; one in bfloat16 misses its marginals by thousandths."""
    for dtype in (jnp.float32, jnp.bfloat16):
        features = [x.astype(dtype) for x in _maps()]
        _, sown = Transport(TransportConfig(matcher="sh")).apply({}, *features, mutable=["intermediates"])
        (plan,) = sown["intermediates"]["plans"][0]
        assert plan.dtype == jnp.float32
        np.testing.assert_allclose(plan.sum(axis=-1), 1, atol=5e-6)


@pytest.mark.slow
def test_zero_features_and_bfloat16_stay_finite():
    layer = Transport(BASE)
    for x in (jnp.zeros((1, 5, 7, 6)), _maps()[0].astype(jnp.bfloat16)):
        total = lambda x: sum(y.sum() for y in layer.apply({}, x, x)).astype(jnp.float32)  # noqa: E731
        value, gradient = jax.value_and_grad(total)(x)
        assert np.isfinite(value) and np.isfinite(np.asarray(gradient, np.float32)).all()
        assert layer.apply({}, x, x)[0].dtype == x.dtype


OPTIONS = {
    "matcher": ["none", "sh", "lsh", "ssh", "sslh"],
    "layout": ["raster"],
    "partition": [(4, 2)],
    "kernel": ["raw_sim", "raw_cost"],
    "epsilon": [0.1],
    "learn_epsilon": [True],
    "adaptive_epsilon": [True],
    "num_iters": [2],
    "final_norm": ["col"],
    "diff": ["implicit", "stop"],
    "apply": ["to_appearance", "to_motion", "cross"],
    "value": ["unit"],
    "residual": [True],
    "marginals": ["unbalanced", "dustbin"],
    "tau": [0.5],
    "center": [True],
    "proj_dim": [4],
}


def test_the_table_of_options_is_complete():
    assert set(OPTIONS) == {field.name for field in dataclasses.fields(TransportConfig)}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OPTIONS.items() for value in values])
def test_every_option_changes_something(name, value):
    base = dataclasses.replace(BASE, marginals="unbalanced") if name == "tau" else BASE
    changed = dataclasses.replace(base, **{name: value})
    (outputs, _, params), (before, _, before_params) = _run(changed), _run(base)
    assert all(np.isfinite(x).all() for x in outputs)
    if name == "diff":
        assert not _differs(outputs, before) and _differs(_gradient(changed), _gradient(base))
    elif name == "learn_epsilon":  # starts at the fixed value; what changes is that it is learned
        assert set(params) == {"epsilon"} and before_params == {} and not _differs(outputs, before)
    else:
        assert _differs(outputs, before)


def _differs(a, b):
    return any(jnp.abs(x - y).max() > 1e-5 for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("config", [
    TransportConfig(learn_epsilon=True, num_iters=5, epsilon=0.3),
    TransportConfig(marginals="dustbin", num_iters=5, epsilon=0.3),
    TransportConfig(proj_dim=4, num_iters=5, epsilon=0.3),
])  # fmt: skip
def test_what_can_be_learned_gets_a_gradient(config):
    layer, maps = Transport(config), _maps()
    params = layer.init(jax.random.key(0), *maps)["params"]
    gradient = jax.grad(lambda p: sum(jnp.sum(jnp.sin(3 * y)) for y in layer.apply({"params": p}, *maps)))(params)
    assert all(np.isfinite(g).all() and jnp.abs(g).max() > 1e-6 for g in jax.tree.leaves(gradient))
