"""docs/reference/glossary.md has one meaning for each word of pgq, and the code keeps to the words."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pgq

ROOT = Path(__file__).parents[2]
GLOSSARY = (ROOT / "docs/reference/glossary.md").read_text(encoding="utf-8")
#: The words of the design.
WORDS = [
    "task", "enqueue", "position", "lane", "watermark", "claim", "lease", "renew", "attempt", "receipt", "report",
    "execute", "outcome", "settle", "result", "follow-on", "rescue", "park", "prune", "worker", "pool",
    "supervisor", "upkeep", "tick", "slot", "key", "limit", "held", "waiting", "suspended",
]  # fmt: skip
#: What other packages are called, and Django-Q's own names.
_THEIRS = re.compile(
    r"CrontabJobConfig|_Job\b|CrontabConfig|jobs?\b[^\n]*crontab|crontab[^\n]*jobs?\b|cron job", re.IGNORECASE
)


def entries() -> list[str]:
    """Return the words that have a meaning; a row may tell of two."""
    used = GLOSSARY.partition("## Words that are not used")[0]
    rows = re.findall(r"^\| ([\w -]+(?:, [\w -]+)*) \|", used, re.MULTILINE)
    return [word for row in rows if row != "word" for word in row.split(", ")]


def test_each_word_of_the_design_has_an_entry() -> None:
    assert [word for word in WORDS if word not in entries() and f"{word}ed" not in entries()] == []


def test_each_word_has_one_meaning() -> None:
    assert [word for word, number in Counter(entries()).items() if number > 1] == []


def test_a_word_in_italics_has_an_entry() -> None:
    known = {word.lower() for word in entries()}
    asked = set(re.findall(r"(?<!\*)\*([\w -]+)\*(?!\*)", GLOSSARY)) - {"Migrate"}
    forms = {word: {word, word.removesuffix("s"), word.removesuffix("d"), word.removesuffix("ed")} for word in asked}
    assert len(asked) > 10
    assert [word for word, known_as in forms.items() if not known_as & known] == []


def test_the_code_says_none_of_the_words_that_are_not_used() -> None:
    """In names of functions and classes; broker is Django-Q's argument."""
    found = []
    for file in sorted(Path(pgq.__file__).parent.rglob("*.py")):
        for name in re.findall(r"^\s*(?:async )?(?:def|class) (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE):
            if re.search(r"(?:^|_)jobs?(?:_|$)|(?<=[a-z])Job|^Job|visibility|dead_letter", name) and not _THEIRS.search(
                name
            ):
                found.append(f"{file.name}: {name}")
    assert found == []
