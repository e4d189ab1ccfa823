import json
import os
import shutil

import numpy as np
import pytest
from evaluation.scenes import SIZE, moving, score, square, write
from PIL import Image

from jaxvos.errors import InputError
from jaxvos.evaluation import format_table, score_masks, score_sequence, write_report


@pytest.fixture
def folders(tmp_path):
    """Two sequences, one of two objects, predicted two pixels off; the second object exactly."""
    truth, drawn = tmp_path / "truth", tmp_path / "drawn"
    write(truth / "one", moving())
    write(truth / "two", moving(other=2))
    write(drawn / "one", moving(off=2))
    write(drawn / "two", moving(off=2, other=2))
    return drawn, truth


# ------------------------------------------------------------------------------------------------------------- scores


def test_scores_and_table(folders):
    report = score(*folders)
    off = 8 / 12  # two boxes ten wide, two apart
    assert report.protocol == "davis17"
    assert [sequence.name for sequence in report.sequences] == ["one", "two"]
    assert [item.j.mean for item in report.objects] == pytest.approx([off, off, 1.0])
    assert report.j.mean == pytest.approx((off + off + 1) / 3)
    assert report.sequences[0].frames == ("00001", "00002", "00003")
    assert report.objects[2].f == (1.0, 1.0, 0.0)
    table = format_table(report).splitlines()
    assert "davis17" in table[0]
    assert table[-1].split()[:4] == ["all", "objects", "3", "6"]


def test_protocol_follows_the_number_of_objects(folders):
    drawn, truth = folders
    assert score(drawn / "one", truth / "one").protocol == "davis16"
    assert score(drawn / "two", truth / "two").protocol == "davis17"
    merged = score(drawn / "two", truth / "two", protocol="davis16")
    assert [item.j.mean for item in merged.objects] == pytest.approx([(64 + 60) / (96 + 60)])


def test_first_and_last_frames_count_only_if_asked(folders):
    drawn, truth = folders
    shutil.rmtree(drawn / "one")
    masks = moving()
    masks[0] = masks[-1] = np.zeros(SIZE, np.uint8)
    write(drawn / "one", masks)
    assert score(drawn / "one", truth / "one").j_and_f == 1.0
    assert score(drawn / "one", truth / "one", score_all_frames=True).j.mean == pytest.approx(3 / 5)
    for name in ("00000.png", "00004.png"):
        (drawn / "one" / name).unlink()
    assert score(drawn / "one", truth / "one").j_and_f == 1.0


def test_fewer_labels_score_as_empty_masks(folders):
    drawn, truth = folders
    write(drawn / "two", moving())
    first, second = score(drawn / "two", truth / "two").objects
    assert first.j.mean == 1.0 and second.j.mean == second.f.mean == 0.0


def test_labels_need_not_be_contiguous(tmp_path):
    truth = write(tmp_path / "truth", moving(3, other=7))
    report = score(write(tmp_path / "drawn", moving(3, other=7)), truth)
    assert [item.label for item in report.objects] == [3, 7] and report.j_and_f == 1.0


def test_255_is_foreground_in_binary_masks_and_void_beside_labels(tmp_path):
    binary = write(tmp_path / "binary", moving(255))
    void = write(tmp_path / "void", moving(1, other=255))
    ones = write(tmp_path / "ones", moving())
    assert score(ones, binary).j_and_f == score(ones, void).j_and_f == 1.0
    assert score(ones, void, protocol="davis17").j_and_f == 1.0
    with pytest.raises(InputError, match="davis16"):
        score(ones, binary, protocol="davis17")


def test_one_worker_equals_two(folders):
    assert score(*folders, workers=1) == score(*folders, workers=2)


def test_sequence_in_memory_equals_folders(folders):
    report = score(*folders)
    found = score_sequence(moving(other=2), moving(off=2, other=2), name="two")
    assert found.objects == report.sequences[1].objects
    with pytest.raises(InputError, match="4 predictions for 5 frames"):
        score_sequence(moving(), moving(frames=4))
    with pytest.raises(InputError, match="clip frame 1 has label 9"):
        score_sequence(moving(), moving(9), name="clip")


def test_masks_in_memory():
    truth, drawn = np.stack(moving()) > 0, np.stack(moving(off=2)) > 0
    scores = score_masks(truth, drawn)
    np.testing.assert_allclose(scores.j, [8 / 12] * 5)
    assert scores.f.shape == (5,) and (scores.f < 1).all()
    np.testing.assert_array_equal(score_masks(truth, truth).f, np.ones(5))
    assert score_masks(truth[:0], truth[:0]).j.shape == (0,)


# ------------------------------------------------------------------------------------------------------------ layouts


