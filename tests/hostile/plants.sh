# The plants: a function for each attack of `attacks.rs`, which runs as the attacker in the directory of their venv. A
# function with `_as_root` at the end runs as root, and does what somebody else does in the attacker's favour, or what
# another kernel would permit them.

# A distribution in the venv, and its source.
distribution() {
    site=$(echo venv/lib/python3*/site-packages)
    info=$site/$1-1.0.dist-info
    mkdir -p "$info"
    printf 'Metadata-Version: 2.1\nName: %s\nVersion: 1.0\n' "$1" >"$info/METADATA"
    echo "$1-1.0.dist-info/METADATA,," >"$info/RECORD"
    [ $# = 1 ] || printf '{"url": "%s", %s}' "$2" "$3" >"$info/direct_url.json"
}

# A distribution with the attacker's build backend, and the additional deed of that.
backdoor() {
    distribution backdoor file:///home/mallory/src '"dir_info": {}'
    echo backdoor.py,, >>"$info/RECORD"
    touch "$site/backdoor.py"
    echo "$1" >~/src/how
}

# Code of the attacker's that runs with every Python of the venv; standard input adds to it. Not a `sitecustomize`, because
# Debian's own comes first.
starts() {
    site=$(echo venv/lib/python3*/site-packages)
    echo 'import startup' >"$site/startup.pth"
    {
        echo 'import sys; sys.path.insert(0, "/home/mallory"); import payload; payload.report("startup")'
        cat
    } >"$site/startup.py"
}

# A program of the attacker's.
script() {
    printf '#!/usr/bin/python3\nimport sys; sys.path.insert(0, "/home/mallory"); import payload; payload.report("script")\n' >"$1"
    chmod 755 "$1"
}

# The file system of the attacker's in `never.py`; see there.
never() {
    mkdir ~/never
    setsid python3 /srv/hostile/never.py ~/never "$@" >~/never.pid 2>~/never.log </dev/null &
    for _ in $(seq 100); do
        [ ! -s ~/never.pid ] || return 0
        sleep 0.1
    done
    cat ~/never.log
    return 1
}

cfg_is_a_fifo() { rm venv/pyvenv.cfg; mkfifo venv/pyvenv.cfg; }
cfg_is_a_device() { rm venv/pyvenv.cfg; }
cfg_is_a_device_as_root() { mknod -m 666 venv/pyvenv.cfg c 1 5; }
cfg_is_a_directory() { rm venv/pyvenv.cfg; mkdir venv/pyvenv.cfg; }
cfg_is_two_gibibytes() { truncate -s 2G venv/pyvenv.cfg; }
cfg_has_nuls() { printf 'home = /usr/bin\000/../../etc\nversion = 3.13.5\000\n\000\000' >venv/pyvenv.cfg; }
cfg_is_a_link_to_a_secret() { ln -sf /root/canary.cfg venv/pyvenv.cfg; }
cfg_is_a_link_to_shadow() { ln -sf /etc/shadow venv/pyvenv.cfg; }
cfg_is_a_second_name_of_a_secret() { rm venv/pyvenv.cfg; }
cfg_is_a_second_name_of_a_secret_as_root() { ln /root/canary venv/pyvenv.cfg; }

home_is_anywhere() {
    mkdir ~/fake
    script ~/fake/python3
    cp ~/fake/python3 ~/fake/python3.13
    printf '%s\n' 'home = /home/mallory/fake' 'executable = /home/mallory/fake/python3' \
        'base-executable = /root/../home/mallory/fake/python3' 'version = 3.13.5' >venv/pyvenv.cfg
    ln -sf /home/mallory/fake/python3 venv/bin/python3
}

home_is_roots() {
    printf 'home = /root\nversion = 3.13.5\n' >venv/pyvenv.cfg
    ln -sf /root/python3 venv/bin/python3
}

python_is_a_script() { rm venv/bin/python3; script venv/bin/python3; }
python_is_setuid() { rm venv/bin/python3; cp /usr/bin/python3 venv/bin/python3; chmod 6755 venv/bin/python3; }
python_is_a_fifo() { rm venv/bin/python3; mkfifo venv/bin/python3; }
python_is_a_second_name_of_roots() { rm venv/bin/python3; }
python_is_a_second_name_of_roots_as_root() { ln /usr/local/bin/who venv/bin/python3; }

roots_files_in_the_venv() { rm venv/.env; mkdir venv/mine; }
roots_files_in_the_venv_as_root() {
    for name in .env mine/x lib/python3.13/site-packages/x.py; do ln /root/canary venv/$name; done
    mkdir -m 700 venv/roots
    cp /root/canary venv/roots/
}

records_lead_out() {
    distribution evil file:///root/place/../../root '"dir_info": {"editable": true}'
    up=../../../../../../..
    printf '%s,sha256=AAAA,1\n' $up/root/canary /etc/canary $up/home/bob/canary ../../../../src/how >>"$info/RECORD"
    printf '/root/canary\n%s/root/canary\n' $up >"$info/top_level.txt"
    printf '[console_scripts]\n%s/root/planted = x:y\n' $up >"$info/entry_points.txt"
    printf '/root\n%s/root\n' $up >"$site/out.pth"
    printf '/root/place\n' >"$site/evil.egg-link"
}

archives_lead_out() { distribution evil file:///root/canary '"archive_info": {}'; }

a_record_names_a_tebibyte() {
    backdoor nothing
    echo huge,sha256=AAAA,1 >>"$info/RECORD"
    truncate -s 1T "$site/huge"
}

a_record_names_what_never_ends() {
    backdoor nothing
    echo huge,sha256=AAAA,1 >>"$info/RECORD"
    sleep 4714 >/dev/null 2>&1 &
    ln -s /proc/$!/pagemap "$site/huge"
}

names_are_for_the_terminal() {
    odd=$(printf 'evil\033[2J\nFORGED')
    distribution "$odd"
    distribution odd 'https://x/\\u001b[2J\\nFORGED' '"archive_info": {}'
    printf 'Metadata-Version: 2.1\nName: odd\033[2J\nVersion: 1.0\033]0;x\007\n' >"$info/METADATA"
    touch "venv/$odd" "$site/$odd.py" "venv/bin/$odd"
    mkdir "venv/$odd.d"
    echo x >"venv/$odd.d/$odd"
    ln -s "$odd" "venv/$odd.link"
    printf 'prompt = \033[2Jx\nhome = /usr/bin\033[2J\n' >>venv/pyvenv.cfg
    cp -a venv "$odd"
    printf 'home = /%s' "$odd" >>"$odd/pyvenv.cfg"
    ln -sf "/opt/$odd/python3" "$odd/bin/python3"
}

what_it_says_is_for_the_terminal() {
    starts <<'PY'
import json, os
print(json.dumps(["module", f"x{os.getpid()}\x1b[2J", "it\x1b]0;x\x07 says\nFORGED"]), flush=True)
PY
}

startup_code() { starts </dev/null; }
startup_code_reads_what_never_comes() {
    never
    starts <<'PY'
with open("/home/mallory/never.pid") as file:
    never = f"/proc/{file.read().strip()}/root/home/mallory/never/file"
with open(never) as file:
    file.read()
PY
}
a_command_line_never_comes() { never blocks && [ ! -s ~/never.log ]; }
backend_does_what_it_can() { backdoor nothing; }
backend_makes_a_wheel_that_leads_out() { backdoor 'leads out'; }
backend_hangs() { backdoor hangs; }
backend_forks() { backdoor forks; }
backend_floods_the_output() { backdoor floods; }
backend_fills_the_disk() { backdoor fills; }
backend_fills_the_disk_as_root() {
    cd /
    cp -a "$PLACE" /mnt/place &&
        mount -t tmpfs -o size=60m,mode=755 small "$PLACE" &&
        cp -a /mnt/place/. "$PLACE" &&
        rm -r /mnt/place
}
backend_fills_the_disk_of_the_state() { backdoor fills; }

# Root's own venv, with a stranger's build script in it.
backend_in_a_venv_of_roots_as_root() {
    mkdir -p /srv/roots/src
    cd /srv/roots
    cp "$KEEP/src/pyproject.toml" src/
    cat >src/backend.py <<'PY'
def build_wheel(directory, settings=None, metadata=None):
    for place in ["/dev", "/etc", "/srv", "/opt", "/root", "/usr/bin", "/var/tmp", "/srv/roots/src"]:
        try:
            open(f"{place}/planted", "x").close()
        except OSError:
            pass
    raise RuntimeError
PY
    [ -d venv ] || python3 -m venv --without-pip venv
    distribution backend file:///srv/roots/src '"dir_info": {}'
    venvguard register venv --name roots
}

the_venv_is_a_link() { mv venv away; ln -s /home/bob/place/venv venv; }
its_directory_is_a_link() { cd; mv place away; ln -s /home/bob/place place; }
its_directory_is_a_link_to_roots() { cd; mv place away; ln -s /root/place place; }
lib_is_a_link() { rm -r venv/lib; ln -s /home/bob/place/venv/lib venv/lib; }
site_packages_is_a_link() {
    cd venv/lib/python3*
    rm -r site-packages
    ln -s /home/bob/place/venv/lib/python3.13/site-packages site-packages
}
bin_is_a_link() { rm -r venv/bin; ln -s /home/bob/place/venv/bin venv/bin; }
the_project_is_bobs() { echo /home/bob/place >venv/.project; }
a_lock_is_deep() {
    echo 'uv = 0.9.0' >>venv/pyvenv.cfg
    # Neither the tables nor the keys alone exceed the depth that a TOML parser permits, but both together do.
    key=$(printf 'a.%.0s' $(seq 70))a tables=$(seq 70)
    {
        printf '[[package]]\nname = "x"\nsource = { registry = '
        for _ in $tables; do printf '{%s = ' "$key"; done
        printf 1
        for _ in $tables; do printf '}'; done
        printf ' }\n'
    } >uv.lock
}
# The attack's commands tamper with the previous environment.
the_previous_tree_is_a_link() { :; }
the_previous_tree_is_a_trap() { :; }
the_previous_tree_is_roots_as_root() { mkdir -m 700 roots; cp /root/canary roots/; }

a_forged_supervisord_as_root() { supervisord lies; chown mallory: /etc/supervisord.conf; }
a_supervisord_that_hangs_as_root() { supervisord hangs; }
a_supervisord_that_floods_as_root() { supervisord floods; }

# A configuration of root's that names a socket of the attacker's.
supervisord() {
    printf '[unix_http_server]\nfile=/home/mallory/s.sock\n' >/etc/supervisord.conf
    as mallory python3 "$KEEP/listener.py" /home/mallory/s.sock "$1" >/dev/null 2>&1
}

# A process with terminal controls in its name, in a control group that the attacker named after a service.
a_forged_service_as_root() {
    number=$(id -u mallory)
    systemctl start "user@$number"
    group=/sys/fs/cgroup/user.slice/user-$number.slice/user@$number.service
    [ -d $group/init.scope ] || echo '--- not planted'
    mkdir -p $group/system.slice/canary.service
    as mallory VIRTUAL_ENV="$PLACE/venv" python3 -c '
import os, sys
open("/proc/self/comm", "w").write("(canary)\x1b[2J")
os.execv(sys.argv[1], ["python3 evil\x1b[2J\nFORGED", "-c", "import time; time.sleep(4714)", "\x1b[2J"])
' "$PLACE/venv/bin/python" >/dev/null 2>&1 &
    echo $! >$group/system.slice/canary.service/cgroup.procs
    sleep 0.3
}

others_can_write_the_configuration_as_root() { chmod 666 /etc/venvguard/config.toml; }

# shellcheck source=tests/hostile/trees.sh
. /srv/hostile/trees.sh
