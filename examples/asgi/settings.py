import os

from pgq.contrib.embedded import database_from_url

SECRET_KEY = "for this machine only"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "quotes.urls"
ASGI_APPLICATION = "quotes.asgi.application"
DATABASES = {"default": database_from_url(os.environ.get("DATABASE_URL", "postgresql:///quotes"))}
# Under ASGI each request has a connection of its own while it uses one: Django's pool keeps them few.
DATABASES["default"]["OPTIONS"]["pool"] = {"max_size": 10}
INSTALLED_APPS = ["pgq", "quotes"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
PGQ = {"workers": 1, "coroutines": 50}
