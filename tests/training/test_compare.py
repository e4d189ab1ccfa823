import dataclasses
import json
import math
import os

import numpy as np
import pytest
from tiny_system import clips, config, tiny

from jaxvos.errors import InputError
from jaxvos.training import (
    ExperimentConfig,
    TrainingConfig,
    compare_runs,
    comparison_as_json,
    fit,
    format_comparison,
    launch,
    read_runs,
    running_mean,
)


def write_log(folder, entries):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def write_run(folder, entries=({"step": 1, "loss": 1.0},), *, commit="0123456789" * 4, lr=0.1, seed=0, **training):
    """What `launch` and `fit` leave of a run."""
    training = {"num_steps": 40, "seed": seed, "optimizer": {"lr": lr}, **training}
    resolved = {"workdir": str(folder), "system": {"width": 4}, "training": training}
    write_log(folder, entries)
    content = {"config": resolved, "commit": commit, "versions": {}, "device": "1 x cpu"}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def _losses(*values, **more):
    return [{"step": step, "loss": value, **more} for step, value in enumerate(values, 1)]


def test_numbers_of_a_run(tmp_path):
    entries = _losses(*range(40, 10, -1), clips_per_second=2.0)
    entries[0]["clips_per_second"] = 0.1  # while caches were cold
    scores = [{"step": s, "eval/J": j, "eval/epe": e} for s, j, e in ((10, 0.3, 5), (20, 0.6, 1), (30, 0.5, 2))]
    comparison = compare_runs([write_run(tmp_path / "a", entries + scores)])
    (row,) = comparison.rows
    assert row.numbers == {"last loss": 12.0, "last eval/J": 0.5, "max eval/J": 0.6, "last eval/epe": 2.0,
                           "min eval/epe": 1.0}
    assert row.best_steps == {"max eval/J": 20, "min eval/epe": 20} and row.clips_per_second == 2.0
    assert (row.name, row.run.step, row.run.num_steps, row.run.device) == ("a", 30, 40, "1 x cpu")
    assert comparison.scalars == ["loss", "eval/J", "eval/epe", "clips_per_second"]
    assert not comparison.groups and not comparison.differences and not comparison.notes


def test_what_ranks_checkpoints_says_which_way_is_best(tmp_path):
    entries = [{"step": 1, "loss": 1.0, "eval/J": 0.1}, {"step": 2, "eval/J": 0.7}]
    write_run(tmp_path / "a", entries)
    write_run(tmp_path / "b", entries, best_metric="J", best_mode="min")
    write_run(tmp_path / "c", entries, best_metric="F", best_mode="min")
    best = {name: compare_runs([tmp_path / name]).columns[-1].name for name in "abc"}
    assert best == {"a": "max eval/J", "b": "min eval/J", "c": "max eval/J"}
    assert compare_runs([tmp_path / "a", tmp_path / "b"]).rows[0].numbers["min eval/J"] == 0.1


def test_metrics_choose_columns_and_panels(tmp_path):
    run = write_run(tmp_path / "a", [{"step": 1, "loss": 1.0, "grad_norm": 3.0, "eval/J": 0.5, "eval/F": 0.4}])
    chosen = compare_runs([run], metrics=["eval/F", "grad_norm", "eval/F"])
    assert list(chosen.rows[0].numbers) == ["last eval/F", "max eval/F", "last grad_norm"]
    assert chosen.scalars == ["eval/F", "grad_norm"] and chosen.rows[0].numbers["last grad_norm"] == 3.0
    with pytest.raises(InputError, match="no run has logged 'J'; there are: loss, eval/J, eval/F, grad_norm"):
        compare_runs([run], metrics=["loss", "J"])


def test_a_scalar_that_one_run_lacks(tmp_path):
    write_run(tmp_path / "a", [{"step": 1, "loss": 1.0, "eval/J": 0.5}])
    write_run(tmp_path / "b", [{"step": 1, "loss": 1.0}], lr=0.2)
    comparison = compare_runs([tmp_path / "b", tmp_path / "a"])
    assert [column.name for column in comparison.columns] == ["last loss", "last eval/J", "max eval/J"]
    assert math.isnan(comparison.rows[0].numbers["max eval/J"]) and math.isnan(comparison.rows[0].clips_per_second)
    told = comparison_as_json(comparison)["runs"][0]
    assert told["numbers"] == {"last loss": 1.0, "last eval/J": None, "max eval/J": None}
    assert told["clips_per_second"] is None and told["best_steps"] == {}


