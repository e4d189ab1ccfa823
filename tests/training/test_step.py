import functools

import jax
import numpy as np
import pytest
from tiny_system import clips, config, tiny

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
