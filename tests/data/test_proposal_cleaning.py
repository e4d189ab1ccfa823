"""Cleaning: tight boxes, one proposal per thing, the best first; as a loop over whole-frame masks has it."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.data import clean_proposals
from jaxvos.ops import paste_masks
from jaxvos.system import Proposals

SIZE = (40, 60)


def _proposals():
    """A disc, nearly the same disc again, another, one whose mask is faint, and padding."""
    boxes = np.array([[5, 5, 30, 30], [6, 5, 31, 31], [33, 10, 57, 35], [2, 2, 20, 20], [0, 0, 60, 40]], np.float32)
    y, x = (np.mgrid[:28, :28] + 0.5) / 28 - 0.5
    disc = np.clip((0.3 - np.hypot(y, x)) * 28 + 0.5, 0, 1)
    masks = (np.stack([disc, disc, disc, 0.3 * disc, disc])).astype(np.float32)
    return Proposals(boxes, masks, np.array([0.6, 0.9, 0.7, 0.8, 1.0], np.float32), np.array([1, 1, 1, 1, 0], bool))


def _paste(proposals):
    return np.asarray(paste_masks(jnp.asarray(proposals.masks), jnp.asarray(proposals.boxes), SIZE))


def _tight(mask):
    (top, *_, bottom), (left, *_, right) = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return [left, top, right + 1, bottom + 1]


def test_one_proposal_for_each_thing():
    given = _proposals()
    full = _paste(given)
    cleaned = clean_proposals(given, SIZE, num_proposals=6)
    assert [type(field) for field in cleaned] == [np.ndarray] * 4
    assert cleaned.valid.tolist() == [True, True] + [False] * 4
    np.testing.assert_array_equal(cleaned.scores, np.array([0.9, 0.7, 0, 0, 0, 0], np.float32))
    assert cleaned.boxes[:2].tolist() == [_tight(full[1] > 0.4), _tight(full[2] > 0.4)]
    pasted = _paste(cleaned) > 0.5
    for mine, index in zip(pasted[:2], (1, 2), strict=True):
        true = full[index] > 0.5
        assert (mine & true).sum() / (mine | true).sum() > 0.95
    assert not cleaned.masks[2:].any() and not cleaned.boxes[2:].any()


@pytest.mark.parametrize(("options", "scores"), [
    ({"iou_threshold": None}, [0.9, 0.7, 0.6]),
    ({"mask_threshold": 0.2}, [0.9, 0.8, 0.7]),  # now the faint one has a box
    ({"num_proposals": 1}, [0.9]),
], ids=str)  # fmt: skip
def test_every_option_counts(options, scores):
    cleaned = clean_proposals(_proposals(), SIZE, **{"num_proposals": 6} | options)
    np.testing.assert_allclose(cleaned.scores[cleaned.valid], scores)


def test_frames_are_cleaned_each_by_itself():
    one = _proposals()
    none = one._replace(valid=np.zeros(5, bool))
    both = clean_proposals(Proposals(*map(np.stack, zip(one, none, strict=True))), SIZE, num_proposals=6)
    for stacked, single in zip(both, clean_proposals(one, SIZE, num_proposals=6), strict=True):
        np.testing.assert_array_equal(stacked[0], single)
        assert not stacked[1].any()
