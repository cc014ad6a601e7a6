# Runs on a machine, as the owner. Prints what a venv of the grid does and, below a line with `##`, what its manager says
# about it. The argument is the name of the cell. Leaves out details that differ from one run to the next.
. /srv/grid/environment
cell=$1
cd "/srv/cells/$cell"
of_cell
venv=$(cat where)
export UV_OFFLINE=1
if [ -e "$venv/bin/lab-app" ]; then
    "$venv/bin/lab-app"
else
    "$venv/bin/python" -c 'import sys; print("nothing on %d.%d" % sys.version_info[:2])'
fi
"$venv/bin/python" -c 'import asyncio, ctypes, ssl; asyncio.run(asyncio.sleep(0))'
echo "# pip freeze --all"
# The version of pip changes with the interpreter, and only pip records the hash of a file.
pip --python "$venv/bin/python" freeze --all |
    sed 's/^pip==.*/pip==(any)/; s/[.]whl#sha256=.*/.whl/'
case $cell in
virtualenv-*)
    echo "## activate_this.py, pip by its name with a version"
    "$venv/bin/python" -I -S -c 'import sys
exec(open(sys.argv[1]).read(), {"__file__": sys.argv[1]})
import pip; print(pip.__name__)' "$venv/bin/activate_this.py"
    ls "$venv/bin/pip-$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" >/dev/null ||
        echo "exit $?" ;;
uv-*)
    echo "## uv sync --check"
    said=$(uv sync --check --frozen 2>&1) || said="$said, exit $?"
    echo "$said" | sed 's/ in [0-9.]*ms$//; s/[.]whl#sha256=[0-9a-f]*/.whl/' ;;
poetry-*)
    echo "## poetry check, poetry install --dry-run"
    poetry check 2>&1 || echo "exit $?"
    poetry install --dry-run --no-ansi 2>&1 || echo "exit $?" ;;
pdm-*)
    echo "## pdm sync --dry-run"
    pdm sync --dry-run 2>&1 || echo "exit $?" ;;
hatch-*)
    echo "## hatch env find, hatch run"
    hatch env find
    hatch run python -c '' 2>&1 || echo "exit $?" ;;
pipenv-*)
    echo "## pipenv verify, pipenv --venv"
    pipenv verify 2>&1 || echo "exit $?"
    pipenv --venv ;;
pipx-*)
    echo "## the first line of its program, pipx list"
    head -n 1 "$venv/bin/lab-app"
    pipx list 2>&1 || echo "exit $?" ;;
esac
