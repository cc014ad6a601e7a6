# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0
"""The modules that ask about an upgrade, and the one that rebuilds."""

from __future__ import annotations

import pytest
from ansible_collections.venvguard.venvguard.plugins.modules import plan_info, rebuild, rehearse


# Exit status 3 also means that a venv is not ready.
@pytest.mark.parametrize(
    "status, verdict, changes, known",
    [
        (0, "allow", [], True),
        (0, "repair", [{"kind": "minor"}], True),
        (3, "repair", [{"kind": "minor"}], True),
        (3, "block", [{"kind": "minor"}], True),
        (3, "allow", [], False),
    ],
)
def test_a_plan_without_package_lists_is_not_known(machine, status, verdict, changes, known):
    machine.answers("plan", {"changes": changes, "venvs": [], "verdict": verdict}, status=status)
    machine.answers("unhold-dry-run", {"before": None, "after": None})
    answer = machine.run(plan_info)
    assert not answer["failed"] and answer["known"] == known


def test_a_venv_that_is_not_ready_is_a_result(machine):
    venvs = [{"ready": False, "proof": "none"}, {"ready": True, "proof": "rehearsed"}]
    machine.answers("rehearse", {"changes": [], "venvs": venvs}, status=3)
    answer = machine.run(rehearse, release="trixie", venvs=["shop"])
    assert not answer["failed"] and not answer["ready"] and answer["changed"]
    assert machine.calls() == ["rehearse --json --release trixie -- shop"]


def test_a_rehearsal_without_package_lists_fails(machine):
    machine.answers("rehearse", {"changes": [], "venvs": []}, status=3, stderr="error: apt has no package lists\n")
    answer = machine.run(rehearse)
    assert answer["failed"] and "apt has no package lists" in answer["msg"]


def venv(state="healthy", version="3.11.2"):
    return {"id": "0a1b", "name": "shop", "state": state, "interpreter": {"version": version}}


@pytest.mark.parametrize(
    "found, python, needed",
    [
        (venv(), None, False),
        (venv("orphaned"), None, True),
        (venv(), "3.11", False),
        (venv(), "3.13", True),
        (venv(version=None), "3.1", True),
        ({"state": "missing", "interpreter": None}, None, True),
    ],
)
def test_a_venv_is_rebuilt_only_if_it_needs_that(found, python, needed):
    assert rebuild.needs_rebuild(found, python) == needed


DECISION = {"name": "shop", "remedy": "rebuild", "target": {"python": "3.13"}}


def test_a_rebuild_is_proposed_first(machine):
    machine.answers("status", {"venvs": [venv("orphaned")]}, status=3)
    machine.answers("rebuild-dry-run", {"venvs": [DECISION]})
    machine.answers("rebuild", "")
    answer = machine.run(rebuild, check=True, venvs=["shop"], relax="minor")
    assert answer["changed"] and answer["diff"]["after"] == "shop: rebuild for Python 3.13\n"
    assert machine.calls()[1:] == ["rebuild --json --dry-run --relax minor -- 0a1b"]
    assert machine.run(rebuild, venvs=["shop"])["changed"]
    assert machine.calls()[-1] == "rebuild -- 0a1b"


def test_a_healthy_venv_is_left_alone(machine):
    machine.answers("status", {"venvs": [venv()]})
    assert not machine.run(rebuild, venvs=["shop"])["changed"]
    assert machine.calls() == ["status --json -- shop"]


def test_a_venv_that_was_not_repaired_is_a_failure(machine):
    machine.answers("rebuild-dry-run", {"venvs": [DECISION]})
    machine.answers("rebuild", "", status=3, stderr="shop was not rebuilt\n")
    answer = machine.run(rebuild, all=True)
    assert answer["failed"] and answer["exit_status"] == 3 and "shop was not rebuilt" in answer["msg"]


def test_names_and_all_exclude_each_other(machine):
    assert machine.run(rebuild, venvs=["shop"], all=True)["failed"]
