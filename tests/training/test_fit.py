import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_system import clips, config, tiny

from jaxvos.errors import InputError
from jaxvos.system import LossOutput
from jaxvos.training import fit, load_variables, read_log, save_variables


def _assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, dict(a), dict(b))


def _losses(workdir):
    return read_log(workdir)["loss"]


def test_the_loss_falls(tmp_path):
    state = fit(
        tiny(), clips, config(num_steps=60, log_every=10, checkpoint_every=30), workdir=tmp_path, progress=False
    )
    steps, losses = zip(*_losses(tmp_path), strict=True)
    assert steps == (10, 20, 30, 40, 50, 60) and losses[-1] < 0.7 * losses[0]
    assert int(state.step) == 60
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())


def test_the_log_holds_means_since_the_line_before(tmp_path):
    fit(tiny(), clips, config(num_steps=4), workdir=tmp_path / "each", progress=False)
    fit(tiny(), clips, config(num_steps=4, log_every=4, checkpoint_every=9), workdir=tmp_path / "all", progress=False)
    each = [loss for _, loss in _losses(tmp_path / "each")]
    assert _losses(tmp_path / "all") == [(4, pytest.approx(np.mean(each), rel=1e-6))]
    log = read_log(tmp_path / "all")
    once = {"compile_seconds", "gigaflop", "temporary_megabyte"}
    assert set(log) == {"loss", "grad_norm", "half", "clips_per_second", *once}
    assert all(len(log[name]) == 1 and log[name][0][1] > 0 for name in once)


def test_resumed_is_uninterrupted_bit_for_bit(tmp_path, capsys):
    whole = fit(tiny(), clips, config(num_steps=7), workdir=tmp_path / "whole", progress=False)
    fit(tiny(), clips, config(num_steps=3), workdir=tmp_path / "parts", progress=False)
    parts = fit(tiny(), clips, config(num_steps=7), workdir=tmp_path / "parts")
    assert "going on from step 3" in capsys.readouterr().out
    _assert_same(whole.variables, parts.variables)
    _assert_same({"": whole.opt_state}, {"": parts.opt_state})
    assert _losses(tmp_path / "whole") == _losses(tmp_path / "parts")


def test_a_finished_run_is_given_back(tmp_path):
    first = fit(tiny(), clips, config(), workdir=tmp_path, progress=False)
    log = (tmp_path / "log.jsonl").read_text()
    again = fit(tiny(), clips, config(), workdir=tmp_path, progress=False)
    _assert_same(first.variables, again.variables)
    assert (tmp_path / "log.jsonl").read_text() == log


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(tiny(), clips, config(num_steps=2), progress=False)
    assert not list(tmp_path.iterdir())


def _poisoned(start_step):
    for step, clip in enumerate(clips(start_step), start_step):
        yield clip._replace(images=np.full_like(clip.images, np.nan)) if step == 4 else clip


def test_a_loss_that_is_not_finite_raises_and_keeps_the_last_good_checkpoint(tmp_path):
    named = r"loss is nan at step 5 \(clips 32 to 39 of the data\); the last good checkpoint is 4 in "
    with pytest.raises(FloatingPointError, match=named):
        fit(tiny(), _poisoned, config(log_every=50), workdir=tmp_path, progress=False)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "4"]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(load_variables(tmp_path)[0]))


def test_variables_that_are_not_finite_are_never_saved(tmp_path):
    wild = config(num_steps=2, checkpoint_every=1, optimizer={"name": "sgd", "lr": 3e38, "weight_decay": 1e5})
    with pytest.raises(FloatingPointError, match="variables are not finite after step 1"):
        fit(tiny(), clips, wild, workdir=tmp_path, progress=False)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("mode, sign", [("max", -1), ("min", 1)])
def test_the_evaluation_is_logged_and_the_best_checkpoint_kept(tmp_path, mode, sign):
    seen = []

    def evaluate(variables, step):
        seen.append(step)
        return {"j": sign * abs(step - 4), "norm": float(jnp.abs(variables["params"]["encoder"]["kernel"]).sum())}

    options = config(num_steps=13, checkpoint_every=100, eval_every=2, keep=1, best_metric="j", best_mode=mode)
    fit(tiny(), clips, options, workdir=tmp_path, evaluate=evaluate, progress=False)
    assert seen == [2, 4, 6, 8, 10, 12, 13]
    assert read_log(tmp_path)["eval/j"] == [(step, sign * abs(step - 4)) for step in seen]
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [4, 13]


def test_an_unknown_best_metric_is_named(tmp_path):
    with pytest.raises(InputError, match="'j' is none of the evaluation's: mae"):
        fit(tiny(), clips, config(best_metric="j"), evaluate=lambda variables, step: {"mae": 0.1}, progress=False)


def test_given_variables_override_the_init_and_are_not_consumed():
    kernel = jnp.full((3, 3, 3, 4), 0.25)
    part = {"params": {"encoder": {"kernel": kernel}}}
    frozen = config(num_steps=2, optimizer={"frozen": ("encoder",)})
    state = fit(tiny(), clips, frozen, variables=part, progress=False)
    np.testing.assert_array_equal(state.variables["params"]["encoder"]["kernel"], 0.25)
    whole = fit(tiny(), clips, config(num_steps=1), variables=state.variables, progress=False)
    assert float(kernel.sum()) == 27.0 and all(np.isfinite(x).all() for x in jax.tree.leaves(state.variables))
    assert int(whole.step) == 1


