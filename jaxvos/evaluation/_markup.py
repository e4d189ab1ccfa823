"""Elements of HTML and SVG as text; what is not markup is escaped."""

import html

__all__ = ["Markup", "element"]


class Markup(str):
    """Text that is markup already."""


def element(name: str, *children: str | float | int, **attributes: str | float | int) -> Markup:
    """Returns an element; a trailing underscore of an attribute is dropped, others become hyphens."""
    named = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(_text(value))}"'
                    for key, value in attributes.items())  # fmt: skip
    inside = "".join(child if isinstance(child, Markup) else html.escape(_text(child)) for child in children)
    return Markup(f"<{name}{named}>{inside}</{name}>" if inside or name not in ("img", "meta") else f"<{name}{named}>")


def _text(value: str | float | int) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
