# Runs on a machine, as root: venvs in odd places. `odd.sh make PLACE` creates one with a package in it, `odd.sh ask
# PLACE` prints what it does, `odd.sh where PLACE` prints its path.
. /srv/grid/environment
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/srv/grid/index/files
place=$2
owner=app
path=/srv/odd/$place/venv
case $place in
spaces) path='/srv/odd/with two  spaces/venv' ;;
quotes) path="/srv/odd/it's \"quoted\" \$HOME/venv" ;;
newline) path=$(printf '/srv/odd/new\nline/venv') ;;
bytes) path=$(printf '/srv/odd/bytes-\377\376/venv') ;;
nested) path=/srv/odd/outer/venv/inner ;;
owner) owner=other ;;
esac

as_owner() { su "$owner" -c 'exec "$@"' sh -- "$@"; }

made() {
    as_owner /usr/bin/python3 -m venv --without-pip "$@" "$path"
    as_owner /srv/grid/tools/bin/pip --quiet --python "$path/bin/python" install lab-wheel
}

make() {
    [ "$owner" = app ] || /usr/sbin/useradd --create-home --shell /bin/sh "$owner"
    directory=$(dirname "$path"; echo x)
    directory=${directory%?x}
    [ "$place" = nested ] || install -d -o "$owner" "$directory"
    case $place in
    system) made --system-site-packages ;;
    link)
        path=/srv/odd/link/real
        made
        as_owner ln -s real /srv/odd/link/venv ;;
    mount)
        made
        mount --bind "$path" "$path" ;;
    closed)
        chmod 700 "$directory"
        made
        chmod 700 "$path" ;;
    hardlinks)
        made
        as_owner sh -euc 'echo mine >"$1/mine"; ln "$1/mine" "$1/lib/mine"; ln "$1/mine" "$1/../outside"' sh "$path" ;;
    bytes)
        # Python creates no venv at such a path, but one can be moved there.
        path=/srv/odd/bytes/venv
        install -d -o "$owner" /srv/odd/bytes
        made
        rmdir "$directory"
        mv /srv/odd/bytes "$directory" ;;
    *) made ;;
    esac
}

where() { printf '%s' "$path"; }

ask() {
    as_owner "$path/bin/python" -c 'import lab_wheel; lab_wheel.main()'
    case $place in
    system) grep '^include-system-site-packages' "$path/pyvenv.cfg" ;;
    link) readlink "$path" ;;
    closed) stat -c %a "$path" ;;
    owner) stat -c %U "$path" "$path/bin/python" ;;
    # The two names inside are one file; the file outside must not change.
    hardlinks)
        cat "$path/mine" "$path/../outside"
        if [ "$path/mine" -ef "$path/lib/mine" ]; then echo linked; else echo apart; fi ;;
    btrfs | xfs) stat -f -c %T "$path" ;;
    nested) test -d "$path/lib/python3.13/site-packages/lab_wheel-1.0.dist-info" && echo there ;;
    esac
}

"$1"
