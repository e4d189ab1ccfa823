import json

import numpy as np
import pytest
from PIL import Image

from jaxvos.metrics import sequence_stability, temporal_stability
from jaxvos.metrics._contour import _outlines, longest_contour, polygons
from jaxvos.metrics._stability import _cheapest_way, _chi_squared, _match, _shape_contexts, _upsample


def _boxes(*boxes, shape=(96, 128)):
    mask = np.zeros(shape, bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def _star(row, column, spikes=5, radius=25.0, shape=(96, 128)):
    rows, columns = np.indices(shape)
    angle = np.arctan2(columns - column, rows - row)
    return np.hypot(rows - row, columns - column) < radius * (1 + 0.4 * np.cos(spikes * angle))


def test_equal_shapes_do_not_differ():
    star = _star(45, 60)
    assert temporal_stability(star, star) == 0.0
    assert temporal_stability(_boxes((10, 10, 40, 70)), _boxes((31, 44, 61, 104))) == 0.0


@pytest.mark.parametrize("other", [np.zeros((9, 9), bool), _boxes((4, 4, 5, 5), shape=(9, 9)),
                                   _boxes((4, 4, 6, 6), shape=(9, 9))])
def test_masks_without_an_outline_have_no_stability(other):
    mask = _boxes((2, 2, 8, 8), shape=(9, 9))
    assert np.isnan(temporal_stability(mask, other))
    assert np.isnan(temporal_stability(other, mask))
    assert np.isnan(temporal_stability(other, other))
    assert temporal_stability(mask, mask) == 0.0


def test_place_and_size_do_not_matter_but_shape_does():
    """Up to rounding, which decides which points are level, and to the number of points of outlines of other sizes."""
    still = temporal_stability(_star(35, 40), _star(35, 40, spikes=7))
    moved = temporal_stability(_star(51, 77), _star(55, 71, spikes=7))
    assert still > 0.1
    assert moved == pytest.approx(still, abs=5e-3)
    assert temporal_stability(_star(35, 40), _star(52, 71)) < 5e-3
    assert temporal_stability(_star(45, 60, radius=20), _star(45, 60, radius=30)) < still / 2


def test_a_sequence_is_its_pairs():
    masks = [_star(45, 60), _star(45, 62, radius=22), np.zeros((96, 128), bool), _star(40, 60), _star(40, 60, spikes=4)]
    found = sequence_stability(masks)
    np.testing.assert_array_equal(found, [temporal_stability(*pair) for pair in zip(masks, masks[1:], strict=False)])
    assert np.isnan(found).tolist() == [False, True, True, False]
    assert sequence_stability(masks[:1]).shape == sequence_stability([]).shape == (0,)


def test_polygons_keep_the_object_to_their_right():
    ring = _boxes((2, 3, 12, 15), shape=(20, 20)) & ~_boxes((5, 6, 9, 12), shape=(20, 20))
    hole, outline = polygons(ring)
    assert outline.tolist() == [[2, 3], [2, 15], [12, 15], [12, 3], [2, 3]]
    assert hole.tolist() == [[5, 6], [9, 6], [9, 12], [5, 12], [5, 6]]


def test_outlines_part_where_pixels_touch_diagonally():
    mask = _boxes((1, 1, 6, 6), (6, 6, 12, 12), shape=(14, 14))
    for found, furthest in ((polygons(mask), [6, 12]), (polygons(~mask), [6, 12, 14])):
        assert sorted(int(path.max()) for path in found) == furthest
        assert all(path[0].tolist() == [6, 6] for path in found if path.max() < 14)


def test_outlines_enclose_the_mask():
    """The areas of unsimplified outlines, holes less, add up to the pixels: noise has junctions of all kinds."""
    mask = np.random.default_rng(0).random((40, 50)) < 0.5
    paths = [path if forward else path[::-1] for path, forward in _outlines(mask)]
    areas = [np.dot(np.diff(path[:, 0]), path[1:, 1] + path[:-1, 1]) / 2 for path in paths]
    assert sum(areas) == mask.sum()
    assert min(areas) < 0 < max(areas)
    for path in paths:
        np.testing.assert_array_equal(np.abs(np.diff(path, axis=0)).sum(1), 1)  # closed, one edge a step
        assert path[0].tolist() == path[-1].tolist()
        assert len(np.unique(path[1:], axis=0)) == len(path) - 1  # and simple


def test_bumps_lower_than_the_tolerance_vanish():
    box = _boxes((20, 20, 60, 60))
    low, high = box | _boxes((35, 60, 45, 61)), box | _boxes((35, 60, 45, 62))
    np.testing.assert_array_equal(polygons(low), polygons(box))
    assert len(polygons(high)[0]) > len(polygons(box)[0])
    assert polygons(high)[0][:, 1].max() == 62


def test_the_contour_with_most_vertices_is_taken():
    small = _star(20, 20, spikes=4, radius=10.0)
    both = small | _boxes((50, 10, 90, 120))
    np.testing.assert_array_equal(longest_contour(both), longest_contour(small))
    assert longest_contour(_boxes()) is None


def test_points_are_at_most_three_pixels_apart():
    path = np.array([[0, 0], [0, 3], [9, 3], [5, 0], [0, 0]])
    points = _upsample(path)
    distances = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert distances.max() <= 3 + 1e-12
    assert len(points) == 1 + 1 + 3 + 2 + 2
    assert {tuple(point) for point in path.tolist()} <= {tuple(point) for point in points.tolist()}


def test_shape_contexts_by_hand():
    """Points at the ends of a cross: distances are 0, 1 and 2 to its arms, all in units of their mean, 1.2."""
    cross = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    counts = _shape_contexts(cross)
    mean = (4 * 2 * 1 + 2 * 2 * 2 + 4 * 2 * np.sqrt(2)) / 25
    assert 0.5 < 1 / mean < 1 < np.sqrt(2) / mean < 2 / mean < 2
    expected = np.zeros(60, int)
    expected[48] = 1  # itself: the innermost ring, first sector
    expected[[12, 15, 18, 21]] = 1  # below, right, above, left
    np.testing.assert_array_equal(counts[0], expected)
    assert counts.sum(1).tolist() == [5] * 5
    assert _shape_contexts(np.array([[0.0, 0.0]] * 9 + [[9.0, 0.0]])).sum(1).tolist() == [9] * 9 + [1]  # too far


def test_costs_are_chi_squared_distances():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 4, (7, 60)), rng.integers(0, 4, (5, 60))
    first[0], second[0], second[1] = np.eye(60, dtype=int)[:1], np.eye(60, dtype=int)[:1], np.eye(60, dtype=int)[1:2]
    a, b = first[:, None] / first.sum(1)[:, None, None], second[None] / second.sum(1)[:, None]
    expected = 0.5 * np.divide((a - b) ** 2, a + b, out=np.zeros_like(a + b), where=a + b > 0).sum(-1)
    found = _chi_squared(first, second)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    assert found[0, 0] == 0 and found[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (9, 7), (7, 12)])
