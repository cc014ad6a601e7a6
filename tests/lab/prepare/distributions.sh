# Runs inside a root: puts the wheels of the venvs in /venvs, one file of requirements each, into /wheelhouse, for the
# root's own Python, and the source archives of /sources; then the same versions for the minor version in the first
# argument, as far as they exist, and the versions in /works-from, which work on it.
minor=$1
python3 -m venv /tmp/venv
pip() {
    /tmp/venv/bin/python -m pip --quiet "$@" </dev/null
}
pip install wheel
for file in /venvs/*; do
    # Builds what has no wheel: what is pure Python then installs on any Python.
    pip wheel --wheel-dir /wheelhouse --requirement "$file"
done
pip wheel --wheel-dir /wheelhouse 'setuptools<82' wheel
while read -r requirement; do
    pip download --no-deps --no-binary=:all: --dest /wheelhouse "$requirement"
done </sources

set -- --no-deps --only-binary=:all: --dest /wheelhouse --implementation cp --python-version "$minor" \
    --platform manylinux2014_x86_64
for glibc in 5 12 17 24 26 27 28 31 34; do
    set -- "$@" --platform "manylinux_2_${glibc}_x86_64"
done
tag=cp$(echo "$minor" | tr -d .)
for wheel in /wheelhouse/*.whl; do
    case $wheel in
    *-none-any.whl | *-abi3-* | *-"$tag"-*) continue ;;
    esac
    name=${wheel##*/}
    version=${name#*-}
    # Many have none: that is what the trial is about.
    pip download "$@" "${name%%-*}==${version%%-*}" 2>/dev/null || true
done
while read -r requirement; do
    pip download "$@" "$requirement"
done </works-from
