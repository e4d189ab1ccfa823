"""`jaxvos submit` as a user types it."""

import zipfile

import numpy as np
import pytest

from jaxvos.data import write_mask


@pytest.fixture
def folders(tmp_path):
    """Two sequences as `jaxvos segment` leaves them, and the annotations."""
    mask = np.zeros((24, 40), np.uint8)
    mask[4:12, 5:15] = 1
    for name in ("one", "two"):
        for index in range(2):
            write_mask(tmp_path / "davis" / "Annotations" / "480p" / name / f"{index:05d}.png", mask)
            write_mask(tmp_path / "out" / name / "masks" / f"{index:05d}.png", mask)
    return tmp_path / "out", tmp_path / "davis"


def _names(path):
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_an_archive(run, folders, tmp_path):
    results, davis = folders
    code, out, err = run("submit", results, "--to", "davis17", "--against", davis, "-o", tmp_path / "a.zip")
    assert code == 0 and err == "" and "4 masks of 2 sequences are as davis17 expects" in out
    names = _names(tmp_path / "a.zip")
    assert names == ["one/00000.png", "one/00001.png", "two/00000.png", "two/00001.png"]
    run("submit", results, "--to", "youtube-vos", "-o", tmp_path / "b.zip")
    assert _names(tmp_path / "b.zip") == [f"Annotations/{name}" for name in names]


def test_check_only(run, folders, snapshot):
    results, davis = folders
    before = snapshot()
    assert run("submit", results, "--to", "davis17", "--against", davis, "--check-only").code == 0
    code, out, _ = run("submit", results, "--to", "davis17", "--check-only")
    assert code == 0 and "note: without a reference" in out
    assert snapshot() == before


def test_problems(run, folders, tmp_path):
    results, davis = folders
    (results / "one" / "masks" / "00001.png").unlink()
    write_mask(results / "two" / "masks" / "00000.png", np.full((24, 40), 7, np.uint8))
    code, out, err = run("submit", results, "--to", "davis17", "--against", davis, "-o", tmp_path / "a.zip")
    assert code == 2 and err.count("\n") == 1 and "is no submission to davis17: 2 kinds of problems" in err
    assert f"1 frames are missing; the first: {results}/one/masks/00001.png" in out and "id 7 where there are 1" in out
    assert not (tmp_path / "a.zip").exists()


def test_bad_options(run, folders, tmp_path):
    results, _ = folders
    to = ["--to", "davis17"]
    for options, message in (
        (to, "name the archive with -o, or check only"),
        ([*to, "--check-only", "-o", tmp_path / "a.zip"], "name the archive with -o, or check only"),
        ([*to, "-o", tmp_path / "a.tar"], "is not named as an archive: use .zip"),
        (["--to", "davis16", "--check-only"], "invalid choice 'davis16'"),
        ([*to, "--check-only", "--against", tmp_path / "none"], "there is no"),
    ):
        code, out, err = run("submit", results, *options)
        assert code == 2 and out == "" and message in err and err.count("\n") == 1
