"""How well a soft map finds the salient object: mean absolute error, F-measures, and the structure measure."""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jaxvos.errors import InputError
from jaxvos.metrics._metric import Metric, add_states, ratio, require_same_size

__all__ = [
    "SaliencyScores",
    "SaliencyState",
    "adaptive_f_measure",
    "f_measure_curve",
    "mean_absolute_error",
    "min_max_stretch",
    "precision_recall_curve",
    "saliency_metric",
    "structure_measure",
]

_BETA_SQUARED = 0.3
_Map = Float[np.ndarray, "_ _"] | UInt8[np.ndarray, "_ _"]
_Mask = Bool[np.ndarray, "_ _"]
_Curve = Float[np.ndarray, "256"]


class SaliencyState(NamedTuple):
    """Sums over images of what `SaliencyScores` averages."""

    images: np.int64
    error: np.float64
    image_max_f: np.float64
    adaptive_f: np.float64
    structure: np.float64
    precision: _Curve
    recall: _Curve
    f_curve: _Curve


class SaliencyScores(NamedTuple):
    """Scores of a set of images. Published tables call three different numbers the maximum F-measure."""

    mae: float
    max_f: float  # of the mean curve: images share one threshold
    image_max_f: float  # mean of each image's maximum: each has its own threshold, so this is never below `max_f`
    pooled_max_f: float  # of the F that mean precision and mean recall give
    mean_f: float  # over images and thresholds
    adaptive_f: float
    structure: float
    precision: _Curve  # means over images, by threshold
    recall: _Curve
    f_curve: _Curve


def saliency_metric() -> Metric:
    """Makes the saliency scores of a set of images: `update(state, predicted, truth)` counts one image.

    All images weigh the same, whatever video they are from; `grouped` averages per video first. An image
    without an object has F = 0 and counts, as in PySODMetrics. That tool stretches every map before it judges it, which
    moves MAE and curves: apply `min_max_stretch` for its numbers.

    `update` takes a map (see `precision_recall_curve`) and a mask of its size; others raise `InputError`.
    """

    def zero() -> SaliencyState:
        error, image_max, adaptive, structure = np.zeros(4)
        return SaliencyState(np.int64(0), error, image_max, adaptive, structure, *np.zeros((3, 256)))

    def update(state: SaliencyState, predicted: _Map, truth: _Mask) -> SaliencyState:
        precision, recall = precision_recall_curve(predicted, truth)
        f_curve = _f_measure(precision, recall)
        error, adaptive, structure = (
            np.float64(measure(predicted, truth))
            for measure in (mean_absolute_error, adaptive_f_measure, structure_measure)
        )
        return add_states(
            state, SaliencyState(np.int64(1), error, f_curve.max(), adaptive, structure, precision, recall, f_curve)
        )

    def compute(state: SaliencyState) -> SaliencyScores:
        error, image_max, adaptive, structure, precision, recall, f_curve = (
            ratio(total, state.images) for total in state[1:]
        )
        return SaliencyScores(
            mae=error,
            max_f=float(f_curve.max()),
            image_max_f=image_max,
            pooled_max_f=float(_f_measure(precision, recall).max()),
            mean_f=float(f_curve.mean()),
            adaptive_f=adaptive,
            structure=structure,
            precision=precision,
            recall=recall,
            f_curve=f_curve,
        )

    return Metric(zero, update, add_states, compute)


def mean_absolute_error(predicted: _Map, truth: _Mask) -> float:
    """Returns the mean absolute difference of a map in [0, 1], or of bytes over 255, and a mask (Perazzi et al., 2012).

    Raises:
        InputError: as `precision_recall_curve`.
    """
    return float(np.abs(_soft(predicted, truth) - truth).mean())


def precision_recall_curve(predicted: _Map, truth: _Mask) -> tuple[_Curve, _Curve]:
    """Returns precision and recall of a map binarised at each of 256 thresholds (Achanta et al., 2009).

    Threshold t calls salient what is at least t / 255. Codes with 255 thresholds, evenly spaced from 0 to 1, have the
    same curves on bytes without the entry 1.

    Args:
        predicted: bytes, or floats in [0, 1], which are not rounded to bytes.
        truth: the salient object.

    Returns:
        Precision and recall for t = 0 ... 255, each 0 where it would be 0 / 0.

    Raises:
        InputError: for a map of another size than the mask, or with values outside of [0, 1].
    """
    _check(predicted, truth)
    levels = predicted if predicted.dtype == np.uint8 else (predicted * 255).astype(np.uint8)
    counts = np.bincount(levels.ravel() + 256 * truth.ravel().astype(np.int64), minlength=512).reshape(2, 256)
    below, hit = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    return hit / np.maximum(below + hit, 1), hit / max(hit[0], 1)


