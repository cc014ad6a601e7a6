# Runs inside a root: downloads the wheels of /requirements.txt for its own Python, then the same versions for the minor
# versions in the arguments, into /wheelhouse.
python3 -m venv /tmp/venv
pip='/tmp/venv/bin/python -m pip --quiet download --only-binary=:all: --dest /wheelhouse --requirement /requirements.txt'
$pip

# A rebuild asks for the versions that are installed now, so the other minor versions need the same.
for wheel in /wheelhouse/*.whl; do
    name=${wheel##*/}
    version=${name#*-}
    echo "${name%%-*}==${version%%-*}"
done >/tmp/constraints.txt

platforms='--platform manylinux2014_x86_64'
for glibc in 5 12 17 24 26 27 28 31 34; do
    platforms="$platforms --platform manylinux_2_${glibc}_x86_64"
done
for minor in "$@"; do
    [ -z "$minor" ] || $pip --constraint /tmp/constraints.txt --implementation cp --python-version "$minor" $platforms
done
