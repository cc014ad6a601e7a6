# Makes services of every kind on a machine, each in its own venv unless its name says otherwise, and starts them.
set -eu
app=/srv/app.py
: >/srv/starts
chmod 666 /srv/starts
useradd --create-home --shell /bin/sh guest

# The venvs, each owned by the user in front of it.
venvs() {
    owner=$1
    shift
    for name in "$@"; do install -d -o "$owner" "/srv/$name"; done
    su "$owner" -s /bin/sh -c "/usr/bin/python3 - $*" <<'PYTHON'
import sys, venv
for name in sys.argv[1:]:
    venv.create("/srv/%s/venv" % name, symlinks=name != "copied")
PYTHON
}
mkdir -p /srv/release/7 /srv/jail
venvs app plain wrapper pool dropped pre-fixed socketed watched present variable bound jail/opt transient dynamic forks release/7 \
    shared dependent copied sysv one two vassal-one vassal-two solo left right many second third runs ess own guest \
    apache plugin \
    crontab by-hand stopped masked finished timed idle
venvs root rooted
ln -s 7 /srv/release/current

# NAME LINES: a unit of systemd's.
unit() {
    printf '[Service]\nUser=app\nEnvironment=NAME=%%N\n%s\n' "$2" >"/etc/systemd/system/$1.service"
}
drop_in() {
    mkdir -p "/etc/systemd/system/$1.d"
    printf '[Service]\nExecStart=\n%s\n' "$2" >"/etc/systemd/system/$1.d/kind.conf"
}
script() {
    printf '#!/bin/sh\n%s\n' "$2" >"$1"
    chmod 755 "$1"
}
for name in plain socketed watched present stopped idle; do unit $name "ExecStart=/srv/$name/venv/bin/python $app"; done
unit rooted "User=root
ExecStart=/srv/rooted/venv/bin/python $app"
unit copied "ExecStart=/srv/copied/venv/bin/python $app"
unit wrapper ExecStart=/srv/wrapper/run
script /srv/wrapper/run ". /srv/wrapper/venv/bin/activate
exec python $app"
unit pool@ "ExecStart=/srv/pool/venv/bin/python $app"
unit dropped ExecStart=/bin/false
drop_in dropped.service "ExecStart=/srv/dropped/venv/bin/python $app"
unit pre-fixed ExecStart=/bin/false
drop_in pre-.service "ExecStart=/srv/%N/venv/bin/python $app"
for name in socketed idle; do
    printf '[Socket]\nListenStream=/run/%s.sock\n' $name >/etc/systemd/system/$name.socket
done
printf '[Path]\nPathChanged=/run/watched\n' >/etc/systemd/system/watched.path
printf '[Path]\nPathExists=/srv/present\n' >/etc/systemd/system/present.path
echo PYTHON=/srv/variable/venv/bin/python >/etc/default/variable
unit variable "EnvironmentFile=/etc/default/variable
ExecStart=/usr/bin/env \${PYTHON} $app"
unit bound "BindReadOnlyPaths=/srv/bound/venv:/opt/bound
ExecStart=/opt/bound/bin/python $app"
unit jailed "RootDirectory=/srv/jail
MountAPIVFS=yes
BindReadOnlyPaths=/usr /bin /lib /lib64 /etc $app
BindPaths=/srv/starts
ExecStart=/opt/venv/bin/python $app"
unit dynamic "User=dynamic
DynamicUser=yes
ReadWritePaths=/srv/starts
ExecStart=/srv/dynamic/venv/bin/python $app"
unit forks "Type=forking
ExecStart=/srv/forks/venv/bin/python $app forks"
unit linked "ExecStart=/srv/release/current/venv/bin/python $app"
for name in shared-a shared-b; do unit $name "ExecStart=/srv/shared/venv/bin/python $app"; done
unit dependent "ExecStart=/srv/dependent/venv/bin/python $app
[Unit]
Requires=plain.service
After=plain.service"
unit pair ExecStart=/srv/pair
script /srv/pair "NAME=pair-one /srv/one/venv/bin/python $app &
NAME=pair-two exec /srv/two/venv/bin/python $app"
unit finished "Type=oneshot
RemainAfterExit=yes
ExecStart=/srv/finished/venv/bin/python $app ends"
unit timed "Type=oneshot
ExecStart=/srv/timed/venv/bin/python $app ends"
printf '[Timer]\nOnCalendar=yearly\n' >/etc/systemd/system/timed.timer
unit masked "ExecStart=/srv/masked/venv/bin/python $app"
mv /etc/systemd/system/masked.service /usr/lib/systemd/system/

# Servers, with what they need installed.
for name in gunicorn celery emperor; do
    install -d -o app /srv/$name
    su app -c "/usr/bin/python3 -m venv /srv/$name/venv"
done
su app -c '
    /srv/gunicorn/venv/bin/pip install --quiet gunicorn packaging
    /srv/celery/venv/bin/pip install --quiet celery
    /srv/emperor/venv/bin/pip install --quiet pyuwsgi'
