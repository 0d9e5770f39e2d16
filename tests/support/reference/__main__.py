import os

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    # Its modules import models.
    from tests.support.reference import pages

    for path, text in pages.written().items():
        path.write_text(text, encoding="utf-8")
