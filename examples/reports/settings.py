import os

from pgq.contrib.embedded import database_from_url

SECRET_KEY = "for this machine only"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "reports.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": database_from_url(os.environ.get("DATABASE_URL", "postgresql:///reports"))}
INSTALLED_APPS = ["pgq", "reports", "django.contrib.staticfiles"]
STATIC_URL = "static/"
MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

PGQ = {"workers": 2}
