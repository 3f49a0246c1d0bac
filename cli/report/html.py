"""Write HTML: elements whose text and attributes are escaped in one place."""

from __future__ import annotations

from html import escape

VOID = {"img", "input", "link", "meta"}  # elements without an end tag


class Html(str):
    """Text that is HTML already; all other text is escaped by `join` and `tag`."""

    __slots__ = ()


NOTHING = Html("")


def join(*children: object) -> Html:
    """HTML of the children one after the other."""
    return Html("".join(child if isinstance(child, Html) else escape(str(child)) for child in children))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. Attributes: `class_` stands for class, `_` for `-`; True writes the name alone, None and False none.

    Numbers are written with two decimals at most.
    """
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
            words.append(f'{key}="{escape(text)}"')
    end = "" if name in VOID else f"</{name}>"
    return Html(f"<{' '.join(words)}>{join(*children)}{end}")
