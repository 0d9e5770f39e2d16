"""Every slot of a schedule, against oracles too plain to be wrong.

The clock oracle reads the local clock of a zone instant by instant around one of its changes and looks up what it
showed when. The cron oracle is croniter itself, on naive times, where it has no clock changes to deal with. The English
oracle reads `describe` back. ``PGQ_HEAVY=1`` looks at every clock change of every zone, and at many more examples.
"""

from __future__ import annotations

import calendar
import os
import re
import time as clock
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from functools import cache, lru_cache
from zoneinfo import ZoneInfo, available_timezones

import pytest
from croniter import croniter
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pgq.recurrence import (
    CRON_LENGTH,
    KINDS,
    Recurrence,
    anchored,
    describe,
    missed,
    next_slot,
    parse_zone,
    upcoming,
    validate,
)

HEAVY = bool(os.environ.get("PGQ_HEAVY"))
ZONES = sorted(available_timezones())
BERLIN, APIA, LORD_HOWE, NUUK = map(ZoneInfo, ("Europe/Berlin", "Pacific/Apia", "Australia/Lord_Howe", "America/Nuuk"))
#: Offsets of whole half minutes are the finest since 1970 (Monrovia until 1972).
GRAIN = timedelta(seconds=30)


def examples(count: int) -> settings:
    return settings(
        max_examples=count * (50 if HEAVY else 1),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def at(zone: ZoneInfo, *parts: int) -> datetime:
    return datetime(*parts, tzinfo=zone).astimezone(UTC)  # type: ignore[arg-type, misc]


def shown(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def local(slots: list[datetime], zone: ZoneInfo) -> list[str]:
    return [slot.astimezone(zone).isoformat(" ", "minutes") for slot in slots]


# The clock oracle


@cache
def changes(name: str, first: int = 1970, last: int = 2101 if HEAVY else 2038) -> list[datetime]:
    """The instants at which the offset of a zone changes, found by reading it every five days."""
    zone, found = ZoneInfo(name), []
    low, before = utc(first, 1, 1), utc(first, 1, 1).astimezone(zone).utcoffset()
    while low.year < last:
        high = low + timedelta(days=5)
        after = high.astimezone(zone).utcoffset()
        if after != before:
            left, right = low, high
            while right - left > timedelta(seconds=1):
                middle = left + (right - left) // 2
                middle = middle.replace(microsecond=0)
                if middle.astimezone(zone).utcoffset() == before:
                    left = middle
                else:
                    right = middle
            found.append(right)
        low, before = high, after
    return found


class Readings:
    """What the local clock of a zone shows, every half minute for `days` days on both sides of an instant.

    A clock that goes back over midnight shows an earlier date: two days before that one lie further back.
    """

    def __init__(self, zone: ZoneInfo, around: datetime, days: int = 4) -> None:
        start = (around - timedelta(days=days)).replace(second=0, microsecond=0)
        self.instants = [start + GRAIN * number for number in range(days * 2 * 2880)]
        self.shown = [shown(instant, zone) for instant in self.instants]
        self.furthest: list[datetime] = []
        for reading in self.shown:
            self.furthest.append(max(reading, self.furthest[-1]) if self.furthest else reading)

    def first(self, wall: datetime) -> datetime:
        """The first instant that shows this time or a later one."""
        return self.instants[bisect_left(self.furthest, wall)]

    def all(self, fits: Callable[[datetime], bool]) -> list[datetime]:
        return [instant for instant, reading in zip(self.instants, self.shown, strict=True) if fits(reading)]


@lru_cache(maxsize=8)
def readings(name: str, change: datetime) -> Readings:
    return Readings(ZoneInfo(name), change)


def chain(recurrence: Recurrence, first: datetime, count: int) -> list[datetime]:
    """The slots as a scheduler meets them: one by one, the anchors stored each time."""
    slots = [first]
    while len(slots) < count:
        recurrence = anchored(recurrence, slots[-1])
        slot = next_slot(recurrence, slots[-1])
        assert slot is not None
        slots.append(slot)
    return slots


def distinct(slots: list[datetime]) -> list[datetime]:
    """Two dates share an instant if one of them does not exist and the time is midnight."""
    return list(dict.fromkeys(slots))


def check_change(name: str, change: datetime, wall: time) -> None:
    """A daily, a weekly and two cron schedules over one clock change."""
    zone, clock_shows = ZoneInfo(name), readings(name, change)
    day = shown(change, zone).date()
    dates = [day + timedelta(days=days) for days in (-2, -1, 0, 1, 2)]
    expected = distinct([clock_shows.first(datetime.combine(date, wall)) for date in dates])
    begin, end = expected[0], expected[-1]

    assert chain(Recurrence("D", zone=zone), begin, len(expected)) == expected
    assert upcoming(Recurrence("D", zone=zone), begin, len(expected)) == expected
    assert missed(anchored(Recurrence("D", zone=zone), begin), begin, end, 99)[0] == expected

    fixed = Recurrence("C", zone=zone, cron=f"{wall.minute} {wall.hour} * * *")
    assert upcoming(fixed, begin, len(expected)) == expected
    assert missed(fixed, begin, end, 99)[0] == expected

    # Weekly and monthly schedules that meet the change on each of its days come back to their day and time.
    for meant in dates:
        hit = clock_shows.first(datetime.combine(meant, wall))
        for kind, days in (("W", 7), ("BW", 14)):
            before = meant - timedelta(days=days)
            weekly = Recurrence(kind, zone=zone, wall=wall, day=before.isoweekday())
            after_that = first_reading(zone, datetime.combine(meant + timedelta(days=days), wall))
            assert upcoming(weekly, first_reading(zone, datetime.combine(before, wall)), 3)[1:] == [hit, after_that]

    interval = Recurrence("C", zone=zone, cron="*/20 * * * *")
    matching = clock_shows.all(lambda shows: shows.minute % 20 == 0 and shows.second == 0)
    low, high = matching[70], matching[-70]
    matching = [instant for instant in matching if low <= instant <= high]
    assert upcoming(interval, low, len(matching)) == matching
    assert missed(interval, low, high, 9999)[0] == matching


def first_reading(zone: ZoneInfo, wall: datetime) -> datetime:
    """`Readings.first` for a time far from the change at hand: a scan of its own, by ten minutes and then by halves."""
    start = wall.replace(tzinfo=UTC) - timedelta(hours=30)
    step = timedelta(minutes=10)
    while shown(start, zone) < wall:
        start += step
    start -= step
    while shown(start, zone) < wall:
        start += GRAIN
    return start


@pytest.mark.parametrize("part", range(8))
def test_wall_times_fire_once_in_every_zone(part: int) -> None:
    """Normally the latest change of each zone, one in five zones; heavily all changes of all zones but aliases."""
    done: set[tuple[tuple[datetime, datetime], ...]] = set()
    for number, name in enumerate(ZONES[part::8]):
        found = changes(name, 1970, 2038) if HEAVY else changes(name, 2000)[-1:] if number % 5 == 0 else []
        alike = tuple((change, shown(change, ZoneInfo(name))) for change in found)
        if alike in done:
            continue
        done.add(alike)
        for change in found:
            around = shown(change, ZoneInfo(name)) - timedelta(minutes=30)
            check_change(name, change, around.time().replace(second=0))


@examples(25)
@given(st.sampled_from(ZONES), st.data())
def test_wall_times_fire_once_around_any_change(name: str, data: st.DataObject) -> None:
    found = changes(name)
    assume(found)
    change = data.draw(st.sampled_from(found))
    near = shown(change, ZoneInfo(name)) + timedelta(minutes=data.draw(st.integers(-150, 150)))
    wall = data.draw(st.one_of(st.just(near.time().replace(second=0)), st.just(time(0)), st.times()))
    check_change(name, change, wall.replace(second=0, microsecond=0))


def test_the_oracle_sees_the_changes_it_is_meant_to_see() -> None:
    sizes: dict[str, set[timedelta]] = {}
    for name in ("Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Monrovia", "America/Nuuk"):
        for change in changes(name):
            before, after = (shown(moment, ZoneInfo(name)) for moment in (change - timedelta(seconds=1), change))
            sizes.setdefault(name, set()).add(after - before - timedelta(seconds=1))
    hour = timedelta(hours=1)
    assert sizes["Europe/Berlin"] == {hour, -hour}
    assert hour / 2 in sizes["Australia/Lord_Howe"]
    assert 24 * hour in sizes["Pacific/Apia"]
    assert timedelta(minutes=44, seconds=30) in sizes["Africa/Monrovia"]


# Calendar kinds


def test_skipped_time_fires_after_the_gap_and_comes_back() -> None:
    daily = Recurrence("D", zone=BERLIN)
    slots = chain(daily, at(BERLIN, 2026, 3, 28, 2, 30), 3)
    assert local(slots, BERLIN) == ["2026-03-28 02:30+01:00", "2026-03-29 03:00+02:00", "2026-03-30 02:30+02:00"]


def test_repeated_time_fires_the_first_time_only() -> None:
    slots = chain(Recurrence("D", zone=BERLIN), at(BERLIN, 2026, 10, 24, 2, 30), 3)
    assert local(slots, BERLIN) == ["2026-10-24 02:30+02:00", "2026-10-25 02:30+02:00", "2026-10-26 02:30+01:00"]


def test_half_hour_changes() -> None:
    slots = chain(Recurrence("D", zone=LORD_HOWE), at(LORD_HOWE, 2026, 10, 3, 2, 10), 3)
    assert local(slots, LORD_HOWE) == ["2026-10-03 02:10+10:30", "2026-10-04 02:30+11:00", "2026-10-05 02:10+11:00"]
    slots = chain(Recurrence("D", zone=LORD_HOWE), at(LORD_HOWE, 2026, 4, 4, 1, 45), 3)
    assert local(slots, LORD_HOWE) == ["2026-04-04 01:45+11:00", "2026-04-05 01:45+11:00", "2026-04-06 01:45+10:30"]


def test_gap_that_ends_on_the_next_date() -> None:
    slots = chain(Recurrence("D", zone=NUUK), at(NUUK, 2024, 3, 29, 23, 30), 4)
    assert local(slots, NUUK) == [
        *("2024-03-29 23:30-02:00", "2024-03-31 00:00-01:00"),
        *("2024-03-31 23:30-01:00", "2024-04-01 23:30-01:00"),
    ]
    slots = chain(Recurrence("W", zone=NUUK), at(NUUK, 2024, 3, 23, 23, 30), 3)
    assert local(slots, NUUK) == ["2024-03-23 23:30-02:00", "2024-03-31 00:00-01:00", "2024-04-06 23:30-01:00"]


@pytest.mark.parametrize(
    ("kind", "first", "expected"),
    [
        ("D", (2011, 12, 29, 10), ["2011-12-29 10:00", "2011-12-31 00:00", "2011-12-31 10:00", "2012-01-01 10:00"]),
        ("D", (2011, 12, 29, 0), ["2011-12-29 00:00", "2011-12-31 00:00", "2012-01-01 00:00"]),
        ("W", (2011, 12, 23, 10), ["2011-12-23 10:00", "2011-12-31 00:00", "2012-01-06 10:00"]),
        ("W", (2011, 12, 23, 0), ["2011-12-23 00:00", "2011-12-31 00:00", "2012-01-06 00:00"]),
        ("W", (2011, 12, 24, 0), ["2011-12-24 00:00", "2011-12-31 00:00", "2012-01-07 00:00"]),
        ("M", (2011, 11, 30, 10), ["2011-11-30 10:00", "2011-12-31 00:00", "2012-01-30 10:00"]),
    ],
)
def test_date_that_does_not_exist(kind: str, first: tuple[int, ...], expected: list[str]) -> None:
    slots = chain(Recurrence(kind, zone=APIA), at(APIA, *first), len(expected))
    assert [text[:16] for text in local(slots, APIA)] == expected


@pytest.mark.parametrize(
    ("kind", "first", "expected"),
    [
        ("M", date(2025, 12, 31), ["2025-12-31", "2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]),
        ("BM", date(2025, 12, 31), ["2025-12-31", "2026-02-28", "2026-04-30", "2026-06-30", "2026-08-31"]),
        ("Q", date(2025, 11, 30), ["2025-11-30", "2026-02-28", "2026-05-30"]),
        ("Y", date(2024, 2, 29), ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]),
        ("W", date(2026, 10, 20), ["2026-10-20", "2026-10-27", "2026-11-03"]),
        ("BW", date(2026, 10, 20), ["2026-10-20", "2026-11-03", "2026-11-17"]),
    ],
)
def test_day_comes_back(kind: str, first: date, expected: list[str]) -> None:
    slots = chain(Recurrence(kind, zone=BERLIN), at(BERLIN, first.year, first.month, first.day, 9), len(expected))
    assert local(slots, BERLIN) == [
        f"{day} 09:00+0{1 + bool(at(BERLIN, *date.fromisoformat(day).timetuple()[:3], 9).hour == 7)}:00"
        for day in expected
    ]


def test_anchors_are_kept_while_they_explain_the_slot() -> None:
    monthly = anchored(Recurrence("M", zone=BERLIN), at(BERLIN, 2026, 1, 31, 2, 30))
    assert (monthly.day, monthly.wall) == (31, time(2, 30))
    assert anchored(monthly, at(BERLIN, 2026, 2, 28, 2, 30)) == monthly
    moved = anchored(monthly, at(BERLIN, 2026, 2, 15, 2, 30))
    assert (moved.day, moved.wall) == (15, time(2, 30))
    moved = anchored(monthly, at(BERLIN, 2026, 2, 28, 22, 0))
    assert (moved.day, moved.wall) == (28, time(22))
    # New rules for the zone: stored by the old ones, the slot shows an hour less now.
    assert anchored(monthly, at(BERLIN, 2026, 2, 28, 1, 30)) == monthly
    assert next_slot(monthly, at(BERLIN, 2026, 2, 28, 1, 30)) == at(BERLIN, 2026, 3, 31, 2, 30)


def test_new_zone_rules_neither_double_nor_shift_a_daily_run() -> None:
    daily = Recurrence("D", zone=BERLIN, wall=time(0, 30))
    # Meant for the 5th, now 23:30 on the 4th.
    assert next_slot(daily, at(BERLIN, 2026, 1, 4, 23, 30)) == at(BERLIN, 2026, 1, 6, 0, 30)
    assert next_slot(daily, at(BERLIN, 2026, 1, 5, 1, 30)) == at(BERLIN, 2026, 1, 6, 0, 30)


def test_weekly_anchor_is_the_weekday() -> None:
    weekly = anchored(Recurrence("W", zone=BERLIN), at(BERLIN, 2026, 11, 22, 9))
    assert (weekly.day, weekly.wall) == (7, time(9))
    assert anchored(Recurrence("D", zone=BERLIN), at(BERLIN, 2026, 11, 22, 9)).day is None
    assert anchored(Recurrence("H", day=3, wall=time(1)), utc(2026, 1, 1)) == Recurrence("H")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in "OC"])
def test_nothing_after_the_year_9999(kind: str) -> None:
    recurrence = Recurrence(kind, seconds=60, minutes=90, zone=BERLIN)
    last = utc(9999, 12, 31, 22, 59, 59)
    assert next_slot(recurrence, last) is None or kind in "SIH"
    assert len(upcoming(recurrence, last, 100)) < 100
    due, following = missed(recurrence, last, last, 5)
    assert due == [last]
    assert following == next_slot(recurrence, last)


def test_a_date_at_the_end_of_the_calendar_is_named() -> None:
    for end in (datetime.max, datetime.min):
        with pytest.raises(ValueError, match=r"^next_run: "):
            anchored(Recurrence("M", zone=ZoneInfo("Asia/Tokyo"), wall=time(9), day=3), end.replace(tzinfo=UTC))


# Elapsed time


def test_elapsed_time_ignores_the_local_clock() -> None:
    slots = upcoming(Recurrence("H", zone=BERLIN), utc(2026, 3, 29, 0, 30), 3)
    assert slots == [utc(2026, 3, 29, 0, 30), utc(2026, 3, 29, 1, 30), utc(2026, 3, 29, 2, 30)]
    assert next_slot(Recurrence("I"), utc(2026, 1, 1)) == utc(2026, 1, 1, 0, 1)
    assert next_slot(Recurrence("I", minutes=7), utc(2026, 1, 1)) == utc(2026, 1, 1, 0, 7)
    assert next_slot(Recurrence("S", seconds=0.25), utc(2026, 1, 1)) == utc(2026, 1, 1, 0, 0, 0, 250_000)
    assert next_slot(Recurrence("O"), utc(2026, 1, 1)) is None


def test_naive_times_are_refused() -> None:
    naive = datetime(2026, 1, 1)
    for call in (
        lambda: next_slot(Recurrence("H"), naive),
        lambda: upcoming(Recurrence("H"), naive, 1),
        lambda: missed(Recurrence("H"), naive, utc(2026, 1, 1), 1),
        lambda: missed(Recurrence("H"), utc(2026, 1, 1), naive, 1),
    ):
        with pytest.raises(ValueError, match="aware"):
            call()


def test_any_zone_may_be_given_and_utc_is_returned() -> None:
    slot = next_slot(Recurrence("D", zone=BERLIN), datetime(2026, 1, 1, 9, tzinfo=BERLIN))
    assert slot == at(BERLIN, 2026, 1, 2, 9)
    assert slot.tzinfo is UTC
    fixed = Recurrence("C", cron="0 9 * * *", zone=timezone(timedelta(hours=5, minutes=45)))
    assert next_slot(fixed, utc(2026, 1, 1)) == utc(2026, 1, 1, 3, 15)


# Cron


def cron(expression: str, zone: ZoneInfo = BERLIN, name: str | None = None) -> Recurrence:
    return Recurrence("C", cron=expression, zone=zone, name=name)


@pytest.mark.parametrize(
    ("expression", "first", "expected"),
    [
        # Named hours, clocks back: once, not again at +01:00.
        ("30 2 * * *", (2026, 10, 25, 0), ["10-25 02:30+02:00", "10-26 02:30+01:00"]),
        ("0,30 2 * * *", (2026, 10, 25, 0), ["10-25 02:00+02:00", "10-25 02:30+02:00", "10-26 02:00+01:00"]),
        ("0 1-4 * * *", (2026, 10, 25, 0), ["10-25 01:00+02:00", "10-25 02:00+02:00", "10-25 03:00+01:00"]),
        ("0 */2 * * *", (2026, 10, 25, 0), ["10-25 02:00+02:00", "10-25 04:00+01:00"]),
        # Named hours, clocks forward: once, after the gap, however many there were in it.
        ("30 2 * * *", (2026, 3, 29, 0), ["03-29 03:00+02:00", "03-30 02:30+02:00"]),
        ("0,30 2,3 * * *", (2026, 3, 29, 0), ["03-29 03:00+02:00", "03-29 03:30+02:00", "03-30 02:00+02:00"]),
        # Every hour: what the clock shows, each time.
        ("30 * * * *", (2026, 10, 25, 1), ["10-25 01:30+02:00", "10-25 02:30+02:00", "10-25 02:30+01:00"]),
        ("30 * * * *", (2026, 3, 29, 1), ["03-29 01:30+01:00", "03-29 03:30+02:00", "03-29 04:30+02:00"]),
        ("30 0-23 * * *", (2026, 10, 25, 2), ["10-25 02:30+02:00", "10-25 02:30+01:00", "10-25 03:30+01:00"]),
        ("*/30 */1 29 3 *", (2026, 3, 29, 1, 15), ["03-29 01:30+01:00", "03-29 03:00+02:00", "03-29 03:30+02:00"]),
    ],
)
def test_cron_over_a_clock_change(expression: str, first: tuple[int, ...], expected: list[str]) -> None:
    slots = upcoming(cron(expression), at(BERLIN, *first), len(expected) + 1)[1:]
    assert [text[5:] for text in local(slots, BERLIN)] == expected


def test_cron_from_within_the_repeated_hour() -> None:
    second_pass = utc(2026, 10, 25, 1, 10)
    assert next_slot(cron("30 2 * * *"), second_pass) == at(BERLIN, 2026, 10, 26, 2, 30)
    assert next_slot(cron("0 3 * * *"), second_pass) == at(BERLIN, 2026, 10, 25, 3)
    assert missed(cron("*/15 2 * * *"), utc(2026, 10, 25), second_pass, 2) == (
        [utc(2026, 10, 25, 0, 30), utc(2026, 10, 25, 0, 45)],
        at(BERLIN, 2026, 10, 26, 2),
    )


def test_sparse_interval_meets_a_repeated_midnight() -> None:
    """The only matching date is over, but the clock goes back into it."""
    havana = ZoneInfo("America/Havana")
    change = next(change for change in changes("America/Havana") if change.year == 2025 and change.month == 11)
    last = change - timedelta(minutes=1)
    day = shown(last, havana)
    slots = upcoming(cron(f"*/30 * {day.day} {day.month} * 0 2025", havana), last, 99)[1:]
    oracle = [change + timedelta(minutes=minutes) for minutes in range(48 * 60)]
    assert slots == [slot for slot in oracle if shown(slot, havana).date() == day.date() and slot.minute % 30 == 0]
    assert slots


def test_cron_fields() -> None:
    start = utc(2026, 11, 22, 12)
    zone = ZoneInfo("UTC")
    for expression, expected in (
        ("* * * * * 30", utc(2026, 11, 22, 12, 0, 30)),
        ("@daily", utc(2026, 11, 23)),
        (" @Hourly ", utc(2026, 11, 22, 13)),
        ("@yearly", utc(2027, 1, 1)),
        ("0 0 l * *", utc(2026, 11, 30)),
        ("0 0 * * l5", utc(2026, 11, 27)),
        ("0 0 * * fri#1", utc(2026, 12, 4)),
        ("0 0 15w * *", utc(2026, 12, 15)),
        ("0 0 1 * mon", utc(2026, 11, 23)),
        ("0 0 29 2 *", utc(2028, 2, 29)),
        ("0 0 1 1 * 0 2031", utc(2031, 1, 1)),
        ("0 0 * * 0", utc(2026, 11, 29)),
        ("0 0 * * 7", utc(2026, 11, 29)),
    ):
        recurrence = cron(expression, zone, "nightly")
        validate(recurrence, start)
        assert next_slot(recurrence, start) == expected, expression


def test_rare_dates_are_not_lost_on_the_way_back() -> None:
    rare = cron("0 0 * 2 5#5", ZoneInfo("UTC"))
    years = [2008, 2036, 2064, 2092, 2104, 2132]
    due = [utc(year, 2, 29) for year in years]
    assert upcoming(rare, due[0], 6) == due
    assert missed(rare, due[0], due[-1], 99)[0] == due


def test_hashed_cron_depends_on_the_name_alone() -> None:
    slots = {next_slot(cron("H H * * *", name=name), utc(2026, 1, 1)) for name in ("a", "b", "c", "a")}
    assert len(slots) == 3
    # Not hashed, name or no name.
    assert next_slot(cron("@daily", name="a"), utc(2026, 1, 1)) == at(BERLIN, 2026, 1, 2)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (None, "give an expression"),
        ("", "from 1 to 500 characters"),
        ("0," * CRON_LENGTH + "0 * * * *", "from 1 to 500 characters"),
        ("* * *", "5, 6 or 7 columns"),
        ("99 * * * *", "out of range"),
        ("* * * * nonsense", "not acceptable"),
        ("R * * * *", "'R' draws another time"),
        ("* R(1-5)/2 * * *", "'R' draws another time"),
        ("H * * * *", "give it a name"),
        ("@reboot", "async_task"),
        ("0 0 31 2 *", "still to come"),
        ("0 0 31 4,6,9,11 *", "still to come"),
        ("0 0 1 1 * 0 2020", "still to come"),
        ("0 0 1 * mon#1", "two schedules"),
        ("0 0 15w * mon", "two schedules"),
        ("٣ * * * *", "not acceptable"),
    ],
)
def test_cron_that_cannot_fire_is_refused(expression: str | None, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^cron: .*{re.escape(reason)}"):
        validate(Recurrence("C", cron=expression), utc(2026, 11, 22))


@examples(150)
@given(st.text(alphabet="0123456789*/-,#@?LWHRlwhrmonfeb() \t\n\0", max_size=25) | st.text(max_size=20))
def test_validate_raises_nothing_but_value_error(expression: str) -> None:
    recurrence = Recurrence("C", cron=expression, name="x")
    reason = None
    try:
        validate(recurrence, utc(2026, 11, 22))
    except ValueError as error:
        reason = str(error)
    assert reason.startswith("cron: ") if reason else describe(recurrence)


def field(low: int, high: int, *more: str) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    part = st.one_of(
        number.map(str),
        st.builds(lambda a, b: f"{min(a, b)}-{max(a, b)}", number, number),
        st.builds(lambda a, b, step: f"{min(a, b)}-{max(a, b)}/{step}", number, number, st.integers(1, 20)),
        st.builds(lambda step: f"*/{step}", st.integers(1, high + 5)),
        st.builds(lambda a, step: f"{a}/{step}", number, st.integers(1, high)),
    )
    lists = st.lists(part, min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), st.just("*"), number.map(str), lists, *map(st.just, more))


