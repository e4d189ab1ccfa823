"""What holds for every metric: work may be split and merged in any way, and nothing given is changed."""

import functools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvos.metrics import flow_metric, grouped, instance_metric, mean_metric, saliency_metric, semantic_metric

_ITEMS = 7


def _saliency(rng):
    return rng.random((6, 5)), rng.random((6, 5)) < 0.4


def _flow(rng):
    truth = rng.normal(0, 30, (5, 6, 2))
    return truth + rng.normal(0, 3, truth.shape), truth


def _instances(rng):
    truth = rng.integers(0, 4, (3, 5, 6), np.uint8)
    truth[0, 0, :4] = range(4)
    return list(rng.integers(0, 4, truth.shape, np.uint8)), list(truth)


def _semantic(rng):
    return rng.integers(0, 4, (5, 6), np.uint8), rng.integers(0, 4, (5, 6), np.uint8)


def _number(rng):
    return (float(rng.random()),)


def _named(item):
    return lambda rng: (str(rng.choice(["cat", "dog", "cow"])), *item(rng))


CASES = {
    "saliency": (saliency_metric(), _saliency),
    "flow": (flow_metric(), _flow),
    "instances": (instance_metric(), _instances),
    "semantic": (semantic_metric(5), _semantic),
    "mean": (mean_metric(), _number),
    "grouped": (grouped(flow_metric()), _named(_flow)),
    "grouped twice": (grouped(grouped(mean_metric())), _named(_named(_number))),
}


@functools.cache
def _case(name):
    """Returns a metric, what it judges, the state of each of these alone, and the scores of all."""
    metric, make = CASES[name]
    rng = np.random.default_rng(0)
    items = [make(rng) for _ in range(_ITEMS)]
    alone = [metric.update(metric.zero(), *item) for item in items]
    state = functools.reduce(lambda state, item: metric.update(state, *item), items, metric.zero())
    return metric, items, alone, metric.compute(state)


def _numbers(scores):
    """Returns all numbers in scores, in order."""
    if isinstance(scores, dict):
        return np.concatenate([np.zeros(0), *(_numbers(scores[name]) for name in sorted(scores))])
    if isinstance(scores, tuple):
        return np.concatenate([_numbers(part) for part in scores])
    return np.ravel(np.asarray(scores, np.float64))


def _assert_same(found, expected):
    np.testing.assert_allclose(_numbers(found), _numbers(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_split_merged_in_any_order_is_the_whole(name, data):
    metric, items, _, expected = _case(name)
    owners = data.draw(st.lists(st.integers(0, 3), min_size=_ITEMS, max_size=_ITEMS))
    shards = [metric.zero() for _ in range(4)]
    for index in data.draw(st.permutations(range(_ITEMS))):
        shards[owners[index]] = metric.update(shards[owners[index]], *items[index])
    while len(shards) > 1:
        first = shards.pop(data.draw(st.integers(0, len(shards) - 1)))
        second = shards.pop(data.draw(st.integers(0, len(shards) - 1)))
        shards.append(metric.merge(first, pickle.loads(pickle.dumps(second))))
    _assert_same(metric.compute(shards[0]), expected)


@pytest.mark.parametrize("name", CASES)
def test_every_item_counts(name):
    metric, _, alone, expected = _case(name)
    for left_out in range(_ITEMS):
        rest = functools.reduce(metric.merge, alone[:left_out] + alone[left_out + 1 :])
        found = metric.compute(rest)
        assert not np.array_equal(_numbers(found), _numbers(expected), equal_nan=True)


@pytest.mark.parametrize("name", CASES)
def test_laws(name):
    metric, _, (a, b, c, *_), _ = _case(name)
    scores, merge = metric.compute, metric.merge
    _assert_same(scores(merge(merge(a, b), c)), scores(merge(a, merge(b, c))))
    np.testing.assert_array_equal(_numbers(scores(merge(a, b))), _numbers(scores(merge(b, a))))
    for neutral in (merge(a, metric.zero()), merge(metric.zero(), a)):
        assert pickle.dumps(neutral) == pickle.dumps(a)


@pytest.mark.parametrize("name", CASES)
def test_arguments_do_not_change(name):
    metric, items, alone, _ = _case(name)
    before = pickle.dumps((alone[0], alone[1], items[1]))
    metric.update(alone[0], *items[1])
    metric.merge(alone[0], alone[1])
    metric.compute(alone[0])
    assert pickle.dumps((alone[0], alone[1], items[1])) == before


@pytest.mark.parametrize("name", CASES)
def test_nothing_scores_nan(name):
    metric = CASES[name][0]
    assert np.isnan(_numbers(metric.compute(metric.zero()))).all()


def test_groups_leave_out_what_they_lack():
    """The second video has no fast pixels, so the mean error of fast pixels is that of the first."""
    metric = grouped(flow_metric())
    still, fast = np.zeros((2, 2, 2)), np.full((2, 2, 2), 50.0)
    first = metric.update(metric.zero(), "still", still, still)
    second = metric.update(metric.zero(), "fast", fast + [3.0, 4.0], fast)
    scores = metric.compute(metric.merge(first, second))
    assert np.isnan(scores.groups["still"].epe_fast)
    assert scores.mean.epe_fast == 5 and scores.mean.epe == 2.5
    assert list(scores.groups) == ["fast", "still"]  # by name, whichever came first


def test_a_value_that_does_not_exist_does_not_count():
    metric = mean_metric()
    state = functools.reduce(metric.update, [1.0, float("nan"), 0.5], metric.zero())
    assert metric.compute(state) == 0.75
