"""What is not a whole checkpoint is passed over; what only looks like one is named. No other state comes of it."""

import gc
import shutil

import jax
import numpy as np
import pytest
from tiny_runs import assert_ends_as, checkpoints, run_whole
from tiny_system import clips, config, tiny

from jaxvos.errors import InputError
from jaxvos.training import fit, load_variables
from jaxvos.training._checkpoint import Checkpoints

STEPS = 6
DAMAGED = "6 is damaged: .*; delete that folder to go on from the checkpoint before it$"

# where one read fails, Orbax drops the others half-way
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def dropped_reads():
    yield
    gc.collect()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run_whole(tmp_path_factory.mktemp("whole"), STEPS)


@pytest.fixture
def copy(whole, tmp_path):
    """That run, with checkpoints of the steps 4 and 6."""
    shutil.copytree(whole.workdir, tmp_path / "copy")
    return tmp_path / "copy"


def _largest_data_file(folder):
    return max((path for path in folder.glob("d/*")), key=lambda path: path.stat().st_size)


def _assert_goes_on_from_4(copy, whole, capsys):
    state = fit(tiny(), clips, config(num_steps=STEPS), workdir=copy)
    assert "going on from step 4 of" in capsys.readouterr().out and int(state.step) == STEPS
    assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == ["4", "6"]
    assert_ends_as(copy, whole)


@pytest.mark.parametrize("name", ["6.orbax-checkpoint-tmp", "old.orbax-checkpoint-tmp"])
def test_an_unfinished_folder_is_passed_over_and_removed(copy, whole, capsys, name):
    (copy / "checkpoints" / "6").rename(copy / "checkpoints" / name)
    assert load_variables(copy)[1] == load_variables(copy / "checkpoints" / "4")[1]
    _assert_goes_on_from_4(copy, whole, capsys)


@pytest.mark.parametrize(
    "parts",
    [
        ("_CHECKPOINT_METADATA", "commit_success.txt"),
        ("metadata/metadata",),
        ("variables/_METADATA",),
        ("variables/manifest.ocdbt",),
        ("trainer/_METADATA",),
        ("trainer/manifest.ocdbt",),
        ("trainer",),
        ("variables", "trainer", "metadata", "_CHECKPOINT_METADATA", "commit_success.txt"),
    ],
    ids=" ".join,
)
def test_a_checkpoint_that_lacks_a_part_is_passed_over(copy, whole, capsys, parts):
    for part in parts:
        path = copy / "checkpoints" / "6" / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    four, _ = load_variables(copy / "checkpoints" / "4")
    jax.tree.map(np.testing.assert_array_equal, load_variables(copy)[0], four)
    _assert_goes_on_from_4(copy, whole, capsys)


@pytest.mark.parametrize("item", ["variables", "trainer"])
def test_a_data_file_that_is_cut_off_is_named(copy, whole, capsys, item):
    path = _largest_data_file(copy / "checkpoints" / "6" / item)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=DAMAGED) as error:
        fit(tiny(), clips, config(num_steps=STEPS), workdir=copy, progress=False)
    assert str(copy / "checkpoints" / "6") in str(error.value) and "\n" not in str(error.value)
    if item == "variables":
        with pytest.raises(InputError, match=DAMAGED):
            load_variables(copy)
    assert checkpoints(copy) == [4, 6]  # nothing is deleted but by the user
    shutil.rmtree(copy / "checkpoints" / "6")
    _assert_goes_on_from_4(copy, whole, capsys)


def test_a_file_that_the_system_refuses_is_not_called_damaged(copy):
    path = _largest_data_file(copy / "checkpoints" / "6" / "variables")
    path.unlink()
    path.symlink_to(path)
    refused = "cannot read .*/6: Too many levels of symbolic links; put that right, then start again"
    with pytest.raises(InputError, match=refused):
        load_variables(copy)
    with pytest.raises(InputError, match=refused):
        fit(tiny(), clips, config(num_steps=STEPS), workdir=copy, progress=False)


@pytest.mark.slow
def test_no_file_cut_off_anywhere_gives_another_state(whole, tmp_path):
    abstract = jax.eval_shape(lambda: whole.state)
    shardings = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), abstract)
    good = whole.workdir / "checkpoints" / "6"
    named = passed_over = 0
    for number, path in enumerate(sorted(path for path in good.rglob("*") if path.is_file())):
        for keep in (0, path.stat().st_size // 2, path.stat().st_size - 1):
            folder = tmp_path / f"{number}-{keep}"
            shutil.copytree(good, folder / "6")
            (folder / "6" / path.relative_to(good)).write_bytes(path.read_bytes()[:keep])
            run = Checkpoints(folder)
            if run.latest_step() is None:
                passed_over += 1
                continue
            try:
                state = run.restore(6, abstract, shardings)
            except InputError:
                named += 1
            else:
                jax.tree.map(np.testing.assert_array_equal, state.variables, whole.state.variables)
                jax.tree.map(np.testing.assert_array_equal, state.opt_state, whole.state.opt_state)
            run.close()
    assert named >= 16 and passed_over == 6  # of the parts without which nothing can be read, the empty ones