WEEKDAYS = ("mon-fri", "sat,sun", "fri-mon", "1#2", "5#5", "l5", "1-5#1", "tue#3,thu#4", "7", "?")
FIELDS = (
    field(0, 59),
    field(0, 23),
    field(1, 31, "l", "15,l", "15w", "31w", "1w", "20-l"),
    field(1, 12, "jan", "nov-feb"),
    field(0, 6, *WEEKDAYS),
)


@st.composite
def expressions(draw: st.DrawFn) -> str:
    text = " ".join(draw(part) for part in FIELDS)
    if draw(st.booleans()):
        text += " " + draw(field(0, 59))
        if draw(st.integers(0, 3)) == 0:
            text += " " + draw(st.sampled_from(("*", "2027", "2027-2029", "2028,2032", "*/4")))
    try:
        validate(Recurrence("C", cron=text), utc(2026, 11, 22))
    except ValueError:
        assume(False)
    return text


moments = st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1))


@examples(150)
@given(expressions(), moments)
def test_calendar_walk_is_croniters(expression: str, start: datetime) -> None:
    recurrence = Recurrence("C", cron=expression)
    theirs = croniter(expression, start)
    slots: list[datetime] = []
    slot = next_slot(recurrence, start.replace(tzinfo=UTC))
    while slot is not None and len(slots) < 6:
        slots.append(slot)
        assert theirs.get_next(datetime).replace(tzinfo=UTC) == slot
        slot = next_slot(recurrence, slot)
    if slot is None:
        with pytest.raises(ValueError, match="find next"):
            theirs.get_next(datetime)
    if slots:
        assert missed(recurrence, slots[0], slots[-1], 99) == (slots, slot)


