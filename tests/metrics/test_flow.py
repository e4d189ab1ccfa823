import json

import numpy as np
import pytest

from jaxvos.data import read_flow
from jaxvos.errors import InputError
from jaxvos.metrics import angular_error, end_point_error, flow_metric, grouped

_METRIC = flow_metric()


def _scores(predicted, truth, **masks):
    return _METRIC.compute(_METRIC.update(_METRIC.zero(), predicted, truth, **masks))


def _row(*dx):
    """Returns a flow of one row that points right."""
    return np.stack([np.array([dx], np.float64), np.zeros((1, len(dx)))], -1)


def test_by_hand():
    truth = np.array([[[3.0, 4.0], [0.0, 0.0], [-30.0, 0.0], [0.0, 50.0]]])
    predicted = np.array([[[0.0, 0.0], [0.0, 0.0], [-30.0, 2.0], [3.2, 50.0]]])
    found = _scores(predicted, truth)
    assert found.epe == pytest.approx((5 + 0 + 2 + 3.2) / 4)
    assert (found.epe_slow, found.epe_medium, found.epe_fast) == pytest.approx((2.5, 2, 3.2))
    assert (found.out_1px, found.out_3px, found.out_5px) == (0.75, 0.5, 0)
    assert found.fl_all == 0.5
    degrees = [np.degrees(np.arccos(dot / np.sqrt(a * b))) for dot, a, b in
               ((1, 26, 1), (1, 1, 1), (901, 901, 905), (2501, 2501, 2511.24))]  # fmt: skip
    assert found.angular == pytest.approx(np.mean(degrees))
    assert np.isnan(found.epe_matched) and np.isnan(found.epe_unmatched)


def test_an_outlier_is_far_off_in_pixels_and_in_per_cent():
    truth = _row(10, 100, 100, 60, 0)
    assert _scores(_row(13, 104, 105.5, 63, 2), truth).fl_all == 1 / 5  # the third alone
    assert _scores(_row(13.5, 100, 100, 60, 4), truth).fl_all == 2 / 5


def test_speeds_between_the_parts():
    found = _scores(_row(11, 42, 48), _row(10, 40, 41))
    assert np.isnan(found.epe_slow)
    assert (found.epe_medium, found.epe_fast) == (1.5, 7)


def test_occlusion_parts_the_error():
    truth, predicted = _row(0, 0, 0, 0), _row(1, 2, 3, 10)
    occluded = np.array([[False, False, True, True]])
    found = _scores(predicted, truth, occluded=occluded, valid=np.array([[True, True, True, False]]))
    assert (found.epe, found.epe_matched, found.epe_unmatched) == (2, 1.5, 3)
    unknown = _METRIC.update(_METRIC.zero(), predicted, truth)
    both = _METRIC.compute(_METRIC.update(unknown, predicted, truth, occluded=occluded))
    assert (both.epe_matched, both.epe_unmatched) == (1.5, 6.5)


def test_unknown_vectors_do_not_count():
    truth = np.stack([_row(0, 0, 0)[0], np.array([[0, 1e10], [np.nan, 0], [-1.6e9, 2]])])
    predicted = np.stack([_row(2, 2, 2)[0], _row(np.nan, 9, 9)[0]])
    valid = np.ones((2, 3), bool)
    assert _scores(predicted, truth).epe == _scores(predicted, truth, valid=valid).epe == 2
    valid[0, 0] = False
    assert _scores(np.where(valid[..., None], predicted, np.nan), truth, valid=valid).epe == 2
    assert all(np.isnan(_scores(predicted, truth, valid=~np.ones((2, 3), bool))))


def test_equal_flow_has_no_error_at_all():
    flow = np.random.default_rng(0).normal(0, 20, (9, 8, 2)).astype(np.float32)
    assert not angular_error(flow, flow).any() and not end_point_error(flow, flow).any()
    assert _scores(flow, flow).angular == 0


