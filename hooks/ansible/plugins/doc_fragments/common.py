# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  executable:
    description:
      - The program C(venvguard), as a path or as a name that is searched for.
    type: str
    default: venvguard
requirements:
  - venvguard 0.1.0 or later on the host
author:
  - venvguard maintainers (!UNKNOWN)
notes:
  - Needs no Python package on the host. Any Python from 3.9 on is good enough; C(/usr/bin/python3), without a
    version in its name, survives an upgrade of Python.
  - As root, the modules manage the venvs of the system. As an ordinary user, they manage the user's own venvs.
"""
