"""The shop of the pictures, with the admin as every project has it."""

import os
import sys
from pathlib import Path

from demo.settings import *  # noqa: F403
from demo.settings import INSTALLED_APPS as _APPS
from pgq.contrib.embedded import database_from_url

# Its tasks are called as those of the documents: shop.tasks.
sys.path.insert(0, str(Path(__file__).parent))

DATABASES = {"default": database_from_url(os.environ["DATABASE_URL"])}
INSTALLED_APPS = [app for app in _APPS if app != "demo"] + ["shop"]
PGQ = {
    "name": "web-1",
    "workers": 12,
    "save_limit": 0,
    "queues": ["default", "mail", "payments", "media", "imports", "newsletter"],
}
