//! An ordinary user's own venv, guarded without root, beside users whose registries try to do harm.

use anyhow::{Context, Result, ensure};

use super::{Case, Half};
use crate::machine::{Machine, Manager, Service, wait_for};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = |half, run| Case {
        subject: "users_own_venv",
        half,
        upgrade: Kind::TrixieMinor,
        sites: &[Site::Followed],
        extra: &[],
        run,
    };
    vec![
        case(Half::Unguarded, unguarded),
        case(Half::Guarded, guarded),
        Case { subject: "users_venv_that_root_guards_too", ..case(Half::Guarded, guarded_twice) },
    ]
}

const VENV: &str = "/srv/followed/venv";

/// The user's own unit, which serves from the venv in place of the system's.
const UNIT: &str = "[Service]
WorkingDirectory=/srv/followed
Environment=PYTHONPATH=/srv
ExecStart=/srv/followed/venv/bin/gunicorn --workers 1 --bind unix:/srv/followed/http.sock app:application
Restart=on-failure
RestartSec=100ms

[Install]
WantedBy=default.target
";

pub(super) fn make_unit(machine: &Machine) -> Result<Service> {
    machine.must(
        "set -e
         systemctl disable --quiet --now followed
         systemd-run --quiet --wait --pipe loginctl enable-linger app
         install -d -o app -g app /home/app/.config /home/app/.config/systemd /home/app/.config/systemd/user",
    )?;
    machine.write("/home/app/.config/systemd/user/web.service", UNIT)?;
    wait_for("the user's manager to run", || {
        Ok(machine.run("test -S /run/user/1000/systemd/private")?.code == 0)
    })
    .with_context(|| {
        let log = "journalctl --quiet --no-pager --boot --lines 60; loginctl user-status app; ls -la /run/user /run/user/1000; systemctl status user@1000";
        machine.run(log).map(|said| said.text).unwrap_or_default()
    })?;
    as_user(
        machine,
        "app",
        "systemctl --user daemon-reload && systemctl --user enable --quiet --now web",
    )?;
    let service = Service {
        manager: Manager::Systemd,
        name: "web".into(),
        socket: "/srv/followed/http.sock".into(),
        venv: VENV.into(),
    };
    machine.wait_until_serving(&service)?;
    Ok(service)
}

/// Runs a script as a user who has logged in.
pub(super) fn as_user(machine: &Machine, name: &str, script: &str) -> Result<String> {
    machine.must(&format!(
        "cd /; setpriv --reuid {name} --regid {name} --init-groups --reset-env \
         env XDG_RUNTIME_DIR=/run/user/$(id -u {name}) sh -euc '{script}'"
    ))
}

fn unguarded(machine: &Machine) -> Result<()> {
    let service = make_unit(machine)?;
    machine.must_upgrade_python()?;
    machine.page(&service, "/ok")?;
    as_user(machine, "app", "systemctl --user restart web || true")?;
    wait_for("the user's unit to fail", || {
        let log = machine.must("journalctl --quiet --no-pager _SYSTEMD_USER_UNIT=web.service")?;
        Ok(log.contains("No module named 'gunicorn'"))
    })
}

/// Users whose registries are not as `venvguard register` left them, with the tricks that make them so and the words in
/// apt's output.
const TRICKS: [(&str, &str, &str); 8] = [
    (
        "another",
        "install -m 644 /tmp/of-app.json $STATE/registry.json",
        "user another: error: venvguard refuses followed and does not repair it: it belongs to app",
    ),
    (
        "unit",
        "venvguard register ~/venv --service user:precious
         sed -i s/\\\"user\\\"/\\\"systemd\\\"/ $STATE/registry.json",
        "user unit: error: venvguard refuses unit and does not repair it: systemd:precious.service is not a unit of your own service manager",
    ),
    (
        "command",
        "printf \"#!/bin/sh\\nid -u >>~/who\\ntouch /root/reached || true\\n\" >~/check; chmod +x ~/check
         venvguard register ~/venv --check ~/check",
        "user command: command: rebuilt",
    ),
    ("fifo", "mkfifo $STATE/registry.json", "registry.json is not a regular file"),
    ("link", "ln -s /etc/shadow $STATE/registry.json", "registry.json is not a regular file"),
    ("large", "truncate -s 1G $STATE/registry.json", "registry.json is larger than"),
    (
        "hangs",
        "venvguard register ~/venv; rm $STATE/lock; mkfifo $STATE/lock",
        "user hangs: the repair of their venvs takes too long",
    ),
    (
        "talks",
        "venvguard register ~/venv --check true
         printf \"\\033[2J\" | tee $STATE/registry.json >/dev/null",
        "user talks: error: ",
    ),
];

