"""A module that no worker imports before it claims a task of it: it is not called tasks.py."""

from __future__ import annotations

from typing import Any

from pgq.tasks import task
from tests.functions import slots as slot_tasks


@task
async def await_file(key: Any, path: str) -> Any:
    return await slot_tasks.await_file(key, path)
