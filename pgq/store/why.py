"""The statement about why a task is not running."""

from __future__ import annotations

from uuid import UUID

from pgq.store.connection import Cursor
from pgq.store.statement import one_row


def why(cursor: Cursor, id: UUID) -> tuple[str, str, str]:
    """Return the code, the sentence and, as JSON, the facts."""
    code, sentence, facts = one_row(cursor, "why", {"id": id})
    return code, sentence, facts
