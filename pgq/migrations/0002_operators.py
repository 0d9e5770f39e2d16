"""Views and functions for operators; see migrations_sql/0002_operators."""

from django.db import migrations

from pgq.store.schema import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [("pgq", "0001_initial")]

    operations = [RunSQLFile("0002_operators")]
