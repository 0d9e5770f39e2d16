"""Django settings of the tests.

The database is that of DATABASE_URL, or the embedded one that conftest.py starts and announces by libpq's own variables
(PGHOST and so on), which libpq reads when it connects. So nothing has to run when this module is imported.
"""

import os
from importlib.util import find_spec

from pgq.contrib.embedded import database_from_url

SECRET_KEY = "a key for the tests, long enough for Django's own checks of it"
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

DATABASES = {
    "default": database_from_url(
        os.environ.get("DATABASE_URL") or f"dbname={os.environ.get('PGDATABASE', 'postgres')}",
    ),
}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "pgq",
    "tests.app",
]
if not find_spec("django.tasks") and find_spec("django_tasks"):
    INSTALLED_APPS.append("django_tasks")
TASKS = {"default": {"BACKEND": "pgq.backend.PgqBackend", "QUEUES": []}}
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
