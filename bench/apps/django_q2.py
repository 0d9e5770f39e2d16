import os

from bench.systems.base import django_database
from bench.systems.django_q2 import BULK

SECRET_KEY = "only for benchmarks"
USE_TZ = True
DATABASES = {"default": django_database()}
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_q"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
Q_CLUSTER = {
    "name": "bench",
    "orm": "default",
    "workers": int(os.environ.get("BENCH_WORKERS", "1")),
    "bulk": BULK,
    "queue_limit": 4 * BULK,
    "save_limit": 0,
    "retry": 600,
    "timeout": None,
    "recycle": 1000000,
    "log_level": "WARNING",
}
