"""Numbers over time; see migrations_sql/0005_metrics. The operations below only tell Django's state about them."""

from django.db import migrations, models

from pgq.store.schema import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [
        ("pgq", "0004_unique"),
    ]

    operations = [
        RunSQLFile(
            "0005_metrics",
            state_operations=[
                migrations.CreateModel(
                    name="Finding",
                    fields=[
                        ("check_name", models.TextField(db_column="check", primary_key=True, serialize=False)),
                        ("status", models.TextField()),
                        ("detail", models.TextField(db_default="")),
                        ("advice", models.TextField(db_default="")),
                        ("since", models.DateTimeField(db_default=models.Func(function="clock_timestamp"))),
                        ("checked_at", models.DateTimeField(db_default=models.Func(function="clock_timestamp"))),
                    ],
                    options={
                        "verbose_name": "Finding",
                        "verbose_name_plural": "Findings",
                        "db_table": "pgq_finding",
                        "default_permissions": (),
                    },
                ),
                migrations.CreateModel(
                    name="Gauge",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "span", "at", "queue", blank=True, editable=False, primary_key=True, serialize=False
                            ),
                        ),
                        ("span", models.SmallIntegerField(db_default=1)),
                        ("at", models.DateTimeField()),
                        ("queue", models.TextField()),
                        ("ready", models.BigIntegerField()),
                        ("running", models.BigIntegerField()),
                        ("waiting", models.BigIntegerField()),
                        ("parked", models.BigIntegerField()),
                        ("oldest_ready", models.FloatField(null=True)),
                        ("workers", models.IntegerField(db_default=0)),
                        ("busy", models.IntegerField(db_default=0)),
                        ("paused", models.BooleanField(db_default=False)),
                        ("exact", models.BooleanField(db_default=True)),
                    ],
                    options={
                        "db_table": "pgq_gauge",
                        "default_permissions": (),
                    },
                ),
                migrations.CreateModel(
                    name="Mark",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("at", models.DateTimeField(db_default=models.Func(function="clock_timestamp"))),
                        ("label", models.TextField()),
                        ("kind", models.TextField(db_default="mark")),
                        ("author", models.TextField(null=True)),
                    ],
                    options={
                        "verbose_name": "Mark",
                        "verbose_name_plural": "Marks",
                        "db_table": "pgq_mark",
                        "ordering": ["-at"],
                        "default_permissions": ("add", "view"),
                    },
                ),
                migrations.CreateModel(
                    name="Metric",
                    fields=[
                        ("succeeded", models.BigIntegerField(db_default=0, editable=False)),
                        ("failed", models.BigIntegerField(db_default=0, editable=False)),
                        ("retried", models.BigIntegerField(db_default=0, editable=False)),
                        ("cancelled", models.BigIntegerField(db_default=0, editable=False)),
                        ("timed_out", models.BigIntegerField(db_default=0, editable=False)),
                        ("crashed", models.BigIntegerField(db_default=0, editable=False)),
                        ("parked", models.BigIntegerField(db_default=0, editable=False)),
                        ("discarded", models.BigIntegerField(db_default=0, editable=False)),
                        ("run_us_sum", models.BigIntegerField(db_default=0, editable=False)),
                        ("run_us_max", models.BigIntegerField(db_default=0, editable=False)),
                        ("run_from", models.SmallIntegerField(editable=False, null=True)),
                        ("run_hist", models.JSONField(editable=False, null=True)),
                        ("wait_us_sum", models.BigIntegerField(db_default=0, editable=False)),
                        ("wait_us_max", models.BigIntegerField(db_default=0, editable=False)),
                        ("wait_from", models.SmallIntegerField(editable=False, null=True)),
                        ("wait_hist", models.JSONField(editable=False, null=True)),
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "span",
                                "at",
                                "queue",
                                "func",
                                blank=True,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("span", models.SmallIntegerField()),
                        ("at", models.DateTimeField()),
                        ("queue", models.TextField()),
                        ("func", models.TextField()),
                    ],
                    options={
                        "db_table": "pgq_metric",
                        "default_permissions": (),
                    },
                ),
                migrations.CreateModel(
                    name="RawMetric",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "worker", "seq", blank=True, editable=False, primary_key=True, serialize=False
                            ),
                        ),
                        ("worker", models.UUIDField()),
                        ("seq", models.IntegerField()),
                        ("at", models.DateTimeField(db_default=models.Func(function="clock_timestamp"))),
                        ("body", models.JSONField()),
                        ("folded", models.DateTimeField(null=True)),
                    ],
                    options={
                        "db_table": "pgq_metric_raw",
                        "default_permissions": (),
                    },
                ),
                migrations.CreateModel(
                    name="Total",
                    fields=[
                        ("succeeded", models.BigIntegerField(db_default=0, editable=False)),
                        ("failed", models.BigIntegerField(db_default=0, editable=False)),
                        ("retried", models.BigIntegerField(db_default=0, editable=False)),
                        ("cancelled", models.BigIntegerField(db_default=0, editable=False)),
                        ("timed_out", models.BigIntegerField(db_default=0, editable=False)),
                        ("crashed", models.BigIntegerField(db_default=0, editable=False)),
                        ("parked", models.BigIntegerField(db_default=0, editable=False)),
                        ("discarded", models.BigIntegerField(db_default=0, editable=False)),
                        ("run_us_sum", models.BigIntegerField(db_default=0, editable=False)),
                        ("run_us_max", models.BigIntegerField(db_default=0, editable=False)),
                        ("run_from", models.SmallIntegerField(editable=False, null=True)),
                        ("run_hist", models.JSONField(editable=False, null=True)),
                        ("wait_us_sum", models.BigIntegerField(db_default=0, editable=False)),
                        ("wait_us_max", models.BigIntegerField(db_default=0, editable=False)),
                        ("wait_from", models.SmallIntegerField(editable=False, null=True)),
                        ("wait_hist", models.JSONField(editable=False, null=True)),
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "queue", "func", blank=True, editable=False, primary_key=True, serialize=False
                            ),
                        ),
                        ("queue", models.TextField()),
                        ("func", models.TextField()),
                        ("since", models.DateTimeField(db_default=models.Func(function="clock_timestamp"))),
                        ("updated_at", models.DateTimeField(db_default=models.Func(function="clock_timestamp"))),
                    ],
                    options={
                        "db_table": "pgq_total",
                        "default_permissions": (),
                    },
                ),
                migrations.AddField(
                    model_name="queuedtask",
                    name="ready_at",
                    field=models.DateTimeField(editable=False, null=True),
                ),
            ],
        ),
    ]
