"""What frames teach about one another without a label: colours that must be found again, walks that must come back."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.ops import propagate
from jaxvos.typing import Key

__all__ = ["cycle_consistency", "reconstruction_loss"]

_NEVER, _LEAST = -1e30, 1e-12


def reconstruction_loss(
    query: Float[Array, "p c"],
    keys: Float[Array, "s p c"],
    query_colours: Float[Array, "p d"],
    colours: Float[Array, "s p d"],
    *,
    temperature: float = 0.05,
    delta: float = 0.1,
) -> Float[Array, ""]:
    """Huber distance of a frame's colours from what its references have where its keys point (MAST).

    Keys should not see the colours that are asked for, or they need no correspondence.

    Args:
      query: keys of the frame.
      keys: of the references.
      query_colours: of the frame, at the places of its keys.
      colours: of the references.
      temperature: of the softmax over all places of all references.
      delta: distance from which on the loss grows linearly.

    Source: Lai, Lu and Xie, "MAST: A Memory-Augmented Self-Supervised Tracker" (CVPR 2020).
    """
    size = (1, len(query))  # without a radius the shape of the map is of no account
    found = propagate(query, keys, colours[None], size=size, temperature=temperature, top_k=None, radius=None,
                      backend="dense")[0]  # fmt: skip
    distance = jnp.abs(found - query_colours)
    huber = jnp.where(distance < delta, 0.5 * distance**2 / delta, distance - 0.5 * delta)
    return jnp.mean(huber)


def cycle_consistency(
    key: Key, keys: Float[Array, "t p c"], *, temperature: float = 0.05, dropout: float = 0.1
) -> Float[Array, ""]:
    """Cross-entropy of a random walk to the last frame and back against where it began (CRW).

    Args:
      key: randomness of the dropout.
      keys: of the frames, of unit length.
      temperature: of the softmax over the places of the next frame.
      dropout: probability that an edge of the walk is not there.

    Source: Jabri, Owens and Efros, "Space-Time Correspondence as a Contrastive Random Walk" (NeurIPS 2020).
    """
    there_and_back = jnp.concatenate([keys, keys[-2::-1]])

    def step(walk: Array, edge: tuple[Array, Array, Key]) -> tuple[Array, None]:
        here, there, key = edge
        scores = here @ there.T / temperature
        scores = jnp.where(jax.random.bernoulli(key, dropout, scores.shape), _NEVER, scores)
        return walk @ jax.nn.softmax(scores, axis=-1), None

    edges = there_and_back[:-1], there_and_back[1:], jax.random.split(key, len(there_and_back) - 1)
    walk, _ = jax.lax.scan(step, jnp.eye(keys.shape[1]), edges)
    return -jnp.mean(jnp.log(jnp.diagonal(walk) + _LEAST))
