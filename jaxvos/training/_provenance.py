"""Where a result comes from: the commit, the versions and the device."""

import dataclasses
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

__all__ = ["as_json", "describe_run", "flat_fields"]


def as_json(config: Any) -> dict[str, Any]:
    """Returns a config dataclass as what JSON can hold: paths become strings, tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def flat_fields(config: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Returns the fields of a configuration as JSON by their full names, such as `training.optimizer.lr`."""
    fields: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            fields |= flat_fields(value, prefix=f"{prefix}{name}.")
        else:
            fields[f"{prefix}{name}"] = value
    return fields


def describe_run() -> dict[str, Any]:
    """Returns the commit of the source (or "unknown"), the versions of what computes, and the devices."""
    packages = ("jaxvos", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **versions},
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()
