# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0
"""Computes from the answers of hosts which venvs are ready for an upgrade, and what blocks the others.

Pure functions: values in, values out. An answer is what the playbook `readiness` collects from one host:
{"host", "error": TEXT or None, "venvs": as venv_info, "plan": as plan_info or None, "rehearsal": as rehearse or None}.
"""

from __future__ import annotations

import re

SCHEMA = 1

READY = "ready"
NOT_READY = "not-ready"
# The upgrade does not change the venv's Python.
UNAFFECTED = "unaffected"
# Nobody has tried it.
UNKNOWN = "unknown"

# Venvs that need somebody's attention come first.
ORDER = (NOT_READY, UNKNOWN, READY, UNAFFECTED)

# In place of the distribution, if the venv itself is in the way.
THE_VENV = ""


def report(answers, release=None, at=None):
    """The report about all hosts."""
    answers = sorted(answers, key=lambda answer: natural(answer["host"]))
    rows = [row for answer in answers for row in rows_of(answer)]
    blockers = blockers_of(rows)
    rank = {blocker["distribution"]: place for place, blocker in enumerate(blockers)}
    rows.sort(key=lambda row: place_of(row, rank))
    hosts = [host_of(answer) for answer in answers]
    return {
        "schema_version": SCHEMA,
        "at": at,
        "release": release,
        "totals": totals_of(hosts, rows),
        "blockers": blockers,
        "venvs": rows,
        "hosts": hosts,
    }


def rows_of(answer):
    """The venvs of a host, as much as is known about them."""
    plan = answer.get("plan") or {}
    rehearsal = answer.get("rehearsal") or None
    planned = {venv["id"]: venv for venv in plan.get("venvs") or []}
    tried = None if rehearsal is None else {venv["id"]: venv for venv in rehearsal["venvs"]}
    changes = (rehearsal or plan).get("changes") or []
    return [
        row_of(answer["host"], venv, planned.get(venv["id"]), tried, changes) for venv in answer.get("venvs") or []
    ]


def row_of(host, venv, decision, tried, changes):
    """A venv: what it is now, what the upgrade does to it, and whether it works afterwards."""
    decision = decision or {}
    readiness, proof, to, findings = judge(venv, decision, tried, changes)
    interpreter = venv.get("interpreter") or {}
    return {
        "host": host,
        "name": venv["name"],
        "path": venv["path"],
        "state": venv["state"],
        "policy": venv["policy"],
        "services": ["%s:%s" % (one["manager"], one["name"]) for one in venv.get("services") or []],
        "python": interpreter.get("version"),
        "python_after": to,
        "readiness": readiness,
        "proof": proof,
        "remedy": decision.get("remedy"),
        "blocks": bool(decision.get("blocks")),
        "reasons": list(decision.get("reasons") or []),
        "findings": [finding_of(finding) for finding in findings],
    }


def judge(venv, decision, tried, changes):
    """The readiness of a venv, its proof, the next version, and what was found.

    A rehearsal tries the venvs that get another Python; the others are not affected, unless the plan knows better.
    """
    result = (tried or {}).get(venv["id"])
    if result is not None:
        return said(result), result["proof"], result["version"], result["findings"]
    if decision.get("effect", "none") == "none":
        return UNAFFECTED, None, None, []
    to = upstream(decision, changes)
    last = venv.get("rehearsal")
    if last and is_about(last, changes):
        return said(last), last["proof"], upstream_of(last["package_version"]), last["findings"]
    if decision.get("blocks"):
        why = "; ".join(decision.get("reasons") or [])
        return NOT_READY, None, to, [{"kind": "policy", "detail": why}]
    return UNKNOWN, None, to, []


def said(result):
    return READY if result["ready"] else NOT_READY


def is_about(last, changes):
    """Whether the last rehearsal tried an interpreter that the upgrade installs."""
    return any(change["to"] == last["package_version"] for change in changes)


def upstream(decision, changes):
    """The version that a venv gets, if the plan names its minor version."""
    minor = (decision.get("target") or {}).get("python")
    versions = [upstream_of(change["to"]) for change in changes if change["to"]]
    if minor is None or decision.get("remedy") == "pin":
        return None
    return next((version for version in versions if version.split(".")[:2] == minor.split(".")), minor)


def upstream_of(version):
    """The upstream version in a Debian version."""
    return version.partition(":")[2].partition("-")[0] if ":" in version else version.partition("-")[0]


def finding_of(finding):
    """A finding with all its fields."""
    names = ("distribution", "version", "kind", "detail", "works_from")
    return {name: finding.get(name) for name in names}