def recurrences() -> st.SearchStrategy[Recurrence]:
    zone = st.sampled_from([ZoneInfo(name) for name in ZONES])
    return st.one_of(
        st.builds(Recurrence, st.sampled_from(["H", "D", "W", "BW", "M", "BM", "Q", "Y", "O"]), zone=zone),
        st.builds(Recurrence, st.just("S"), seconds=st.floats(0.1, 1e6), zone=zone),
        st.builds(Recurrence, st.just("I"), minutes=st.none() | st.integers(1, 99999), zone=zone),
        st.builds(Recurrence, st.just("C"), cron=expressions(), zone=zone),
    )


@examples(150)
@given(recurrences(), st.data(), st.integers(1, 12), st.integers(0, 10))
def test_missed_is_what_next_slot_would_have_fired(r: Recurrence, data: st.DataObject, count: int, cap: int) -> None:
    found = changes(str(r.zone))
    near = st.sampled_from(found or [utc(2000, 1, 1)])
    first = data.draw(st.one_of(moments.map(lambda moment: moment.replace(tzinfo=UTC)), near))
    first -= timedelta(seconds=data.draw(st.integers(-200_000, 200_000)))
    r = anchored(r, first)
    slots = upcoming(r, first, count)
    assert slots == sorted(set(slots))
    following = next_slot(r, slots[-1])
    now = slots[-1]
    if following is not None:
        now += data.draw(st.timedeltas(timedelta(), following - now - timedelta(microseconds=1)))
    due, then = missed(r, first, now, cap)
    assert due == (slots[-cap:] if cap else [])
    assert then == following
    assert missed(r, first, first - timedelta(seconds=1), cap) == ([], first)


