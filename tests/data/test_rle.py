"""Run lengths: COCO's own strings, hand-made counts, a slow loop and round trips; what is damaged is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxvos.data import decode_rle, encode_rle
from jaxvos.errors import InputError


def _block(height, width, top, bottom, left, right):
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def _ellipse():
    y, x = np.mgrid[:60, :70]
    return ((y - 30) / 20) ** 2 + ((x - 35) / 25) ** 2 < 1


# made with pycocotools 2.0
OF_COCO = {
    "empty": (_block(4, 5, 0, 0, 0, 0), "d0"),
    "full": (_block(4, 5, 0, 4, 0, 5), "0d0"),
    "block": (_block(4, 5, 1, 3, 2, 4), "92203"),
    "corner": (_block(4, 5, 0, 1, 0, 1), "01c0"),
    "checker": (np.indices((3, 4)).sum(0) % 2 == 0, "0110000000000"),
    "long runs": (_block(480, 854, 100, 400, 200, 700), "Tkm2\\9d5" + "0" * 997 + "lRX2"),
    "ellipse": (_ellipse(), "]e0;_14L4M2N2N2N2N2N2O0O2N2O000O2O000O2O0000000000000000000000000001N10001N10001N2N101"
                            "N2N2N2N2N2N3L4LQb0"),
}  # fmt: skip


@pytest.mark.parametrize(("mask", "counts"), OF_COCO.values(), ids=OF_COCO)
def test_same_string_as_pycocotools(mask, counts):
    assert encode_rle(mask) == {"size": list(mask.shape), "counts": counts}
    for form in (counts, counts.encode()):
        decoded = decode_rle({"size": list(mask.shape), "counts": form})
        assert decoded.dtype == bool and np.array_equal(decoded, mask)


def _slow_counts(mask):
    counts, value = [0], False
    for pixel in mask.T.reshape(-1).tolist():
        if pixel == value:
            counts[-1] += 1
        else:
            counts.append(1)
            value = pixel
    return counts


def _slow_string(counts):
    text = ""
    for i, number in enumerate(counts):
        number -= counts[i - 2] if i > 2 else 0
        while True:
            piece, number = number % 32, number // 32
            done = number == (-1 if piece >= 16 else 0)
            text += chr(48 + piece + (0 if done else 32))
            if done:
                break
    return text


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_agrees_with_a_loop_and_round_trips(mask):
    encoded, counts = encode_rle(mask), _slow_counts(mask)
    assert encoded["counts"] == _slow_string(counts)
    assert np.array_equal(decode_rle(encoded), mask)
    assert np.array_equal(decode_rle({"size": encoded["size"], "counts": counts}), mask)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6))
def test_runs_of_any_length(counts):
    total = sum(counts)
    if total:
        mask = decode_rle({"size": [1, total], "counts": _slow_string(counts)})
        assert np.array_equal(mask, decode_rle({"size": [1, total], "counts": counts}))


@pytest.mark.parametrize("segmentation", [
    {}, {"size": [4, 5]}, {"counts": "d0"}, {"size": [4], "counts": "d0"}, {"size": [4, 0], "counts": ""},
    {"size": [4, 6], "counts": "d0"}, {"size": [4, 5], "counts": [10, 9]}, {"size": [4, 5], "counts": [25, -5]},
    {"size": [4, 5], "counts": [10.0, 10.0]}, {"size": [4, 5], "counts": ""}, {"size": [4, 5], "counts": "d"},
    {"size": [4, 5], "counts": "d0 "}, {"size": [4, 5], "counts": "dddddddd0"}, {"size": [4, 5], "counts": "é"},
    {"size": [4, 5], "counts": [10**30]}, {"size": [4, 5], "counts": "IKT1"},
], ids=str)  # fmt: skip
def test_damaged_run_lengths_are_refused(segmentation):
    with pytest.raises(InputError, match="mask"):
        decode_rle(segmentation)
