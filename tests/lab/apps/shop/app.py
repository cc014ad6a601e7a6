"""A shop made with Django, in one file. It pays by TLS, so it needs ssl when it starts."""

import ssl

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

import probe

settings.configure(
    ALLOWED_HOSTS=["*"],
    LOGGING_CONFIG=None,
    ROOT_URLCONF=__name__,
    SECRET_KEY=ssl.OPENSSL_VERSION,
)
django.setup()


def page(request, page):
    status, text = probe.answer(page)
    return HttpResponse(text, status=status, content_type="text/plain")


urlpatterns = [path("<path:page>", page)]
application = get_wsgi_application()
