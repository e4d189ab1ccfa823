"""What every matcher answers, and the no-match column that makes every matching problem feasible."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxvos.solvers._checks import check_finite

__all__ = ["MatchingProblem", "MatchingSolution", "matching_problem", "matching_solution"]

_FEASIBLE = 1e-3  # what `converged` means where a solver does not say


class MatchingSolution(NamedTuple):
    """A matching of rows to columns, whole or soft.

    Attributes:
      plan: how much of each row goes to each column, without the no-match column; exactly 0 where masked.
      assignment: the column that holds most of the row, -1 where the no-match column holds more and for masked rows.
        Every row is asked alone: where a soft plan gives two rows the same column, both name it.
      matched: whether the row has a column.
      cost: the sum of `cost` over the pairs of the assignment, plus `null_cost`, where given, for every row that exists
        and has none. Its gradient is that at a constant assignment.
      error: the largest violation of a constraint by the plan, no-match column included: a row sum other than 1, a
        column sum above its capacity, a negative entry.
      num_iters: iterations made.
      converged: whether the solver reached its tolerance; without one, whether `error` is at most 1e-3.
    """

    plan: Float[Array, "n m"]
    assignment: Int[Array, "n"]
    matched: Bool[Array, "n"]
    cost: Float[Array, ""]
    error: Float[Array, ""]
    num_iters: Int[Array, ""]
    converged: Bool[Array, ""]


class MatchingProblem(NamedTuple):
    """`min <cost, X>` over `X >= 0` with rows that sum to 1 and columns that hold at most `capacity`.

    Attributes:
      cost: `(n, k)` in float32 or wider, 0 where masked; `k` is `m`, or `m + 1` with the no-match column last.
      row_mask: rows that exist.
      col_mask: columns that exist: the no-match column does where its capacity is above zero.
      capacity: 1, for the no-match column as many rows as it may take; 0 where masked.
    """

    cost: Float[Array, "n k"]
    row_mask: Bool[Array, "n"]
    col_mask: Bool[Array, "k"]
    capacity: Float[Array, "k"]


def matching_problem(
    cost: Float[Array, "n m"],
    *,
    row_mask: Bool[Array, "n"] | None = None,
    col_mask: Bool[Array, "m"] | None = None,
    null_cost: float | Float[Array, ""] | None = None,
) -> MatchingProblem:
    """Appends the no-match column, unless the shapes alone show that no row can need it.

    Args:
      cost: `(n, m)` costs, of any value (NaN included) where masked.
      row_mask: rows that exist.
      col_mask: columns that exist.
      null_cost: what a row pays for having no column; that column then takes any number of rows. By default it costs
        nothing and takes exactly the rows that outnumber the columns: none, where there are columns enough.

    Returns:
      A `MatchingProblem`, feasible whatever the masks are.
    """
    if null_cost is not None:
        check_finite("match", "null_cost", null_cost)
    n, m = cost.shape
    rows = jnp.ones(n, bool) if row_mask is None else row_mask
    cols = jnp.ones(m, bool) if col_mask is None else col_mask
    cost = jnp.where(rows[:, None] & cols, cost, 0).astype(jnp.promote_types(cost.dtype, jnp.float32))
    capacity = cols.astype(cost.dtype)
    if null_cost is None and col_mask is None and n <= m:
        return MatchingProblem(cost, rows, cols, capacity)
    spare = rows.sum() if null_cost is not None else jnp.maximum(rows.sum() - cols.sum(), 0)
    null = jnp.where(rows, jnp.asarray(0 if null_cost is None else null_cost, cost.dtype), 0)
    return MatchingProblem(
        jnp.concatenate([cost, null[:, None]], axis=1),
        rows,
        jnp.append(cols, spare > 0),
        jnp.append(capacity, spare.astype(cost.dtype)),
    )


def matching_solution(
    problem: MatchingProblem,
    plan: Float[Array, "n k"],
    num_columns: int,
    num_iters: int | Int[Array, ""],
    converged: Bool[Array, ""] | None = None,
) -> MatchingSolution:
    """The answer that a plan over the columns of `problem` stands for.

    Args:
      problem: what was solved.
      plan: its plan; entries outside the masks are taken for 0.
      num_columns: columns of the cost before the no-match column was appended.
      num_iters: iterations made.
      converged: whether the solver says so; by default, whether the plan is feasible to 1e-3.

    Returns:
      A `MatchingSolution`.
    """
    cost, rows, cols, capacity = problem
    n, m = plan.shape[0], num_columns
    alive = rows[:, None] & cols
    plan = jnp.where(alive, plan, 0)
    ranked = jnp.where(alive, plan, -jnp.inf)
    # A column of -inf behind the others answers for rows that have none at all, whatever the shape.
    best = jnp.concatenate([ranked, jnp.full((n, 1), -jnp.inf)], axis=1).argmax(1).astype(jnp.int32)
    matched = rows & (best < m)
    assignment = jnp.where(matched, best, -1)
    paid = jnp.where(jnp.arange(plan.shape[1]) == best[:, None], cost, 0).sum()
    violations = (
        jnp.where(rows, jnp.abs(plan.sum(1) - 1), 0),
        jnp.where(cols, plan.sum(0) - capacity, 0),
        -plan.ravel(),
    )
    error = lax.stop_gradient(jnp.concatenate(violations).max(initial=0))
    if converged is None:
        converged = error <= _FEASIBLE
    count = jnp.asarray(num_iters, jnp.int32)
    return MatchingSolution(plan[:, :m], assignment, matched, paid, error, count, converged)
