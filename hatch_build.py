"""The README as a package index shows it: there, links and images that lead into the repository would lead nowhere.

A link becomes its text, and an image goes. (Once the project has a public repository and names it in [project.urls],
they should become absolute instead.)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_IMAGE = re.compile(r"!\[[^]]*\]\((?!https?:)[^)]*\)\n*")
_LINK = re.compile(r"\[([^]]*)\]\((?!https?:)[^)]*\)")


class IndexReadme(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": _LINK.sub(r"\1", _IMAGE.sub("", text))}
