from bench.systems.base import django_database

SECRET_KEY = "only for benchmarks"
USE_TZ = True
DATABASES = {"default": django_database()}
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "procrastinate.contrib.django"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PROCRASTINATE_IMPORT_PATHS = ["bench.apps.procrastinate_tasks"]
LOGGING = {"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING"}}