def test_null_is_a_gap_and_noted(tmp_path):
    entries = [{"step": 1, "loss": None, "eval/J": 0.5}, {"step": 2, "loss": 2.0, "eval/J": None},
               {"step": 3, "loss": None, "eval/J": None}]
    comparison = compare_runs([write_run(tmp_path / "a", entries)])
    numbers = comparison.rows[0].numbers
    assert math.isnan(numbers["last loss"]) and math.isnan(numbers["last eval/J"]) and numbers["max eval/J"] == 0.5
    assert comparison.notes == ["loss of a is not finite at step 1 and 1 more",
                                "eval/J of a is not finite at step 2 and 1 more"]
    assert [math.isnan(value) for _, value in comparison.rows[0].run.curves["loss"]] == [True, False, True]
    assert "note: loss of a" in format_comparison(comparison)
    json.dumps(comparison_as_json(comparison), allow_nan=False)
    write_log(tmp_path / "a", [{"step": 1, "loss": 1.0, "eval/J": None}])
    assert math.isnan(compare_runs([tmp_path / "a"]).rows[0].numbers["max eval/J"])


def test_differences(tmp_path):
    write_run(tmp_path / "a", lr=0.1)
    write_run(tmp_path / "b", lr=0.2, best_metric="J")
    write_run(tmp_path / "c", lr=0.1, best_metric=None)
    assert compare_runs([tmp_path / name for name in "abc"]).differences == {
        "training.optimizer.lr": {"a": 0.1, "b": 0.2, "c": 0.1}, "training.best_metric": {"b": "J", "c": None}}
    text = format_comparison(compare_runs([tmp_path / name for name in "abc"]))
    assert "\ntraining.best_metric   absent    J  null" in text and "workdir" not in text
    assert "do not differ" in format_comparison(compare_runs([tmp_path / "a", write_run(tmp_path / "d")]))


def test_what_is_not_known_is_no_difference(tmp_path):
    write_log(tmp_path / "bare", _losses(1.0))
    comparison = compare_runs([tmp_path / "bare", write_run(tmp_path / "a"), write_run(tmp_path / "b", lr=0.2)])
    assert comparison.differences == {"training.optimizer.lr": {"a": 0.1, "b": 0.2}}
    assert comparison.rows[0].run.num_steps is None and comparison.rows[0].run.commit == "unknown"
    text = format_comparison(comparison)
    assert "1 of ?" in text and "\ntraining.optimizer.lr     ?  0.1  0.2" in text


def test_mean_and_deviation_over_seeds(tmp_path):
    losses, scores = (1.0, 2.0, 6.0), (0.5, 0.7, 0.6)
    for seed, (loss, score) in enumerate(zip(losses, scores, strict=True)):
        write_run(tmp_path / f"a{seed}", [{"step": 1, "loss": loss, "eval/J": score}], seed=seed)
    write_run(tmp_path / "other", [{"step": 1, "loss": 100.0, "eval/J": 0.0}], seed=7, lr=0.5)
    comparison = compare_runs([tmp_path / name for name in ("a0", "a1", "other", "a2")])
    (group,) = comparison.groups
    assert [row.name for row in group.rows] == ["a0", "a1", "a2"] and group.seeds == [0, 1, 2]
    assert group.numbers["last loss"] == pytest.approx((3.0, math.sqrt(7.0)))  # n - 1
    assert group.numbers["max eval/J"] == pytest.approx((0.6, 0.1))
    told = comparison_as_json(comparison)["groups"][0]
    assert told["numbers"]["last eval/J"] == pytest.approx({"mean": 0.6, "std": 0.1}) and told["seeds"] == [0, 1, 2]
    assert "a0 and 2 more seeds" in format_comparison(comparison) and "3 +- 2.6" in format_comparison(comparison)
    assert not compare_runs([tmp_path / "a0", tmp_path / "other"]).groups


