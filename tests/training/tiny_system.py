"""A tiny system with BatchNorm and dropout, and endless clips for it; also run as a script by the tests.

`python tiny_system.py WORKDIR STEPS CHECKPOINT_EVERY [SECONDS_PER_BATCH]` trains it.
"""

import sys
import time
from pathlib import Path

import numpy as np
import optax
from flax import linen as nn

from jaxvos.errors import exit_on_input_error
from jaxvos.system import Clip, LossOutput, System
from jaxvos.training import OptimizerConfig, TrainingConfig, fit


class Net(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(self.width, (3, 3), use_bias=False, name="encoder")(images)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        x = nn.Dropout(0.1, deterministic=not train)(nn.relu(x))
        return nn.Conv(2, (1, 1), name="decoder")(x)


def _never(*args):
    raise NotImplementedError


def tiny(width: int = 4) -> System:
    net = Net(width)

    def init(key, clip):
        return net.init(key, clip.images[:, 0], train=False)

    def loss(variables, clip, *, key, step):
        logits, state = net.apply(
            variables, clip.images[:, 0], train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        value = optax.softmax_cross_entropy(logits, clip.masks[:, 0]).mean()
        return LossOutput(value, state, {"half": value / 2})

    return System(init, loss, _never)


def clips(start_step: int, batch: int = 8, seconds: float = 0.0):
    """Bright pixels are foreground; batch number `n` depends on `n` alone."""
    for step in range(start_step, 10**6):
        rng = np.random.default_rng(step)
        images = rng.random((batch, 1, 8, 8, 3), np.float32)
        foreground = (images.mean(-1) > 0.5).astype(np.float32)
        time.sleep(seconds)
        yield Clip(images=images, masks=np.stack([1 - foreground, foreground], -1))


def config(**changes) -> TrainingConfig:
    optimizer = OptimizerConfig(**{"lr": 1e-2, **changes.pop("optimizer", {})})
    return TrainingConfig(**{"num_steps": 6, "log_every": 1, "checkpoint_every": 2, **changes}, optimizer=optimizer)


if __name__ == "__main__":
    workdir, steps, every, *seconds = sys.argv[1:]
    with exit_on_input_error():
        fit(
            tiny(),
            lambda start: clips(start, seconds=float(seconds[0]) if seconds else 0.0),
            config(num_steps=int(steps), checkpoint_every=int(every)),
            workdir=Path(workdir),
        )
