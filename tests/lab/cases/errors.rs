//! Applications that come up on a new Python and do not serve: "active" and `RUNNING` say nothing about that.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::Case;
use super::downtime::watch;
use crate::machine::{Machine, Manager, Said, Service, wait_for};
use crate::prepare::upgrade::Kind;

pub(super) fn cases() -> Vec<Case> {
    let subject = "applications_that_answer_with_an_error";
    let case = Case::guarded(subject, Kind::TrixieMinor, &[], answer_with_an_error);
    vec![Case { extra: &["uwsgi-core", "uwsgi-plugin-python3"], ..case }]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    /// uWSGI in the venv, under supervisord.
    Uwsgi,
    Gunicorn,
    /// None: it listens itself.
    Own,
    /// Debian's uWSGI, under its emperor. It embeds the default Python, so a pin does not help.
    Emperor,
}

struct App {
    name: &'static str,
    server: Server,
    /// How a new Python breaks it.
    breaks: &'static str,
    is_checked: bool,
    is_probed: bool,
    /// Why it is pinned.
    told: &'static str,
}

const fn app(name: &'static str, server: Server, breaks: &'static str, told: &'static str) -> App {
    App { name, server, breaks, is_checked: false, is_probed: false, told }
}

const CHECK_FAILS: &str = "its check fails, and passed before the upgrade: ";
const PROBE_FAILS: &str = "supervisord:uwsgi-probed: /srv/uwsgi-probed/http.sock answers a request for / with HTTP status 500; before, ";
const DIES: &str = "systemd:dies.service: its workers do not last (";
const IS_DEAF: &str = "systemd:deaf.service: it is up, but does not listen on any address; before, it listened on /srv/deaf/http.sock";

const APPS: [App; 7] = [
    App { is_checked: true, ..app("uwsgi-checked", Server::Uwsgi, "import", CHECK_FAILS) },
    App { is_probed: true, ..app("uwsgi-probed", Server::Uwsgi, "import", PROBE_FAILS) },
    // Its check or its workers are noticed.
    App { is_checked: true, ..app("dies-checked", Server::Gunicorn, "dies", "") },
    app("dies", Server::Gunicorn, "dies", DIES),
    app("deaf", Server::Own, "deaf", IS_DEAF),
    App { is_checked: true, ..app("vassal", Server::Emperor, "no", "") },
    App { is_checked: true, ..app("vassal-breaks", Server::Emperor, "import", "") },
];

/// A venv that Debian's uWSGI runs, and that cannot be rebuilt.
const STUCK: App = app("stuck", Server::Emperor, "no", "");

const EMBEDDED: &str = "/usr/bin/uwsgi-core runs the venv's code, always with the default Python";

impl App {
    fn service(&self) -> Service {
        let (name, manager) = (self.name.to_owned(), Manager::Systemd);
        let (socket, venv) = (format!("/srv/{name}/http.sock"), format!("/srv/{name}/venv"));
        Service { manager, name, socket, venv }
    }

    /// A script that makes its venv.
    fn venv(&self) -> String {
        let venv = format!("/srv/{}/venv", self.name);
        let needs = match self.server {
            Server::Uwsgi => "packaging pyuwsgi",
            Server::Gunicorn => "packaging gunicorn",
            Server::Own | Server::Emperor => "packaging",
        };
        format!(
            "install -d -o app /srv/{}
             su app -c '/usr/bin/python3 -m venv --without-pip {venv} &&
                 /opt/tool/bin/pip --quiet --python {venv}/bin/python install {needs}'",
            self.name
        )
    }

