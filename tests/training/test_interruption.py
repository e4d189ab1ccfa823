"""What is left of a run that was killed, asked to stop, or moved to other devices."""

import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny_runs import SCRIPT, assert_ends_as, checkpoints, freeze_in_save, run_whole, start, wait_for_step
from tiny_system import clips, config, tiny

from jaxvos.training import fit, load_variables, read_log
from jaxvos.training._checkpoint import Checkpoints

STEPS = 40
EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run_whole(tmp_path_factory.mktemp("whole"), STEPS)


def _assert_stopped(process, workdir, out, whole):
    """By SIGTERM, with its last step saved and nothing half-saved, and it goes on from there to the same end."""
    step = read_log(workdir)["loss"][-1][0]
    assert process.returncode == 143 and f"after step {step}; saving it" in out and step < STEPS
    left = [path.name for path in (workdir / "checkpoints").iterdir()]
    assert str(step) in left and all(name.isdigit() for name in left)
    assert_ends_as(workdir, whole)


def test_sigterm_saves_and_exits(tmp_path, whole):
    process = start(tmp_path, STEPS, 1000, 0.05)
    wait_for_step(process, tmp_path, 4)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert len(checkpoints(tmp_path)) == 1
    _assert_stopped(process, tmp_path, out, whole)


def test_sigterm_during_a_save_and_again_during_the_last_one(tmp_path, whole):
    process = start(tmp_path, STEPS, 2, 0.05)
    first = freeze_in_save(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    last = freeze_in_save(process, tmp_path, other_than=[first])
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert checkpoints(tmp_path) == [first, last], err
    _assert_stopped(process, tmp_path, out, whole)


def test_eight_devices_are_one(tmp_path):
    process = start(tmp_path, 5, 5, **EIGHT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    eight, metadata = load_variables(tmp_path)
    assert metadata["device"].startswith("8 x")
    one = fit(tiny(), clips, config(num_steps=5), progress=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), eight, dict(one.variables))
    # a run may go on with another number of devices
    more = fit(tiny(), clips, config(num_steps=6), workdir=tmp_path, progress=False)
    assert int(more.step) == 6


def test_a_batch_that_does_not_split_is_refused():
    code = """if True:
        from tiny_system import *
        try:
            fit(tiny(), lambda start: clips(start, batch=12), config(), progress=False)
        except ValueError as error:
            print(type(error).__name__, error)
    """
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPT.parent, env={**os.environ, **EIGHT}, capture_output=True, text=True
    )
    message = "InputError a batch of 12 clips does not split over 8 devices; use a multiple of 8"
    assert result.stdout.strip() == message, result.stderr


def test_signals_are_as_before_afterwards(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    fit(tiny(), clips, config(num_steps=1), workdir=tmp_path, progress=False)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_signal_while_the_last_save_ends_is_not_died_of(tmp_path, monkeypatch):
    died, signalled = [], []
    close = Checkpoints.close

    def signal_and_close(self):
        if not signalled:
            signalled.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        close(self)

    monkeypatch.setattr(Checkpoints, "close", signal_and_close)
    before = signal.signal(signal.SIGTERM, lambda number, frame: died.append(number))
    try:
        with pytest.raises(SystemExit) as stop:
            fit(tiny(), clips, config(num_steps=3), workdir=tmp_path, progress=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stop.value.code == 143 and not died
    assert checkpoints(tmp_path) == [2, 3]


def test_sigint_in_process_saves(tmp_path):
    def interrupted(start):
        for step, clip in enumerate(clips(start), start):
            if step == 5:
                os.kill(os.getpid(), signal.SIGINT)
            yield clip

    with pytest.raises(SystemExit) as stop:
        fit(tiny(), interrupted, config(num_steps=10**5, log_every=10**5), workdir=tmp_path, progress=False)
    assert stop.value.code == 130
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert (tmp_path / "checkpoints" / str(last["step"])).is_dir()
