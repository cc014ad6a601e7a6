#!/usr/bin/python
# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: rehearse
short_description: Build and check virtualenvs with the next Python, before it is installed
version_added: 0.1.0
description:
  - Runs C(venvguard rehearse). It fetches the packages of the next Python, builds and checks new trees with them, and
    changes nothing of the installed system.
  - A venv that is not ready is a result, not a failure of the module.
  - Does nothing in check mode.
options:
  venvs:
    description:
      - Names, paths, ids or globs of venvs. All venvs if it is empty.
    type: list
    elements: str
    default: []
  release:
    description:
      - Rehearses the upgrade to this release, for example V(trixie), instead of the pending one.
    type: str
extends_documentation_fragment:
  - venvguard.venvguard.common
"""

EXAMPLES = r"""
- name: Find out which venvs work on trixie, on ten hosts at a time
  venvguard.venvguard.rehearse:
    release: trixie
  register: rehearsal
  throttle: 10

- name: Stop if a venv is not ready
  ansible.builtin.assert:
    that: rehearsal.ready
"""

RETURN = r"""
ready:
  description: Whether every venv that was tried is ready.
  returned: success
  type: bool
changes:
  description: The interpreters that the upgrade changes.
  returned: success
  type: list
  elements: dict
  sample: [{interpreter: /usr/bin/python3, from: 3.11.2-1+b1, to: 3.13.5-1, kind: minor}]
venvs:
  description: The venvs that get another Python, with the fields that venvguard(8) describes under JSON.
  returned: success
  type: list
  elements: dict
  sample:
    - name: shop
      version: 3.13.5
      ready: false
      proof: none
      findings:
        - distribution: psycopg2-binary
          version: 2.9.5
          kind: no-wheel
          detail: no file for Python 3.13
          works_from: 2.9.10
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
    spec = arguments(venvs=dict(type="list", elements="str", default=[]), release=dict(type="str"))
    module = AnsibleModule(argument_spec=spec)
    venvguard = Venvguard(module)
    words = ["--release", module.params["release"]] if module.params["release"] else []
    words += ["--"] + module.params["venvs"] if module.params["venvs"] else []
    status, found = venvguard.ask("rehearse", *words, expect=(DONE, ATTENTION))
    venvs = found["venvs"]
    ready = all(venv["ready"] for venv in venvs)
    if status == ATTENTION and ready:
        # apt has no package lists.
        module.fail_json(msg="nothing was rehearsed: " + " ".join(venvguard.messages), messages=venvguard.messages)
    module.exit_json(
        # The trees that were built wait beside their venvs.
        changed=any(venv["proof"] == "rehearsed" for venv in venvs),
        ready=ready,
        changes=found["changes"],
        venvs=venvs,
        messages=venvguard.messages,
    )


if __name__ == "__main__":
    main()