    /// Makes its service, which is not started yet.
    fn make(&self, machine: &Machine) -> Result<()> {
        let Self { name, breaks, .. } = self;
        let (at, old) = (format!("/srv/{name}"), &machine.upgrade.about.from.minor);
        let unit = |command: &str| {
            machine.write(
                &format!("/etc/systemd/system/{name}.service"),
                &format!(
                    "[Service]\nUser=app\nEnvironment=PYTHONPATH=/srv BREAKS={breaks} WORKS_ON={old}\n\
                     ExecStart={at}/venv/bin/{command}\n"
                ),
            )
        };
        match self.server {
            Server::Uwsgi => machine.write(
                &format!("/etc/supervisor/conf.d/{name}.conf"),
                &format!(
                    "[program:{name}]\nuser=app\nenvironment=BREAKS=\"{breaks}\",WORKS_ON=\"{old}\"\n\
                     command={at}/venv/bin/pyuwsgi --master --die-on-term --http-socket {at}/http.sock \
                     --wsgi-file /srv/wrong.py --virtualenv {at}/venv\n"
                ),
            ),
            Server::Gunicorn => unit(&format!("gunicorn --bind unix:{at}/http.sock wrong:application")),
            Server::Own => unit(&format!("python /srv/wrong.py {at}/http.sock")),
            Server::Emperor => machine.write(
                &format!("/etc/vassals/{name}.ini"),
                &format!(
                    "[uwsgi]\nplugins = python3\nuid = app\nmaster = true\ndie-on-term = true\n\
                     http-socket = {at}/http.sock\nwsgi-file = /srv/wrong.py\n\
                     virtualenv = {at}/venv\nenv = BREAKS={breaks}\nenv = WORKS_ON={old}\n"
                ),
            ),
        }
    }

    fn register(&self, machine: &Machine) -> Result<()> {
        let Self { name, is_checked, is_probed, .. } = self;
        let check = format!("--check http+unix:/srv/{name}/http.sock:/");
        let check = if *is_checked { &check } else { "" };
        let said = machine.must(&format!(
            "venvguard register /srv/{name}/venv --name {name} --probe {is_probed} {check}"
        ))?;
        ensure!(!said.contains("fails"), "{said}");
        Ok(())
    }

    /// The state that `status` reports.
    fn state(&self, machine: &Machine) -> Result<Value> {
        let (_, status) = machine.venvguard_json(&format!("status {}", self.name))?;
        Ok(status["venvs"][0]["state"].clone())
    }

    /// It serves, and its packages are for this minor version.
    fn serves_on(&self, machine: &Machine, minor: &str) -> Result<()> {
        wait_until_it_serves(machine, &self.service())?;
        machine
            .must(&format!("/srv/{0}/venv/bin/python -c 'import packaging' && ls -d /srv/{0}/venv/lib/python{minor}/site-packages/packaging", self.name))
            .map(drop)
    }
}

const EMPEROR: &str = "[Service]\nExecStart=/usr/bin/uwsgi --die-on-term --emperor /etc/vassals\n";

fn make(machine: &Machine) -> Result<()> {
    let said = machine.apt("install /extra/*.deb")?;
    ensure!(said.code == 0, "{said:?}");
    machine.must("mkdir /etc/vassals; python3 -m venv /opt/tool")?;
    machine.write("/srv/wrong.py", include_str!("../apps/wrong.py"))?;
    machine.write("/etc/systemd/system/emperor.service", EMPEROR)?;
    let apps = || APPS.iter().chain([&STUCK]);
    let venvs: Vec<String> =
        apps().map(|app| format!("({}) & pids=\"$pids $!\"\n", app.venv())).collect();
    machine.must(&format!("{}for pid in $pids; do wait $pid || exit 1; done", venvs.concat()))?;
    for app in apps() {
        app.make(machine)?;
    }
    machine.must(
        "systemctl daemon-reload; systemctl start supervisor emperor dies-checked dies deaf",
    )?;
    machine.must("dpkg --install /package/venvguard_*.deb")?;
    machine.must("printf 'stable-for = 2\\nservice-timeout = 5\\n' >/etc/venvguard/config.toml")?;
    for app in apps() {
        wait_until_it_serves(machine, &app.service())?;
        app.register(machine)?;
    }
    Ok(())
}

/// As an upgrade of the whole system does: Debian's uWSGI gets a module for the new Python.
fn upgrade(machine: &Machine) -> Result<Said> {
    let packages = machine.upgrade.about.packages.join(" ");
    machine.apt(&format!("install {packages} uwsgi-plugin-python3"))
}

