"""Django settings of a project with all the faces of pgq: the admin, the dashboard and REST."""

from bench.settings import *  # noqa: F403
from pgq.conf.tokens import SCOPES, digest

#: Of the token of all scopes; it opens a database that is made for the occasion.
SECRET = "pgq_bench"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "pgq",
]
MIDDLEWARE = [
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
ALLOWED_HOSTS = ["testserver"]
STATIC_URL = "static/"
ROOT_URLCONF = "bench.faces.urls"
LANGUAGE_CODE = "en"
PGQ = {"api_tokens": {"bench": {"sha256": digest(SECRET), "scopes": list(SCOPES)}}}
