from bench.systems.base import django_database

SECRET_KEY = "only for benchmarks"
USE_TZ = True
DATABASES = {"default": django_database()}
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_tasks", "django_tasks_db"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": ["default"]}}
LOGGING = {"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING"}}
