"""docs/reference/python.md has every public name, as the code has it."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.support import reference_page


def test_every_public_name_is_described():
    assert reference_page.undocumented() == []


def test_the_page_is_what_the_code_says():
    assert reference_page.PAGE.read_text(encoding="utf-8") == reference_page.written(), "run make docs"


def test_a_name_without_a_description_is_found(monkeypatch: pytest.MonkeyPatch):
    def bare() -> None:
        pass

    class Bare:
        def method(self) -> None:
            pass

    module = ModuleType("pgq.bare", "A module.")
    module.__all__, module.bare, module.Bare = ["Bare", "bare"], bare, Bare
    monkeypatch.setattr(reference_page, "modules", lambda: [module])
    assert reference_page.undocumented() == ["pgq.bare.Bare", "pgq.bare.Bare.method", "pgq.bare.bare"]
    assert "### `pgq.bare.bare`" in reference_page.written()


def test_docstrings_become_markdown():
    doc = """Do ``this``.

    Like so::

        this(1)

    Args:
        a, b: What
            to do.

    Raises:
        ValueError: Never.
    """
    assert reference_page.markdown(doc) == (
        "Do `this`.\n\nLike so:\n\n```python\nthis(1)\n```\n\n**Args**\n\n* `a`, `b`: What\n  to do.\n\n"
        "**Raises**\n\n* `ValueError`: Never.\n\n"
    )
