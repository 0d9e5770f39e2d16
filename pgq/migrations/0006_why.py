"""Why a task is not running (see migrations_sql/0006_why), and the permissions of the dashboard."""

from django.db import migrations

from pgq.store.schema import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [("pgq", "0005_metrics")]

    operations = [
        RunSQLFile(
            "0006_why",
            state_operations=[
                migrations.CreateModel(
                    name="Dashboard",
                    fields=[],
                    bases=("pgq.mark",),
                    options={
                        "verbose_name": "Dashboard",
                        "verbose_name_plural": "Dashboard",
                        "permissions": [
                            ("operate_dashboard", "Can act on all tasks that match"),
                            ("pause_queue", "Can pause and resume queues"),
                        ],
                        "proxy": True,
                        "default_permissions": ("view",),
                    },
                ),
            ],
        )
    ]
