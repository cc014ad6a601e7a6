# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
from ansible_collections.venvguard.venvguard.plugins.module_utils import venvguard
from ansible_collections.venvguard.venvguard.plugins.modules import venv_info


@pytest.mark.parametrize(
    "status, words",
    [
        (1, "failed: error: no"),
        (2, "older than this collection"),
        (3, "needs attention"),
        (10, "blocks the transaction"),
        (77, "exit status 77"),
        (-9, "signal 9"),
    ],
)
def test_each_exit_status_has_its_words(status, words):
    assert words in venvguard.why(status, "error: no\n", "status")


def test_long_messages_are_cut_between_lines():
    text = "".join("line %d\n" % number for number in range(2000))
    kept = venvguard.last_messages(text)
    assert len(kept) <= venvguard.MESSAGES_LIMIT
    assert kept.startswith("line ") and kept.endswith("line 1999")


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"schema_version": "1"}', '{"schema_version": 2}'])
def test_an_unknown_answer_is_refused(text):
    with pytest.raises(venvguard.VenvguardError):
        venvguard.parsed(text, "list")


def test_a_known_answer_is_accepted():
    assert venvguard.parsed('{"schema_version": 1, "venvs": []}', "list")["venvs"] == []


def test_a_module_reports_what_venvguard_said(machine):
    machine.answers("list", status=1, stderr="error: the registry is damaged\nhint: restore it\n")
    answer = machine.run(venv_info)
    assert answer["failed"] and answer["exit_status"] == 1
    assert "the registry is damaged" in answer["msg"]
    assert answer["messages"] == ["error: the registry is damaged", "hint: restore it"]


def test_a_missing_program_is_named(machine):
    machine.program.unlink()
    answer = machine.run(venv_info)
    assert answer["failed"] and "not installed" in answer["msg"]


def test_a_machine_without_venvs_is_not_asked_to_show_them(machine):
    machine.answers("list", {"venvs": []})
    assert machine.run(venv_info)["venvs"] == []
    assert machine.calls() == ["list --json"]
