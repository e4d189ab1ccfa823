"""`jaxvos models`."""

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from jaxvos.cards import Card

__all__ = ["ListModels"]

_NOTE = (
    "The sequences that were held out are not among the data. Masks are judged by J and F, those of models that need\n"
    "masks after the true first one; proposals by their overlap (IoU), flow by its error.\n"
    "jaxvos models NAME prints the card of one: how it was trained and scored, and where it fails."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListModels:
    """List the embedded models, with licence and score, and what each is the default for; or print the card of one."""

    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="NAME")] = None
    """Of a model, or of its system, such as stcn: print its card (Markdown)."""

    def run(self) -> None:
        from jaxvos.cards import all_cards, read_card

        if self.name is not None:
            print(read_card(self.name).text.rstrip())
            return
        cards = all_cards()
        use = [(card.name, card.metadata["system"], card.given, card.default_for or "-") for card in cards]
        story = [_story(card) for card in cards]
        print(_aligned(("model", "system", "given", "default for"), use))
        print(f"\n{_aligned(('model', 'MB', 'parameters', 'held-out score', 'licence', 'data'), story)}\n\n{_NOTE}")


def _story(card: "Card") -> tuple[str, ...]:
    licence = card.metadata["licence"]
    short = "non-commercial" if "non-commercial" in licence else licence
    data = re.sub(r" without [^;]*", "", card.metadata["data"])
    return (card.name, f"{card.size / 1e6:.1f}", f"{card.parameters:,}", card.facts["Score"], short, data)


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; those of numbers to the right."""
    lines = []
    columns = list(zip(*rows, strict=True))
    numeric = [all(re.fullmatch(r"[\d.,]+", cell) for cell in column) for column in columns]
    widths = [max(map(len, (name, *column))) for name, column in zip(header, columns, strict=True)]
    for row in (header, *rows):
        cells = [cell.rjust(width) if right else cell.ljust(width)
                 for cell, width, right in zip(row, widths, numeric, strict=True)]  # fmt: skip
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
