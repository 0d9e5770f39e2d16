from django.urls import path

from webhooks import views

urlpatterns = [
    path("", views.index, name="index"),
    path("retry/<str:task_id>/", views.again, name="again"),
    path("mend/", views.mend, name="mend"),
    path("receiver/<str:subscriber>/", views.receiver),
]