fn wait_until_it_serves(machine: &Machine, service: &Service) -> Result<()> {
    let serves = || Ok(machine.page(service, "/").is_ok());
    wait_for(&format!("{} to serve", service.name), serves)
}

/// Each application is back on the old Python soon, and only that which Debian's uWSGI runs stays on the new one.
fn answer_with_an_error(machine: &Machine) -> Result<()> {
    let (old, new) =
        (machine.upgrade.about.from.minor.clone(), machine.upgrade.about.to.minor.clone());
    make(machine)?;
    cannot_be_kept(machine)?;
    let services: Vec<Service> = APPS.iter().map(App::service).collect();
    let mut text = String::new();
    let watches = watch(machine, &services, "/", || {
        let said = upgrade(machine)?;
        ensure!(said.code == 0, "{said:?}");
        text = said.text;
        Ok(())
    })?;
    for (app, watch) in APPS.iter().zip(watches) {
        println!("lab: time with an error, or without an answer, of {}: {watch}", app.name);
    }
    for app in &APPS {
        if app.server == Server::Emperor {
            continue;
        }
        let told = format!(
            "{}: pinned: it still works with Python {old}, but was not rebuilt: {}",
            app.name, app.told
        );
        ensure!(text.contains(&told), "{told:?} is missing: {text}");
        app.serves_on(machine, &old)?;
        ensure!(app.state(machine)? == "healthy", "{}: {text}", app.name);
    }
    let [.., vassal, broken] = &APPS;
    ensure!(text.matches(EMBEDDED).count() >= 2, "{EMBEDDED:?} is missing: {text}");
    vassal.serves_on(machine, &new)?;
    ensure!(vassal.state(machine)? == "healthy", "{text}");
    // The old tree would be of no use to it.
    let told = text.split_once("vassal-breaks: rebuilt: ").map(|(_, told)| told);
    ensure!(told.is_some_and(|told| told.contains(CHECK_FAILS)), "{text}");
    ensure!(broken.state(machine)? == "check-fails", "{text}");
    ensure!(machine.venvguard("status")?.code == 3, "{text}");
    machine.must("sed -i s/BREAKS=import/BREAKS=no/ /etc/vassals/vassal-breaks.ini")?;
    broken.serves_on(machine, &new)?;
    ensure!(machine.venvguard("status")?.code == 0, "{:?}", machine.venvguard("status"));

    let said = machine.venvguard("rollback vassal")?;
    ensure!(said.code == 1 && said.text.contains(EMBEDDED), "{said:?}");
    wait_for("an error", || {
        Ok(machine.ask(&vassal.service(), "/").is_ok_and(|it| it.status == 500))
    })?;
    ensure!(vassal.state(machine)? == "orphaned", "{said:?}");
    machine.must("venvguard rollback vassal")?;
    vassal.serves_on(machine, &new)
}

/// If Debian's uWSGI runs a venv that cannot be rebuilt, dpkg does not begin.
fn cannot_be_kept(machine: &Machine) -> Result<()> {
    let new = machine.upgrade.about.to.minor.clone();
    machine.must(&format!(
        "sed -i 's/^Requires-Python: .*/Requires-Python: <{new}/' \
             /srv/stuck/venv/lib/python3*/site-packages/packaging-*.dist-info/METADATA"
    ))?;
    let packages = machine.packages()?;
    let blocked = upgrade(machine)?;
    let requires = format!("requires Python <{new}");
    for told in ["blocked", "stuck", EMBEDDED, &requires] {
        ensure!(blocked.text.contains(told), "{told:?} is missing: {blocked:?}");
    }
    ensure!(blocked.code != 0 && machine.packages()? == packages, "{blocked:?}");
    wait_until_it_serves(machine, &STUCK.service())?;
    machine.must("venvguard unregister stuck; rm /etc/vassals/stuck.ini").map(drop)
}
