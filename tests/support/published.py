"""What is wrong with what is about to be published: the files of wheel and sdist, and the page of a package index.

Each function returns sentences; none means that all is well. `make test` and `make release-check` ask the same.
"""

from __future__ import annotations

import importlib.util
import re
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Kinds of files that are no modules, so that a wheel may lose them unseen; how the name of one begins.
KINDS = {
    "the marker of types": "pgq/py.typed",
    "statements": "pgq/store/sql/queue/claim.sql",
    "the SQL of migrations": "pgq/migrations_sql/0001_initial.up.sql",
    "Django's migrations": "pgq/migrations/0001_initial.py",
    "the roles": "pgq/migrations_sql/roles.sql",
    "templates": "pgq/templates/pgq/",
    "static files": "pgq/static/",
    "the description of REST": "pgq/urls/openapi.json",
}
SDIST = ("pyproject.toml", "hatch_build.py", "README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md", "tests/conftest.py")
#: Where links lead while nothing says where the project is at home.
ELSEWHERE = "https://example.org/pgq"
_LINK = re.compile(r"!?\[[^]]*\]\(([^)\s]*)\)")


def source_files(folder: str) -> set[str]:
    """Return the files of a folder of the checkout, but for what Python has compiled."""
    paths = (ROOT / folder).rglob("*")
    return {str(path.relative_to(ROOT)) for path in paths if path.is_file() and path.parent.name != "__pycache__"}


def wheel_problems(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = source_files("pgq") | {f"pgq/{name}" for name in source_files("migrations_sql")}
    others = {name for name in names if not name.startswith("pgq/") and ".dist-info/" not in name}
    hidden = {name for name in names if re.search(r"(^|/)(__pycache__|\.|tests?/)", name)}
    return [
        *(f"the wheel lacks {name}" for name in sorted(wanted - names)),
        *(f"the wheel lacks {what}" for what, at in KINDS.items() if not any(name.startswith(at) for name in names)),
        *(f"the wheel puts {name} into site-packages" for name in sorted(others)),
        *(f"the wheel has {name}" for name in sorted(hidden)),
    ]


def sdist_problems(sdist: Path) -> list[str]:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    wanted = source_files("pgq") | source_files("migrations_sql") | set(SDIST)
    hidden = {name for name in names if "__pycache__" in name or name.startswith((".venv", ".pgq", ".git/"))}
    return [
        *(f"the sdist lacks {name}" for name in sorted(wanted - names)),
        *(f"the sdist has {name}" for name in sorted(hidden)),
    ]


def metadata(wheel: Path) -> Message:
    """Return what an index learns of the wheel; the README is its payload."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def hook() -> Any:
    """Return hatch_build.py as a module; it needs hatchling."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, value or "") for name, value in attrs if (tag, name) in (("a", "href"), ("img", "src"))]


def rendered(readme: str) -> tuple[str | None, list[tuple[str, str]]]:
    """Return a README as the index shows it, and where its links and images lead; it needs readme_renderer[md]."""
    from readme_renderer import markdown

    html: str | None = markdown.render(readme)
    addresses = _Addresses()
    addresses.feed(html or "")
    return html, addresses.found


def page_problems(readme: str) -> list[str]:
    """Return what is wrong with the page of an index made of this text."""
    html, addresses = rendered(readme)
    if html is None:
        return ["the README cannot be rendered"]
    relative = [where for _, where in addresses if not re.match(r"https?://|mailto:|#", where)]
    broken = [word for word in ("<h1", "<table", "<pre") if word not in html]
    return [
        *(f"the README leads to {where}, which an index does not have" for where in relative),
        *(f"the README is shown without any {word}" for word in broken),
    ]


def link_problems(readme: str, shown: str, base: str) -> list[str]:
    """Return what is wrong with the links of a README made absolute.

    Args:
        readme: As it stands in the checkout.
        shown: As an index gets it.
        base: What each link must begin with that was relative.
    """
    before = [where for where in _LINK.findall(readme) if not re.match(r"https?:|#", where)]
    after = [where for where in _LINK.findall(shown) if where.startswith(base)]
    found = [re.sub(r"^/(?:blob|raw)/[^/]+/", "", where.removeprefix(base)) for where in after]
    missing = [where for where in found if not (ROOT / where.partition("#")[0]).exists()]
    lost = sorted(set(before) - set(found))
    return [
        *(f"{where} is not in the repository" for where in missing),
        *(f"{where} has become no link" for where in lost),
    ]
