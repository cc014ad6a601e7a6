# The plants for the attacks of `trees.rs`; sourced by `plants.sh`, whose `distribution` sets `site` and `info`.
# shellcheck disable=SC2154

PASSWORD=xyzzy-password

# Starts an accomplice beside venvguard; see `accomplice.py`.
beside() { setsid python3 /srv/hostile/accomplice.py "$@" >/dev/null 2>&1 </dev/null & }

# A directory of the attacker's that contains a directory of another user's, which they can neither enter nor empty.
trap_of() {
    install -d -o mallory -g mallory "$2"
    install -d -o "$1" -g "$1" -m 700 "$2/keep"
    install -o "$1" -g "$1" -m 644 /root/canary "$2/keep/secret"
}

a_trap_in_the_temporary_directory() {
    backdoor waits
    beside moves ~/trap "$PWD/.venv.venvguard-*/.venvguard-tmp"
}
a_trap_in_the_temporary_directory_as_root() { trap_of root /home/mallory/trap; }
a_trap_in_a_previous_environment_as_root() { trap_of root /home/mallory/trap; }
a_trap_in_the_surplus_as_root() { trap_of root /home/mallory/trap; }
a_trap_in_what_is_rolled_back_as_root() { trap_of root /home/mallory/trap; }
a_trap_in_a_stage_that_fails() {
    backdoor 'waits and fails'
    beside moves ~/trap "$PWD/.venv.venvguard-*"
}
a_trap_in_a_stage_that_fails_as_root() { trap_of root /home/mallory/trap; }
a_trap_in_a_venv_that_fails() {
    backdoor 'waits and fails'
    beside moves ~/trap "$PWD/venv"
}
a_trap_in_a_venv_that_fails_as_root() { trap_of root /home/mallory/trap; }
a_trap_in_a_stage_that_is_killed() {
    backdoor 'waits and hangs'
    beside moves ~/trap "$PWD/.venv.venvguard-*"
}
a_trap_in_a_stage_that_is_killed_as_root() { trap_of root /home/mallory/trap; }

takes() { beside takes "$PWD/.venv.venvguard-*/data/keep" "$PWD/venv/data/keep"; }
a_trap_in_the_venv() { takes; }
a_trap_in_the_venv_as_root() { trap_of root "$PLACE/venv/data"; }
a_trap_in_a_venv_built_in_place() { takes; }
a_trap_in_a_venv_built_in_place_as_root() { trap_of root "$PLACE/venv/data"; }
bobs_trap_in_the_venv() { takes; }
bobs_trap_in_the_venv_as_root() { trap_of bob "$PLACE/venv/data"; }

# A wheel of the attacker's, and a distribution from it.
wheel() {
    mkdir -p ~/wheels
    distribution "$1" "file://$HOME/wheels/$1-1.0-py3-none-any.whl" '"archive_info": {}'
    echo ~/wheels/"$1"-1.0-py3-none-any.whl
}

archives_are_holes() {
    for number in $(seq 12); do
        wheel=$(wheel "hole$number")
        echo "$number" >"$wheel"
        truncate -s 200M "$wheel"
    done
}

archives_are_one_file() {
    truncate -s 200M ~/content
    for number in $(seq 12); do ln ~/content "$(wheel "name$number")"; done
}

# Replaces the archive, and the distribution from it.
archives_come_and_pass() { renew 0; }
renew() {
    rm -rf ~/wheels venv/lib/python3*/site-packages/*.dist-info
    wheel=$(wheel "round$1")
    echo "$1" >"$wheel"
    truncate -s 300M "$wheel"
}

archives_are_long() {
    truncate -s 1023M ~/content
    for number in $(seq 120); do ln ~/content "$(wheel "long$number")"; done
}
archives_are_long_as_root() {
    mkdir -p /var/lib/venvguard/archives
    mount -t tmpfs -o size=64m,mode=711 small /var/lib/venvguard/archives
}

# A small file system, which a copy of a sparse file would overfill.
little_room() {
    mv "$PLACE" /home/mallory/roomy
    install -d -o mallory -g mallory "$PLACE"
    mount -t tmpfs -o size=100m,mode=755 small "$PLACE"
    cp -a /home/mallory/roomy/. "$PLACE"
    chown mallory: "$PLACE"
    rm -r /home/mallory/roomy
}

holes_are_recorded() {
    backdoor nothing
    truncate -s 2G "$site/hole1"
    for number in $(seq 8); do
        [ -e "$site/hole$number" ] || ln "$site/hole1" "$site/hole$number"
        echo "hole$number,sha256=AAAA,1" >>"$info/RECORD"
    done
}
holes_are_recorded_as_root() { little_room; }

holes_are_in_the_stage() {
    backdoor waits
    holes=$(seq -f hole%g 8)
    for hole in $holes; do
        echo changed >"$site/$hole"
        echo "$hole,sha256=AAAA,1" >>"$info/RECORD"
    done
    # Word splitting makes a list of it.
    # shellcheck disable=SC2086
    beside fills "$PWD/.venv.venvguard-*/lib/python3*/site-packages" $holes
}
holes_are_in_the_stage_as_root() { little_room; }

