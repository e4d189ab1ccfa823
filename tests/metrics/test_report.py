import json

import pytest

from jaxvos.metrics import ObjectScores, Report, SequenceScores, format_json, format_table

_REPORT = Report(
    protocol="davis17", score_all_frames=False, predictions="out", ground_truth="DAVIS",
    sequences=(
        SequenceScores("alone", ("1", "2"), (ObjectScores(1, (1.0, 1.0), (1.0, 0.0)),)),
        SequenceScores("pair", ("1", "2"), (ObjectScores(1, (0.5, 0.7), (0.4, 0.4)),
                                            ObjectScores(3, (0.0, 0.0), (0.0, 0.2)))),
    ), not_predicted=("absent",))


def test_averages_are_over_objects_not_sequences():
    assert _REPORT.j.mean == pytest.approx((1.0 + 0.6 + 0.0) / 3)
    assert _REPORT.f.mean == pytest.approx((0.5 + 0.4 + 0.1) / 3)
    assert _REPORT.j.recall == pytest.approx((1.0 + 0.5 + 0.0) / 3)
    assert _REPORT.sequences[1].j.mean == pytest.approx(0.3)
    assert _REPORT.j_and_f == pytest.approx((_REPORT.j.mean + _REPORT.f.mean) / 2)
    assert _REPORT.num_frames == 4


def test_table():
    protocol, header, _, alone, pair, _, total, absent = format_table(_REPORT).splitlines()
    assert "davis17" in protocol and "first and last frames do not count" in protocol
    assert alone.split()[:4] == ["alone", "1", "2", "0.750"]
    assert pair.split()[:4] == ["pair", "2", "2", "0.275"]
    assert total.split()[:5] == ["all", "objects", "3", "4", "0.433"]
    assert len({len(line) for line in (header, alone, pair, total)}) == 1
    assert absent == "not scored, no predictions: absent"


def test_json_has_every_frame_and_no_nan():
    empty = Report("davis16", True, "a", "b", (SequenceScores("s", ("1",), (
        ObjectScores(1, tuple([0.5] * 256), tuple([0.5] * 256)),)),))
    assert json.loads(format_json(empty))["global"]["J"]["decay"] is None  # the official decay overflows there
    content = json.loads(format_json(_REPORT))
    assert content["sequences"]["pair"]["objects"]["3"]["F_frames"] == [0.0, 0.2]
    assert content["global"]["J&F"] == _REPORT.j_and_f
    assert content["not_predicted"] == ["absent"]
