"""The heavy refinement network of DMM-Net: a siamese encoder with masks for input and a U-Net, after RGMP."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.errors import InputError
from jaxvos.nets._backbones import BackboneName, backbone
from jaxvos.nets._resnet import ResNet
from jaxvos.ops import resize

__all__ = ["HeavyRefiner"]

_conv3x3 = partial(nn.Conv, kernel_size=(3, 3))


class _Residual(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, beside the identity."""

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        y = _conv3x3(x.shape[-1])(nn.relu(x))
        return x + _conv3x3(x.shape[-1])(nn.relu(y))


class _GlobalConv(nn.Module):
    """A kernel of 7x7 as two sums of a column and a row (Peng et al. 2017)."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w d"]:
        down = nn.Conv(self.features, (1, 7))(nn.Conv(self.features, (7, 1))(x))
        along = nn.Conv(self.features, (7, 1))(nn.Conv(self.features, (1, 7))(x))
        return down + along


class _Refine(nn.Module):
    """Adds the coarser level to a skip, at the size of the skip."""

    features: int

    @nn.compact
    def __call__(self, skip: Float[Array, "h w c"], above: Float[Array, "y x d"]) -> Float[Array, "h w d"]:
        skip = _Residual()(_conv3x3(self.features)(skip))
        return _Residual()(skip + resize(above, skip.shape[:2]))


class HeavyRefiner(nn.Module):
    """Refines the mask of one object in one frame with an encoder of its own, which sees the mask with the image.

    It is used as `LightRefiner` is. The same ResNet encodes the frame with the matched mask and the first frame with
    the template; a mask enters by a convolution that is added to the first one of the image, before its
    normalisation. A global convolution joins the two at stride 32, and a U-Net refines over the frame's features. Not
    released by the authors: this is the reading of their text and of RGMP (Oh et al. 2018).

    Normalisation is by stored statistics, in training too, so there is nothing to update. The first convolution of an
    image is the same for all objects, and is computed once where `jax.vmap` leaves the image unmapped.

    Attributes:
      backbone: the encoder, a ResNet.
      backbone_width: channels of its stem; 64 is the published net.
      width: channels of the decoder.
    """

    backbone: BackboneName = "resnet50"
    backbone_width: int = 64
    width: int = 256

    def setup(self):
        encoder = backbone(self.backbone, width=self.backbone_width)
        if not isinstance(encoder, ResNet):
            raise InputError(f"the heavy refiner needs a ResNet, not {self.backbone}: name one, as resnet50")
        self.encoder = encoder
        self.mask_conv = nn.Conv(self.backbone_width, (7, 7), (2, 2), padding=3, use_bias=False)
        self.join, self.joined = _GlobalConv(self.width), _Residual()
        self.refine_4, self.refine_3, self.refine_2 = (_Refine(self.width) for _ in range(3))
        self.head = _conv3x3(2)

    def _encode(self, image: Float[Array, "h w 3"], mask: Float[Array, "h w"]) -> dict[int, Array]:
        x, features = self.encoder.stem(image[None], train=False, extra=self.mask_conv(mask[None, ..., None])), {}
        for stage in (2, 3, 4, 5):
            x = self.encoder.stage(x, stage, train=False)
            features[stage] = x[0]
        return features

    def reference(self, image: Float[Array, "h w 3"], template: Float[Array, "h w"]) -> Float[Array, "y x c"]:
        """Features of the first frame (normalised) with the object's mask, at stride 32."""
        return self._encode(image, template)[5]

    def initial_state(self, skips: dict[int, Float[Array, "_h _w _c"]]) -> tuple[()]:
        """It remembers nothing from frame to frame."""
        del skips
        return ()

    def __call__(
        self,
        image: Float[Array, "h w 3"],
        skips: dict[int, Float[Array, "_h _w _c"]],
        masks: Float[Array, "3 h w"],
        reference: Float[Array, "y x c"],
        state: tuple[()],
    ) -> tuple[Float[Array, "h w"], tuple[()]]:
        """Logits at the full size: foreground over background.

        Args:
          image: the frame, normalised.
          skips: not looked at; the encoder is its own.
          masks: previous, template, matched, of which the last is looked at; the template is in `reference`.
          reference: of `reference`.
          state: of `initial_state`.
        """
        del skips
        features = self._encode(image, masks[2])
        x = self.joined(self.join(jnp.concatenate([features[5], reference], axis=-1)))
        for stage, refine in ((4, self.refine_4), (3, self.refine_3), (2, self.refine_2)):
            x = refine(features[stage], x)
        background, foreground = jnp.split(self.head(nn.relu(x)), 2, axis=-1)
        return resize(foreground - background, image.shape[:2])[..., 0], state
