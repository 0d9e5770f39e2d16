import os

from pgq.contrib.embedded import database_from_url

SECRET_KEY = "for this machine only"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": database_from_url(os.environ.get("DATABASE_URL", "postgresql:///ledger"))}
INSTALLED_APPS = ["pgq", "ledger"]
# Workers are killed all the time here, by no fault of the tasks that they run.
PGQ = {"max_crashes": 100, "workers": 3, "log_level": "ERROR"}
