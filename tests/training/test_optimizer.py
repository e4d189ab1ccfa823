import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvos.errors import InputError
from jaxvos.training import OptimizerConfig, make_optimizer
from jaxvos.training._optimizer import _schedule

PARAMS = {
    "encoder": {"kernel": np.linspace(-2.0, 3.0, 6, dtype=np.float32), "bias": np.ones(2, np.float32)},
    "decoder": {"kernel": np.linspace(0.5, 1.5, 4, dtype=np.float32)},
}


def _gradient(params, step):
    return jax.tree.map(lambda p: jnp.sin(3 * p + step) + 0.3, params)


def _descend(config, steps=5, num_steps=10):
    params = jax.tree.map(jnp.asarray, PARAMS)
    tx = make_optimizer(config, params, num_steps)
    state = tx.init(params)
    for step in range(steps):
        updates, state = tx.update(_gradient(params, step), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def _torch_adam(p, steps, lr, b1, b2, decay, decoupled):
    """`torch.optim.Adam` and, decoupled, `AdamW`, from their documentation."""
    p = p.astype(np.float64)
    m = v = 0.0
    for step in range(steps):
        g = np.sin(3 * p + step) + 0.3
        if decoupled:
            p = p - lr * decay * p
        else:
            g = g + decay * p
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        p = p - lr * (m / (1 - b1 ** (step + 1))) / (np.sqrt(v / (1 - b2 ** (step + 1))) + 1e-8)
    return p


def _torch_sgd(p, steps, lr, momentum, decay):
    p = p.astype(np.float64)
    buffer = 0.0
    for step in range(steps):
        buffer = momentum * buffer + np.sin(3 * p + step) + 0.3 + decay * p
        p = p - lr * buffer
    return p


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_is_pytorchs(decoupled):
    config = OptimizerConfig(lr=0.05, b1=0.8, b2=0.99, weight_decay=0.1, decoupled=decoupled)
    ours, _ = _descend(config)
    # AdamW multiplies the weights by (1 - lr * decay) before the gradient's step: the same sum of two terms
    expected = jax.tree.map(lambda p: _torch_adam(p, 5, 0.05, 0.8, 0.99, 0.1, decoupled), PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, expected)


def test_sgd_is_pytorchs():
    ours, _ = _descend(OptimizerConfig(name="sgd", lr=0.05, b1=0.8, weight_decay=0.1))
    expected = jax.tree.map(lambda p: _torch_sgd(p, 5, 0.05, 0.8, 0.1), PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "sgd"},
        {"lr": 3e-3},
        {"groups": (("encoder", 1e-4),)},
        {"b1": 0.5},
        {"b2": 0.9},
        {"weight_decay": 0.0},
        {"decoupled": True},
        {"schedule": "poly"},
        {"schedule": "cosine"},
        {"schedule": "thirds"},
        {"warmup_steps": 3},
        {"clip_norm": 0.01},
        {"frozen": ("decoder",)},
    ],
    ids=str,
)
def test_every_option_changes_the_updates(change):
    before, _ = _descend(OptimizerConfig(weight_decay=0.1))
    after, _ = _descend(OptimizerConfig(**{"weight_decay": 0.1, **change}))
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))


def test_groups_have_their_own_rates():
    config = OptimizerConfig(name="sgd", lr=1.0, b1=0.0, weight_decay=0.0, groups=((".*/bias", 0.25), ("encoder", 0.5)))
    params, _ = _descend(config, steps=1)
    gradient = _gradient(PARAMS, 0)
    for path, rate in {("encoder", "kernel"): 0.5, ("encoder", "bias"): 0.25, ("decoder", "kernel"): 1.0}.items():
        part, leaf = path
        np.testing.assert_allclose(params[part][leaf], PARAMS[part][leaf] - rate * gradient[part][leaf], rtol=1e-6)


def test_frozen_parameters_stay_and_have_no_moments():
    params, state = _descend(OptimizerConfig(frozen=("encoder",), weight_decay=0.1))
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], PARAMS["encoder"])
    assert np.all(params["decoder"]["kernel"] != PARAMS["decoder"]["kernel"])
    assert [x.shape for x in jax.tree.leaves(state) if x.ndim] == [(4,), (4,)]


def test_frozen_gradients_do_not_count_in_the_norm():
    config = OptimizerConfig(name="sgd", b1=0.0, lr=1.0, weight_decay=0.0, clip_norm=0.1, frozen=("encoder",))
    params, _ = _descend(config, steps=1)
    assert np.linalg.norm(params["decoder"]["kernel"] - PARAMS["decoder"]["kernel"]) == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize(
    "schedule, factors",
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("poly", [0.5, 1.0, 1.0, 0.75**0.9, 0.5**0.9, 0.25**0.9]),
        ("cosine", [0.5, 1.0, 1.0, 0.5 + 0.5 * np.cos(np.pi / 4), 0.5, 0.5 + 0.5 * np.cos(3 * np.pi / 4)]),
    ],
)
def test_schedules(schedule, factors):
    config = OptimizerConfig(name="sgd", b1=0.0, lr=2.0, weight_decay=0.0, schedule=schedule, warmup_steps=2)
    params = {"w": jnp.zeros(())}
    tx = make_optimizer(config, params, num_steps=6)
    state = tx.init(params)
    for factor in factors:
        updates, state = tx.update({"w": jnp.ones(())}, state, params)
        assert float(updates["w"]) == pytest.approx(-2.0 * factor, rel=1e-5)


@pytest.mark.parametrize("num_steps", [3, 10, 99, 300])
def test_rates_are_halved_after_each_third(num_steps):
    """Three rates, the second from the first step on that lies beyond a third, and none after the last step."""
    steps = [0, (num_steps - 1) // 3, -(-num_steps // 3), (2 * num_steps - 1) // 3, -(-2 * num_steps // 3),
             num_steps - 1, num_steps, 2 * num_steps]  # fmt: skip
    found = [float(_schedule(OptimizerConfig(schedule="thirds"), jnp.int32(step), num_steps)) for step in steps]
    assert found == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"groups": (("encodr", 1e-4),)}, "'encodr' matches no parameter.*decoder, encoder"),
        ({"groups": (("enc", 1e-4),)}, "'enc' matches no parameter"),
        ({"frozen": ("(",)}, "not a regular expression"),
        ({"frozen": ("encoder", "decoder")}, "nothing is left to train"),
    ],
)
def test_bad_regexes_are_named(change, message):
    with pytest.raises(InputError, match=message):
        make_optimizer(OptimizerConfig(**change), PARAMS, 10)


@pytest.mark.parametrize(
    "change", [{"lr": 0.0}, {"b1": 1.0}, {"weight_decay": -1.0}, {"warmup_steps": -1}, {"clip_norm": 0.0}], ids=str
)
def test_impossible_numbers_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        OptimizerConfig(**change)
