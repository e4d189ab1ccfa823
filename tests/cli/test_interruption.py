"""An interrupted command leaves no trace but one line."""

import os
import signal
import subprocess
import sys
import time

import pytest

from jaxvos.results import _segmentation

PROGRAM = [sys.executable, "-c", "from jaxvos.cli import main; main()"]


@pytest.mark.parametrize(("number", "code", "line"), [(signal.SIGINT, 130, "error: interrupted\n"),
                                                      (signal.SIGTERM, 143, "error: terminated\n")])  # fmt: skip
def test_signals_while_writing(run, folder, snapshot, tmp_path, tiny_model, monkeypatch, number, code, line):
    source, write = folder(), _segmentation.write_mask

    def stop_at_the_third(path, mask):
        write(path, mask)
        if path.stem == "00002":
            assert len(list(tmp_path.glob(".out.*.partial/masks/*"))) == 3
            os.kill(os.getpid(), number)

    monkeypatch.setattr(_segmentation, "write_mask", stop_at_the_third)
    before, handler = snapshot(), signal.getsignal(signal.SIGTERM)
    outcome = run("segment", source, "-o", tmp_path / "out", "--model", tiny_model)
    assert (outcome.code, outcome.err) == (code, line)
    assert snapshot() == before and signal.getsignal(signal.SIGTERM) is handler


def test_ctrl_c_of_a_process(video, tmp_path, tiny_model):
    source = video(count=400)
    before = set(tmp_path.iterdir())
    process = subprocess.Popen([*PROGRAM, "segment", source, "-o", tmp_path / "out", "--model", tiny_model],
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob(".out.*.partial/masks/*.png")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "error: interrupted\n")
    assert set(tmp_path.iterdir()) == before
