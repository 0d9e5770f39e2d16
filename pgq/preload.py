"""Imported by the fork server, so that a new worker starts with Django and pgq already loaded.

Nothing here may connect to anything: the children inherit it.
"""

from __future__ import annotations

import logging

import django

try:
    django.setup()
    import pgq.upkeep
    import pgq.worker  # noqa: F401
except Exception:
    # The child meets the same error and says it where somebody can see it.
    logging.getLogger("pgq").debug("preloading failed", exc_info=True)
