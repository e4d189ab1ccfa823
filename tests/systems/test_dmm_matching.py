"""The matching layer of DMM-Net: golden costs and plans, what each option does, and objects without a match."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.systems import MatchingConfig, cosine_similarity, mask_overlap, match_masks

MATCHERS = ("pgd", "pgd_released", "qp", "sinkhorn", "softmax", "hungarian", "greedy")


@pytest.mark.data
def test_golden_costs_and_plans(golden_dir):
    """Features and masks in, the released layer's plan out."""
    golden = np.load(golden_dir / "matching" / "dmm.npz")
    cases = json.loads((golden_dir / "matching" / "dmm.json").read_text())["cases"]
    config = MatchingConfig(test_method="pgd_released", null_score=None, test_keep="all", normalize=False)
    cases = [case for case in cases if case["masks_stored"] and case["m"] > case["n"]][:3]
    assert len(cases) == 3

    @jax.jit
    def solve(template_looks, proposal_looks, templates, proposals):
        similarity, iou = cosine_similarity(template_looks, proposal_looks), mask_overlap(templates, proposals)
        alive, valid = jnp.ones(len(templates), bool), jnp.ones(len(proposals), bool)
        found = match_masks(similarity, iou, proposals, alive=alive, valid=valid, config=config, train=False)
        return similarity, iou, found.weights

    for case in cases:
        i, (h, w) = case["i"], case["mask_hw"]
        masks = (np.unpackbits(golden[f"{kind}_{i}"])[: k * h * w].reshape(k, h, w).astype(np.float32)
                 for kind, k in (("tmask", case["n"]), ("pmask", case["m"])))  # fmt: skip
        similarity, iou, weights = solve(golden[f"tfeat_{i}"], golden[f"pfeat_{i}"], *masks)
        np.testing.assert_allclose(similarity, golden[f"cos_{i}"], atol=2e-6)
        np.testing.assert_allclose(iou, golden[f"iou_{i}"], atol=1e-6)
        np.testing.assert_allclose(weights, golden[f"X_mean64_{i}"], atol=2e-4)


def _problem(key, n=3, m=6):
    one, two, three = jax.random.split(key, 3)
    similarity, iou = jax.random.uniform(one, (n, m), minval=-1), jax.random.uniform(two, (n, m))
    return similarity, iou, jax.random.uniform(three, (m, 4, 5))


@partial(jax.jit, static_argnames=("config", "train"))
def _match(similarity, iou, masks, alive, valid, config, train=False):
    return match_masks(similarity, iou, masks, alive=alive, valid=valid, config=config, train=train)


def _stack(*trees):
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def _padded(similarity, iou, masks):
    """The same with a dead template and two proposals that are none, of values that must not matter."""
    wide = ((0, 1), (0, 2))
    return (jnp.pad(similarity, wide, constant_values=9.0), jnp.pad(iou, wide, constant_values=9.0),
            jnp.pad(masks, ((0, 2), (0, 0), (0, 0)), constant_values=1.0))  # fmt: skip


@pytest.mark.parametrize("method", MATCHERS)
def test_whatever_is_not_there_changes_nothing(method):
    """Batched and padded, one by one and not; without proposals; and an object that looks like none of them."""
    config = MatchingConfig(test_method=method, t=20.0, epsilon=0.02, num_iters=200)
    problems = [_problem(jax.random.key(seed)) for seed in range(2)]
    similarity, iou, masks = _padded(*problems[0])
    gone = similarity.at[0, :6].set(-0.5), iou.at[0, :6].set(0.0), masks
    alive, valid = jnp.arange(4) < 3, jnp.arange(8) < 6
    batch = _stack(*map(lambda p: _padded(*p), problems), _padded(*problems[0]), gone)
    present = jnp.stack([valid, valid, jnp.zeros(8, bool), valid])
    found = jax.jit(jax.vmap(lambda p, valid: match_masks(*p, alive=alive, valid=valid, config=config, train=False)))(
        batch, present
    )
    for index, problem in enumerate(problems):
        plain = _match(*problem, jnp.ones(3, bool), jnp.ones(6, bool), config)
        np.testing.assert_allclose(found.masks[index, :3], plain.masks, atol=1e-4)
        assert found.assignment[index, :3].tolist() == plain.assignment.tolist()
    assert (found.assignment[:, 3] == -1).all() and not found.masks[:, 3].any()
    assert found.assignment[2].tolist() == [-1] * 4 and not found.masks[2].any()  # no proposals
    assert found.assignment[3, 0] == -1 and not found.masks[3, 0].any()  # like nothing
    assert np.isfinite(found.masks).all()


