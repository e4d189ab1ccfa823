"""A run that the disk has no room for ends with one line, and goes on from its last whole checkpoint when there is."""

import os
import resource
import signal
import subprocess

import pytest
from tiny_runs import assert_ends_as, checkpoints, freeze_in_save, names, run_whole, start, wait_for_step

STEPS = 30


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run_whole(tmp_path_factory.mktemp("whole"), STEPS)


@pytest.fixture
def small_disk(tmp_path):
    """A folder that is a file system of 1 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _limit_files(process, size):
    """No file of the process may grow beyond `size` bytes; Python has the signal of that ignored."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _fill(disk):
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize))


def _assert_one_line(process, message):
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: {message}; make room there or put it right, then start again to go on from the last "
                      "whole checkpoint"], err  # fmt: skip
    assert "File too large [os_error_code" not in err and "jaxvos/" not in err, err  # no traceback of it


def _assert_goes_on(workdir, whole, disk=None):
    saved = checkpoints(workdir)
    assert saved and saved[-1] < STEPS
    if disk is not None:
        (disk / "filler").unlink()
    assert_ends_as(workdir, whole)
    assert names(workdir) == names(whole.workdir)


def test_a_full_disk_during_a_save(small_disk, whole):
    workdir = small_disk / "run"
    process = start(workdir, STEPS, 2, 0.05)
    freeze_in_save(process, workdir, other_than=[2])
    _fill(small_disk)
    process.send_signal(signal.SIGCONT)
    _assert_one_line(process, f"cannot save a checkpoint in {workdir / 'checkpoints'}: No space left on device")
    _assert_goes_on(workdir, whole, small_disk)


def test_a_limit_met_during_a_save(tmp_path, whole):
    process = start(tmp_path, STEPS, 2, 0.05)
    freeze_in_save(process, tmp_path, other_than=[2])
    _limit_files(process, 3500)  # the log is shorter by then, and the list of the optimizer's arrays longer
    process.send_signal(signal.SIGCONT)
    _assert_one_line(process, f"cannot save a checkpoint in {tmp_path / 'checkpoints'}: File too large")
    _assert_goes_on(tmp_path, whole)


@pytest.mark.slow
def test_a_limit_met_by_the_log(tmp_path, whole):
    process = start(tmp_path, STEPS, 1000, 0.05)
    wait_for_step(process, tmp_path, 4)
    _limit_files(process, 1000)
    _assert_one_line(process, f"cannot write {tmp_path / 'log.jsonl'}: File too large")
    assert (tmp_path / "log.jsonl").stat().st_size == 1000 and checkpoints(tmp_path) == []
    assert_ends_as(tmp_path, whole)


@pytest.mark.slow
def test_a_disk_that_is_full_from_the_start(small_disk):
    _fill(small_disk)
    process = start(small_disk / "run", STEPS, 2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "error: cannot " in err and "No space left on device" in err.splitlines()[-1]