# Makes NUMBER names of one file, below directories whose names have these lengths.
names_below() {
    python3 -c '
import os, sys
os.chdir("venv")
for length in map(int, sys.argv[2:]):
    os.mkdir("d" * length)
    os.chdir("d" * length)
open("0", "x").close()
for number in range(1, int(sys.argv[1])):
    os.link("0", str(number))' "$@"
}
# Word splitting makes lists of them.
# shellcheck disable=SC2046
names_are_long() { names_below 30000 $(yes 250 | head -n 115); }
# A path of the maximal length in the venv is too long in the stage.
# shellcheck disable=SC2046
names_are_left() { names_below 5000 $(yes 250 | head -n 16) 40; }

records_are_long() {
    distribution long0
    first=$info/RECORD
    python3 -c '
import sys
with open(sys.argv[1], "w") as record:
    record.writelines(f"{number:x},sha256=,\n" for number in range(500_000))' "$first"
    for number in $(seq 8); do
        distribution "long$number"
        ln -f "$first" "$info/RECORD"
    done
}

distributions_have_long_names() {
    distribution long0
    first=$info/METADATA
    python3 -c '
import sys
with open(sys.argv[1], "w") as metadata:
    metadata.write("Name: " + "n" * 1_000_000)' "$first"
    for number in $(seq 250); do
        distribution "long$number"
        ln -f "$first" "$info/METADATA"
    done
}

a_lock_is_long() {
    echo 'uv = 0.9.0' >>venv/pyvenv.cfg
    python3 -c 'print("long = [" + "[]," * 6_000_000 + "]")' >uv.lock
}

# A process of root's with a secret in files of /proc that the kernel shows only to root, whatever their mode.
an_archive_is_a_process_as_root() {
    install /usr/bin/sleep "/root/$SECRET"
    "/root/$SECRET" 60 >/dev/null 2>&1 &
    pid=$!
    echo $pid >"$KEEP/kept/pid"
    as mallory sh -euc '
        . /srv/hostile/plants.sh
        for name in maps smaps; do distribution $name "file:///proc/$1/$name" "\"archive_info\": {}"; done' sh $pid
}

an_archive_is_private() {
    umask 077
    wheel=$(wheel private)
    echo "$PASSWORD" >"$wheel"
}

credentials_cannot_be_read() {
    url=https://mallory:$PASSWORD@localhost
    distribution directory "$url/x" '"dir_info": {}'
    distribution local "file://mallory:$PASSWORD@localhost/x" '"dir_info": {}'
    distribution blank "$url/a b.whl" '"archive_info": {}'
    distribution typed "$url/x" "\"archive_info\": \"$url\""
    distribution several "$url/x" '"archive_info": {}, "dir_info": {}'
    distribution cloned "$url/a b" '"vcs_info": {"vcs": "git", "commit_id": "0a1b"}'
    distribution tracked "$url/x" "\"vcs_info\": {\"vcs\": \"$url\", \"commit_id\": \"0a1b\"}"
    distribution checked "$url/x" "\"vcs_info\": {\"vcs\": \"git\", \"commit_id\": \"$url\"}"
}

each_step_is_slow() {
    backdoor slow
    starts <<'PY'
# When venvguard asks it what works, each import takes long, and then fails.
if sys.argv[0] == "-":
    import time
    time.sleep(25)
    sys.modules["backdoor"] = None
PY
}
each_step_is_slow_as_root() { PATIENCE=50; }

a_source_is_everything() {
    backdoor nothing
    distribution wide file:///home/mallory '"dir_info": {}'
}

# The programs of the venv are in a directory of root's, and so is a file with the temporary name of a new program.
roots_bin_as_root() {
    echo root >venv/bin/.python3.venvguard
    chown -hR root: venv/bin
}
roots_bin_is_pinned_as_root() { roots_bin_as_root; }

# A venv whose interpreters are copies of another build.
copies() {
    rm -rf venv
    python3 -m venv --without-pip --copies venv
    python3 -c '
import sys
for name in sys.argv[1:]:
    with open(name, "r+b") as file:
        content = file.read()
        note = content.index(b"GNU\0", content.index(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0"))
        file.seek(note + 4)
        file.write(bytes([content[note + 4] ^ 1]))' venv/bin/python*
}
roots_bin_is_refreshed() { copies; }
roots_bin_is_refreshed_as_root() { roots_bin_as_root; }

# A directory of root's that can take the place of the venv's `bin`.
bin_is_exchanged_as_root() {
    cp -a venv/bin venv/theirs
    chown -hR root: venv/theirs
}
copies_are_exchanged() { copies; }
copies_are_exchanged_as_root() { bin_is_exchanged_as_root; }