def test_a_long_outage_costs_no_more_than_the_cap() -> None:
    start, now = utc(2025, 1, 1), utc(2026, 1, 1)
    for recurrence in (Recurrence("S", seconds=1), cron("* * * * * *"), cron("* 0-22 * * * *"), Recurrence("I")):
        began = clock.perf_counter()
        due, following = missed(recurrence, start, now, 100)
        assert clock.perf_counter() - began < 0.5
        assert len(due) == 100
        assert due == sorted(due)
        assert following is not None
        assert due[-1] <= now < following
        assert missed(recurrence, start, now, 1) == (due[-1:], following)
        assert [*due[1:], following] == [next_slot(recurrence, slot) for slot in due]


def test_missed_keeps_a_slot_that_cron_does_not_name() -> None:
    assert missed(cron("0 9 * * *"), utc(2026, 1, 1, 3), utc(2026, 1, 1, 4), 5) == (
        [utc(2026, 1, 1, 3)],
        at(BERLIN, 2026, 1, 1, 9),
    )


# Fields


@pytest.mark.parametrize(
    ("recurrence", "message"),
    [
        (Recurrence("X"), "schedule_type: 'X' is none of O, S,"),
        (Recurrence("T", minutes=5), "schedule_type"),
        (Recurrence("I", minutes=0), "minutes: must be a whole number"),
        (Recurrence("I", minutes=True), "minutes"),
        (Recurrence("S"), "seconds: give the number"),
        (Recurrence("S", seconds=0.05), "seconds: must be from 0.1"),
        (Recurrence("S", seconds=float("nan")), "seconds"),
        (Recurrence("S", seconds=float("inf")), "seconds"),
        (Recurrence("S", seconds=1e300), "seconds"),
        (Recurrence("M", day=32), "day: must be from 1 to 31"),
        (Recurrence("W", day=8), "day: must be from 1 to 7"),
        (Recurrence("D", wall=time(9, tzinfo=UTC)), "wall_time: must have no time zone"),
    ],
)
def test_wrong_fields_are_named(recurrence: Recurrence, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        validate(recurrence)


def test_rows_written_in_sql_cannot_loop() -> None:
    """The table admits more than `validate`."""
    for recurrence in (Recurrence("S", seconds=1e-9), Recurrence("S"), Recurrence("I", minutes=-1), Recurrence("?")):
        with pytest.raises(ValueError, match=r"schedule_type|seconds|minutes"):
            next_slot(recurrence, utc(2026, 1, 1))
        with pytest.raises(ValueError, match=r"schedule_type|seconds|minutes"):
            missed(recurrence, utc(2026, 1, 1), utc(2026, 1, 2), 5)
    for kind in ("D", "W", "M"):
        assert next_slot(Recurrence(kind, day=77), utc(2026, 1, 1)) == next_slot(Recurrence(kind), utc(2026, 1, 1))
    assert next_slot(cron("0 0 31 2 *"), utc(2026, 1, 1)) is None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in "SC"])
