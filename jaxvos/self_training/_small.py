"""Nets and a recipe for a computer without an accelerator."""

from jaxvos.nets import BackboneName
from jaxvos.self_training._config import SelfTrainingConfig
from jaxvos.systems import MaskVOSConfig, MaskVOSNetConfig, PropagationConfig
from jaxvos.training import OptimizerConfig, TrainingConfig, evolve

__all__ = ["small_net", "small_recipe"]


def small_net(encoder: BackboneName = "efficientnet_lite0") -> MaskVOSConfig:
    """Mask-VOS with thin heads, two encoders of one kind, and a context of 7 frames of 256 rows.

    What is decoded corrects the mask that was carried on, once: so it is of use after some hundred steps, where a mask
    that is decoded as a whole is not (`experiments/mask_vos.py`).
    """
    net = MaskVOSNetConfig(encoder=encoder, value_encoder=encoder, key_width=64, value_width=64,
                           decoder_widths=(96, 64, 48), residual=True)  # fmt: skip
    return MaskVOSConfig(net=net, memory=PropagationConfig(context=7, short_side=256, rounds=1))


def small_recipe(
    num_videos: int, *, steps: tuple[int, int] | None = None, size: int = 192, seed: int = 0
) -> tuple[SelfTrainingConfig, TrainingConfig, TrainingConfig]:
    """Phases of some minutes to an hour on two cores, and how each is trained.

    Args:
      num_videos: to learn from; more of them are given more steps.
      steps: of the two phases, in place of those.
      size: of a frame, a multiple of 8.
      seed: of everything that is random.
    """
    first, second = steps or (min(max(8 * num_videos, 150), 3000),) * 2
    optimizer = OptimizerConfig(lr=1e-4, schedule="thirds", warmup_steps=10, clip_norm=1.0)
    training = TrainingConfig(num_steps=first, seed=seed, checkpoint_every=50, log_every=10, optimizer=optimizer)
    # the layer that sees masks begins with zeros, beside layers that expect numbers of some size
    rates = ("encoder", 5e-5), ("value/encoder", 2e-4), ("value/mask_conv", 1e-2)
    joint = evolve(training, num_steps=second, optimizer={"lr": 5e-4, "groups": rates, "schedule": "constant"})
    refresh = max(100, -(-second // 3))
    return SelfTrainingConfig(refresh=refresh, batch_size=4, size=(size, size)), training, joint
