"""Top Buys as a Django project, the way Django's documentation writes one.

Started by ``gunicorn peers.django_service.wsgi``: a function view behind a URL pattern that answers
a JsonResponse, and the client of redis-py, which is what Django's own Redis cache is built on. Of
the middleware that ``startproject`` sets up, those of sessions, log-in, forms and messages are left
out.
"""
