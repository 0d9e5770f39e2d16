"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured
from django.db.models.signals import post_migrate, pre_migrate

from pgq import conf
from pgq.enqueue import discovery, django_tasks, registry
from pgq.management import checks
from pgq.store import routers, schema


class PgqConfig(AppConfig):
    name = "pgq"
    label = "pgq"
    default_auto_field = "django.db.models.BigAutoField"

    @property
    def verbose_name(self) -> str:  # type: ignore[override]
        """PGQ["label"], the title in the admin."""
        try:
            return conf.get_settings().label
        except ImproperlyConfigured:
            # manage.py check names the wrong key. An app has to load all the same.
            return "pgq"

    def ready(self) -> None:
        # They need the models.
        from pgq.schedules import automatic, commands

        # What unsigned rows may name has to be known in each process.
        assert registry.registered(commands.LISTED)
        pre_migrate.connect(schema.make_without_migrations, sender=self)
        post_migrate.connect(automatic.after_migrate, sender=self)
        checks.register()
        routers.install()
        django_tasks.register_checks()
        discovery.import_tasks()
