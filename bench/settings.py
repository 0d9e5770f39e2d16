"""Django settings of the benchmarks: the database of DATABASE_URL, and PGQ as BENCH_PGQ has it (JSON)."""

import json
import os

from pgq.contrib.embedded import database_from_url

SECRET_KEY = "only for benchmarks"
USE_TZ = True
DATABASES = {"default": database_from_url(os.environ["DATABASE_URL"])}
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "pgq"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PGQ = json.loads(os.environ.get("BENCH_PGQ", "{}"))