def test_right_fields_pass(kind: str) -> None:
    validate(Recurrence(kind))
    validate(anchored(Recurrence(kind), utc(2026, 1, 31, 9)))


@pytest.mark.parametrize("name", [None, "", "  "])
def test_no_zone_means_the_default(name: str | None) -> None:
    assert parse_zone(name, BERLIN) is BERLIN


def test_every_zone_is_known() -> None:
    for name in ZONES:
        if name != "localtime":
            assert parse_zone(name, UTC).key == name  # type: ignore[attr-defined]
    assert parse_zone(" Europe/Berlin ", UTC) is BERLIN


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Europe/Berlim", "Europe/Berlin"),
        ("europe/berlin", "Europe/Berlin"),
        ("berlin", "Europe/Berlin"),
        ("New York", "America/New_York"),
        ("Europe", "did you mean"),
        ("localtime", "Europe/Paris"),
        ("right/Europe/Berlin", "Europe/Berlin"),
        ("../../etc/passwd", "Europe/Paris"),
        ("zone.tab", ""),
        ("a\0b", ""),
        ("é" * 5000, ""),
    ],
)
def test_unknown_zone(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"^time_zone: .*{hint}"):
        parse_zone(name, UTC)


# In words


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("5/15 * * * *", "every 15 minutes, from minute 5 of the hour"),
        ("*/7 * * * *", "at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour"),
        ("0 * * * *", "every hour, on the hour"),
        ("30 9 * * 1-5", "at 09:30 on Monday to Friday"),
        ("0 2 31 * *", "at 02:00 on day 31 of the month"),
        ("0 2 l * *", "at 02:00 on the last day of the month"),
        ("*/15 9-17 * * 1-5", "every 15 minutes from 09:00 to 17:45 on Monday to Friday"),
        ("0 */2 * * *", "every 2 hours from 00:00 to 22:00 every day"),
        ("0 9-17 * * 0,6", "every hour from 09:00 to 17:00 on Saturday and Sunday"),
        ("0 0 1 1 *", "at 00:00 on day 1 of the month, in January"),
        ("0 0 13 * 5", "at 00:00 on day 13 of the month or on Friday"),
        ("0 0 * * 5#3", "at 00:00 on the third Friday of the month"),
        ("0 0 * * l5", "at 00:00 on the last Friday of the month"),
        ("0 0 15w * *", "at 00:00 on the day from Monday to Friday nearest to day 15 of the month"),
        ("* * * * * */10", "every 10 seconds"),
        ("0 12 * * * 30", "at 12:00:30 every day"),
        ("0 12 * 6-8 * 0 2027", "at 12:00 every day, in June to August in 2027"),
        ("0 */24 * * *", "at 00:00 every day"),
        ("1,2,9 1,5,6 * * *", "at minutes 1, 2 and 9 of hours 1, 5 and 6 every day"),
    ],
)
def test_cron_in_words(expression: str, words: str) -> None:
    assert describe(cron(expression)) == words


