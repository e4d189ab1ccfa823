"""`jaxvos runs compare` as a person types it; what it finds has tests of its own."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    """Two seeds of one configuration and one seed of another."""
    folders = []
    for name, lr, seed in (("slow/0", 0.1, 0), ("slow/1", 0.1, 1), ("fast/0", 0.3, 0)):
        folder = tmp_path / "sweep" / name
        folder.mkdir(parents=True)
        training = {"num_steps": 40, "seed": seed, "optimizer": {"lr": lr}}
        content = {"config": {"workdir": name, "training": training}, "commit": "0" * 40, "device": "1 x cpu"}
        (folder / "config.json").write_text(json.dumps(content))
        entries = [{"step": s, "loss": (s % 2 + seed + 1) / s / lr, "clips_per_second": 2.0} for s in range(1, 41)]
        entries += [{"step": 40, "eval/J": 0.5 + lr + seed / 10, "eval/F": 0.5}]
        (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        folders.append(folder)
    return folders


def test_what_is_printed_and_written(run, runs, tmp_path):
    output = tmp_path / "out"
    code, out, err = run("runs", "compare", *runs, "-o", output)
    assert code == 0 and err == "", err
    assert {path.name for path in output.iterdir()} == {"curves.png", "table.md", "comparison.json"}
    header, slow, *_ = out.splitlines()
    assert header.split() == ["run", "step", "last", "loss", "last", "eval/J", "max", "eval/J", "last", "eval/F", "max",
                              "eval/F", "clips/s", "commit", "device"]  # fmt: skip
    assert slow.startswith("slow/0 ") and "40 of 40" in slow and slow.endswith("2  0000000  1 x cpu")
    assert "\nslow/0 and 1 more seed" in out and "0.65 +- 0.071" in out
    assert "\ntraining.optimizer.lr     0.1     0.1     0.3\n" in out
    assert out.endswith(f"look at {output / 'curves.png'}\n")
    table = (output / "table.md").read_text()
    assert "| training.optimizer.lr | 0.1 | 0.1 | 0.3 |\n" in table and "| slow/0 and 1 more seed |" in table
    told = json.loads((output / "comparison.json").read_text())
    assert [each["name"] for each in told["runs"]] == ["slow/0", "slow/1", "fast/0"]
    assert told["groups"][0]["runs"] == ["slow/0", "slow/1"]
    assert told["differences"]["training.seed"] == {"slow/0": 0, "slow/1": 1, "fast/0": 0}
    with Image.open(output / "curves.png") as image:
        assert image.format == "PNG" and image.size[0] > 1000  # three panels beside each other


def test_options_change_the_picture_and_the_table(run, runs, tmp_path, monkeypatch):
    drawn = {}

    def keep(path, curves, *, title):
        drawn.update(curves=curves, title=title)
        Path(path).touch()

    monkeypatch.setattr("jaxvos.drawing.plot_curves", keep)
    run("runs", "compare", *runs, "-o", tmp_path / "plain")
    plain = drawn["curves"]
    assert list(plain) == ["loss", "eval/J", "eval/F", "clips_per_second"] and drawn["title"] == "3 runs"
    assert plain["loss"]["slow/1"][1] == (2, 10.0)
    run("runs", "compare", *runs, "-o", tmp_path / "smooth", "--smooth", 2)
    smooth = drawn["curves"]
    assert drawn["title"] == "3 runs, means over 2 entries" and smooth["eval/J"] == plain["eval/J"]
    assert smooth["loss"]["slow/1"][1] == (2, pytest.approx((30.0 + 10.0) / 2))
    out = run("runs", "compare", "-o", tmp_path / "few", *runs, "--metrics", "eval/J", "clips_per_second").out
    assert list(drawn["curves"]) == ["eval/J", "clips_per_second"] and "loss" not in out and "eval/F" not in out
    assert drawn["curves"]["eval/J"]["fast/0"] == [(40, 0.8)]


def test_again_with_overwrite(run, runs, tmp_path):
    output = tmp_path / "out"
    run("runs", "compare", *runs, "-o", output)
    (output / "notes.txt").write_text("mine")
    before = np.asarray(Image.open(output / "curves.png"))
    code, _, err = run("runs", "compare", *runs, "-o", output)
    assert code == 2 and "is not empty: choose another folder or add --overwrite" in err
    assert run("runs", "compare", runs[0], "-o", output, "--overwrite", "--metrics", "loss").code == 0
    assert np.asarray(Image.open(output / "curves.png")).shape != before.shape
    assert len(json.loads((output / "comparison.json").read_text())["runs"]) == 1
    assert (output / "notes.txt").read_text() == "mine"


def test_help(run):
    code, out, _ = run("runs", "compare", "--help")
    assert code == 0 and "STR" not in out and "--no-" not in out and "(default: )" not in out
    assert all(word in out for word in ("RUN...", "-o FOLDER", "--smooth ENTRIES", "--metrics NAME...", "--overwrite"))


def test_bad_input(run, runs, tmp_path, snapshot):
    out = ["-o", tmp_path / "out"]
    (tmp_path / "empty").mkdir()
    (runs[0] / "curves.png").write_text("of the run")
    before = snapshot()
    for words, message in (
        ([*out], "no run is given: name the folders"),
        ([runs[0]], "missing from jaxvos runs compare: -o FOLDER"),
        ([tmp_path / "none", *out], "there is no folder"),
        ([tmp_path / "empty", *out], "is not the folder of a run"),
        ([tmp_path / "sweep" / "slow", *out], "is not a run, but holds some (0, 1)"),
        ([runs[0], runs[0], *out], "is given twice"),
        ([*runs, *out, "--metrics", "J"], "no run has logged 'J'; there are: loss, eval/J, eval/F, clips_per_second"),
        ([*runs, *out, "--smooth", "0"], "means over 0 entries: give a number from 1 on"),
        ([*runs, *out, "--smooth", "x"], "--smooth: invalid literal"),
        ([*runs, "-o", runs[1] / "out"], "is or lies in"),
        ([*runs, "-o", runs[0], "--overwrite"], "would be replaced, but is not of an earlier run"),
        ([*runs, "-o", runs[1], "--overwrite"], "is or lies in"),
    ):
        code, printed, err = run("runs", "compare", *words)
        assert code == 2 and printed == "" and message in err and err.count("\n") == 1, err
        assert snapshot() == before
