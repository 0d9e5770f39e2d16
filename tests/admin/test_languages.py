"""The admin in other languages: nothing is left untranslated, neither in the code, nor in a catalog, nor on a page."""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from babel.messages.pofile import read_po
from django.template.base import Lexer, TokenType
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import translation

from pgq.admin.dashboard import verdicts
from pgq.status import why
from pgq.store.caller import callers_cursor
from pgq.tasks import async_chain, async_iter, async_task, cancel, pause, schedule, set_limit
from pgq.tasks.all_findings import all_findings
from tests.support import catalogs
from tests.support.admin import REGISTERED, finished, queued, sql
from tests.support.pool_rows import WORKERS, make_pool

ADMIN = catalogs.PGQ / "admin"
CODE, TEMPLATES = sorted(ADMIN.rglob("*.py")), sorted((catalogs.PGQ / "templates").rglob("*.html"))
#: What is no text for people, or is the same in all languages.
NO_TEXT = {
    "no-cache, private", "application/x-www-form-urlencoded", "default-src 'none'", "text/plain; charset=utf-8",
    "Factory", "True", "False", "vLargeTextField pgq-literals", "synchronous_commit", "PostgreSQL", "Cookie", "Vary",
    "ETag", "Python",
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- the code


def words(text: str) -> str:
    """What of a literal a reader would see: without tags, placeholders and entities."""
    return re.sub(r"<[^>]*>?|\{[^}]*\}|%\(\w+\)[sdg]|%[sdg]|&\w+;", " ", text).strip()


def untranslated(source: str) -> Iterator[tuple[int, str]]:
    """The literals of a module that look as if people read them, and go through no gettext."""
    tree = ast.parse(source)
    passed: set[int] = set()
    for node in ast.walk(tree):
        skipped: list[ast.AST] = []
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node, clean=False) is not None
        ):
            skipped.append(node.body[0])
        elif isinstance(node, (ast.Raise, ast.Assert, ast.Subscript)):
            skipped.append(node)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in (
                "_",
                "gettext_lazy",
                "gettext",
                "ngettext",
                "compile",
                "warning",
                "EnqueueError",
                "re_path",
                "path",
            ):
                skipped.append(node)
        passed.update(id(inner) for skip in skipped for inner in ast.walk(skip))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed:
            seen = words(node.value)
            marked = "<" in node.value and re.search(r"[A-Za-z]{2}", seen)
            spoken = re.search(r"[A-Za-z]{2,},? [A-Za-z]", seen) or re.fullmatch(r"[A-Z][a-z]+", seen)
            route = re.fullmatch(r"[\w/]*(<\w+:\w+>/?[\w/]*)+", node.value)
            if (marked or spoken) and not route and node.value not in NO_TEXT:
                yield node.lineno, node.value


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ADMIN)))
def test_the_code_says_nothing_untranslated(path: Path) -> None:
    assert list(untranslated(path.read_text(encoding="utf-8"))) == []


def test_what_is_untranslated_is_found() -> None:
    source = "format_html('<b>Show {} more</b>', 1); _('Hello there'); title = 'Overview'; x = 'not yet'; y = 'key'"
    assert {text for _line, text in untranslated(source)} == {"<b>Show {} more</b>", "Overview", "not yet"}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_the_templates_say_nothing_untranslated(path: Path) -> None:
    inside, bare = False, ""
    for token in Lexer(path.read_text(encoding="utf-8")).tokenize():
        if token.token_type is TokenType.BLOCK:
            begins = token.contents.startswith(("blocktrans", "block bodyclass"))
            inside = begins or (inside and not token.contents.startswith("endblock"))
        elif token.token_type is TokenType.TEXT and not inside:
            bare += token.contents
    seen = re.findall(r"[A-Za-z]{2,}", re.sub(r"<[^>]*>", " ", bare))
    assert [word for word in seen if word != "ms"] == []


# ------------------------------------------------------------------------------------------------- the catalogs


