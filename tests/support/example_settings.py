"""Settings of the pools that test_examples.py starts: with a cache and an outbox that processes share."""

import os

from tests.support.pool_settings import *  # noqa: F403

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": os.environ["PGQ_TEST_CACHE"],
    }
}
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = os.environ["PGQ_TEST_OUTBOX"]
ADMINS = [("Ada", "ada@example.com")]
