"""Random numbers for pauses."""

from __future__ import annotations

import random

from pgq.ground import backoff, chance
from pgq.store.outage import Backoff


def test_a_number_lies_between() -> None:
    numbers = {chance.between(2.0, 3.0) for _ in range(50)}
    assert len(numbers) > 1
    assert all(2.0 <= number <= 3.0 for number in numbers)


def test_a_task_gets_the_numbers_of_its_seed_whatever_pauses_there_were() -> None:
    random.seed(7)
    expected = [random.random() for _ in range(2)]
    random.seed(7)
    got = [random.random()]
    Backoff().next_pause()
    assert 0 < backoff.delay(None, 3) < 3600
    got.append(random.random())
    assert got == expected
