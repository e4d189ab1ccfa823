"""Where arrays live, by their shapes; and what comes of it on eight devices."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec
from tiny_system import clips, config, tiny

from jaxvos.errors import InputError
from jaxvos.training import ParallelConfig, TrainState, fit, load_variables
from jaxvos.training._sharding import _spec, make_mesh, shard_clip, state_shardings

SCRIPT = Path(__file__).with_name("tiny_system.py")


@pytest.mark.parametrize("shape, axes, expected", [
    ((3, 3, 8, 16), {"model": 2}, (None, None, None, "model")),
    ((3, 3, 16, 8), {"model": 2}, (None, None, "model", None)),
    ((3, 3, 8, 8), {"model": 2}, (None, None, None, "model")),  # of equals the last
    ((3, 3, 7, 8), {"model": 4}, (None, None, None, "model")),
    ((3, 3, 7, 9), {"model": 4}, (None,) * 4),  # nothing divides
    ((16,), {"model": 2}, (None,)),  # too small
    ((3, 3, 8, 16), {"model": 1}, (None,) * 4),
    ((3, 3, 8, 16), {"model": 2, "data": 4}, (None, None, "data", "model")),
    ((3, 3, 6, 16), {"model": 2, "data": 4}, (None, None, None, "model")),
    ((), {"model": 2}, ()),
])  # fmt: skip
def test_the_longest_axis_that_divides_is_split(shape, axes, expected):
    assert tuple(_spec(shape, axes, 64)) == expected


def test_only_what_was_asked_for_is_split():
    mesh = AbstractMesh((4, 2), ("data", "model"))
    kernel, small = jax.ShapeDtypeStruct((3, 3, 8, 16), np.float32), jax.ShapeDtypeStruct((16,), np.float32)
    abstract = TrainState(small, {"params": {"a": kernel, "b": small}, "batch_stats": {"c": kernel}},
                          {"mu": {"a": kernel}}, small, {"a": kernel})  # fmt: skip

    def specs(**options):
        found = state_shardings(abstract, mesh, ParallelConfig(min_split=64, **options))
        assert jax.tree.structure(found) == jax.tree.structure(abstract)
        whole = PartitionSpec(None, None, None, None)
        assert found.variables["batch_stats"]["c"].spec == whole and found.step.spec == PartitionSpec(None)
        assert found.variables["params"]["b"].spec == PartitionSpec(None)
        assert found.average["a"].spec == found.variables["params"]["a"].spec
        return [tuple(x.spec)[-2:] for x in (found.variables["params"]["a"], found.opt_state["mu"]["a"])]

    assert specs() == [(None, "model"), (None, "model")]
    assert specs(split_optimizer=True) == [(None, "model"), ("data", "model")]


CODE = """if True:
    import sys, jax, numpy as np
    from tiny_system import *
    from jaxvos.training import ParallelConfig, save_variables
    parallel = ParallelConfig(model=2, split_optimizer=True, min_split=24)
    def spread(tree):
        return sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(tree) if hasattr(x, "sharding"))
    seen = []
    def evaluate(variables, step):
        seen.append(spread(variables["params"]))
        return {}
    state = fit(tiny(), clips, config(num_steps=5, parallel=parallel, eval_every=2), workdir=sys.argv[1],
                evaluate=evaluate, progress=False)
    print(spread(state.variables["params"]), spread(state.variables["batch_stats"]), spread(state.opt_state), seen)
    kernel = state.variables["params"]["encoder"]["kernel"]
    moment = jax.tree.leaves(state.opt_state)
    print({shard.data.shape for shard in kernel.addressable_shards},
          {s.data.shape for x in moment if x.shape == kernel.shape for s in x.addressable_shards})
"""


def test_split_kernels_and_moments_give_what_one_device_gives(tmp_path):
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run([sys.executable, "-c", CODE, str(tmp_path / "run")], cwd=SCRIPT.parent, env=environment,
                            capture_output=True, text=True)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["1 0 2 [1, 1, 1]", "{(3, 3, 3, 2)} {(3, 3, 3, 2)}"]
    one = fit(tiny(), clips, config(num_steps=5), progress=False)
    split, _ = load_variables(tmp_path / "run")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), split, dict(one.variables))
    # a run may go on with another layout
    more = fit(tiny(), clips, config(num_steps=6), workdir=tmp_path / "run", progress=False)
    straight = fit(tiny(), clips, config(num_steps=6), progress=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), dict(more.variables),
                 dict(straight.variables))  # fmt: skip


def test_devices_that_do_not_split_are_refused():
    with pytest.raises(InputError, match="parallel.model 3 does not divide the 1 devices of a process"):
        make_mesh(3)


def test_a_batch_that_does_not_split_into_parts_is_refused():
    with pytest.raises(InputError, match="a batch of 8 clips does not split over 1 devices, 3 parts each; use a mul"):
        shard_clip(next(clips(0)), make_mesh(), 3)
    with pytest.raises(InputError, match="3 parts each"):
        fit(tiny(), clips, config(accumulate=3), progress=False)
