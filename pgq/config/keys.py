"""The settings as an object with types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from pgq.conf import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Settings):
    """The keys of PGQ with their types and defaults: each is declared once, in `pgq.conf.Settings`.

    What equals its default counts as not given.
    """

    #: Settings of pools by their names, see docs/reference/settings.md.
    ALT_CLUSTERS: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_settings(self) -> dict[str, Any]:
        """Return the keys that are given, as PGQ has them."""
        return {key.name: value for key in fields(self) if (value := getattr(self, key.name)) != _default(key)}

    @staticmethod
    def apps() -> list[str]:
        """Return what has to stand in INSTALLED_APPS: ``INSTALLED_APPS = [..., *config.apps()]``."""
        return ["pgq"]


def _default(key: Field[Any]) -> Any:
    return key.default_factory() if key.default_factory is not MISSING else key.default
