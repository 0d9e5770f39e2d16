"""The package as strangers get it: built once for all tests of a process, installed into empty virtualenvs.

``wheelhouse`` is an index on disk: the wheel of pgq, and all that it depends on, packed again from what this test run
has installed. So pip resolves and installs as ever (``--no-index --find-links``) and downloads nothing. What pgq
imports and does not declare is not in it.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.projects import clean_environment

ROOT = Path(__file__).parents[2]


def run(*arguments: object, cwd: Path, **env: str) -> str:
    """Run a program without what the test run has put into the environment; its output."""
    command = [str(argument) for argument in arguments]
    try:
        done = subprocess.run(
            command, cwd=cwd, env=clean_environment(**env), capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"") + (error.stderr or b"")
        pytest.fail(f"{command} has not ended\n{said.decode(errors='replace')}")
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def dependencies(distribution: str) -> list[Distribution]:
    """Return all that a distribution needs, whatever needs it, as it is installed here."""
    found: dict[str, Distribution] = {}
    asked, waiting = set(), [Requirement(distribution)]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if (name, frozenset(wanted.extras)) in asked:
            continue
        asked.add((name, frozenset(wanted.extras)))
        found[name] = importlib.metadata.distribution(wanted.name)
        for needed in map(Requirement, found[name].requires or ()):
            extras = wanted.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    del found[canonicalize_name(distribution)]
    return list(found.values())


def pack(distribution: Distribution, folder: Path) -> None:
    """Make a wheel of what is installed."""
    files = [file for file in distribution.files or () if file.parts[0] != ".." and "__pycache__" not in file.parts]
    [description] = [file for file in files if file.name == "WHEEL"]
    tags = [line[5:].split("-") for line in description.read_text().splitlines() if line.startswith("Tag: ")]
    tag = "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*tags, strict=True))
    name = canonicalize_name(distribution.name).replace("-", "_")
    with zipfile.ZipFile(folder / f"{name}-{distribution.version}-{tag}.whl", "w") as wheel:
        for file in files:
            wheel.write(str(file.locate()), str(file))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from it."""
    pytest.importorskip("build", reason="needs the dependency group 'build'")
    pytest.importorskip("hatchling", reason="needs the dependency group 'build'")
    folder = tmp_path_factory.mktemp("dist")
    # Without isolation nothing is downloaded; without -s and -w, the wheel comes out of the sdist.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="session")
def wheelhouse(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ``pip install --no-index --find-links``: see above."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    (folder / wheel.name).symlink_to(wheel)
    for distribution in dependencies("django-pgq"):
        pack(distribution, folder)
    return folder
