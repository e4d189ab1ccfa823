"""The light refinement network of DMM-Net: four convolutional LSTMs from coarse to fine, after RVOS's decoder."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.nets._conv_lstm import ConvLSTM, ConvLSTMState
from jaxvos.ops import resize

__all__ = ["LightRefiner"]

_STAGES = (5, 4, 3, 2)  # from coarse to fine


class LightRefiner(nn.Module):
    """Refines the mask of one object in one frame by what a shared encoder sees there.

    Both refiners, this and `HeavyRefiner`, are used the same way, without a batch axis; `jax.vmap` adds one over
    objects. The image and the skips are the frame's, so leave them unmapped and their convolutions are computed once
    for all objects.

      reference = refiner.reference(image, template)  # once, on the first frame
      state = refiner.initial_state(skips)            # once; needs no parameters
      logits, state = refiner(image, skips, masks, reference, state)   # in every frame

    `masks` are those of the frame before, of the template (the first frame) and of the matched proposal, in [0, 1] at
    the full size. Each level runs a `ConvLSTM` on the skip of its stage, the masks, max-pooled to its size, and the
    hidden state of the coarser level. The published text and the released code differ; the options are their readings.

    Attributes:
      widths: hidden channels at strides 32, 16, 8, 4.
      mask_fusion: `average`: the masks enter one at a time, through the same kernels, and the three new states are
        averaged on each level (released code); `stack`: they enter side by side (paper), so that their order matters.
      recurrence: `temporal`: hidden state and cell come from the same object in the frame before (paper). `rvos`
        (released code): they come from the object before in the same frame, given as `spatial`, and the gates see, too,
        the hidden state of the same object in the frame before. The state that a call returns is then both: `spatial`
        of the next object, and `state` of this object in the next frame; so scan over the objects, whose order matters.
    """

    widths: tuple[int, int, int, int] = (128, 64, 32, 16)
    mask_fusion: Literal["average", "stack"] = "average"
    recurrence: Literal["temporal", "rvos"] = "temporal"

    def reference(self, image: Float[Array, "h w 3"], template: Float[Array, "h w"]) -> tuple[()]:
        """Keeps nothing of the first frame: the template comes with the masks."""
        del image, template
        return ()

    def initial_state(self, skips: dict[int, Float[Array, "_h _w _c"]]) -> tuple[ConvLSTMState, ...]:
        """Zeros, from the coarsest level to the finest."""
        zeros = [jnp.zeros((*skips[stage].shape[:2], d)) for stage, d in zip(_STAGES, self.widths, strict=True)]
        return tuple(ConvLSTMState(x, x) for x in zeros)

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "h w 3"],
        skips: dict[int, Float[Array, "_h _w _c"]],
        masks: Float[Array, "3 h w"],
        reference: tuple[()],
        state: tuple[ConvLSTMState, ...],
        *,
        spatial: tuple[ConvLSTMState, ...] | None = None,
    ) -> tuple[Float[Array, "h w"], tuple[ConvLSTMState, ...]]:
        """Logits at the full size, and the new state.

        Args:
          image: the frame; this refiner looks at its size alone.
          skips: features of the stages 2 to 5, whose sizes are those of the frame, halved 2 to 5 times and rounded up.
          masks: previous, template, matched.
          reference: of `reference`.
          state: of this object in the frame before.
          spatial: of the object before in this frame, `None` for the first one; only with `recurrence="rvos"`.
        """
        del reference
        pooled = _pyramid(masks)
        match self.recurrence:
            case "temporal":
                if spatial is not None:
                    raise ValueError("recurrence='temporal' has no use for the spatial state of another object")
                before, extra = state, [{} for _ in state]
            case "rvos":
                before = self.initial_state(skips) if spatial is None else spatial
                extra = [{"temporal": level.hidden} for level in state]
        above, after = {}, []
        for stage, features, level, more in zip(_STAGES, self.widths, before, extra, strict=True):
            inputs = {"skip": skips[stage], **above, **more}
            lstm = ConvLSTM(features, name=f"lstm_{stage}")
            match self.mask_fusion:
                case "average":
                    three = lstm({**inputs, "mask": pooled[stage][..., None]}, level)
                    new = jax.tree.map(lambda x: x.mean(0), three)
                case "stack":
                    new = lstm({**inputs, "mask": jnp.moveaxis(pooled[stage], 0, -1)}, level)
            after.append(new)
            y, x = skips[stage - 1].shape[:2] if stage > 2 else (2 * n for n in new.hidden.shape[:2])
            above = {"above": resize(new.hidden, (y, x))}
        logits = nn.Conv(1, (3, 3), name="head")(above["above"])
        return resize(logits, image.shape[:2])[..., 0], tuple(after)


def _pyramid(masks: Float[Array, "k h w"]) -> dict[int, Array]:
    """Maxima over windows of 4 to 32 pixels, by stage; the last window of a row may be cut off."""
    levels, x = {}, masks
    for stage in range(1, 6):
        k, h, w = x.shape
        x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2)), constant_values=-jnp.inf)
        x = jnp.max(x.reshape(k, x.shape[1] // 2, 2, x.shape[2] // 2, 2), axis=(2, 4))
        levels[stage] = x
    return levels