@pytest.mark.parametrize(
    ("recurrence", "words"),
    [
        (Recurrence("O"), "once"),
        (Recurrence("S", seconds=1), "every second"),
        (Recurrence("S", seconds=0.1), "every 0.1 seconds"),
        (Recurrence("S", seconds=1234567), "every 1234567 seconds"),
        (Recurrence("I"), "every minute"),
        (Recurrence("I", minutes=5), "every 5 minutes"),
        (Recurrence("H"), "every hour"),
        (Recurrence("D", wall=time(9, 30)), "every day at 09:30"),
        (Recurrence("W", wall=time(9, 30), day=7), "every week at 09:30 on Sunday"),
        (Recurrence("BW"), "every two weeks"),
        (
            Recurrence("M", wall=time(2), day=31),
            "every month at 02:00 on day 31 of the month, or the last day of shorter months",
        ),
        (Recurrence("Q", wall=time(2, 0, 5), day=1), "every three months at 02:00:05 on day 1 of the month"),
        (
            Recurrence("Y", wall=time(2), day=29),
            "every year at 02:00 on day 29 of the month, or the last day if the month is shorter",
        ),
    ],
)
def test_kinds_in_words(recurrence: Recurrence, words: str) -> None:
    assert describe(recurrence) == words


Fits = Callable[[datetime], bool]
DAY_NAMES = list(calendar.day_name)
MONTH_NAMES = list(calendar.month_name)[1:]


