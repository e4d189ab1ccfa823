"""When training ends because nothing gets better, and with which variables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_system import clips, config, tiny

from jaxvos.errors import InputError
from jaxvos.training import fit
from jaxvos.training._plateau import Plateau


def _follow(values, *, mode="max", **options):
    """After how many evaluations it is over, and which was kept."""
    plateau = Plateau(mode=mode, **{"patience": 2, "min_delta": 0.0, **options})
    for count, value in enumerate(values, 1):
        if plateau.update(float(value), {"params": {"of": jnp.array(count)}}):
            break
    else:
        count = None
    return count, None if plateau.variables is None else int(plateau.variables["params"]["of"])


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [([1, 3, 2, 2.5, 9], {}, (4, 2)),
     ([1, 3, 2, 4, 3, 3, 9], {}, (6, 4)),  # one bad value is forgiven, and counted anew after a better one
     ([3, 3, 3], {}, (3, 1)),  # the same again is not better
     ([-5, -4, -3], {}, (None, 3)),
     ([1, 3, 2, 2.5, 9], {"patience": 1}, (3, 2)),
     ([1, 3, 2, 2.5, 9], {"patience": 3}, (None, 5)),
     ([1, 1.4, 1.8, 9], {"min_delta": 1.0}, (3, 1)),
     ([1, 1.6, 2.2, 2.2], {"min_delta": 1.0}, (None, 3)),  # two small steps are one large one
     ([3, 1, 2, 1.5, 0], {"mode": "min"}, (4, 2)),
     ([3, 2.5, 2.2, 0], {"mode": "min", "min_delta": 1.0}, (3, 1)),
     ([3, 1, 1, 1], {"patience": None}, (None, None))],
)  # fmt: skip
def test_the_end_and_the_best(values, options, expected):
    assert _follow(values, **options) == expected


def test_the_best_is_a_copy():
    """The next update of a training run reuses the memory of what was evaluated."""
    plateau = Plateau(patience=1, min_delta=0.0, mode="max")
    variables = {"params": jnp.ones(3)}
    plateau.update(1.0, variables)
    variables["params"].delete()
    np.testing.assert_array_equal(plateau.variables["params"], 1)


@pytest.mark.parametrize(
    ("mode", "scores", "options", "end", "best"),
    [("max", [1, 5, 4, 3, 9, 9], {}, 8, 4), ("min", [5, 2, 3, 1, 4, 4], {}, 12, 8),
     ("max", [1, 5, 4, 3, 9, 9], {"patience": 3}, 12, 10), ("max", [1, 5, 5.5, 5.5, 9, 9], {"min_delta": 1.0}, 8, 4),
     ("max", [1, 5, 4, 3, 9, 9], {"patience": None}, 12, 12)],
)  # fmt: skip
def test_training_ends_with_the_best_variables(mode, scores, options, end, best):
    seen = {}

    def evaluate(variables, step):
        seen[step] = jax.tree.map(np.array, variables)
        return {"j": scores[len(seen) - 1]}

    settings = config(num_steps=12, eval_every=2, best_metric="j", best_mode=mode, **{"patience": 2, **options})
    state = fit(tiny(), clips, settings, evaluate=evaluate, progress=False)
    assert int(state.step) == end == max(seen)
    jax.tree.map(np.testing.assert_array_equal, state.variables, seen[best])
    if best != end:
        kernels = (variables["params"]["encoder"]["kernel"] for variables in (state.variables, seen[end]))
        assert np.abs(np.subtract(*kernels)).max() > 1e-4


def test_patience_that_cannot_be():
    for changes in ({}, {"best_metric": "j"}, {"eval_every": 2}):
        with pytest.raises(InputError, match="patience needs evaluations and their best_metric: set eval_every and"):
            config(patience=2, **changes)
    with pytest.raises(InputError, match="patience must be at least 1, not 0"):
        config(patience=0, best_metric="j", eval_every=2)