def test_as_published_every_template_takes_what_is_left(key):
    similarity, iou, masks = _problem(key)
    gone = similarity.at[0].set(-0.5), iou.at[0].set(0.0), masks, jnp.ones(3, bool)
    config = MatchingConfig(null_score=None)
    assert _match(*gone, jnp.ones(6, bool), config).assignment[0] >= 0
    none = _match(*gone, jnp.zeros(6, bool), config)
    assert none.assignment.tolist() == [-1, -1, -1] and not none.masks.any()


def test_the_optimum_is_found_when_run_long_enough():
    """The default layer, at its limit, is the Hungarian assignment that prediction uses."""
    long = {"train_method": "pgd", "train_keep": "max", "num_grad": 400, "num_proj": 50}
    for seed in range(3):
        problem = _problem(jax.random.key(seed))
        alive, valid = jnp.ones(3, bool), jnp.ones(6, bool)
        soft = _match(*problem, alive, valid, MatchingConfig(**long), train=True)
        whole = _match(*problem, alive, valid, MatchingConfig(), train=False)
        assert soft.assignment.tolist() == whole.assignment.tolist()
        np.testing.assert_allclose(soft.masks, whole.masks, atol=1e-5)


@pytest.mark.parametrize("method", ["pgd", "pgd_released", "qp", "sinkhorn", "softmax"])
def test_matched_masks_teach_the_similarities(key, method):
    similarity, iou, masks = _problem(key)
    config, alive, valid = MatchingConfig(train_method=method), jnp.ones(3, bool), jnp.ones(6, bool)
    loss = lambda s: (_match(s, iou, masks, alive, valid, config, train=True).masks ** 2).sum()  # noqa: E731
    gradient = jax.grad(loss)(similarity)
    assert np.isfinite(gradient).all() and jnp.abs(gradient).max() > 1e-4


CHANGES = [
    {"iou_weight": 0.9}, {"null_score": 0.9}, {"test_method": "qp"}, {"test_keep": "all"}, {"test_keep": "above"},
    {"normalize": False}, {"alpha": 0.05}, {"num_grad": 10}, {"num_proj": 1},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_option_changes_the_matched_masks(key, change):
    problem, alive, valid = _problem(key), jnp.ones(3, bool), jnp.ones(6, bool)
    base = MatchingConfig(test_method="pgd", test_keep="max" if "test_keep" in change else "all",
                          normalize="normalize" in change)  # fmt: skip
    before, after = (_match(*problem, alive, valid, config) for config in (base, dataclasses.replace(base, **change)))
    assert jnp.abs(before.masks - after.masks).max() > 1e-5


OWN = [("qp", {"t": 1.0}), ("qp", {"num_iters": 1}), ("sinkhorn", {"epsilon": 0.5}), ("softmax", {"epsilon": 0.5})]


@pytest.mark.parametrize(("method", "change"), OWN)
def test_options_of_one_method(key, method, change):
    problem, alive, valid = _problem(key), jnp.ones(3, bool), jnp.ones(6, bool)
    base = MatchingConfig(train_method=method, train_keep="all", normalize=False)
    before, after = (_match(*problem, alive, valid, config, train=True)
                     for config in (base, dataclasses.replace(base, **change)))  # fmt: skip
    assert jnp.abs(before.masks - after.masks).max() > 1e-5


def test_training_and_prediction_have_their_own_settings(key):
    problem, alive, valid = _problem(key), jnp.ones(3, bool), jnp.ones(6, bool)
    config = MatchingConfig()
    soft, whole = (_match(*problem, alive, valid, config, train=train) for train in (True, False))
    assert set(np.unique(whole.weights)) <= {0.0, 1.0} and ((soft.weights > 0) & (soft.weights < 1)).any()
    kept = [_match(*problem, alive, valid, dataclasses.replace(config, train_keep=keep), train=True).weights
            for keep in ("all", "above", "max")]  # fmt: skip
    assert (kept[2] > 0).sum() == 3 and (kept[0] > 0).sum() >= (kept[1] > 0).sum() > 3
