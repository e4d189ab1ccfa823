import numpy as np

from jaxvos.metrics import proposal_recall, region_similarity


def test_the_best_proposal_of_each_object_counts():
    rng = np.random.default_rng(0)
    proposals, objects = rng.random((7, 9, 11)) < 0.5, rng.random((3, 9, 11)) < 0.5
    expected = np.array([max(region_similarity(true, found) for found in proposals) for true in objects])
    threshold = float(np.sort(expected)[1])
    recall = proposal_recall(proposals, objects, threshold=threshold - 1e-6)
    np.testing.assert_allclose(recall.best_iou, expected, rtol=1e-6)
    assert recall.recalled.sum() == 2
    assert not proposal_recall(proposals, objects, threshold=0.9).recalled.any()


def test_objects_that_are_not_seen_are_left_out():
    objects = np.zeros((3, 4, 4), bool)
    objects[1, 1:3] = True
    assert proposal_recall(objects[1:2], objects).best_iou.tolist() == [1.0]
    assert proposal_recall(objects[:0], objects).best_iou.tolist() == [0.0]
    assert proposal_recall(objects, objects[:1]).best_iou.tolist() == []
    assert proposal_recall(objects[:1], objects).recalled.tolist() == [False]
