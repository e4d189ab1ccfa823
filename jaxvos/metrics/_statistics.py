"""Mean, recall and decay of a per-frame measure."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = ["Statistics", "statistics"]


class Statistics(NamedTuple):
    """A measure over the frames of an object, in three numbers.

    `mean` over the frames; `recall`, the share of frames above 0.5; `decay`, the mean of the first quarter of the
    frames less that of the last, which is high where a system loses its object.
    """

    mean: float
    recall: float
    decay: float


def statistics(values: Sequence[float] | Float[np.ndarray, "t"]) -> Statistics:
    """Returns mean, recall and decay of one value per frame.

    Equal to `db_statistics` of davis2017-evaluation, with its rules: frames that are NaN are left out of the means but
    count as frames not recalled; neighbouring quarters share a frame; the official frame numbers are unsigned bytes, so
    that from 256 frames on they wrap around and the decay is NaN or that of other frames. Numbers stay comparable
    with published ones that way; no DAVIS sequence is that long.

    Args:
        values: J or F of the frames in order; empty gives three NaN.
    """
    values = np.asarray(values, np.float64)
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(np.int64) - 1
    starts, stops = edges % 256, (edges + 1) % 256
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)  # the mean of nothing is NaN
        first, last = np.nanmean(values[starts[0]:stops[1]]), np.nanmean(values[starts[3]:stops[4]])
        mean, recall = np.nanmean(values), np.mean(values > 0.5)
    return Statistics(mean=float(mean), recall=float(recall), decay=float(first - last))
