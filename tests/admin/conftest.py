"""Fixtures of these tests."""

from __future__ import annotations

from tests.support.admin import user_with

__all__ = ["user_with"]
