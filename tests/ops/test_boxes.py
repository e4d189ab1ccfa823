"""Boxes: overlap by hand, coding undone, suppression against a plain loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.ops import box_iou, clip_boxes, decode_boxes, encode_boxes, nms

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def _random_boxes(seed, m):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 20, (m, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 15, (m, 2))], 1).astype(np.float32)


def _overlap(a, b):
    """Intersection over union of two boxes, in plain words."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    return width * height / (area(a) + area(b) - width * height)


def _greedy(boxes, scores, valid, threshold):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if valid[i] and all(_overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def test_overlap_of_every_pair():
    a, b = _random_boxes(0, 7), _random_boxes(1, 5)
    expected = [[_overlap(x, y) for y in b] for x in a]
    assert np.count_nonzero(expected) > 5
    np.testing.assert_allclose(box_iou(jnp.array(a), jnp.array(b)), expected, atol=1e-6)


def test_overlap_of_empty_boxes_is_zero_and_so_is_its_gradient():
    boxes = jnp.array([[3.0, 3, 3, 3], [5, 5, 2, 2], [0, 0, 8, 8]])
    np.testing.assert_array_equal(box_iou(boxes, boxes), np.diag([0.0, 0.0, 1.0]))
    assert bool(jnp.isfinite(jax.jit(jax.grad(lambda x: box_iou(x, x).sum()))(boxes)).all())


def test_coding_is_the_one_of_r_cnn():
    anchors, boxes = jnp.array([[0.0, 0, 10, 20]]), jnp.array([[10.0, 10, 30, 20]])
    expected = np.array([[10 * 15 / 10, 10 * 5 / 20, 5 * np.log(2), 5 * np.log(0.5)]])
    np.testing.assert_allclose(encode_boxes(boxes, anchors, weights=WEIGHTS), expected, rtol=1e-6)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), WEIGHTS])
def test_decoding_undoes_encoding(weights):
    boxes, anchors = jnp.array(_random_boxes(0, 30)), jnp.array(_random_boxes(1, 30))
    deltas = encode_boxes(boxes, anchors, weights=weights)
    np.testing.assert_allclose(decode_boxes(deltas, anchors, weights=weights), boxes, atol=1e-4)


def test_decoded_boxes_grow_62_times_at_most_and_empty_boxes_are_finite():
    anchors = jnp.array([[0.0, 0, 2, 4]])
    wild = decode_boxes(jnp.array([[0.0, 0.0, 99.0, 99.0]]), anchors, weights=(1.0, 1.0, 1.0, 1.0))
    np.testing.assert_allclose(wild, [[1 - 62.5, 2 - 125, 1 + 62.5, 2 + 125]], rtol=1e-5)
    empty = jnp.zeros((1, 4))
    code = jax.jit(jax.value_and_grad(lambda x, a: encode_boxes(x, a, weights=WEIGHTS).sum()))
    for boxes, others in ((empty, anchors), (anchors, empty), (empty, empty)):
        coded, gradient = code(boxes, others)
        assert bool(jnp.isfinite(coded)) and bool(jnp.isfinite(gradient).all())


def test_boxes_are_cut_at_the_image():
    boxes = jnp.array([[-3.0, -2, 50, 60], [1, 2, 3, 4], [90, 80, 95, 85]])
    np.testing.assert_array_equal(clip_boxes(boxes, (20, 30)), [[0, 0, 30, 20], [1, 2, 3, 4], [30, 20, 30, 20]])


@pytest.fixture(scope="module")
def suppress():
    """Suppression of a batch: both `jit` and `vmap`."""

    @functools.partial(jax.jit, static_argnames=("iou_threshold", "num_outputs"))
    def run(boxes, scores, valid, **options):
        return jax.vmap(lambda b, s, v: nms(b, s, valid=v, **options))(boxes, scores, valid)

    return run


@pytest.mark.parametrize(("threshold", "num_outputs"), [(0.3, 40), (0.6, 5)])  # more than are kept, and fewer
def test_suppression_is_that_of_a_plain_loop(suppress, threshold, num_outputs):
    boxes = np.stack([_random_boxes(seed, 30) for seed in range(20)])
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 8, (20, 30)).astype(np.float32)  # full of ties
    valid = rng.random((20, 30)) < 0.8
    indices, kept = suppress(boxes, scores, valid, iou_threshold=threshold, num_outputs=num_outputs)
    for found, real, *example in zip(indices, kept, boxes, scores, valid, strict=True):
        expected = _greedy(*example, threshold)[:num_outputs]
        assert np.asarray(found)[: len(expected)].tolist() == expected
        assert np.asarray(real).tolist() == [True] * len(expected) + [False] * (num_outputs - len(expected))
        assert not np.asarray(found)[len(expected) :].any()


def test_suppression_of_none_and_of_one():
    one = jnp.array([[0.0, 0, 4, 4]])
    indices, kept = nms(one, jnp.array([-2.0]), iou_threshold=0.5, num_outputs=2)
    assert indices.tolist() == [0, 0] and kept.tolist() == [True, False]
    _, kept = nms(one, jnp.ones(1), valid=jnp.zeros(1, bool), iou_threshold=0.5, num_outputs=2)
    assert kept.tolist() == [False, False]


def test_invalid_boxes_suppress_nothing_whatever_they_hold():
    boxes = jnp.array([[0.0, 0, 10, 10], [0, 0, 10, 9], [jnp.nan, 0, 1, 1], [20, 0, 30, 10]])
    scores, valid = jnp.array([0.9, 0.5, jnp.nan, 0.7]), jnp.array([False, True, False, True])
    indices, kept = nms(boxes, scores, valid=valid, iou_threshold=0.5, num_outputs=4)
    assert indices[kept].tolist() == [3, 1]
    assert nms(boxes[:2], scores[:2], iou_threshold=0.5, num_outputs=2)[1].tolist() == [True, False]
