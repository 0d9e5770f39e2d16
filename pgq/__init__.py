"""pgq: a task queue, scheduler and worker pool for Django whose only server is PostgreSQL.

Importing this package imports neither models nor settings. The public faces are `pgq.tasks`, `pgq.models`,
`pgq.signals`, `pgq.testing` and the management commands.
"""

__version__ = "0.1.0"
VERSION = tuple(int(part) for part in __version__.split("."))
