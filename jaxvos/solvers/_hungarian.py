"""Whole assignments: the cheapest of all, and the one that takes the cheapest pair first."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float
from optax.assignment import hungarian_algorithm

from jaxvos.solvers._checks import check_cost
from jaxvos.solvers._solution import MatchingProblem, MatchingSolution, matching_problem, matching_solution

__all__ = ["greedy", "hungarian"]


def _alive(problem: MatchingProblem) -> Bool[Array, "n k"]:
    return problem.row_mask[:, None] & problem.col_mask


def _unfolded(problem: MatchingProblem, num_columns: int) -> Float[Array, "n k"]:
    """Costs in which every row has a column to itself, with infinity, not a large number, for pairs that do not exist.

    Behind the columns come `n` copies of the no-match column. Rows that exist may take any of the first `capacity`
    copies that belong to such rows; the others take their own, for nothing.
    """
    cost, rows, _, capacity = problem
    n, m = cost.shape[0], num_columns
    columns = jnp.where(_alive(problem), cost, jnp.inf)[:, :m]
    null, spare = (cost[:, m:], capacity[m]) if capacity.size > m else (jnp.inf, 0)
    taken = rows & (jnp.cumsum(rows) <= spare)
    copies = jnp.where(rows[:, None] & taken, null, jnp.where(jnp.diag(~rows), 0, jnp.inf))
    return jnp.concatenate([columns, jnp.broadcast_to(copies, (n, n)).astype(cost.dtype)], axis=1)


def hungarian(
    cost: Float[Array, "n m"],
    *,
    row_mask: Bool[Array, "n"] | None = None,
    col_mask: Bool[Array, "m"] | None = None,
    null_cost: float | Float[Array, ""] | None = None,
) -> MatchingSolution:
    """The assignment of rows to columns of the least total cost, exactly.

    Each row gets one column and each column at most one row; where rows outnumber columns, the cheapest choice of rows
    goes without (SciPy's `linear_sum_assignment`, in both shapes). With `null_cost` rows go without wherever that is
    cheaper. Shortest augmenting paths, one for each row (Kuhn 1955; optax's implementation), under `jit` and `vmap`
    too. Which of several assignments of the same cost is found is not specified.

    The plan is constant around almost every cost, and its gradient is zero; that of `MatchingSolution.cost` is not.

    Args:
      cost: `(n, m)` costs. Half precision is computed in float32.
      row_mask: rows that exist. The others have no column, whatever their costs are (NaN included).
      col_mask: columns that exist.
      null_cost: what a row pays for no match, in units of the cost; by default rows go without one for nothing, and
        only as many as outnumber the columns.

    Returns:
      A `MatchingSolution` with a plan of zeros and ones. It has converged unless a cost that is not masked was not
      finite while nothing could be checked; then the assignment means nothing.

    Raises:
      ValueError: for masks that do not fit the cost, or a cost that is not finite and not masked.
    """
    check_cost("hungarian", cost, row_mask, col_mask)
    problem = matching_problem(cost, row_mask=row_mask, col_mask=col_mask, null_cost=null_cost)
    fixed = lax.stop_gradient(problem)
    n, m = cost.shape
    sound = jnp.isfinite(fixed.cost).all()
    # Costs that are not finite would let the search for a path run forever.
    fixed = fixed._replace(cost=jnp.where(sound, fixed.cost, 0))
    rows, columns = hungarian_algorithm(_unfolded(fixed, m))
    column = jnp.zeros(n, columns.dtype).at[rows].set(columns)
    plan = jnp.minimum(column, m)[:, None] == jnp.arange(fixed.cost.shape[1])
    return matching_solution(problem, plan.astype(fixed.cost.dtype), m, n, sound)


def greedy(
    cost: Float[Array, "n m"],
    *,
    row_mask: Bool[Array, "n"] | None = None,
    col_mask: Bool[Array, "m"] | None = None,
    null_cost: float | Float[Array, ""] | None = None,
) -> MatchingSolution:
    """Takes the cheapest pair, then the cheapest of the rows and columns that are left, and so on.

    Of equal pairs the first in row-major order is taken. The total may be far above that of `hungarian`, which takes
    some twice as long. The gradient of the plan is zero; that of `MatchingSolution.cost` is not.

    Args:
      cost: `(n, m)` costs. Half precision is computed in float32.
      row_mask: rows that exist. The others have no column, whatever their costs are (NaN included).
      col_mask: columns that exist.
      null_cost: pairs that cost more are not taken; by default pairs are taken until rows or columns run out.

    Returns:
      A `MatchingSolution` with a plan of zeros and ones.

    Raises:
      ValueError: for masks that do not fit the cost, or a cost that is not finite and not masked.
    """
    check_cost("greedy", cost, row_mask, col_mask)
    problem = matching_problem(cost, row_mask=row_mask, col_mask=col_mask, null_cost=null_cost)
    n, m = cost.shape
    fixed = lax.stop_gradient(problem.cost)
    real, limit = fixed[:, :m], jnp.inf if null_cost is None else fixed[:, m:]
    allowed = _alive(problem)[:, :m] & (real <= limit)

    def take(plan: Bool[Array, "n m"], _: None) -> tuple[Bool[Array, "n m"], None]:
        left = allowed & ~plan.any(1)[:, None] & ~plan.any(0)
        cheapest = jnp.where(left, real, jnp.inf).argmin()
        return plan | (left & (jnp.arange(n * m).reshape(n, m) == cheapest)), None

    plan = jnp.zeros((n, m), bool)
    if plan.size:
        plan, _ = lax.scan(take, plan, length=min(n, m))
    if problem.cost.shape[1] > m:
        plan = jnp.concatenate([plan, ~plan.any(1, keepdims=True)], axis=1)
    return matching_solution(problem, plan.astype(real.dtype), m, min(n, m))
