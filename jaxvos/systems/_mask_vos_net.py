"""The three nets of Mask-VOS: of frames, of frames with masks, and from what a memory says to a mask."""

import dataclasses
import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvos.nets import BackboneName, FrameMaskEncoder, ResBlock, SkipDecoder, backbone, run_to_stride8
from jaxvos.ops import Keys, resize, soft_aggregate
from jaxvos.systems._correspondence import Look
from jaxvos.systems._space_time_net import ObjectNet, SpaceTimeNet
from jaxvos.typing import Masks, Variables

__all__ = ["MaskVOSNet", "MaskVOSNetConfig", "MaskVOSObjects"]

_LEAST = 1e-7
_SURE = 0.02  # log-odds of 4, which a decoder can overcome
_norm = functools.partial(nn.BatchNorm, momentum=0.9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskVOSNetConfig:
    """The paper's nets, with the widths of its code."""

    encoder: BackboneName = "resnet18"
    """Encoder of frames, at stride 8."""
    encoder_width: int = 64
    """Channels of a ResNet's stem (64 as published)."""
    key_head: Literal["mlp", "linear", "none"] = "mlp"
    """From features to keys: two layers (the code), one (the paper), or the features as they are."""
    key_width: int = 128
    """Channels that frames are compared by, of unit length."""
    value_encoder: BackboneName = "resnet18"
    """Encoder of frames with masks, at stride 8."""
    fused: bool = True
    """Fuse what that gives with the features of the frame (the code), or take it alone, from all stages (the paper)."""
    value_width: int = 512
    """Channels of what the memory says of an object."""
    decoder_widths: tuple[int, int, int] = (512, 256, 128)
    """Channels of the decoder: of what it is given, at stride 8, and at stride 4."""
    coarse_branch: bool = True
    """Decode what the coarse mask's value says beside what the memory's says; without it there is no refinement."""
    residual: bool = False
    """What is decoded corrects the coarse mask, as log-odds, rather than being the mask; a decoder that has learned
    nothing yet then changes nothing. (The released code averages the two.)"""


class MaskVOSNet(SpaceTimeNet):
    """The nets. A value's last channel is the mask itself, so that whoever reads values also reads a coarse mask."""

    config: MaskVOSNetConfig

    @property
    def stride(self) -> int:
        return 8

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return backbone(self.config.encoder).normalization

    @property
    def widths(self) -> tuple[int, int | None]:
        return self.config.value_width + 1, None

    def setup(self):
        config = self.config
        self.encoder = backbone(config.encoder, width=config.encoder_width, stride8=True)
        if config.encoder in ("resnet50", "resnet101"):
            self.reduce, self.reduce_norm = nn.Conv(8 * config.encoder_width, (1, 1), use_bias=False), _norm()
        if config.key_head == "mlp":
            self.hidden, self.hidden_norm = nn.Conv(8 * config.encoder_width, (1, 1)), _norm()
        if config.key_head != "none":
            self.key_proj = nn.Conv(config.key_width, (1, 1))
        self.value = FrameMaskEncoder(config.value_encoder, config.encoder_width, config.value_width, stride=8,
                                      fused=config.fused)  # fmt: skip
        self.join, self.decoder = ResBlock(config.decoder_widths[0]), SkipDecoder(config.decoder_widths[1:])

    def look(self, images: Float[Array, "b h w 3"], *, train: bool = False) -> Look:
        """Keys, features and skips of frames; `train` normalises by the statistics of the batch."""
        norm: dict[str, Any] = {"use_running_average": not train}
        top, skips = run_to_stride8(self.encoder, images, train=train)
        if self.config.encoder in ("resnet50", "resnet101"):
            top = nn.relu(self.reduce_norm(self.reduce(top), **norm))
        x = top
        if self.config.key_head == "mlp":
            x = nn.relu(self.hidden_norm(self.hidden(x), **norm))
        key = x if self.config.key_head == "none" else self.key_proj(x)
        length = jnp.sqrt(jnp.sum(key * key, axis=-1, keepdims=True) + 1e-12)
        return Look(Keys(key / length), top, skips)

    def remember(
        self, image: Float[Array, "h w 3"], masks: Float[Array, "h w 2"], look: Look, hidden: Any
    ) -> tuple[Float[Array, "y x d"], Any]:
        """The value of an object, and its mask; the masks of others are not looked at."""
        own = masks[..., :1]
        coarse = resize(own, look.deep.shape[:2])
        return jnp.concatenate([self.value(image, own, look.deep), coarse], axis=-1), hidden

    def decode(self, look: Look, value: Float[Array, "y x d"], seen: Float[Array, "y x d"]) -> Float[Array, "h4 w4"]:
        """Logits of one object from what the memory says and from what its mask so far says."""
        x = jnp.concatenate([value, seen], axis=-1) if self.config.coarse_branch else value
        return self.decoder(self.join(x), look.skips)[2]

    def __call__(self, images: Float[Array, "b h w 3"]) -> None:
        """Touches every parameter."""
        first: Look = jax.tree.map(lambda x: x[0], self.look(images))
        value = self.remember(images[0], images[0, ..., :2], first, None)[0][..., :-1]
        self.decode(first, value, value)


@dataclasses.dataclass(frozen=True)
class MaskVOSObjects(ObjectNet):
    """The nets for several objects: a coarse mask of each, which rounds of encoding and decoding refine.

    Attributes:
      rounds: of refinement. With none the coarse masks are the answer, unless the decoder was built to do without them.
    """

    net: MaskVOSNet
    rounds: int = 3

    @property
    def _plain(self) -> bool:
        return self.rounds == 0 and self.net.config.coarse_branch

    @property
    def value_width(self) -> int:
        return 1 if self._plain else super().value_width

    def remember(
        self, variables: Variables, image: Float[Array, "h w 3"], masks: Masks, look: Look, hidden: Any
    ) -> tuple[Float[Array, "o p d"], Any]:
        if not self._plain:
            return super().remember(variables, image, masks, look, hidden)
        coarse = jnp.moveaxis(resize(masks[..., 1:], look.deep.shape[:2]), -1, 0)
        return coarse.reshape(len(coarse), -1, 1), hidden

    def segment(
        self, variables: Variables, image: Float[Array, "h w 3"], look: Look, readout: Float[Array, "o p d"],
        hidden: Any, *, alive: Bool[Array, "o"],
    ) -> tuple[Float[Array, "h w k"], Any]:  # fmt: skip
        readout = readout.reshape(len(readout), *look.deep.shape[:2], -1)
        coarse = resize(jnp.moveaxis(jnp.clip(readout[..., -1], 0, 1) * alive[:, None, None], 0, -1), image.shape[:2])
        if self._plain:
            background = jnp.clip(1 - coarse.sum(axis=-1, keepdims=True), 0, None)
            logits = jnp.log(jnp.clip(jnp.concatenate([background, coarse], axis=-1), _LEAST, None))
            return logits.at[..., 1:].set(jnp.where(alive, logits[..., 1:], -jnp.inf)), hidden
        refine = functools.partial(self.refine, variables, image, look, readout[..., :-1], coarse, alive=alive)
        logits = refine(coarse)
        if not self.net.config.coarse_branch:
            return logits, hidden
        again = lambda logits, _: (refine(jax.nn.softmax(logits)[..., 1:]), None)  # noqa: E731
        return jax.lax.scan(again, logits, length=self.rounds - 1)[0], hidden

    def refine(
        self, variables: Variables, image: Float[Array, "h w 3"], look: Look, values: Float[Array, "o y x d"],
        coarse: Float[Array, "h w o"], masks: Float[Array, "h w o"], *, alive: Bool[Array, "o"],
    ) -> Float[Array, "h w k"]:  # fmt: skip
        """Logits over the background and all objects, of what the memory says and of the masks so far."""

        def one(value: Array, mask: Array) -> Array:
            pair = jnp.stack([mask, jnp.zeros_like(mask)], axis=-1)
            seen = self.net.apply(variables, image, pair, look, None, method="remember")[0][..., :-1]  # pyright: ignore
            return self.net.apply(variables, look, value, seen, method="decode")  # pyright: ignore

        decoded = jnp.moveaxis(self.each(one, values, jnp.moveaxis(masks, -1, 0)), 0, -1)
        logits = resize(decoded, image.shape[:2])
        if self.net.config.residual:
            logits += jax.scipy.special.logit(jnp.clip(coarse, _SURE, 1 - _SURE))
        return soft_aggregate(jax.nn.sigmoid(logits), alive=alive)
