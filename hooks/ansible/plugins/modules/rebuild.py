#!/usr/bin/python
# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: rebuild
short_description: Rebuild virtualenvs for the interpreter that is installed
version_added: 0.1.0
description:
  - Runs C(venvguard rebuild) for the venvs that need it, and restarts their services.
  - Supports check mode, which runs C(venvguard rebuild --dry-run), and diff mode.
options:
  venvs:
    description:
      - Names, paths, ids or globs of venvs.
      - A venv is left alone if it is healthy and, with O(python), already runs that minor version. See O(force).
    type: list
    elements: str
  all:
    description:
      - Repairs every venv that is stale, orphaned, stranded or restart-needed, and moves those that venvguard has
        pinned back to the default interpreter.
    type: bool
    default: false
  force:
    description:
      - Rebuilds the named venvs even if they are healthy.
    type: bool
    default: false
  prepare:
    description:
      - Builds and checks new trees without swapping them in; the next rebuild does that. Includes healthy venvs.
    type: bool
    default: false
  python:
    description:
      - The minor version to rebuild for, for example V(3.13).
    type: str
  relax:
    description:
      - How far a distribution may move if its version has no file for that Python.
    type: str
    choices: [patch, minor, major]
  jobs:
    description:
      - How many venvs are rebuilt in parallel.
    type: int
extends_documentation_fragment:
  - venvguard.venvguard.common
"""

EXAMPLES = r"""
- name: Repair every venv that needs it
  venvguard.venvguard.rebuild:
    all: true

- name: Move a pinned venv to Python 3.13
  venvguard.venvguard.rebuild:
    venvs: [shop]
    python: '3.13'
    relax: patch
"""

RETURN = r"""
decisions:
  description: What the rebuild does to each venv, with the fields that venvguard(8) describes under JSON.
  returned: success
  type: list
  elements: dict
  sample: [{name: shop, effect: orphaned, remedy: rebuild, target: {python: '3.13'}, reasons: []}]
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


def needs_rebuild(venv, python):
    """Whether a venv, as `status` reports it, is not yet what was asked for."""
    interpreter = venv["interpreter"] or {}
    version = interpreter.get("version") or ""
    is_other = python is not None and version.split(".")[:2] != python.split(".")
    return venv["state"] != "healthy" or is_other


def words_of(params, ids):
    """The arguments of `venvguard rebuild`."""
    words = []
    for option in ("python", "relax", "jobs"):
        if params[option] is not None:
            words += ["--" + option, str(params[option])]
    return words + (["--all"] if params["all"] else ["--"] + ids)


def in_words(decision):
    """A decision as a line of a diff."""
    target = (decision.get("target") or {}).get("python")
    return "%s: %s%s\n" % (decision["name"], decision["remedy"], " for Python " + target if target else "")


def main():
    spec = arguments(
        venvs=dict(type="list", elements="str"),
        all=dict(type="bool", default=False),
        force=dict(type="bool", default=False),
        prepare=dict(type="bool", default=False),
        python=dict(type="str"),
        relax=dict(type="str", choices=["patch", "minor", "major"]),
        jobs=dict(type="int"),
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True, required_one_of=[("venvs", "all")])
    params = module.params
    if bool(params["venvs"]) == params["all"]:
        module.fail_json(msg="name some venvs, or set `all`, but not both")
    venvguard = Venvguard(module)
    ids = []
    if params["venvs"]:
        status = venvguard.ask("status", "--", *params["venvs"], expect=(DONE, ATTENTION))[1]
        is_any = params["force"] or params["prepare"]
        ids = [venv["id"] for venv in status["venvs"] if is_any or needs_rebuild(venv, params["python"])]
        if not ids:
            module.exit_json(changed=False, decisions=[], messages=venvguard.messages)
    words = words_of(params, ids)
    decisions = venvguard.ask("rebuild", "--dry-run", *words, expect=(DONE, ATTENTION))[1]["venvs"]
    diff = dict(before="", after="".join(in_words(decision) for decision in decisions))
    if not module.check_mode:
        venvguard.messages = []
        # Exit status 3: a venv was not repaired. It fails here, because the rebuild was asked for.
        venvguard.run("rebuild", *((["--prepare"] if params["prepare"] else []) + words))
    module.exit_json(changed=bool(decisions), decisions=decisions, diff=diff, messages=venvguard.messages)


if __name__ == "__main__":
    main()
