"""Mask R-CNN: what it learns from, what it proposes, and what its options do."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvos.data import SyntheticConfig, synthetic_batch
from jaxvos.errors import InputError
from jaxvos.metrics import proposal_recall
from jaxvos.ops import paste_masks
from jaxvos.system import Clip, Frame
from jaxvos.systems import DetectionAugmentation, MaskRCNNConfig, mask_rcnn
from jaxvos.systems._mask_rcnn_targets import anchor_boxes, find_objects, sample_anchors, sample_regions
from jaxvos.training import evolve

TINY = MaskRCNNConfig(
    backbone="resnet18", backbone_width=4, input_size=(64, 64), fpn_width=8, levels=(4, 5), roi_levels=(4, 5),
    canonical_size=32.0, anchor_sizes=(16.0, 32.0), num_anchors_sampled=32, pre_nms=24, post_nms=16, num_rois=16,
    roi_size=2, mask_roi_size=4, box_head_width=8, mask_head_width=4, mask_head_layers=1, num_proposals=8,
    augmentation=DetectionAugmentation(flip=0.0),
)  # fmt: skip


@functools.cache
def _clip():
    """Two clips of one frame; the first has two objects in three slots, the second has none."""
    config = SyntheticConfig(height=64, width=64, num_frames=1, num_objects=2, flow_noise=0.0)
    clip = jax.tree.map(jnp.asarray, synthetic_batch(0, 1, config, batch_size=2))
    masks = jnp.pad(clip.masks, [(0, 0)] * 4 + [(0, 1)]).at[1].set(0).at[1, ..., 0].set(1)
    alive = jnp.array([[True, True, True, False], [True, False, False, False]])
    return Clip(clip.images, masks, alive)


@functools.cache
def _variables(config):
    """Random variables without compiling `init`, which would cost more than what is tested with them."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        match path[-1].key:
            case "scale" | "var":
                return jnp.ones(leaf.shape)
            case "bias" | "mean":
                return jnp.zeros(leaf.shape)
            case _:
                return jnp.asarray(0.1 * rng.standard_normal(leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(mask_rcnn(config).init, jax.random.key(0), _clip()))


@functools.cache
def _losses():
    return jax.jit(lambda clip, key: mask_rcnn(TINY).loss(_variables(TINY), clip, key=key, step=0))


@functools.cache
def _predict():
    system = mask_rcnn(TINY)
    return jax.jit(chex.assert_max_traces(lambda frame: system.predict(_variables(TINY), (), frame)[1], n=2))


def test_loss_and_gradients_are_finite_and_reach_every_parameter(key):
    system, variables = mask_rcnn(evolve(TINY, bn="train")), _variables(TINY)

    def total(params):
        output = system.loss({**variables, "params": params}, _clip(), key=key, step=0)
        return output.loss, output

    (loss, output), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(variables["params"])
    terms = {"anchor_loss", "anchor_box_loss", "class_loss", "box_loss", "mask_loss"}
    assert set(output.scalars) == {*terms, "recall"}
    np.testing.assert_allclose(loss, sum(output.scalars[name] for name in terms), rtol=1e-5)
    assert all(output.scalars[name] > 0 for name in terms)
    chex.assert_trees_all_equal_shapes(dict(output.model_state), {"batch_stats": variables["batch_stats"]})
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, f"{name} gets no gradient"


def test_dead_slots_and_the_order_of_objects_change_nothing(key):
    clip = _clip()
    loss = _losses()(clip, key).loss
    order = jnp.array([0, 3, 2, 1])
    permuted = clip._replace(masks=clip.masks[..., order], alive=clip.alive[:, order])
    np.testing.assert_allclose(_losses()(permuted, key).loss, loss, rtol=1e-6)
    ghosts = clip._replace(masks=clip.masks.at[..., 3].set(1.0))
    assert _losses()(ghosts, key).loss == loss
    fewer = clip._replace(masks=clip.masks[..., :3], alive=clip.alive[:, :3])
    np.testing.assert_allclose(_losses()(fewer, key).loss, loss, rtol=1e-6)
    assert _losses()(clip._replace(alive=clip.alive.at[0, 1].set(False)), key).loss != loss


def test_frames_without_objects_have_only_negatives(key):
    clip = _clip()
    empty = clip._replace(images=clip.images[1:], masks=clip.masks[1:], alive=clip.alive[1:])
    output = _losses()(jax.tree.map(lambda x: jnp.concatenate([x, x]), empty), key)
    assert np.isfinite(output.loss) and output.scalars["anchor_loss"] > 0 and output.scalars["class_loss"] > 0
    assert all(output.scalars[name] == 0 for name in ("anchor_box_loss", "box_loss", "mask_loss"))


def test_padding_frames_do_not_count(key):
    clip = _clip()
    one = clip._replace(valid=jnp.array([[True], [False]]))
    other = one._replace(images=one.images.at[1].set(0.3), masks=one.masks.at[1].set(one.masks[0]),
                         alive=one.alive.at[1].set(True))  # fmt: skip
    losses = [_losses()(c, key).loss for c in (one, other, one._replace(valid=jnp.ones((2, 1), bool)))]
    assert losses[0] == losses[1] != losses[2]


def test_proposals_are_sorted_and_inside_the_frame():
    image = _clip().images[0, 0]
    wide = jnp.pad(image, ((0, 0), (0, 40), (0, 0)))
    for frame in (image, 1 - image, wide):  # the first two share a trace
        h, w = frame.shape[:2]
        prediction = _predict()(Frame(frame))
        boxes, masks, scores, valid = prediction.proposals
        assert boxes.shape == (8, 4) and masks.shape == (8, 8, 8) and valid.any()
        assert (np.diff(scores) <= 0).all() and (np.diff(valid.astype(int)) <= 0).all()
        assert (scores[valid] > 0).all() and (scores[~valid] == 0).all() and scores.max() <= 1
        assert (boxes >= 0).all() and (boxes[:, 2] <= w).all() and (boxes[:, 3] <= h).all()
        assert (boxes[valid][:, 2:] > boxes[valid][:, :2]).all() and (boxes[~valid] == 0).all()
        assert prediction.masks.shape == (h, w, 2)
        np.testing.assert_allclose(prediction.masks.sum(-1), 1, atol=1e-6)
    assert boxes[valid][:, 2].max() > 64


def test_the_foreground_is_what_no_proposal_leaves_over():
    prediction = _predict()(Frame(_clip().images[0, 0]))
    boxes, masks, scores, _ = prediction.proposals
    left = np.prod(1 - np.asarray(scores)[:, None, None] * np.asarray(paste_masks(masks, boxes, (64, 64))), axis=0)
    np.testing.assert_allclose(prediction.masks[..., 0], left, atol=1e-5)


def test_anchors_are_torchvisions():
    """Its base anchors of size 32 and ratios 0.5, 1, 2 are well known; strides move them from the top left corner."""
    anchors = anchor_boxes((40, 64), (4, 5), (32.0, 64.0), (0.5, 1.0, 2.0)).reshape(-1, 3, 4)
    base = np.array([[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]])
    np.testing.assert_array_equal(anchors[0], base)
    np.testing.assert_array_equal(anchors[1], base + [16, 0, 16, 0])
    np.testing.assert_array_equal(anchors[4], base + [0, 16, 0, 16])
    assert len(anchors) == 3 * 4 + 2 * 2
    np.testing.assert_array_equal(anchors[-1][1], [32 - 32, 32 - 32, 32 + 32, 32 + 32])


@pytest.fixture(scope="module")
def objects():
    """A square, its right half, and a slot of nothing."""
    masks = jnp.zeros((40, 60, 3)).at[8:24, 10:26, 0].set(1).at[8:24, 18:26, 1].set(1)
    return find_objects(masks, jnp.ones(3, bool))


def test_anchors_are_positive_by_overlap_and_at_least_one_for_each_object(key, objects):
    np.testing.assert_array_equal(objects.boxes, [[10, 8, 26, 24], [18, 8, 26, 24], [0, 0, 0, 0]])
    np.testing.assert_array_equal(objects.real, [True, True, False])
    # overlap 1; 0.5 with both halves: the best of the second object; 0.6 (neither); far away three times
    anchors = jnp.array([[10, 8, 26, 24], [18, 8, 26, 16], [10, 8, 26, 17.6], [40, 8, 50, 20], [30, 30, 40, 40],
                         [0, 30, 5, 40]])  # fmt: skip
    samples = sample_anchors(key, anchors, objects, number=6)
    drawn = {int(i): bool(p) for i, p, s in zip(samples.indices, samples.positive, samples.sampled, strict=True) if s}
    assert drawn == {0: True, 1: True, 3: False, 4: False, 5: False}
    target = samples.targets[list(np.asarray(samples.indices)).index(1)]
    np.testing.assert_allclose(target, [0, 0.5, 0, np.log(2)], atol=1e-6)
    few = sample_anchors(key, anchors, objects, number=2)
    assert few.positive.tolist() == [True, False] and few.sampled.all()


def test_regions_learn_the_mask_that_they_overlap(key, objects):
    boxes = jnp.array([[17.0, 8, 26, 24], [40, 8, 50, 20], [10, 8, 26, 22], [0, 0, 9, 9]])
    valid = jnp.array([True, True, True, False])
    regions = sample_regions(key, boxes, valid, objects, number=16, mask_size=8)
    drawn = zip(regions.boxes.tolist(), regions.positive.tolist(), regions.sampled.tolist(), strict=True)
    found = {tuple(box): answers for box, *answers in drawn}
    assert found[17, 8, 26, 24] == found[10, 8, 26, 22] == found[10, 8, 26, 24] == found[18, 8, 26, 24] == [True, True]
    assert found[40, 8, 50, 20] == [False, True] and found[0, 0, 9, 9] == [False, False]
    place = {tuple(box.tolist()): i for i, box in enumerate(regions.boxes[: len(regions.masks)])}
    assert regions.masks[place[10, 8, 26, 22]].all()
    narrow = regions.masks[place[17, 8, 26, 24]]
    assert (narrow[:, 0] == 0).all() and narrow[:, 2:].all()
    target = regions.targets[place[17, 8, 26, 24]]
    np.testing.assert_allclose(target, [10 * 0.5 / 9, 0, 5 * np.log(8 / 9), 0], atol=1e-5)


def test_own_boxes_fill_only_what_proposals_leave(key, objects):
    near = jnp.array([[10.0, 8, 26, 23], [10, 8, 25, 24]])
    regions = sample_regions(key, near, jnp.ones(2, bool), objects, number=4, mask_size=4)
    assert regions.positive.sum() == 1 and regions.boxes[0].tolist() in near.tolist()
    far = sample_regions(key, near + 30, jnp.ones(2, bool), objects, number=4, mask_size=4)
    assert far.positive.tolist() == [True, False, False, False] and far.boxes[0].tolist() == [18, 8, 26, 24]


# option: values that must each change something
OPTIONS = {
    "backbone": ["resnet34"],
    "backbone_width": [8],
    "input_size": [(64, 96)],
    "fpn_width": [4],
    "levels": [(3, 4)],
    "roi_levels": [(5,)],
    "canonical_size": [16.0],
    "anchor_sizes": [(12.0, 32.0)],
    "aspect_ratios": [(1.0,)],
    "num_anchors_sampled": [8],
    "pre_nms": [16],
    "rpn_nms": [0.3],
    "post_nms": [8],
    "num_rois": [8],
    "roi_size": [3],
    "mask_roi_size": [5],
    "roi_aligned": [False],
    "box_head_width": [16],
    "mask_head_width": [8],
    "mask_head_layers": [2],
    "num_classes": [3],
    "num_proposals": [2],
    "score_threshold": [0.6],
    "nms": [0.1],
    "bn": ["train"],
    "augmentation": [{"flip": 1.0}, {"rotation": 30.0}, {"scale": (1.2, 1.5)}],
}
PREDICTION = {"num_proposals", "score_threshold", "nms"}  # act where frames are predicted; the others act on the loss


def test_the_table_of_options_is_complete():
    assert set(OPTIONS) == {field.name for field in dataclasses.fields(MaskRCNNConfig)}
    changed = {name for value in OPTIONS["augmentation"] for name in value}
    assert changed == {field.name for field in dataclasses.fields(DetectionAugmentation)}


@functools.cache
def _answer(config, where):
    """Not compiled as a whole: most operations are shared by all configurations, and compiled once for all."""
    system = mask_rcnn(config)
    if where == "prediction":
        return system.predict(_variables(config), (), Frame(_clip().images[0, 0]))[1].masks
    return system.loss(_variables(config), _clip(), key=jax.random.key(1), step=0).loss


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OPTIONS.items() for value in values])
def test_every_option_changes_something(name, value):
    where = "prediction" if name in PREDICTION else "loss"
    base = evolve(TINY, rpn_nms=0.3) if name == "pre_nms" else TINY  # with 0.7 there is nothing to suppress
    before, after = _answer(base, where), _answer(evolve(base, **{name: value}), where)
    assert np.isfinite(after).all() and jnp.abs(after - before).max() > 1e-6


