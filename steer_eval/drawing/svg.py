"""Elements of SVG.

Invariant: every text and attribute is escaped here, so what a picture says can't become a part of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

Attribute = str | int | float | None


def element(tag: str, *children: str, **attributes: Attribute) -> Markup:
    """One element.

    Args:
        tag: Its name.
        children: Texts, which are escaped, and elements.
        attributes: Its attributes; underscores stand for hyphens, one at the end is dropped (`class_`), and what is
            None is left out.
    """
    opening = f"{tag}{_attributes(attributes)}"
    if not children:
        return Markup(f"<{opening}/>")  # noqa: S704 - escaped above
    return Markup(f"<{opening}>{''.join(map(escape, children))}</{tag}>")  # noqa: S704


def document(children: Iterable[Markup], **attributes: Attribute) -> Markup:
    """A picture, one element a line.

    Args:
        children: Its elements.
        attributes: Attributes of the root.
    """
    lines = "".join(f"  {child}\n" for child in children)
    return Markup(f"<svg{_attributes(attributes)}>\n{lines}</svg>\n")  # noqa: S704


def _attributes(attributes: dict[str, Attribute]) -> str:
    return "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for name, value in attributes.items()
        if value is not None
    )


def _plain(value: Attribute) -> str:
    """A hundredth of a pixel is finer than anything shows, and equal on every machine."""
    return repr(round(value, 2)) if isinstance(value, float) else str(value)
