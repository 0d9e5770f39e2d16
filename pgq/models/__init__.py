"""Django's view of the tables, with the names of Django-Q's models.

The tables are made by migrations_sql; a test holds these classes against them. Behaviour is elsewhere: here are only
names, readers and what Django-Q's models offered on top.
"""

from pgq.models import metrics
from pgq.models.dashboard import Dashboard
from pgq.models.finished import Failure, Success, Task
from pgq.models.flow import KeyedLane, Lane, Limit, Rate, UniqueKey
from pgq.models.named import Progress
from pgq.models.pool import WorkerPool
from pgq.models.queued import OrmQ, QueuedTask
from pgq.models.schedule import Schedule

__all__ = [
    "Dashboard",
    "Failure",
    "KeyedLane",
    "Lane",
    "Limit",
    "OrmQ",
    "Progress",
    "QueuedTask",
    "Rate",
    "Schedule",
    "Success",
    "Task",
    "UniqueKey",
    "WorkerPool",
    "metrics",
]
