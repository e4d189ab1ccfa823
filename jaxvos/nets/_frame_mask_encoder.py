"""What a memory keeps of an object: its frame and its mask, encoded together."""

from typing import Literal

import flax.linen as nn
from jaxtyping import Array, Float

from jaxvos.nets._backbones import BackboneName, backbone, run_to_stride8, run_to_stride16
from jaxvos.nets._fusion import FusionBlock

__all__ = ["FrameMaskEncoder"]


class FrameMaskEncoder(nn.Module):
    """An encoder with more input channels, fused with the features of the frame (STCN) or alone (Mask-VOS).

    The first convolution is that of the frame plus one of the masks: the frame's is computed once for all objects that
    run side by side under `jax.vmap`.

    Attributes:
      encoder_name: as `backbone` takes it; its stages up to Res4 are used.
      width: channels of a ResNet's stem.
      features: channels of the result.
      frame_first: join the frame's features before the encoder's (XMem), or after them (STCN).
      attention: of the fusion.
      stride: of the result.
      fused: with the features of the frame; otherwise one more convolution, of a single place, makes the result.
    """

    encoder_name: BackboneName = "resnet18"
    width: int = 64
    features: int = 512
    frame_first: bool = False
    attention: bool = True
    stride: Literal[8, 16] = 16
    fused: bool = True

    def setup(self):
        self.encoder = backbone(self.encoder_name, width=self.width, stride8=self.stride == 8)
        self.mask_conv = nn.Conv(**self.encoder.first, use_bias=False, kernel_init=nn.initializers.he_normal())
        if self.fused:
            self.fuser = FusionBlock(self.features, self.attention)
        else:
            self.value = nn.Conv(self.features, (1, 1))

    def __call__(
        self, image: Float[Array, "h w 3"], masks: Float[Array, "h w m"], features: Float[Array, "y x c"]
    ) -> Float[Array, "y x d"]:
        """Encodes one object of one frame.

        Args:
          image: in [0, 1].
          masks: that of the object, and the sum of those of the others.
          features: of the frame, at the same stride.
        """
        extra = self.mask_conv(masks[None])
        if self.stride == 16:
            x = run_to_stride16(self.encoder, image[None], extra=extra)[4][0]
        else:
            x = run_to_stride8(self.encoder, image[None], extra=extra, deepest=not self.fused).top[0]
        if not self.fused:
            return self.value(x)
        return self.fuser(features, x) if self.frame_first else self.fuser(x, features)