def values(text: str, names: list[str] | None = None) -> set[int]:
    """Read "1, 2 and 5 to 7"."""

    def value(word: str) -> int:
        return names.index(word) + 1 if names else int(word)

    found: set[int] = set()
    for part in re.split(r", | and ", text):
        first, _, last = part.partition(" to ")
        found |= set(range(value(first), value(last or first) + 1))
    return found


def month_length(moment: datetime) -> int:
    return ((moment.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)).day


def read_days(text: str) -> Fits:
    if text in ("", "every day"):
        return lambda moment: True
    if " or on " in text:
        left, right = (read_days(part) for part in (text.partition(" or ")[0], text.partition(" or ")[2]))
        return lambda moment: left(moment) or right(moment)
    if match := re.fullmatch(
        r"on the day from Monday to Friday nearest to day (\d+) of the month( or to the last day of shorter months)?",
        text,
    ):
        wanted = int(match[1])
        assert bool(match[2]) == (wanted > 28)

        def nearest(moment: datetime) -> bool:
            length = month_length(moment)
            target = min(wanted, length)
            working = [day for day in range(1, length + 1) if moment.replace(day=day).weekday() < 5]
            return moment.day == min(working, key=lambda day: abs(day - target))

        return nearest
    if match := re.fullmatch(r"on (the (?:first|second|third|fourth|fifth|last) \w+day.*) of the month", text):
        pairs = [part.split()[1:] for part in re.split(r", | and ", match[1])]

        def nth(moment: datetime) -> bool:
            number = ["first", "second", "third", "fourth", "fifth"][(moment.day - 1) // 7]
            last = moment.day + 7 > month_length(moment)
            name = DAY_NAMES[moment.weekday()]
            return [number, name] in pairs or (last and ["last", name] in pairs)

        return nth
    if match := re.fullmatch(r"on (.*) of the month", text):
        last = "the last day" in match[1]
        listed = re.sub(r"days? |(, | and )?the last day", "", match[1])
        days = values(listed) if listed else set()
        return lambda moment: moment.day in days or (last and moment.day == month_length(moment))
    weekdays = values(text.removeprefix("on "), DAY_NAMES)
    return lambda moment: moment.isoweekday() in weekdays


def seconds_of(text: str) -> int:
    hour, minute, second = map(int, (text + ":00")[:8].split(":"))
    return hour * 3600 + minute * 60 + second


def read_times(text: str) -> Fits:
    def of_day(moment: datetime) -> int:
        return moment.hour * 3600 + moment.minute * 60 + moment.second

    units = {"second": 1, "minute": 60, "hour": 3600}
    if match := re.fullmatch(r"at (\d\d:\d\d.*)", text):
        named = {seconds_of(part) for part in re.split(r", | and ", match[1])}
        return lambda moment: of_day(moment) in named
    if text == "every hour, on the hour":
        return lambda moment: of_day(moment) % 3600 == 0
    if match := re.fullmatch(r"every (\d+ )?(hour|minute)s? from (\S+) to (\S+)", text):
        step, low, high = int(match[1] or 1) * units[match[2]], seconds_of(match[3]), seconds_of(match[4])
        assert (high - low) % step == 0
        return lambda moment: low <= of_day(moment) <= high and (of_day(moment) - low) % step == 0
    if match := re.fullmatch(r"every (\d+ )?(second|minute)s?(?:, from \w+ (\d+) of the (minute|hour))?", text):
        step, phase = int(match[1] or 1) * units[match[2]], int(match[3] or 0) * units[match[2]]
        return lambda moment: of_day(moment) % step == phase
    fields = {"second": {0}}
    for part in text.removeprefix("at ").split(" of "):
        if match := re.fullmatch(r"every (second|minute|hour)", part):
            fields[match[1]] = set(range(60))
        else:
            match = re.fullmatch(r"(second|minute|hour)s? (.*)", part)
            assert match, text
            fields[match[1]] = values(match[2])
    assert len(fields) == 3
    return lambda moment: all(getattr(moment, unit) in listed for unit, listed in fields.items())


def read(text: str) -> Fits:
    """Understand a description."""
    match = re.fullmatch(
        r"(?P<times>.*?)(?: (?P<days>every day|on (?!the hour).*?))?,?"
        rf"(?: in (?P<months>(?:{'|'.join(MONTH_NAMES)}).*?))?(?: in (?P<years>\d.*))?",
        text,
    )
    assert match
    times, days = read_times(match["times"]), read_days(match["days"] or "")
    months = values(match["months"], MONTH_NAMES) if match["months"] else set(range(1, 13))
    years = values(match["years"]) if match["years"] else None
    return lambda moment: (
        times(moment) and days(moment) and moment.month in months and (years is None or moment.year in years)
    )


@examples(150)
@given(expressions(), moments, st.data())
def test_what_is_said_is_true(expression: str, start: datetime, data: st.DataObject) -> None:
    said = read(describe(Recurrence("C", cron=expression)))
    slot = next_slot(Recurrence("C", cron=expression), start.replace(tzinfo=UTC))
    assume(slot is not None)
    assert slot is not None
    named = slot.replace(tzinfo=None)
    assert said(named)
    # Neighbours of a named time, where an untrue phrase would show.
    for _ in range(5):
        near = named + data.draw(
            st.sampled_from([timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)])
        ) * data.draw(st.integers(-40, 40))
        if near.year < 2099:
            found = next_slot(Recurrence("C", cron=expression), near.replace(tzinfo=UTC) - timedelta(microseconds=1))
            assert said(near) == (found == near.replace(tzinfo=UTC)), (describe(cron(expression)), near)


def test_next_slot_is_quick() -> None:
    """About 10 µs, 35 µs near a clock change; the limit leaves room for a busy machine."""
    for recurrence in (
        Recurrence("D", zone=BERLIN, wall=time(9)),
        Recurrence("M", zone=BERLIN, wall=time(9), day=31),
        cron("*/5 * * * *"),
        cron("30 9 * * 1-5"),
    ):
        slot = at(BERLIN, 2026, 1, 31, 9)
        began = clock.perf_counter()
        for _ in range(1000):
            next_slot(recurrence, slot)
        assert clock.perf_counter() - began < 0.5, replace(recurrence)
