import numpy as np
import pytest

from jaxvos.metrics import boundary_map, boundary_measure


def _mask(*rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def test_boundary_lies_half_a_pixel_towards_the_origin():
    np.testing.assert_array_equal(boundary_map(_mask("....", ".##.", ".##.", "....")),
                                  _mask("###.", "#.#.", "###.", "...."))


def test_last_row_looks_right_and_last_column_down():
    np.testing.assert_array_equal(boundary_map(_mask("...", ".#.", ".#.")), _mask("##.", "##.", "##."))
    np.testing.assert_array_equal(boundary_map(_mask("...", ".##", "...")), _mask("###", "###", "..."))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (4, 6)])
def test_a_full_frame_has_no_boundary(shape):
    assert not boundary_map(np.ones(shape, bool)).any()


def test_distance_decides():
    """Two boxes three columns apart: within three pixels all of their boundaries match, within two not all."""
    truth, drawn = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    truth[8:40, 20:40], drawn[8:40, 23:43] = True, True
    assert boundary_measure(truth, drawn, bound_th=3) == 1.0
    assert 0 < boundary_measure(truth, drawn, bound_th=2) < 1
    assert boundary_measure(truth, drawn, bound_th=3 / np.hypot(64, 64)) == 1.0


def test_hand_counted():
    """One pixel against one pixel: a boundary is 2 x 2, and of two a column apart half of each lies on the other."""
    truth, drawn = np.zeros((100, 100), bool), np.zeros((100, 100), bool)
    truth[50, 50], drawn[50, 53] = True, True
    assert boundary_measure(truth, drawn, bound_th=1) == 0.0
    assert boundary_measure(truth, drawn, bound_th=2) == 0.5
    assert boundary_measure(truth, drawn, bound_th=3) == 1.0


def test_empty_masks():
    mask, empty, full = np.zeros((20, 20), bool), np.zeros((20, 20), bool), np.ones((20, 20), bool)
    mask[5:9, 5:9] = True
    assert boundary_measure(empty, empty) == 1.0
    assert boundary_measure(empty, full) == 1.0
    assert boundary_measure(mask, empty) == boundary_measure(empty, mask) == boundary_measure(full, mask) == 0.0


def test_void_leaves_the_masks_before_the_boundary_is_drawn():
    rng = np.random.default_rng(0)
    truth, drawn, void = rng.random((3, 24, 31)) < 0.5
    assert boundary_measure(truth, drawn, void=void) == boundary_measure(truth & ~void, drawn & ~void)


def test_cropping_is_exact(monkeypatch):
    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(60):
        height, width = rng.integers(1, 40, 2)
        truth, drawn = np.zeros((2, height, width), bool)
        for mask in (truth, drawn):
            top, left = rng.integers(0, height), rng.integers(0, width)
            mask[top:top + rng.integers(0, height + 1), left:left + rng.integers(0, width + 1)] = True
        pairs.append((truth, drawn, float(rng.choice([0.008, 0.05, 1, 2, 3]))))
    cropped = [boundary_measure(truth, drawn, bound_th=bound_th) for truth, drawn, bound_th in pairs]
    monkeypatch.setattr("jaxvos.metrics._boundary._bounding_box", lambda mask: (slice(None), slice(None)))
    assert cropped == [boundary_measure(truth, drawn, bound_th=bound_th) for truth, drawn, bound_th in pairs]
