"""What a server would refuse is named before anything is sent; what is sent is the same bytes every time."""

import zipfile

import numpy as np
import pytest
from evaluation.scenes import SIZE, moving, square, write
from PIL import Image

from jaxvos.data import read_mask, write_mask
from jaxvos.errors import InputError
from jaxvos.evaluation import check_submission, write_submission


@pytest.fixture
def folders(tmp_path):
    """Results of two sequences, and a DAVIS folder with the first masks."""
    for name, other in (("one", None), ("two", 2)):
        write(tmp_path / "out" / name, moving(other=other))
        write(tmp_path / "davis" / "Annotations" / "480p" / name, moving(other=other, frames=1))
        (tmp_path / "davis" / "JPEGImages" / "480p" / name).mkdir(parents=True)
        for index in range(5):
            Image.new("RGB", SIZE[::-1]).save(tmp_path / "davis" / "JPEGImages" / "480p" / name / f"{index:05d}.jpg")
    return tmp_path / "out", tmp_path / "davis"


@pytest.mark.parametrize(("benchmark", "prefix"), [("davis17", ""), ("youtube-vos", "Annotations/")])
def test_the_archive_is_as_the_server_expects(folders, tmp_path, benchmark, prefix):
    results, davis = folders
    found = check_submission(results, benchmark=benchmark, against=davis)
    assert not found.problems and not found.notes and found.num_sequences == 2
    write_submission(found, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == [f"{prefix}{name}/{i:05d}.png" for name in ("one", "two") for i in range(5)]
        archive.extractall(tmp_path / "unpacked")
    np.testing.assert_array_equal(read_mask(tmp_path / "unpacked" / prefix / "two" / "00003.png"), moving(other=2)[3])
    for path in results.rglob("*.png"):
        path.touch()
    write_submission(check_submission(results, benchmark=benchmark, against=davis), tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize("place", ["", "JPEGImages", "JPEGImages/480p", "Annotations/480p"])
def test_what_to_compare_with(folders, place):
    results, davis = folders
    found = check_submission(results, benchmark="davis17", against=davis / place)
    wrong = {"Annotations/480p": "8 frames are not of the sequence; the first: "}.get(place)
    assert (found.problems == ()) if wrong is None else found.problems[0].startswith(wrong)
    assert bool(found.notes) == place.startswith("JPEG")
    (results / "two" / "00003.png").rename(davis / "three.png")
    again = check_submission(results, benchmark="davis17", against=davis / place)
    assert any("frames are missing" in problem for problem in again.problems) or wrong


def test_a_list_of_sequences(folders, tmp_path):
    results, davis = folders
    (tmp_path / "val.txt").write_text("one\nthree\n")
    found = check_submission(results, benchmark="davis17", against=tmp_path / "val.txt")
    assert found.problems == ("1 sequences are missing; the first: three",
                              "1 sequences are not of the data set; the first: two")  # fmt: skip
    sets = davis / "ImageSets" / "2017"
    sets.mkdir(parents=True)
    (sets / "val.txt").write_text("one\n")
    (results / "one" / "00004.png").unlink()
    assert check_submission(results, benchmark="davis17", against=sets / "val.txt").problems == (
        "1 sequences are not of the data set; the first: two",
        f"1 frames are missing; the first: {results}/one/00004.png",
    )
    assert not check_submission(results, benchmark="davis17").problems
    assert "not checked" in check_submission(results, benchmark="davis17").notes[0]


def test_everything_wrong_is_said_at_once(folders, tmp_path):
    results, davis = folders
    one = results / "one"
    write_mask(one / "00000.png", square(size=(12, 20)))
    write_mask(one / "00001.png", square(5))
    write_mask(results / "two" / "00001.png", square(4))
    Image.fromarray(square(1)).save(one / "00002.png")
    (one / "00003.png").write_bytes((one / "00003.png").read_bytes()[:50])
    Image.new("RGB", SIZE[::-1]).save(one / "00004.png")
    write(results / "four", moving(frames=1))
    (results / "two" / "00002.png").rename(results / "two" / "00009.png")
    problems = check_submission(results, benchmark="davis17", against=davis).problems
    for expected in (
        "1 sequences are not of the data set; the first: four",
        f"1 frames are missing; the first: {results}/two/00002.png",
        f"1 frames are not of the sequence; the first: {results}/two/00009.png",
        f"1 masks differ in size from their frames; the first: {one}/00000.png, 20x12 and not 40x24",
        f"2 masks have ids that the annotations lack; the first: {one}/00001.png, id 5 where there are 1",
        f"1 masks have no palette (mode P): write them with jaxvos.data.write_mask; the first: {one}/00002.png, mode L",
        f"2 masks cannot be read as ids; the first: {one}/00003.png",
    ):
        assert any(problem.startswith(expected) for problem in problems), (expected, problems)
    assert len(problems) == 7 and all("\n" not in problem for problem in problems)
    found = check_submission(results, benchmark="davis17", against=davis)
    with pytest.raises(InputError, match="not zipped: 1 sequences"):
        write_submission(found, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_bad_places(folders, tmp_path):
    results, davis = folders
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "nothing").mkdir()
    for arguments, message in (
        ((tmp_path / "none", davis), "no folder"),
        ((tmp_path / "nothing", davis), "no PNG in"),
        ((results, tmp_path / "none"), "there is no .*none: give a folder of the data set"),
        ((results, tmp_path / "empty.txt"), "lists no sequence"),
        ((results, tmp_path / "nothing"), "has no folders of frames"),
    ):
        with pytest.raises(InputError, match=message):
            check_submission(arguments[0], benchmark="davis17", against=arguments[1])
