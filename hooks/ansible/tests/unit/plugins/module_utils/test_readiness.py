# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from ansible_collections.venvguard.venvguard.plugins.module_utils import readiness, readiness_page

CHANGES = [{"interpreter": "/usr/bin/python3.13", "from": None, "to": "3.13.5-2", "kind": "appeared"}]


def finding(distribution="psycopg2-binary", version="2.9.5", kind="no-wheel", works_from="2.9.10"):
    return {
        "distribution": distribution,
        "version": version,
        "kind": kind,
        "detail": "no file for Python 3.13",
        "works_from": works_from,
    }


def venv(name, **more):
    return dict(
        {
            "id": name,
            "name": name,
            "path": "/srv/%s/venv" % name,
            "state": "healthy",
            "policy": "auto",
            "services": [{"manager": "systemd", "name": name + ".service"}],
            "interpreter": {"version": "3.11.2"},
        },
        **more
    )


def tried(name, *findings):
    proof = "none" if findings else "rehearsed"
    return {"id": name, "version": "3.13.5", "ready": not findings, "proof": proof, "findings": list(findings)}


def planned(name, **more):
    return dict({"id": name, "effect": "orphaned", "remedy": "rebuild", "blocks": False, "reasons": []}, **more)


def plan(*venvs, **more):
    return dict({"changes": CHANGES, "venvs": list(venvs), "verdict": "repair", "known": True, "hold": None}, **more)


def answer(host, venvs=(), rehearsal=None, **more):
    found = None if rehearsal is None else {"changes": CHANGES, "venvs": list(rehearsal)}
    return dict({"host": host, "error": None, "venvs": list(venvs), "plan": None, "rehearsal": found}, **more)


def row(report, name):
    return next(row for row in report["venvs"] if row["name"] == name)


def test_a_venv_is_ready_if_a_rehearsal_says_so():
    report = readiness.report([answer("a", [venv("shop"), venv("idle")], [tried("shop")])])
    assert row(report, "shop")["readiness"] == "ready"
    assert row(report, "shop")["python_after"] == "3.13.5"
    assert row(report, "idle")["readiness"] == "unaffected"
    assert report["totals"]["ready"] == 1 and report["totals"]["venvs"] == 2


def test_the_distribution_that_blocks_most_comes_first():
    report = readiness.report(
        [
            answer("b", [venv("b1"), venv("b2")], [tried("b1", finding("numpy", "1.24.2")), tried("b2")]),
            answer("c", [venv("c1")], [tried("c1", finding(), finding("numpy", "1.24.0", works_from=None))]),
            answer("a", [venv("a1")], [tried("a1", finding("lxml"))]),
        ]
    )
    assert [(one["distribution"], one["venvs"], one["hosts"]) for one in report["blockers"]] == [
        ("numpy", 2, 2),
        ("lxml", 1, 1),
        ("psycopg2-binary", 1, 1),
    ]
    assert [one["name"] for one in report["venvs"]] == ["b1", "c1", "a1", "b2"]
    versions = report["blockers"][0]["versions"]
    assert {one["version"]: one["works_from"] for one in versions} == {"1.24.2": "2.9.10", "1.24.0": None}


def test_numbers_in_names_count():
    report = readiness.report([answer(name, [venv("app")], []) for name in ("web13", "web²", "web3", "web03")])
    assert [one["host"] for one in report["hosts"]] == ["web03", "web3", "web13", "web²"]
    assert [one["host"] for one in report["venvs"]] == ["web03", "web3", "web13", "web²"]


def test_a_distribution_counts_once_for_each_venv():
    report = readiness.report([answer("a", [venv("a1")], [tried("a1", finding(), finding(kind="import"))])])
    blocker = report["blockers"][0]
    assert blocker["venvs"] == 1 and blocker["kinds"] == ["import", "no-wheel"]


def test_a_venv_itself_can_be_in_the_way():
    report = readiness.report([answer("a", [venv("a1")], [tried("a1", finding(None, None, "obstacle", None))])])
    assert report["blockers"][0]["distribution"] == readiness.THE_VENV
    assert "the virtualenv itself" in readiness_page.page(report)


