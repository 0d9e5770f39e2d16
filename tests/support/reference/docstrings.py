"""Docstrings, which have sections as Google's and code as reStructuredText, as Markdown of GitHub."""

from __future__ import annotations

import inspect
import re
import textwrap

_PAGE = re.compile(r"(?<![\w/(\[])docs/((?:[\w-]+/)*)([\w-]+\.md)")
_SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")


def markdown(doc: str | None) -> str:
    """Return a docstring as Markdown; nothing of none."""
    lines = inspect.cleandoc(doc or "").splitlines()
    out: list[str] = []
    section = ""
    at = 0
    while at < len(lines):
        line = lines[at]
        if line.rstrip(":") in _SECTIONS and line.endswith(":"):
            section = line[:-1]
            out += [f"**{section}**", ""]
        elif line.endswith("::"):
            if line != "::":
                out += [_inline(line[:-1]), ""]
            at, block = _indented(lines, at + 1)
            if not block:
                # All that follows is code, whose margin was taken for that of the text.
                at, block = len(lines), "\n".join(lines[at:]).strip("\n").splitlines()
            out += _fenced(block)
            continue
        elif line.startswith("==="):
            end = max(number for number, other in enumerate(lines) if other.startswith("==="))
            out += _fenced(lines[at : end + 1])
            at = end
        elif section and line.startswith("    "):
            at, block = _indented(lines, at)
            out += [*_items(section, block), ""]
            section = ""
            continue
        elif line.startswith("    "):
            at, block = _indented(lines, at)
            out += _fenced(block)
            continue
        else:
            out.append(_inline(line))
        at += 1
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)) + "\n"


def _inline(text: str) -> str:
    return _PAGE.sub(_link, text.replace("``", "`"))


def _link(page: re.Match[str]) -> str:
    """Return a link to a page that a docstring names by its path; all pages that are made stand in docs/reference."""
    folder, name = page[1], page[2]
    return f"[{name}]({'' if folder == 'reference/' else f'../{folder}'}{name})"


def _indented(lines: list[str], at: int) -> tuple[int, list[str]]:
    """Return where the block that begins here ends, and its lines."""
    end = at
    while end < len(lines) and (not lines[end].strip() or lines[end].startswith("    ")):
        end += 1
    return end, textwrap.dedent("\n".join(lines[at:end])).strip("\n").splitlines()


def _fenced(block: list[str]) -> list[str]:
    language = "text" if any(mark in line for line in block for mark in "├└═") or block[0].startswith("=") else "python"
    return [f"```{language}", *block, "```", ""]


def _items(section: str, block: list[str]) -> list[str]:
    """Return the entries of a section as a list; what is returned is a paragraph."""
    if section in ("Returns", "Yields"):
        return [_inline(line) for line in block]
    items: list[str] = []
    for line in block:
        name, colon, text = line.partition(":")
        if line.startswith(" ") or not colon:
            items.append(f"  {_inline(line.strip())}")
        else:
            items.append(f"* {', '.join(f'`{each.strip()}`' for each in name.split(','))}:{_inline(text)}")
    return items


def first_sentence(doc: str | None) -> str:
    """Return what a docstring says in one sentence, for a table."""
    paragraph = _inline(" ".join(inspect.cleandoc(doc or "").split("\n\n")[0].split()))
    found = re.match(r"(.+?[.:])(?=\s+[A-Z`(]|$)", paragraph)
    return (found[1] if found else paragraph).rstrip(":.") + "." if paragraph else ""


def capital(text: str) -> str:
    """Return it as a sentence begins."""
    return text[:1].upper() + text[1:]


def filled(text: str) -> str:
    """Return a paragraph in lines of the usual length."""
    return textwrap.fill(_inline(text), 120, break_long_words=False, break_on_hyphens=False)


def cell(text: str) -> str:
    """Return it as a cell of a table holds it."""
    return " ".join(text.split()).replace("|", "\\|")


def table(*rows: tuple[str, ...]) -> str:
    """Return a table; the first row is its head."""
    head, *others = ["".join(f"| {cell(each)} " if each else "| " for each in row) + "|" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *others]) + "\n"
