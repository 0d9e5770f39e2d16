"""Functions registered with @task must be known in each process before the first row that names one.

So the module ``tasks`` of each installed app is imported when Django starts. An error in one of the project's own is
raised, for the project to mend; one in an installed package must not keep the project from starting, which may never
enqueue its tasks. (Many packages have a ``tasks.py`` for another queue, which is not installed here.)
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from pathlib import PurePath

from django.apps import AppConfig, apps
from django.utils.module_loading import module_has_submodule

logger = logging.getLogger("pgq")

#: Folders into which installers put packages.
_INSTALLED = {"site-packages", "dist-packages"}

#: The modules that were left out, and why.
left_out: dict[str, str] = {}


def import_tasks() -> None:
    """Import the module ``tasks`` of each installed app.

    Raises:
        Exception: What an own module raises. One of an installed package is noted in `left_out`.
    """
    left_out.clear()
    for app in apps.get_app_configs():
        module = f"{app.name}.tasks"
        try:
            import_module(module)
        except Exception as error:
            if app.module is None or not module_has_submodule(app.module, "tasks"):
                continue
            if is_own(app):
                raise
            left_out[module] = f"{type(error).__name__}: {error}"


def is_own(app: AppConfig) -> bool:
    """Whether an app belongs to the project: it is not where packages are installed, or its settings are in it too."""
    project = os.environ.get("DJANGO_SETTINGS_MODULE", "").partition(".")[0]
    return _INSTALLED.isdisjoint(PurePath(app.path).parts) or app.name.partition(".")[0] == project


def sentences() -> list[str]:
    """Return a sentence for each module that was left out: what follows from it."""
    return [
        f"{module} cannot be imported, so its tasks are not known: rows that psql, the ORM or the admin writes may not "
        f"name them, and what their @task says does not hold ({why})."
        for module, why in left_out.items()
    ]


def warn() -> None:
    """Log what was left out, in a process that runs tasks; ``manage.py check`` names it elsewhere."""
    for sentence in sentences():
        logger.warning("%s", sentence)
