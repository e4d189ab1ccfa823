"""Names of the leaves of a tree, and the regular expressions that pick some of them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxvos.errors import InputError

__all__ = ["check_patterns", "flatten", "matches", "unflatten"]


def flatten(tree: Any) -> dict[str, Any]:
    """Returns the leaves by their slash-joined names, such as `params/encoder/conv1/kernel`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested dict whose leaves have these slash-joined names."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *folders, last = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree


def matches(pattern: str, name: str) -> bool:
    """Tells whether a regex matches a name or a folder of it: `enc` has `enc/kernel` but not `encoder/kernel`."""
    return re.fullmatch(f"(?:{pattern})(?:/.*)?", name) is not None


def check_patterns(patterns: Sequence[str], params: Any) -> None:
    """Raises InputError if a regex is malformed or matches no parameter."""
    names = list(flatten(params))
    for pattern in patterns:
        try:
            found = any(matches(pattern, name) for name in names)
        except re.error as error:
            raise InputError(f"'{pattern}' is not a regular expression: {error}") from error
        if not found:
            tops = ", ".join(sorted({name.split("/")[0] for name in names}))
            raise InputError(f"'{pattern}' matches no parameter; the parameters are in: {tops}")
