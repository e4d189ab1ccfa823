"""DMM-Net's matching layer: projected gradient steps on the linear programme of the assignment problem."""

from functools import partial
from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxvos.solvers._checks import check_choice, check_cost, check_positive
from jaxvos.solvers._dykstra import dykstra
from jaxvos.solvers._projections import project_columns, project_columns_printed, project_nonnegative, project_rows
from jaxvos.solvers._solution import MatchingProblem, MatchingSolution, matching_problem, matching_solution

__all__ = ["pgd_matching"]


def _best_pairs(problem: MatchingProblem) -> Float[Array, "n k"]:
    """The released start: each row takes the cheapest of the columns whose cheapest row it is, else the first column.

    Rows may collide on the first column. Of equal costs the first counts.
    """
    cost, rows, cols, _ = problem
    if not cost.size:
        return cost
    alive = rows[:, None] & cols
    worst = jnp.where(alive, cost, -jnp.inf).max(initial=-jnp.inf)
    best = jnp.where(alive, cost, jnp.inf).argmin(0)
    kept = jnp.where(jnp.arange(len(rows))[:, None] == best, cost, worst)
    column = jnp.where(alive, kept, jnp.inf).argmin(1)
    return jnp.where(alive & (jnp.arange(len(cols)) == column[:, None]), 1, 0).astype(cost.dtype)


def pgd_matching(
    cost: Float[Array, "n m"],
    *,
    alpha: float | Float[Array, ""] = 0.1,
    num_iters: int = 40,
    num_projections: int = 5,
    variant: Literal["per_column", "printed", "released"] = "per_column",
    averaged: bool = True,
    row_mask: Bool[Array, "n"] | None = None,
    col_mask: Bool[Array, "m"] | None = None,
    null_cost: float | Float[Array, ""] | None = None,
) -> MatchingSolution:
    """Matches rows to columns at the least cost by projected gradient steps, each projected by Dykstra's rounds.

    Solves `min <C, X>` over `X >= 0` whose rows sum to 1 and whose columns sum to at most 1, the relaxed assignment
    problem (DMM-Net, ICCV 2019, section 3.2 and algorithm 1). From uniform rows, every step takes `alpha C` away
    and goes through rows, columns and `X >= 0` `num_projections` times, with corrections that start at zero; the answer
    is the mean of the iterates. Where rows outnumber columns, or `null_cost` is given, a no-match column joins in.

    The 40 x 5 steps of the paper are a heuristic: they end neither at the optimum nor inside the set. Entries are
    not negative, but row sums are off by 0.2-0.3 for costs in [-1, 1] (`error` tells), and the plan may cost less than
    any matching. `alpha num_iters` acts as an inverse temperature. The plan goes to the optimum with more steps and
    enough rounds for each (theorem 1 of the paper), the faster the further the best matching is ahead of the second.

    The gradient is the exact derivative of the steps that were made, with respect to `cost`, `alpha` and `null_cost`,
    in both modes. Rounds are piecewise linear: the backward pass only keeps which piece each entry was on, one byte for
    each round. The gradient of the last iterate fades as the plan reaches a vertex.

    Args:
      cost: `(n, m)` costs. Half precision is computed, and answered, in float32.
      alpha: step size; may be traced.
      num_iters: gradient steps, at least one.
      num_projections: Dykstra's rounds after each of them, at least one.
      variant: `"per_column"`, as above; `"printed"`, with the column rule that the paper prints, see
        `project_columns_printed`; `"released"`, what the released layer computes, without its early stop: it starts at
        the best pairs, keeps the corrections from step to step, goes through `X >= 0`, columns and rows in this order,
        and takes the mean of the start and of the points *before* each projection, so that the rows of the mean sum to
        more than 1. (Where rows are as many as columns or more it fills up with columns of zero cost to one more than
        rows; here the no-match column serves.)
      averaged: whether to return the mean, or else the last iterate.
      row_mask: rows that exist. The others get a plan of exactly zero, whatever their costs are (NaN included).
      col_mask: columns that exist.
      null_cost: what a row pays for no match, in units of the cost; by default rows go without one for nothing, and
        only as many as outnumber the columns.

    Returns:
      A `MatchingSolution`.

    Raises:
      ValueError: for an unknown `variant`, fewer than one step or round, an `alpha` that is not above zero, masks that
        do not fit the cost, or a cost that is not finite and not masked.
    """
    check_cost("pgd_matching", cost, row_mask, col_mask)
    check_choice("pgd_matching", "variant", variant, ("per_column", "printed", "released"))
    check_positive("pgd_matching", "alpha", alpha)
    for name, value in (("num_iters", num_iters), ("num_projections", num_projections)):
        if value < 1:
            raise ValueError(f"pgd_matching: {name} must be at least one, got {value}")
    problem = matching_problem(cost, row_mask=row_mask, col_mask=col_mask, null_cost=null_cost)
    alive = problem.row_mask[:, None] & problem.col_mask
    step = jnp.asarray(alpha, problem.cost.dtype) * problem.cost
    masks = {"row_mask": problem.row_mask, "col_mask": problem.col_mask}
    rows = partial(project_rows, **masks)
    rule = project_columns_printed if variant == "printed" else project_columns
    columns = partial(rule, cap=problem.capacity, **masks)
    released = variant == "released"
    if released:
        projections = project_nonnegative, columns, rows
        start = _best_pairs(problem)
        corrections, total = (jnp.zeros_like(start),) * 3, start
    else:
        projections = rows, columns, project_nonnegative
        start = jnp.where(alive, 1 / jnp.maximum(problem.col_mask.sum(), 1).astype(step.dtype), 0)
        corrections, total = None, jnp.zeros_like(start)

    def descend(state, _):
        x, corrections, total = state
        moved = jnp.where(alive, x - step, 0)
        solution = dykstra(moved, projections, num_iters=num_projections, corrections=corrections)
        kept = solution.corrections if released else None
        return (solution.x, kept, total + (moved if released else solution.x)), None

    (last, _, total), _ = lax.scan(descend, (start, corrections, total), length=num_iters)
    mean = total / (num_iters + 1 if released else num_iters)
    return matching_solution(problem, mean if averaged else last, cost.shape[1], num_iters)
