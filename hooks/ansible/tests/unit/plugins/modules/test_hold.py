# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from ansible_collections.venvguard.venvguard.plugins.modules import hold


def held(since="2026-11-29T20:00:00.5Z", until="2026-11-29T22:00:00.5Z", reason="shop", packages=("python3-minimal",)):
    return {"by": "alice", "since": since, "until": until, "reason": reason, "packages": list(packages)}


def test_a_hold_that_began_earlier_is_the_same():
    assert hold.is_same(held(), held("2026-11-29T20:30:00.7Z", "2026-11-29T22:30:00.7Z"))
    assert hold.is_same(held(until=None), held("2026-11-30T20:30:00Z", None))
    assert hold.is_same(None, None)


def test_another_time_reason_or_package_is_another_hold():
    for other in (held(until=None), held(until="2026-11-29T23:00:00.5Z"), held(reason=None), held(packages=["x"]), None):
        assert not hold.is_same(held(), other)


def test_a_hold_is_written_once(machine):
    machine.answers("hold-dry-run", {"before": None, "after": held()})
    machine.answers("unhold-dry-run", {"before": held(), "after": None})
    machine.answers("hold", "")
    answer = machine.run(hold, reason=" shop\n", **{"for": "2h"})
    assert answer["changed"] and answer["hold"] == held()
    assert "hold --for=2h --reason=shop" in machine.calls()
    machine.answers("hold-dry-run", {"before": held(), "after": held()})
    assert not machine.run(hold, reason="shop", **{"for": "2h"})["changed"]


def test_check_mode_writes_no_hold(machine):
    machine.answers("hold-dry-run", {"before": None, "after": held()})
    assert machine.run(hold, check=True, reason="shop")["changed"]
    assert machine.calls() == ["hold --json --dry-run --reason=shop"]


def test_the_hold_of_somebody_else_is_left(machine):
    machine.answers("unhold-dry-run", {"before": held(reason="mine"), "after": None})
    answer = machine.run(hold, state="absent", reason="ours", overwrite=False)
    assert not answer["changed"] and answer["other"]
    answer = machine.run(hold, check=True, state="absent", reason="mine", overwrite=False)
    assert answer["changed"]
