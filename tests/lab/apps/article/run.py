"""The news page of the second article: it fetches by TLS, and a job runs in the background."""

import logging
import os

import requests
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from flask import Flask

import probe

logging.basicConfig(level=logging.INFO)
app = Flask(__name__)


@app.get("/tls")
def tls():
    """Makes a real TLS request; a failure is in the log, with its traceback."""
    page = requests.get("https://127.0.0.1:8443/", timeout=5, verify="/srv/news/tls/authority.pem")
    return "fetched %d bytes\n" % len(page.content)


@app.get("/<path:page>")
def page(page):
    status, text = probe.answer(page)
    return text, status


def tick():
    """Records which process runs the job."""
    with open("/srv/news/runs", "a") as runs:
        runs.write("%d\n" % os.getpid())


def begin(scheduler):
    scheduler.add_job(tick, "interval", seconds=1)
    scheduler.start()