@pytest.mark.parametrize(("changes", "words"), [
    ({"anchor_sizes": (8.0,)}, "1 anchor_sizes"),
    ({"roi_levels": (2, 5)}, "leave a gap"),
    ({"levels": (6,), "anchor_sizes": (8.0,), "roi_levels": (6,)}, "5 with 6"),
    ({"num_proposals": 17}, "each must be at most the next"),
])  # fmt: skip
def test_what_does_not_fit_together_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        mask_rcnn(evolve(TINY, **changes))


def test_missing_masks_are_named(key):
    with pytest.raises(ValueError, match="trained on masks"):
        mask_rcnn(TINY).loss(_variables(TINY), Clip(_clip().images), key=key, step=0)


@pytest.mark.slow
def test_it_learns_four_images_by_heart(key):
    data = SyntheticConfig(height=64, width=64, num_frames=1, num_objects=2, min_area=0.05, flow_noise=0.0)
    clip = jax.tree.map(jnp.asarray, synthetic_batch(0, 3, data, batch_size=4))
    config = evolve(TINY, backbone_width=16, fpn_width=32, levels=(3, 4, 5), roi_levels=(2, 3, 4), roi_size=5,
                    anchor_sizes=(16.0, 32.0, 64.0), mask_roi_size=7, box_head_width=64, mask_head_width=32, pre_nms=64,
                    post_nms=32, num_rois=32, num_anchors_sampled=64, bn="train")  # fmt: skip
    system, tx = mask_rcnn(config), optax.adam(2e-3)
    variables = jax.jit(system.init)(key, clip)

    @jax.jit
    def update(variables, state, key):
        def loss(params):
            output = system.loss({**variables, "params": params}, clip, key=key, step=0)
            return output.loss, output

        (_, output), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, state = tx.update(gradient, state)
        return {"params": optax.apply_updates(variables["params"], updates), **output.model_state}, state

    state = tx.init(variables["params"])
    for step in range(400):
        variables, state = update(variables, state, jax.random.fold_in(key, step))
    predict = jax.jit(lambda image: system.predict(variables, (), Frame(image))[1].proposals)
    best = []
    for i in range(4):
        proposals = predict(clip.images[i, 0])
        masks = paste_masks(proposals.masks, proposals.boxes, (64, 64)) > 0.5
        objects = np.moveaxis(np.asarray(clip.masks[i, 0, ..., 1:]) > 0, -1, 0)
        best.append(proposal_recall(np.asarray(masks), objects).best_iou)
    assert np.concatenate(best).mean() > 0.7
