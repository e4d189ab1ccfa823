"""Model cards: what each embedded model is, as its weights file and the Markdown beside that say; no weights are read.

A card is `weights/NAME.md`: a title, what the model does, a table of two columns with a row for each of `FACTS`, and a
section for each of `SECTIONS`. What nobody wrote down is "not noted" there.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxvos.errors import InputError
from jaxvos.models import PROPOSALS, build_system, default_model, embedded_models, find_embedded
from jaxvos.system import System
from jaxvos.training import read_shapes

__all__ = ["FACTS", "NOT_NOTED", "SECTIONS", "Card", "all_cards", "read_card"]

FACTS = ("System", "Data", "Licence", "Command", "Commit", "Started from", "Steps", "Hours", "Device", "Score",
         "Scored on", "Scored by")  # fmt: skip
SECTIONS = ("What it is for", "Scores", "Where it fails")
NOT_NOTED = "not noted"


class Card(NamedTuple):
    """An embedded model without its weights."""

    name: str
    system: System
    metadata: Mapping[str, Any]  # of the weights file: system, data, licence, command, commit, device
    parameters: int  # numbers that are learned; running statistics are not among them
    size: int  # of the weights file, bytes
    facts: Mapping[str, str]  # rows of the card's table
    text: str  # the whole card, Markdown

    @property
    def given(self) -> str:
        """What it is told besides the frame, in words."""
        words = {
            "flow": "flow",
            "masks": "masks on any frame" if self.system.told_anytime else "a first mask",
            "next_image": "the next frame",
            "proposals": "proposals",
        }
        given = ", ".join(words[need] for need in self.system.needs) or "nothing"
        if self.system.adaptation is None:
            return given
        return f"{given}; learns online{'' if 'masks' in self.system.needs else ' from a first mask'}"

    @property
    def default_for(self) -> str:
        """What is given where `jaxvos segment` takes this model by itself, in words; empty if it never does."""
        prompts = {"no mask": (False, False), "masks": (True, False),
                   "masks with --proposals or --online": (True, True)}  # fmt: skip
        taken = [words for words, (marked, matching) in prompts.items()
                 if default_model(marked=marked, matching=matching) == self.name]  # fmt: skip
        return ", ".join([*taken, "making proposals"] if self.name == PROPOSALS else taken)


def all_cards() -> list[Card]:
    """The cards of all embedded models, by name.

    Raises:
      InputError: none is embedded, or a card is missing.
    """
    if not embedded_models():
        raise InputError("no model is embedded: install jaxvos again")
    return [_read(name, path) for name, path in embedded_models().items()]


def read_card(name: str) -> Card:
    """The card of an embedded model.

    Args:
      name: its own, or that of its system.

    Raises:
      InputError: there is no such model, or its card is missing.
    """
    path = find_embedded(name)
    return _read(path.stem, path)


def _read(name: str, path: Path) -> Card:
    beside = path.with_suffix(".md")
    if not beside.is_file():
        raise InputError(f"the card of {name} is missing: put {beside} back, or install jaxvos again")
    text = beside.read_text(encoding="utf-8")
    shapes, metadata = read_shapes(path)
    _, system = build_system(metadata, path)
    parameters = sum(math.prod(shape) for leaf, shape in shapes.items() if leaf.startswith("params/"))
    return Card(name, system, metadata, parameters, path.stat().st_size, _facts(text), text)


def _facts(text: str) -> dict[str, str]:
    """Rows of the first table, `| fact | value |`; code is without its backticks."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("|"):
            fact, _, value = line.strip("| ").partition("|")
            facts[fact.strip()] = value.strip().strip("`")
        elif facts:
            break
    return {fact: value for fact, value in facts.items() if fact in FACTS}
