#!/usr/bin/python
# Copyright the venvguard maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: wheels
short_description: Build wheels once, and keep their hashes
version_added: 0.1.0
description:
  - Builds a wheel of each requirement from its source, unless the directory has it already.
  - Keeps the hash of each wheel in C(hashes.txt), in the format of pip's hash-checking mode. A wheel without its hash,
    or with another one, is an error; nothing replaces it silently.
  - Runs the code of the distributions, so do not run it as root.
  - Supports check mode.
options:
  requirements:
    description:
      - What to build, as V(NAME==VERSION).
    type: list
    elements: str
    required: true
  directory:
    description:
      - Where the wheels are kept. Use one directory for each minor version and architecture.
    type: path
    required: true
  python:
    description:
      - The interpreter to build for. It needs the module C(venv) with pip, for example from C(python3-venv).
    type: path
    default: /usr/bin/python3
requirements:
  - whatever the distributions need to be built, for example a compiler and Python's headers
author:
  - venvguard maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Build what has no wheel for Python 3.13
  venvguard.venvguard.wheels:
    requirements: [psycopg2==2.9.5]
    directory: ~/wheelhouse/3.13-x86_64
    python: /usr/bin/python3.13
"""

RETURN = r"""
wheels:
  description: The wheels that were asked for and exist, by requirement, with file name and hash.
  returned: success
  type: dict
  sample: {'psycopg2==2.9.5': {file: psycopg2-2.9.5-cp313-cp313-linux_x86_64.whl, sha256: 9f86d081884c7d65}}
built:
  description: The requirements that were built, or would be in check mode.
  returned: success
  type: list
  elements: str
failed_requirements:
  description: The requirements that could not be built, each with the end of pip's output.
  returned: always
  type: dict
"""

import hashlib
import os
import re
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule

HASHES = "hashes.txt"

HASH_LINE = re.compile(r"(?P<requirement>[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})")

# How much of pip's output a failure quotes.
OUTPUT_LIMIT = 2000


def read_hashes(text):
    """The hashes by requirement. An invalid line is an error: somebody wrote it."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            match = HASH_LINE.fullmatch(line)
            if match is None:
                raise ValueError("this is no requirement with a hash: %s" % line)
            found[match["requirement"]] = match["sha256"]
    return found


def write_hashes(hashes):
    """The text of hashes.txt."""
    lines = ["%s --hash=sha256:%s\n" % entry for entry in sorted(hashes.items())]
    return "".join(lines)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def strangers(files, hashes):
    """The wheels whose hash was not kept."""
    return sorted(name for name, digest in files.items() if digest not in hashes.values())


def present(requirements, files, hashes):
    """The requirements whose wheel exists, with file name and hash."""
    by_hash = {digest: name for name, digest in files.items()}
    return {
        one: {"file": by_hash[hashes[one]], "sha256": hashes[one]}
        for one in requirements
        if hashes.get(one) in by_hash
    }


class Wheelhouse:
    """A directory of wheels, and their hashes."""

    def __init__(self, module):
        self.module = module
        self.directory = module.params["directory"]

    def read(self):
        """The hashes of the files, and those that were kept."""
        if not os.path.isdir(self.directory):
            return {}, {}
        names = [name for name in os.listdir(self.directory) if name.endswith(".whl")]
        files = {name: sha256(os.path.join(self.directory, name)) for name in names}
        hashes = {}
        path = os.path.join(self.directory, HASHES)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                try:
                    hashes = read_hashes(file.read())
                except ValueError as error:
                    self.module.fail_json(msg="%s: %s" % (path, error))
        return files, hashes

    def keep(self, wheel, requirement, hashes):
        """Moves a wheel in, its hash first: a wheel without a hash is refused."""
        hashes[requirement] = sha256(wheel)
        path = os.path.join(self.directory, HASHES)
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(write_hashes(hashes))
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)
        shutil.move(wheel, os.path.join(self.directory, os.path.basename(wheel)))


class Builder:
    """A venv with pip, made for one run."""

    def __init__(self, module, work):
        self.module = module
        self.work = work
        self.python = os.path.join(work, "venv", "bin", "python")
        status, stdout, stderr = module.run_command(
            [module.params["python"], "-m", "venv", os.path.join(work, "venv")]
        )
        if status != 0:
            module.fail_json(
                msg="cannot create a venv with %s: %s" % (module.params["python"], end(stdout + stderr)),
                failed_requirements={},
            )

    def build(self, requirement):
        """Returns the wheel, or None and why there is none."""
        into = tempfile.mkdtemp(dir=self.work)
        name = requirement.partition("==")[0]
        words = ["wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", name]
        status, stdout, stderr = self.module.run_command(
            [self.python, "-m", "pip"] + words + ["--wheel-dir", into, "--", requirement],
            environ_update=dict(LC_ALL="C.UTF-8"),
        )
        wheels = [os.path.join(into, name) for name in os.listdir(into) if name.endswith(".whl")]
        if status != 0 or len(wheels) != 1:
            return None, end(stdout + stderr)
        return wheels[0], None


def end(output):
    return output.strip()[-OUTPUT_LIMIT:]


def main():
    module = AnsibleModule(
        argument_spec=dict(
            requirements=dict(type="list", elements="str", required=True),
            directory=dict(type="path", required=True),
            python=dict(type="path", default="/usr/bin/python3"),
        ),
        supports_check_mode=True,
    )
    requirements = module.params["requirements"]
    for one in requirements:
        if HASH_LINE.fullmatch("%s --hash=sha256:%s" % (one, "0" * 64)) is None:
            module.fail_json(msg="%s is not NAME==VERSION" % one, failed_requirements={})
    wheelhouse = Wheelhouse(module)
    files, hashes = wheelhouse.read()
    unknown = strangers(files, hashes)
    if unknown:
        module.fail_json(
            msg="%s: no hash was kept of %s; remove it, or find out who replaced it"
            % (wheelhouse.directory, ", ".join(unknown)),
            failed_requirements={},
        )
    missing = sorted(set(requirements) - set(present(requirements, files, hashes)))
    if not missing or module.check_mode:
        wheels = present(requirements, files, hashes)
        module.exit_json(changed=bool(missing), built=missing, wheels=wheels, failed_requirements={})
    build(module, wheelhouse, missing, hashes)


def build(module, wheelhouse, missing, hashes):
    os.makedirs(wheelhouse.directory, exist_ok=True)
    built, failed = [], {}
    # On the same file system, so that a wheel moves in at once.
    work = tempfile.mkdtemp(dir=wheelhouse.directory, prefix=".build-")
    module.add_cleanup_file(work)
    builder = Builder(module, work)
    for one in missing:
        wheel, why = builder.build(one)
        if wheel is None:
            failed[one] = why
        else:
            wheelhouse.keep(wheel, one, hashes)
            built.append(one)
    files, hashes = wheelhouse.read()
    wheels = present(module.params["requirements"], files, hashes)
    answer = dict(changed=bool(built), built=built, wheels=wheels, failed_requirements=failed)
    if failed:
        module.fail_json(msg="cannot build %s" % ", ".join(sorted(failed)), **answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