def test_no_mean_over_the_same_seed_and_a_note_on_different_steps(tmp_path):
    write_run(tmp_path / "a", seed=0)
    write_run(tmp_path / "b", seed=0)
    comparison = compare_runs([tmp_path / "a", tmp_path / "b"])
    assert not comparison.groups and "no mean over a, b" in comparison.notes[0]
    comparison = compare_runs([tmp_path / "a", write_run(tmp_path / "c", _losses(1.0, 2.0), seed=1)])
    assert len(comparison.groups) == 1 and "a, c is of runs that stand at different steps" in comparison.notes[0]
    partly_known = [write_log(tmp_path / name, _losses(1.0)) for name in ("x", "y")]
    assert not compare_runs(partly_known).groups


def test_names_are_the_shortest_ends_that_differ(tmp_path):
    folders = [write_run(tmp_path / path) for path in ("a/run", "b/run", "b/s/run", "alone")]
    names = [row.name for row in compare_runs(folders).rows]
    assert names == ["a/run", "b/run", "s/run", f"{tmp_path.name}/alone"]
    assert [row.name for row in compare_runs([folders[0], folders[3]]).rows] == ["run", "alone"]


def test_a_relative_path_and_the_current_folder(tmp_path, monkeypatch):
    write_run(tmp_path / "a")
    monkeypatch.chdir(tmp_path / "a")
    assert compare_runs(["."]).rows[0].name == compare_runs(["../a"]).rows[0].name == "a"


def test_phases(tmp_path):
    for seed in (0, 1):
        root = write_run(tmp_path / f"r{seed}", seed=seed)
        (root / "log.jsonl").unlink()
        told = json.loads((root / "config.json").read_text())
        told["config"]["flow_training"] = {"num_steps": 7, "best_metric": "J", "best_mode": "min"}
        (root / "config.json").write_text(json.dumps(told))
        write_log(root / "round1_flow", [{"step": 3, "loss": 1.0 + seed, "eval/J": 1.0}])
        write_log(root / "round1_masks", [{"step": 5, "loss": 5.0 + seed}])
        write_log(root / "round2_flow", [])  # has only begun
    comparison = compare_runs([tmp_path / "r0", tmp_path / "r1"])
    steps = {row.name: (row.run.step, row.run.num_steps) for row in comparison.rows}
    assert steps == {f"r{seed}/round1_{name}": known for seed in (0, 1)
                     for name, known in (("flow", (3, 7)), ("masks", (5, 40)))}
    assert comparison.columns[-1].name == "min eval/J"
    assert [group.numbers["last loss"][0] for group in comparison.groups] == [1.5, 5.5]
    assert comparison.differences == {"training.seed": {name: int(name[1]) for name in steps}}
    alone = compare_runs([tmp_path / "r0" / "round1_flow"]).rows[0]
    assert alone.name == "r0/round1_flow" and alone.run.num_steps == 7 and alone.run.device == "1 x cpu"


def test_a_run_of_jaxvos_fit(tmp_path):
    for phase, step in (("correspondence", 4), ("joint", 3)):
        write_log(tmp_path / phase, [{"step": step, "loss": 1.0}])
    settings = {"encoder": "resnet18", "number of steps": [4, 6], "seed": 2, "recipe": {"size": [32, 32]}}
    (tmp_path / "run.json").write_text(json.dumps(settings))
    first, second = read_runs(tmp_path)
    assert (first.phase, first.step, first.num_steps) == ("correspondence", 4, 4)
    assert (second.phase, second.step, second.num_steps) == ("joint", 3, 6)
    assert first.config["training.seed"] == 2 and first.config["recipe.size"] == [32, 32] and first.complete


def test_running_mean():
    points = [(1, 1.0), (2, 3.0), (5, math.nan), (6, 8.0)]
    np.testing.assert_array_equal(running_mean(points, 1), points)
    np.testing.assert_array_equal(running_mean(points, 2), [(1, 1.0), (2, 2.0), (5, math.nan), (6, 8.0)])
    np.testing.assert_array_equal(running_mean(points, 9), [(1, 1.0), (2, 2.0), (5, math.nan), (6, 4.0)])
    assert running_mean([], 3) == []


