"""Systems with their weights: the embedded default, a weights file, or the folder of a training run."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import dacite
import jax
import jax.numpy as jnp

from jaxvos.errors import InputError
from jaxvos.system import Clip, System
from jaxvos.systems import TransportNetConfig, transportnet
from jaxvos.training import load_variables, match_variables, save_variables
from jaxvos.typing import Variables

__all__ = ["DEFAULT", "Model", "abstract_variables", "load_model", "save_model"]

DEFAULT = "transportnet-lite-synthetic"

_FOLDER = Path(__file__).parent / "weights"
_SYSTEMS = {"transportnet": (TransportNetConfig, transportnet)}


class Model(NamedTuple):
    """A system that is ready to run, and where it comes from."""

    name: str
    system: System
    variables: Variables
    config: Any
    metadata: Mapping[str, Any]  # data, licence, command, commit, scores


def load_model(source: str | Path | None = None) -> Model:
    """Loads a model.

    Args:
      source: a `.safetensors` file, the folder of a training run, the name of an embedded model, or None for the
        default one.

    Raises:
      InputError: there is no such model, or its weights and its configuration do not belong together.
    """
    path = _embedded(DEFAULT if source is None else str(source)) or Path(str(source))
    if not path.exists():
        raise InputError(f"{source}: no such model; give a .safetensors file, a run's folder, or one of {_names()}")
    variables, metadata = load_variables(path)
    metadata = _story(path, metadata)
    name, settings = metadata.get("system"), metadata.get("config")
    if name not in _SYSTEMS or settings is None:
        raise InputError(f"{path} does not say which system it belongs to; save it with jaxvos.models.save_model")
    config_type, build = _SYSTEMS[name]
    config = _config(config_type, settings, path)
    system = build(config)
    try:
        match_variables(variables, abstract_variables(system))
    except InputError as error:
        raise InputError(f"{path} is a checkpoint of another configuration: {error}") from None
    return Model(path.stem, system, variables, config, metadata)


def save_model(
    path: str | Path, variables: Variables, *, system: str, config: Any, metadata: Mapping[str, Any], half: bool = False
) -> None:
    """Writes a model as one safetensors file that `load_model` reads.

    Args:
      path: the file.
      variables: parameters and batch statistics.
      system: name of the system.
      config: its configuration, a dataclass.
      metadata: what a user of the weights must know: data, licence, command, commit.
      half: store in float16, half the size.
    """
    story = {"system": system, "config": dataclasses.asdict(config), **metadata}
    save_variables(Path(path), variables, story, dtype="float16" if half else "float32")


def abstract_variables(system: System) -> Variables:
    """Names, shapes and types of a system's variables, without computing any."""
    images, flow = (jax.ShapeDtypeStruct((1, 1, 64, 64, channels), jnp.float32) for channels in (3, 2))
    return jax.eval_shape(system.init, jax.random.key(0), Clip(images, flow=flow))


def _embedded(name: str) -> Path | None:
    path = _FOLDER / f"{name}.safetensors"
    return path if path.is_file() else None


def _names() -> str:
    return ", ".join(sorted(path.stem for path in _FOLDER.glob("*.safetensors"))) or "(none is embedded)"


def _story(path: Path, metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Weights files carry their configuration; a run's folder has it beside the checkpoints."""
    config = path / "config.json"
    if not config.is_file():
        return metadata
    run = json.loads(config.read_text())
    return {**run, "config": run["config"]["system"], "system": run["config"]["system_name"]}


def _config(config_type: type, settings: Mapping[str, Any], path: Path) -> Any:
    try:
        return dacite.from_dict(config_type, settings, dacite.Config(cast=[tuple], strict=True))
    except dacite.DaciteError as error:
        raise InputError(f"{path} has a configuration of another version of jaxvos: {error}") from None
