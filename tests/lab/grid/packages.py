# Runs inside a root, once: makes the grid's own packages below the directory in its argument, one for each way of
# installing, and an index with them and the wheels of /wheelhouse. Each package has one module and one script, which
# prints the version of Python that runs it.
import hashlib, os, shutil, subprocess, sys
from pathlib import Path

home = Path(sys.argv[1])
index, sources = home / "index", home / "packages"

# A build backend inside the package, so that a build needs nothing from an index.
BACKEND = '''
import base64, hashlib, io, tarfile, tomllib, zipfile
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
name, version = project["name"].replace("-", "_"), project["version"]
info = f"{name}-{version}.dist-info"
scripts = "".join(f"{script} = {target}\\n" for script, target in project["scripts"].items())
METADATA = f"Metadata-Version: 2.1\\nName: {project['name']}\\nVersion: {version}\\n"
WHEEL = "Wheel-Version: 1.0\\nGenerator: lab\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"


def wheel(directory, content):
    files = content | {
        f"{info}/METADATA": METADATA,
        f"{info}/WHEEL": WHEEL,
        f"{info}/entry_points.txt": f"[console_scripts]\\n{scripts}",
    }
    def digest(text):
        return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    record = "".join(f"{path},sha256={digest(text)},{len(text.encode())}\\n" for path, text in files.items())
    made = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(Path(directory, made), "w") as archive:
        for path, text in files.items() | {(f"{info}/RECORD", f"{record}{info}/RECORD,,\\n")}:
            archive.writestr(zipfile.ZipInfo(path), text)
    return made


def build_wheel(directory, config_settings=None, metadata_directory=None):
    return wheel(directory, {f"{name}.py": Path(f"{name}.py").read_text()})


def build_editable(directory, config_settings=None, metadata_directory=None):
    return wheel(directory, {f"__editable__.{name}-{version}.pth": f"{Path.cwd()}\\n"})


def build_sdist(directory, config_settings=None):
    made = f"{name}-{version}.tar.gz"
    with tarfile.open(Path(directory, made), "w:gz") as archive:
        for path in ("pyproject.toml", "backend.py", f"{name}.py"):
            archive.add(path, f"{name}-{version}/{path}")
        about = tarfile.TarInfo(f"{name}-{version}/PKG-INFO")
        about.size = len(METADATA)
        archive.addfile(about, io.BytesIO(METADATA.encode()))
    return made
'''

PROJECT = """[project]
name = "{name}"
version = "1.0"
[project.scripts]
lab-app = "{module}:main"
[build-system]
requires = {requires}
build-backend = "{backend}"
"""

MODULE = """import importlib.metadata
import sys


def main():
    version = importlib.metadata.version("{name}")
    print("{name}", version, "on", "%d.%d" % sys.version_info[:2])
"""


def project(name, backend="backend", requires="[]"):
    directory = sources / name
    directory.mkdir(parents=True)
    module = name.replace("-", "_")
    text = PROJECT.format(name=name, module=module, backend=backend, requires=requires)
    if backend == "backend":
        text += 'backend-path = ["."]\n'
        (directory / "backend.py").write_text(BACKEND)
    (directory / "pyproject.toml").write_text(text)
    (directory / f"{module}.py").write_text(MODULE.format(name=name))
    return directory


def built(name, what, into):
    code = f"import backend; backend.build_{what}({str(into)!r})"
    subprocess.run([sys.executable, "-B", "-c", code], cwd=project(name), check=True)


files = index / "files"
shutil.copytree("/wheelhouse", files)
built("lab-wheel", "wheel", files)
built("lab-sdist", "sdist", files)
built("lab-local", "wheel", sources)
# With the best-known backend.
editable = project("lab-editable", "setuptools.build_meta", '["setuptools"]')
# uv would take the new times of a copy on a machine for changes of the code.
with open(editable / "pyproject.toml", "a") as file:
    file.write('[tool.uv]\ncache-keys = [{ env = "LAB" }]\n')
repository = project("lab-vcs")
git = ["git", "-C", repository, "-c", "user.name=lab", "-c", "user.email=lab@localhost", "-c", "init.defaultBranch=main"]
for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=one"]):
    subprocess.run(git + command, check=True)

# The simple index of PEP 503: a page for each project.
pages = {}
for file in sorted(files.iterdir()):
    name = file.name.split("-")[0] if file.suffix == ".whl" else file.name.rsplit("-", 1)[0]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    link = f'<a href="/files/{file.name}#sha256={digest}">{file.name}</a>\n'
    pages.setdefault(name.lower().replace("_", "-").replace(".", "-"), []).append(link)
for name, links in pages.items():
    page = index / "simple" / name / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<!DOCTYPE html>\n" + "".join(links))
