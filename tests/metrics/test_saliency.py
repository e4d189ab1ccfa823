import json

import numpy as np
import pytest
from PIL import Image

from jaxvos.errors import InputError
from jaxvos.metrics import (
    adaptive_f_measure,
    f_measure_curve,
    grouped,
    mean_absolute_error,
    min_max_stretch,
    precision_recall_curve,
    saliency_metric,
    structure_measure,
)


def _scores(pairs):
    metric = saliency_metric()
    state = metric.zero()
    for predicted, truth in pairs:
        state = metric.update(state, predicted, truth)
    return metric.compute(state)


def _square(top, left, size=10, shape=(40, 50)):
    mask = np.zeros(shape, bool)
    mask[top : top + size, left : left + size] = True
    return mask


def test_curve_compares_with_every_threshold():
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, 256, (20, 30), np.uint8), rng.random((20, 30)) < 0.3
    precision, recall = precision_recall_curve(predicted, truth)
    for threshold in range(256):
        drawn = predicted >= threshold
        hit = (drawn & truth).sum()
        assert precision[threshold] == hit / max(drawn.sum(), 1)
        assert recall[threshold] == hit / truth.sum()
    expected = 1.3 * precision * recall / np.maximum(0.3 * precision + recall, 1e-300)
    np.testing.assert_allclose(f_measure_curve(predicted, truth), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_that_were_bytes_are_those_bytes(dtype):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    truth = levels % 3 == 0
    soft = (np.arange(256) / 255).astype(dtype).reshape(16, 16)
    np.testing.assert_array_equal(precision_recall_curve(soft, truth), precision_recall_curve(levels, truth))


def test_floats_are_not_rounded_up():
    truth = np.ones((1, 1), bool)
    recall = precision_recall_curve(np.full((1, 1), 0.4999), truth)[1]  # 127.47 / 255
    assert recall[127] == 1 and recall[128] == 0


def test_mean_absolute_error_by_hand():
    truth = np.array([[True, False, False, True]])
    assert mean_absolute_error(np.array([[0.75, 0.25, 0.0, 1.0]]), truth) == 0.125
    assert mean_absolute_error(np.array([[255, 51, 0, 255]], np.uint8), truth) == pytest.approx(0.05)


def test_adaptive_threshold_is_twice_the_mean_and_at_most_one():
    truth = np.array([[True, True, False, False]])
    predicted = np.array([[0.6, 0.3, 0.2, 0.1]])  # the threshold is 0.6
    assert adaptive_f_measure(predicted, truth) == pytest.approx(1.3 * 1 * 0.5 / (0.3 + 0.5))
    assert adaptive_f_measure(np.array([[1.0, 1.0, 1.0, 0.0]]), truth) == pytest.approx(1.3 * (2 / 3) / (0.2 + 1))


def test_structure_measure_prefers_whole_objects_in_place():
    """Of maps with the same mean absolute error, the one whose object has a hole or has moved scores less."""
    truth = _square(10, 15)
    faint, moved = np.where(truth, 0.5, 0.0), np.where(_square(10, 20), 1.0, 0.0)
    holes = truth & (np.indices(truth.shape).sum(0) % 2 == 0)
    errors = [mean_absolute_error(found, truth) for found in (faint, np.where(holes, 1.0, 0.0))]
    assert errors[0] == errors[1]
    assert structure_measure(np.where(truth, 1.0, 0.0), truth) == 1.0
    assert 1 > structure_measure(faint, truth) > structure_measure(np.where(holes, 1.0, 0.0), truth)
    assert structure_measure(np.where(truth, 0.9, 0.05), truth) > structure_measure(moved, truth)


def test_flat_quadrants_are_alike_whatever_their_value():
    """A quadrant without an object, of a flat map: the rounding of its mean must not decide between 0 and 1."""
    truth = _square(0, 10, 14) | _square(16, 26, 14)
    assert not truth[:16, 26:].any() and not truth[16:, :26].any()
    scores = [structure_measure(np.full(truth.shape, level, np.uint8), truth) for level in range(1, 256)]
    assert np.abs(np.diff(scores, n=2)).max() < 1e-4


@pytest.mark.parametrize("truth", [np.zeros((5, 7), bool), np.ones((5, 7), bool), _square(2, 3, 1, (5, 7)),
                                   _square(4, 6, 1, (5, 7)), ~_square(0, 0, 1, (5, 7))])  # fmt: skip
@pytest.mark.parametrize("value", [0, 128, 255])
def test_degenerate_images_have_numbers(truth, value):
    predicted = np.full(truth.shape, value, np.uint8)
    scores = _scores([(predicted, truth)])
    assert all(np.isfinite(number).all() for number in scores)
    assert 0 <= scores.structure <= 1
    if truth.all() or not truth.any():
        assert scores.structure == pytest.approx(1 - scores.mae)
    if not truth.any():
        assert scores.max_f == scores.adaptive_f == 0


def test_one_row_one_column_one_pixel():
    for shape in ((1, 9), (9, 1), (1, 1)):
        truth = np.zeros(shape, bool)
        truth.ravel()[-1] = True
        assert structure_measure(np.where(truth, 1.0, 0.0), truth) == 1.0


def test_the_order_of_averages_matters():
    """Two maps that are perfect, each at a threshold of its own: on average no threshold is."""
    first, second = _square(5, 5), _square(20, 30)
    bright = np.where(first, 250, 200).astype(np.uint8)
    dark = np.where(second, 100, 50).astype(np.uint8)
    scores = _scores([(bright, first), (dark, second)])
    assert scores.image_max_f == 1.0
    curve = (f_measure_curve(bright, first) + f_measure_curve(dark, second)) / 2
    assert scores.max_f == pytest.approx(curve.max()) and scores.max_f < 0.6
    assert scores.pooled_max_f not in (scores.max_f, scores.image_max_f)


def test_mean_over_videos_is_not_that_over_frames():
    truth, wrong = _square(5, 5), _square(20, 30)
    good, bad = np.where(truth, 1.0, 0.0), np.where(wrong, 1.0, 0.0)
    metric = grouped(saliency_metric())
    state = metric.zero()
    for name, predicted in (("long", good), ("long", good), ("long", good), ("short", bad)):
        state = metric.update(state, name, predicted, truth)
    scores = metric.compute(state)
    assert scores.mean.mae == pytest.approx(scores.groups["short"].mae / 2)
    assert scores.mean.precision.shape == (256,)
    assert _scores([(good, truth)] * 3 + [(bad, truth)]).mae == pytest.approx(scores.groups["short"].mae / 4)


def test_stretch():
    np.testing.assert_allclose(min_max_stretch(np.array([[51, 102, 153]], np.uint8)), [[0, 0.5, 1]])
    np.testing.assert_array_equal(min_max_stretch(np.array([[0.25, 0.25]])), [[0.25, 0.25]])
    np.testing.assert_allclose(min_max_stretch(np.array([[-3.0, 0.0, 3.0]])), [[0, 0.5, 1]])


@pytest.mark.parametrize("measure", [mean_absolute_error, precision_recall_curve, f_measure_curve, adaptive_f_measure,
                                     structure_measure])  # fmt: skip
def test_bad_maps_are_refused(measure):
    truth = _square(0, 0, 2, (3, 4))
    with pytest.raises(InputError, match=r"5x3 and the ground truth 4x3"):
        measure(np.zeros((3, 5)), truth)
    for value in (-0.01, 1.01, np.nan):
        predicted = np.zeros((3, 4))
        predicted[1, 1] = value
        with pytest.raises(InputError, match=r"give probabilities in \[0, 1\], or bytes"):
            measure(predicted, truth)


@pytest.fixture(scope="module")
def golden(golden_dir):
    table = json.loads((golden_dir / "saliency" / "saliency.json").read_text())
    with np.load(golden_dir / "saliency" / "curves.npz") as arrays:
        curves = dict(arrays)

    def read(name, kind):
        return np.array(Image.open(golden_dir / "saliency" / f"{name}_{kind}.png"))

    return table, curves, [(read(row["name"], "map"), read(row["name"], "gt") > 0) for row in table["images"]]


@pytest.mark.data
def test_golden_images(golden):
    table, curves, pairs = golden
    assert len(pairs) == 15
    for index, (row, (predicted, truth)) in enumerate(zip(table["images"], pairs, strict=True)):
        stretched = min_max_stretch(predicted)
        precision, recall = precision_recall_curve(predicted, truth)
        f_curve, f_stretched = f_measure_curve(predicted, truth), f_measure_curve(stretched, truth)
        found = {
            "mae": mean_absolute_error(predicted, truth), "mae_after_minmax": mean_absolute_error(stretched, truth),
            "maxF_256": f_curve.max(), "argmax_threshold_256": f_curve.argmax(), "meanF_256": f_curve.mean(),
            "maxF_255": np.delete(f_curve, 1).max(), "maxF_256_after_minmax": f_stretched.max(),
            "adaptiveF": adaptive_f_measure(predicted, truth),
            "tool_adaptiveF_after_minmax": adaptive_f_measure(stretched, truth),
        }  # fmt: skip
        assert found == pytest.approx({name: row[name] for name in found}, rel=0, abs=1e-9), row["name"]
        for name, curve in (("P", precision), ("R", recall), ("F", f_curve)):
            np.testing.assert_allclose(curve, curves[f"{name}256"][index], rtol=0, atol=1e-9)
            np.testing.assert_allclose(np.delete(curve, 1), curves[f"{name}255"][index], rtol=0, atol=1e-9)
        for name, curve in zip("PRF", (*precision_recall_curve(stretched, truth), f_stretched), strict=True):
            np.testing.assert_allclose(curve, curves[f"{name}n"][index], rtol=0, atol=1e-9)


@pytest.mark.data
@pytest.mark.parametrize(("aggregate", "number"), [("aggregate_first6", 6), ("aggregate_all", 15)])
def test_golden_averages(aggregate, number, golden):
    table, _, pairs = golden
    expected = table[aggregate]
    scores = _scores(pairs[:number])
    stretched = _scores([(min_max_stretch(predicted), truth) for predicted, truth in pairs[:number]])
    for found, name, mae in ((scores, "t256", "mae"), (stretched, "t256_after_minmax", "mae_after_minmax")):
        assert found.mae == pytest.approx(expected[mae], abs=1e-9)
        assert found.image_max_f == pytest.approx(expected[name]["mean_of_per_image_max"], abs=1e-9)
        assert found.max_f == pytest.approx(expected[name]["max_of_mean_F_curve"], abs=1e-9)
        assert found.pooled_max_f == pytest.approx(expected[name]["max_of_F_of_mean_PR"], abs=1e-9)
        assert found.mean_f == pytest.approx(expected[name]["mean_of_mean_F"], abs=1e-9)
        assert len({found.image_max_f, found.max_f, found.pooled_max_f}) == 3
    fewer = np.delete(scores.f_curve, 1)
    assert fewer.max() == pytest.approx(expected["t255"]["max_of_mean_F_curve"], abs=1e-9)
    assert fewer.mean() == pytest.approx(expected["t255"]["mean_of_mean_F"], abs=1e-9)


@pytest.mark.data
def test_golden_structure_measure(golden):
    """PySODMetrics 1.6.2 over all images, which it stretches."""
    table, _, pairs = golden
    found = np.mean([structure_measure(min_max_stretch(predicted), truth) for predicted, truth in pairs])
    assert found == pytest.approx(table["tool_extra"]["Sm"], abs=1e-9)
