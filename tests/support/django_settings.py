"""Settings of Django that projects turn, as source to put behind a project's own (see `tests.support.projects`)."""

from __future__ import annotations

from typing import Any

REPLICA = """
DATABASES["replica"] = {**DATABASES["default"], "OPTIONS": {"options": "-c default_transaction_read_only=on"}}

class Router:
    def db_for_read(self, model, **hints):
        return "replica"
    def db_for_write(self, model, **hints):
        return "default"
    def allow_relation(self, one, other, **hints):
        return True

DATABASE_ROUTERS = [Router()]
"""
LOGGING = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}


def database(**options: Any) -> str:
    return f"DATABASES['default'].update({options!r})\n"


def options(**options: Any) -> str:
    return f"DATABASES['default'].setdefault('OPTIONS', {{}}).update({options!r})\n"


SETTINGS = {
    "as startproject leaves them": "",
    "USE_TZ = False": "USE_TZ = False\nTIME_ZONE = 'Europe/Paris'\n",
    "TIME_ZONE": "TIME_ZONE = 'Asia/Kathmandu'\n",
    "CONN_MAX_AGE": database(CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True),
    "AUTOCOMMIT = False": database(AUTOCOMMIT=False),
    "ATOMIC_REQUESTS": database(ATOMIC_REQUESTS=True),
    "TIME_ZONE of the database": database(TIME_ZONE="America/New_York"),
    "DISABLE_SERVER_SIDE_CURSORS": database(DISABLE_SERVER_SIDE_CURSORS=True),
    "pool of connections": options(pool=True),
    "server_side_binding": options(server_side_binding=True),
    "isolation_level": "from django.db.backends.postgresql.psycopg_any import IsolationLevel\n"
    "DATABASES['default'].setdefault('OPTIONS', {})['isolation_level'] = IsolationLevel.SERIALIZABLE\n",
    "assume_role": options(assume_role="pgq_stranger"),
    "search_path": options(options="-c search_path=elsewhere,public"),
    "router with a replica": REPLICA,
    "PGQ['database']": "DATABASES['queue'] = dict(DATABASES['default'])\nPGQ['database'] = 'queue'\n",
    "LOGGING": f"LOGGING = {LOGGING!r}\n",
    "LOGGING_CONFIG = None": "LOGGING_CONFIG = None\n",
    "LANGUAGE_CODE": "LANGUAGE_CODE = 'de'\nUSE_THOUSAND_SEPARATOR = True\n",
    "DEBUG = False": "DEBUG = False\nALLOWED_HOSTS = ['*']\n",
    "SECRET_KEY_FALLBACKS": "SECRET_KEY_FALLBACKS = [SECRET_KEY]\nSECRET_KEY = 'another'\n",
    "no cache": "CACHES = {'default': {'BACKEND': 'django.core.cache.backends.dummy.DummyCache'}}\n",
    "spawn": "PGQ['start_method'] = 'spawn'\n",
}
