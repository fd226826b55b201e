"""Characters that deceive a reader, made visible.

Names in a report come from the memory of a machine that an attacker may own. A terminal obeys escape sequences, a
browser and a terminal reorder text around bidirectional controls (CVE-2021-42574, "Trojan Source"), and blank or
stacking characters hide a name or smear it over its neighbours. What is shown to a person goes through `visible`;
what is stored for a machine goes through `storable`, which changes only what UTF-8 cannot carry.
"""

import unicodedata

_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols of no ink: Hangul fillers and the empty Braille pattern (general categories Lo and So)."""

_MARKS_IN_A_ROW = 2
"""Combining marks on one letter that living scripts need; more are noise that climbs over other lines."""


def visible(text: str) -> str:
    r"""Text in which every character can be seen and none changes how its neighbours are shown.

    Controls, format and bidirectional controls, surrogates, private and unassigned characters, line breaks, spaces
    other than U+0020, blank letters and stacked marks become Python escapes such as ``\x1b`` or ``\u202e``.
    A backslash of the text itself is kept, so the result is for people and cannot be turned back.
    """
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character)[0] == "M" else 0
        deceptive = marks > _MARKS_IN_A_ROW or hides(character)
        shown.append(_escape(character) if deceptive else character)
    return "".join(shown)


def flowing(text: str) -> str:
    """`visible` text on one line: runs of white space, line breaks among them, become one space first.

    For prose that was wrapped where it was written, such as a check's remedy.
    """
    return visible(" ".join(text.split()))


def hides(character: str) -> bool:
    """Whether a single character is unseen, or changes how its neighbours are shown."""
    kind = unicodedata.category(character)
    return kind[0] == "C" or (kind[0] == "Z" and character != " ") or character in _BLANK_LETTERS


def storable(value: object) -> object:
    r"""A tree of lists, dicts and scalars in which lone surrogates are spelled out as ``\udc80``.

    UTF-8 has no form for a lone surrogate (RFC 3629, section 3); a decoder that used ``surrogateescape`` leaves them.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
