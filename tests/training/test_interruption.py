"""What is left of a run that was killed, asked to stop, or moved to other devices."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_system import clips, config, tiny

from jaxvos.training import fit, load_variables, read_log

SCRIPT = Path(__file__).with_name("tiny_system.py")
STEPS = 40
EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, fit(tiny(), clips, config(num_steps=STEPS), workdir=workdir, progress=False)


def _start(workdir, *arguments, **environment):
    command = [sys.executable, str(SCRIPT), str(workdir), *map(str, arguments)]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _wait_for_step(process, workdir, step):
    log = workdir / "log.jsonl"
    for _ in range(1200):
        if log.exists() and len(log.read_text().splitlines()) >= step:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError("the run makes no progress")


def _assert_whole(workdir, whole):
    state = fit(tiny(), clips, config(num_steps=STEPS), workdir=workdir, progress=False)
    ours, theirs = (jax.tree.leaves(run._replace(key=jax.random.key_data(run.key))) for run in (state, whole[1]))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert read_log(workdir)["loss"] == read_log(whole[0])["loss"]


def test_a_killed_run_goes_on_bit_for_bit(tmp_path, whole):
    process = _start(tmp_path, STEPS, 3, 0.05)
    _wait_for_step(process, tmp_path, 8)
    process.kill()
    process.communicate()
    steps = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    assert steps and max(steps) < STEPS
    _assert_whole(tmp_path, whole)


def test_sigterm_saves_and_exits(tmp_path, whole):
    process = _start(tmp_path, STEPS, 1000, 0.05)
    _wait_for_step(process, tmp_path, 4)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    step = read_log(tmp_path)["loss"][-1][0]
    assert process.returncode == 143 and f"after step {step}; saving it" in out
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [str(step)] and step < STEPS
    _assert_whole(tmp_path, whole)


def test_eight_devices_are_one(tmp_path):
    process = _start(tmp_path, 5, 5, **EIGHT)
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
