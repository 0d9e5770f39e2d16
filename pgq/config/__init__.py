"""Configuration with types, for settings.py and for modules of schedules: ``PGQ = Config(workers=4, schedules=[...])``.

Nothing here imports models or reads settings. Nothing is checked when an object is made: ``manage.py check`` names all
that is wrong at once, each with its place.
"""

from pgq.config.django_cfg import CrontabConfig, CrontabJobConfig, DjangoQ2Config, DjangoQ2ScheduleConfig
from pgq.config.keys import Config
from pgq.config.schedule import Cron, Every, ScheduleConfig, cron
from pgq.config.unique import Debounce, Unique

__all__ = [
    "Config",
    "Cron",
    "CrontabConfig",
    "CrontabJobConfig",
    "Debounce",
    "DjangoQ2Config",
    "DjangoQ2ScheduleConfig",
    "Every",
    "ScheduleConfig",
    "Unique",
    "cron",
]
