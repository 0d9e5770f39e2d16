"""The demo's own pages in the admin; those of pgq come with pgq."""

from django.contrib import admin

from demo.models import SourceFile, Summary


@admin.register(SourceFile)
class SourceFileAdmin(admin.ModelAdmin):
    list_display = ["path", "lines", "comments", "imports", "functions", "classes", "parsed_at"]
    search_fields = ["path"]


@admin.register(Summary)
class SummaryAdmin(admin.ModelAdmin):
    list_display = ["files", "lines", "comments", "imports", "functions", "classes", "refreshed_at"]