unit gunicorn "Environment=PYTHONPATH=/srv
RuntimeDirectory=gunicorn
ExecStart=/srv/gunicorn/venv/bin/gunicorn --preload --workers 2 --bind unix:/run/gunicorn/http.sock app:application"
nodes='w1 w2 --pidfile=/srv/celery/%%n.pid --logfile=/srv/celery/%%n.log'
unit celery "Type=forking
Environment=PYTHONPATH=/srv
ExecStart=/srv/celery/venv/bin/celery -A tasks multi start $nodes --pool=solo --without-gossip --without-mingle
ExecStop=/srv/celery/venv/bin/celery multi stopwait $nodes"
unit emperor "RuntimeDirectory=emperor
ExecStart=/srv/emperor/venv/bin/pyuwsgi --die-on-term --emperor /etc/vassals --emperor-wrapper /srv/emperor/vassal"
# Its arguments are --ini NAME.ini.
# shellcheck disable=SC2016
script /srv/emperor/vassal 'NAME=vassal-${2%.ini} exec /srv/emperor/venv/bin/pyuwsgi "$@"'
mkdir /etc/vassals
for name in one two; do
    {
        printf '[uwsgi]\nmaster = true\nprocesses = 1\ndie-on-term = true\nwsgi-file = %s\n' $app
        printf 'socket = /run/emperor/%s.sock\nvirtualenv = /srv/vassal-%s/venv\n' $name $name
    } >/etc/vassals/$name.ini
done

# Debian's own servers, which embed Python.
mkdir /etc/vassals-of-debian
printf '[uwsgi]\nplugins = python3\nuid = app\nmaster = true\ndie-on-term = true\nsocket = /srv/plugin/uwsgi.sock\nenv = NAME=plugin\nwsgi-file = %s\nvirtualenv = /srv/plugin/venv\n' \
    $app >/etc/vassals-of-debian/plugin.ini
unit emperor-of-debian "User=root
ExecStart=/usr/bin/uwsgi --die-on-term --emperor /etc/vassals-of-debian"
echo 'export NAME=apache' >>/etc/apache2/envvars
cat >/etc/apache2/conf-enabled/kinds.conf <<APACHE
WSGIDaemonProcess kinds user=app group=app processes=1 python-home=/srv/apache/venv
WSGIScriptAlias / $app process-group=kinds application-group=%{GLOBAL}
APACHE

# An init script.
script /etc/init.d/sysv "### BEGIN INIT INFO
# Provides: sysv
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
# Short-Description: a service of the lab
### END INIT INFO
export NAME=sysv
daemon='start-stop-daemon --pidfile /run/sysv.pid'
[ \$1 = start ] || \$daemon --stop --retry 5 --remove-pidfile
[ \$1 = stop ] || \$daemon --start --background --make-pidfile --chuid app --exec /srv/sysv/venv/bin/python -- $app"

# Three supervisords: two where venvguard looks for them, and one elsewhere.
program() {
    printf '[program:%s]\ncommand=/srv/%s/venv/bin/python %s\nenvironment=NAME="%s"\nuser=app\n' "$1" "$1" $app "$2"
}
{
    program solo solo
    program left left
    program right right
    printf '[group:duo]\nprograms=left,right\n'
    program many 'many_%(process_num)d'
    printf 'numprocs=2\nprocess_name=many_%%(process_num)d\n'
} >/etc/supervisor/conf.d/kinds.conf
daemon() {
    printf '[unix_http_server]\nfile=/run/%s.sock\n[supervisord]\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=/run/%s.pid\n' "$1" "$1"
    printf '[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n'
    program "$1" "$1"
}
daemon second >/etc/supervisord.conf
daemon third >/srv/third/supervisord.conf
unit supervisor-second "User=root
ExecStart=/usr/bin/supervisord --nodaemon --configuration /etc/supervisord.conf"
unit supervisor-third "User=root
ExecStart=/usr/bin/supervisord --nodaemon --configuration /srv/third/supervisord.conf"

# runit.
mkdir /etc/sv/runs
script /etc/sv/runs/run "NAME=runs exec chpst -u app /srv/runs/venv/bin/python $app"
ln -s /etc/sv/runs /etc/service/

# s6.
mkdir -p /etc/s6/ess /run/service
script /etc/s6/ess/run "NAME=ess exec s6-setuidgid app /srv/ess/venv/bin/python $app"
ln -s /etc/s6/ess /run/service/
unit s6 "User=root
ExecStart=/usr/bin/s6-svscan /run/service"

# Users' own units: of the owner of the venv, and of another user.
for user in app guest; do
    name=$user
    [ $user = guest ] || name=own
    units=/home/$user/.config/systemd/user
    install -d -o $user /home/$user/.config /home/$user/.config/systemd $units
    printf '[Service]\nEnvironment=NAME=%%N\nExecStart=/srv/%s/venv/bin/python %s\n' $name $app >$units/$name.service
    systemd-run --quiet --wait --pipe loginctl enable-linger $user
    runtime=/run/user/$(id -u $user)
    tries=0
    until [ -S "$runtime/systemd/private" ] || [ $tries -gt 200 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    setpriv --reuid $user --regid $user --init-groups --reset-env env XDG_RUNTIME_DIR="$runtime" \
        systemctl --user start $name
done

# What nobody restarts.
printf 'NAME=crontab\n@reboot app exec /srv/crontab/venv/bin/python %s\n' $app >/etc/cron.d/kinds
systemctl stop cron
rm -f /run/crond.reboot
NAME=by-hand setsid setpriv --reuid app --regid app --init-groups nohup /srv/by-hand/venv/bin/python $app \
    >/dev/null 2>&1 </dev/null &

systemctl daemon-reload
systemctl start cron runit supervisor supervisor-second supervisor-third sysv gunicorn celery emperor plain wrapper pool@1 pool@2 \
    dropped pre-fixed variable bound jailed dynamic forks linked shared-a shared-b dependent copied rooted pair \
    stopped masked finished timed.timer socketed.socket idle.socket watched.path present.path s6 emperor-of-debian
systemctl restart apache2
echo change >/run/watched
systemd-run --quiet --unit transient --uid app --setenv NAME=transient /srv/transient/venv/bin/python $app
/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("/run/socketed.sock")'
