import functools

import jax
import numpy as np
import pytest
from tiny_system import Net, clips, config, tiny

from jaxvos.system import LossOutput
from jaxvos.training import create_state, make_optimizer, train_step


def _updated(key, frozen=(), steps=2):
    system, clip = tiny(), next(clips(0))
    options = config(optimizer={"frozen": frozen, "weight_decay": 0.1}).optimizer
    params = jax.eval_shape(system.init, key, clip)["params"]
    tx = make_optimizer(options, params, 10)
    before = after = create_state(key, clip, system=system, tx=tx)
    step = jax.jit(functools.partial(train_step, system=system, tx=tx, frozen=frozen))
    for _ in range(steps):
        after, scalars = step(after, clip)
    return before, after, scalars


def test_a_step_moves_everything_once(key):
    before, after, scalars = _updated(key)
    assert int(after.step) == 2
    for old, new in zip(jax.tree.leaves(before.variables), jax.tree.leaves(after.variables), strict=True):
        assert np.any(old != new)
    assert scalars["half"] == scalars["loss"] / 2 and scalars["grad_norm"] > 0


def test_frozen_modules_keep_parameters_and_running_statistics(key):
    before, after, scalars = _updated(key, frozen=("encoder", "norm"))
    jax.tree.map(np.testing.assert_array_equal, before.variables["batch_stats"], after.variables["batch_stats"])
    for name in ("encoder", "norm"):
        params = before.variables["params"][name], after.variables["params"][name]
        jax.tree.map(np.testing.assert_array_equal, *params)
    assert np.any(before.variables["params"]["decoder"]["kernel"] != after.variables["params"]["decoder"]["kernel"])
    assert scalars["grad_norm"] < _updated(key)[2]["grad_norm"]


def test_randomness_depends_on_the_step_number_alone(key):
    system, clip = tiny(), next(clips(0))
    tx = make_optimizer(config().optimizer, jax.eval_shape(system.init, key, clip)["params"], 10)
    state = create_state(key, clip, system=system, tx=tx)
    step = jax.jit(functools.partial(train_step, system=system, tx=tx))
    losses = [float(step(state._replace(step=state.step + n), clip)[1]["loss"]) for n in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize("leaf", ["step", "key"])
def test_the_state_holds_all_that_a_step_needs(key, leaf):
    before, after, _ = _updated(key)
    assert getattr(after, leaf).dtype == getattr(before, leaf).dtype


def _stepped(key, *, batch=8, accumulate=1, ema=None, steps=1, system=None):
    system = tiny() if system is None else system
    clip = next(clips(0, batch=batch))
    options = config(optimizer={"name": "sgd", "lr": 0.1}).optimizer
    tx = make_optimizer(options, jax.eval_shape(system.init, key, clip)["params"], 10)
    state = create_state(key, clip, system=system, tx=tx, averaged=ema is not None)
    step = jax.jit(functools.partial(train_step, system=system, tx=tx, accumulate=accumulate, ema=ema))
    states = [state]
    for _ in range(steps):
        state, scalars = step(state, clip)
        states.append(state)
    return states, scalars


def _without_statistics():
    """The tiny system with a norm that does not look at the batch, and without dropout."""
    system = tiny()
    net = Net()

    def loss(variables, clip, *, key, step):
        logits = net.apply(variables, clip.images[:, 0], train=False)
        value = -(clip.masks[:, 0] * jax.nn.log_softmax(logits)).sum(-1).mean()
        return LossOutput(value, {}, {"half": value / 2})

    return system._replace(loss=loss)


@pytest.mark.parametrize("parts", [2, 4])
def test_gradients_of_parts_are_those_of_the_batch(key, parts):
    (_, whole), scalars = _stepped(key, system=_without_statistics())
    (_, split), others = _stepped(key, system=_without_statistics(), accumulate=parts)
    for a, b in zip(jax.tree.leaves(split.variables), jax.tree.leaves(whole.variables), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert scalars.keys() == others.keys()
    for name, value in scalars.items():
        np.testing.assert_allclose(others[name], value, rtol=1e-4)


def test_statistics_see_one_part_after_the_other(key):
    (before, whole), _ = _stepped(key)
    (_, split), _ = _stepped(key, accumulate=2)
    moved = [np.abs(state.variables["batch_stats"]["norm"]["mean"] - before.variables["batch_stats"]["norm"]["mean"])
             for state in (whole, split)]  # fmt: skip
    assert np.all(moved[1] > 1.5 * moved[0])


def test_the_mean_of_the_parameters_follows_them(key):
    states, _ = _stepped(key, ema=0.5, steps=12)
    mean = states[0].variables["params"]["decoder"]["kernel"]
    for number, state in enumerate(states[1:]):
        decay = min(0.5, (1 + number) / (10 + number))
        mean = decay * mean + (1 - decay) * state.variables["params"]["decoder"]["kernel"]
        np.testing.assert_allclose(state.average["decoder"]["kernel"], mean, atol=1e-6)
    last = states[-1]
    np.testing.assert_array_equal(last.result["params"]["decoder"]["kernel"], last.average["decoder"]["kernel"])
    np.testing.assert_array_equal(*(x["batch_stats"]["norm"]["mean"] for x in (last.result, last.variables)))
    assert np.abs(last.average["decoder"]["kernel"] - last.variables["params"]["decoder"]["kernel"]).max() > 1e-4
    assert _stepped(key)[0][-1].average is None
