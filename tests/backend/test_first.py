import pytest

from pgq.testing import drain
from tests.functions import django_tasks as functions

pytestmark = pytest.mark.django_db


def test_first():
    result = functions.echo.enqueue(1, x=2)
    assert result.status == "READY"
    assert functions.echo.get_result(result.id) == result
    [ran] = drain()
    assert ran.state == "succeeded"
    result.refresh()
    assert result.return_value == [[1], {"x": 2}]
    assert result.started_at >= result.enqueued_at
    assert result.attempts == 1
    r = functions.look.enqueue(5)
    drain()
    r.refresh()
    assert (r.return_value["attempt"], r.return_value["status"]) == (1, "RUNNING")