def test_layouts_of_predictions(folders, tmp_path):
    drawn, truth = folders
    expected = score(drawn, truth, sequences=["two"]).sequences
    shutil.copytree(drawn / "two", tmp_path / "segment" / "two" / "masks")
    shutil.copytree(drawn / "two", tmp_path / "alone" / "masks")
    shutil.copytree(drawn / "two", tmp_path / "other" / "two")
    assert score(tmp_path / "segment", truth).sequences == expected
    assert score(tmp_path / "segment" / "two", truth).sequences == expected
    assert score(tmp_path / "segment" / "two" / "masks", truth).sequences == expected
    assert score(tmp_path / "alone", truth / "two").sequences == expected
    assert score(tmp_path / "other" / "two", truth).sequences == expected


def test_layouts_of_ground_truth(folders, tmp_path):
    drawn, truth = folders
    expected = score(drawn, truth).sequences
    davis = tmp_path / "davis"
    shutil.copytree(truth, davis / "Annotations" / "256p")
    assert score(drawn, davis).sequences == expected
    shutil.copytree(truth, davis / "Annotations" / "480p")
    assert score(drawn, davis).sequences == expected
    (davis / "Annotations" / "480p").rename(davis / "Annotations" / "1080p")
    with pytest.raises(InputError, match="1080p, 256p"):
        score(drawn, davis)
    assert score(drawn, davis / "Annotations" / "256p").sequences == expected
    shutil.copytree(truth, tmp_path / "flat" / "Annotations")
    assert score(drawn, tmp_path / "flat").sequences == expected


def test_hidden_files_are_not_frames(folders):
    drawn, truth = folders
    (truth / "one" / "._00000.png").write_bytes(b"resource fork")
    assert len(score(drawn, truth, sequences=["one"]).sequences[0].frames) == 3


def test_sequences_that_one_side_lacks_are_named(folders):
    drawn, truth = folders
    write(truth / "three", moving())
    write(drawn / "four", moving())
    with pytest.raises(InputError, match=r"1 of 3 sequences .* no predictions \(three\): predict them, or choose"):
        score(drawn, truth)
    report = score(drawn, truth, sequences=["one", "two"])
    assert report.not_predicted == ("three",) and report.not_annotated == ("four",)
    assert "no predictions: three" in format_table(report) and "no ground truth: four" in format_table(report)


# ---------------------------------------------------------------------------------------------------------- bad input


def test_missing_predictions(folders):
    drawn, truth = folders
    for name in ("00002.png", "00003.png"):
        (drawn / "one" / name).unlink()
    with pytest.raises(InputError, match=r"2 of 3 scored frames .*one/00002\.png"):
        score(drawn, truth)


def test_another_size(folders):
    drawn, truth = folders
    write(drawn / "one", [square(size=(30, 44))], first=2)
    with pytest.raises(InputError, match=r"one/00002\.png is 44x30 and the ground truth 40x24"):
        score(drawn, truth)


def test_a_label_that_the_ground_truth_lacks(folders):
    drawn, truth = folders
    write(drawn / "one", [square(5)], first=2)
    with pytest.raises(InputError, match=r"one/00002\.png has label 5"):
        score(drawn, truth)


def test_ground_truth_scored_against_itself(folders, tmp_path):
    drawn, truth = folders
    (tmp_path / "link").symlink_to(truth)
    shutil.copytree(drawn, truth / "results")
    (tmp_path / "hard").mkdir()
    for path in (truth / "one").iterdir():
        os.link(path, tmp_path / "hard" / path.name)
    for same in (truth, tmp_path / "link", truth / "results", truth / "one" / ".."):
        with pytest.raises(InputError, match="lie in the folder of the ground truth"):
            score(same, truth)
    with pytest.raises(InputError, match="lie in the folder of the ground truth"):
        score(truth / "one", truth / "one")
    with pytest.raises(InputError, match="is the file of the ground truth"):
        score(tmp_path / "hard", truth / "one")


def test_colours_and_smooth_edges(folders):
    drawn, truth = folders
    path = drawn / "one" / "00001.png"
    Image.fromarray(np.stack([square(255)] * 3, axis=-1)).save(path)
    with pytest.raises(InputError, match=r"one/00001\.png .*indexed PNG"):
        score(drawn, truth, workers=2)
    ramp = np.tile(np.arange(0, 240, 6, dtype=np.uint8), (24, 1))
    Image.fromarray(ramp).save(path)
    with pytest.raises(InputError, match=r"anti-aliased.*one/00001\.png"):
        score(drawn, truth)


def test_damaged_file(folders):
    drawn, truth = folders
    path = drawn / "one" / "00001.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"one/00001\.png"):
        score(drawn, truth)


