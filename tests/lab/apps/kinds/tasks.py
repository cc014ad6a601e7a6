"""A Celery application, each of whose workers records its start."""

import os

from celery import Celery, signals

celery = Celery("tasks", broker="memory://")


@signals.worker_ready.connect
def started(sender, **_):
    os.environ["NAME"] = "celery-" + sender.hostname.split("@")[0]
    import app  # noqa: F401: it records the start
