"""Settings of the demo. What pgq needs: a PostgreSQL in DATABASES, "pgq" in INSTALLED_APPS; PGQ may be left out."""

import os

from pgq.contrib.embedded import database_from_url

DATABASES = {"default": database_from_url(os.environ.get("DATABASE_URL") or "postgresql:///demo")}

INSTALLED_APPS = [
    "pgq",
    "demo",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

# All keys have defaults: see docs/reference/settings.md.
PGQ = {
    "name": "demo",
    # Keep all results; the default is the last 250 of those that succeeded.
    "save_limit": 0,
}

# For a demo on this machine only: a known key, errors with all details, names of this machine.
SECRET_KEY = "the demo's key is no secret, so keep the demo on this machine"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "demo.urls"
STATIC_URL = "static/"
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
