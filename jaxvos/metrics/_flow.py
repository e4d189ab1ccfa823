"""How far estimated optical flow is from the true one: end-point error, outliers, and the angle between them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from jaxvos.errors import InputError
from jaxvos.metrics._metric import Metric, add_states, ratio, require_same_size

__all__ = ["FlowScores", "FlowState", "angular_error", "end_point_error", "flow_metric"]

_UNKNOWN = 1e9  # Middlebury marks unknown vectors by components beyond this
_SLOW, _FAST = 10, 40  # pixels per frame
_Flow = Float[np.ndarray, "_ _ 2"]
_Where = Bool[np.ndarray, "_ _"]


class FlowState(NamedTuple):
    """Counts and sums over pixels.

    `pixels` and `error` are those of all valid pixels, the matched, the unmatched, the slow, the medium and the fast;
    `outliers` counts the errors above 1, 3 and 5 pixels and those that are outliers to KITTI.
    """

    pixels: Int64[np.ndarray, "6"]
    error: Float[np.ndarray, "6"]
    outliers: Int64[np.ndarray, "4"]
    angle: np.float64


class FlowScores(NamedTuple):
    """Scores over all valid pixels of all frames; NaN where there are none."""

    epe: float  # mean end-point error, pixels
    epe_matched: float  # of the pixels that the next frame shows too, and
    epe_unmatched: float  # of the occluded, as Sintel has them; of frames given with `occluded` alone
    epe_slow: float  # true speed below 10 pixels per frame (Sintel's s0-10),
    epe_medium: float  # from 10 to 40 (s10-40),
    epe_fast: float  # and above (s40+)
    out_1px: float  # share of pixels with an end-point error above 1 pixel
    out_3px: float
    out_5px: float
    fl_all: float  # above 3 pixels and above 5 % of the true speed (KITTI 2015)
    angular: float  # mean angular error, degrees (Barron et al., 1994)


def flow_metric() -> Metric:
    """Makes the scores of optical flow: `update(state, predicted, truth, *, valid=None, occluded=None)`.

    All valid pixels of all frames weigh the same, as in KITTI's rates of outliers. Some tables give the mean
    over frames of each frame's error: that is `grouped(flow_metric())` with the frame as the name.

    `update` takes flow `(dx, dy)` in pixels and, by pixel, where the truth is valid and where it is occluded in the
    next frame. Vectors that are not finite or beyond 1e9 are unknown, whatever `valid` says. It raises `InputError` for
    arrays that differ in size, and for predictions that are not finite where the truth is valid.

    Source: Baker et al., IJCV 2011; Butler et al., ECCV 2012; Menze and Geiger, CVPR 2015.
    """

    def zero() -> FlowState:
        return FlowState(np.zeros(6, np.int64), np.zeros(6), np.zeros(4, np.int64), np.float64(0))

    def update(
        state: FlowState, predicted: _Flow, truth: _Flow, *, valid: _Where | None = None, occluded: _Where | None = None
    ) -> FlowState:
        require_same_size(predicted, truth, "predicted flow")
        for what, mask in (("valid mask", valid), ("occlusion mask", occluded)):
            if mask is not None:
                require_same_size(mask, truth, what)
        known = np.all(np.abs(truth) < _UNKNOWN, axis=-1)  # false for NaN too
        known = known if valid is None else known & valid
        _require_finite(predicted, known)
        predicted, truth = predicted[known], truth[known]
        error, speed = end_point_error(predicted, truth), _length(truth.astype(np.float64))
        every = np.ones(error.shape, bool)
        hidden, seen = (~every, ~every) if occluded is None else (occluded[known], ~occluded[known])
        slow, fast = speed < _SLOW, speed > _FAST
        parts = np.stack([every, seen, hidden, slow, ~slow & ~fast, fast])
        outliers = np.stack([error > 1, error > 3, error > 5, (error > 3) & (error > 0.05 * speed)])
        return add_states(
            state,
            FlowState(parts.sum(1), parts @ error, outliers.sum(1), np.degrees(angular_error(predicted, truth).sum())),
        )

    def compute(state: FlowState) -> FlowScores:
        shares = ratio(state.outliers, state.pixels[0])
        return FlowScores(
            *ratio(state.error, state.pixels).tolist(), *shares.tolist(), angular=ratio(state.angle, state.pixels[0])
        )

    return Metric(zero, update, add_states, compute)


def end_point_error(
    predicted: Float[np.ndarray, "*n k 2"], truth: Float[np.ndarray, "*n k 2"]
) -> Float[np.ndarray, "*n k"]:
    """Returns the distance of each predicted vector to the true one, in pixels and in double precision."""
    return _length(predicted.astype(np.float64) - truth)


def angular_error(
    predicted: Float[np.ndarray, "*n k 2"], truth: Float[np.ndarray, "*n k 2"]
) -> Float[np.ndarray, "*n k"]:
    """Returns the angle in radians between (dx, dy, 1) as predicted and as it is.

    From sine and cosine, so that equal vectors have none; the arc cosine alone is wrong by up to 1e-8 there.
    """
    (x, y), (u, v) = (np.moveaxis(flow.astype(np.float64), -1, 0) for flow in (predicted, truth))
    sine = np.sqrt((x - u) ** 2 + (y - v) ** 2 + (x * v - y * u) ** 2)
    return np.arctan2(sine, x * u + y * v + 1)


def _length(vectors: Float[np.ndarray, "*n k 2"]) -> Float[np.ndarray, "*n k"]:
    return np.sqrt(vectors[..., 0] ** 2 + vectors[..., 1] ** 2)  # many times as fast as a norm along so short an axis


def _require_finite(predicted: _Flow, known: _Where) -> None:
    wrong = ~np.isfinite(predicted).all(-1) & known
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise InputError(
            f"the predicted flow is not finite at {np.count_nonzero(wrong)} of "
            f"{np.count_nonzero(known)} valid pixels, the first in row {row}, column {column}: predict a "
            "vector everywhere, or leave those pixels out of `valid`"
        )
