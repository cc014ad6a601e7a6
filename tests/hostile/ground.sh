# The ground for the attacks; each attack sources it, as root. `mallory` owns the registered venv `prey`; bob and root own
# venvs of the same layout with secrets in them. Only its owner may see SECRET.

SECRET=xyzzy-canary
PLACE=/home/mallory/place
KEEP=/srv/hostile
# An environment that no program of another user may see: see payload.py and audit.rs.
HOSTILE="LD_PRELOAD=/home/mallory/evil.so LD_LIBRARY_PATH=/home/mallory/evil PYTHONPATH=/home/mallory/evil
    PYTHONHOME= PYTHONSTARTUP=/home/mallory/evil.py PERL5LIB=/home/mallory/evil PIP_INDEX_URL=file:///home/mallory/evil
    PIP_FIND_LINKS=/home/mallory/evil UV_INDEX_URL=file:///home/mallory/evil UV_CACHE_DIR=/home/mallory/evil
    GIT_SSH_COMMAND=/home/mallory/evil GIT_CONFIG_GLOBAL=/home/mallory/evil BASH_ENV=/home/mallory/evil
    TMPDIR=/home/mallory/evil XDG_CONFIG_HOME=/home/mallory/evil SYSTEMD_PAGER=/home/mallory/evil"

as() {
    user=$1
    shift
    setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \
        env -i HOME="/home/$user" PATH=/usr/bin:/bin LANG=C.UTF-8 "$@"
}

# Makes users, canaries, and a venv for each user. MALLORY is mallory's uid.
settle() {
    useradd --create-home --uid "$MALLORY" --shell /bin/sh mallory
    useradd --create-home --uid 1002 --shell /bin/sh bob
    chmod 755 /home/mallory
    chmod 700 /home/bob
    mkdir -p /var/lib/decoy /srv/roots /root/.cache
    touch /tmp/everybodys /var/tmp/everybodys
    # A newer container has this device with the host's rights.
    rm -f /dev/fuse
    mknod -m 666 /dev/fuse c 10 229
    install -d -o mallory -g mallory /home/mallory/.cache
    install -d -o mallory -g mallory -m 1777 /home/mallory/.cache/loot
    for place in /etc /root /home/bob /usr/local/bin /opt /var/lib/decoy /srv; do
        echo "$SECRET" >$place/canary
        chmod 600 $place/canary
    done
    chown bob: /home/bob/canary
    printf 'home = /%s\nversion = 3.13.5\n' "$SECRET" >/root/canary.cfg
    # Gives its caller root's rights, unless the caller can gain no privileges.
    install -m 4755 /usr/bin/id /usr/local/bin/who
    for user in bob root mallory; do
        home=$(getent passwd $user | cut -d: -f6)
        setpriv --reuid $user --regid $user --clear-groups env HOME="$home" SECRET="$SECRET" sh -euc '
            mkdir ~/place
            python3 -m venv --without-pip ~/place/venv
            cd ~/place/venv
            [ $(id -un) != mallory ] || { echo mine >.env; exit; }
            echo "{\"default\": {\"$SECRET\": {\"version\": \"==1.0\"}}}" >../Pipfile.lock
            echo "$SECRET" >.env; chmod 600 .env
            info=$(echo lib/python3*/site-packages)/$SECRET-1.0.dist-info
            mkdir "$info"
            printf "Metadata-Version: 2.1\nName: %s\nVersion: 1.0\n" "$SECRET" >"$info/METADATA"
            printf "%s-1.0.dist-info/METADATA,,\n" "$SECRET" >"$info/RECORD"
            printf "{\"url\": \"https://bob:%s@localhost/x-1.0.whl\", \"archive_info\": {}}" "$SECRET" >"$info/direct_url.json"'
    done
    cat >/etc/systemd/system/canary.service <<'UNIT'
[Service]
ExecStart=/bin/sleep infinity
UNIT
    systemctl daemon-reload
    systemctl start canary
    printf 'rebuild-timeout = 30\nservice-timeout = 5\nstable-for = 0\n' >/etc/venvguard/config.toml
    venvguard register $PLACE/venv --name prey
    cp -a $KEEP/src /home/mallory/src
    cp $KEEP/payload.py /home/mallory/payload.py
    chown -R mallory: /home/mallory/src /home/mallory/payload.py
    # Mallory may read the suite's tools, but not the saved initial state.
    install -d -m 700 $KEEP/kept
    cp -a /home/mallory $KEEP/kept/home
    cp -a /var/lib/venvguard $KEEP/kept/state
    cp /etc/venvguard/config.toml $KEEP/kept/config.toml
}

