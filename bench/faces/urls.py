"""The routes of that project."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("pgq/", include("pgq.urls")),
    path("cfg/", include("pgq.urls.django_cfg")),
]
