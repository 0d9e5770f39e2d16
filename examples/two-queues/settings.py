import os

from pgq.contrib.embedded import database_from_url

SECRET_KEY = "for this machine only"
USE_TZ = True
DATABASES = {"default": database_from_url(os.environ.get("DATABASE_URL", "postgresql:///office"))}
INSTALLED_APPS = ["pgq", "office"]
PGQ = {
    "log_level": "WARNING",
    # One entry for each pool: `pgq_worker --name mail` has these settings, and those of PGQ besides.
    "ALT_CLUSTERS": {
        "mail": {"queues": ["mail"], "workers": 1, "timeout": 30},
        "reports": {"queues": ["reports", "default"], "workers": 2, "timeout": 3600},
    },
}
