"""Proposals made of masks: exact without noise, wrong in each of the ways that the configuration names."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxvos.data import JitterConfig, jittered_proposals
from jaxvos.data._jitter import _average
from jaxvos.errors import InputError
from jaxvos.ops import paste_masks

SIZE = (64, 96)
EXACT = JitterConfig(num_proposals=6, copies=1, shift=0.0, scale=0.0, morphology=0.0, miss=0.0, clutter=0,
                     score_noise=0.0)  # fmt: skip
PLAIN = dataclasses.replace(EXACT, num_proposals=40)
paste = jax.jit(lambda masks, boxes: paste_masks(masks, boxes, SIZE))


def _scene(num_frames=1):
    """A disc, an L that touches the border, a small square that is cut out of the disc, and void."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    ids = np.zeros(SIZE, np.uint8)
    ids[np.hypot(y - 30, x - 40) < 20] = 3
    ids[28:37, 35:47] = 9
    ids[40:64, 80:84] = 1
    ids[58:64, 70:84] = 1
    ids[2:8, 80:90] = 255
    return np.broadcast_to(ids, (num_frames, *SIZE))


def _pasted(proposals, frame=0):
    return np.asarray(paste(proposals.masks[frame], proposals.boxes[frame])) > 0.5


def _ious(pasted, ids):
    """IoU of every proposal with every object of the scene."""
    truth = [ids == number for number in (1, 3, 9)]
    return np.array([[(p & t).sum() / max((p | t).sum(), 1) for t in truth] for p in pasted])


def _equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_without_noise_the_objects_come_back():
    ids = _scene()
    proposals = jittered_proposals(0, ids, EXACT)
    assert proposals.valid.tolist() == [[True] * 3 + [False] * 3]
    ious = _ious(_pasted(proposals), ids[0])
    assert (ious[:3].max(axis=0) > 0.9).all() and (ious[:3].max(axis=1) > 0.9).all()
    boxes = {tuple(box) for box in proposals.boxes[0, :3].tolist()}
    assert boxes == {(21, 11, 60, 50), (70, 40, 84, 64), (35, 28, 47, 37)}
    np.testing.assert_allclose(proposals.scores[0, :3], 1, atol=1e-5)


@pytest.mark.parametrize("box", [(3.0, 2.0, 11.0, 10.0), (2.3, 1.6, 7.9, 11.2), (-2.5, 4.0, 5.0, 20.5)])
def test_cells_are_averaged(box):
    """Against a grid of many samples in every cell."""
    mask = (np.random.default_rng(0).random((12, 14)) < 0.5).astype(np.float32)
    side, fine = 4, 200
    x = box[0] + (np.arange(side * fine) + 0.5) * (box[2] - box[0]) / (side * fine)
    y = box[1] + (np.arange(side * fine) + 0.5) * (box[3] - box[1]) / (side * fine)
    padded = np.pad(mask, 10)
    samples = padded[np.floor(y).astype(int)[:, None] + 10, np.floor(x).astype(int) + 10]
    expected = samples.reshape(side, fine, side, fine).mean(axis=(1, 3))
    np.testing.assert_allclose(_average(mask, np.array(box), side), expected, atol=0.01)


CHANGES = {"num_proposals": 30, "mask_size": 14, "copies": 4, "shift": 0.2, "scale": 0.3, "morphology": 1.0,
           "miss": 1.0, "clutter": 20, "score_noise": 0.3}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(JitterConfig)])
def test_every_option_changes_the_output(name):
    changed = dataclasses.replace(PLAIN, **{name: CHANGES[name]})
    assert not _equal(jittered_proposals(1, _scene(), PLAIN), jittered_proposals(1, _scene(), changed))


def test_padded_sorted_and_inside_the_frame():
    found = jittered_proposals(2, _scene(8), JitterConfig(num_proposals=20, shift=0.3, clutter=12))
    assert found.boxes.shape == (8, 20, 4) and found.masks.shape == (8, 20, 28, 28)
    assert found.boxes.dtype == found.masks.dtype == found.scores.dtype == np.float32 and found.valid.dtype == bool
    assert found.valid.any(axis=1).all() and not found.valid.all()
    np.testing.assert_array_equal(found.valid, np.sort(found.valid, axis=1)[:, ::-1])
    assert (np.diff(found.scores, axis=1) <= 0).all()
    for field in (found.boxes, found.masks, found.scores):
        assert not field[~found.valid].any() and np.isfinite(field).all()
    left, top, right, bottom = found.boxes[found.valid].T
    assert (0 <= left).all() and (left < right).all() and (right <= SIZE[1]).all()
    assert (0 <= top).all() and (top < bottom).all() and (bottom <= SIZE[0]).all()
    for values in (found.scores, found.masks):
        assert values.min() >= 0 and values.max() <= 1


