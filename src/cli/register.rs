//! `register` and `unregister`.

use super::Exit;
use super::arguments::Register;
use crate::guard::{Guard, Registered, Registration};
use crate::host::file::printable;
use crate::report::Report;
use crate::service::Service;
use crate::store::RegistryEntry;

pub(super) fn register(guard: &Guard, wanted: &Register) -> anyhow::Result<Exit> {
    let services: Vec<Service> = wanted.services.iter().flatten().cloned().collect();
    let registered = guard.register(&Registration {
        paths: &wanted.paths,
        name: wanted.name.as_deref(),
        services: (!wanted.services.is_empty()).then_some(services.as_slice()),
        check: wanted.check.as_deref(),
        policy: wanted.policy,
        restart: wanted.restart,
        window: wanted.window.as_ref().map(Option::as_ref),
        rolling: wanted.rolling.as_ref().map(Option::as_ref),
        probe: wanted.probe,
        requirements: wanted.requirements.as_deref(),
        lock: wanted.lock.as_deref(),
        build_command: wanted.build_command.as_deref(),
        relax: wanted.relax,
    })?;
    let mut exit = Exit::Done;
    for one in registered {
        let one = one?;
        print_registered(&guard.report, &one);
        if one.check_fails.is_some() {
            exit = Exit::Attention;
        }
    }
    Ok(exit)
}

fn print_registered(report: &Report, one: &Registered) {
    let Registered { entry, venv, not_exact, check_fails } = one;
    report.data(format!(
        "{}: {}, {} by {}, Python {}",
        entry.name,
        printable(&venv.path),
        venv.base.link,
        venv.flavour,
        venv.site
    ));
    for reason in not_exact {
        report.note(&format!("{}: {reason}", entry.name));
    }
    if let Some(error) = check_fails {
        report.note(&format!("{}: its check fails now: {error}", entry.name));
        report.hint(
            "correct the check: one that already fails cannot detect that an upgrade breaks the application",
        );
    }
    if !venv.base.is_debian {
        report.note(&format!(
            "{}: its base interpreter {} does not belong to Debian: no upgrade changes it, and venvguard leaves the venv alone",
            entry.name,
            printable(&venv.base.path)
        ));
    }
}

pub(super) fn unregister(guard: &Guard, venvs: &[String]) -> anyhow::Result<Exit> {
    for entry in guard.unregister(venvs)? {
        print_unregistered(&guard.report, &entry);
    }
    Ok(Exit::Done)
}

fn print_unregistered(report: &Report, entry: &RegistryEntry) {
    report.data(format!("{}: unregistered; {} is unchanged", entry.name, printable(entry.path())));
    if let Some(pinned) = &entry.pin {
        report.note(&format!("it stays pinned to Python {}, which must stay installed", pinned.to));
    }
    for kept in entry.previous_trees.latest_first() {
        report.note(&format!(
            "the previous environment stays at {}; remove it when you no longer need it",
            printable(kept.path())
        ));
    }
}
