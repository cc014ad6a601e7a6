# Runs inside a root, as the owner of the venvs: creates a venv of the grid as a user of its flavour does. The argument is
# FLAVOUR-LINK-KIND, and the venv's project lies in the directory of that name below /srv/cells. The file `where` in that
# directory contains the path of the venv.
. /srv/grid/environment
index=http://127.0.0.1:8000/simple/
packages=/srv/grid/packages

# The request to the tool: the interpreter, and whether to copy it.
interpreter() {
    case $link in
    pinned) readlink -f /usr/bin/python3 ;;
    *) echo /usr/bin/python3 ;;
    esac
}
copied() { [ "$link" = copied ]; }

# The package as an argument for pip, uv and pipx.
requirement() {
    case $kind in
    wheel | sdist) echo "lab-$kind" ;;
    vcs) echo "git+file://$packages/lab-vcs" ;;
    editable) echo "--editable $packages/lab-editable" ;;
    local) echo "$packages/lab_local-1.0-py3-none-any.whl" ;;
    none) ;;
    esac
}

# The same as a list of PEP 508; each manager has its own way for editables.
dependencies() {
    case $kind in
    wheel | sdist) echo "[\"lab-$kind\"]" ;;
    vcs) echo "[\"lab-vcs @ git+file://$packages/lab-vcs\"]" ;;
    local) echo "[\"lab-local @ file://$packages/lab_local-1.0-py3-none-any.whl\"]" ;;
    *) echo '[]' ;;
    esac
}

# A project that depends on the package.
project() {
    cat >pyproject.toml <<END
[project]
name = "lab-project"
version = "1.0"
requires-python = ">=3.13"
dependencies = $(dependencies)
END
}

# Makes the project itself the editable package, with a module.
itself() {
    cat >>pyproject.toml <<END
[project.scripts]
lab-app = "lab_project:main"
[build-system]
requires = ["$1"]
build-backend = "$2"
END
    sed s/lab-editable/lab-project/ $packages/lab-editable/lab_editable.py >lab_project.py
}

pip_install() {
    # Word splitting makes arguments of it.
    # shellcheck disable=SC2046
    [ "$kind" = none ] || venv/bin/pip --quiet install $(requirement)
}

make_venv() {
    if copied; then set -- --copies; fi
    "$(interpreter)" -m venv "$@" venv
    pip_install
    echo "$PWD/venv"
}

make_virtualenv() {
    if copied; then set -- --copies; fi
    virtualenv --quiet "$@" --python "$(interpreter)" venv
    pip_install
    echo "$PWD/venv"
}

make_uv() {
    project
    printf '[tool.uv]\npackage = false\n' >>pyproject.toml
    if [ "$kind" = editable ]; then
        sed -i 's/^dependencies.*/dependencies = ["lab-editable"]/' pyproject.toml
        printf '[tool.uv.sources]\nlab-editable = { path = "%s", editable = true }\n' $packages/lab-editable >>pyproject.toml
    fi
    uv sync --quiet --default-index $index --python "$(interpreter)"
    echo "$PWD/.venv"
}

make_poetry() {
    project
    if [ "$kind" = editable ]; then
        itself poetry-core poetry.core.masonry.api
        printf '[tool.poetry]\n' >>pyproject.toml
    else
        printf '[tool.poetry]\npackage-mode = false\n' >>pyproject.toml
    fi
    printf '[[tool.poetry.source]]\nname = "lab"\nurl = "%s"\n' $index >>pyproject.toml
    if copied; then export POETRY_VIRTUALENVS_OPTIONS_ALWAYS_COPY=true; fi
    poetry --quiet env use "$(interpreter)"
    poetry --quiet install
    poetry env info --path
}

make_pdm() {
    project
    if [ "$kind" = editable ]; then
        itself setuptools setuptools.build_meta
        printf '[tool.pdm]\ndistribution = true\n' >>pyproject.toml
    else
        printf '[tool.pdm]\ndistribution = false\n' >>pyproject.toml
    fi
    printf '[[tool.pdm.source]]\nname = "pypi"\nurl = "%s"\n' $index >>pyproject.toml
    if copied; then set -- --copies; fi
    pdm --quiet venv create "$(interpreter)" "$@" >&2
    pdm --quiet use .venv >&2
    pdm --quiet lock >&2
    pdm --quiet sync >&2
    echo "$PWD/.venv"
}

make_hatch() {
    project
    if [ "$kind" = editable ]; then itself setuptools setuptools.build_meta; fi
    cat >>pyproject.toml <<END
[tool.hatch.metadata]
allow-direct-references = true
[tool.hatch.envs.default]
python = "$(interpreter)"
skip-install = $([ "$kind" = editable ] && echo false || echo true)
dependencies = $(dependencies)
END
    if copied; then export VIRTUALENV_COPIES=1; fi
    hatch --quiet env create
    hatch env find
}

make_pipenv() {
    cat >Pipfile <<END
[[source]]
name = "lab"
url = "$index"
verify_ssl = false
[packages]
END
    case $kind in
    wheel | sdist) echo "lab-$kind = '*'" ;;
    vcs) echo "lab-vcs = { git = 'file://$packages/lab-vcs', ref = 'main' }" ;;
    editable) echo "lab-editable = { path = '$packages/lab-editable', editable = true }" ;;
    local) echo "lab-local = { path = '$packages/lab_local-1.0-py3-none-any.whl' }" ;;
    esac >>Pipfile
    if copied; then export PIPENV_VIRTUALENV_COPIES=1; fi
    pipenv --quiet --python "$(interpreter)" >/dev/null
    pipenv --quiet lock >/dev/null
    pipenv --quiet sync >/dev/null
    pipenv --venv
}

make_pipx() {
    # shellcheck disable=SC2046
    pipx install --python "$(interpreter)" $(requirement) >&2
    echo "$PWD/pipx/venvs/lab-$kind"
}

cell=$1
flavour=${cell%%-*}
kind=${cell##*-}
link=${cell#*-}
link=${link%-*}
mkdir -p "/srv/cells/$cell"
cd "/srv/cells/$cell"
of_cell
"make_$flavour" >where
