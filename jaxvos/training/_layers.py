"""How the layers of a net are computed while it learns: in half precision, or a second time for the gradient.

Both are laid around the modules of any system when it is traced, so that no net has an option for it.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvos.errors import InputError
from jaxvos.system import Clip, LossOutput
from jaxvos.training._paths import matches
from jaxvos.typing import Key, Variables

__all__ = ["compute_in_bfloat16", "compute_layers", "recompute"]

_NORMS = (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm)


def compute_layers(
    loss: Callable[..., LossOutput], *, precision: Literal["float32", "bfloat16"], remat: Sequence[str]
) -> Callable[..., LossOutput]:
    """Makes a loss whose layers are computed as a `TrainingConfig` has it."""
    loss = recompute(loss, remat) if remat else loss
    return compute_in_bfloat16(loss) if precision == "bfloat16" else loss


def compute_in_bfloat16(loss: Callable[..., LossOutput]) -> Callable[..., LossOutput]:
    """Makes a loss that computes its net's layers in bfloat16.

    Layers with a kernel (convolutions and the like) take inputs, kernels and biases in bfloat16 and give bfloat16, and
    so do normalisations, whose statistics stay float32. What a net gives back is float32 again, so that losses, and
    solvers wherever they are, run in float32. Gradients, running statistics and the parameters themselves are float32.
    Of use on accelerators: a CPU is slower by it, and sums the gradient of a bias in half precision.
    """

    def half_loss(variables: Variables, clip: Clip, *, key: Key, step: Any) -> LossOutput:
        halved = {**variables, "params": _halve_kernels(variables["params"])}
        with nn.intercept_methods(_compute_layer):
            return loss(halved, clip, key=key, step=step)

    return half_loss


def recompute(loss: Callable[..., LossOutput], patterns: Sequence[str]) -> Callable[..., LossOutput]:
    """Makes a loss that forgets what is computed inside some modules, and computes it again for the gradient.

    Args:
        loss: of a system.
        patterns: regexes of their names, such as `encoder/layer[34]_.*`. A module within one that matches is part of
            it.

    Raises:
        InputError: while tracing, if a regex matches no module.
    """

    def thrifty_loss(variables: Variables, clip: Clip, *, key: Key, step: Any) -> LossOutput:
        recomputer = _Recomputer(patterns)
        with nn.intercept_methods(recomputer):
            output = loss(variables, clip, key=key, step=step)
        for pattern in patterns:
            if pattern not in recomputer.used:
                tops = ", ".join(sorted({name.split("/")[0] for name in recomputer.seen if name}))
                raise InputError(f"'{pattern}' matches no module; the modules are in: {tops}")
        return output

    return thrifty_loss


# ---- half precision --------------------------------------------------------------------------------------------
def _halve_kernels(params: Any) -> Any:
    """Kernels, and what stands beside them."""
    if not isinstance(params, dict):
        return params
    if "kernel" in params:
        return jax.tree.map(lambda x: _cast(x, jnp.bfloat16), params)
    return {name: _halve_kernels(node) for name, node in params.items()}


def _cast(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if isinstance(x, jax.Array) and x.dtype in (jnp.float32, jnp.bfloat16) else x


def _compute_layer(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    module = context.module
    if module.has_variable("params", "kernel"):
        args, kwargs = jax.tree.map(lambda x: _cast(x, jnp.bfloat16), (args, kwargs))
    result = call(*args, **kwargs)
    if isinstance(module, _NORMS):
        return jax.tree.map(lambda x: _cast(x, jnp.bfloat16), result)
    return jax.tree.map(lambda x: _cast(x, jnp.float32), result) if not module.path else result


# ---- a second time ---------------------------------------------------------------------------------------------
@dataclasses.dataclass
class _Recomputer:
    """Lays `nn.remat` around the methods of the modules that match."""

    patterns: Sequence[str]
    used: set[str] = dataclasses.field(default_factory=set)
    seen: set[str] = dataclasses.field(default_factory=set)
    inside: bool = False

    def __call__(self, call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        name = "/".join(context.module.path)
        self.seen.add(name)
        found = [pattern for pattern in self.patterns if matches(pattern, name)]
        self.used.update(found)
        if self.inside or not found or context.method_name == "setup":
            return call(*args, **kwargs)
        leaves, tree = jax.tree.flatten((args, kwargs))
        traced = [isinstance(leaf, jax.Array) for leaf in leaves]

        def method(module: nn.Module, *arrays: jax.Array) -> Any:
            given = iter(arrays)
            args, kwargs = jax.tree.unflatten(tree, [next(given) if one else leaf for leaf, one in
                                                     zip(leaves, traced, strict=True)])  # fmt: skip
            return getattr(module, context.method_name)(*args, **kwargs)

        with self._within():
            return nn.remat(method)(context.module, *(leaf for leaf, one in zip(leaves, traced, strict=True) if one))

    @contextlib.contextmanager
    def _within(self) -> Iterator[None]:
        self.inside = True
        try:
            yield
        finally:
            self.inside = False
