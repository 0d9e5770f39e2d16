"""The slots of a recurrence: the next one, the missed ones."""

from pgq.recurrence.clock import parse_zone
from pgq.recurrence.cron import CRON_LENGTH
from pgq.recurrence.first import KIND_WORDS, first_slot, kind_of
from pgq.recurrence.rule import Recurrence
from pgq.recurrence.slots import KINDS, LONGEST, SHORTEST, anchored, missed, next_slot, upcoming, validate
from pgq.recurrence.words import describe, doubt

__all__ = [
    "CRON_LENGTH",
    "KINDS",
    "KIND_WORDS",
    "LONGEST",
    "SHORTEST",
    "Recurrence",
    "anchored",
    "describe",
    "doubt",
    "first_slot",
    "kind_of",
    "missed",
    "next_slot",
    "parse_zone",
    "upcoming",
    "validate",
]
