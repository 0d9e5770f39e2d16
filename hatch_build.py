"""The README as a package index shows it: there, relative links and images lead nowhere.

Where [project.urls] of pyproject.toml names a Repository, they become absolute, and lead to the files of that
release by its tag. That line is the one place that says where the project is at home. Without it a link becomes its
text, and an image goes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^]]*)\]\((?!https?:|#)([^)\s]*)\)")
_IMAGE = re.compile(r"!\[[^]]*\]\((?!https?:)[^)]*\)\n*")


def for_index(text: str, repository: str | None, ref: str) -> str:
    """Return the README with no link that is relative.

    Args:
        repository: Where the files are, such as ``https://github.com/OWNER/NAME``; None: nobody knows.
        ref: Tag, branch or commit.
    """
    if repository is None:
        return _LINK.sub(r"\2", _IMAGE.sub("", text))
    base = repository.rstrip("/")
    return _LINK.sub(lambda link: f"{link[1]}[{link[2]}]({base}/{'raw' if link[1] else 'blob'}/{ref}/{link[3]})", text)


class IndexReadme(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository")
        shown = for_index(text, repository, f"v{metadata['version']}")
        metadata["readme"] = {"content-type": "text/markdown", "text": shown}
