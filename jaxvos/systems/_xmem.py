"""XMem: memories that last a frame, some frames and a whole video (Cheng and Schwing, ECCV 2022)."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.nets import BackboneName, ConvGRU, FrameMaskEncoder, FusionBlock, SkipDecoder, backbone, run_to_stride16
from jaxvos.ops import Keys
from jaxvos.system import System
from jaxvos.systems._correspondence import CorrespondenceConfig, Look
from jaxvos.systems._long_term import LongTermConfig
from jaxvos.systems._space_time import MemoryConfig, follower
from jaxvos.systems._space_time_loss import MaskLossConfig
from jaxvos.systems._space_time_net import SpaceTimeNet

__all__ = ["XMemConfig", "xmem"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class XMemConfig:
    """The paper's setting."""

    key_encoder: BackboneName = "resnet50"
    """Encoder of frames, up to stride 16."""
    value_encoder: BackboneName = "resnet18"
    """Encoder of frames with masks, up to stride 16."""
    encoder_width: int = 64
    """Channels of a ResNet's stem (64 as published)."""
    key_width: int = 64
    """Channels that frames are compared by."""
    value_width: int = 512
    """Channels of what the memory says of an object."""
    hidden_width: int = 64
    """Channels of the sensory memory."""
    decoder_widths: tuple[int, int, int] = (512, 256, 256)
    """Channels at strides 16, 8 and 4; the middle one is also that of what renews the sensory memory."""
    anisotropic: bool = True
    """Entries have a shrinkage and queries a selection; otherwise frames are compared as by STCN."""
    attention: bool = True
    """Attention in both fusions."""
    memory: MemoryConfig = MemoryConfig(frames=10, top_k=30, long_term=LongTermConfig())
    """What is kept of a video, and how it is read."""
    objective: MaskLossConfig = MaskLossConfig(dice_weight=1.0)
    """What masks are judged by in training."""
    correspondence: CorrespondenceConfig | None = None
    """What training asks for beside masks: the same pixels and the same objects in other frames."""
    reference_frames: int | None = 3
    """Memory frames of a training step, the first and others drawn from those before; all if left out."""
    deep_update: float = 0.2
    """Probability that a training frame's value renews the sensory memory; in prediction those of memory frames do."""


class _XMem(SpaceTimeNet):
    config: XMemConfig

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return backbone(self.config.key_encoder).normalization

    @property
    def widths(self) -> tuple[int, int | None]:
        return self.config.value_width, self.config.hidden_width

    def setup(self):
        config = self.config
        self.encoder = backbone(config.key_encoder, width=config.encoder_width)
        self.key_proj = nn.Conv(config.key_width, (3, 3), kernel_init=nn.initializers.orthogonal())
        if config.anisotropic:
            self.d_proj, self.e_proj = nn.Conv(1, (3, 3)), nn.Conv(config.key_width, (3, 3))
        self.value = FrameMaskEncoder(config.value_encoder, config.encoder_width, config.value_width,
                                      frame_first=True, attention=config.attention)  # fmt: skip
        self.deep_update, self.update = ConvGRU(), ConvGRU()
        self.fuse = FusionBlock(config.decoder_widths[0], config.attention)
        self.decoder = SkipDecoder(config.decoder_widths[1:])
        self.g16_conv, self.g8_conv, self.g4_conv = (nn.Conv(config.decoder_widths[1], (1, 1)) for _ in range(3))

    def look(self, images: Float[Array, "b h w 3"]) -> Look:
        levels = run_to_stride16(self.encoder, images)
        x = levels[4]
        keys = Keys(self.key_proj(x))
        if self.config.anisotropic:
            keys = Keys(keys.key, self.d_proj(x)[..., 0] ** 2 + 1, jax.nn.sigmoid(self.e_proj(x)))
        return Look(keys, x, (levels[3], levels[2]))

    def remember(
        self, image: Float[Array, "h w 3"], masks: Float[Array, "h w 2"], look: Look, hidden: Float[Array, "y x e"]
    ) -> tuple[Float[Array, "y x d"], Float[Array, "y x e"]]:
        value = self.value(image, masks, look.deep)
        return value, self.deep_update(value, hidden)

    def segment(
        self, look: Look, readout: Float[Array, "y x d"], hidden: Float[Array, "y x e"]
    ) -> tuple[Float[Array, "h4 w4"], Float[Array, "y x e"]]:
        deep = self.fuse(look.deep, jnp.concatenate([readout, hidden], axis=-1))
        x4, x8, logits = self.decoder(deep, look.skips)
        size = deep.shape[:2]
        x4 = jnp.concatenate([x4, logits[..., None]], axis=-1)
        seen = self.g16_conv(deep) + self.g8_conv(_mean_pool(x8, size)) + self.g4_conv(_mean_pool(x4, size))
        return logits, self.update(seen, hidden)

    def __call__(self, images: Float[Array, "b h w 3"]) -> None:
        """Touches every parameter."""
        first: Look = jax.tree.map(lambda x: x[0], self.look(images))
        hidden = jnp.zeros((*first.deep.shape[:2], self.config.hidden_width))
        value, hidden = self.remember(images[0], images[0, ..., :2], first, hidden)
        self.segment(first, value, hidden)


def _mean_pool(x: Float[Array, "h w c"], size: tuple[int, ...]) -> Float[Array, "y x c"]:
    """Means over the cells of a grid that divides the map."""
    (h, w, c), (y, x_) = x.shape, size
    return x.reshape(y, h // y, x_, w // x_, c).mean(axis=(1, 3))


def xmem(config: XMemConfig = XMemConfig()) -> System:
    """Builds XMem as a `System`; it is used and trained as `stcn`, and in training draws which frames are in memory.

    Memory is of a fixed size however long the video is: frames, prototypes of those that were (`LongTermConfig`), and
    the sensory memory of each object.
    """
    return follower(_XMem(config), memory_config=config.memory, loss_config=config.objective,
                    reference_frames=config.reference_frames, deep_update=config.deep_update,
                    correspondence=config.correspondence)  # fmt: skip
