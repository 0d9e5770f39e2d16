"""Wall clocks: zones, and what a clock change does to a local time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

from pgq.errors import invalid

TICK = timedelta(microseconds=1)
#: Longer than any clock change (24 hours, at the date line), shorter than the time between two (a week).
NEAR = timedelta(hours=26)


def parse_zone(name: str | None, default: tzinfo) -> tzinfo:
    """Return the zone of that IANA name; the default for None and the empty text.

    Raises:
        ValueError: The zone is unknown here; the message has names that are nearly so.
    """
    if name is None or not name.strip():
        return default
    name = name.strip()
    # Each host has its own "localtime"; "right/" counts leap seconds, which no other clock here does.
    if name not in ("localtime", "posixrules") and not name.startswith(("right/", "posix/")):
        try:
            return ZoneInfo(name)
        except (LookupError, OSError, ValueError):
            pass
    names = {known.casefold(): known for known in sorted(available_timezones() - {"localtime"})}
    wanted = name.casefold().replace(" ", "_")[:100]
    close = [names[key] for key in names if key.rpartition("/")[2] == wanted]
    close += [names[key] for key in get_close_matches(wanted, names, n=3, cutoff=0.7)]
    hint = f"did you mean {listed(list(dict.fromkeys(close))[:3], 'or')}?" if close else "use one such as Europe/Paris"
    raise invalid("time_zone", f"{name[:100]!r} is no time zone known here; {hint}")


# Instants and wall times


def utc_of(moment: datetime, field: str) -> datetime:
    if moment.tzinfo is None:
        raise invalid(field, f"{moment!r} has no time zone; an aware datetime is needed")
    return moment.astimezone(UTC)


def local_of(instant: datetime, zone: tzinfo) -> datetime:
    """What the local clock shows, without zone and fold."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def offset_of(instant: datetime, zone: tzinfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()


def instant_of(wall: datetime, zone: tzinfo) -> datetime:
    """The first instant at which the local clock shows this time or a later one."""
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if local_of(instant, zone) == wall:
        return instant
    # A skipped time. With fold=1 it is read by the clock after the change, which gives an instant before it.
    return change_of(wall.replace(tzinfo=zone, fold=1).astimezone(UTC), instant, zone)


def change_of(low: datetime, high: datetime, zone: tzinfo) -> datetime:
    """The first instant with another offset than `low`; there must be one up to `high`."""
    before = offset_of(low, zone)
    # Clocks change on whole seconds.
    start = low.replace(microsecond=0)
    # `same` seconds after start the clock has not changed yet; `other` seconds after start it has.
    same, other = 0, -((start - high) // timedelta(seconds=1))
    while other - same > 1:
        middle = (same + other) // 2
        if offset_of(start + timedelta(seconds=middle), zone) == before:
            same = middle
        else:
            other = middle
    return start + timedelta(seconds=other)


def furthest(instant: datetime, zone: tzinfo) -> datetime:
    """The latest time that the local clock has shown up to this instant.

    That is what it shows now, but for the second pass of a repeated stretch.
    """
    aware = instant.astimezone(zone)
    wall = aware.replace(tzinfo=None, fold=0)
    if not aware.fold:
        return wall
    first = wall.replace(tzinfo=zone).astimezone(UTC)
    end = change_of(first, instant, zone) + offset_of(first, zone)
    return end.replace(tzinfo=None) - TICK


def last_instant(wall: datetime, zone: tzinfo) -> datetime:
    """The last instant at which the local clock shows this time; if it never does, the last before it is skipped."""
    instant = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return instant if local_of(instant, zone) == wall else instant_of(wall, zone) - TICK


def listed(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
