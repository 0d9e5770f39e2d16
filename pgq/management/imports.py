"""The imports of `pgq_schedules`: what is found elsewhere, what becomes of it, and how that is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from pgq.contrib.cron import apscheduler, celery_beat, crontab, django_crontab, found
from pgq.contrib.cron.found import Found
from pgq.management.output import visible


def _crontab(named: Sequence[str], options: dict[str, Any]) -> list[Found]:
    text = sys.stdin.read() if named[0] == "-" else Path(named[0]).read_text(encoding="utf-8")
    return crontab.find(text, user_field=options["user_field"])


#: For each import: what finds the schedules, and how many arguments it takes.
IMPORTS: dict[str, tuple[Callable[[Sequence[str], dict[str, Any]], list[Found]], tuple[int, ...]]] = {
    "import-crontab": (_crontab, (1,)),
    "import-django-crontab": (lambda named, options: django_crontab.find(), (0,)),
    "import-celery-beat": (lambda named, options: celery_beat.find(*named), (0, 1)),
    "import-apscheduler": (lambda named, options: apscheduler.find(*named), (1,)),
}


def imported(action: str, named: Sequence[str], options: dict[str, Any]) -> list[Found]:
    """Do an import; return what was found, and what became of it.

    Raises:
        CommandError: The file cannot be read, or the app not imported; or the arguments are wrong.
    """
    find, counts = IMPORTS[action]
    if len(named) not in counts or (options["user_field"] and action != "import-crontab"):
        raise CommandError(
            "import-crontab takes a file, or - for stdin, and --user-field; import-celery-beat the path of an app, or "
            "nothing; import-apscheduler the path of a scheduler, or of a function that makes it.",
            returncode=2,
        )
    try:
        checked = found.check(find(named, options))
        if options["write"] is None:
            found.write(checked, dry_run=options["dry_run"])
        elif not options["dry_run"]:
            Path(options["write"]).write_text(found.as_module(each for each, _ in checked), encoding="utf-8")
    except (OSError, ImportError, UnicodeDecodeError) as error:
        raise CommandError(visible(error)) from None
    return [each for each, _ in checked]


def as_json(each: Found) -> dict[str, Any]:
    """Return what became of one schedule, for programs."""
    name = None if each.config is None else each.config.name
    return {"source": each.source, "name": name, "refused": each.refused or None, "notes": list(each.notes)}


def lines(all_found: Sequence[Found], options: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield lines for people, each with its colour."""
    for each in all_found:
        if each.config is None:
            yield f"refused  {each.source}", "yellow"
            yield f"         {each.refused}", ""
            continue
        paused = "" if each.config.enabled else ", paused"
        yield f"taken    {each.source}", ""
        yield f"         as {each.config.name!r}{paused}", "green"
        for note in each.notes:
            yield f"         {note}", "dim"
    taken = sum(each.config is not None for each in all_found)
    where = "would be taken" if options["dry_run"] else f"in {options['write']}" if options["write"] else "written"
    yield f"{taken} {where}, {len(all_found) - taken} refused.", "bold"
