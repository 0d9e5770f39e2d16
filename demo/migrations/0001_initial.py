from django.db import migrations, models

COUNTS = [
    ("lines", models.PositiveIntegerField(default=0)),
    ("comments", models.PositiveIntegerField(default=0)),
    ("imports", models.PositiveIntegerField(default=0)),
    ("functions", models.PositiveIntegerField(default=0)),
    ("classes", models.PositiveIntegerField(default=0)),
]


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="SourceFile",
            fields=[
                *COUNTS,
                ("path", models.TextField(primary_key=True, serialize=False)),
                ("parsed_at", models.DateTimeField(auto_now=True)),
            ],
            options={"ordering": ["path"]},
        ),
        migrations.CreateModel(
            name="Summary",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                *COUNTS,
                ("files", models.PositiveIntegerField(default=0)),
                ("refreshed_at", models.DateTimeField(auto_now=True)),
            ],
            options={"verbose_name_plural": "summary"},
        ),
    ]
