#!/usr/bin/env python
"""Django's command line for the demo: ``DATABASE_URL=... python demo/manage.py pgq_worker``."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # The demo is a package: what is imported from is the folder it lies in, and not demo/ itself.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    os.environ["DJANGO_SETTINGS_MODULE"] = "demo.settings"

    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
