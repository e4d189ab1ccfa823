"""A run that is killed again and again, in training and in the middle of a save, ends as one that never was."""

import time

import numpy as np
import pytest
from tiny_runs import (
    assert_ends_as,
    checkpoints,
    freeze_in_save,
    half_saved,
    logged,
    names,
    run_whole,
    start,
    wait_until,
)

EVERY = 2  # steps to a checkpoint; as in `run_whole`


def _kill(workdir, steps, when, rng):
    """Goes on with the run, kills it with SIGKILL, and checks what is left; returns whether that was in a save."""
    before, latest = _inode(workdir), max(checkpoints(workdir), default=0)
    process = start(workdir, steps, EVERY, 0.02)
    if when == "anywhere":
        time.sleep(rng.uniform(0, 5))
    else:
        wait_until(process, lambda: _inode(workdir) != before)  # each run writes the log anew, up to where it starts
        wait_until(process, lambda: logged(workdir) >= latest + rng.integers(1, 6))
    if when == "saving":
        freeze_in_save(process, workdir)
    elif when == "training":
        time.sleep(rng.uniform(0, 0.1))
    process.kill()
    out, err = process.communicate()
    assert process.returncode == -9, f"the run was over before it was killed: {err}"
    if when != "anywhere":
        assert (f"going on from step {latest} of" in out) == (latest > 0)
    # only the save that was going on is lost: the one before was over when that began, after a step since logged
    begun = (logged(workdir) - 1) // EVERY * EVERY
    assert max(checkpoints(workdir), default=0) >= max(latest, begun - EVERY)
    return bool(half_saved(workdir))


def _inode(workdir):
    log = workdir / "log.jsonl"
    return log.stat().st_ino if log.exists() else None


def _assert_survives(tmp_path, seed, steps, **kills):
    whole = run_whole(tmp_path / "whole", steps)
    rng = np.random.default_rng(seed)
    moments = rng.permutation([when for when, number in kills.items() for _ in range(number)])
    in_save = sum(_kill(tmp_path / "killed", steps, when, rng) for when in moments)
    assert in_save >= kills["saving"]
    assert_ends_as(tmp_path / "killed", whole)
    assert names(tmp_path / "killed") == names(tmp_path / "whole")


def test_two_kills(tmp_path):
    _assert_survives(tmp_path, seed=0, steps=30, training=1, saving=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_kills(tmp_path, seed):
    _assert_survives(tmp_path, seed, steps=240, training=9, saving=8, anywhere=3)