def test_frames_of_different_validity_are_pooled_or_grouped():
    """The mean over frames of each frame's error is another number than that over all pixels."""
    metric = grouped(_METRIC)
    state, pooled = metric.zero(), _METRIC.zero()
    for name, dx, valid in (("first", 1, [True, False, False]), ("second", 4, [True] * 3)):
        pair = _row(dx, dx, dx), _row(0, 0, 0)
        state = metric.update(state, name, *pair, valid=np.array([valid]))
        pooled = _METRIC.update(pooled, *pair, valid=np.array([valid]))
    assert metric.compute(state).mean.epe == 2.5
    assert _METRIC.compute(pooled).epe == (1 + 3 * 4) / 4


def test_predictions_that_are_not_finite_are_refused():
    for value in (np.nan, np.inf):
        with pytest.raises(InputError, match=r"not finite at 1 of 3 valid pixels, the first in row 0, column 2"):
            _scores(_row(1, 1, value), _row(1, 1, 1))


def test_sizes_must_agree():
    with pytest.raises(InputError, match=r"predicted flow is 2x1 and the ground truth 3x1"):
        _scores(_row(1, 1), _row(1, 1, 1))
    mask = np.ones((1, 1), bool)
    with pytest.raises(InputError, match=r"valid mask is 1x1"):
        _scores(_row(1, 1), _row(1, 1), valid=mask)
    with pytest.raises(InputError, match=r"occlusion mask is 1x1"):
        _scores(_row(1, 1), _row(1, 1), occluded=mask)


@pytest.fixture(scope="module")
def golden(golden_dir):
    with np.load(golden_dir / "flow" / "crops.npz") as arrays:
        yield json.loads((golden_dir / "flow" / "flow.json").read_text()), dict(arrays)


def _check_golden(predicted, truth, valid, expected):
    found = _scores(predicted, truth, valid=valid)
    for name in ("epe", "out_1px", "out_3px", "out_5px", "fl_all"):
        assert getattr(found, name) == pytest.approx(expected[name], rel=1e-9, abs=1e-9), name
    assert found.angular == pytest.approx(expected["aae_deg"], abs=1e-9)
    valid = np.all(np.abs(truth) < 1e9, axis=-1) if valid is None else valid
    errors = end_point_error(predicted, truth)[valid]
    assert errors.size == expected["n_valid"]
    assert np.median(errors) == pytest.approx(expected["epe_median"], rel=1e-9)
    assert errors.max() == pytest.approx(expected["epe_max"], rel=1e-9)
    either = np.mean((errors > 3) | (errors > 0.05 * np.linalg.norm(truth[valid].astype(np.float64), axis=-1)))
    assert either == pytest.approx(expected["fl_or_wrong"], abs=1e-9)
    assert found.fl_all < either or found.fl_all == 1


@pytest.mark.data
def test_golden_crops(golden):
    table, arrays = golden
    for row in table["crops"]:
        truth, dis = (arrays[f"{row['name']}_{kind}_q"] / np.float32(256) for kind in ("gt", "dis"))
        valid = arrays[f"{row['name']}_valid"]
        _check_golden(np.zeros_like(truth), truth, valid, row["zero"])
        _check_golden(dis, truth, valid, row["dis"])
        _check_golden(dis, truth, None, row["dis_all_pixels_valid_ignored"])


@pytest.mark.data
def test_golden_threshold_edges(golden):
    edges = golden[0]["threshold_edges"]
    _check_golden(_row(*edges["pred_u"]), _row(*edges["gt_u"]), None, edges)


@pytest.mark.data
@pytest.mark.parametrize("name", ["Dimetrodon", "Grove2", "RubberWhale", "Venus"])
def test_golden_full_size(name, golden, data_dir):
    truth, valid = read_flow(data_dir / "flow" / name / "flow10.flo")
    (row,) = (row for row in golden[0]["full_size"] if row["name"] == name)
    made = {"zero": np.zeros_like(truth), "scaled_1.06": truth.astype(np.float64) * 1.06,
            "swapped_uv": truth[..., ::-1], "negated": -truth}  # fmt: skip
    for sigma in ("0.1", "0.5", "3.0"):
        noise = np.random.RandomState(row[f"gt_plus_noise_{sigma}"]["seed"]).standard_normal(truth.shape)  # noqa: NPY002
        made[f"gt_plus_noise_{sigma}"] = truth.astype(np.float64) + noise * float(sigma)
    for kind, predicted in made.items():
        _check_golden(predicted, truth, valid, row[kind])
