#!/usr/bin/python
# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: venv_info
short_description: Report the registered virtualenvs and their states
version_added: 0.1.0
description:
  - Reports what C(venvguard show --json) prints.
options:
  venvs:
    description:
      - Names, paths, ids or globs of venvs. All venvs if it is empty.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - venvguard.venvguard.common
"""

EXAMPLES = r"""
- name: Look at all venvs
  venvguard.venvguard.venv_info:
  register: guarded

- name: Name the venvs that are not healthy
  ansible.builtin.debug:
    msg: "{{ guarded.venvs | rejectattr('state', 'eq', 'healthy') | map(attribute='name') }}"
"""

RETURN = r"""
venvs:
  description:
    - The venvs, each with the fields that venvguard(8) describes under JSON.
  returned: success
  type: list
  elements: dict
  sample:
    - id: 0a1b2c3d
      name: shop
      path: /srv/shop/venv
      policy: auto
      reasons: []
      services: [{manager: systemd, name: shop.service}]
      state: healthy
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.venvguard.venvguard.plugins.module_utils.venvguard import Venvguard, arguments


def main():
    spec = arguments(venvs=dict(type="list", elements="str", default=[]))
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    venvguard = Venvguard(module)
    wanted = module.params["venvs"]
    if not wanted:
        # `show` refuses to show nothing.
        wanted = [venv["id"] for venv in venvguard.ask("list")[1]["venvs"]]
    venvs = venvguard.ask("show", "--", *wanted)[1]["venvs"] if wanted else []
    module.exit_json(changed=False, venvs=venvs)


if __name__ == "__main__":
    main()
