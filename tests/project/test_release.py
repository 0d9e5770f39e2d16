"""What the pages say of this release is what the code, its metadata and the tests say."""

from __future__ import annotations

import re
import tomllib

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import pgq
from pgq.management import config_check
from tests import matrix
from tests.support.blocks import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSIONS = (ROOT / "docs" / "reference" / "versions.md").read_text()


def table(first_cell: str) -> list[list[str]]:
    """The rows of the table of versions.md whose heading begins with that cell."""
    lines = VERSIONS.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first_cell}"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


def classified(prefix: str) -> set[str]:
    found = {text.removeprefix(prefix) for text in PROJECT["classifiers"] if text.startswith(prefix)}
    return {version for version in found if "." in version}


def test_the_table_of_versions_is_that_of_the_matrix_and_of_the_classifiers() -> None:
    heading, *rows = table("| Django")
    djangos = [cell.removeprefix("Django ") for cell in heading[1:]]
    pythons = [row[0].removeprefix("Python ") for row in rows]
    assert (tuple(pythons), tuple(djangos)) == (matrix.PYTHONS, matrix.DJANGOS)
    tested = "PostgreSQL " + ", ".join(map(str, matrix.POSTGRESQLS))
    for python, row in zip(pythons, rows, strict=True):
        for django, cell in zip(djangos, row[1:], strict=True):
            assert cell == ("–" if (python, django) in matrix.APART else tested), (python, django)
    assert classified("Programming Language :: Python :: ") == set(pythons)
    assert classified("Framework :: Django :: ") == set(djangos)
    assert PROJECT["requires-python"] == f">={pythons[0]}"


def test_each_version_has_a_date_and_the_oldest_are_those_of_the_metadata() -> None:
    until = {row[0]: row[1:] for row in table("| fixes until")[1:]}
    for name, versions in (("Python", matrix.PYTHONS), ("Django", matrix.DJANGOS)):
        for version in versions:
            assert re.fullmatch(r"[A-Z]\w+ \d{4}", until[f"{name} {version}"][0])
    servers = [int(name.split()[1]) for name in until if name.startswith("PostgreSQL")]
    assert servers[0] == config_check._OLDEST_SERVER // 10_000
    assert [major for major in servers if until[f"PostgreSQL {major}"][1] == "tested"] == [*matrix.POSTGRESQLS]
    needed = {each.name: each.specifier for each in map(Requirement, PROJECT["dependencies"])}
    assert needed["django"] == SpecifierSet(f">={matrix.DJANGOS[0]}")
    assert f"{next(iter(needed['psycopg'])).version} or later" in until["psycopg"][1]


def test_the_version_stands_in_one_place_and_has_its_changes() -> None:
    assert "version" in PROJECT["dynamic"]
    assert pgq.__version__.rpartition(".")[0] in {row[0] for row in table("version")}
    heads = re.findall(r"^## \[(.+)\](?: - (\d{4}-\d\d-\d\d))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == ("Unreleased", "")
    released = dict(heads[1:])
    assert released[pgq.__version__]
    stated = [path for path in (ROOT / "pgq").rglob("*.py") if f'"{pgq.__version__}"' in path.read_text()]
    assert stated == [ROOT / "pgq" / "__init__.py"]


def test_the_numbers_of_the_readme_are_those_of_the_benchmarks() -> None:
    page = (ROOT / "docs" / "explain" / "benchmarks.md").read_text()
    readme = (ROOT / "README.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in readme.splitlines() if line[:2] == "| "]
    # pgq, Celery, Django-Q2, procrastinate; of a drain the pool of two workers, of a pick-up the median when idle.
    systems = ("pgq", "celery", "django-q2", "procrastinate")
    for name, section, column in (("no-op tasks a second", "Drain", 2), ("idle: enqueue to start", "Pick-up", 1)):
        measured = page.partition(f"\n## {section}\n")[2]
        [row] = [row for row in rows if row[0].startswith(name)]
        for system, cell in zip(systems, row[1:], strict=False):
            line = next(line for line in measured.splitlines() if line.startswith(f"| {system} "))
            wanted = float(line.split("|")[column + 1].split()[0].replace(",", ""))
            assert abs(float(cell.removesuffix(" ms").replace(",", "")) - wanted) < 0.05 * wanted, (name, system)
    [date] = re.findall(r"\d{4}-\d\d-\d\d", readme)
    assert f"* {date} " in page
