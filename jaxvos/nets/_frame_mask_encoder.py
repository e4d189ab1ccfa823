"""What a memory keeps of an object: its frame and its mask, encoded together."""

import flax.linen as nn
from jaxtyping import Array, Float

from jaxvos.nets._backbones import BackboneName, backbone, run_to_stride16
from jaxvos.nets._fusion import FusionBlock

__all__ = ["FrameMaskEncoder"]


class FrameMaskEncoder(nn.Module):
    """An encoder with more input channels, fused with the features of the frame (STCN).

    The first convolution is that of the frame plus one of the masks: the frame's is computed once for all objects that
    run side by side under `jax.vmap`.

    Attributes:
      encoder_name: as `backbone` takes it; its stages up to stride 16 are used.
      width: channels of a ResNet's stem.
      features: channels of the result.
      frame_first: join the frame's features before the encoder's (XMem), or after them (STCN).
      attention: of the fusion.
    """

    encoder_name: BackboneName = "resnet18"
    width: int = 64
    features: int = 512
    frame_first: bool = False
    attention: bool = True

    def setup(self):
        self.encoder = backbone(self.encoder_name, width=self.width)
        self.mask_conv = nn.Conv(**self.encoder.first, use_bias=False, kernel_init=nn.initializers.he_normal())
        self.fuser = FusionBlock(self.features, self.attention)

    def __call__(
        self, image: Float[Array, "h w 3"], masks: Float[Array, "h w m"], features: Float[Array, "y x c"]
    ) -> Float[Array, "y x d"]:
        """Encodes one object of one frame.

        Args:
          image: in [0, 1].
          masks: that of the object, and the sum of those of the others.
          features: of the frame, at stride 16.
        """
        x = run_to_stride16(self.encoder, image[None], extra=self.mask_conv(masks[None]))[4][0]
        return self.fuser(features, x) if self.frame_first else self.fuser(x, features)