def last(version="3.13.5-2", ready=True, *findings):
    return {"package_version": version, "ready": ready, "proof": "rehearsed", "findings": list(findings)}


@pytest.mark.parametrize(
    "more, decision, expected",
    [
        ({}, planned("shop"), "unknown"),
        ({}, planned("shop", effect="none", remedy="none"), "unaffected"),
        ({}, planned("shop", blocks=True, reasons=["its policy is block"]), "not-ready"),
        ({"rehearsal": last()}, planned("shop"), "ready"),
        ({"rehearsal": last("3.13.5-2", False, finding())}, planned("shop"), "not-ready"),
        ({"rehearsal": last("3.12.1-1")}, planned("shop"), "unknown"),
    ],
)
def test_without_a_rehearsal_the_plan_and_the_last_rehearsal_count(more, decision, expected):
    report = readiness.report([answer("a", [venv("shop", **more)], plan=plan(decision))])
    assert row(report, "shop")["readiness"] == expected


def test_a_venv_that_the_plan_changes_is_not_called_unaffected():
    report = readiness.report([answer("a", [venv("shop")], [], plan=plan(planned("shop")))])
    assert row(report, "shop")["readiness"] == "unknown"


def test_a_host_without_an_answer_is_counted_and_named():
    held = {"by": "alice", "since": "2026-11-29T20:00:00Z", "until": None, "reason": "later", "packages": []}
    report = readiness.report([answer("a", error="unreachable: timeout"), answer("b", plan=plan(hold=held, known=False))])
    assert report["totals"]["hosts_failed"] == 1 and report["totals"]["hosts_held"] == 1
    page = readiness_page.page(report)
    for words in ("unreachable: timeout", "by alice: later", "no recent package lists", "1 host gave no answer"):
        assert words in page


def test_empty_texts_of_ansible_count_as_nothing():
    report = readiness.report([dict(answer("a", [venv("shop")]), error="", plan="", rehearsal="")])
    assert report["totals"]["hosts_failed"] == 0 and report["totals"]["unaffected"] == 1


