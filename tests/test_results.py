"""A folder of results appears whole or not at all, and its numbers are what was counted."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from jaxvos.data import read_mask
from jaxvos.errors import InputError
from jaxvos.inference import SegmentedFrame
from jaxvos.results import check_output, output_folder, write_results


def _stream(count, size=(24, 32)):
    """Frames whose first takes a second longer, and every second one of which is empty."""
    for index in range(count):
        mask = np.full(size, index % 2, np.uint8)
        image = np.full((*size, 3), index, np.uint8)
        yield SegmentedFrame(f"f{index}", image, mask, mask.astype(np.float32), 0.25, 1.25 if index == 0 else 0.25)


def _write(folder, count, **story):
    folder.mkdir(parents=True)
    return write_results(_stream(count), folder, fps=12.0, length=None, story=story)


def test_the_numbers(tmp_path):
    report = _write(tmp_path / "out", 5, input="a film")
    assert report == json.loads((tmp_path / "out" / "results.json").read_text())
    assert report["input"] == "a film" and (report["frames"], report["size"]) == (5, [24, 32])
    assert report["frames_per_second"]["steady"] == pytest.approx(2.0)
    assert report["frames_per_second"]["model"] == pytest.approx(4.0)
    assert report["compile_seconds"] == pytest.approx(1.0)
    assert report["foreground_share"] == {"mean": pytest.approx(0.4), "empty_frames": 3}
    assert [read_mask(tmp_path / "out" / "masks" / f"f{index}.png").max() for index in range(5)] == [0, 1, 0, 1, 0]


def test_one_frame_says_nothing_about_speed(tmp_path):
    report = _write(tmp_path / "out", 1)
    assert report["compile_seconds"] is report["frames_per_second"]["steady"] is None


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (4, 1), (5, 2), (12, 3), (13, 3), (24, 3), (100, 3)])
def test_the_sheet_has_at_most_twelve_tiles(tmp_path, count, rows):
    _write(tmp_path / "out", count)
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.width == 1200 and round(sheet.height / 245) == rows


def test_a_new_folder_appears_whole(tmp_path):
    with output_folder(tmp_path / "a" / "b") as partial:
        (partial / "file").write_text("1")
        assert partial.parent == tmp_path / "a" and partial.name.startswith(".")
        assert not (tmp_path / "a" / "b").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert (tmp_path / "a" / "b" / "file").read_text() == "1"


def test_an_existing_folder_is_filled_from_within(tmp_path):
    """It may be a mounted disk, or the only place that may be written to."""
    with output_folder(tmp_path) as partial:
        assert partial.parent == tmp_path
        (partial / "file").write_text("1")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt, ZeroDivisionError])
def test_an_error_leaves_nothing(tmp_path, error):
    (tmp_path / "there").mkdir()
    for place in (tmp_path / "a" / "b", tmp_path / "there"):
        with pytest.raises(error), output_folder(place) as partial:
            (partial / "masks").mkdir()
            raise error
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["there"]


def test_a_parent_that_was_there_or_is_used_stays(tmp_path):
    with pytest.raises(InputError), output_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "other").write_text("")
        raise InputError("no")
    assert (tmp_path / "a" / "other").exists()


def test_a_link_to_a_folder(tmp_path):
    (tmp_path / "real").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "link")
    with output_folder(tmp_path / "link") as partial:
        (partial / "file").write_text("1")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "file").exists()


def test_what_may_be_replaced(tmp_path):
    check_output(tmp_path / "new", overwrite=False)
    check_output(tmp_path, overwrite=False)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="not empty"):
        check_output(tmp_path, overwrite=False)
    check_output(tmp_path, overwrite=True)
    (tmp_path / "overlay.mp4").write_text("")
    with pytest.raises(InputError, match="overlay.mp4 would be replaced, but is not of an earlier run"):
        check_output(tmp_path, overwrite=True)
    (tmp_path / "results.json").write_text("")
    check_output(tmp_path, overwrite=True)
