"""Which failures are alike; see migrations_sql/0007_alike."""

from django.db import migrations

from pgq.store.schema import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [("pgq", "0005_metrics"), ("pgq", "0006_why")]

    operations = [RunSQLFile("0007_alike")]