def test_folders_that_do_not_fit(folders, tmp_path):
    drawn, truth = folders
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no folder"):
        score(tmp_path / "nowhere", truth)
    with pytest.raises(InputError, match="no PNG in"):
        score(tmp_path / "empty", truth)
    with pytest.raises(InputError, match="no sequence three in the ground truth"):
        score(drawn, truth, sequences=["three"])
    (drawn / "one").rename(drawn / "uno")
    (drawn / "two").rename(drawn / "due")
    with pytest.raises(InputError, match=r"due, uno.*one, two.*no sequence in common"):
        score(drawn, truth)


def test_too_few_frames(tmp_path):
    truth, drawn = write(tmp_path / "truth", moving(frames=2)), write(tmp_path / "drawn", moving(frames=2))
    with pytest.raises(InputError, match="nothing to score in 2 frames"):
        score(drawn, truth)
    assert score(drawn, truth, score_all_frames=True).num_frames == 2


def test_a_first_frame_without_objects(tmp_path):
    masks = moving()
    masks[0] = np.zeros(SIZE, np.uint8)
    truth, drawn = write(tmp_path / "truth", masks), write(tmp_path / "drawn", moving())
    assert score(drawn, truth).j_and_f == 1.0
    with pytest.raises(InputError, match="has no label"):
        score(drawn, truth, protocol="davis17")


# ------------------------------------------------------------------------------------------------------------- report


def test_report_is_written_whole(folders, tmp_path):
    report, path = score(*folders), tmp_path / "new" / "report.json"
    write_report(report, path)
    content = json.loads(path.read_text())
    assert content["global"]["J&F"] == report.j_and_f
    assert content["sequences"]["two"]["objects"]["2"]["J"]["mean"] == 1.0
    assert os.listdir(path.parent) == ["report.json"]


def test_a_failed_write_leaves_the_old_report(folders, tmp_path, monkeypatch):
    report, path = score(*folders), tmp_path / "reports" / "report.json"
    write_report(report, path)
    before = path.read_text()

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="cannot write"):
        write_report(report._replace(protocol="davis16"), path)
    assert path.read_text() == before and os.listdir(path.parent) == ["report.json"]


def test_scores_are_computed_anew(folders, tmp_path):
    drawn, truth = folders
    before = score(drawn, truth).j.mean
    write(drawn / "one", moving())
    assert score(drawn, truth).j.mean > before


# --------------------------------------------------------------------------------------------------------- benchmarks


@pytest.mark.data
def test_golden_global_means(golden_dir):
    expected = json.loads((golden_dir / "vos" / "scores_semi.json").read_text())["global_means"]
    report = score(golden_dir / "vos" / "pred", golden_dir / "vos" / "gt")
    assert report.protocol == "davis17" and report.not_annotated == ("schoolgirls_fewer_ids",)
    found = {
        f"{letter}_{name}": value
        for letter, values in (("J", report.j), ("F", report.f))
        for name, value in values._asdict().items()
    } | {"JF_mean": report.j_and_f}
    assert found == pytest.approx({name: expected["all"][name] for name in found}, abs=1e-9)
    single = score(
        golden_dir / "vos" / "pred",
        golden_dir / "vos" / "gt",
        sequences=expected["single_object"]["runs"],
        stability=False,
    )
    assert single.protocol == "davis16"
    assert single.j_and_f == pytest.approx(expected["single_object"]["JF_mean"], abs=1e-9)


@pytest.mark.data
@pytest.mark.parametrize(
    ("truth", "drawn", "run"),
    [("gt", "schoolgirls_fewer_ids", "schoolgirls_fewer_ids"), ("gt_void", "schoolgirls", "schoolgirls+void")],
)
def test_golden_hard_runs(truth, drawn, run, golden_dir):
    expected = json.loads((golden_dir / "vos" / "scores_semi.json").read_text())["runs"][run]
    report = score(golden_dir / "vos" / "pred" / drawn, golden_dir / "vos" / truth / "schoolgirls")
    np.testing.assert_allclose([item.j_frames for item in report.objects], expected["J"], rtol=0, atol=1e-9)
    np.testing.assert_allclose([item.f_frames for item in report.objects], expected["F"], rtol=0, atol=1e-9)


@pytest.mark.data
def test_davis2016_against_a_copy_of_itself(data_dir, tmp_path):
    root = data_dir / "davis2016"
    for name in ("bus", "rhino"):
        shutil.copytree(root / "Annotations" / "256p" / name, tmp_path / name)
    report = score(tmp_path, root / "Annotations" / "256p", sequences=["bus", "rhino"], stability=False)
    assert report.protocol == "davis16" and len(report.sequences) == 2
    assert report.j_and_f == report.j.recall == report.f.recall == 1.0
    assert len(report.not_predicted) == 28
