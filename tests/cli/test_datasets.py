"""`jaxvos datasets` as a user types it; the layouts and the records have tests of their own."""

import pytest
from data.dataset_fixtures import MAKERS

from jaxvos.data import LAYOUTS, open_dataset


def test_list(run):
    code, out, err = run("datasets", "list")
    assert code == 0 and err == "" and all(f"{name}: {layout.title}" in out for name, layout in LAYOUTS.items())
    one = run("datasets", "list", "visal").out
    assert one.rstrip("\n") in out and one.count("\n") < 10
    code, _, err = run("datasets", "list", "viral")
    assert code == 2 and "there is no data set 'viral'" in err


@pytest.mark.filterwarnings("ignore")
def test_prepare(run, tmp_path):
    MAKERS["visal"](tmp_path / "raw")
    command = ["datasets", "prepare", "visal", "--from", tmp_path / "raw", "--to", tmp_path / "prepared"]
    code, out, err = run(*command)
    assert code == 0 and err == "", err
    assert f"prepared {tmp_path / 'prepared' / 'visal'}" in out and "test: 2 sequences, 4 frames, 2 with masks" in out
    found = open_dataset("visal", split="test", data_dir=tmp_path / "prepared")
    assert [sequence.name for sequence in found] == ["aeroplane", "bird"]
    code, out, err = run(*command)
    assert code == 2 and out == "" and "is there already" in err and err.count("\n") == 1


def test_bad_input(run, tmp_path, snapshot):
    (tmp_path / "file").write_text("")
    before = snapshot()
    for options, message in (
        (["--from", tmp_path / "none", "--to", tmp_path / "to"], "there is no"),
        (["--from", tmp_path, "--to", tmp_path / "file"], "is a file: name a folder"),
    ):
        code, out, err = run("datasets", "prepare", "visal", *options)
        assert code == 2 and out == "" and message in err and err.count("\n") == 1
        assert snapshot() == before