@pytest.fixture(params=catalogs.LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_catalogs_are_those_that_make_messages_writes(language: str) -> None:
    source, compiled = catalogs.written(language)
    assert catalogs.po(language).read_bytes() == source
    assert catalogs.po(language).with_suffix(".mo").read_bytes() == compiled


def test_no_catalog_lacks_anything(language: str) -> None:
    with catalogs.po(language).open("rb") as file:
        catalog = read_po(file, locale=language)
    entries = [message for message in catalog if message.id]
    assert len(entries) == len(catalogs.texts()) > 300
    for message in entries:
        ids, strings = ([it] if isinstance(it, str) else list(it) for it in (message.id, message.string))
        assert not message.fuzzy
        assert len(strings) == (catalog.num_plurals if len(ids) > 1 else 1)
        for string in strings:
            assert string.strip(), message.id
            assert placeholders(string) in [placeholders(id) for id in ids], (message.id, string)
            assert (string[-1] in ".?:!…。？：！") == (ids[0][-1] in ".?:!…"), (message.id, string)


def placeholders(text: str) -> list[str]:
    return sorted(re.findall(r"%\(\w+\)[sdg]|%[sdg%]", text))


# ------------------------------------------------------------------------------------------------- the pages


def everything() -> list[str]:
    """Rows of all kinds; the addresses of the pages that show them."""
    make_pool(workers=WORKERS)
    make_pool(UUID(int=7), name="silent", silent=90)
    done, failed, stopped = finished(), finished(False), finished(False, exception="pgq.errors.TaskCancelled")
    schedule(REGISTERED, 1, name="nightly", schedule_type="C", cron="0 3 * * *")
    row = schedule(REGISTERED, 1, name="hourly", schedule_type="H")
    type(row).objects.filter(pk=row.pk).update(paused=True)
    waiting, ready = async_task(REGISTERED, 1, run_after=3600), async_task(REGISTERED, 2, queue="mail")
    parked = queued(parked="no key")
    whole = async_iter(REGISTERED, [1, 2, 3])
    group = async_chain([(REGISTERED, (1,)), (REGISTERED, (2,))], group="close")
    cancel(async_task(REGISTERED, 3, run_after=3600))
    set_limit("stripe", concurrency=0)
    async_task(REGISTERED, 1, queue="night")
    pause("night")
    sql("SELECT pgq_mark('v1')")
    kind = sql("SELECT pgq_fingerprint(func, exception, message) FROM pgq_task WHERE NOT success ORDER BY id LIMIT 1")[
        0
    ][0]
    pool = str(sql("SELECT id FROM pgq_worker WHERE name <> 'silent'")[0][0])
    lists = "changelist queues limits functions marks flows errors tasks workers schedules doctor audit new_limit"
    pages: list[tuple[str, tuple[Any, ...]]] = [(page, ()) for page in lists.split()]
    pages += [("task", (id,)) for id in (done, failed, stopped, waiting, ready, parked, whole)]
    pages += [
        ("function", (REGISTERED,)), ("queue", ("mail",)), ("queue", ("night",)), ("error", (kind,)),
        ("pool", (pool,)),
        ("flow", (whole,)), ("flow", (group,)), ("retry_alike", (kind,)), ("retry", (failed,)), ("cancel", (ready,)),
        ("run_now", (waiting,)), ("pause", ("mail",)), ("resume", ("night",)), ("drop_limit", ("key", "stripe")),
        ("set_limit", ("key", "stripe")),
    ]  # fmt: skip
    addresses = [reverse(f"admin:pgq_dashboard_{page}", args=args) for page, args in pages]
    for model, pk in (("queuedtask", waiting), ("queuedtask", parked), ("success", done), ("failure", failed)):
        addresses += [reverse(f"admin:pgq_{model}_changelist"), reverse(f"admin:pgq_{model}_change", args=[pk])]
    addresses += [reverse(f"admin:pgq_{model}_changelist") for model in ("schedule", "workerpool")]
    addresses += [reverse("admin:pgq_schedule_change", args=[row.pk]), reverse("admin:pgq_queuedtask_add")]
    return addresses


def leftovers(shown: str, catalog: dict[str, str]) -> set[str]:
    """The texts of a page that are those of the list, in English."""
    text = re.sub(r"(?s)<script.*?</script>|<style.*?</style>|<pre.*?</pre>|<code.*?</code>", " ", shown).replace(
        "<wbr>", ""
    )
    said = {html.unescape(piece).strip() for piece in re.split(r"<[^>]*>", text)}
    said |= {
        html.unescape(value) for value in re.findall(r'(?:data-label|aria-label|placeholder|title)="([^"]*)"', text)
    }
    return {one for one in said if one in catalog} - {""}


@pytest.mark.django_db
def test_no_page_is_left_in_english(language: str, admin_client: Client) -> None:
    with catalogs.po(language).open("rb") as file:
        catalog = read_po(file, locale=language)
    pairs: dict[str, str] = {}
    for message in catalog:
        ids, strings = (it if isinstance(it, (list, tuple)) else [it] for it in (message.id, message.string))
        for id, string in zip(ids, strings, strict=False):
            pairs |= {id: string, id[:1].upper() + id[1:]: string}
    # What is said alike, or names something of the tests, is no leftover.
    english = {id: string for id, string in pairs.items() if id.lower() != string.lower()}
    addresses = everything()
    # Names that pgq_check gives, as psql shows them.
    with callers_cursor("default") as cursor:
        checks = {finding.check for finding in all_findings(cursor)}
    left: dict[str, set[str]] = {}
    with override_settings(LANGUAGE_CODE=language.replace("_", "-").lower()):
        for address in addresses:
            response = admin_client.get(address)
            assert response.status_code == 200, address
            found = leftovers(response.content.decode(), english)
            left[address] = found - checks if address.endswith("/doctor/") else found
    assert {address: found for address, found in left.items() if found} == {}


def test_a_verdict_is_said_in_the_language_of_the_reader(language: str) -> None:
    codes = {value for name, value in vars(why).items() if name.isupper() and isinstance(value, str)}
    assert len(codes) > 20
    facts = {
        "queue": "mail", "pool": "p", "host": "h", "pid": 7, "attempt": 2, "func": "f", "reason": "r", "remaining": 5,
        "ahead": 3, "ahead_elsewhere": 2, "busy": 1, "workers": 4, "key": "k", "limit": "key", "concurrency": 5,
        "limited": 5, "exception": "E", "paused": True, "pools": 1, "run_after": "2099-01-01T00:00:00+00:00",
        "stopped": "no time", "since": None,
    }  # fmt: skip
    for code in codes:
        verdict = why.Verdict(UUID(int=1), code, "as SQL says it", facts)
        assert verdicts.sentence(verdict) == "as SQL says it"
        with translation.override(language.replace("_", "-").lower()):
            said = verdicts.sentence(verdict)
        assert said != "as SQL says it", code
        assert "%(" not in said, code
        assert not re.search(r"\b(It|the|queue is)\b", said), code
