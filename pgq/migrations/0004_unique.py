"""Unique tasks, expiry and cancelling; see migrations_sql/0004_unique."""

from django.db import migrations, models

import pgq.fields
from pgq.store.schema import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [("pgq", "0003_limits")]

    operations = [
        RunSQLFile(
            "0004_unique",
            state_operations=[
                migrations.CreateModel(
                    name="UniqueKey",
                    fields=[
                        ("key", models.TextField(primary_key=True, serialize=False)),
                        ("task", pgq.fields.TaskIdField()),
                        ("until", models.DateTimeField()),
                    ],
                    options={
                        "db_table": "pgq_unique",
                    },
                ),
            ],
        )
    ]
