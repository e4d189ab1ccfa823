"""Runs of the tiny system in processes of their own, to be stopped in the middle, and what must come of them."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tiny_system import clips, config, tiny

from jaxvos.training import TrainState, fit, load_variables, read_log

SCRIPT = Path(__file__).with_name("tiny_system.py")


class Run(NamedTuple):
    """A run that nothing interrupted."""

    workdir: Path
    state: TrainState


def run_whole(workdir, steps) -> Run:
    """Trains without an interruption, in this process; on a folder that holds a part of a run, the rest of it."""
    return Run(workdir, fit(tiny(), clips, config(num_steps=steps), workdir=workdir, progress=False))


def start(workdir, *arguments, **environment):
    """Starts the script of the tiny system; it prints at once."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(workdir), *map(str, arguments)],
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(process, condition):
    """Waits until it holds, of a process that goes on meanwhile."""
    for _ in range(60_000):
        if condition():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.001)
    raise AssertionError("the run makes no progress")


def logged(workdir):
    """The number of lines in the log."""
    log = workdir / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def wait_for_step(process, workdir, step):
    wait_until(process, lambda: logged(workdir) >= step)


def checkpoints(workdir):
    """The steps of the checkpoints that show."""
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


def half_saved(workdir):
    """The steps that are being saved, or were when the process died."""
    return [int(path.name.split(".")[0]) for path in (workdir / "checkpoints").glob("[0-9]*.orbax-checkpoint-tmp")]


def freeze_in_save(process, workdir, other_than=()):
    """Stops (SIGSTOP) the process in the middle of a save of a step that is not one of `other_than`; gives the step."""
    while True:
        wait_until(process, lambda: set(half_saved(workdir)) - set(other_than))
        process.send_signal(signal.SIGSTOP)
        what = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert what is not None and what.si_code == os.CLD_STOPPED, process.communicate()[1]
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        steps = set(half_saved(workdir)) - set(other_than)
        if steps:
            return steps.pop()
        process.send_signal(signal.SIGCONT)


def assert_ends_as(workdir, whole):
    """Goes on with the run in this process, and compares all that it leaves with an uninterrupted one."""
    steps = int(whole.state.step)
    state = run_whole(workdir, steps).state
    ours, theirs = (jax.tree.leaves(s._replace(key=jax.random.key_data(s.key))) for s in (state, whole.state))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    saved, _ = load_variables(workdir)
    jax.tree.map(np.testing.assert_array_equal, saved, dict(whole.state.variables))
    assert [step for step, _ in read_log(workdir)["loss"]] == list(range(1, steps + 1))
    for name in ("loss", "grad_norm", "half"):
        assert read_log(workdir)[name] == read_log(whole.workdir)[name]


def names(workdir):
    """The paths of all files and folders, of those with a random name the rest."""
    return {re.sub("[0-9a-f]{32}", "*", str(path.relative_to(workdir))) for path in workdir.rglob("*")}
