"""The settings of the project."""

import os

SECRET_KEY = "only for measurements"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "peers.django_service.urls"
WSGI_APPLICATION = "peers.django_service.wsgi.application"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
]
USE_TZ = True
REDIS_URL = os.environ["RECSYS_REDIS_URL"]
