import os

import django

from pgq.contrib.embedded import database_from_url

SECRET_KEY = "for this machine only"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "shop.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": database_from_url(os.environ.get("DATABASE_URL", "postgresql:///shop"))}
INSTALLED_APPS = ["pgq", "shop"]
MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

# Letters are printed by the worker. Django 6.1 has MAILERS; before, it was EMAIL_BACKEND.
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "django.core.mail.backends.console.EmailBackend"}}
else:
    EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"

PGQ = {
    "workers": 2,
    # The mail server takes ten letters a second, from all workers together.
    "queue_limits": {"mail": {"rate": "10/s"}},
}
