import dataclasses
import json

import jax
import pytest

from jaxvos.errors import InputError
from jaxvos.training import ExperimentConfig, TrainingConfig, evolve, launch, parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ExperimentConfig):
    """An experiment."""

    width: int = 4
    """How wide."""
    modes: tuple[str, ...] = ("a",)
    """Which."""


BASE = Config()
PRESETS = {"base": ("the base", BASE), "debug": ("two steps", evolve(BASE, training={"num_steps": 2}))}


def _launch(*args, main=None):
    seen = []

    def remember(config):
        seen.append(config)

    launch(PRESETS, main or remember, args=args)
    return seen[0] if seen else None


def _refused(capsys, *args, main=None):
    with pytest.raises(SystemExit) as stop:
        _launch(*args, main=main)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_a_preset_and_its_options():
    config = _launch(
        "debug", "--training.optimizer.lr", "3e-4", "--training.optimizer.groups", "encoder", "1e-4", "decoder", "1e-3",
        "--training.optimizer.frozen", "flow", "--width", "6",
    )  # fmt: skip
    assert config.training.num_steps == 2 and config.width == 6 and config.workdir is None
    assert config.training.optimizer.groups == (("encoder", 1e-4), ("decoder", 1e-3))
    assert config.training.optimizer.lr == 3e-4 and config.training.optimizer.frozen == ("flow",)


def _hosts(coordinator, count, index):
    options = {"coordinator": coordinator, "num-processes": count, "process-id": index}
    return [word for name, value in options.items() for word in (f"--hosts.{name}", str(value))]


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "the first argument must be a preset: base, debug"),
        (["--width", "3"], "the first argument must be a preset: base, debug"),
        (["bas"], "there is no preset 'bas'; did you mean 'base'? the presets are: base, debug"),
        (["xyz"], "there is no preset 'xyz'; the presets are: base, debug"),
        (["base", "--training.num-stepz", "3"], "did you mean --training.num-steps?"),
        (["base", "--width", "x"], "--width: invalid literal"),
        (["base", "--training.optimizer.name", "foo"], "invalid choice 'foo'"),
        (["base", "--training.optimizer.lr", "-1"], "lr must be positive, not -1"),
        (["base", "--training.num-steps", "0"], "num_steps must be at least 1"),
        (["base", "--training.ema", "1"], "ema must lie between 0 and 1, not 1"),
        (["base", "--training.accumulate", "0"], "accumulate must be at least 1, not 0"),
        (["base", "--training.parallel.model", "0"], "parallel.model must be at least 1, not 0"),
        (["base", "--training.profile", "3", "2"], "profile must be a first and a last step, from 1 on, not (3, 2)"),
        (["base", "--hosts.coordinator", "here:1"], "hosts wants coordinator, num_processes and process_id, or none"),
        (["base", *_hosts("here:1", 2, 2)], "hosts.process_id 2 is none of 2: count from 0"),
        (["base", *_hosts("here", 2, 0)], "hosts.coordinator 'here' is no HOST:PORT"),
        (["base", "--hosts.detect", *_hosts("here:1", 2, 0)], "hosts.detect finds what is told beside it"),
        (["base", "--hosts.timeout", "0"], "hosts.timeout must be at least 1 second"),
    ],
)
def test_wrong_input_is_one_line_and_code_2(capsys, tmp_path, args, message):
    assert message in _refused(capsys, *args, *(["--workdir", str(tmp_path / "run")] if args else []))
    assert not (tmp_path / "run").exists()


def test_help_lists_presets_and_fields(capsys):
    _launch("--help")
    assert "two steps" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        _launch("base", "--help")
    assert not stop.value.code and "--training.optimizer.lr" in capsys.readouterr().out


def test_the_resolved_configuration_is_written(tmp_path):
    _launch("debug", "--workdir", str(tmp_path / "run"), "--width", "5")
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["config"]["width"] == 5 and written["config"]["training"]["num_steps"] == 2
    assert {"commit", "versions", "device"} < set(written)


def test_a_folder_holds_one_configuration(tmp_path, capsys):
    folder = ["--workdir", str(tmp_path / "run")]
    _launch("base", *folder)
    _launch("base", *folder, "--training.num-steps", "5", "--training.log-every", "1")
    error = _refused(capsys, "base", *folder, "--training.optimizer.lr", "3e-4")
    assert "training.optimizer.lr is 0.001 there and 0.0003 here" in error
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["training"]["num_steps"] == 5


def test_compiled_programs_are_kept(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    try:
        _launch("base", "--compile-cache", str(tmp_path / "cache"))
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_the_layout_of_a_run_may_change(tmp_path, capsys):
    folder = ["--workdir", str(tmp_path / "run")]
    _launch("base", *folder)
    _launch("base", *folder, "--training.parallel.split-optimizer", "--training.remat", "x", "--hosts.timeout", "9")
    assert "training.ema is None there" in _refused(capsys, "base", *folder, "--training.ema", "0.9")


def test_an_experiment_that_refuses_its_input_leaves_nothing(tmp_path, capsys):
    def main(config):
        assert (config.workdir / "config.json").exists()
        raise InputError("no such data set")

    assert _refused(capsys, "base", "--workdir", str(tmp_path / "a" / "b"), main=main) == "error: no such data set\n"
    assert not list(tmp_path.iterdir())


def test_a_workdir_that_is_a_file_is_named(tmp_path, capsys):
    (tmp_path / "run").write_text("")
    assert "cannot write" in _refused(capsys, "base", "--workdir", str(tmp_path / "run"))


def test_other_errors_are_not_hidden(tmp_path):
    def main(config):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _launch("base", main=main)


def test_evolve_reaches_nested_fields():
    changed = evolve(BASE, width=7, training={"optimizer": {"lr": 0.5}})
    assert changed.width == 7 and changed.training.optimizer.lr == 0.5 and BASE.training.optimizer.lr == 1e-3
    assert evolve(BASE, training=TrainingConfig(seed=3)).training.seed == 3


def test_parse_makes_any_dataclass():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Command:
        """Do it."""

        count: int
        """How often."""

    assert parse(Command, ["--count", "3"], prog="do") == Command(count=3)
    with pytest.raises(InputError, match="^missing from do: --count INT$"):
        parse(Command, [], prog="do")
