"""Scores of whole objects and frames equal those of the measures, bit for bit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvos.metrics import boundary_measure, label_scores, mask_scores, object_metric, region_similarity


def _blocks(rng, shape, labels):
    """A label map of rectangles, some of them at the border, some hidden by others."""
    drawn = np.zeros(shape, np.uint8)
    for label in range(1, labels + 1):
        rows, columns = (np.sort(rng.integers(0, size + 1, 2)) for size in shape)
        drawn[rows[0] : rows[1], columns[0] : columns[1]] = label
    return drawn


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), shape=st.tuples(st.integers(1, 40), st.integers(1, 80)), labels=st.integers(0, 4))
def test_objects_score_as_the_measures_say(seed, shape, labels):
    rng = np.random.default_rng(seed)
    truth, drawn = (_blocks(rng, shape, labels) for _ in range(2))
    found = list(label_scores(truth, drawn, range(1, 6)))  # some labels are in neither map
    for label, scores in enumerate(found, start=1):
        masks = truth == label, drawn == label
        assert scores == mask_scores(*masks) == (region_similarity(*masks), boundary_measure(*masks))


def test_frames_of_several_sizes_do_not_disturb_each_other():
    rng = np.random.default_rng(0)
    frames = [tuple(_blocks(rng, shape, 2) for _ in range(2)) for shape in ((30, 40), (20, 50), (30, 40))]
    streams = [label_scores(*frame, (1, 2)) for frame in frames]
    found = [list(stream) for stream in streams]
    assert found == [list(label_scores(*frame, (1, 2))) for frame in frames]


def test_shards_of_a_data_set_are_the_whole():
    rng, metric = np.random.default_rng(1), object_metric()
    films = {name: [tuple(_blocks(rng, (20, 30), 2) for _ in range(2)) for _ in range(12)] for name in ("b", "a")}
    frames = [(name, f"{i:05d}", *maps, (1, 2)) for name, film in films.items() for i, maps in enumerate(film)]
    states = [metric.zero()] * 3
    for index in rng.permutation(len(frames)):
        states[index % 3] = metric.update(states[index % 3], *frames[index])
    again = metric.update(states[0], *frames[0])  # a frame that is judged twice counts once
    merged = metric.merge(metric.merge(states[2], again), metric.merge(states[1], metric.zero()))
    scores = metric.compute(merged)
    assert [sequence.name for sequence in scores] == ["a", "b"]
    for sequence in scores:
        assert sequence.frames == tuple(f"{i:05d}" for i in range(12))
        for item in sequence.objects:
            expected = [mask_scores(t == item.label, d == item.label) for t, d in films[sequence.name]]
            assert list(zip(item.j_frames, item.f_frames, strict=True)) == expected
    assert metric.compute(metric.zero()) == () and metric.zero() == frozenset()
