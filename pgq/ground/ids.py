"""Ids and the names made from them.

An id is a UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, 12 of its fraction, then random bits.

A task without a given name has a name of four words, as in Django-Q. Here the words are *derived* from the id, 22
bits of its milliseconds and 10 of its random bits, so they take no space in the tables and no index: `name_ranges`
turns them back into the few ranges of ids that can bear the name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

#: 256 short words, one for each byte, for the names of tasks and pools.
_TEXT = """
acid acre aero alarm alpha amber angel ankle apple april arena armor arrow atlas atom aunt autumn avocado badge
bagel bakery ballad bamboo banana banjo basil basket beach beacon beaver berry bingo birch bison blanket blossom
blue bonus border bottle bridge bronze brook bucket budget bugle butter button cabin cactus camel camera canal
candle canoe canyon carbon cargo carpet castle cedar cello chalk charm cherry chess cider cinema circle citrus clay
cliff clock cloud clover coach cobalt cocoa comet copper coral cotton cradle crayon cricket crystal cube curry daisy
dance dawn delta denim desert diamond disco dolphin domino dragon drum dune eagle earth echo eclipse eight elbow elm
ember emerald engine falcon feather fern fiddle field finch fjord flame flint flute forest fossil fox galaxy garden
garlic gecko ginger globe gravel harvest hickory iceberg iris jacket jasmine juniper kiwi ladder lagoon lantern lark
lava lemon lilac lily linen lion lizard lobster lotus lunar magnet mango maple marble mars meadow melody mercury
mesa mint mirror monday moss mustard nebula nectar needle nickel north oak oasis ocean olive onyx opal orange orbit
orchid otter owl oxygen paper parrot pasta peach pearl pebble pepper piano pilot pine planet plum polar pony poppy
prairie puzzle quartz quilt rabbit radar rain raven reef ribbon river robin rocket ruby saddle saffron salmon
sapphire satin saturn scarlet shadow silver sky snow solar spice spring spruce star stone sugar summer sunset tango
teal temple thunder tiger timber topaz tulip tundra turtle umber valley velvet violet walnut water wave willow
winter wolf zebra zenith zinc
"""
WORDS = tuple(_TEXT.split())
_NUMBER = {word: number for number, word in enumerate(WORDS)}
_TIME_BITS, _RANDOM_BITS = 22, 10
#: Two bits of the digit that tells the variant are fixed, and two are random.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
#: Milliseconds after which the words come round again (70 minutes).
_PERIOD_MS = 1 << _TIME_BITS


def new_id() -> UUID:
    """Return a new UUIDv7, larger than those this process made before (unless its clock was set back)."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    random = int.from_bytes(os.urandom(8), "big") >> 2
    # 12 bits hold the time within the millisecond, in steps of 256 ns, as in PostgreSQL's uuidv7(): making an id takes
    # longer than a step, so ids of one process grow.
    return UUID(int=(milliseconds << 80) | (0x7 << 76) | ((rest >> 8) << 64) | (0x2 << 62) | random)


def new_hexes(count: int) -> list[str]:
    """Return many new ids, as 32 hex digits each, in half the time of `new_id`."""
    random = os.urandom(8 * count).hex()
    made = []
    for at in range(0, 16 * count, 16):
        now = time.time_ns()
        variant = _VARIANT[random[at]]
        made.append(f"{now // 1_000_000:012x}7{now % 1_000_000 >> 8:03x}{variant}{random[at + 1 : at + 16]}")
    return made


def parse_id(text: object) -> UUID | None:
    """Return the id that a caller gave as UUID or as text of 32 hex digits (dashes allowed), or None."""
    if isinstance(text, UUID):
        return text
    if not isinstance(text, str) or len(text) not in (32, 36):
        return None
    try:
        return UUID(text)
    except ValueError:
        return None


def smallest_at(moment: datetime) -> UUID:
    """Return the smallest id that a task enqueued at that moment can have."""
    return UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)


def task_name(id: UUID) -> str:
    """Return the four words of an id: ``beer-rugby-mars-delaware``."""
    milliseconds, random = id.int >> 80, id.int & ((1 << _RANDOM_BITS) - 1)
    number = ((milliseconds % _PERIOD_MS) << _RANDOM_BITS) | random
    return "-".join(WORDS[(number >> shift) & 0xFF] for shift in (24, 16, 8, 0))


def name_ranges(name: str, oldest_ms: int, newest_ms: int) -> Iterator[tuple[UUID, UUID]]:
    """Yield the ranges of ids, newest first and both ends included, that may bear a derived name.

    Nothing is yielded for a name that `task_name` cannot have made. Within a range, ask `task_name` of each id.
    """
    numbers = [_NUMBER.get(word) for word in name.split("-")]
    if len(numbers) != 4 or None in numbers:
        return
    number = 0
    for part in numbers:
        number = (number << 8) | part  # type: ignore[operator]  # None was ruled out above
    milliseconds = number >> _RANDOM_BITS
    at = newest_ms - (newest_ms - milliseconds) % _PERIOD_MS
    while at >= oldest_ms:
        yield UUID(int=at << 80), UUID(int=(at << 80) | ((1 << 80) - 1))
        at -= _PERIOD_MS
