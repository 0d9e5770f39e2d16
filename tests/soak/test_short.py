"""Short forms of the long runs in tests/soak."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.soak import faults, flow, schedules


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
@pytest.mark.django_db(transaction=True)
def test_every_slot_once_while_pools_are_killed_and_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings
) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", schedules.SETTINGS)
    monkeypatch.setenv("PGDATABASE", settings.DATABASES["default"]["NAME"])
    if "DATABASE_URL" in os.environ:
        pytest.skip("the pools of this test find their database by PGDATABASE, which DATABASE_URL overrides")

    verdict = schedules.run(seconds=12, schedules=20, seed=4, folder=tmp_path)

    assert verdict.slots >= 20 * 10, verdict
    assert (verdict.missing, verdict.doubled) == (0, 0), verdict
    assert verdict.attacks.total() >= 2, verdict


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_nothing_is_lost_while_everything_fails(tmp_path: Path) -> None:
    report = faults.run(seconds=10, seed=7, folder=tmp_path, rate=100)

    assert not report.violations, report
    assert report.tasks > 200, report
    assert sum(report.attacks.values()) >= 3, report


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_limits_hold_while_everything_fails(tmp_path: Path) -> None:
    report = flow.run(1, seed=12, folder=tmp_path, seconds=9, rate=150, storm=0.3)

    assert not report.violations, report
    assert report.starts > 300, report
    assert report.limits_set > 3, report
    assert sum(report.attacks.values()) >= 2, report
