#!/bin/sh
# Makes source archives whose build needs no other distribution: DIRECTORY/sources/{good,bad}-1.0.tar.gz.
set -eu
mkdir -p "$1/sources"
cd "$1"
for name in good bad; do
    mkdir "$name-1.0"
    printf '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n' >"$name-1.0/pyproject.toml"
    printf 'Metadata-Version: 2.1\nName: %s\nVersion: 1.0\n' "$name" >"$name-1.0/PKG-INFO"
    cat >"$name-1.0/backend.py" <<END
import zipfile


def build_wheel(directory, settings=None, metadata=None):
    name = "$name"
    if name == "bad":
        raise SystemExit("it does not build")
    wheel = name + "-1.0-py3-none-any.whl"
    info = name + "-1.0.dist-info/"
    with zipfile.ZipFile(directory + "/" + wheel, "w") as archive:
        archive.writestr(name + ".py", "")
        archive.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: %s\nVersion: 1.0\n" % name)
        archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(info + "RECORD", "")
    return wheel
END
    tar -czf "sources/$name-1.0.tar.gz" "$name-1.0"
done
