import numpy as np
import pytest

from jaxvos.metrics import statistics


def test_by_hand():
    found = statistics([1.0, 0.9, 0.5, 0.4, 0.2])  # quarters share their frames: 0-1, 1-2, 2-3, 3-4
    assert found.mean == pytest.approx(0.6)
    assert found.recall == pytest.approx(0.4)  # 0.5 itself is not above 0.5
    assert found.decay == pytest.approx(0.95 - 0.3)


def test_one_frame_does_not_decay():
    assert statistics([0.7]) == (0.7, 1.0, 0.0)


def test_missing_frames_leave_the_mean_but_not_the_recall():
    found = statistics([0.8, np.nan, 0.6, 0.6, 0.6])
    assert found.mean == pytest.approx(0.65)
    assert found.recall == pytest.approx(0.8)
    assert found.decay == pytest.approx(0.2)


def test_no_frames():
    found = statistics(np.zeros(0))
    assert np.isnan(found.mean) and np.isnan(found.decay)


def test_official_frame_numbers_are_bytes():
    values = np.linspace(1, 0, 300)
    assert np.isnan(statistics(values).decay)
    assert statistics(values[:255]).decay > 0
