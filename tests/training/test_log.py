import json
import resource
import sys
import types

import pytest

from jaxvos.errors import InputError
from jaxvos.training import read_log
from jaxvos.training._writer import LogWriter


def _write(workdir, steps, start=0):
    writer = LogWriter(workdir, start)
    for step in steps:
        writer.write(step, {"loss": 1 / step})
    writer.close()


def test_lines_beyond_the_resumed_step_are_dropped(tmp_path):
    _write(tmp_path, range(1, 8))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # the machine went off here
    _write(tmp_path, [5, 6], start=4)
    assert [step for step, _ in read_log(tmp_path)["loss"]] == [1, 2, 3, 4, 5, 6]


def test_a_new_run_starts_a_new_log(tmp_path):
    _write(tmp_path, [1, 2, 3])
    _write(tmp_path, [1])
    assert read_log(tmp_path) == {"loss": [(1, 1.0)]}


def test_what_is_not_finite_is_null(tmp_path):
    writer = LogWriter(tmp_path)
    writer.write(1, {"a": float("nan"), "b": 2})
    writer.close()
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 1, "a": None, "b": 2.0}
    assert read_log(tmp_path) == {"b": [(1, 2.0)]}


def test_what_a_killed_run_left_of_a_new_log_is_removed(tmp_path):
    for name in (".log.123-0123abcd.jsonl", ".config.123-0123abcd.json", "log.jsonl"):
        (tmp_path / name).write_text('{"step": 1, "loss": 1.0}\n')
    _write(tmp_path, [2], start=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".config.123-0123abcd.json", "log.jsonl"]
    assert read_log(tmp_path) == {"loss": [(1, 1.0), (2, 0.5)]}


def test_a_line_that_the_system_refuses_is_named(tmp_path):
    writer = LogWriter(tmp_path)
    writer.write(1, {"loss": 1.0})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
    try:
        for write in (lambda: writer.write(2, {"loss": 0.5}), writer.close):
            with pytest.raises(InputError, match="cannot write .*log.jsonl: File too large; make room there"):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "log.jsonl").stat().st_size == 40
    assert read_log(tmp_path) == {"loss": [(1, 1.0)]}


def test_no_log_is_named(tmp_path):
    with pytest.raises(InputError, match="log.jsonl does not exist"):
        read_log(tmp_path)


@pytest.mark.parametrize("line", ["{", "[1]", '{"loss": 1.0}', '{"step": 2, "loss": "low"}'])
def test_a_line_that_is_no_entry_is_named(tmp_path, line):
    _write(tmp_path, [1])
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write(f"{line}\n")
    for read in (lambda: read_log(tmp_path), lambda: LogWriter(tmp_path, 1)):
        with pytest.raises(InputError, match="log.jsonl, line 2"):
            read()


def test_tensorboard_where_installed(tmp_path, monkeypatch):
    seen = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            seen.append((folder, purge_step))

        def add_scalar(self, *entry):
            seen.append(entry)

        def close(self):
            seen.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    _write(tmp_path, [4], start=3)
    assert seen == [(str(tmp_path / "tensorboard"), 4), ("loss", 0.25, 4), "closed"]
