import os

from pgq.contrib.embedded import database_from_url

SECRET_KEY = "for this machine only"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "webhooks.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": database_from_url(os.environ.get("DATABASE_URL", "postgresql:///webhooks"))}
INSTALLED_APPS = ["pgq", "webhooks"]
MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
PGQ = {"workers": 2, "log_level": "CRITICAL"}  # The page shows what fails.

# Where the subscribers of this example listen: this very server.
RECEIVER = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/receiver"