def test_cheapest_way(shape):
    costs = np.random.default_rng(1).random(shape)
    sums = np.full((shape[0] + 1, shape[1] + 1), np.inf)
    sums[1, 1] = 0
    for i, j in list(np.ndindex(shape))[1:]:
        sums[i + 1, j + 1] = costs[i, j] + min(sums[i, j], sums[i, j + 1], sums[i + 1, j])
    way = _cheapest_way(costs)
    assert way[0].tolist() == [shape[0] - 1, shape[1] - 1] and way[-1].tolist() == [0, 0]
    assert set(map(tuple, (way[:-1] - way[1:]).tolist())) <= {(1, 1), (1, 0), (0, 1)}
    assert costs[tuple(way[:-1].T)].sum() == pytest.approx(sums[-1, -1])


def test_matching_finds_where_contours_correspond():
    """Equal contours that begin at different points: the cheapest pair says how far apart those are."""
    costs = np.abs(np.subtract.outer(np.arange(12), (np.arange(12) + 5) % 12)) / 12.0
    costs[3, 10] = -0.1
    pairs = _match(costs)
    assert np.array_equal(pairs, [[(column + 5) % 12, column] for column in range(12)])


def test_matching_is_one_to_one():
    pairs = _match(np.random.default_rng(2).random((20, 31)))
    assert len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs) > 10


