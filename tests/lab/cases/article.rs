//! The second article, as it was written: gunicorn imports a news page before gevent patches ssl, TLS fails, and the
//! restart after an upgrade of Python is blamed. The two repairs that its author tried fail for reasons of their own.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Case;
use crate::guard::On;
use crate::machine::{Machine, Service, services_of, wait_for};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let case = Case::guarded("second_article", Kind::ArticlePatch, &[Site::News], second_article);
    vec![Case { extra: &["python3-gunicorn"], ..case }]
}

const WORKERS: usize = 3;

/// The latest gunicorn; and that of Debian's package, whose master waits by a function that gevent patches, as the
/// article's did.
const NEW_GUNICORN: &str = "/srv/news/venv/bin/gunicorn";
const OLD_GUNICORN: &str = "/usr/bin/env PYTHONPATH=/srv:/srv/old/usr/lib/python3/dist-packages /srv/news/venv/bin/python -m gunicorn";

const DROP_IN: &str = "[Service]
ExecStart=
ExecStart=GUNICORN --preload --worker-class gevent --workers WORKERS --bind unix:/run/news/http.sock run:app
";

const REGISTER: &str = "venvguard register /srv/news/venv --name news --service systemd:news.service \
    --check 'curl -fsS --unix-socket /run/news/http.sock http://lab/tls'";

const PAGE: &str = include_str!("../apps/article/run.py");
const SCHEDULER: &str = "\n\nbegin(BackgroundScheduler())\n";
const SCHEDULER_IN_A_PROCESS: &str = "\n
from multiprocessing import Process

Process(target=begin, args=[BlockingScheduler()]).start()
";
const PATCHED_FIRST: &str = "from gevent import monkey\nmonkey.patch_all()\n";

/// What `diagnose` proposes for the configuration file of gunicorn.
const PATCHED_ALONE: &str = "from gevent import monkey; monkey.patch_ssl()";

fn second_article(machine: &Machine) -> Result<()> {
    let article = Article { machine, service: services_of(Site::News).remove(0) };
    machine.must(
        "mkdir /etc/systemd/system/news.service.d; install -o app /dev/null /srv/news/runs",
    )?;
    machine.must("dpkg --extract /extra/python3-gunicorn_*.deb /srv/old")?;
    article.is_run_by(NEW_GUNICORN)?;
    article.begins(&[PAGE, SCHEDULER])?;
    article.fails_by_tls()?;
    article.runs_its_job_in(1)?;

    machine.must("dpkg --install /package/venvguard_*.deb")?;
    let said = machine.run(REGISTER)?;
    ensure!(said.code == 3 && said.text.contains("its check fails now: "), "{said:?}");
    article.is_patched_late().context("before the upgrade")?;
    let said = machine.must_upgrade_python()?;
    let told = "its check failed before, and still does: ";
    ensure!(said.text.contains(told), "{told:?} is missing from the output: {said:?}");
    ensure!(!said.text.contains("rolled"), "{said:?}");
    machine.wait_until_serving(&article.service)?;
    let version = machine.answering_version(&article.service)?;
    ensure!(version == machine.upgrade.about.to.upstream, "it runs {version}");
    let fix = article.is_patched_late().context("after the upgrade")?;

    article.begins(&[PATCHED_FIRST, PAGE, SCHEDULER])?;
    machine.page(&article.service, "/tls")?;
    article.runs_its_job_in(WORKERS)?;
    article.is_forked("each of them ran it")?;
    article.is_run_by(OLD_GUNICORN)?;
    article.begins(&[PATCHED_FIRST, PAGE, SCHEDULER])?;
    machine.page(&article.service, "/tls")?;
    article.runs_its_job_in(WORKERS + 1)?;
    article.is_forked("workers + 1 runs, as the master runs it too")?;
    article.is_run_by(NEW_GUNICORN)?;

    article.begins(&[PATCHED_FIRST, PAGE, SCHEDULER_IN_A_PROCESS])?;
    machine.page(&article.service, "/tls")?;
    article.runs_its_job_in(1)?;
    machine.must("systemctl reload news")?;
    machine.wait_for_log(&article.service, "AssertionError: can only join a child process")?;
    article.cause("process-forked")?;

    ensure!(fix.contains(&format!("`{PATCHED_ALONE}`")), "{fix}");
    machine.write("/srv/news/gunicorn.conf.py", &format!("{PATCHED_ALONE}\n"))?;
    article.begins(&[PAGE, SCHEDULER])?;
    machine.page(&article.service, "/tls")?;
    article.runs_its_job_in(1)?;
    machine.assert_guarded(&[(Site::News, On::New)])?;
    let (code, none) = machine.venvguard_json("diagnose news")?;
    ensure!(code == 0 && none["causes"] == serde_json::json!([]), "{none}");
    Ok(())
}

