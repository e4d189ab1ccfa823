"""What a solver refuses before it traces anything: shapes always, values where they are known."""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

__all__ = ["check_choice", "check_cost", "check_finite", "check_marginals", "check_mask", "check_positive", "known"]


def known(*values: Any) -> bool:
    """Whether the values can be looked at: not while a function of them is being traced."""
    return not any(isinstance(value, Tracer) for value in values)


def check_choice(name: str, what: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raises ValueError unless `value` is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}: unknown {what} {value!r}: {', '.join(map(repr, choices))}")


def check_positive(name: str, what: str, value: Any, *, zero: bool = False) -> None:
    """Raises ValueError unless `value`, a number or scalar array, is finite and above zero (or zero, where allowed)."""
    check_finite(name, what, value)
    if not known(value):
        return
    number = float(np.asarray(value))  # operators of a JAX array would be traced with whatever is being traced
    if not (number > 0 or (zero and number == 0)):
        raise ValueError(f"{name}: {what} must be {'zero or more' if zero else 'above zero'}, got {number}")


def check_finite(name: str, what: str, value: Any) -> None:
    """Raises ValueError unless `value`, a number or scalar array, is one finite number."""
    if np.shape(value) != ():
        raise ValueError(f"{name}: {what} must be one number, got shape {np.shape(value)}")
    if known(value) and not np.isfinite(float(np.asarray(value))):
        raise ValueError(f"{name}: {what} must be finite, got {float(np.asarray(value))}")


def check_mask(name: str, what: str, mask: Array | None, size: int, of: tuple[int, ...]) -> None:
    """Raises ValueError unless the mask is boolean with one entry for each of `size` rows or columns of an array."""
    if mask is None:
        return
    if mask.shape != (size,):
        raise ValueError(f"{name}: {what} has shape {mask.shape}, and the cost of shape {of} needs ({size},)")
    if mask.dtype != np.bool_:
        raise ValueError(f"{name}: {what} must be boolean, got {mask.dtype}")


def check_cost(name: str, cost: Array, row_mask: Array | None, col_mask: Array | None) -> None:
    """Raises ValueError unless the cost is a matrix, finite wherever it is not masked, and the masks fit it."""
    if cost.ndim != 2:
        raise ValueError(f"{name}: cost must have two axes (batches go through jax.vmap), got shape {cost.shape}")
    check_mask(name, "row_mask", row_mask, cost.shape[0], cost.shape)
    check_mask(name, "col_mask", col_mask, cost.shape[1], cost.shape)
    masks = [mask for mask in (row_mask, col_mask) if mask is not None]
    if not known(cost, *masks):
        return
    values = np.asarray(cost, np.float64)
    wrong = ~np.isfinite(values)
    if wrong.any():
        wrong &= True if row_mask is None else np.asarray(row_mask)[:, None]
        wrong &= True if col_mask is None else np.asarray(col_mask)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"{name}: cost[{row}, {column}] is {values[row, column]}, one of {wrong.sum()} of {values.size} entries "
            "that are not finite: mask pairs that do not exist by rows and columns, or give them a large cost"
        )


def check_marginals(
    name: str,
    a: Array | None,
    b: Array | None,
    shape: tuple[int, ...],
    row_mask: Array | None,
    col_mask: Array | None,
    *,
    sums: Literal["equal", "at most", "any"],
) -> None:
    """Raises ValueError unless the masses fit the cost, are not negative, and `a` sums to as much as `b`, or at most.

    A marginal left out is of uniform probabilities, so that the other one must sum to 1. Masked masses do not count.
    """
    totals, slack = [], 1e-3
    for what, masses, mask, size in (("a", a, row_mask, shape[0]), ("b", b, col_mask, shape[1])):
        if masses is None:
            totals.append(1.0)
            continue
        if masses.shape != (size,):
            raise ValueError(f"{name}: {what} has shape {masses.shape}, and the cost of shape {shape} needs ({size},)")
        if not known(masses, *([] if mask is None else [mask])):
            continue
        values = np.asarray(masses, np.float64)
        values = values if mask is None else values[np.asarray(mask)]
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"{name}: the masses {what} must be finite and not negative, the least is {values.min()}")
        totals.append(values.sum())
        slack = max(slack, 4 * float(jnp.finfo(masses.dtype).eps))
    if len(totals) < 2 or min(totals) == 0 or sums == "any":
        return
    excess = (totals[0] - totals[1]) / max(totals)
    if excess > slack or (sums == "equal" and excess < -slack):
        raise ValueError(
            f"{name}: a sums to {totals[0]:.6g} and b to {totals[1]:.6g}: scale one of them, or let masses remain by a "
            "dustbin or soft marginals (tau_a, tau_b)"
        )