fn guarded(machine: &Machine) -> Result<()> {
    let new = machine.upgrade.about.to.clone();
    let service = make_unit(machine)?;
    machine.must("dpkg --install /package/venvguard_*.deb")?;
    machine.must("printf '[users]\\nallow = [\"nobody\"]\\n' >/etc/venvguard/config.toml")?;
    let register = format!("venvguard register {VENV}");
    let refused = as_user(machine, "app", &format!("! {register} 2>&1"))?;
    ensure!(refused.contains("the administrator does not let you"), "{refused}");
    machine.must("printf '[users]\\ntime-limit = 20\\n' >/etc/venvguard/config.toml")?;
    as_user(machine, "app", &register)?;
    let services = as_user(machine, "app", "venvguard show followed")?;
    ensure!(services.contains("user:web.service"), "the unit is not found: {services}");
    machine.must("cp /home/app/.local/state/venvguard/registry.json /tmp/of-app.json")?;
    lay_traps(machine)?;
    let shadow = machine.must("sha256sum /etc/shadow; systemctl show -p InvocationID precious")?;

    let said = machine.must_upgrade_python()?;
    for (_, _, told) in TRICKS {
        ensure!(said.text.contains(told), "{told:?} is missing from the output: {said:?}");
    }
    ensure!(!said.text.contains('\u{1b}'), "the output contains terminal controls: {said:?}");
    ensure!(said.text.contains("restarted user:web.service"), "{said:?}");
    ensure!(
        !said.text.contains("building in place"),
        "an ordinary user got no mount namespace: {said:?}"
    );

    machine.wait_until_serving(&service)?;
    ensure!(machine.answering_version(&service)? == new.upstream, "it runs the old Python");
    machine.assert_no_process_but_on(Site::Followed, &new.minor)?;
    let status = as_user(machine, "app", "venvguard status")?;
    ensure!(status.contains("healthy"), "{status}");
    let others = machine
        .must("find /srv/followed /home/app ! -user app ! -name app.py ! -name web.service")?;
    ensure!(others.is_empty(), "these no longer belong to the user: {others}");
    ensure!(machine.must("venvguard list 2>&1")?.contains("no venv is registered"));

    let after = machine.must("sha256sum /etc/shadow; systemctl show -p InvocationID precious")?;
    ensure!(after == shadow, "something of root's was touched: {shadow} {after}");
    machine.must(
        "test ! -e /root/reached
         test \"$(sort -u /home/command/who)\" = \"$(id -u command)\"",
    )?;

    let told =
        machine.must("journalctl --quiet -t venvguard _UID=1000 VENVGUARD_VENV=followed -o cat")?;
    for act in ["swapping", "restart: user:web.service", "rebuilt"] {
        ensure!(
            told.contains(&format!("followed: {act}")),
            "{act:?} is not in the journal: {told}"
        );
    }

    as_user(machine, "app", "venvguard rollback followed")?;
    machine.wait_until_serving(&service)?;
    ensure!(machine.answering_version(&service)? == machine.upgrade.about.from.upstream);
    as_user(machine, "app", "venvguard rebuild followed && venvguard prune followed")?;
    machine.wait_until_serving(&service)?;
    ensure!(machine.answering_version(&service)? == new.upstream);
    let history = as_user(machine, "app", "venvguard history")?;
    ensure!(history.matches("rebuilt").count() == 2, "{history}");
    as_user(machine, "app", "venvguard unregister followed")?;
    Ok(())
}

/// Root repairs the venv first; the user's own venvguard still restarts the user's unit.
fn guarded_twice(machine: &Machine) -> Result<()> {
    let new = machine.upgrade.about.to.clone();
    let service = make_unit(machine)?;
    machine.must("dpkg --install /package/venvguard_*.deb")?;
    let register = format!("venvguard register {VENV}");
    machine.must(&register)?;
    let said = as_user(machine, "app", &format!("{register} 2>&1"))?;
    ensure!(said.contains(&format!("root guards {VENV} as well")), "{said}");
    let said = machine.must_upgrade_python()?;
    for told in ["venvguard: followed: rebuilt", "user app: followed: restarted"] {
        ensure!(said.text.contains(told), "{told:?} is missing from the output: {said:?}");
    }
    machine.wait_until_serving(&service)?;
    ensure!(machine.answering_version(&service)? == new.upstream, "it runs the old Python");
    machine.assert_no_process_but_on(Site::Followed, &new.minor)?;
    let status = as_user(machine, "app", "venvguard status")?;
    ensure!(status.contains("healthy"), "{status}");
    Ok(())
}

/// Gives each of these users a home, a venv and a trick.
fn lay_traps(machine: &Machine) -> Result<()> {
    machine.write(
        "/etc/systemd/system/precious.service",
        "[Service]\nExecStart=/bin/sleep infinity\n",
    )?;
    machine
        .must("chmod 644 /tmp/of-app.json; systemctl daemon-reload; systemctl start precious")?;
    for (name, trick, _) in TRICKS {
        machine.must(&format!("useradd --create-home --shell /bin/sh {name}"))?;
        as_user(
            machine,
            name,
            &format!(
                "STATE=~/.local/state/venvguard; mkdir -p $STATE
                 /usr/bin/python3 -m venv --without-pip ~/venv\n{trick}"
            ),
        )?;
    }
    Ok(())
}
