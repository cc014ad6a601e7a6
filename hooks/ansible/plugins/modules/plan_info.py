#!/usr/bin/python
# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: plan_info
short_description: Report what the pending upgrade does to the virtualenvs
version_added: 0.1.0
description:
  - Reports what C(venvguard plan --json) prints, and the hold on Python.
options:
  from:
    description:
      - A file on the host with a list in the format of apt's hooks (version 3).
      - Without it, venvguard asks apt what C(dist-upgrade) would do.
    type: path
extends_documentation_fragment:
  - venvguard.venvguard.common
"""

EXAMPLES = r"""
- name: Ask what the pending upgrade does
  venvguard.venvguard.plan_info:
  register: pending

- name: Upgrade unless a venv blocks that
  ansible.builtin.apt:
    upgrade: full
  when: pending.verdict != 'block'
"""

RETURN = r"""
changes:
  description: The interpreters that change.
  returned: success
  type: list
  elements: dict
  sample: [{interpreter: /usr/bin/python3, from: 3.11.2-1+b1, to: 3.13.5-1, kind: minor}]
venvs:
  description: What happens to each venv, with the fields that venvguard(8) describes under JSON.
  returned: success
  type: list
  elements: dict
  sample: [{name: shop, effect: orphaned, remedy: rebuild, ready: true, blocks: false, reasons: []}]
verdict:
  description: Whether the upgrade is allowed as it is, with repairs, or is blocked.
  returned: success
  type: str
  sample: repair
known:
  description:
    - Whether apt knows what is pending. If not, run C(apt update); RV(messages) says more.
  returned: success
  type: bool
hold:
  description: The hold on Python, which hides upgrades of Python from apt. Null if there is none.
  returned: success
  type: dict
  sample: {by: alice, since: "2026-11-29T20:00:00Z", until: null, reason: shop is not ready, packages: [python3-minimal]}
messages:
  description: What venvguard wrote to standard error.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.venvguard.venvguard.plugins.module_utils.venvguard import (
    ATTENTION,
    DONE,
    Venvguard,
    arguments,
)


def main():
    module = AnsibleModule(argument_spec=arguments(**{"from": dict(type="path")}), supports_check_mode=True)
    venvguard = Venvguard(module)
    words = ["--from", module.params["from"]] if module.params["from"] else []
    status, plan = venvguard.ask("plan", *words, expect=(DONE, ATTENTION))
    hold = venvguard.ask("unhold", "--dry-run")[1]["before"]
    module.exit_json(
        changed=False,
        changes=plan["changes"],
        venvs=plan["venvs"],
        verdict=plan["verdict"],
        # A plan with changes needs attention for another reason: a venv is not ready.
        known=status == DONE or bool(plan["changes"]),
        hold=hold,
        messages=venvguard.messages,
    )


if __name__ == "__main__":
    main()