# Restores the attacker's files, and venvguard's state, as they were in the beginning.
reset() {
    pkill -KILL -u mallory || true
    umount $PLACE 2>/dev/null || true
    umount /var/lib/venvguard/archives 2>/dev/null || true
    rm -rf /home/mallory /var/lib/venvguard /etc/supervisord.conf $KEEP/kept/in-place
    cp -a $KEEP/kept/home /home/mallory
    cp -a $KEEP/kept/state /var/lib/venvguard
    install -m 644 $KEEP/kept/config.toml /etc/venvguard/config.toml
}

# Plants the attack of this name.
plant() {
    # shellcheck source=/dev/null
    . $KEEP/plants.sh
    cd $PLACE || return
    theirs=$(command -v "$1") roots=$(command -v "$1_as_root")
    [ -z "$theirs" ] || as mallory sh -euc '. /srv/hostile/plants.sh; "$1"' sh "$1" || echo '--- not planted'
    [ -z "$roots" ] || "$1_as_root" || echo '--- not planted'
    [ -n "$theirs$roots" ] || echo '--- not planted'
    cd /
}

# Runs venvguard as an administrator does, with a hostile environment and an open secret. It must end, and need no more
# than 1 GiB of memory.
guard() {
    echo "--- venvguard $*"
    # Word splitting makes a list of it.
    # shellcheck disable=SC2086
    timeout --kill-after=1 "${PATIENCE:-60}" ${METER-} prlimit --as=1073741824 env $HOSTILE ${GUARD:-venvguard} "$@" \
        7</root/canary <"${INPUT:-/dev/null}" 2>&1
    echo "--- exit $?"
}

# Runs venvguard, stops it before its Nth effect, runs a function, and continues. Reports the stop, if there is such an
# effect.
stopped() {
    effect=$1 does=$2
    shift 2
    echo "--- venvguard $*"
    # shellcheck disable=SC2086
    env $HOSTILE ${GUARD:-venvguard-faults} --stop-at "$effect" "$@" 7</root/canary <"${INPUT:-/dev/null}" 2>&1 &
    pid=$!
    tries=0
    while sleep 0.01; do
        read -r _ _ state _ 2>/dev/null </proc/$pid/stat || break
        case $state in
            T)
                echo "--- stopped"
                $does
                kill -CONT $pid
                break ;;
            Z) break ;;
        esac
        tries=$((tries + 1))
        [ $tries -lt 3000 ] || kill -KILL $pid
    done
    wait $pid
    echo "--- exit $?"
}

# Runs venvguard where the kernel refuses a mount namespace.
in_place() {
    touch $KEEP/kept/in-place
    GUARD="python3 $KEEP/syscalls.py unshare=1 -- venvguard" guard "$@"
}

# Runs venvguard as apt does when it is about to move the default Python. The arguments are a command that takes
# venvguard's arguments.
gate() {
    # shellcheck source=/dev/null
    . $KEEP/upgrade
    default=$(dpkg-query -W -f '${Version}' python3-minimal)
    cat >$KEEP/kept/list <<LIST
VERSION 3

python$NEXT-minimal - - none < $NEXT_DEBIAN amd64 allowed /x.deb
python3-minimal $default amd64 allowed < $NEXT.0-1 amd64 allowed /x.deb
LIST
    INPUT=$KEEP/kept/list
    "$@" hook pre-install
    INPUT=
}

# Runs venvguard and kills it once the accomplice's work is done.
killed() {
    echo "--- venvguard $*"
    # shellcheck disable=SC2086
    env $HOSTILE venvguard "$@" </dev/null 2>&1 &
    pid=$!
    tries=0
    while [ ! -e /home/mallory/go ] && [ $tries -lt 300 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    kill -KILL $pid || echo '--- not planted'
    wait $pid
    # venvguard can no longer end the processes that it has started.
    pkill -KILL -u mallory -x sleep
}
