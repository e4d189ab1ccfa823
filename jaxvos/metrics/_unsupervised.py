"""The unsupervised protocol of DAVIS-2017: objects are not named beforehand, so proposals are assigned to them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8, UInt64

from jaxvos.errors import InputError
from jaxvos.metrics._boundary import _bounding_box, _count, _dilate, _f_measure, _outline, _pack, _radius

__all__ = ["Assignment", "ProposalScores", "assign_proposals", "score_proposals"]

_VOID = 255
_MAX_PROPOSALS = 20


class ProposalScores(NamedTuple):
    """J and F of every proposal against every object in one frame, in [0, 1].

    Row p is the proposal with label p, up to the highest label drawn in the frame; row 0 is an empty mask, which is
    what all others are.
    """

    j: Float64[np.ndarray, "p o"]
    f: Float64[np.ndarray, "p o"]


class Assignment(NamedTuple):
    """The proposal of each object of a sequence, by its label, and their J and F in every frame.

    A label that is never drawn stands for an empty mask.
    """

    proposals: tuple[int, ...]
    j: Float64[np.ndarray, "o t"]
    f: Float64[np.ndarray, "o t"]


def score_proposals(
    annotation: UInt8[np.ndarray, "h w"], proposals: UInt8[np.ndarray, "h w"], labels: Sequence[int]
) -> ProposalScores:
    """Returns J and F of every proposal against every object in one frame.

    Equal, bit for bit, to `region_similarity` and `boundary_measure` of every pair with the void taken out. Frames do
    not depend on each other; `assign_proposals` puts them together.

    Args:
        annotation: labels of the ground truth. 255 is void: it is taken out of the proposals.
        proposals: label map with labels from 1 to 20; 0 is no proposal.
        labels: objects of the sequence; other labels of the ground truth are background.

    Raises:
        InputError: for a proposal above 20.
    """
    count = int(proposals.max())
    if count > _MAX_PROPOSALS:
        raise InputError(
            f"label {count} in a map of proposals: the protocol takes {_MAX_PROPOSALS} proposals at most, "
            "labelled from 1"
        )
    rows, columns = count + 1, len(labels) + 1
    number = np.zeros(256, np.uint8)
    number[list(labels)] = range(1, columns)
    truth, drawn = number[annotation], np.where(annotation == _VOID, np.uint8(0), proposals)
    pairs = np.bincount((drawn * np.intp(columns) + truth).ravel(), minlength=rows * columns).reshape(rows, columns)
    drawn_area, truth_area = pairs.sum(1), pairs.sum(0)
    pairs[0] = drawn_area[0] = 0
    union = (drawn_area[:, None] + truth_area - pairs)[:, 1:]
    j = np.where(union > 0, pairs[:, 1:] / np.maximum(union, 1), 1.0)

    radius = _radius(annotation.shape)
    shapes, shown = _draw(truth, truth_area > 0, radius), _draw(drawn, drawn_area > 0, radius)
    f = _f_measure(shapes.lengths, shown.lengths[:, None], _matched(shapes, shown).T, _matched(shown, shapes))[:, 1:]
    return ProposalScores(j, f)


def assign_proposals(frames: Sequence[ProposalScores]) -> Assignment:
    """Assigns proposals to the objects of a sequence, one to one, so that the mean of J and F is largest.

    The proposals of a sequence are those up to the highest label drawn in it, and at least as many as objects: one that
    is not drawn, in a frame or at all, is an empty mask, which is perfect where the object is not to be seen. Solved by
    SciPy's `linear_sum_assignment`, as in davis2017-evaluation, which takes the first of several equal solutions.

    Args:
        frames: what `score_proposals` returned for every frame of the sequence, in order; all of them count.

    Returns:
        J and F in the order of the objects (the official code reports them in the order of the proposals).
    """
    from scipy.optimize import linear_sum_assignment

    count = max(*(len(frame.j) - 1 for frame in frames), frames[0].j.shape[1])
    rows = [[p if p < len(frame.j) else 0 for p in range(1, count + 1)] for frame in frames]
    j, f = (
        np.stack([scores[index] for scores, index in zip(measure, rows, strict=True)]).transpose(1, 2, 0).copy()
        for measure in zip(*frames, strict=True)
    )  # time last: the means are then summed as the official ones
    chosen, objects = linear_sum_assignment(-(j.mean(2) + f.mean(2)) / 2)
    chosen, objects = chosen[np.argsort(objects)], np.sort(objects)
    return Assignment(tuple((chosen + 1).tolist()), j[chosen, objects], f[chosen, objects])


class _Outlines(NamedTuple):
    """The boundaries of the labels of a map, packed."""

    lengths: Int64[np.ndarray, "n"]
    parts: dict[int, tuple[slice, slice, UInt64[np.ndarray, "_ 1 _"]]]  # by label: its words, rows, and boundary there
    near: UInt64[np.ndarray, "words n h"]  # the pixels that lie near each


def _draw(labels: UInt8[np.ndarray, "h w"], present: Bool[np.ndarray, "n"], radius: float) -> _Outlines:
    """Draws the boundary of every label above 0 that is present, each in a window that has room for its dilation."""
    height, width = labels.shape
    reach = math.ceil(radius)
    near, lengths = np.zeros((-(-width // 64), len(present), height), np.uint64), np.zeros(len(present), np.int64)
    parts = {}
    for label in (np.flatnonzero(present[1:]) + 1).tolist():
        mask = labels == label
        rows, columns = _bounding_box((mask,))
        rows, first = slice(max(rows.start - reach, 0), rows.stop + reach), max(columns.start - reach, 0) // 64
        window = mask[rows, 64 * first : columns.stop + reach]
        bits = _outline(_pack((window,)), window.shape[1])
        words = slice(first, first + len(bits))
        near[words, label, rows] = _dilate(bits, radius)[:, 0]
        lengths[label] = _count(bits)[0]
        parts[label] = words, rows, bits
    return _Outlines(lengths, parts, near)


def _matched(own: _Outlines, other: _Outlines) -> Int64[np.ndarray, "n m"]:
    """Returns how many pixels of each own boundary lie near each of the others."""
    found = np.zeros((len(own.lengths), len(other.lengths)), np.int64)
    for label, (words, rows, bits) in own.parts.items():
        found[label] = _count(bits & other.near[words, :, rows])
    return found
