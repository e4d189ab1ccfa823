"""Two processes on this machine: they stop together, and none waits for one that is gone."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_system import clips, config, tiny

from jaxvos.training import fit

FOLDER = Path(__file__).parent
TIMEOUT = 10  # seconds
CODE = """if True:
    import sys
    from jaxvos.errors import exit_on_input_error
    from jaxvos.training import HostsConfig
    from jaxvos.training._hosts import connect
    workdir, port, index, timeout, steps = sys.argv[1:]
    with exit_on_input_error():
        connect(HostsConfig(coordinator=f"localhost:{port}", num_processes=2, process_id=int(index),
                            timeout=int(timeout)))
        from tiny_system import *
        import jax
        from jaxvos.data import gather, rows_of, share_of
        def data(start):
            rows = rows_of(8)
            for clip in clips(start, seconds=0.05):
                yield jax.tree.map(lambda x: x[rows.start : rows.stop], clip)
        print(share_of(range(5)), gather(("a" * int(index), share_of(range(5)))), flush=True)
        fit(tiny(), data, config(num_steps=int(steps), checkpoint_every=100), workdir=workdir, progress=False)
"""


def _start(workdir, *, steps=10_000, timeout=TIMEOUT, only=(0, 1)):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    return [subprocess.Popen([sys.executable, "-c", CODE, *map(str, (workdir, port, index, timeout, steps))],
                             cwd=FOLDER, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for index in only]  # fmt: skip


def _running(workdir, steps=5, **options):
    """Both, once some steps are logged."""
    processes, log = _start(workdir, **options), workdir / "log.jsonl"
    for _ in range(1200):
        if log.exists() and len(log.read_text().splitlines()) >= steps:
            return processes
        for process in processes:
            assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError("no progress")


def test_a_signal_to_one_stops_both_after_the_same_step(tmp_path):
    first, second = _running(tmp_path)
    second.send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [143, 143]
    assert "[0, 2, 4] [('', [0, 2, 4]), ('a', [1, 3])]" in said[0].splitlines()
    assert "[1, 3] [('', [0, 2, 4]), ('a', [1, 3])]" in said[1].splitlines()
    (saved,) = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
    # two processes go on, and end as one does that was never stopped
    processes = _start(tmp_path, steps=saved + 4)
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    state = fit(tiny(), clips, config(num_steps=saved + 4), workdir=tmp_path, progress=False)
    alone = fit(tiny(), clips, config(num_steps=saved + 4), progress=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.variables, alone.variables)


@pytest.mark.parametrize("killed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_who_loses_a_process_ends(tmp_path, killed):
    processes = _running(tmp_path)
    processes[killed].kill()
    began, other = time.monotonic(), processes[1 - killed]
    _, error = other.communicate(timeout=60)
    assert time.monotonic() - began < TIMEOUT + 5 and other.returncode not in (0, None)
    told = "another one has ended" in error and other.returncode == 75
    assert told or "This most likely indicates that another task died" in error  # whichever notices first
    processes[killed].communicate()


@pytest.mark.slow
def test_who_waits_for_a_process_that_does_nothing_ends(tmp_path):
    first, second = _running(tmp_path)
    second.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    _, error = first.communicate(timeout=120)
    assert time.monotonic() - began < 2 * TIMEOUT + 5 and first.returncode not in (0, None)
    assert "This most likely indicates that another task died" in error
    second.kill()
    second.communicate()


@pytest.mark.parametrize("only", [0, 1])
def test_one_that_stays_alone_says_so(tmp_path, only):
    (process,) = _start(tmp_path / "run", timeout=2, only=(only,))
    out, error = process.communicate(timeout=60)
    assert process.returncode not in (0, None) and out == "" and not (tmp_path / "run").exists()
    first, *_, last = [line for line in error.splitlines() if not line.startswith(("    @", "***")) and line]
    assert first.startswith(f"process {only} of 2: waiting up to 2 s for the others at localhost:"), error
    assert "DEADLINE_EXCEEDED" in error, last


def test_where_there_is_no_cluster_it_is_not_found():
    code = """if True:
        from jaxvos.errors import exit_on_input_error
        from jaxvos.training import HostsConfig
        from jaxvos.training._hosts import connect
        with exit_on_input_error():
            connect(HostsConfig(detect=True, timeout=2))
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == ("error: hosts.detect finds no cluster that JAX knows: give hosts.coordinator, "
                             "hosts.num_processes and hosts.process_id\n")  # fmt: skip