def test_formats(tmp_path):
    write_run(tmp_path / "a|b", _losses(0.5), commit="0123456789" * 4 + "-dirty")
    comparison = compare_runs([tmp_path / "a|b", write_run(tmp_path / "c", lr=0.2)])
    text, markdown = format_comparison(comparison), format_comparison(comparison, markdown=True)
    assert "0123456-dirty" in text and "01234567" not in text and "a|b  1 of 40        0.5" in text
    assert markdown.startswith("| run | step | last loss | clips/s | commit | device |\n| --- | ---: |")
    assert "| a\\|b | 1 of 40 | 0.5 | - | 0123456-dirty | 1 x cpu |" in markdown
    assert "| training.optimizer.lr | 0.1 | 0.2 |" in markdown
    told = comparison_as_json(comparison)
    assert told["runs"][0]["commit"] == "0123456789" * 4 + "-dirty"
    assert told["runs"][1]["folder"] == str(tmp_path / "c") and told["differences"]["training.optimizer.lr"]["c"] == 0.2


def test_bad_input(tmp_path):
    good = write_run(tmp_path / "runs" / "good")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(good)
    write_log(tmp_path / "cut", []).joinpath("log.jsonl").write_text('{"step": 1, "lo')
    write_log(tmp_path / "begun", [])
    write_log(tmp_path / "torn", [])
    (tmp_path / "torn" / "log.jsonl").write_text('{"step": 1, "loss": 1}\n{"step": 2\n{"step": 3, "loss": 1}\n')
    write_log(tmp_path / "words", [{"step": 1, "loss": "low"}])
    write_log(tmp_path / "stepless", [{"loss": 1.0}])
    write_run(tmp_path / "config").joinpath("config.json").write_text("{")
    write_run(tmp_path / "other").joinpath("config.json").write_text('{"config": 1}')
    for folders, message in (
        ([], "no run is given"),
        (["none"], "there is no folder .*none: check the path"),
        (["empty"], "is not the folder of a run: there is no log.jsonl"),
        (["runs"], r"is not a run, but holds some \(good\): name them, as in .*/runs/\*"),
        (["cut"], "cut has logged nothing yet"),
        (["begun"], "begun has logged nothing yet"),
        (["torn"], "log.jsonl, line 2 is not an entry"),
        (["words"], "line 1: loss is 'low', not a number"),
        (["stepless"], "line 1 is not an entry"),
        (["config"], "config.json is not what a run writes"),
        (["other"], "config.json is not what a run writes"),
        (["runs/good", "runs/good"], "good is given twice: name each run once"),
        (["runs/good/", "link"], "link is given twice, as .*good too"),
    ):
        with pytest.raises(InputError, match=message) as error:
            compare_runs([tmp_path / folder for folder in folders])
        assert "\n" not in str(error.value)


def test_the_whole_lines_of_a_cut_log_count(tmp_path):
    run = write_run(tmp_path / "a", _losses(4.0, 2.0))
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert compare_runs([run]).rows[0].numbers["last loss"] == 2.0 and read_runs(run)[0].step == 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Experiment(ExperimentConfig):
    """Two steps of the tiny system."""

    training: TrainingConfig = config(num_steps=2)
    """What `fit` does."""


def test_two_real_runs(tmp_path):
    def main(experiment):
        fit(tiny(), clips, experiment.training, workdir=experiment.workdir, progress=False,
            evaluate=lambda variables, step: {"half_step": step / 2})  # fmt: skip

    for seed in ("0", "1"):
        launch({"tiny": ("", _Experiment())}, main,
               args=["tiny", "--workdir", str(tmp_path / seed), "--training.seed", seed])  # fmt: skip
    comparison = compare_runs([tmp_path / "0", tmp_path / "1"])
    a, b = comparison.rows
    assert comparison.differences == {"training.seed": {"0": 0, "1": 1}} and (a.run.step, a.run.num_steps) == (2, 2)
    assert a.numbers["last loss"] != b.numbers["last loss"] and a.numbers["max eval/half_step"] == 1.0
    assert a.clips_per_second > 0 and a.run.device.endswith("cpu")
    last = [row.numbers["last loss"] for row in comparison.rows]
    assert comparison.groups[0].numbers["last loss"] == pytest.approx((np.mean(last), np.std(last, ddof=1)))
    for name in "01":
        os.remove(tmp_path / name / "config.json")  # as `fit` alone leaves it: its checkpoints tell what it was told
    told = compare_runs([tmp_path / "0", tmp_path / "1"])
    assert told.differences == comparison.differences and not told.groups
    assert (told.rows[0].run.num_steps, told.rows[0].run.commit) == (2, a.run.commit)
