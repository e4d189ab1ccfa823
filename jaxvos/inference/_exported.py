"""A model as one file that runs without jaxvos: an archive of its functions (StableHLO), its weights and its story.

Whoever has the file needs `pip install jax flatbuffers` and these lines; images are float32 in [0, 1]:

    import io, json, zipfile
    import jax, jax.export, numpy as np

    with zipfile.ZipFile("stcn.zip") as file:
        read = lambda name: jax.jit(jax.export.deserialize(file.read(f"{name}.exported")).call)
        start, predict, about = read("start"), read("predict"), json.loads(file.read("about.json"))
        variables = jax.device_put(dict(np.load(io.BytesIO(file.read("variables.npz")))))
    memory = start(variables, {"image": images[0]}, masks)    # without `masks` where about.json names none
    for image in images:                                      # the first one as well
        memory, answer = predict(variables, memory, {"image": image})

Nothing else is passed than dicts and tuples of arrays: `variables` by name; `frame`, the fields that the system needs;
`memory`, a tuple; `answer`, the fields that it has (`masks` above all, probabilities that sum to one over the slots,
background first). Proposals are a dict within a frame or an answer.

| member | holds |
|---|---|
| `start.exported` | `(variables, frame)`, or `(variables, frame, masks)`, to memory; what `jax.export` serialises |
| `predict.exported` | `(variables, memory, frame)` to memory and answer, for every frame, the first included |
| `tell.exported` | the same, where objects come and go: a frame has `masks` (none of a slot: nothing is said of it) and `alive` (False: its object ends) as well |
| `variables.npz` | the weights, once: as constants they would be in each function, and folded by each compilation |
| `about.json` | `name`, `system`, `config`, `licence` and more of the model; `size` (rows, columns), `objects`, `platforms`; `commit` and `versions` of what wrote it; `calling_convention_version`, which a reader's jax must know (`jax.export.minimum_supported_calling_convention_version` to `maximum_...`); shapes and types of `variables`, `memory`, and of what each of the `functions` takes and gives |
"""  # noqa: E501

import dataclasses
import functools
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxvos.errors import InputError
from jaxvos.files import atomic_path
from jaxvos.typing import Masks

__all__ = ["FORMAT", "ExportedModel", "check_flatbuffers", "describe", "load_exported", "save_exported"]

FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """The fold of a model for one size of frame, as `export_model` makes it and a file holds it."""

    about: Mapping[str, Any]
    """What `about.json` says."""
    variables: Mapping[str, Any]
    """Its weights by name."""
    functions: Mapping[str, bytes]
    """What `jax.export` serialised: `start`, `predict` and, where objects come and go, `tell`."""

    def start(self, frame: dict[str, Any], masks: Masks | None = None) -> tuple[Any, ...]:
        """Makes the memory from the first frame and, for models that are told what to follow, its masks.

        Raises:
          InputError: something is missing, is of no use to the model, or has another shape or type.
        """
        told = {} if masks is None else {"masks": masks}
        return self._call("start", {"frame": frame, **told})

    def predict(self, memory: tuple[Any, ...], frame: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Answers one frame; of a frame with `masks` and `alive` it is told, where objects come and go.

        Raises:
          InputError: as for `start`.
        """
        name = "tell" if "tell" in self.functions and {"masks", "alive"} & frame.keys() else "predict"
        return self._call(name, {"memory": memory, "frame": frame})

    def _call(self, name: str, given: Mapping[str, Any]) -> Any:
        expected = {key: value for key, value in self.about["functions"][name]["inputs"].items() if key != "variables"}
        given = jax.tree.map(jnp.asarray, dict(given))
        if "memory" in given:
            expected["memory"] = tuple({"shape": x["shape"], "dtype": x["dtype"]} for x in self.about["memory"])
        _check_same(describe(given), expected, name)
        return self._compiled[name](self.variables, *(given[key] for key in expected))

    @functools.cached_property
    def _compiled(self) -> dict[str, Callable[..., Any]]:
        check_flatbuffers()
        return {name: jax.jit(jax.export.deserialize(bytearray(content)).call)
                for name, content in self.functions.items()}  # fmt: skip


def save_exported(path: str | Path, model: ExportedModel) -> None:
    """Writes the file, whole or not at all; an older one is replaced.

    Raises:
      InputError: it cannot be written.
    """
    variables, arrays = io.BytesIO(), {name: np.asarray(value) for name, value in model.variables.items()}
    np.savez(variables, **cast(dict[str, Any], arrays))
    members = {f"{name}.exported": content for name, content in model.functions.items()}
    members |= {"variables.npz": variables.getvalue(), "about.json": json.dumps(model.about, indent=2).encode()}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


def load_exported(path: str | Path) -> ExportedModel:
    """Reads what `save_exported` wrote.

    Raises:
      InputError: there is no such file, it is of another kind, or this version of jax cannot run it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}: give one that jaxvos export wrote")
    try:
        with zipfile.ZipFile(path) as file:
            about = json.loads(file.read("about.json"))
            functions = {name: file.read(f"{name}.exported") for name in about["functions"]}
            with np.load(io.BytesIO(file.read("variables.npz")), allow_pickle=False) as arrays:
                variables = {name: jnp.asarray(value) for name, value in arrays.items()}
        form, version = about["format"], about["calling_convention_version"]
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} is no exported model ({reason}): give a file that jaxvos export wrote") from error
    known = (jax.export.minimum_supported_calling_convention_version,
             jax.export.maximum_supported_calling_convention_version)  # fmt: skip
    if form != FORMAT or not known[0] <= version <= known[1]:
        raise InputError(f"{path} is of format {form} and calling convention {version}, and this version knows format "
                         f"{FORMAT} and conventions {known[0]} to {known[1]}: export the model again")  # fmt: skip
    return ExportedModel(about=about, variables=variables, functions=functions)


def describe(arrays: Any) -> Any:
    """Shape and type, as JSON has them, in place of every array of a tree."""
    return jax.tree.map(lambda x: {"shape": list(x.shape), "dtype": x.dtype.name}, arrays)


def check_flatbuffers() -> None:
    """Refuses to go on without the package that `jax.export` writes and reads by."""
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        raise InputError("exported models need flatbuffers: pip install 'jaxvos[export]'") from None


def _check_same(given: Any, expected: Any, where: str) -> None:
    """Compares descriptions, and says where they first differ."""
    if isinstance(expected, Mapping) and "shape" not in expected:
        if not isinstance(given, Mapping) or given.keys() != expected.keys():
            found = ", ".join(given) if isinstance(given, Mapping) else "something else"
            raise InputError(f"{where} wants {', '.join(expected)}, and is given {found or 'nothing'}")
        for name, value in expected.items():
            _check_same(given[name], value, f"{where}: {name}")
    elif isinstance(expected, tuple) and len(given) == len(expected):
        for number, value in enumerate(expected):
            _check_same(given[number], value, f"{where} {number}")
    elif given != expected:
        raise InputError(f"{where} is {_words(given)} and must be {_words(expected)}")


def _words(description: Any) -> str:
    if isinstance(description, Mapping) and "shape" in description:
        return f"{description['dtype']} ({', '.join(map(str, description['shape']))})"
    return f"{len(description)} arrays"
