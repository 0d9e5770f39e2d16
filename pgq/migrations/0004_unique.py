"""Unique tasks, expiry and cancelling; see migrations_sql/0004_unique."""

from django.db import migrations

from pgq.store.schema import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [("pgq", "0003_limits")]

    operations = [RunSQLFile("0004_unique")]
