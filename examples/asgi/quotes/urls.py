from django.urls import path

from quotes import views

urlpatterns = [
    path("", views.index),
    path("quotes/<int:weight>/", views.quotes),
    path("later/<int:weight>/", views.later),
    path("tasks/<uuid:task_id>/", views.state, name="state"),
]
