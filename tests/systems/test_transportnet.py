"""TransportNet: what its loss and its prediction mean, beyond what every system promises (tests/contracts)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvos.data import SyntheticConfig, synthetic_batch
from jaxvos.errors import InputError
from jaxvos.ops import sobel_edges
from jaxvos.system import Clip, Frame
from jaxvos.systems import AugmentationConfig, TransportNetConfig, transportnet
from jaxvos.training import evolve

TINY = TransportNetConfig(
    backbone_app="resnet18", backbone_mot="resnet18", backbone_width=8, decoder_width=16, input_size=(64, 64),
    stages=(4, 5), augmentation=AugmentationConfig(flip=0.0, rotation=0.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def clip():
    config = SyntheticConfig(height=64, width=64, num_frames=1, flow_noise=0.0)
    return jax.tree.map(jnp.asarray, synthetic_batch(0, 0, config, batch_size=2))


@pytest.fixture(scope="module")
def variables(clip):
    return jax.jit(transportnet(TINY).init)(jax.random.key(0), clip)


@pytest.mark.slow
def test_the_loss_is_equation_11(clip, variables, key):
    """Mean cross-entropy of both heads at the frame's size, edges from the Sobel band of the merged objects."""
    system = transportnet(evolve(TINY, bn="frozen", edge_lambda=0.7))
    output = system.loss(variables, clip, key=key, step=0)
    frame = lambda i: Frame(clip.images[i, 0], flow=clip.flow[i, 0])  # noqa: E731
    predictions = [system.predict(variables, (), frame(i))[1] for i in range(2)]
    foreground = np.asarray(1 - clip.masks[:, 0, ..., 0])
    mask_loss = np.mean([-np.mean(np.log(np.where(g > 0, p.masks[..., 1], p.masks[..., 0])))
                         for p, g in zip(predictions, foreground, strict=True)])  # fmt: skip
    edges = [np.asarray(sobel_edges(jnp.array(g))) for g in foreground]
    edge_loss = np.mean([-np.mean(np.log(np.where(e > 0, p.edges, 1 - p.edges)))
                         for p, e in zip(predictions, edges, strict=True)])  # fmt: skip
    np.testing.assert_allclose(output.scalars["mask_loss"], mask_loss, rtol=1e-4)
    np.testing.assert_allclose(output.scalars["edge_loss"], edge_loss, rtol=1e-4)
    np.testing.assert_allclose(output.loss, mask_loss + 0.7 * edge_loss, rtol=1e-4)


def test_padding_frames_do_not_count(clip, variables, key):
    system = transportnet(evolve(TINY, bn="frozen"))
    valid = jnp.array([[True], [False]])
    other = jax.tree.map(lambda x: x.at[1].set(x[0]), clip)._replace(valid=valid)
    losses = [system.loss(variables, c, key=key, step=0).loss for c in (clip, clip._replace(valid=valid), other)]
    assert losses[1] == losses[2] != losses[0]


def test_any_size_of_frame_comes_back_at_its_own(variables):
    system = transportnet(TINY)
    for size in ((50, 71), (128, 96)):
        prediction = system.predict(variables, (), Frame(jnp.zeros((*size, 3)), flow=jnp.zeros((*size, 2))))[1]
        assert prediction.masks.shape == (*size, 2) and prediction.edges.shape == size
        np.testing.assert_allclose(prediction.masks.sum(-1), 1, atol=1e-5)


@pytest.mark.slow
def test_flipping_at_test_time_makes_the_prediction_mirror_symmetric(clip, variables):
    system = transportnet(evolve(TINY, tta_flip=True))
    image, flow = clip.images[0, 0], clip.flow[0, 0]
    mirrored = Frame(image[:, ::-1], flow=flow[:, ::-1] * jnp.array([-1.0, 1.0]))
    straight, mirrored = (system.predict(variables, (), f)[1].masks for f in (Frame(image, flow=flow), mirrored))
    np.testing.assert_allclose(straight, mirrored[:, ::-1], atol=1e-4)


def test_streams_of_different_widths_are_refused():
    with pytest.raises(InputError, match="differ in width"):
        transportnet(evolve(TINY, backbone_app="resnet50"))
    transportnet(evolve(TINY, backbone_app="resnet50", transport={"matcher": "none"}))


@pytest.mark.parametrize("changes", [
    {"backbone_app": "efficientnet_lite0", "backbone_mot": "efficientnet_lite0"},
    {"transport": {"center": True}},
    {"transport": {"proj_dim": 4}},
])  # fmt: skip
def test_raw_similarities_of_signed_features_are_refused(changes):
    raw = evolve(TINY, transport={"kernel": "raw_sim"})
    transportnet(raw)
    with pytest.raises(InputError, match="never negative"):
        transportnet(evolve(raw, **changes))


def test_missing_flow_and_masks_are_named(clip, variables, key):
    system = transportnet(TINY)
    with pytest.raises(ValueError, match="needs optical flow"):
        system.predict(variables, (), Frame(clip.images[0, 0]))
    with pytest.raises(ValueError, match="trained on masks"):
        system.loss(variables, Clip(clip.images, flow=clip.flow), key=key, step=0)


@pytest.mark.slow
def test_it_learns_what_only_motion_shows(key):
    """Camouflaged squares of the background's own noise: appearance says nothing, the loss falls all the same."""
    rng = np.random.default_rng(0)
    masks, flow = np.zeros((4, 1, 64, 64, 2), np.float32), np.zeros((4, 1, 64, 64, 2), np.float32)
    masks[..., 0] = 1
    for i, (y, x) in enumerate(rng.integers(4, 36, (4, 2))):
        masks[i, 0, y : y + 24, x : x + 24] = (0, 1)
        flow[i, 0, y : y + 24, x : x + 24] = (3, 1)
    images = rng.random((4, 1, 64, 64, 3), np.float32)
    clip = Clip(*map(jnp.asarray, (images, masks)), flow=jnp.asarray(flow))
    system, tx = transportnet(TINY), optax.adam(3e-3)
    variables = jax.jit(system.init)(key, clip)

    @jax.jit
    def update(variables, state):
        def loss(params):
            output = system.loss({**variables, "params": params}, clip, key=key, step=0)
            return output.loss, output

        (_, output), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, state = tx.update(gradient, state)
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, **output.model_state}, state, output.scalars

    state = tx.init(variables["params"])
    for _ in range(60):
        variables, state, scalars = update(variables, state)
    assert scalars["region_similarity"] > 0.8