/// The page on its machine.
struct Article<'a> {
    machine: &'a Machine,
    service: Service,
}

impl Article<'_> {
    fn is_run_by(&self, gunicorn: &str) -> Result<()> {
        let drop_in =
            DROP_IN.replace("GUNICORN", gunicorn).replace("WORKERS", &WORKERS.to_string());
        self.machine.write("/etc/systemd/system/news.service.d/article.conf", &drop_in)?;
        self.machine.must("systemctl daemon-reload").map(drop)
    }

    /// Starts the page anew, made of these parts.
    fn begins(&self, parts: &[&str]) -> Result<()> {
        self.machine.write("/srv/news/run.py", &parts.concat())?;
        self.machine.must("systemctl stop news; : >/srv/news/runs; systemctl start news")?;
        self.machine.wait_until_serving(&self.service)
    }

    fn fails_by_tls(&self) -> Result<()> {
        let answer = self.machine.ask(&self.service, "/tls")?;
        ensure!(answer.status == 500, "{answer:?}");
        self.machine.wait_for_log(&self.service, "RecursionError: maximum recursion depth exceeded")
    }

    /// Waits until so many processes have run the job, one of them several times: no other process runs it.
    fn runs_its_job_in(&self, processes: usize) -> Result<()> {
        let runs = || self.machine.must("cat /srv/news/runs");
        wait_for(&format!("the job to run in {processes} processes"), || {
            let runs = runs()?;
            let last = runs.lines().last();
            let of_last = runs.lines().filter(|run| Some(*run) == last).count();
            Ok(of_last > 2 && count(&runs) >= processes)
        })
        .with_context(|| format!("it runs in {} processes", count(&runs().unwrap_or_default())))?;
        let found = count(&runs()?);
        ensure!(found == processes, "the job runs in {found} processes, not in {processes}");
        Ok(())
    }

    /// The only cause, asked by name and by unit, is that gevent patched ssl late; no upgrade is blamed, and the importers
    /// are named. Returns the remedy.
    fn is_patched_late(&self) -> Result<String> {
        self.fails_by_tls()?;
        let cause = self.cause("gevent-patched-late")?;
        let evidence = cause["evidence"].to_string();
        let importer = "urllib3.util (/srv/news/venv/lib/";
        ensure!(evidence.contains(importer), "{importer:?} is missing: {cause}");
        Ok(cause["remedy"].as_str().context("no remedy")?.to_owned())
    }

    /// The only cause is the fork. `runs` says in which processes the job runs.
    fn is_forked(&self, runs: &str) -> Result<()> {
        let cause = self.cause("scheduler-forked")?;
        let told = format!("gunicorn started {WORKERS} workers: {runs}");
        ensure!(cause["evidence"].to_string().contains(&told), "{told:?} is missing: {cause}");
        Ok(())
    }

    /// The only cause, asked by name and by unit. This machine confirms it, and no upgrade is blamed for it.
    fn cause(&self, id: &str) -> Result<Value> {
        let (code, by_name) = self.machine.venvguard_json("diagnose news")?;
        let (_, by_unit) = self.machine.venvguard_json("diagnose --unit news.service")?;
        ensure!(code == 3 && by_name == by_unit, "{by_name}\n{by_unit}");
        let causes = by_name["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let [cause] = causes else { anyhow::bail!("{id} is not the only cause: {by_name}") };
        let is_it = cause["id"] == id && cause["certainty"] == "verified";
        ensure!(is_it && cause["caused_by_upgrade"] == false, "{id}: {cause}");
        Ok(cause.clone())
    }
}

fn count(runs: &str) -> usize {
    runs.lines().collect::<BTreeSet<_>>().len()
}
