# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
from ansible_collections.venvguard.venvguard.plugins.modules import venv

SHOP = {
    "id": "0a1b",
    "name": "shop",
    "path": "/srv/shop/venv",
    "policy": "auto",
    "services": [{"manager": "systemd", "name": "shop.service"}, {"manager": "runit", "name": "cache"}],
    "check": ["/usr/bin/curl", "--fail", "http://u:****@localhost/"],
    "requirements": None,
    "lock": "/srv/shop/uv.lock",
    "build_command": ["/bin/sh", "/srv/shop/build me"],
    "relax": None,
    "restart": None,
    "window": None,
    "rolling": None,
    "probe": True,
    "declared_in": None,
}


def shown(**settings):
    return dict(SHOP, **settings)


def known(machine, found):
    venvs = [] if found is None else [found]
    machine.answers("list", {"venvs": venvs})
    machine.answers("show", {"venvs": venvs})
    machine.answers("register", "")
    machine.answers("unregister", "")


def nothing(**settings):
    names = venv.WORDS + ("services",)
    return dict(dict.fromkeys(names), **settings)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"policy": "auto", "name": "shop", "relax": "", "restart": "", "window": "", "requirements": ""},
        {"services": ["runit:cache", "systemd:shop.service"]},
        {"check": "curl --fail http://u:secret@localhost/"},
        {"check": "/usr/bin/curl '--fail' http://u:other@localhost/"},
        {"lock": "/srv/../srv/shop/uv.lock"},
        {"probe": "true"},
        {"build_command": "sh '/srv/shop/build me'"},
    ],
)
def test_the_same_settings_are_no_change(wanted):
    assert venv.changes(venv.settings(SHOP), nothing(**wanted)) == {}


@pytest.mark.parametrize(
    "wanted",
    [
        {"policy": "pin"},
        {"services": []},
        {"services": ["systemd:shop.service"]},
        {"check": ""},
        {"check": "/opt/curl --fail http://u:secret@localhost/"},
        {"check": "curl --fail http://u:secret@elsewhere/"},
        {"check": "curl --fail 'http://u:secret@localhost/"},
        {"lock": ""},
        {"requirements": "/srv/shop/requirements.txt"},
        {"relax": "minor"},
        {"probe": "false"},
        {"probe": ""},
        {"build_command": ""},
        {"build_command": "/bin/sh /srv/shop/build"},
    ],
)
def test_another_setting_is_a_change(wanted):
    assert venv.changes(venv.settings(SHOP), nothing(**wanted)) == wanted


def test_an_empty_list_of_services_clears_them():
    assert venv.words_of({"services": []}) == ["--service="]
    assert venv.words_of({"services": ["runit:a", "runit:b"]}) == ["--service=runit:a", "--service=runit:b"]
    assert venv.words_of({"check": ""}) == ["--check="]
    assert venv.words_of({"build_command": "make"}) == ["--build-command=make"]


def test_a_new_venv_is_registered_with_its_settings(machine):
    known(machine, None)
    answer = machine.run(venv, path="/srv/shop/venv", policy="pin", name="shop")
    assert answer["changed"] and not answer["failed"]
    assert "register --name=shop --policy=pin -- /srv/shop/venv" in machine.calls()


def test_check_mode_registers_nothing(machine):
    known(machine, SHOP)
    answer = machine.run(venv, check=True, path="/srv/shop/venv", policy="pin")
    assert answer["changed"]
    assert answer["diff"]["before"]["policy"] == "auto" and answer["diff"]["after"]["policy"] == "pin"
    assert machine.calls() == ["list --json", "show --json -- 0a1b"]


def test_only_what_differs_is_registered(machine):
    known(machine, SHOP)
    machine.run(venv, path="/srv/shop/venv", policy="pin", lock="/srv/shop/uv.lock")
    assert "register --policy=pin -- /srv/shop/venv" in machine.calls()


def test_a_check_that_fails_is_a_warning(machine, monkeypatch):
    known(machine, SHOP)
    machine.answers("register", "", status=3, stderr="note: shop: its check fails now\n")
    warnings = []
    monkeypatch.setattr(venv.AnsibleModule, "warn", lambda module, text: warnings.append(text))
    answer = machine.run(venv, path="/srv/shop/venv", policy="pin")
    assert answer["changed"] and answer["check_fails"] and len(warnings) == 1


def test_a_venv_is_unregistered_by_its_id(machine):
    known(machine, SHOP)
    assert machine.run(venv, path="/srv/shop/venv", state="absent")["changed"]
    assert machine.calls()[-1] == "unregister -- 0a1b"


def test_a_venv_that_is_not_registered_stays_so(machine):
    known(machine, None)
    assert not machine.run(venv, path="/srv/shop/venv", state="absent")["changed"]
    assert machine.calls() == ["list --json"]


def test_a_declared_venv_is_not_unregistered(machine):
    known(machine, shown(declared_in="/etc/venvguard/venvs.d/shop.toml"))
    answer = machine.run(venv, check=True, path="/srv/shop/venv", state="absent")
    assert answer["failed"] and "/etc/venvguard/venvs.d/shop.toml" in answer["msg"]
