"""A net without parameters that follows colours: what the fold does can be seen, and stated in NumPy."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxvos.inference import fold
from jaxvos.ops import Keys
from jaxvos.system import Frame
from jaxvos.systems import Look, MaskLossConfig, MemoryConfig
from jaxvos.systems._space_time import follower
from jaxvos.systems._space_time_net import SpaceTimeNet

SIZE = (48, 64)
RED, BLUE, GREY = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9), (0.5, 0.6, 0.5)


class ToyNet(SpaceTimeNet):
    """A place is known by its mean colour, and an object by its share of the places."""

    hidden: int | None = None
    sharpness: float = 12.0

    @property
    def normalization(self):
        return (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)

    @property
    def widths(self):
        return 2, self.hidden

    def look(self, images):
        b, h, w, _ = images.shape
        cells = lambda n: images.reshape(b, h // n, n, w // n, n, 3).mean(axis=(2, 4))  # noqa: E731
        deep = cells(16)
        keys = Keys(self.sharpness * deep)
        if self.hidden is not None:
            keys = Keys(keys.key, 1 + deep[..., 0], 0.5 + deep / 2)
        return Look(keys, deep, (cells(8), cells(4)))

    def remember(self, image, masks, look, hidden):
        y, x = look.deep.shape[:2]
        value = masks.reshape(y, 16, x, 16, 2).mean(axis=(1, 3))
        return value, None if hidden is None else hidden + value[..., :1]

    def segment(self, look, readout, hidden):
        logits = 12 * readout[..., 0] - 6
        if hidden is not None:
            logits, hidden = logits + hidden.mean(axis=-1), 0.5 * hidden
        return jnp.repeat(jnp.repeat(logits, 4, axis=0), 4, axis=1) + look.skips[1][..., 0], hidden

    def __call__(self, images):
        return self.look(images)


def toy(*, hidden=None, **memory):
    memory = {"every": 2, "frames": 8, "top_k": None, **memory}
    return follower(ToyNet(hidden=hidden), memory_config=MemoryConfig(**memory), loss_config=MaskLossConfig())


def place(value, t, *, size=SIZE):
    """Of the square of object 1 or 2 on frame t: on the grid of places, moving from column to column."""
    top, left = 16 * (value - 1), 16 * (t % (size[1] // 16))
    return slice(top, top + 16), slice(left, left + 16)


def image(t, *values, size=SIZE):
    """Squares of the colours of some objects on tiles that flicker."""
    tiles = np.random.default_rng(t).uniform(-0.05, 0.05, (size[0] // 16, size[1] // 16, 3)).astype(np.float32)
    x = tiles.repeat(16, axis=0).repeat(16, axis=1) + np.float32(GREY)
    for value in values:
        x[place(value, t, size=size)] += np.float32((RED, BLUE)[value - 1]) - np.float32(GREY)
    return x


def mask(t, *values, slots=3, size=SIZE, into=None):
    """Masks of objects, each in the slot of its number or in the one named by `into`."""
    x = np.zeros((*size, slots), np.float32)
    for value in values:
        x[(*place(value, t, size=size), into or value)] = 1
    x[..., 0] = 1 - x.sum(axis=-1)
    return x


def frame(t, *values, told=(), alive=None, slots=3, size=SIZE, into=None):
    """A frame as the session gives them: with masks and `alive` on every one."""
    alive = np.ones(slots, bool) if alive is None else np.array(alive)
    return Frame(jnp.array(image(t, *values, size=size)), alive=jnp.array(alive),
                 masks=jnp.array(mask(t, *told, slots=slots, size=size, into=into)))  # fmt: skip


def run(system, frames, *, masks, variables=None):
    """Predictions of frames, as NumPy arrays, and the last memory."""
    found, memory = [], None
    for memory, prediction in fold(system, variables or {}, frames, masks=jnp.array(masks)):  # noqa: B007
        found.append(np.asarray(prediction.masks))
    return np.stack(found), memory


def stack(frames):
    return jax.tree.map(lambda *x: jnp.stack(x), *frames)


def resident_bytes():
    """Memory that this process holds."""
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])
