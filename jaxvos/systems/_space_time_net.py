"""What the fold of space-time memory networks asks of a net, and how it asks it of several objects."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvos.ops import Keys, resize, soft_aggregate
from jaxvos.systems._correspondence import Look
from jaxvos.typing import Masks, Variables

__all__ = ["ObjectNet", "SpaceTimeNet", "flat_keys"]


class SpaceTimeNet(nn.Module):
    """What the fold asks of a net. `hidden` is what is kept of an object beside the memory, `None` if nothing."""

    @property
    def stride(self) -> int:
        """Pixels between the places of the keys."""
        return 16

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the key encoder's images."""
        raise NotImplementedError

    @property
    def widths(self) -> tuple[int, int | None]:
        """Channels of values, and of the hidden state."""
        raise NotImplementedError

    def look(self, images: Float[Array, "b h w 3"]) -> Look:
        raise NotImplementedError

    def remember(self, image: Array, masks: Float[Array, "h w 2"], look: Look, hidden: Any) -> tuple[Array, Any]:
        """Value of one object, and its hidden state where the frame is also to renew that."""
        raise NotImplementedError

    def segment(self, look: Look, readout: Float[Array, "y x d"], hidden: Any) -> tuple[Float[Array, "y x"], Any]:
        """Logits of one object at stride 4, and its hidden state."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class ObjectNet:
    """A net that is run for several objects of a frame: `slots` side by side, and such groups one after the other."""

    net: SpaceTimeNet
    slots: int

    @property
    def value_width(self) -> int:
        """Channels of what `remember` gives."""
        return self.net.widths[0]

    def look(self, variables: Variables, images: Float[Array, "b h w 3"]) -> Look:
        """Encodes frames."""
        look: Any = self.net.apply(variables, images, method="look")
        return look

    def initial_hidden(self, num_objects: int, look: Look) -> Any:
        """The hidden state of objects of which nothing was seen."""
        width = self.net.widths[1]
        return None if width is None else jnp.zeros((num_objects, *look.deep.shape[-3:-1], width))

    def remember(
        self, variables: Variables, image: Float[Array, "h w 3"], masks: Masks, look: Look, hidden: Any
    ) -> tuple[Float[Array, "o p d"], Any]:
        """Values of all objects, and their hidden states where the frame is also to renew those."""
        objects = jnp.moveaxis(masks[..., 1:], -1, 0)
        pairs = jnp.stack([objects, objects.sum(axis=0) - objects], axis=-1)
        apply = lambda pair, state: self.net.apply(variables, image, pair, look, state, method="remember")  # noqa: E731
        values, hidden = self.each(apply, pairs, hidden)
        return values.reshape(len(values), -1, values.shape[-1]), hidden

    def segment(
        self, variables: Variables, image: Float[Array, "h w 3"], look: Look, readout: Float[Array, "o p d"],
        hidden: Any, *, alive: Bool[Array, "o"],
    ) -> tuple[Float[Array, "h w k"], Any]:  # fmt: skip
        """Logits over the background and all objects, and their hidden states."""
        readout = readout.reshape(len(readout), *look.deep.shape[:2], -1)
        apply = lambda values, state: self.net.apply(variables, look, values, state, method="segment")  # noqa: E731
        logits, hidden = self.each(apply, readout, hidden)
        found = jax.nn.sigmoid(resize(jnp.moveaxis(logits, 0, -1), image.shape[:2]))
        return soft_aggregate(found, alive=alive), hidden

    def each(self, function: Any, *objects: Any) -> Any:
        """A function of one object, for all of them."""
        if jax.tree.leaves(objects)[0].shape[0] <= self.slots:
            return jax.vmap(function)(*objects)
        return jax.lax.map(lambda each: function(*each), objects, batch_size=self.slots)


def flat_keys(keys: Keys) -> Keys:
    """Keys of a map as keys of a list of places."""
    y, x = keys.key.shape[:2]
    return jax.tree.map(lambda a: a.reshape(y * x, *a.shape[2:]), keys)