@pytest.mark.parametrize(
    "part, message",
    [
        ({"params": {"encodr": {"kernel": np.zeros((3, 3, 3, 4))}}}, "params/encodr/kernel, which the model lacks"),
        ({"params": {"encoder": {"kernel": np.zeros((3, 3, 3, 5))}}}, r"encoder/kernel has shape \(3, 3, 3, 5\)"),
    ],
)
def test_given_variables_that_do_not_fit_are_named(part, message):
    with pytest.raises(InputError, match=message):
        fit(tiny(), clips, config(), variables=part, progress=False)


def test_init_from_a_run_and_from_a_file(tmp_path, capsys):
    trained = fit(tiny(), clips, config(num_steps=3), workdir=tmp_path / "run", progress=False)
    save_variables(tmp_path / "w.safetensors", {"params": {"encoder": trained.variables["params"]["encoder"]}})
    options = {"num_steps": 1, "optimizer": {"frozen": ("encoder",)}}
    for source, report in {"run": "5 of 5 parameters", "w.safetensors": "1 of 5 parameters"}.items():
        state = fit(tiny(), clips, config(init_from=tmp_path / source, **options))
        _assert_same(state.variables["params"]["encoder"], trained.variables["params"]["encoder"])
        assert report in capsys.readouterr().out
    wide = fit(tiny(width=6), clips, config(num_steps=1, init_from=tmp_path / "run"))
    assert wide.variables["params"]["encoder"]["kernel"].shape == (3, 3, 3, 6)
    assert "1 of 5 parameters" in capsys.readouterr().out


def test_init_from_nothing_like_it_is_refused(tmp_path):
    save_variables(tmp_path / "w.safetensors", {"params": {"other": np.zeros(3)}})
    with pytest.raises(InputError, match="no parameter in .*w.safetensors"):
        fit(tiny(), clips, config(init_from=tmp_path / "w.safetensors"), workdir=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def _broken(start_step):
    yield next(clips(start_step))
    raise OSError("the disk is gone")


def _short(start_step):
    yield from [clip for clip, _ in zip(clips(0), range(3), strict=False)][start_step:]


def _growing(start_step):
    for step in range(start_step, 9):
        yield next(clips(0, batch=8 if step < 2 else 4))


@pytest.mark.parametrize(
    "data, error, message",
    [
        (_broken, OSError, "the disk is gone"),
        (_short, InputError, "the data ended before the batch of step 4"),
        (_growing, InputError, "the batch of step 3 holds .*; those before held"),
    ],
)
def test_bad_data_is_named(data, error, message):
    with pytest.raises(error, match=message):
        fit(tiny(), data, config(), progress=False)


def test_a_system_that_changes_its_state_is_named():
    system = tiny()

    def loss(variables, clip, *, key, step):
        output = system.loss(variables, clip, key=key, step=step)
        return LossOutput(output.loss, {**output.model_state, "extra": {"n": step}}, output.scalars)

    with pytest.raises(TypeError, match="variables/extra/n is absent before a step"):
        fit(system._replace(loss=loss), clips, config(), progress=False)


def test_the_loss_is_traced_once():
    system, traces = tiny(), []

    def loss(variables, clip, *, key, step):
        traces.append(step)
        return system.loss(variables, clip, key=key, step=step)

    fit(system._replace(loss=loss), clips, config(num_steps=5), progress=False)
    assert len(traces) == 1


def test_the_mean_of_the_parameters_is_judged_given_and_resumed(tmp_path):
    seen = {}

    def evaluate(variables, step):
        seen[step] = np.asarray(variables["params"]["decoder"]["kernel"])
        return {}

    options = {"ema": 0.9, "eval_every": 2}
    whole = fit(tiny(), clips, config(num_steps=6, **options), workdir=tmp_path / "whole", evaluate=evaluate,
                progress=False)  # fmt: skip
    fit(tiny(), clips, config(num_steps=4, **options), workdir=tmp_path / "parts", progress=False)
    parts = fit(tiny(), clips, config(num_steps=6, **options), workdir=tmp_path / "parts", progress=False)
    _assert_same(whole.variables, parts.variables)
    _assert_same({"": whole.opt_state}, {"": parts.opt_state})
    np.testing.assert_array_equal(seen[6], whole.variables["params"]["decoder"]["kernel"])
    _assert_same(load_variables(tmp_path / "whole")[0], whole.variables)
    _assert_same(fit(tiny(), clips, config(num_steps=6, **options), workdir=tmp_path / "whole").variables,
                 whole.variables)  # fmt: skip
    plain = fit(tiny(), clips, config(num_steps=6), progress=False)
    assert np.abs(plain.variables["params"]["decoder"]["kernel"] - seen[6]).max() > 1e-3
    _assert_same(plain.variables["batch_stats"], whole.variables["batch_stats"])


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"accumulate": 2}], ids=str)
def test_how_a_step_is_computed_is_heeded(options):
    plain, other = (fit(tiny(), clips, config(num_steps=2, **x), progress=False) for x in ({}, options))
    difference = np.abs(plain.variables["params"]["encoder"]["kernel"] - other.variables["params"]["encoder"]["kernel"])
    assert 1e-5 < difference.max() < 0.05
    assert {x.dtype for x in jax.tree.leaves(other.variables)} == {np.dtype(np.float32)}


def test_some_steps_are_traced(tmp_path):
    fit(tiny(), clips, config(num_steps=4, profile=(2, 3)), workdir=tmp_path, progress=False)
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000
    with pytest.raises(InputError, match="a profile is written to the folder of the run: give --workdir"):
        fit(tiny(), clips, config(num_steps=1, profile=(1, 1)), progress=False)
