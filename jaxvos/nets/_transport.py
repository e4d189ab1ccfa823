"""Optimal matching between an appearance and a motion feature map (TransportNet, Section 3.2), as a linen layer."""

import dataclasses
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvos.solvers import factorized_transport, sinkhorn

__all__ = ["Matcher", "Transport", "TransportConfig"]

Matcher = Literal["none", "sh", "lsh", "ssh", "lssh", "sslh"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransportConfig:
    """How two feature maps are matched and what is carried over. The defaults are the paper's, as read in Eqs. 2-10."""

    matcher: Matcher = "lssh"
    """Dense (sh), long-distance groups (lsh), short-distance ones (ssh), long then short (lssh), reversed, or none."""
    layout: Literal["grid", "raster"] = "grid"
    """Groups of a 2-D grid, or of the flattened map (the literal reading of Figure 3)."""
    partition: tuple[int, int] = (2, 4)
    """Rows and columns of one short-distance group; their product is the paper's P."""
    kernel: Literal["gibbs", "raw_sim", "raw_cost"] = "gibbs"
    """What Sinkhorn normalises: exp(similarity / epsilon), the similarity (Eq. 7) or, a negative control, the cost."""
    epsilon: float = 0.05
    """Entropic regularisation on the scale of cosine similarities (gibbs kernel)."""
    learn_epsilon: bool = False
    """Learn epsilon, starting from the value above."""
    adaptive_epsilon: bool = False
    """Multiply epsilon by the standard deviation of the similarities of each group (by at least 0.01)."""
    num_iters: int = 20
    """Sinkhorn iterations."""
    final_norm: Literal["row", "col"] = "row"
    """Which marginal is met exactly: rows, so that a transported feature is an average, or columns, as Eq. 5 ends."""
    diff: Literal["unroll", "implicit", "stop"] = "unroll"
    """Differentiate the iterations, the fixed point, or treat the plan as a constant."""
    apply: Literal["shared", "to_appearance", "to_motion", "cross"] = "shared"
    """(P Xa, P Xm) as in Eq. 8, (Xa, P Xm), (P'Xa, Xm) or (P'Xa, P Xm)."""
    value: Literal["raw", "unit"] = "raw"
    """Transport the features, or the features divided by their norm."""
    residual: bool = False
    """Add the input to what was transported."""
    marginals: Literal["balanced", "unbalanced", "dustbin"] = "balanced"
    """Every token sends and receives one unit; or about one (tau); or may go to a slack row or column."""
    tau: float = 0.9
    """Damping of the potentials when unbalanced: rho / (rho + epsilon), below one."""
    center: bool = False
    """Subtract each map's mean before similarities are taken."""
    proj_dim: int | None = None
    """Match shared linear embeddings of this many channels in place of the features."""


class _Weights(NamedTuple):
    """What the layer may learn."""

    epsilon: Float[Array, ""]
    dustbin: Float[Array, ""] | None = None
    projection: Float[Array, "c d"] | None = None


class _Statistics(NamedTuple):
    """Of one group: is the plan sharp, or an average over the group (entropy 1)?"""

    entropy: Float[Array, ""]
    plan: Float[Array, "q q"]


class Transport(nn.Module):
    """The (factorised) Sinkhorn layer; without any parameter as published.

    The plans and their row entropies (divided by the largest possible, `log` of the group's size) are sown into the
    collection `intermediates`, under `plans` and `entropy`, one entry for each of the stages long and short.
    """

    config: TransportConfig

    @nn.compact
    def __call__(
        self, x_a: Float[Array, "b h w c"], x_m: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
        """Returns the transported appearance and motion features `(Y_a, Y_m)`."""
        config = self.config
        if config.matcher == "none":
            return x_a, x_m
        weights = self._weights(x_a.shape[-1])
        y_a, y_m, stages = jax.vmap(lambda a, m: _transport(a, m, weights, config))(x_a, x_m)
        self.sow("intermediates", "plans", tuple(stage.plan for stage in stages))
        self.sow("intermediates", "entropy", jnp.stack([jnp.mean(stage.entropy) for stage in stages]))
        return (x_a + y_a, x_m + y_m) if config.residual else (y_a, y_m)

    def _weights(self, channels: int) -> _Weights:
        config = self.config
        epsilon, dustbin, projection = jnp.float32(config.epsilon), None, None
        if config.learn_epsilon:
            raw = jnp.log(jnp.expm1(config.epsilon))  # softplus(raw) = epsilon
            epsilon = jax.nn.softplus(self.param("epsilon", nn.initializers.constant(raw), ()))
        if config.marginals == "dustbin":
            dustbin = self.param("dustbin", nn.initializers.constant(0.5), ())
        if config.proj_dim is not None:
            projection = self.param("projection", nn.initializers.lecun_normal(), (channels, config.proj_dim))
        return _Weights(epsilon, dustbin, projection)


def _transport(
    x_a: Float[Array, "h w c"], x_m: Float[Array, "h w c"], weights: _Weights, config: TransportConfig
) -> tuple[Float[Array, "h w c"], Float[Array, "h w c"], tuple[_Statistics, ...]]:
    dtype = x_a.dtype
    if config.value == "unit":
        x_a, x_m = _unit(x_a).astype(dtype), _unit(x_m).astype(dtype)
    means = (jnp.mean(x_a, axis=(0, 1)), jnp.mean(x_m, axis=(0, 1))) if config.center else None

    def match(x_a: Float[Array, "q c"], x_m: Float[Array, "q c"], mask: Bool[Array, "q"]):
        plan = _plan(_similarity(x_a, x_m, weights, means), mask, weights, config)
        y_a, y_m = _apply(plan.astype(dtype), x_a, x_m, config)
        return y_a, y_m, _Statistics(_entropy(plan, mask), plan)

    match config.matcher:
        case "sh" | "lsh":
            order = ("long",)
        case "ssh":
            order = ("short",)
        case "lssh":
            order = ("long", "short")
        case "sslh":
            order = ("short", "long")
        case _:
            raise AssertionError(config.matcher)
    partition = (1, 1) if config.matcher == "sh" else config.partition
    solution = factorized_transport(x_a, x_m, match, partition=partition, layout=config.layout, order=order)
    return solution.x, solution.y, solution.stages


def _unit(x: Float[Array, "*q c"]) -> Float[Array, "*q c"]:
    """Unit vectors in float32; a vector of zeros stays finite, and so does its gradient."""
    x = x.astype(jnp.float32)
    return x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


def _similarity(
    x_a: Float[Array, "q c"], x_m: Float[Array, "q c"], weights: _Weights, means: tuple[Array, Array] | None
) -> Float[Array, "q q"]:
    if means is not None:
        x_a, x_m = x_a - means[0], x_m - means[1]
    if weights.projection is not None:
        x_a, x_m = x_a @ weights.projection, x_m @ weights.projection
    return _unit(x_a) @ _unit(x_m).T


def _plan(
    similarity: Float[Array, "q q"], mask: Bool[Array, "q"], weights: _Weights, config: TransportConfig
) -> Float[Array, "q q"]:
    """The matching flows of one group (Eq. 6), rows and columns of about unit mass."""
    match config.kernel:  # Sinkhorn's kernel is exp(-cost / epsilon)
        case "gibbs":
            cost, epsilon = 1.0 - similarity, weights.epsilon
        case "raw_sim":
            cost, epsilon = -jnp.log(jnp.maximum(similarity, 1e-6)), jnp.ones(())
        case "raw_cost":
            cost, epsilon = -jnp.log(jnp.maximum(2.0 - 2.0 * similarity, 1e-6)), jnp.ones(())
    if config.adaptive_epsilon:
        pairs = mask[:, None] & mask[None, :]
        epsilon = epsilon * jnp.sqrt(jnp.var(similarity, where=pairs) + 1e-4)
    q, mass = len(mask), mask.astype(jnp.float32)
    tau = config.tau if config.marginals == "unbalanced" else 1.0
    plan = sinkhorn(
        cost.T if config.final_norm == "col" else cost, mass, mass, epsilon=epsilon, num_iters=config.num_iters,
        tau_a=tau, tau_b=tau, dustbin=weights.dustbin, row_mask=mask, col_mask=mask,
        diff="implicit" if config.diff == "implicit" else "unroll",
    ).plan[:q, :q]  # fmt: skip
    if config.final_norm == "col":
        plan = plan.T
    return jax.lax.stop_gradient(plan) if config.diff == "stop" else plan


def _apply(
    plan: Float[Array, "q q"], x_a: Float[Array, "q c"], x_m: Float[Array, "q c"], config: TransportConfig
) -> tuple[Float[Array, "q c"], Float[Array, "q c"]]:
    match config.apply:
        case "shared":
            return plan @ x_a, plan @ x_m
        case "to_appearance":
            return x_a, plan @ x_m
        case "to_motion":
            return plan.T @ x_a, x_m
        case "cross":
            return plan.T @ x_a, plan @ x_m


def _entropy(plan: Float[Array, "q q"], mask: Bool[Array, "q"]) -> Float[Array, ""]:
    """Mean entropy of the rows over the entropy of a uniform row."""
    rows = plan / (jnp.sum(plan, axis=-1, keepdims=True) + 1e-12)
    entropy = -jnp.sum(rows * jnp.log(rows + 1e-12), axis=-1) / jnp.log(jnp.maximum(jnp.sum(mask), 2))
    return jnp.sum(entropy * mask) / jnp.maximum(jnp.sum(mask), 1)
