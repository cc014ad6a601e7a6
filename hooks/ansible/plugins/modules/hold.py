#!/usr/bin/python
# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: hold
short_description: Keep apt from upgrading Python for a while
version_added: 0.1.0
description:
  - Runs C(venvguard hold) and C(venvguard unhold). A hold also holds security updates of Python.
  - Supports check mode and diff mode.
options:
  state:
    description:
      - Whether Python is held.
    type: str
    choices: [present, absent]
    default: present
  for:
    description:
      - How long, for example V(14d) or V(36h). Without it, until O(state=absent).
      - The time begins when the hold begins. A hold with the same time and reason is left as it is.
    type: str
  reason:
    description:
      - Why, for those who read it later.
    type: str
  overwrite:
    description:
      - Whether a hold with another reason is replaced or ended. If not, it is left as it is.
    type: bool
    default: true
extends_documentation_fragment:
  - venvguard.venvguard.common
"""

EXAMPLES = r"""
- name: Keep Python for two weeks
  venvguard.venvguard.hold:
    for: 14d
    reason: shop is not ready for Python 3.13

- name: Let apt upgrade Python again
  venvguard.venvguard.hold:
    state: absent

- name: End only our own hold
  venvguard.venvguard.hold:
    state: absent
    reason: upgrade in waves
    overwrite: false
"""

RETURN = r"""
hold:
  description: The hold after the task, or null.
  returned: success
  type: dict
  sample: {by: alice, since: "2026-11-29T20:00:00Z", until: null, reason: shop is not ready, packages: [python3-minimal]}
other:
  description: Whether a hold with another reason was left as it is.
  returned: success
  type: bool
"""

from datetime import datetime

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.venvguard.venvguard.plugins.module_utils.venvguard import Venvguard, arguments


def length(hold):
    """How many seconds a hold lasts from its beginning, or None if it has no end."""
    if hold["until"] is None:
        return None

    def time(text):
        return datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")

    return round((time(hold["until"]) - time(hold["since"])).total_seconds())


def is_same(before, after):
    """Whether a hold is already what was asked for. Its time began earlier."""
    if before is None or after is None:
        return before is after
    return (
        before["packages"] == after["packages"]
        and before["reason"] == after["reason"]
        and length(before) == length(after)
    )


def is_others(before, reason):
    """Whether there is a hold with another reason."""
    return before is not None and before["reason"] != reason


def facts(hold):
    """What a diff shows of a hold."""
    return {} if hold is None else {name: hold[name] for name in ("packages", "reason", "until")}


def main():
    spec = arguments(
        state=dict(type="str", choices=["present", "absent"], default="present"),
        reason=dict(type="str"),
        overwrite=dict(type="bool", default=True),
        **{"for": dict(type="str")}
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    params = module.params
    if params["reason"] is not None:
        # As venvguard stores it.
        params["reason"] = " ".join(params["reason"].split())
    venvguard = Venvguard(module)
    words = []
    if params["state"] == "present":
        command = "hold"
        words += ["--for=" + params["for"]] if params["for"] is not None else []
        words += ["--reason=" + params["reason"]] if params["reason"] is not None else []
    else:
        command = "unhold"
    change = venvguard.ask(command, "--dry-run", *words)[1]
    before, after = change["before"], change["after"]
    reason = params["reason"] if after is None else after["reason"]
    if not params["overwrite"] and is_others(before, reason):
        module.exit_json(changed=False, hold=before, other=True)
    if is_same(before, after):
        module.exit_json(changed=False, hold=before, other=False)
    if not module.check_mode:
        venvguard.run(command, *words)
        after = venvguard.ask("unhold", "--dry-run")[1]["before"]
    diff = dict(before=facts(before), after=facts(after))
    module.exit_json(changed=True, hold=after, other=False, diff=diff)


if __name__ == "__main__":
    main()
