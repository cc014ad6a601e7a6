//! venvguard on a machine: how to install and query it, and what must hold after every guarded upgrade.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::machine::{Machine, Manager, Said, Service, services_of};
use crate::prepare::venvs::Site;

/// The Python that a site runs on after an upgrade.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum On {
    Old,
    New,
}

impl Machine {
    /// Installs venvguard's package and registers every site, with its services and a check that queries one of them.
    pub(crate) fn install_guard(&self) -> Result<()> {
        self.must("dpkg --install /package/venvguard_*.deb")?;
        for site in self.sites.clone() {
            self.register(site, "")?;
        }
        Ok(())
    }

    /// Installs venvguard's package and leaves it to find the venvs, and later their services.
    pub(crate) fn install_guard_that_finds(&self) -> Result<()> {
        self.must("dpkg --install /package/venvguard_*.deb")?;
        let said = self.must("venvguard scan --register /srv")?;
        for site in &self.sites {
            ensure!(said.contains(&site.venv()), "{} was not found: {said}", site.venv());
        }
        Ok(())
    }

    /// Installs uv for all users, as an administrator does. The caller configures its index.
    pub(crate) fn install_uv(&self) -> Result<()> {
        self.must(
            "python3 -m zipfile -e /wheelhouse/uv-*.whl /tmp/uv
             install -m 755 /tmp/uv/uv-*.data/scripts/uv /usr/local/bin/uv
             mkdir -p /etc/uv",
        )?;
        Ok(())
    }

    /// Registers one site; `options` may change its policy.
    pub(crate) fn register(&self, site: Site, options: &str) -> Result<()> {
        let services = services_of(site);
        let declared: Vec<String> = services.iter().map(declaration).collect();
        let declared = declared.join(" ");
        self.must(&format!(
            "venvguard register {} --name {} {declared} {options} --check '{}'",
            site.venv(),
            site.name(),
            check_of(site),
        ))?;
        Ok(())
    }

    pub(crate) fn venvguard(&self, arguments: &str) -> Result<Said> {
        self.run(&format!("venvguard {arguments}"))
    }

    /// The output of `venvguard … --json`, and its exit code, which says whether something needs attention.
    pub(crate) fn venvguard_json(&self, arguments: &str) -> Result<(i32, Value)> {
        let said = self.stdout(&format!("venvguard {arguments} --json"))?;
        let value = serde_json::from_str(&said.text)
            .with_context(|| format!("venvguard {arguments} --json: {:?}", said.text))?;
        Ok((said.code, value))
    }

    /// The previous environments of a venv that `venvguard list` reports to hold files.
    pub(crate) fn reported_trees(&self, name: &str) -> Result<Vec<String>> {
        let (_, listed) = self.venvguard_json("list")?;
        let kept = named(&listed, name)?["previous_trees"].as_array();
        let kept = kept.with_context(|| format!("list names no trees of {name}"))?.iter();
        let reported = kept.filter(|tree| tree["holds_files"] == true);
        Ok(reported.filter_map(|tree| tree["path"].as_str().map(str::to_owned)).collect())
    }

    /// One venv in `venvguard status --json`.
    pub(crate) fn status_of(&self, site: Site) -> Result<Value> {
        let (_, status) = self.venvguard_json("status")?;
        named(&status, site.name()).cloned()
    }

    /// Checks a guarded upgrade: every service answers on the Python it should run on, nothing runs on an old one,
    /// `status` finds every venv healthy, and nothing is left to rebuild.
    pub(crate) fn assert_guarded(&self, expected: &[(Site, On)]) -> Result<()> {
        for (site, on) in expected {
            let python = match on {
                On::Old => &self.upgrade.about.from,
                On::New => &self.upgrade.about.to,
            };
            for service in services_of(*site) {
                self.page(&service, "/ok")?;
                if *site == Site::News {
                    self.page(&service, "/tls")?;
                }
                let version = self.answering_version(&service)?;
                ensure!(
                    version == python.upstream,
                    "{} answers with {version}, not with {}",
                    service.name,
                    python.upstream
                );
            }
            self.assert_no_process_but_on(*site, &python.minor)?;
            let status = self.status_of(*site)?;
            ensure!(status["state"] == "healthy", "status: {status}");
            ensure!(
                status["interpreter"]["version"] == python.upstream.as_str(),
                "status names another Python than {}: {status}",
                python.upstream
            );
        }
        let again = self.venvguard("rebuild --all --dry-run")?;
        ensure!(
            again.code == 0 && again.text.contains("nothing to do"),
            "rebuild --all --dry-run: {again:?}"
        );
        Ok(())
    }

    /// No process of a site runs an interpreter of another minor version, or deleted files.
    pub(crate) fn assert_no_process_but_on(&self, site: Site, minor: &str) -> Result<()> {
        let processes = self.processes_of(&site.venv())?;
        ensure!(!processes.is_empty(), "{} has no process", site.name());
        let copied = format!("{}/bin/", site.venv());
        for process in processes {
            ensure!(
                process.executable == format!("/usr/bin/python{minor}")
                    || process.executable.starts_with(&copied)
                        && !process.executable.ends_with("(deleted)"),
                "an old process is left: {process:?}"
            );
            ensure!(process.deleted.is_empty(), "an old process is left: {process:?}");
        }
        Ok(())
    }
}

/// The venv of this name in what a command says with `--json`.
pub(crate) fn named<'a>(said: &'a Value, name: &str) -> Result<&'a Value> {
    let mut venvs = said["venvs"].as_array().into_iter().flatten();
    let venv = venvs.find(|venv| venv["name"] == name);
    venv.with_context(|| format!("{name} is not named: {said}"))
}

/// A check that queries one of a site's services.
pub(crate) fn check_of(site: Site) -> String {
    let page = if site == Site::News { "tls" } else { "ok" };
    format!("curl -fsS --unix-socket {} http://lab/{page}", services_of(site)[0].socket)
}

/// A service as an option of `register`.
fn declaration(service: &Service) -> String {
    match service.manager {
        Manager::Systemd => format!("--service systemd:{}.service", service.name),
        Manager::Supervisord => format!("--service supervisord:{}", service.name),
    }
}