@pytest.fixture(scope="module")
def golden(golden_dir):
    with np.load(golden_dir / "vos" / "tstab_units.npz") as arrays:
        yield json.loads((golden_dir / "vos" / "tstab.json").read_text()), dict(arrays)


@pytest.mark.data
def test_every_stage_equals_the_reference(golden):
    table, arrays = golden
    assert len(table["units"]) == 21
    for unit in table["units"]:
        name, (height, width) = unit["name"], unit["shape"]
        masks = [np.unpackbits(arrays[f"{name}/{side}"])[:height * width].reshape(height, width).astype(bool)
                 for side in "ab"]
        for side, mask in enumerate(masks):
            found = polygons(mask)
            assert len(found) == unit["n_paths"][side], name
            for index, path in enumerate(found):
                np.testing.assert_array_equal(path, arrays[f"{name}/path{side + 1}_{index + 1}"], err_msg=name)
        expected = np.nan if unit["T_matlab"] is None else unit["T_matlab"]
        np.testing.assert_allclose(temporal_stability(*masks), expected, rtol=0, atol=1e-12, err_msg=name)
        if unit["T_matlab"] is None:
            continue
        points = [_upsample(max(polygons(mask), key=len)) for mask in masks]
        contexts = [_shape_contexts(part) for part in points]
        for side in (0, 1):
            np.testing.assert_array_equal(points[side], arrays[f"{name}/up{side + 1}"], err_msg=name)
            if f"{name}/scs{side + 1}" in arrays:
                np.testing.assert_array_equal(contexts[side], arrays[f"{name}/scs{side + 1}"], err_msg=name)
        costs = _chi_squared(*contexts)
        if f"{name}/costmat" in arrays:
            np.testing.assert_allclose(costs, arrays[f"{name}/costmat"], rtol=0, atol=1e-12, err_msg=name)
        pairs = _match(costs)
        np.testing.assert_array_equal(pairs + 1, arrays[f"{name}/pairs"], err_msg=name)
        np.testing.assert_allclose(costs[tuple(pairs.T)], arrays[f"{name}/pairs_cost"][:, 0], rtol=0, atol=1e-12)


@pytest.mark.data
@pytest.mark.parametrize("sequence", ["dog-agility", "drift-turn", "soccerball",
                                      *(f"schoolgirls#{label}" for label in range(1, 8))])
@pytest.mark.parametrize("folder", ["gt", "pred"])
def test_sequences_equal_the_reference(folder, sequence, golden, golden_dir):
    """Where two matchings cost the same the reference takes one by chance, so a few pairs differ."""
    run = golden[0]["runs"][f"{folder}/{sequence}"]
    files = [golden_dir / run["gt"] / "00000.png",
             *(golden_dir / run["pred"] / f"{frame:05d}.png" for frame in range(1, run["n_frames"] - 1))]
    found = sequence_stability(np.array(Image.open(file)) == run["object_id"] for file in files)
    expected = np.array([np.nan if value is None else value for value in run["matlab_raw"]])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    apart = np.abs(found - expected)[~np.isnan(expected)]
    assert np.mean(apart < 1e-9) > 0.8
    assert np.mean(apart < 5e-3) > 0.95
    assert 5 * np.nanmean(found) == pytest.approx(run["matlab_mean_x5"], abs=2e-3)
