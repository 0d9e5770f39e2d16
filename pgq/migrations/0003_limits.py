"""Keys, turns and limits; see migrations_sql/0003_limits."""

from django.db import migrations, models

import pgq.fields
from pgq.store.schema import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [("pgq", "0002_operators")]

    operations = [
        RunSQLFile(
            "0003_limits",
            state_operations=[
                migrations.CreateModel(
                    name="KeyedLane",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "queue",
                                "key",
                                "priority",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("queue", models.TextField()),
                        ("key", models.TextField()),
                        ("priority", models.SmallIntegerField(db_default=0)),
                        ("low", models.BigIntegerField(db_default=0)),
                        ("idle_since", models.DateTimeField(null=True)),
                    ],
                    options={
                        "db_table": "pgq_keyed",
                    },
                ),
                migrations.CreateModel(
                    name="Limit",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "scope", "name", blank=True, editable=False, primary_key=True, serialize=False
                            ),
                        ),
                        ("scope", models.TextField(choices=[("key", "key"), ("queue", "queue")])),
                        ("name", models.TextField()),
                        ("concurrency", models.IntegerField(blank=True, null=True)),
                        ("rate", models.IntegerField(blank=True, null=True)),
                        ("period", models.FloatField(blank=True, null=True)),
                        ("smooth", models.BooleanField(db_default=False)),
                        ("strict", models.BooleanField(db_default=False)),
                        ("pinned", models.BooleanField(db_default=False)),
                        (
                            "updated_at",
                            models.DateTimeField(db_default=models.Func(function="clock_timestamp"), editable=False),
                        ),
                    ],
                    options={
                        "verbose_name": "Limit",
                        "verbose_name_plural": "Limits",
                        "db_table": "pgq_limit",
                    },
                ),
                migrations.CreateModel(
                    name="Rate",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "scope", "name", blank=True, editable=False, primary_key=True, serialize=False
                            ),
                        ),
                        ("scope", models.TextField()),
                        ("name", models.TextField()),
                        ("starts", models.JSONField(db_default=models.Value([], models.JSONField()))),
                        ("not_before", models.DateTimeField(null=True)),
                        ("limited_at", models.DateTimeField(null=True)),
                        (
                            "updated_at",
                            models.DateTimeField(db_default=models.Func(function="clock_timestamp"), editable=False),
                        ),
                    ],
                    options={
                        "db_table": "pgq_rate",
                    },
                ),
                migrations.AddField(
                    model_name="queuedtask",
                    name="expires_at",
                    field=models.DateTimeField(blank=True, editable=False, null=True),
                ),
                migrations.AddField(
                    model_name="queuedtask",
                    name="strand",
                    field=models.BigIntegerField(blank=True, editable=False, null=True),
                ),
                migrations.AddField(
                    model_name="queuedtask",
                    name="task_key",
                    field=pgq.fields.OptionalTextField(
                        blank=True, db_column="key", help_text="groups tasks for turns and limits", null=True
                    ),
                ),
                migrations.AddField(
                    model_name="queuedtask",
                    name="unique_key",
                    field=pgq.fields.OptionalTextField(blank=True, editable=False, null=True),
                ),
                migrations.AddField(
                    model_name="queuedtask",
                    name="unique_until",
                    field=pgq.fields.OptionalTextField(blank=True, editable=False, null=True),
                ),
                migrations.AddField(
                    model_name="task",
                    name="task_key",
                    field=pgq.fields.OptionalTextField(db_column="key", editable=False, null=True),
                ),
            ],
        )
    ]