def blockers_of(rows):
    """What is in the way of how many venvs, the most frequent first."""
    found = {}
    for row in rows:
        seen = set()
        for finding in row["findings"]:
            name = finding["distribution"] or THE_VENV
            blocker = found.setdefault(name, {"venvs": 0, "hosts": set(), "kinds": set(), "needs": {}, "details": {}})
            if name not in seen:
                seen.add(name)
                blocker["venvs"] += 1
            blocker["hosts"].add(row["host"])
            blocker["kinds"].add(finding["kind"])
            need = (finding["version"], finding["works_from"])
            blocker["needs"][need] = blocker["needs"].get(need, 0) + 1
            blocker["details"][finding["detail"]] = blocker["details"].get(finding["detail"], 0) + 1
    blockers = [blocker_of(name, blocker) for name, blocker in found.items()]
    return sorted(blockers, key=lambda one: (-one["venvs"], -one["hosts"], one["distribution"]))


def blocker_of(name, found):
    versions = [
        {"version": version, "works_from": works_from, "count": count}
        for (version, works_from), count in most(found["needs"])
    ]
    return {
        "distribution": name,
        "venvs": found["venvs"],
        "hosts": len(found["hosts"]),
        "kinds": sorted(found["kinds"]),
        "versions": versions,
        "example": most(found["details"])[0][0],
    }


def most(counts):
    """The entries of a count, the most frequent first."""
    return sorted(counts.items(), key=lambda entry: (-entry[1], str(entry[0])))


def place_of(row, rank):
    """Where a venv belongs: by the worst thing in its way, then by host and name."""
    ranks = [rank[finding["distribution"] or THE_VENV] for finding in row["findings"]]
    return ORDER.index(row["readiness"]), min(ranks, default=0), natural(row["host"]), natural(row["name"])


def natural(name):
    """A key by which web3 precedes web13."""
    parts = re.split("([0-9]+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def host_of(answer):
    """A host: whether it answered, and what the upgrade changes there."""
    plan = answer.get("plan") or {}
    rehearsal = answer.get("rehearsal") or {}
    return {
        "host": answer["host"],
        "error": answer.get("error") or None,
        "venvs": len(answer.get("venvs") or []),
        "verdict": plan.get("verdict"),
        "known": plan.get("known", True),
        "hold": plan.get("hold"),
        "changes": rehearsal.get("changes") or plan.get("changes") or [],
    }


def totals_of(hosts, rows):
    counts = {name: sum(row["readiness"] == name for row in rows) for name in ORDER}
    return {
        "hosts": len(hosts),
        "hosts_failed": sum(host["error"] is not None for host in hosts),
        "hosts_held": sum(host["hold"] is not None for host in hosts),
        "hosts_unknown": sum(not host["known"] for host in hosts),
        "hosts_not_ready": len({row["host"] for row in rows if row["readiness"] == NOT_READY}),
        "venvs": len(rows),
        "ready": counts[READY],
        "not_ready": counts[NOT_READY],
        "unaffected": counts[UNAFFECTED],
        "unknown": counts[UNKNOWN],
        "blocks": sum(row["blocks"] for row in rows),
    }


def missing_wheels(found, hosts):
    """What a build host has to build: {"3.13-x86_64": ["psycopg2-binary==2.9.5"]}.

    `hosts` has the architecture of each host by its name.
    """
    wanted = {}
    for row in found["venvs"]:
        architecture = hosts.get(row["host"])
        if architecture is None or not row["python_after"]:
            continue
        minor = ".".join(row["python_after"].split(".")[:2])
        for finding in row["findings"]:
            if finding["kind"] == "no-wheel" and finding["distribution"] and finding["version"]:
                requirement = "%s==%s" % (finding["distribution"], finding["version"])
                wanted.setdefault("%s-%s" % (minor, architecture), set()).add(requirement)
    return {name: sorted(requirements) for name, requirements in sorted(wanted.items())}


# From the best state to the worst, as in venvguard(8).
STATES = (
    "healthy",
    "check-fails",
    "restart-needed",
    "stale",
    "orphaned",
    "stranded",
    "unfinished",
    "broken",
    "missing",
)


def not_as_before(before, after):
    """The venvs that are worse than before an upgrade, each with its states and the reasons."""
    now = {venv["id"]: venv for venv in after}
    worse = []
    for venv in before:
        found = now.get(venv["id"], {"state": "missing", "reasons": ["it is no longer registered"]})
        if severity(found["state"]) > severity(venv["state"]):
            worse.append(
                {
                    "name": venv["name"],
                    "path": venv["path"],
                    "before": venv["state"],
                    "after": found["state"],
                    "reasons": list(found["reasons"]),
                }
            )
    return worse


def severity(state):
    """A state that this collection does not know counts as the worst."""
    return STATES.index(state) if state in STATES else len(STATES)