def test_noise_is_that_of_the_seed_and_of_the_frame():
    found = jittered_proposals(3, _scene(3), JitterConfig())
    assert _equal(found, jittered_proposals(3, _scene(3), JitterConfig()))
    assert _equal((field[:1] for field in found), jittered_proposals(3, _scene(), JitterConfig()))
    assert not np.array_equal(found.boxes[0], found.boxes[1])
    for other in (4, (3, 0), (3, 1)):
        assert not np.array_equal(found.boxes, jittered_proposals(other, _scene(3), JitterConfig()).boxes)


def test_scores_tell_the_quality_but_not_all_of_it():
    ids, config = _scene(12), JitterConfig(shift=0.15, scale=0.2)
    found = jittered_proposals(4, ids, config)
    quality = np.concatenate([_ious(_pasted(found, t), ids[t]).max(axis=1)[found.valid[t]] for t in range(12)])
    correlation = np.corrcoef(quality, found.scores[found.valid])[0, 1]
    assert 0.5 < correlation < 0.95
    exact = jittered_proposals(4, ids, dataclasses.replace(config, clutter=0, score_noise=0.0))
    quality = np.concatenate([_ious(_pasted(exact, t), ids[t]).max(axis=1)[exact.valid[t]] for t in range(12)])
    assert np.corrcoef(quality, exact.scores[exact.valid])[0, 1] > 0.9


def test_clutter_is_wrong_and_of_several_kinds():
    ids = _scene(12)
    found = jittered_proposals(5, ids, dataclasses.replace(PLAIN, miss=1.0, clutter=20))
    best, whole = [], []
    for t in range(12):
        pasted = _pasted(found, t)[found.valid[t]]
        best += _ious(pasted, ids[t]).max(axis=1).tolist()
        whole += [((p & (ids[t] > 0) & (ids[t] < 255)).sum() / max(p.sum(), 1)) for p in pasted]
    best, whole = np.array(best), np.array(whole)
    assert (best < 0.3).mean() > 0.3  # things, and small parts
    assert ((best < 0.9) & (whole > 0.9)).mean() > 0.3  # parts, and two in one


def test_as_many_copies_as_asked_and_the_best_are_kept():
    counts = jittered_proposals(6, _scene(30), dataclasses.replace(PLAIN, copies=3)).valid.sum(axis=1)
    assert counts.min() >= 3 and counts.max() <= 9 and len(set(counts.tolist())) > 2
    noisy = dataclasses.replace(PLAIN, copies=3, shift=0.1)
    many, few = (jittered_proposals(6, _scene(), dataclasses.replace(noisy, num_proposals=n)) for n in (20, 2))
    assert _equal((field[:, :2] for field in many), few)
    missed = jittered_proposals(6, _scene(40), dataclasses.replace(PLAIN, miss=0.5)).valid.sum()
    assert 40 < missed < 80  # of 120


def test_nothing_to_find():
    empty = np.zeros((2, *SIZE), np.uint8)
    empty[1] = 255
    assert not jittered_proposals(0, empty, EXACT).valid.any()
    assert jittered_proposals(0, empty, dataclasses.replace(EXACT, clutter=6)).valid.any()
    dot = np.zeros((1, *SIZE), np.uint8)
    dot[0, 5, 7] = 1
    assert jittered_proposals(0, dot, EXACT).boxes[0, 0].tolist() == [7, 5, 8, 6]
    for seed in range(5):
        jittered_proposals(seed, dot, JitterConfig(shift=1.0, scale=1.0, mask_size=1))  # whatever is left of it


@pytest.mark.parametrize("options", [{"num_proposals": 0}, {"mask_size": 0}, {"copies": 0}, {"clutter": -1}])
def test_bad_configs(options):
    with pytest.raises(InputError, match=f"{next(iter(options))} {next(iter(options.values()))}"):
        JitterConfig(**options)
