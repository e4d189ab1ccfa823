"""The program itself: usage, versions, unknown words, and that it runs as a process."""

import subprocess
import sys

import pytest

PROGRAM = [sys.executable, "-c", "from jaxvos.cli import main; main()"]


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"]])
def test_usage_names_every_command(run, args):
    code, out, err = run(*args)
    assert code == 0 and err == "" and out.startswith("usage: jaxvos COMMAND")
    commands = ("segment", "proposals", "flow", "export", "models", "runs", "evaluate", "submit", "datasets", "demo")
    assert all(f"\n  {command} " in out for command in commands)


def test_version(run):
    assert run("--version").out.startswith("jaxvos 0.1.0, jax ")


@pytest.mark.parametrize(
    ("command", "names"),
    [("proposals", ["INPUT", "-o FILE.npz|FILE.json, --output FILE.npz|FILE.json", "--model", "--detections"]),
     ("flow", ["INPUT", "-o FOLDER, --output FOLDER", "--model dis|MODEL|FOLDER", "--format {flo,png,pfm}",
               "--radius PIXELS", "--last-frame", "--overwrite"]),
     ("segment", ["INPUT", "-o FOLDER, --output FOLDER", "--model", "--first-mask", "--online", "--flow", "--threshold",
                  "--last-frame"]),
     ("evaluate", ["PREDICTIONS GROUND-TRUTH", "--protocol", "--all-frames", "-o FILE.json", "--report FOLDER",
                   "\n  youtube-vos\n", "mIoU-dagger"]),
     ("submit", ["RESULTS", "--to davis17|youtube-vos", "-o FILE.zip", "--against", "--check-only"]),
     ("runs", ["compare", "runs COMMAND"]),
     ("demo", ["-o FOLDER", "--out FOLDER", "--seed INT", "--overwrite"])],
)  # fmt: skip
def test_help_of_a_command(run, command, names):
    code, out, _ = run(command, "--help")
    assert code == 0 and all(name in out for name in names)
    assert "STR" not in out and "{None}" not in out
    assert "--no-" not in out.replace("--no-stability", "").replace("--no-online", "")


@pytest.mark.parametrize(
    ("args", "message"),
    [(["segmnt"], "there is no command 'segmnt'; did you mean 'segment'? the commands are: segment, proposals"),
     (["xyz"], "there is no command 'xyz'; the commands are"),
     (["--nonsense"], "there is no command '--nonsense'"),
     (["segment"], "missing from jaxvos segment: INPUT -o FOLDER"),
     (["segment", "in.mp4"], "missing from jaxvos segment: -o FOLDER"),
     (["segment", "in.mp4", "more.mp4", "-o", "out"], "unrecognized options: more.mp4"),
     (["segment", "in.mp4", "-o", "out", "--modell", "x"], "did you mean --model?"),
     (["segment", "in.mp4", "-o", "out", "--threshold", "half"], "--threshold: could not convert"),
     (["segment", "in.mp4", "-o", "out", "--last-frame", "x"], "invalid choice 'x' for argument '--last-frame'"),
     (["evaluate", "a"], "missing from jaxvos evaluate: GROUND-TRUTH"),
     (["evaluate", "a", "b", "--protocol", "davis18"], "invalid choice 'davis18' for argument '--protocol'"),
     (["evaluate", "a", "b", "--stability", "--no-stability"], "exclude each other"),
     (["evaluate", "a", "b", "--workers", "0"], "0 workers"),
     (["submit", "a"], "missing from jaxvos submit: --to"),
     (["datasets", "prepar"], "there is no command 'prepar'; did you mean 'prepare'?"),
     (["datasets", "prepare", "davis16"], "missing from jaxvos datasets prepare: --from"),
     (["datasets", "prepare", "davis", "--from", "x"], "there is no data set 'davis'; there are: davis16"),
     (["demo", "--seed", "x"], "--seed: invalid literal"),
     (["demo", "--seed", "-1", "--out", "out"], "seed -1: give a number from 0 on")],
)  # fmt: skip
def test_wrong_words_are_one_line_and_code_2(run, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*args)
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert not list(tmp_path.iterdir())


def test_as_a_process(tmp_path):
    command = [*PROGRAM, "segment", tmp_path / "none.mp4", "-o", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    expected = f"error: there is no video or folder {tmp_path / 'none.mp4'}: check the path\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
