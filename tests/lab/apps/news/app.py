"""A news page made with Flask; it fetches by TLS and has a scheduler in the background."""

import requests
from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask

import probe

app = Flask(__name__)
beats = []
scheduler = BackgroundScheduler()
scheduler.add_job(lambda: beats.append(1), "interval", seconds=0.2)
scheduler.start()


@app.get("/tls")
def tls():
    """Makes a real TLS request and checks the certificate against the lab's own authority."""
    try:
        page = requests.get("https://127.0.0.1:8443/", timeout=5, verify="/srv/news/tls/authority.pem")
        page.raise_for_status()
    except Exception as error:
        return "%s: %s\n" % (type(error).__name__, error), 500
    return "fetched %d bytes\n" % len(page.content)


@app.get("/beats")
def heart():
    """How often the scheduler has run."""
    return "%d\n" % len(beats)


@app.get("/<path:page>")
def page(page):
    status, text = probe.answer(page)
    return text, status
