"""manage.py pgq_clean: deletes old results now, instead of waiting for upkeep."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
from django.core.management.base import CommandError, CommandParser

from pgq.conf import asked, at
from pgq.management.command import PgqCommand, explain
from pgq.management.output import emit, message, span, text
from pgq.upkeep import clean
from pgq.upkeep.clean import Cleaned


class Command(PgqCommand):
    help = (
        "Deletes old results now: drops whole partitions where all is old, and deletes the rest in small batches. Also "
        "makes the partitions of the coming weeks. Without --older-than and --keep it does as PGQ['save_limit'] and "
        "PGQ['keep_days'] say. "
        "With both, a result goes only if it is older and beyond the number to keep."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            type=_days,
            metavar="DAYS",
            help="delete what finished more than so many days ago (0.5: 12 hours)",
        )
        parser.add_argument("--keep", type=_number, metavar="N", help="keep the newest N results; 0: none")
        parser.add_argument(
            "--failures",
            action="store_true",
            help="failures too; --keep counts them by themselves (default: successes)",
        )
        parser.add_argument("--queue", help="only results of this queue")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
        self.add_json(parser)

    def run(self, options: dict[str, Any]) -> None:
        away = 0
        for alias in (aliases := asked()):
            try:
                with at(alias):
                    self._clean(options, alias if len(aliases) > 1 else None)
            except psycopg.OperationalError as error:
                if len(aliases) == 1:
                    raise
                away += 1
                self.stderr.write(f"{alias}: {explain(error)}")
        if away:
            raise CommandError(f"{away} of {len(aliases)} databases could not be cleaned, see above")

    def _clean(self, options: dict[str, Any], alias: str | None) -> None:
        try:
            with self._progress(options) as progress:
                cleaned = clean.delete_old(
                    older_than=options["older_than"],
                    keep=options["keep"],
                    failures=options["failures"],
                    queue=options["queue"],
                    dry_run=options["dry_run"],
                    progress=progress,
                )
        except clean.Interrupted as interrupted:
            self._report(interrupted.cleaned, options, alias)
            raise
        self._report(cleaned, options, alias)

    @contextlib.contextmanager
    def _progress(self, options: dict[str, Any]) -> Iterator[clean.Progress]:
        out = None if options["json"] or options["verbosity"] == 0 else self.console(options)
        if out is None or not out.is_interactive:
            yield lambda share, deleted: None
            return
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
        with Progress(*columns, console=out, transient=True, refresh_per_second=4) as bar:
            task = bar.add_task("Looking", total=1.0)

            def show(share: float, deleted: int) -> None:
                bar.update(task, completed=share, description=_how_many(deleted, dry_run=options["dry_run"]))

            yield show

    def _report(self, cleaned: Cleaned, options: dict[str, Any], alias: str | None) -> None:
        """Say what was done. `alias`: of the database, if there are several."""
        if not cleaned.dry_run:
            self.tell("clean", f"{_how_many(cleaned.deleted, dry_run=False)}", alias or "", deleted=cleaned.deleted)
        if options["json"]:
            self.print_json(({} if alias is None else {"database": alias}) | as_json(cleaned))
            return
        if options["verbosity"] == 0:
            return
        out = self.console(options)
        dry = cleaned.dry_run
        where = "" if alias is None else f"{alias}: "
        emit(out, text(f"{where}{_how_many(cleaned.deleted, dry_run=dry)} in {span(cleaned.seconds)}.", "bold"))
        if cleaned.expired:
            emit(out, text(f"{cleaned.expired:,} of them had a keep that is over."))
        for name, results in cleaned.dropped:
            emit(out, text(f"{name} would be dropped." if dry else f"{name} dropped, with {results:,} results."))
        if cleaned.partitions_made:
            emit(out, text(f"{cleaned.partitions_made} partitions made for the coming weeks."))
        for reference, count in sorted(cleaned.kept.items()):
            stays = f"{count:,} results stay, since rows of another table refer to them: {reference}."
            emit(out, message(stays, "yellow"))
        for note in cleaned.notes:
            emit(out, message(note, "yellow"))


def _how_many(deleted: int, *, dry_run: bool) -> str:
    return f"{deleted:,} results would be deleted" if dry_run else f"{deleted:,} results deleted"


def as_json(cleaned: Cleaned) -> dict[str, Any]:
    """Return for programs what was done."""
    return {
        "dry_run": cleaned.dry_run,
        "deleted": cleaned.deleted,
        "expired": cleaned.expired,
        "partitions_made": cleaned.partitions_made,
        "partitions_dropped": [name for name, _ in cleaned.dropped],
        "kept": cleaned.kept,
        "notes": cleaned.notes,
        "seconds": round(cleaned.seconds, 3),
    }


def _days(value: str) -> float:
    try:
        days = float(value)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 365_000:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of days, 0 or more")
    return days


def _number(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number, 0 or more")
    # As much as OFFSET takes.
    return min(int(value), 2**62)
