import numpy as np
import pytest

from jaxvos.errors import InputError
from jaxvos.metrics import grouped, instance_metric, mean_metric, region_similarity, semantic_metric


def _video(seed, frames=6, labels=(1, 2, 7), shape=(8, 9)):
    """Returns random label maps: label 2 appears late and label 7 goes early."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(np.array([0, *labels, 255], np.uint8), (frames, *shape))
    predicted = np.where(
        rng.random(truth.shape) < 0.5, truth, rng.choice(np.array([0, *labels], np.uint8), truth.shape)
    )
    truth[:2][truth[:2] == 2] = 0
    truth[4:][truth[4:] == 7] = 0
    predicted[5:][predicted[5:] == 7] = 0
    return list(predicted), list(truth)


def _reference(videos, first_frame, absent):
    """Returns mIoU* and mIoU-dagger by loops over frames and instances."""
    by_frame, by_instance = [], []
    for predicted, truth in videos:
        labels = {label for frame in truth for label in np.unique(frame).tolist()} - {0, 255}
        table = {label: [] for label in labels}
        for index in range(0 if first_frame else 1, len(truth)):
            row = []
            for label in labels:
                annotation = truth[index] == label
                if annotation.any() or absent:
                    row.append(region_similarity(annotation, predicted[index] == label))
                    table[label].append(row[-1])
            if row:
                by_frame.append(np.mean(row))
        by_instance += [np.mean(values) for values in table.values() if values]
    return float(np.mean(by_frame)), float(np.mean(by_instance))


def _instances(videos, **options):
    metric = instance_metric(**options)
    state = metric.zero()
    for predicted, truth in videos:
        state = metric.update(state, predicted, truth)
    return metric.compute(state)


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("first_frame", [False, True])
def test_instances_equal_loops(first_frame, absent):
    videos = [_video(0), _video(1, frames=9, labels=(3, 7)), _video(2, frames=3, labels=(1, 2, 4, 7))]
    found = _instances(videos, first_frame=first_frame, absent=absent)
    assert found == pytest.approx(_reference(videos, first_frame, absent), abs=1e-12)


def test_every_choice_moves_the_numbers():
    videos = [_video(0), _video(1, frames=12)]
    made = [_instances(videos, first_frame=first, absent=absent) for first in (False, True) for absent in (False, True)]
    numbers = [number for scores in made for number in scores]
    metric = grouped(instance_metric())
    state = metric.zero()
    for name, video in zip("ab", videos, strict=True):
        state = metric.update(state, name, *video)
    pooled_not = metric.compute(state).mean
    numbers.append(pooled_not.miou_star)
    assert len({round(number, 9) for number in numbers}) == 9
    assert pooled_not.miou_star == pytest.approx(np.mean([_instances([video]).miou_star for video in videos]))


def test_star_and_dagger_by_hand():
    """An instance found throughout and one that shows in the last frame only and is missed."""
    frame = np.array([[1, 1, 0, 0]], np.uint8)
    last = np.array([[1, 1, 2, 2]], np.uint8)
    found = _instances([([frame] * 4, [frame, frame, frame, last])])
    assert found.miou_star == pytest.approx((1 + 1 + 0.5) / 3)
    assert found.miou_dagger == 0.5
    assert _instances([([frame] * 4, [frame, frame, frame, last])], absent=True).miou_dagger == pytest.approx(
        (1 + (1 + 1 + 0) / 3) / 2
    )


def test_nothing_to_score_is_nothing():
    frame, empty = np.ones((2, 3), np.uint8), np.zeros((2, 3), np.uint8)
    assert np.isnan(_instances([([frame], [frame])])).all()
    assert np.isnan(_instances([([empty] * 3, [empty] * 3)])).all()
    assert np.isnan(_instances([([], [])])).all()
    assert _instances([([frame], [frame])], first_frame=True) == (1, 1)


def test_frames_and_labels_must_correspond():
    frame = np.ones((2, 3), np.uint8)
    with pytest.raises(InputError, match="1 predictions for 2 frames"):
        _instances([([frame], [frame, frame])])
    with pytest.raises(InputError, match=r"label map is 2x2 and the ground truth 3x2"):
        _instances([([frame, frame[:, :2]], [frame, frame])])
    with pytest.raises(InputError, match=r"label 5 is in no frame of the ground truth, which has 1: "):
        _instances([([frame, np.full((2, 3), 5, np.uint8)], [frame, frame])])


def _semantic(pairs, *args, **options):
    metric = semantic_metric(*args, **options)
    state = metric.zero()
    for predicted, truth in pairs:
        state = metric.update(state, predicted, truth)
    return metric.compute(state)


def test_classes_equal_loops():
    rng = np.random.default_rng(3)
    truth = rng.choice(np.array([0, 1, 2, 4, 255], np.uint8), (5, 6, 7))
    predicted = rng.choice(np.array([0, 1, 3, 4], np.uint8), truth.shape)
    found = _semantic(zip(predicted, truth, strict=True), 7, ignore_label=255)
    keep = truth != 255
    for label in range(7):
        hit = ((truth == label) & (predicted == label) & keep).sum()
        union = (((truth == label) | (predicted == label)) & keep).sum()
        np.testing.assert_equal(found.iou[label], hit / union if union else np.nan)
    assert np.isnan(found.iou).tolist() == [False] * 5 + [True] * 2
    assert found.iou[2] == found.iou[3] == 0  # never found, never there: both count
    assert found.miou == pytest.approx(found.iou[:5].mean())
    assert found.accuracy == pytest.approx((truth == predicted)[keep].mean())


def test_pixels_of_all_videos_are_pooled_or_grouped():
    zero, one = np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)
    metric = grouped(semantic_metric(2))
    state = metric.zero()
    for name, predicted, truth in (("a", one, one), ("b", zero, one), ("b", zero, zero), ("b", zero, zero)):
        state = metric.update(state, name, predicted, truth)
    assert metric.compute(state).mean.miou == pytest.approx((1 + (2 / 3 + 0) / 2) / 2)
    pooled = _semantic([(one, one), (zero, one), (zero, zero), (zero, zero)], 2)
    assert pooled.miou == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_ignored_pixels_may_be_predicted_as_anything():
    truth, predicted = np.array([[0, 1, 255]], np.uint8), np.array([[0, 1, 99]], np.uint8)
    assert _semantic([(predicted, truth)], 2, ignore_label=255).miou == 1
    with pytest.raises(InputError, match="the ground truth has label 255, and classes are 0 to 1"):
        _semantic([(predicted, truth)], 2)
    with pytest.raises(InputError, match="the prediction has label 99"):
        _semantic([(predicted, np.array([[0, 1, 1]], np.uint8))], 2)
    with pytest.raises(InputError, match="label map is 2x1"):
        _semantic([(predicted[:, :2], truth)], 2)


def test_categories_of_videos():
    """YouTube-Objects: J of frames, then of videos, then of categories."""
    rng = np.random.default_rng(4)
    frames = [("cat", "one", 2), ("cat", "two", 5), ("dog", "one", 3)]
    metric = grouped(grouped(mean_metric()))
    state, expected, every = metric.zero(), {}, []
    for category, video, count in frames:
        masks = rng.random((count, 2, 6, 6)) < 0.5
        scores = [region_similarity(*pair) for pair in masks]
        for score in scores:
            state = metric.update(state, category, video, score)
        expected.setdefault(category, []).append(np.mean(scores))
        every += scores
    found = metric.compute(state)
    assert {name: part.mean for name, part in found.groups.items()} == pytest.approx(
        {name: np.mean(means) for name, means in expected.items()}
    )
    assert found.mean == pytest.approx(np.mean([np.mean(means) for means in expected.values()]))
    assert abs(found.mean - np.mean(every)) > 1e-4
