//! Monitoring: `node_exporter` serves the metrics, Nagios's user and a login read the summary.

use anyhow::{Result, ensure};

use super::Case;
use crate::machine::{Machine, wait_for};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = Case::guarded("metrics", Kind::TrixieMinor, &[Site::Followed], served);
    vec![Case { extra: &["prometheus-node-exporter"], ..case }]
}

const FILE: &str = "/var/lib/prometheus/node-exporter/venvguard.prom";

/// What an ordinary user of the machine, as the agents of monitoring are, learns.
const ASK: &str =
    "setpriv --reuid nobody --regid nogroup --clear-groups venvguard status --nagios --verbose";

fn served(machine: &Machine) -> Result<()> {
    machine.must("dpkg --install /extra/*.deb && systemctl start prometheus-node-exporter")?;
    machine.must("dpkg --install /package/venvguard_*.deb")?;
    machine.must("systemctl is-active venvguard-metrics.timer")?;
    let said = machine.stdout(ASK)?;
    ensure!(said.code == 0 && said.text.contains("no venv is registered"), "{said:?}");
    machine.register(Site::Followed, "")?;
    sample(machine, "venvguard_venvs{state=\"healthy\"} 1")?;
    sample(machine, "venvguard_guard_enabled 1")?;

    machine.must_upgrade_python()?;
    sample(machine, "venvguard_venvs{state=\"healthy\"} 1")?;
    sample(machine, "venvguard_last_run_success 1")?;
    let said = machine.stdout(ASK)?;
    let first = "VENVGUARD OK - 1 venv healthy|'age'=";
    ensure!(said.code == 0 && said.text.starts_with(first), "{said:?}");
    ensure!(said.text.contains("\nfollowed: healthy"), "{said:?}");
    let login = machine.must("run-parts /etc/update-motd.d")?;
    ensure!(!login.contains("venvguard"), "{login}");

    // The service fails, and the unit of the timer finds out.
    machine.must(
        "mkdir -p /run/systemd/system/followed.service.d
         printf '[Service]\\nExecStartPre=/bin/false\\nRestart=no\\n' >/run/systemd/system/followed.service.d/fails.conf
         systemctl daemon-reload; systemctl restart followed || true
         systemctl start venvguard-metrics.service",
    )?;
    sample(machine, "venvguard_services_failed 1")?;
    let said = machine.stdout(ASK)?;
    ensure!(said.code == 2 && said.text.contains("of followed failed"), "{said:?}");
    let login = machine.must("run-parts /etc/update-motd.d")?;
    ensure!(login.contains("venvguard: systemd:followed.service of followed failed"), "{login}");

    // Without the snippet, apt does not call venvguard.
    machine.must(
        "mv /etc/apt/apt.conf.d/50venvguard /root/ && systemctl start venvguard-metrics.service",
    )?;
    sample(machine, "venvguard_guard_enabled 0")?;
    let said = machine.stdout(ASK)?;
    ensure!(said.code == 2 && said.text.contains("apt does not call venvguard"), "{said:?}");
    machine.must("mv /root/50venvguard /etc/apt/apt.conf.d/")?;

    // node_exporter's user puts a link in place of the directory: nothing is written where it leads.
    machine.must(
        "mv /var/lib/prometheus/node-exporter /var/lib/prometheus/away
         ln -s /etc /var/lib/prometheus/node-exporter",
    )?;
    let said = machine.run("venvguard metrics --write")?;
    ensure!(said.code == 1 && said.text.contains("cannot write venvguard.prom"), "{said:?}");
    machine.must("test ! -e /etc/venvguard.prom").map(drop)
}

/// Waits until `node_exporter` serves a sample.
fn sample(machine: &Machine, sample: &str) -> Result<()> {
    let served = "curl -fsS http://localhost:9100/metrics | grep ^venvguard_";
    wait_for(sample, || Ok(machine.run(served)?.text.lines().any(|line| line == sample)))?;
    let errors = machine.must(&format!(
        "test \"$(stat -c %a {FILE})\" = 644 && \
        curl -fsS http://localhost:9100/metrics | grep ^node_textfile_scrape_error"
    ))?;
    ensure!(errors.trim() == "node_textfile_scrape_error 0", "{errors}");
    Ok(())
}
