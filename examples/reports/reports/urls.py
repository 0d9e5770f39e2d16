from django.urls import path

from reports import views

urlpatterns = [
    path("", views.index, name="index"),
    path("<int:pk>/", views.state, name="state"),
    path("<int:pk>/cancel/", views.stop, name="cancel"),
    path("<int:pk>/report.csv", views.download, name="download"),
]
