import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import assert_ends_as, checkpoints, names, run_whole
from tiny_system import clips, config, tiny

from jaxvos.errors import InputError
from jaxvos.training import fit, load_variables


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "7"
    return workdir, fit(tiny(), clips, config(), workdir=workdir, progress=False)


@pytest.mark.parametrize(
    "width, optimizer, message",
    [
        (6, {}, r"params/decoder/kernel is float32\[1, 1, 4, 2\] there and float32\[1, 1, 6, 2\] here"),
        (4, {"name": "sgd"}, "opt_state/.* is absent there and float32"),
        (4, {"frozen": ("norm",)}, "opt_state/.*norm.* there and absent here"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(run, width, optimizer, message):
    with pytest.raises(InputError, match="is of another configuration: .*" + message):
        fit(tiny(width), clips, config(optimizer=optimizer), workdir=run[0], progress=False)


def test_the_latest_are_kept_and_readable_from_any_of_three_folders(run):
    workdir, state = run
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["4", "6"]
    kernel = state.variables["params"]["encoder"]["kernel"]
    for folder in (workdir, workdir / "checkpoints", workdir / "checkpoints" / "6"):
        variables, metadata = load_variables(folder)
        np.testing.assert_array_equal(variables["params"]["encoder"]["kernel"], kernel)
        assert isinstance(variables["params"]["encoder"]["kernel"], np.ndarray)
    assert metadata["config"]["optimizer"]["lr"] == 1e-2 and set(metadata) == {"config", "commit", "versions", "device"}
    earlier, _ = load_variables(workdir / "checkpoints" / "4")
    assert np.any(earlier["params"]["encoder"]["kernel"] != kernel)


def test_the_best_is_still_known_after_a_new_start(tmp_path):
    options = {"checkpoint_every": 3, "eval_every": 2, "keep": 1, "best_metric": "j"}
    for steps in (6, 10):
        fit(tiny(), clips, config(num_steps=steps, **options), workdir=tmp_path, progress=False,
            evaluate=lambda variables, step: {"j": float(step == 2)})  # fmt: skip
        assert checkpoints(tmp_path) == [2, steps]


def test_a_kill_in_the_middle_of_a_deletion_leaves_whole_checkpoints(tmp_path, monkeypatch):
    def begin(folder, *args, **kwargs):
        next(Path(folder).rglob("_METADATA")).unlink()
        raise SystemExit("killed")

    whole = run_whole(tmp_path / "whole", 10)
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="killed"):
        patch.setattr(shutil, "rmtree", begin)
        run_whole(tmp_path / "killed", 10)
    left = checkpoints(tmp_path / "killed")
    parts = [names(tmp_path / "killed" / "checkpoints" / str(step)) for step in left]
    assert len(left) >= 2 and all(part == names(tmp_path / "whole" / "checkpoints" / "10") for part in parts)
    assert_ends_as(tmp_path / "killed", whole)
    assert names(tmp_path / "killed") == names(tmp_path / "whole")


def test_a_folder_without_checkpoints_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no checkpoint"):
        load_variables(tmp_path)