class Page(HTMLParser):
    """Collects the elements and attributes of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.attributes = []
        self.words = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.words.append(data)


HOSTILE = "<script src=//x>'\"&</td>{{ 7 * 7 }}"


def test_names_from_hosts_are_escaped():
    shop = venv(HOSTILE, path=HOSTILE, state=HOSTILE)
    shop["interpreter"]["version"] = HOSTILE
    found = dict(finding(HOSTILE, HOSTILE, HOSTILE, HOSTILE), detail=HOSTILE)
    decision = planned(HOSTILE, remedy=HOSTILE, reasons=[HOSTILE])
    held = {"by": HOSTILE, "since": HOSTILE, "until": HOSTILE, "reason": HOSTILE}
    answers = [
        answer(HOSTILE, [shop], [dict(tried(HOSTILE, found), version=HOSTILE)], plan=plan(decision, hold=held)),
        answer("b", error=HOSTILE),
    ]
    report = readiness.report(answers, release=HOSTILE, at=HOSTILE)
    hostile = Page(readiness_page.page(report))
    assert hostile.elements.count("script") == 1
    assert not [value for name, value in hostile.attributes if name in ("src", "href")]
    assert HOSTILE in "".join(hostile.words)


def test_the_page_loads_nothing():
    page = readiness_page.page(readiness.report([answer("a", [venv("shop")], [tried("shop", finding())])]))
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)
    assert "default-src &#x27;none&#x27;" in page


def test_the_page_sums_up():
    words = readiness_page.summary(readiness.report([answer("a", [venv("x"), venv("y")], [tried("x")])])["totals"])
    assert words == "The upgrade changes the Python of 1 of 2 virtualenvs. All of them are ready."
    words = readiness_page.summary(readiness.report([answer("a", [venv("x")], [tried("x", finding())])])["totals"])
    assert words == "The upgrade changes the Python of 1 of 1 virtualenv. 1 is not ready, on 1 host."


def test_the_terminal_shows_the_first_that_are_not_ready():
    def lines(number):
        names = ["x%02d" % place for place in range(number)]
        tries = [tried(name, finding()) for name in names]
        answers = [answer("a", map(venv, names), tries), answer("b", [venv("y")], [tried("y")])]
        return readiness_page.in_lines(readiness.report(answers))

    assert lines(0) == ["The upgrade changes the Python of 1 of 1 virtualenv. All of them are ready."]
    one = "a: x00: psycopg2-binary 2.9.5: no file for Python 3.13 (2.9.10 works)"
    assert lines(1)[1:] == [one]
    assert lines(20)[1] == one and len(lines(20)) == 21
    assert lines(22)[21:] == ["The report names 2 more."]


def test_a_venv_names_each_reason_once():
    detail = "ledger==1.2.3: the nearest version with a wheel is 1.3.0"
    obstacle = dict(finding("ledger", "1.2.3", works_from="1.3.0"), detail=detail)
    decision = planned("x", blocks=True, reasons=["its distributions are for 3.11", detail])
    report = readiness.report([answer("a", [venv("x")], [tried("x", obstacle)], plan=plan(decision))])
    assert readiness_page.obstacles(row(report, "x")) == [detail, "its distributions are for 3.11"]


def test_a_finding_repeats_nothing():
    found = finding("ledger", "1.2.3", works_from="1.3.0")
    assert readiness_page.described(found) == "ledger 1.2.3: no file for Python 3.13 (1.3.0 works)"
    found["detail"] = "ledger==1.2.3: the nearest version with a wheel is 1.3.0 (`--relax minor` accepts it)"
    assert readiness_page.described(found) == found["detail"]
    assert readiness_page.described(finding(None, None, "policy", None)) == "no file for Python 3.13"


def test_ten_thousand_venvs_fit_on_a_page():
    names = ["venv%d" % number for number in range(10)]
    answers = [
        answer(
            "host%d" % number,
            [venv(name) for name in names],
            [tried(name, *([finding("dist%d" % (number % 50))] if name == "venv0" else [])) for name in names],
        )
        for number in range(1000)
    ]
    report = readiness.report(answers)
    page = readiness_page.page(report)
    assert report["totals"]["venvs"] == 10000 and report["totals"]["not_ready"] == 1000
    assert page.count("<tr>") == 10000 + 50 + 3
    assert len(page) < 5_000_000
    # A browser takes seconds for a table with thousands of rows.
    assert max(table.count("<tr>") for table in page.split("<table>")) <= 201


def test_the_missing_wheels_are_grouped_by_python_and_architecture():
    rows = [tried("x", finding(), finding("lxml", "4.9.2"), finding("flask", "1", "import"))]
    answers = [answer(host, [venv("x")], rows) for host in ("a", "b", "c")]
    report = readiness.report(answers)
    wanted = readiness.missing_wheels(report, {"a": "x86_64", "b": "aarch64"})
    both = ["lxml==4.9.2", "psycopg2-binary==2.9.5"]
    assert wanted == {"3.13-aarch64": both, "3.13-x86_64": both}


@pytest.mark.parametrize(
    "before, after, is_worse",
    [
        ("healthy", "healthy", False),
        ("healthy", "check-fails", True),
        ("orphaned", "healthy", False),
        ("orphaned", "stranded", True),
        ("missing", "missing", False),
        ("healthy", "a new state", True),
    ],
)
def test_a_venv_that_was_broken_before_is_not_blamed_on_the_upgrade(before, after, is_worse):
    found = readiness.not_as_before([venv("x", state=before)], [venv("x", state=after, reasons=["why"])])
    assert bool(found) == is_worse


def test_a_venv_that_is_no_longer_registered_is_worse():
    assert readiness.not_as_before([venv("x")], [])[0]["after"] == "missing"
