"""One door to the matchers, and the entropic one."""

import inspect
from functools import partial
from typing import Any, Literal

from jaxtyping import Array, Bool, Float

from jaxvos.solvers._checks import check_choice, check_cost
from jaxvos.solvers._hungarian import greedy, hungarian
from jaxvos.solvers._pgd import pgd_matching
from jaxvos.solvers._qp import qp_matching
from jaxvos.solvers._sinkhorn import sinkhorn
from jaxvos.solvers._solution import MatchingSolution, matching_problem, matching_solution

__all__ = ["match", "sinkhorn_matching"]


def sinkhorn_matching(
    cost: Float[Array, "n m"],
    *,
    epsilon: float | Float[Array, ""] = 0.05,
    num_iters: int = 50,
    tolerance: float | None = None,
    diff: Literal["unroll", "implicit"] = "unroll",
    row_mask: Bool[Array, "n"] | None = None,
    col_mask: Bool[Array, "m"] | None = None,
    null_cost: float | Float[Array, ""] | None = None,
) -> MatchingSolution:
    """Matches rows to columns at the least cost less entropy: rows sum to 1, columns hold at most 1.

    Solves `min <C, X> - epsilon H(X)` over such plans by `sinkhorn` with capped columns. Rows sum to 1 after any number
    of iterations; `error` says by how much columns are over. Every pair holds some mass. The plan goes to the optimal
    assignment as `epsilon` goes to 0, in more and more iterations: where few columns are spare it is off by 1e-2 after
    50 of them at the default `epsilon` and costs in [-1, 1]. Where rows outnumber columns, or `null_cost` is given, a
    no-match column joins in. Gradients are those of `sinkhorn`, with respect to `cost`, `epsilon` and `null_cost`.

    Args:
      cost: `(n, m)` costs. Half precision is computed, and answered, in float32.
      epsilon: strength of the entropy, in units of the cost; may be traced.
      num_iters: iterations, at least one; the most of them where `tolerance` is given.
      tolerance: as in `sinkhorn`.
      diff: as in `sinkhorn`.
      row_mask: rows that exist. The others get a plan of exactly zero, whatever their costs are (NaN included).
      col_mask: columns that exist.
      null_cost: what a row pays for no match, in units of the cost; by default rows go without one for nothing, and
        only as many as outnumber the columns.

    Returns:
      A `MatchingSolution`.

    Raises:
      ValueError: for an `epsilon` that is not above zero, fewer than one iteration, an unknown `diff`, masks that do
        not fit the cost, or a cost that is not finite and not masked.
    """
    check_cost("sinkhorn_matching", cost, row_mask, col_mask)
    problem = matching_problem(cost, row_mask=row_mask, col_mask=col_mask, null_cost=null_cost)
    ones = problem.row_mask.astype(problem.cost.dtype)
    steps = {"epsilon": epsilon, "num_iters": num_iters, "tolerance": tolerance, "diff": diff}
    solution = sinkhorn(problem.cost, ones, problem.capacity, capped=True, **steps)
    converged = None if tolerance is None else solution.converged
    return matching_solution(problem, solution.plan, cost.shape[1], solution.num_iters, converged)


_METHODS = {
    "pgd": pgd_matching,
    "pgd_released": partial(pgd_matching, variant="released"),
    "qp": qp_matching,
    "sinkhorn": sinkhorn_matching,
    "hungarian": hungarian,
    "greedy": greedy,
}


def _options(method: str) -> list[str]:
    function = _METHODS[method]
    shared = inspect.signature(match).parameters.keys()
    bound = function.keywords if isinstance(function, partial) else {}
    return [name for name in inspect.signature(function).parameters if name not in shared and name not in bound]


def match(
    cost: Float[Array, "n m"],
    *,
    method: Literal["pgd", "pgd_released", "qp", "sinkhorn", "hungarian", "greedy"] = "pgd",
    row_mask: Bool[Array, "n"] | None = None,
    col_mask: Bool[Array, "m"] | None = None,
    null_cost: float | Float[Array, ""] | None = None,
    **options: Any,
) -> MatchingSolution:
    """Matches rows (templates) to columns (proposals) at the least cost, by the method of that name.

    All methods answer `min <C, X>` over plans `X >= 0` whose rows sum to 1 and whose columns hold at most 1; they
    differ in how far they go, how soft the plan is and what its gradient is: see the function of each.

    Args:
      cost: `(n, m)` costs.
      method: `"pgd"`, DMM-Net's projected gradient steps as published (`pgd_matching`); `"pgd_released"`, as released;
        `"qp"`, one projection (`qp_matching`); `"sinkhorn"`, entropic (`sinkhorn_matching`); `"hungarian"`, the exact
        optimum; `"greedy"`, the cheapest pair first. The last two give the plan no gradient.
      row_mask: rows that exist.
      col_mask: columns that exist.
      null_cost: what a row pays for no match, in units of the cost; by default rows go without one for nothing, and
        only as many as outnumber the columns.
      **options: the other keyword arguments of that method's function.

    Returns:
      A `MatchingSolution`.

    Raises:
      ValueError: for an unknown method, and what the method refuses.
      TypeError: for an option that the method does not have.
    """
    check_choice("match", "method", method, tuple(_METHODS))
    known = _options(method)
    for option in options:
        if option not in known:
            raise TypeError(f"match: method {method!r} has no option {option!r}: {', '.join(known) or 'it has none'}")
    return _METHODS[method](cost, row_mask=row_mask, col_mask=col_mask, null_cost=null_cost, **options)
