#!/usr/bin/python
# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: venv
short_description: Register a virtualenv with venvguard
version_added: 0.1.0
description:
  - Registers a venv, changes its settings, or unregisters it. Nothing in the venv changes.
  - A setting that is omitted stays as it is; an empty one is cleared.
  - Supports check mode and diff mode.
options:
  path:
    description:
      - The directory of the venv.
    type: path
    required: true
  state:
    description:
      - Whether the venv is registered.
    type: str
    choices: [registered, absent]
    default: registered
  name:
    description:
      - The name of the venv. At registration, the default is derived from the path.
    type: str
  policy:
    description:
      - What to do when the interpreter changes.
    type: str
    choices: [auto, block, rebuild, pin, warn, ignore]
  services:
    description:
      - The services that run from the venv, as V(systemd:UNIT), V(supervisord:PROGRAM), V(runit:NAME), V(s6:NAME) or
        V(user:UNIT).
      - An empty list makes venvguard discover them at each upgrade, which is also the default.
    type: list
    elements: str
  check:
    description:
      - A command that exits 0 if the application works, or an address that must answer, such as
        V(http://localhost:8000/health). It runs as the owner of the venv, without a shell.
      - venvguard masks a password in a URL wherever it prints it, so a check that differs only in a password counts
        as the same.
    type: str
  restart:
    description:
      - Whether the running services are restarted automatically.
    type: str
    choices: [now, list, window, never, '']
  window:
    description:
      - When the services of a venv with O(restart=window) may be restarted, for example V(Sat 03:00..05:00).
    type: str
  rolling:
    description:
      - The pause between services of one kind, which then restart one after another, for example V(10s).
    type: str
  probe:
    description:
      - Whether a service without a check is asked for V(/) over HTTP before and after a repair.
    type: str
    choices: ['true', 'false', '']
  requirements:
    description:
      - A requirements file on the host that a rebuild installs.
    type: path
  lock:
    description:
      - A lock file on the host whose versions and hashes a rebuild installs.
    type: path
  build_command:
    description:
      - A command that fills a rebuilt venv. It runs as the owner of the venv, without a shell.
    type: str
  relax:
    description:
      - How far a distribution may move if its version has no file for a new Python.
    type: str
    choices: [patch, minor, major, '']
extends_documentation_fragment:
  - venvguard.venvguard.common
"""

EXAMPLES = r"""
- name: Guard the venv of the shop
  venvguard.venvguard.venv:
    path: /srv/shop/venv
    name: shop
    services: [systemd:shop.service]
    check: curl --fail --silent http://localhost:8000/health

- name: Let venvguard find the services again
  venvguard.venvguard.venv:
    path: /srv/shop/venv
    services: []

- name: Stop guarding a venv
  venvguard.venvguard.venv:
    path: /srv/shop/venv
    state: absent
"""

RETURN = r"""
venv:
  description: The venv after the task, with the fields that venvguard(8) describes under JSON. Null if it is not registered.
  returned: success
  type: dict
  sample: {id: 0a1b2c3d, name: shop, path: /srv/shop/venv, policy: auto, state: healthy}
check_fails:
  description: Whether a check that the task set fails now; RV(messages) says why.
  returned: success
  type: bool
messages:
  description: What venvguard wrote to standard error.
  returned: success
  type: list
  elements: str
"""

import os
import re
import shlex

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.venvguard.venvguard.plugins.module_utils.venvguard import (
    ATTENTION,
    DONE,
    Venvguard,
    arguments,
)

WORDS = (
    "name",
    "policy",
    "check",
    "restart",
    "window",
    "rolling",
    "probe",
    "requirements",
    "lock",
    "build_command",
    "relax",
)

# What venvguard prints in place of a password.
MASK = "****"


def settings(venv):
    """The settings of a venv, as `show` reports it, in the form of the module's options."""
    if venv is None:
        return {}
    services = ["%s:%s" % (service["manager"], service["name"]) for service in venv["services"]]
    commands = {name: " ".join(map(shlex.quote, venv[name])) for name in ("check", "build_command")}
    texts = {name: venv[name] or "" for name in ("restart", "window", "rolling", "requirements", "lock", "relax")}
    probe = "" if venv["probe"] is None else str(venv["probe"]).lower()
    return dict(texts, name=venv["name"], policy=venv["policy"], services=sorted(services), probe=probe, **commands)


def is_word(shown, wanted):
    """Whether venvguard prints this word of a command for that one: it masks passwords."""
    pattern = ".*".join(re.escape(part) for part in shown.split(MASK))
    return re.fullmatch(pattern, wanted, re.DOTALL) is not None


def is_command(shown, wanted):
    """Whether a command is the one that is wanted. venvguard stores its program by its path."""
    try:
        shown, wanted = shlex.split(shown), shlex.split(wanted)
    except ValueError:
        # venvguard explains what is wrong with it.
        return False
    if shown and wanted and "/" not in wanted[0]:
        shown[0] = os.path.basename(shown[0])
    return len(shown) == len(wanted) and all(map(is_word, shown, wanted))


def is_file(shown, wanted):
    """Whether a file is the one that is wanted. venvguard stores its real path."""
    return shown == (os.path.realpath(wanted) if wanted else "")


def changes(now, params):
    """The options whose settings differ from what is wanted."""
    same = dict(
        services=lambda shown, wanted: shown == sorted(wanted),
        check=is_command,
        build_command=is_command,
        requirements=is_file,
        lock=is_file,
    )
    wanted = {option: params[option] for option in WORDS + ("services",) if params[option] is not None}
    return {
        option: value
        for option, value in wanted.items()
        if option not in now or not same.get(option, lambda shown, wanted: shown == wanted)(now[option], value)
    }


def words_of(changed):
    """The arguments of `venvguard register` for some settings."""
    # The order of the options is that of the documentation, so that it does not vary.
    words = ["--%s=%s" % (option.replace("_", "-"), changed[option]) for option in WORDS if option in changed]
    if "services" in changed:
        words += ["--service=%s" % service for service in changed["services"] or [""]]
    return words


def found(venvguard, path):
    """The venv at a path, as `show` reports it, or None."""
    real = os.path.realpath(path)
    for venv in venvguard.ask("list")[1]["venvs"]:
        if venv["path"] in (path, real):
            return venvguard.ask("show", "--", venv["id"])[1]["venvs"][0]
    return None


def register(module, venvguard, venv):
    now = settings(venv)
    changed = changes(now, module.params)
    if venv is not None and not changed:
        module.exit_json(changed=False, venv=venv, check_fails=False, messages=venvguard.messages)
    diff = dict(before=now, after=dict(now, **changed))
    check_fails = False
    if not module.check_mode:
        path = module.params["path"]
        status = venvguard.run("register", *words_of(changed), "--", path, expect=(DONE, ATTENTION))[0]
        check_fails = status == ATTENTION
        venv = found(venvguard, path)
        diff["after"] = settings(venv)
        if check_fails:
            module.warn("the check of %s fails now: while it does, it cannot detect that an upgrade breaks it" % path)
    module.exit_json(changed=True, venv=venv, check_fails=check_fails, diff=diff, messages=venvguard.messages)


def unregister(module, venvguard, venv):
    if venv is None:
        module.exit_json(changed=False, venv=None, check_fails=False, messages=venvguard.messages)
    if venv["declared_in"]:
        module.fail_json(msg="%s is declared in %s; remove it there" % (venv["name"], venv["declared_in"]))
    if not module.check_mode:
        venvguard.run("unregister", "--", venv["id"])
    diff = dict(before=settings(venv), after={})
    module.exit_json(changed=True, venv=None, check_fails=False, diff=diff, messages=venvguard.messages)


def main():
    spec = arguments(
        path=dict(type="path", required=True),
        state=dict(type="str", choices=["registered", "absent"], default="registered"),
        name=dict(type="str"),
        policy=dict(type="str", choices=["auto", "block", "rebuild", "pin", "warn", "ignore"]),
        services=dict(type="list", elements="str"),
        check=dict(type="str"),
        restart=dict(type="str", choices=["now", "list", "window", "never", ""]),
        window=dict(type="str"),
        rolling=dict(type="str"),
        probe=dict(type="str", choices=["true", "false", ""]),
        requirements=dict(type="path"),
        lock=dict(type="path"),
        build_command=dict(type="str"),
        relax=dict(type="str", choices=["patch", "minor", "major", ""]),
    )
    module = AnsibleModule(
        argument_spec=spec,
        supports_check_mode=True,
        mutually_exclusive=[("requirements", "lock", "build_command")],
    )
    venvguard = Venvguard(module)
    venv = found(venvguard, module.params["path"])
    act = register if module.params["state"] == "registered" else unregister
    act(module, venvguard, venv)


if __name__ == "__main__":
    main()
