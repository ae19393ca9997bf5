"""The URLs of the project."""

from django.urls import path

from peers.django_service.views import top_buys

urlpatterns = [path("api/recommendations/top-buys/", top_buys)]
