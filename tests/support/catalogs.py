"""Writes the catalogs of pgq/locale from the code and the templates: ``make messages``.

What is new is added untranslated, what is gone goes, what stays keeps its translation; the .mo beside each .po is what
Django reads. It takes no gettext, but Babel, which comes with Sphinx; and it writes the same bytes wherever it runs.
"""

from __future__ import annotations

import ast
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po, write_po
from django.template.base import Lexer, TokenType
from django.utils.translation import trim_whitespace

PGQ = Path(__file__).parents[2] / "pgq"
#: Those that Django-Q2 ships.
LANGUAGES = ("de", "fr", "ru", "tr", "zh_Hans")
_ONE = {"_", "gettext", "gettext_lazy", "gettext_noop"}
_MANY = {"ngettext", "ngettext_lazy"}

Id = str | tuple[str, str]


@dataclass(slots=True)
class Found:
    """A text, and the files that it stands in."""

    files: set[str] = field(default_factory=set)
    #: Whether it has placeholders.
    is_format: bool = False


def texts() -> dict[Id, Found]:
    """Return all that can be translated, sorted."""
    found: dict[Id, Found] = {}
    for path in sorted(PGQ.rglob("*.py")):
        for id in _of_code(path.read_text(encoding="utf-8")):
            _note(found, id, path)
    for path in sorted((PGQ / "templates").rglob("*.html")):
        for id in _of_template(path.read_text(encoding="utf-8")):
            _note(found, id, path)
    return {id: found[id] for id in sorted(found, key=_first)}


def _note(found: dict[Id, Found], id: Id, path: Path) -> None:
    # A plural and its singular, asked for alone, are one entry of a catalog.
    one = _first(id)
    known = next((other for other in found if _first(other) == one), None)
    entry = found.pop(known) if known is not None else Found()
    entry.files.add(str(path.relative_to(PGQ)))
    entry.is_format = entry.is_format or "%" in "".join(id)
    found[known if isinstance(known, tuple) else id] = entry


def _first(id: Id) -> str:
    return id if isinstance(id, str) else id[0]


def _of_code(text: str) -> Iterator[Id]:
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        given = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        if node.func.id in _ONE and given:
            yield given[0]
        elif node.func.id in _MANY and len(given) >= 2:
            yield given[0], given[1]


_TRANSLATE = re.compile(r"""^(?:translate|trans)\s+(?:"([^"]*)"|'([^']*)')""")


def _of_template(text: str) -> Iterator[Id]:
    block: list[str] | None = None
    for token in Lexer(text).tokenize():
        if token.token_type is TokenType.BLOCK:
            if block is not None:
                if token.contents.startswith(("endblocktranslate", "endblocktrans")):
                    yield trim_whitespace("".join(block)) if block[0] == "\n" else "".join(block)
                    block = None
            elif found := _TRANSLATE.match(token.contents):
                yield (found[1] or found[2] or "").replace("%", "%%")
            elif token.contents.startswith(("blocktranslate", "blocktrans")):
                block = []
        elif block is not None:
            block.append(
                f"%({token.contents})s" if token.token_type is TokenType.VAR else token.contents.replace("%", "%%")
            )


def catalog(language: str) -> Catalog:
    """Return what the catalog of a language should hold: its translations, of what is there."""
    path = po(language)
    with path.open("rb") if path.exists() else BytesIO(b"") as file:
        before = read_po(file, locale=language)
    catalog = Catalog(locale=language, project="pgq", charset="utf-8", fuzzy=False)
    # The catalog's own: those that Babel has for a language change from release to release.
    catalog.mime_headers = [("Plural-Forms", before.plural_forms)]
    for id, found in texts().items():
        known: Message | None = before.get(_first(id))
        kept = (
            known.string if known is not None and isinstance(known.id, (tuple, list)) is isinstance(id, tuple) else None
        )
        flags = ["python-format"] if found.is_format else []
        catalog.add(id, kept or ("" if isinstance(id, str) else ("",) * catalog.num_plurals), flags=flags,
                    locations=[(name, None) for name in sorted(found.files)])  # fmt: skip
    return catalog


def po(language: str) -> Path:
    return PGQ / "locale" / language / "LC_MESSAGES" / "django.po"


def written(language: str) -> tuple[bytes, bytes]:
    """Return the .po and the .mo of a language."""
    source = BytesIO()
    made = catalog(language)
    write_po(source, made, omit_header=True, width=110, sort_output=False)
    header = (
        f"# pgq in {made.locale.english_name}. Written by `make messages`; the translations are made by hand.\n"
        'msgid ""\nmsgstr ""\n'
        f'"Language: {language}\\n"\n"MIME-Version: 1.0\\n"\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
        f'"Content-Transfer-Encoding: 8bit\\n"\n"Plural-Forms: {made.plural_forms}\\n"\n\n'
    )
    body = source.getvalue().decode()
    return (header + body).encode(), compiled(made, header)


def compiled(made: Catalog, header: str) -> bytes:
    """Return a catalog as Django reads it: the format of gettext, which `msgfmt` writes, without a date."""
    pairs = {b"": ast.literal_eval("(" + header.partition("msgstr ")[2] + ")").encode()}
    for message in made:
        if message.id:
            ids, strings = (it if isinstance(it, (list, tuple)) else [it] for it in (message.id, message.string))
            if all(strings):
                pairs["\0".join(ids).encode()] = "\0".join(strings).encode()
    ordered = sorted(pairs.items())
    number, begin = len(ordered), 28 + 16 * len(ordered)
    tables: list[int] = []
    texts_of: list[bytes] = []
    for part in range(2):
        for pair in ordered:
            tables += [len(pair[part]), begin]
            texts_of.append(pair[part] + b"\0")
            begin += len(pair[part]) + 1
    start = struct.pack("<7I", 0x950412DE, 0, number, 28, 28 + 8 * number, 0, 28 + 16 * number)
    return start + struct.pack(f"<{len(tables)}I", *tables) + b"".join(texts_of)


def main() -> None:
    for language in LANGUAGES:
        source, compiled = written(language)
        po(language).parent.mkdir(parents=True, exist_ok=True)
        po(language).write_bytes(source)
        po(language).with_suffix(".mo").write_bytes(compiled)


if __name__ == "__main__":
    main()
