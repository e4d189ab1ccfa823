"""Export: the fold of a model as functions that run without its source.

One size of frame, one number of objects: shapes are fixed, as memory's are. What is exported is prediction, without its
gradients; training is not, and hence neither is online learning (`adapt`), though a model that was adapted can be.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from jaxvos.errors import InputError
from jaxvos.inference._exported import FORMAT, ExportedModel, check_flatbuffers, describe
from jaxvos.models import Model
from jaxvos.system import Frame, Prediction, Proposals
from jaxvos.training import as_json, describe_run
from jaxvos.typing import Variables

__all__ = ["export_model"]

_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_SMALLEST = 16  # pixels
_SIZE = (480, 854)  # of DAVIS, for nets that have no size of their own
_MOST_OBJECTS = 254  # ids that a mask can hold
_NUM_PROPOSALS, _PROPOSAL_SIZE = 50, 28


def export_model(
    model: Model,
    *,
    size: tuple[int, int] | None = None,
    num_objects: int | None = None,
    num_proposals: int | None = None,
    proposal_size: int | None = None,
    platforms: Sequence[str] = ("cpu",),
) -> ExportedModel:
    """Lowers a model's `start` and `predict`; nothing is compiled, and no platform but the one at hand is needed.

    Args:
      model: any, of a third party too; an adapted one as well.
      size: rows and columns of the frames; those of the net's input if None, or 480x854 where it takes any.
      num_objects: slots for objects, for models that are told what to follow; 1 if None.
      num_proposals: proposals of a frame, for models that want them; 50 if None. Fewer are padded (`valid`).
      proposal_size: rows and columns of their masks; 28, as those of Mask R-CNN, if None.
      platforms: where it will run: some of `cpu`, `cuda`, `rocm` and `tpu`.

    Raises:
      InputError: an argument is wrong or of no use to the model, its functions call what cannot be exported (Python,
        by a callback), or the package flatbuffers is missing.
    """
    check_flatbuffers()
    needs = model.system.needs
    own_size: tuple[int, int] = getattr(model.config, "input_size", None) or _SIZE
    size = own_size if size is None else size
    platforms = tuple(dict.fromkeys(platforms))
    _check(size, platforms)
    slots = 1 + _number(num_objects, 1, model, "masks", "number of objects", most=_MOST_OBJECTS)
    m = _number(num_proposals, _NUM_PROPOSALS, model, "proposals", "number of proposals")
    s = _number(proposal_size, _PROPOSAL_SIZE, model, "proposals", "size of proposals")
    frame, masks = _frame(needs, size, m, s), _array(*size, slots)
    told = {"masks": masks} if "masks" in needs else {}
    variables = {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(model.variables)}
    start, predict, memory = _functions(model, frame, told)
    flat = tuple(jax.tree.leaves(memory))
    functions = {"start": (start, {"frame": frame, **told}), "predict": (predict, {"memory": flat, "frame": frame})}
    if model.system.told_anytime:
        marked = {**frame, "masks": masks, "alive": _array(slots, dtype=bool)}
        functions["tell"] = (predict, {"memory": flat, "frame": marked})
    shapes = jax.eval_shape(lambda: variables)
    exported = {name: _export(model, function, (shapes, *inputs.values()), platforms)
                for name, (function, inputs) in functions.items()}  # fmt: skip
    about = {
        "format": FORMAT,
        **model.metadata,
        "name": model.name,
        "config": as_json(model.config),
        "size": list(size),
        "objects": slots - 1 if told else None,
        "platforms": list(platforms),
        "calling_convention_version": exported["predict"][0].calling_convention_version,
        **describe_run(),
        "functions": {name: _signature(exported[name][0], inputs) for name, (_, inputs) in functions.items()},
        "memory": [{"name": _path(path), **describe(leaf)}
                   for path, leaf in jax.tree_util.tree_leaves_with_path(memory)],
        "variables": describe(variables),
    }  # fmt: skip
    return ExportedModel(about=about, variables=variables,
                         functions={name: content for name, (_, content) in exported.items()})  # fmt: skip


def _check(size: Sequence[int], platforms: Sequence[str]) -> None:
    if min(size) < _SMALLEST:
        raise InputError(f"frames of {size[0]}x{size[1]}: give at least {_SMALLEST} rows and {_SMALLEST} columns")
    for platform in platforms:
        if platform not in _PLATFORMS:
            raise InputError(f"there is no platform '{platform}': give some of {', '.join(_PLATFORMS)}")
    if not platforms:
        raise InputError(f"no platform is named: give some of {', '.join(_PLATFORMS)}")


def _number(given: int | None, default: int, model: Model, need: str, what: str, *, most: int | None = None) -> int:
    """What was given, checked, or else the default."""
    if given is None:
        return default
    if need not in model.system.needs:
        raise InputError(f"{model.name} wants no {need} and has no use for a {what}: leave it out")
    if given < 1 or (most is not None and given > most):
        raise InputError(f"a {what} of {given}: give one from 1 {'on' if most is None else f'to {most}'}")
    return given


def _array(*shape: int, dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _frame(needs: Sequence[str], size: tuple[int, int], m: int, s: int) -> dict[str, Any]:
    """The fields that a frame of this system has."""
    proposals = {"boxes": _array(m, 4), "masks": _array(m, s, s), "scores": _array(m), "valid": _array(m, dtype=bool)}
    fields = {"next_image": _array(*size, 3), "flow": _array(*size, 2), "proposals": proposals}
    return {"image": _array(*size, 3), **{name: value for name, value in fields.items() if name in needs}}


def _functions(
    model: Model, frame: dict[str, Any], told: dict[str, Any]
) -> tuple[Callable[..., Any], Callable[..., Any], Any]:
    """`start` and `predict` of plain dicts and tuples, and the memory that lies between them."""
    paths = [_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(model.variables)]
    tree = jax.tree.structure(model.variables)

    def begin(variables: dict[str, Any], frame: dict[str, Any], *masks: Any) -> Any:
        return model.system.start(whole(variables), _as_frame(frame), *masks)

    def whole(variables: dict[str, Any]) -> Variables:
        return jax.tree.unflatten(tree, [variables[path] for path in paths])

    def start(variables: dict[str, Any], frame: dict[str, Any], *masks: Any) -> tuple[Any, ...]:
        return tuple(jax.tree.leaves(begin(variables, frame, *masks)))

    def predict(variables: dict[str, Any], memory: tuple[Any, ...], frame: dict[str, Any]) -> tuple[Any, Any]:
        inner = jax.tree.unflatten(memory_tree, memory)
        after, prediction = model.system.predict(whole(variables), inner, _as_frame(frame))
        return tuple(jax.tree.leaves(after)), _as_dict(prediction)

    flat = dict(zip(paths, jax.tree.leaves(model.variables), strict=True))
    memory = jax.eval_shape(begin, flat, frame, *told.values())
    memory_tree = jax.tree.structure(memory)
    return start, predict, memory


def _as_frame(fields: dict[str, Any]) -> Frame:
    proposals = fields.get("proposals")
    return Frame(**{**fields, "proposals": None if proposals is None else Proposals(**proposals)})


def _as_dict(prediction: Prediction) -> dict[str, Any]:
    fields = {name: value for name, value in prediction._asdict().items() if value is not None}
    return {name: value._asdict() if isinstance(value, Proposals) else value for name, value in fields.items()}


def _export(
    model: Model, function: Callable[..., Any], inputs: tuple[Any, ...], platforms: Sequence[str]
) -> tuple[jax.export.Exported, bytes]:
    try:
        with _without_paths():
            exported = jax.export.export(jax.jit(function), platforms=platforms)(*inputs)
        return exported, bytes(exported.serialize())
    except NotImplementedError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{model.name} cannot be exported, as its functions call Python back or do something else "
                         f"that no file can hold ({reason}): write them in jax alone") from error


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """Where on this machine the source lies is nobody's business who gets the file."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _signature(exported: jax.export.Exported, inputs: dict[str, Any]) -> dict[str, Any]:
    """What a function takes and gives; variables and memory are described once, beside the functions."""
    takes = {"variables": "variables", **describe({key: value for key, value in inputs.items() if key != "memory"})}
    gives = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    if "memory" not in inputs:
        return {"inputs": takes, "outputs": {"memory": "memory"}}
    takes = {"variables": "variables", "memory": "memory", "frame": takes["frame"]}
    return {"inputs": takes, "outputs": {"memory": "memory", "answer": describe(gives[1])}}


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
