import numpy as np
import pytest

from jaxvos.metrics import region_similarity


def _mask(*rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def test_overlap_of_two_bars():
    assert region_similarity(_mask("##..", "##.."), _mask(".##.", ".##.")) == pytest.approx(1 / 3)


def test_equal_masks_and_two_empty_ones_are_perfect():
    mask, empty = _mask("##..", "#..."), _mask("....", "....")
    assert region_similarity(mask, mask) == 1.0
    assert region_similarity(empty, empty) == 1.0
    assert region_similarity(mask, empty) == region_similarity(empty, mask) == 0.0


def test_void_counts_neither_way():
    truth, drawn, void = _mask("##.."), _mask(".##."), _mask("..#.")
    assert region_similarity(truth, drawn, void=void) == 0.5
    assert region_similarity(truth, drawn, void=_mask("####")) == 1.0
