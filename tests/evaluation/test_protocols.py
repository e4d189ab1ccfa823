"""Each protocol on a few boxes: which frames and objects count, how they are averaged, and what may be a release."""

import json
from typing import get_args

import numpy as np
import pytest
from data.dataset_fixtures import MAKERS, ids
from evaluation.scenes import SIZE, moving, score, square, write
from PIL import Image

from jaxvos.data import write_flow, write_mask
from jaxvos.errors import InputError
from jaxvos.evaluation import PROTOCOLS, Protocol, describe_protocols, format_table
from jaxvos.evaluation._job import find_job
from jaxvos.metrics import MeasureReport, boundary_measure, region_similarity

_OFF = 8 / 12  # J of two boxes ten wide, two apart


def _grey(folder, maps, *, first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(maps, first):
        Image.fromarray(pixels).save(folder / f"{index:05d}.png")
    return folder


def test_the_table_is_complete():
    assert tuple(PROTOCOLS) == get_args(Protocol)
    assert all(f"\n  {name}\n" in f"\n{describe_protocols()}\n" for name in PROTOCOLS)


# ------------------------------------------------------------------------------------------------- davis17-unsupervised


def test_proposals_are_assigned(tmp_path):
    truth = write(tmp_path / "truth", moving(other=2))
    drawn = write(tmp_path / "drawn", [square(7, shift=i + 2, other=4) for i in range(5)])
    report = score(drawn, truth, protocol="davis17-unsupervised")
    assert [(item.label, item.proposal) for item in report.objects] == [(1, 7), (2, 4)]
    assert report.sequences[0].frames == tuple(f"{i:05d}" for i in range(5)), "all frames count"
    assert [item.j.mean for item in report.objects] == pytest.approx([_OFF, 1])
    stable = score(drawn, truth, protocol="davis17-unsupervised", stability=True)
    assert [len(item.t_frames) for item in stable.objects] == [3, 3] and stable.objects[1].t == 0
    davis = tmp_path / "davis"
    write(davis / "Annotations_unsupervised" / "480p" / "a", moving(other=2))
    write(davis / "Annotations" / "480p" / "a", moving())
    own = score(drawn, davis, protocol="davis17-unsupervised")
    assert own.objects == report.objects
    write(tmp_path / "drawn", [square(21)], first=2)
    with pytest.raises(InputError, match=r"00002\.png: label 21 .* 20 proposals at most"):
        score(drawn, truth, protocol="davis17-unsupervised")


# ---------------------------------------------------------------------------------------------------------- youtube-vos


@pytest.fixture
def youtube(tmp_path):
    """Every fifth frame is annotated; object 7 begins in the second of them; all is drawn two pixels off but it."""
    masks, drawn = [square(3)], [np.zeros(SIZE, np.uint8)]
    masks += [square(3, shift=i, other=7) for i in (1, 2, 3)]
    drawn += [square(3, shift=i + 2, other=7) for i in (1, 2, 3)]
    write(tmp_path / "valid" / "Annotations" / "a1", masks, step=5)
    write(tmp_path / "drawn" / "a1", drawn, step=5)
    objects = {"3": {"category": "sedan", "frames": ["00000"]}, "7": {"category": "cat", "frames": ["00005"]}}
    meta = {"videos": {"a1": {"objects": objects}}}
    (tmp_path / "valid" / "meta.json").write_text(json.dumps(meta))
    return tmp_path / "drawn", tmp_path / "valid"


def test_objects_count_from_the_frame_after_their_first(youtube):
    report = score(*youtube, protocol="youtube-vos")
    first, second = report.objects
    assert (first.label, len(first.j_frames), second.label, len(second.j_frames)) == (3, 3, 7, 2)
    assert first.j_frames == pytest.approx([_OFF] * 3) and second.j_frames == (1, 1)
    assert "plain means" in format_table(report) and not report.extra
    every = score(*youtube, protocol="youtube-vos", score_all_frames=True)
    assert [len(item.j_frames) for item in every.objects] == [4, 3] and every.objects[0].j_frames[0] == 0


def test_an_object_of_the_last_frame_has_no_score(tmp_path):
    masks = [*moving(3, frames=2), square(3, other=7)]
    report = score(write(tmp_path / "b", masks), write(tmp_path / "a", masks), protocol="youtube-vos")
    assert [item.label for item in report.objects] == [3]


def test_seen_and_unseen(youtube):
    drawn, valid = youtube
    report = score(drawn, valid, protocol="youtube-vos", unseen=["cat", "dog"])
    first, second = report.objects
    expected = {"J_seen": _OFF, "J_unseen": 1.0, "F_seen": first.f.mean, "F_unseen": second.f.mean}
    assert report.extra == pytest.approx(expected | {"G": np.mean(list(expected.values()))})
    assert "G: " in format_table(report)
    for unseen in (["dog"], ["cat", "sedan"]):
        with pytest.raises(InputError, match="no scored object is of a category that is"):
            score(drawn, valid, protocol="youtube-vos", unseen=unseen)
    (valid / "meta.json").write_text('{"videos": {"a1": {"objects": {}}}}')
    with pytest.raises(InputError, match="no category of object 3 in a1"):
        score(drawn, valid, protocol="youtube-vos", unseen=["cat"])
    (valid / "meta.json").unlink()
    with pytest.raises(InputError, match=r"no meta\.json"):
        score(drawn, valid, protocol="youtube-vos", unseen=["cat"])


# ------------------------------------------------------------------------------------------------ fbms, youtube-objects


def test_fbms_merges_objects_and_judges_maps(tmp_path):
    truth = write(tmp_path / "truth" / "a", moving(1, frames=2, other=2))
    masks = [np.where(mask > 0, np.uint8(200), np.uint8(51)) for mask in moving(1, frames=2, off=2, other=2)]
    soft = score(_grey(tmp_path / "soft" / "a", masks), truth, protocol="fbms")
    assert [item.label for item in soft.objects] == [1] and soft.num_frames == 2
    assert soft.j.mean == pytest.approx((64 + 60) / (96 + 60))
    found, hit = 140, 124  # pixels
    share = found / np.prod(SIZE)
    missed, wrong = (140 - hit) / np.prod(SIZE), (found - hit) / np.prod(SIZE)
    error = (hit / np.prod(SIZE) + wrong) * 200 / 255 + 0.2 * (1 - share - missed) + missed * (1 - 0.2)
    error += (hit / np.prod(SIZE)) * (1 - 2 * 200 / 255)
    assert soft.extra["MAE"] == pytest.approx(error)
    assert soft.extra["max F"] == pytest.approx(hit / found)
    hard = score(write(tmp_path / "hard" / "a", moving(1, frames=2, off=2, other=2)), truth, protocol="fbms")
    assert hard.objects == soft.objects and not hard.extra
    _grey(tmp_path / "hard" / "a", masks[:1])
    mixed = score(tmp_path / "hard", truth, protocol="fbms")
    assert not mixed.extra and any("1 of 2 predictions are indexed" in note for note in mixed.notes)


def test_youtube_objects_averages_over_categories(tmp_path):
    for name, off in (("cat_0001_001", 0), ("cat_0002_001", 2), ("dog_0001_001", 2)):
        write(tmp_path / "truth" / name, moving(frames=2))
        write(tmp_path / "drawn" / name, moving(frames=2, off=off))
    report = score(tmp_path / "drawn", tmp_path / "truth", protocol="youtube-objects")
    cat = (1 + _OFF) / 2
    assert report.extra == pytest.approx({"J cat": cat, "J dog": _OFF, "J over categories": (cat + _OFF) / 2})
    assert report.j.mean == pytest.approx((1 + 2 * _OFF) / 3)


# -------------------------------------------------------------------------------------------------------- segtrack, vip


def test_segtrack_has_both_means(tmp_path):
    masks = [square(1, shift=i, other=2 if i < 2 else None) for i in range(4)]
    write(tmp_path / "truth" / "a", masks)
    drawn = write(
        tmp_path / "drawn" / "a", [square(1, shift=i + 2, other=2 if i < 2 else None) for i in range(1, 4)], first=1
    )
    report = score(tmp_path / "drawn", tmp_path / "truth", protocol="segtrack")
    assert report.sequences[0].frames == ("00001", "00002", "00003")
    assert report.extra["mIoU*"] == pytest.approx(((_OFF + 1) / 2 + _OFF + _OFF) / 3)
    assert report.extra["mIoU-dagger"] == pytest.approx((_OFF + 1) / 2)
    write_mask(drawn / "00000.png", np.zeros(SIZE, np.uint8))
    every = score(tmp_path / "drawn", tmp_path / "truth", protocol="segtrack", score_all_frames=True)
    assert every.extra["mIoU-dagger"] == pytest.approx((_OFF * 3 / 4 + 1 / 2) / 2)


def test_vip_pools_pixels(tmp_path):
    write(tmp_path / "truth" / "a", [ids(0, 5, 19, 255), ids(5)])
    write(tmp_path / "drawn" / "a", [ids(0, 5, 5, 3), ids(5)])
    report = score(tmp_path / "drawn", tmp_path / "truth", protocol="vip")
    strip = 3  # columns of each class in the first frame
    assert isinstance(report, MeasureReport)
    assert report.measures["mIoU"] == pytest.approx((1 + (strip + 12) / (2 * strip + 12) + 0) / 3)
    assert report.measures["accuracy"] == pytest.approx((2 * strip + 12) / (3 * strip + 12))
    assert report.sequences[0].by_frame["mIoU"] == pytest.approx((0.5, 1.0))
    write_mask(tmp_path / "drawn" / "a" / "00001.png", ids(20))
    with pytest.raises(InputError, match=r"00001\.png: the prediction has label 20"):
        score(tmp_path / "drawn", tmp_path / "truth", protocol="vip")


# ------------------------------------------------------------------------------------------------------ saliency, visal


@pytest.mark.parametrize("protocol", ["saliency", "visal"])
def test_maps_against_masks(tmp_path, protocol):
    rng = np.random.default_rng(0)
    masks = [square(255, shift=i) for i in range(3)]
    maps = [rng.integers(0, 256, SIZE, dtype=np.uint8) for _ in range(3)]
    truth = {"a": masks[:2], "b": masks[2:]}
    for name, images in truth.items():
        _grey(tmp_path / "truth" / name, [np.where(image > 0, 200, 100).astype(np.uint8) for image in images])
    _grey(tmp_path / "drawn" / "a", maps[:2])
    _grey(tmp_path / "drawn" / "b", maps[2:])
    report = score(tmp_path / "drawn", tmp_path / "truth", protocol=protocol)
    errors = [np.abs(drawn / 255 - (mask > 0)).mean() for drawn, mask in zip(maps, masks, strict=True)]
    assert report.measures["MAE"] == pytest.approx(np.mean(errors))
    assert report.sequences[0].by_frame["MAE"] == pytest.approx(errors[:2])
    assert report.sequences[1].measures["MAE"] == pytest.approx(errors[2])
    curves = []
    for drawn, mask in zip(maps, masks, strict=True):
        above = drawn[None] >= np.arange(256)[:, None, None]
        hit = (above & (mask > 0)).sum((1, 2))
        precision, recall = hit / np.maximum(above.sum((1, 2)), 1), hit / (mask > 0).sum()
        curves.append(1.3 * precision * recall / np.where(hit > 0, 0.3 * precision + recall, 1))
    assert report.measures["max F"] == pytest.approx(np.mean(curves, axis=0).max())
    assert "MAE" in format_table(report) and report.num_frames == 3


def test_a_hard_mask_is_a_map_and_colours_are_none(tmp_path):
    truth = write(tmp_path / "truth", moving(frames=2))
    drawn = write(tmp_path / "drawn", moving(frames=2))
    assert score(drawn, truth, protocol="saliency").measures["MAE"] == 0
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(drawn / "00001.png")
    with pytest.raises(InputError, match=r"00001\.png has mode RGB: save the map as an 8-bit grey PNG"):
        score(drawn, truth, protocol="saliency")


# ----------------------------------------------------------------------------------------------------------------- flow


def test_flow_in_any_format(tmp_path):
    rng = np.random.default_rng(0)
    truths, drawns = rng.normal(0, 20, (2, 2, 6, 8, 2)).astype(np.float32)
    valid = rng.random((6, 8)) < 0.7
    write_flow(tmp_path / "truth" / "a" / "frame_0001.flo", truths[0])
    write_flow(tmp_path / "truth" / "b" / "000000_10.png", np.round(truths[1] * 64) / 64, valid)
    write_flow(tmp_path / "drawn" / "a" / "frame_0001.flo", drawns[0])
    write_flow(tmp_path / "drawn" / "b" / "000000_10.flo", drawns[1])
    report = score(tmp_path / "drawn", tmp_path / "truth", protocol="flow")
    first = np.hypot(*np.moveaxis(drawns[0] - truths[0], -1, 0)).ravel()
    second = np.hypot(*np.moveaxis(drawns[1] - np.round(truths[1] * 64) / 64, -1, 0))[valid]
    errors = np.concatenate([first, second])
    assert report.measures["EPE"] == pytest.approx(errors.mean(), rel=1e-6)
    assert report.measures[">3px"] == pytest.approx((errors > 3).mean())
    assert report.sequences[1].measures["EPE"] == pytest.approx(second.mean(), rel=1e-6)
    (tmp_path / "drawn" / "a" / "frame_0001.flo").write_bytes(b"PIEH1234")
    with pytest.raises(InputError, match=r"a/frame_0001\.flo declares"):
        score(tmp_path / "drawn", tmp_path / "truth", protocol="flow")
    write_flow(tmp_path / "drawn" / "a" / "frame_0001.flo", drawns[0][:, :6])
    with pytest.raises(InputError, match=r"frame_0001\.flo: the predicted flow is 6x6 and the ground truth 8x6"):
        score(tmp_path / "drawn", tmp_path / "truth", protocol="flow")
    drawns[0, 1, 2] = 1e10
    write_flow(tmp_path / "drawn" / "a" / "frame_0001.flo", drawns[0])
    with pytest.raises(InputError, match=r"frame_0001\.flo: .*not finite at 1 of 48"):
        score(tmp_path / "drawn", tmp_path / "truth", protocol="flow")


# -------------------------------------------------------------------------------------------------------------- options


def test_resize(tmp_path):
    truth = write(tmp_path / "truth", moving())
    drawn = write(tmp_path / "drawn", [np.kron(mask, np.ones((2, 2), np.uint8)) for mask in moving()])
    with pytest.raises(InputError, match=r"00001\.png is 80x48 and the ground truth 40x24"):
        score(drawn, truth)
    report = score(drawn, truth, resize=True)
    assert report.j_and_f == 1 and report.t == score(write(tmp_path / "same", moving()), truth).t
    ramp = np.tile(np.array([0, 255], np.uint8), (24, 10))
    _grey(tmp_path / "ramps", [ramp] * 5)
    soft = score(tmp_path / "ramps", truth, protocol="saliency", resize=True)
    assert 0 < soft.measures["MAE"] < 1 and soft.measures["MAE"] != score(
        _grey(tmp_path / "steps", [np.repeat(ramp, 2, 1)] * 5), truth, protocol="saliency").measures["MAE"]  # fmt: skip
    with pytest.raises(InputError, match="flow is not resized"):
        write_flow(tmp_path / "a" / "b" / "0.flo", np.zeros((2, 2, 2), np.float32))
        write_flow(tmp_path / "c" / "b" / "0.flo", np.zeros((2, 2, 2), np.float32))
        score(tmp_path / "c", tmp_path / "a", protocol="flow", resize=True)


def test_options_that_would_do_nothing_are_refused(tmp_path):
    truth, drawn = write(tmp_path / "truth", moving()), write(tmp_path / "drawn", moving())
    for options, message in (
        ({"protocol": "fbms", "score_all_frames": True}, "all annotated frames count under fbms"),
        ({"protocol": "youtube-vos", "stability": True}, "no T under youtube-vos"),
        ({"protocol": "davis17", "unseen": ["cat"]}, "unseen categories are those of youtube-vos"),
    ):
        with pytest.raises(InputError, match=message):
            score(drawn, truth, **options)
    with pytest.raises(InputError, match="unknown protocol davis18: davis16, davis17"):
        find_job(drawn, truth, protocol="davis18", sequences=None, resize=False, workers=1, progress=False)


# ------------------------------------------------------------------------------------------------------------- releases


@pytest.mark.parametrize(
    ("protocol", "layout", "frames", "mask"),
    [("fbms", "fbms59", {"tennis": ["tennis1"]}, ids(0, 1, 1)),
     ("visal", "visal", {"aeroplane": ["00001"], "bird": ["00000"]}, None),
     ("youtube-objects", "youtube_objects", {"aeroplane_0001_001": ["frame0001", "frame0011"],
                                             "cat_0012_001": ["frame0001", "frame0011"]}, ids(0, 1, 1)),
     ("segtrack", "segtrack_v2", {"birdfall": ["birdfall_00001"], "cheetah": ["cheetah_00001"]}, None),
     ("vip", "vip", {"videos1": ["000000000001", "000000000026"]}, ids(0, 5, 19))],
)  # fmt: skip
def test_ground_truth_as_it_was_released(tmp_path, protocol, layout, frames, mask):
    MAKERS[layout](tmp_path / "release")
    own = {"aeroplane": ids(0, 0, 1, 1), "bird": ids(0, 1), "birdfall": ids(0, 1, 1), "cheetah": ids(0, 1, 2)}
    for name, stems in frames.items():
        for stem in stems:
            write_mask(tmp_path / "drawn" / name / f"{stem}.png", own[name] if mask is None else mask)
    report = score(tmp_path / "drawn", tmp_path / "release", protocol=protocol)
    assert {sequence.name: list(sequence.frames) for sequence in report.sequences} == frames
    if isinstance(report, MeasureReport):
        assert report.measures.get("mIoU", 1) == 1 and report.measures.get("MAE", 0) == 0
    else:
        assert report.j_and_f == 1


# ----------------------------------------------------------------------------------------------------------- benchmarks


def test_frames_equal_a_plain_loop(tmp_path):
    rng = np.random.default_rng(1)
    truths = [np.where(square(1, shift=i, other=2) > 0, square(1, shift=i, other=2), 0) for i in range(4)]
    drawns = [np.where(rng.random(SIZE) < 0.9, mask, 0).astype(np.uint8) for mask in truths]
    report = score(write(tmp_path / "drawn", drawns), write(tmp_path / "truth", truths))
    for item in report.objects:
        pairs = [(t == item.label, d == item.label) for t, d in zip(truths[1:-1], drawns[1:-1], strict=True)]
        assert list(item.j_frames) == [region_similarity(*pair) for pair in pairs]
        assert list(item.f_frames) == [boundary_measure(*pair) for pair in pairs]


@pytest.mark.data
def test_golden_proposals(golden_dir):
    expected = json.loads((golden_dir / "vos" / "scores_unsup.json").read_text())["runs"]["soccerball_p4"]
    report = score(golden_dir / "vos" / "unsup_pred" / "soccerball_p4", golden_dir / "vos" / "gt" / "soccerball",
                   protocol="davis17-unsupervised")  # fmt: skip
    order = expected["assignment_official_order"]
    for row, (proposal, number) in enumerate(zip(order["proposal_index0"], order["gt_object_index0"], strict=True)):
        item = report.objects[number]
        assert item.proposal == proposal + 1
        np.testing.assert_allclose(item.j_frames, expected["J"][row], rtol=0, atol=1e-9)
        np.testing.assert_allclose(item.f_frames, expected["F"][row], rtol=0, atol=1e-9)
