"""Bringing schedules, queued tasks and results from another queue."""
