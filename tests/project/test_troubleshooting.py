"""The page of troubles quotes every message that the source can say, and no other."""

from __future__ import annotations

import re
from functools import cache

import pytest

from pgq.status import why
from tests.support import messages
from tests.support.blocks import ROOT, texts
from tests.support.messages import GAP, fits, quoted

PAGE = (ROOT / "docs/operate/troubleshooting.md").read_text(encoding="utf-8")
OWN, OF_POSTGRESQL = PAGE.split("\n## From PostgreSQL\n")
QUOTED = quoted(OWN)
#: What is said at a level below a warning.
QUIET = {"task … (…) succeeded in … ms, in attempt …"}


def part(title: str) -> set[str]:
    return quoted(PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0])


@cache
def said() -> dict[str, str]:
    """All messages and where they are. What REST refuses it says in its answer, to a program."""
    return {
        one.text: one.where
        for one in messages.of_source()
        if one.text not in QUIET and (one.kind == "log" or not one.where.startswith("pgq/urls/"))
    }


def test_every_message_of_the_source_is_on_the_page() -> None:
    found = said()
    assert len(found) > 200
    assert {where: text for text, where in found.items() if text not in QUOTED} == {}


def test_every_message_on_the_page_is_in_the_source() -> None:
    known = {*said(), *ids(), *checks(), *codes()}
    written, sql = messages.literals(), messages.of_sql()
    left = [
        quote
        for quote in QUOTED - known
        if not any(fits(quote, text) for text in written) and not any(fits(quote, line) for line in sql.splitlines())
    ]
    assert left == []


def ids() -> set[str]:
    source = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "pgq").rglob("*.py"))
    return set(re.findall(r"pgq\.[EW]\d{3}", source))


def checks() -> set[str]:
    """The names of what `pgq_check` looks at: in PostgreSQL, and in Python."""
    sql = (ROOT / "migrations_sql/0002_operators.up.sql").read_text(encoding="utf-8")
    listed = re.search(r"FOREACH name IN ARRAY ARRAY\[(.*?)\]", sql, re.DOTALL)
    assert listed
    return {*re.findall(r"'(\w+)'", listed[1]), "code", "limits", "places", "checks"}


def codes() -> set[str]:
    return {value for name, value in vars(why).items() if name.isupper() and isinstance(value, str)}


def test_every_check_finding_verdict_and_trouble_is_in_its_part() -> None:
    assert ids() <= part("From manage.py check")
    assert checks() <= part("From pgq_check")
    assert codes() <= part("From pgq_why")
    assert messages.returned("pgq/pool/liveness.py", "trouble") <= part("From /health")


def test_every_text_of_a_finding_is_in_its_part() -> None:
    found, quotes = messages.findings(), part("From pgq_check")
    assert len(found) > 20
    assert [text for text in found if not any(fits(quote, text) or fits(text, quote) for quote in quotes)] == []


def test_every_reason_to_park_is_in_its_part() -> None:
    reasons = {one.text: one.where for one in messages.of_source() if one.kind in ("NotAllowed", "NotDecodable")}
    fired = {text for text, where in reasons.items() if where.startswith("pgq/schedules/fire.py")}
    assert reasons.keys() - fired <= part("Why a task is parked")
    assert fired <= part("Why a schedule does not fire")
    assert any(text.startswith("it ran, and what came of it") for text in part("Why a task is parked"))


def test_what_postgresql_says_is_told_apart() -> None:
    """So that nobody looks for those in the source; and none of ours stands there."""
    assert not set(said()) & quoted(OF_POSTGRESQL)
    assert len(quoted(OF_POSTGRESQL)) > 20


def test_lines_of_a_log_on_other_pages_are_those_of_the_source() -> None:
    known = {text for text in {*said(), *messages.literals()} if len(text) > 40 and "\n" not in text}
    for text in texts("docs/operate/poolers.md", "text"):
        for line in text.splitlines():
            assert any(
                re.fullmatch(".*".join(map(re.escape, message.split(GAP))), line.removeprefix("notifications: "))
                for message in known
            ), line


@pytest.mark.parametrize(
    ("quote", "text", "does"),
    [
        ("a … b", "a long b", True),
        ("a … b", "b then a", False),
        ("it … …", "it is", True),
        ("parked: …", "held: x", False),
    ],
)
def test_what_fits(quote: str, text: str, does: bool) -> None:
    assert fits(quote, text) is does