def f_measure_curve(predicted: _Map, truth: _Mask) -> _Curve:
    """Returns the F-measure of a map at each of 256 thresholds: weighted harmonic means, with beta^2 = 0.3.

    Thresholds and errors are those of `precision_recall_curve`. F is 0 where precision and recall are.
    """
    return _f_measure(*precision_recall_curve(predicted, truth))


def adaptive_f_measure(predicted: _Map, truth: _Mask) -> float:
    """Returns the F-measure of a map binarised at twice its mean, and at 1 if that is more (Achanta et al., 2009).

    Raises:
        InputError: as `precision_recall_curve`.
    """
    soft = _soft(predicted, truth)
    drawn = soft >= min(2 * soft.mean(), 1)
    hit = np.count_nonzero(drawn & truth)
    precision, recall = hit / max(np.count_nonzero(drawn), 1), hit / max(np.count_nonzero(truth), 1)
    return _f_measure(np.array([precision]), np.array([recall])).item()


def structure_measure(predicted: _Map, truth: _Mask) -> float:
    """Returns the structure measure S of a map (Fan et al., ICCV 2017), with equal weights of objects and regions.

    The object part wants high and even values on the object and low and even ones off it; the region part is the
    structural similarity of the four quadrants around the object's centre. Where the mask is empty S is one
    minus the mean of the map, where it is full the mean.

    Raises:
        InputError: as `precision_recall_curve`.
    """
    soft = _soft(predicted, truth)
    share = float(truth.mean())
    if share in (0, 1):
        return float(soft.mean() if share else 1 - soft.mean())
    objects = share * _evenness(soft[truth]) + (1 - share) * _evenness(1 - soft[~truth])
    return max(0.0, 0.5 * objects + 0.5 * _region_similarity(soft, truth.astype(np.float64)))


def min_max_stretch(predicted: _Map) -> Float[np.ndarray, "_ _"]:
    """Returns a map with its values stretched to [0, 1], as some tools do before they judge; constant maps stay."""
    soft = predicted.astype(np.float64) / (255 if predicted.dtype == np.uint8 else 1)
    low, high = soft.min(), soft.max()
    return (soft - low) / (high - low) if high > low else soft


def _check(predicted: _Map, truth: _Mask) -> None:
    require_same_size(predicted, truth, "saliency map")
    if predicted.dtype != np.uint8 and not (predicted.min() >= 0 and predicted.max() <= 1):
        raise InputError(
            f"saliency runs from {predicted.min():.4g} to {predicted.max():.4g}: give probabilities in [0, 1], or bytes"
        )


def _soft(predicted: _Map, truth: _Mask) -> Float[np.ndarray, "_ _"]:
    _check(predicted, truth)
    return predicted / 255 if predicted.dtype == np.uint8 else predicted.astype(np.float64)


def _f_measure(precision: Float[np.ndarray, "n"], recall: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    weighted = _BETA_SQUARED * precision + recall
    return (1 + _BETA_SQUARED) * precision * recall / np.where(weighted == 0, 1, weighted)


def _evenness(values: Float[np.ndarray, "n"]) -> float:
    """Returns how near to 1 values are, and to each other."""
    mean = values.mean()
    return 2 * mean / (mean**2 + 1 + (values.std(ddof=1) if values.size > 1 else 0))


def _region_similarity(soft: Float[np.ndarray, "h w"], truth: Float[np.ndarray, "h w"]) -> float:
    """Returns the similarity of the quadrants around the centre of the object, each weighed by its area."""
    row, column = (int(np.floor(where.mean() + 1.5)) for where in np.nonzero(truth))
    parts = itertools.product((slice(row), slice(row, None)), (slice(column), slice(column, None)))
    return sum(truth[part].size * _similarity(soft[part], truth[part]) for part in parts) / truth.size


def _similarity(first: Float[np.ndarray, "h w"], second: Float[np.ndarray, "h w"]) -> float:
    """Returns the structural similarity of two windows without its constants, 1 where both are flat and 0 if empty.

    Flatness is seen in the values: the rounding of a mean would make a flat window look uneven, and the result 0.
    """
    if not first.size:
        return 0.0
    if first.min() == first.max() and second.min() == second.max():
        return 1.0
    a, b = first.mean(), second.mean()
    spread = ((first - a) ** 2).sum() + ((second - b) ** 2).sum()
    return float(4 * a * b * ((first - a) * (second - b)).sum() / ((a**2 + b**2) * spread))
