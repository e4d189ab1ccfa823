"""STCN: every frame has a key, of which one look is enough, and each object a value there (Cheng et al., NeurIPS 2021).

The host of space-time correspondence training (Zhang et al., CVPR 2023).
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.nets import BackboneName, FrameMaskEncoder, FusionBlock, ResBlock, SkipDecoder, backbone, run_to_stride16
from jaxvos.ops import Keys
from jaxvos.system import System
from jaxvos.systems._correspondence import CorrespondenceConfig, Look
from jaxvos.systems._space_time import MemoryConfig, follower
from jaxvos.systems._space_time_loss import MaskLossConfig
from jaxvos.systems._space_time_net import SpaceTimeNet
from jaxvos.typing import Variables

__all__ = ["STCNConfig", "stcn", "stcn_keys"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class STCNConfig:
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
    decoder: Literal["stcn", "fusion"] = "stcn"
    """What is decoded: the memory's answer beside the frame's compressed features (STCN), or both fused by a block with
    attention (the released correspondence code)."""
    decoder_widths: tuple[int, int, int] = (512, 256, 256)
    """Channels at strides 16, 8 and 4."""
    attention: bool = True
    """Attention in the fusion of values, which STCN's authors found to help where training sets are small."""
    memory: MemoryConfig = MemoryConfig()
    """What is kept of a video, and how it is read."""
    objective: MaskLossConfig = MaskLossConfig()
    """What masks are judged by in training."""
    correspondence: CorrespondenceConfig | None = None
    """What training asks for beside masks: the same pixels and the same objects in other frames."""


class _STCN(SpaceTimeNet):
    config: STCNConfig

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return backbone(self.config.key_encoder).normalization

    @property
    def widths(self) -> tuple[int, int | None]:
        return self.config.value_width, None

    def setup(self):
        config = self.config
        self.encoder = backbone(config.key_encoder, width=config.encoder_width)
        self.key_proj = nn.Conv(config.key_width, (3, 3), kernel_init=nn.initializers.orthogonal())
        self.value = FrameMaskEncoder(config.value_encoder, config.encoder_width, config.value_width,
                                      attention=config.attention)  # fmt: skip
        match config.decoder:
            case "stcn":
                self.key_comp = nn.Conv(config.value_width, (3, 3))
                self.compress = ResBlock(config.decoder_widths[0])
            case "fusion":
                self.fuse = FusionBlock(config.decoder_widths[0], config.attention)
        self.decoder = SkipDecoder(config.decoder_widths[1:])

    def look(self, images: Float[Array, "b h w 3"]) -> Look:
        levels = run_to_stride16(self.encoder, images)
        return Look(Keys(self.key_proj(levels[4])), levels[4], (levels[3], levels[2]))

    def remember(
        self, image: Float[Array, "h w 3"], masks: Float[Array, "h w 2"], look: Look, hidden: Any
    ) -> tuple[Float[Array, "y x d"], Any]:
        return self.value(image, masks, look.deep), hidden

    def segment(self, look: Look, readout: Float[Array, "y x d"], hidden: Any) -> tuple[Float[Array, "h4 w4"], Any]:
        if self.config.decoder == "stcn":
            deep = self.compress(jnp.concatenate([readout, self.key_comp(look.deep)], axis=-1))
        else:
            deep = self.fuse(look.deep, readout)
        return self.decoder(deep, look.skips)[2], hidden

    def __call__(self, images: Float[Array, "b h w 3"]) -> None:
        """Touches every parameter."""
        look = self.look(images)
        first = Look(Keys(look.keys.key[0]), look.deep[0], (look.skips[0][0], look.skips[1][0]))
        self.segment(first, self.remember(images[0], images[0, ..., :2], first, None)[0], None)


def stcn(config: STCNConfig = STCNConfig()) -> System:
    """Builds STCN as a `System`; masks of the first frame are given to `start`, others to any frame of `predict`.

    The slots of a prediction are those of the masks given to `start`, of any number. Statistics of BatchNorm stay as
    they were in training, and its affine part learns, as published. Nothing is random in training; augmentation is the
    data's (`jaxvos.data.Augmentation`).
    """
    return follower(_STCN(config), memory_config=config.memory, loss_config=config.objective,
                    correspondence=config.correspondence)  # fmt: skip


def stcn_keys(config: STCNConfig, variables: Variables, images: Float[Array, "b h w 3"]) -> Keys:
    """What STCN compares places of frames by, a key for each place at stride 16; sides are multiples of that."""
    look: Any = _STCN(config).apply(variables, images, method="look")
    return look.keys
