"""The tables of migrations_sql/0001_initial; the operations below only tell Django's state about them."""

import django.db.models.functions.datetime
import django.utils.timezone
from django.db import migrations, models

import pgq.fields
import pgq.models.schedule_row
from pgq.store.schema import RunSQLFile


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        RunSQLFile(
            "0001_initial",
            state_operations=[
                migrations.CreateModel(
                    name="Lane",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "queue", "priority", blank=True, editable=False, primary_key=True, serialize=False
                            ),
                        ),
                        ("queue", models.TextField()),
                        ("priority", models.SmallIntegerField(db_default=0)),
                        ("low", models.BigIntegerField(db_default=0)),
                        ("paused", models.BooleanField(db_default=False)),
                    ],
                    options={
                        "db_table": "pgq_lane",
                    },
                ),
                migrations.CreateModel(
                    name="QueuedTask",
                    fields=[
                        (
                            "id",
                            pgq.fields.TaskIdField(
                                db_default=models.Func(function="pgq_uuid7"),
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        (
                            "position",
                            models.BigIntegerField(
                                db_default=models.Func(
                                    models.Value("pgq_position"),
                                    function="nextval",
                                    output_field=models.BigIntegerField(),
                                ),
                                editable=False,
                            ),
                        ),
                        ("priority", models.SmallIntegerField(db_default=0, help_text="-100 to 100; larger is sooner")),
                        ("attempts", models.SmallIntegerField(db_default=0, editable=False)),
                        ("crashes", models.SmallIntegerField(db_default=0, editable=False)),
                        ("cancelled", models.BooleanField(db_default=False, editable=False)),
                        (
                            "max_attempts",
                            models.IntegerField(db_default=1, help_text="attempts that may fail; 0: no limit"),
                        ),
                        ("queue", models.TextField(db_default="default")),
                        ("func", models.TextField(help_text="dotted path of a registered function")),
                        ("args", pgq.fields.ArgsField(db_default=models.Value([], pgq.fields.StoredField()))),
                        ("kwargs", pgq.fields.KwargsField(db_default=models.Value({}, pgq.fields.StoredField()))),
                        ("options", pgq.fields.KwargsField(db_default=models.Value({}, pgq.fields.StoredField()))),
                        ("name", pgq.fields.NameField(blank=True, null=True)),
                        ("group", pgq.fields.OptionalTextField(blank=True, null=True)),
                        ("hook", pgq.fields.OptionalTextField(blank=True, null=True)),
                        ("timeout", models.FloatField(blank=True, help_text="seconds", null=True)),
                        ("run_after", models.DateTimeField(blank=True, null=True)),
                        ("remaining", models.IntegerField(blank=True, editable=False, null=True)),
                        ("parked", models.TextField(blank=True, editable=False, null=True)),
                        ("schedule", models.BigIntegerField(blank=True, editable=False, null=True)),
                        ("slot", models.DateTimeField(blank=True, editable=False, null=True)),
                        ("signature", models.BinaryField(null=True)),
                        ("history", models.JSONField(db_default=models.Value([], models.JSONField()), editable=False)),
                        (
                            "enqueued_at",
                            models.DateTimeField(db_default=models.Func(function="clock_timestamp"), editable=False),
                        ),
                        ("lock", models.DateTimeField(blank=True, editable=False, null=True)),
                        ("worker", pgq.fields.TaskIdField(blank=True, editable=False, null=True)),
                        ("receipt", pgq.fields.TaskIdField(blank=True, editable=False, null=True)),
                    ],
                    options={
                        "verbose_name": "Queued task",
                        "verbose_name_plural": "Queued tasks",
                        "db_table": "pgq_queue",
                        "permissions": [
                            ("cancel_queuedtask", "Can cancel queued task"),
                            ("run_queuedtask", "Can run queued task now"),
                            ("release_queuedtask", "Can release parked task"),
                        ],
                    },
                    bases=(pgq.fields.KeepsText, models.Model),
                ),
                migrations.CreateModel(
                    name="Schedule",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        ("name", pgq.fields.OptionalTextField(blank=True, null=True, unique=True)),
                        ("func", models.TextField()),
                        ("hook", pgq.fields.OptionalTextField(blank=True, null=True)),
                        (
                            "args",
                            pgq.fields.ArgsField(blank=True, db_default=models.Value([], pgq.fields.StoredField())),
                        ),
                        (
                            "kwargs",
                            pgq.fields.KwargsField(blank=True, db_default=models.Value({}, pgq.fields.StoredField())),
                        ),
                        (
                            "options",
                            pgq.fields.KwargsField(blank=True, db_default=models.Value({}, pgq.fields.StoredField())),
                        ),
                        ("queue", pgq.fields.OptionalTextField(blank=True, null=True)),
                        ("priority", models.SmallIntegerField(db_default=0)),
                        (
                            "schedule_type",
                            models.TextField(
                                choices=[
                                    ("O", "Once"),
                                    ("S", "Seconds"),
                                    ("I", "Minutes"),
                                    ("H", "Hourly"),
                                    ("D", "Daily"),
                                    ("W", "Weekly"),
                                    ("BW", "Biweekly"),
                                    ("M", "Monthly"),
                                    ("BM", "Bimonthly"),
                                    ("Q", "Quarterly"),
                                    ("Y", "Yearly"),
                                    ("C", "Cron"),
                                ],
                                db_default="O",
                                default="O",
                            ),
                        ),
                        ("minutes", models.IntegerField(blank=True, null=True)),
                        ("seconds", models.FloatField(blank=True, null=True)),
                        ("cron", pgq.fields.OptionalTextField(blank=True, null=True)),
                        ("repeats", models.IntegerField(db_default=-1, default=-1)),
                        (
                            "next_run",
                            pgq.models.schedule_row.NextRunField(
                                blank=True, db_default=django.db.models.functions.datetime.Now(), null=True
                            ),
                        ),
                        ("time_zone", pgq.fields.OptionalTextField(blank=True, null=True)),
                        ("catch_up", models.BooleanField(blank=True, null=True)),
                        (
                            "overlap",
                            models.TextField(
                                choices=[("allow", "allow"), ("skip", "skip"), ("queue_one", "queue one")],
                                db_default="allow",
                                default="allow",
                            ),
                        ),
                        ("jitter", models.FloatField(db_default=0, default=0)),
                        ("paused", models.BooleanField(db_default=False, default=False)),
                        ("intended_date_kwarg", pgq.fields.OptionalTextField(blank=True, null=True)),
                        ("day", models.SmallIntegerField(blank=True, editable=False, null=True)),
                        ("wall_time", models.TimeField(blank=True, editable=False, null=True)),
                        ("task", pgq.fields.TaskIdField(editable=False, null=True)),
                        ("last_slot", models.DateTimeField(editable=False, null=True)),
                        ("error", models.TextField(editable=False, null=True)),
                        ("retry_at", models.DateTimeField(editable=False, null=True)),
                        ("signature", models.BinaryField(null=True)),
                        ("source", models.TextField(editable=False, null=True)),
                        ("spec", models.JSONField(editable=False, null=True)),
                        ("release", models.TextField(editable=False, null=True)),
                        ("auto_paused", models.BooleanField(db_default=False, default=False, editable=False)),
                        ("stale_since", models.DateTimeField(editable=False, null=True)),
                    ],
                    options={
                        "verbose_name": "Schedule",
                        "verbose_name_plural": "Schedules",
                        "db_table": "pgq_schedule",
                        "ordering": ["next_run"],
                        "permissions": [
                            ("run_schedule", "Can run schedule now"),
                            ("pause_schedule", "Can pause and resume schedule"),
                        ],
                    },
                    bases=(pgq.models.schedule_row.ScheduleRow, models.Model),
                    managers=[
                        ("objects", pgq.models.schedule_row.ScheduleManager()),
                    ],
                ),
                migrations.CreateModel(
                    name="Task",
                    fields=[
                        (
                            "id",
                            pgq.fields.TaskIdField(editable=False, primary_key=True, serialize=False),
                        ),
                        ("success", pgq.fields.OutcomeField(editable=False)),
                        ("attempt_count", models.SmallIntegerField(db_default=0, editable=False)),
                        ("priority", models.SmallIntegerField(db_default=0, editable=False)),
                        ("max_attempts", models.IntegerField(db_default=1, editable=False)),
                        ("timeout", models.FloatField(editable=False, null=True)),
                        ("started", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                        ("stopped", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                        ("enqueued_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                        ("func", models.TextField()),
                        ("queue", models.TextField(default="default", editable=False)),
                        (
                            "args",
                            pgq.fields.ArgsField(db_default=models.Value([], pgq.fields.StoredField()), editable=False),
                        ),
                        (
                            "kwargs",
                            pgq.fields.KwargsField(
                                db_default=models.Value({}, pgq.fields.StoredField()), editable=False
                            ),
                        ),
                        (
                            "options",
                            pgq.fields.KwargsField(
                                db_default=models.Value({}, pgq.fields.StoredField()), editable=False
                            ),
                        ),
                        ("value", pgq.fields.StoredField(db_column="result", editable=False, null=True)),
                        ("name", pgq.fields.NameField(editable=False, null=True)),
                        ("group", pgq.fields.OptionalTextField(editable=False, null=True)),
                        ("hook", pgq.fields.OptionalTextField(null=True)),
                        ("cluster", pgq.fields.OptionalTextField(editable=False, null=True)),
                        ("worker", pgq.fields.TaskIdField(editable=False, null=True)),
                        ("schedule", models.BigIntegerField(editable=False, null=True)),
                        ("exception", pgq.fields.ExceptionField(editable=False, null=True)),
                        ("message", models.TextField(editable=False, null=True)),
                        ("traceback", models.TextField(editable=False, null=True)),
                        ("signature", models.BinaryField(null=True)),
                        ("history", models.JSONField(db_default=models.Value([], models.JSONField()), editable=False)),
                    ],
                    options={
                        "verbose_name": "Task",
                        "verbose_name_plural": "Tasks",
                        "db_table": "pgq_task",
                        "ordering": ["-id"],
                        "permissions": [("retry_task", "Can run finished task again")],
                    },
                    bases=(pgq.fields.KeepsText, models.Model),
                ),
                migrations.CreateModel(
                    name="Progress",
                    fields=[
                        ("task", pgq.fields.TaskIdField(editable=False, primary_key=True, serialize=False)),
                        ("done", models.FloatField(editable=False, null=True)),
                        ("total", models.FloatField(editable=False, null=True)),
                        ("text", models.TextField(editable=False, null=True)),
                        ("log", models.JSONField(db_default=models.Value([], models.JSONField()), editable=False)),
                        (
                            "updated_at",
                            models.DateTimeField(db_default=models.Func(function="clock_timestamp"), editable=False),
                        ),
                    ],
                    options={
                        "verbose_name": "Progress",
                        "verbose_name_plural": "Progress",
                        "db_table": "pgq_progress",
                    },
                ),
                migrations.CreateModel(
                    name="WorkerPool",
                    fields=[
                        ("id", pgq.fields.TaskIdField(editable=False, primary_key=True, serialize=False)),
                        ("name", models.TextField()),
                        ("host", models.TextField()),
                        ("pid", models.IntegerField()),
                        ("queues", models.JSONField(null=True)),
                        ("exclude_queues", models.JSONField(null=True)),
                        ("status", models.TextField(db_default="starting")),
                        ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                        ("heartbeat", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                        ("version", models.TextField(db_default="")),
                        ("workers", models.JSONField(db_default=models.Value([], models.JSONField()))),
                        ("retry", models.FloatField(db_default=60.0)),
                        ("clock_skew", models.FloatField(null=True)),
                        ("stalled_since", models.DateTimeField(null=True)),
                    ],
                    options={
                        "verbose_name": "Pool",
                        "verbose_name_plural": "Pools",
                        "db_table": "pgq_worker",
                        "ordering": ["started_at"],
                    },
                ),
                migrations.CreateModel(
                    name="Failure",
                    fields=[],
                    options={
                        "verbose_name": "Failed task",
                        "verbose_name_plural": "Failed tasks",
                        "ordering": ["-id"],
                        "proxy": True,
                        "indexes": [],
                        "constraints": [],
                    },
                    bases=("pgq.task",),
                ),
                migrations.CreateModel(
                    name="Success",
                    fields=[],
                    options={
                        "verbose_name": "Successful task",
                        "verbose_name_plural": "Successful tasks",
                        "ordering": ["-id"],
                        "proxy": True,
                        "indexes": [],
                        "constraints": [],
                    },
                    bases=("pgq.task",),
                ),
            ],
        ),
    ]
