//! Decisions, reasons and tables in words.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::apt::{ChangeKind, Hold};
use crate::host::file::{printable, printable_within};
use crate::plan::{Decision, Loss, Mention, Phase, Plan, Proof, Reason, Remedy, Restraint, Until};
use crate::python::{DEFAULT, path_of};
use crate::service::Service;
use crate::store::Pin;
use crate::venv::Additions;

use super::table::{Row, Tone};

/// The limits of one message: a user's venv must not flood apt's output.
const LINES: usize = 100;
const LINE: usize = 16 << 10;

/// A message whose further lines are indented below its first. Whatever it contains, it reaches
/// the terminal as plain text, and its length is limited.
pub(super) fn indented(message: &str) -> String {
    let mut lines = message.lines();
    let first = printable_within(lines.next().unwrap_or_default(), LINE);
    let text = lines
        .by_ref()
        .take(LINES - 1)
        .fold(first, |text, line| text + "\n    " + &printable_within(line.trim_start(), LINE));
    match lines.count() {
        0 => text,
        more => format!("{text}\n    … and {more} more lines"),
    }
}

/// Lines of data, as plain text.
pub(super) fn lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// `shop (/srv/shop/venv) is rebuilt for /usr/bin/python3 (Python 3.13)`, with the services and
/// the reasons.
pub(crate) fn decision(decision: &Decision) -> String {
    let what = match &decision.remedy {
        Remedy::None if decision.blocks => "blocks the upgrade".to_string(),
        Remedy::None => "is left alone".into(),
        Remedy::Restart => "is not changed".into(),
        Remedy::Refresh => "gets its copies of the interpreter and its pyvenv.cfg refreshed".into(),
        Remedy::Pin { to, .. } => format!("is pinned to {}", path_of(*to).display()),
        Remedy::Rebuild { target, .. } => format!(
            "is rebuilt for {} (Python {}){}",
            target.interpreter().display(),
            target.minor,
            if decision.phase == Phase::BeforeDpkg { ", before dpkg runs" } else { "" }
        ),
        Remedy::Restore { tree, minor, .. } => {
            format!("is rolled back to {} (Python {minor})", printable(&tree.0))
        }
        Remedy::Impossible => "cannot be repaired".into(),
    };
    let mut text = format!("{} ({}) {what}", decision.name, printable(&decision.path.0));
    if decision.acts() {
        text.push_str(&services(decision));
    }
    for reason in reasons(decision) {
        let _ = write!(text, "\n{reason}");
    }
    text
}

/// One line about an upgrade that affects venvs: how many get which remedy, and which are in its way.
pub(super) fn announcement(plan: &Plan) -> Option<String> {
    let named = |is_meant: fn(&&Decision) -> bool| {
        let names: Vec<&str> = plan.notable().filter(is_meant).map(|one| &*one.name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(names) = named(|one| one.blocks) {
        return Some(format!("this upgrade is blocked because of {names}: see `venvguard plan`"));
    }
    let unready = named(|one| !one.ready());
    let unready = unready.map(|names| format!("not ready: {names} (see `venvguard plan`)"));
    let parts: Vec<String> = work(plan).into_iter().chain(unready).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// `3 venvs: 1 to rebuild, 2 to restart`; `None` if an upgrade changes no venv.
pub(super) fn work(plan: &Plan) -> Option<String> {
    let count = |verb| (plan.notable().filter(|one| one.remedy.word() == verb).count(), verb);
    let counts = ["rebuild", "refresh", "restart", "pin"].map(count);
    let total: usize = counts.iter().map(|(number, _)| number).sum();
    let some = counts.iter().filter(|(number, _)| *number > 0);
    let work: Vec<String> = some.map(|(number, verb)| format!("{number} to {verb}")).collect();
    let venvs = if total == 1 { "venv" } else { "venvs" };
    (total > 0).then(|| format!("{total} {venvs}: {}", work.join(", ")))
}

/// One row about a decision: the venv, the effect, the remedy, whether it is ready, what restarts.
pub(super) fn summary(decision: &Decision) -> Row {
    let remedy = match &decision.remedy {
        _ if decision.blocks => "none: blocks".to_string(),
        Remedy::Pin { to, .. } => format!("pin to {to}"),
        Remedy::Rebuild { target, .. } => format!("rebuild for {}", target.minor),
        other => other.word().to_string(),
    };
    let (ready, tone) = match () {
        () if decision.blocks || decision.findings().next().is_some() => ("no", Tone::Bad),
        () if decision.proof() == Proof::Rehearsed => ("rehearsed", Tone::Good),
        // A rebuild that was not tried.
        () if decision.target().is_some() => ("likely", Tone::Attention),
        () => ("yes", Tone::Good),
    };
    let restarts: Vec<String> = decision.services.iter().map(ToString::to_string).collect();
    let restarts = if restarts.is_empty() { "-".into() } else { restarts.join(" ") };
    let effect = decision.effect.to_string();
    Row::new([decision.name.clone(), effect, remedy, ready.into(), restarts]).toned(3, tone)
}

fn services(decision: &Decision) -> String {
    if decision.services.is_empty() {
        let is_about_services: fn(&Reason) -> bool = |reason| {
            matches!(
                reason,
                Reason::LeftAlone { .. } | Reason::NotUnasked { .. } | Reason::AtRest(_)
            )
        };
        let has = |is_meant: fn(&Reason) -> bool| decision.reasons.iter().any(is_meant);
        let no_service = match () {
            () if has(is_about_services) => "restarts no service",
            () if has(|one| matches!(one, Reason::UnitOfUser { .. })) => {
                "restarts no service of the system"
            }
            () => "venvguard found no service that uses it",
        };
        return format!("; {no_service}");
    }
    let names: Vec<String> = decision.services.iter().map(ToString::to_string).collect();
    match decision.remedy {
        Remedy::Pin { outdated: false, .. } => format!("; leaves {} running", names.join(", ")),
        _ => format!("; restarts {}", names.join(", ")),
    }
}

/// `Python has been held since …, until … (by alice: reason): python3-minimal …`
pub(crate) fn hold(hold: &Hold) -> String {
    let until = hold.until.map(|until| format!(", until {until:.0}")).unwrap_or_default();
    let reason = hold.because.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let packages = hold.packages.join(" ");
    format!(
        "Python has been held since {:.0}{until} (by {}{reason}): {packages}",
        hold.since, hold.by
    )
}

/// The reasons of a decision.
pub(crate) fn reasons(decision: &Decision) -> Vec<String> {
    decision.reasons.iter().map(reason).collect()
}

/// One reason.
pub(crate) fn reason(reason: &Reason) -> String {
    match reason {
        Reason::NotDebian(path) => {
            format!("its base interpreter {} is not Debian's", printable(&path.0))
        }
        Reason::BrokenBefore => "it was broken before this change".into(),
        Reason::Mended => "it was broken before this change, which repairs it".into(),
        Reason::DefaultMoves { to, site } => {
            format!("{DEFAULT} will run Python {to}, but its distributions are for {site}")
        }
        Reason::DefaultRemoved => format!("{DEFAULT} is removed"),
        Reason::Removed(minor) => format!("{} is removed", path_of(*minor).display()),
        Reason::OldInMemory => "running processes keep the old interpreter in memory".into(),
        Reason::CopyOutdated { breaks: true } => {
            "its copied interpreter does not match the new library: it crashes or fails to import"
                .into()
        }
        Reason::CopyOutdated { breaks: false } => {
            "its copied interpreter does not match the new library: it lacks the fixes of the new interpreter"
                .into()
        }
        Reason::PolicyBlocks => "its policy is \"block\"".into(),
        Reason::UvCompares => {
            "uv recreates a venv if the version in its pyvenv.cfg differs from its interpreter's"
                .into()
        }
        Reason::NoWayBack => "the same apt run removes its old interpreter, so a failed rebuild would leave it broken".into(),
        Reason::NoOtherInterpreter => {
            "no other interpreter is installed for which it could be rebuilt".into()
        }
        Reason::Rehearsed => "its new environment is built and checked; the upgrade only swaps it in".into(),
        Reason::Resolved => "the index has a wheel of each distribution; none was tried".into(),
        Reason::NotReady(finding) | Reason::Loses(Loss { finding, .. }) => finding.to_string(),
        Reason::Breaks(finding) => format!("as it is, it breaks: {finding}"),
        Reason::LeftAlone { service, why } => format!("{service} is left alone: {why}"),
        Reason::NotUnasked { service, restraint } => not_unasked(service, restraint),
        Reason::AtRest(service) => format!("{service} does not run"),
        Reason::UnitOfUser { user, unit, restarts } => {
            let (user, unit) = (printable(user), printable(unit));
            let how = if *restarts { "is restarted through" } else { "keeps running in" };
            format!("user:{unit} of {user} {how} that user's own service manager")
        }
        Reason::RunsOn => {
            "its services run, and venvguard does not restart them automatically; `venvguard rebuild` moves the venv and restarts them".into()
        }
        Reason::NamedIn(Mention { file, line, name }) => format!(
            "{} line {line} names {}, which the rebuild removes: change that line afterwards",
            printable(&file.0),
            printable(&name.0)
        ),
        Reason::EmbeddedIn(program) => format!(
            "{} runs the venv's code, always with the default Python, so pinning the venv does not help",
            printable(&program.0)
        ),
        Reason::EmbeddedOn { program, minor } => format!(
            "{} runs the venv's code with Python {minor} until its module for Python is upgraded; then run `venvguard rebuild`",
            printable(&program.0)
        ),
    }
}

/// Why a running service is not restarted unasked.
fn not_unasked(service: &Service, restraint: &Restraint) -> String {
    let why = match restraint {
        Restraint::Listed => "its restart mode is \"list\"",
        Restraint::Never => "its restart mode is \"never\"",
        Restraint::Window(window) => &format!("it waits for its window ({window})"),
        Restraint::Machine(why) => why,
        Restraint::ShuttingDown => "the system is shutting down",
    };
    format!("{service} is not restarted: {why}")
}

/// How long a venv stays pinned, and why.
pub(crate) fn until(until: Until, because: Option<&str>) -> String {
    let why = match until {
        Until::Transaction => "for the current apt run",
        Until::Rebuilt => "until it is rebuilt",
        Until::RebuiltByHand => "because its services failed when it was rebuilt",
        Until::Policy => "because its policy is \"pin\"",
        Until::Asked => "because it was rolled back",
    };
    let mut lines = because.into_iter().flat_map(str::lines);
    match (lines.next(), lines.next()) {
        // A list follows.
        (Some(first), Some(second)) if first.ends_with(':') => {
            format!("{why}: {first} {}", second.trim())
        }
        (Some(first), _) => format!("{why}: {first}"),
        (None, _) => why.into(),
    }
}

/// Why a venv is pinned.
pub(crate) fn pin(pin: &Pin) -> String {
    until(pin.until, pin.because.as_deref())
}

/// How many of a venv's own files are named.
const FILES_NAMED: usize = 10;

/// `user file` or `modified file` with a path: the first few, and how many more there are.
pub(super) fn additions(additions: &Additions) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    for (what, paths) in [("user file", &additions.foreign), ("modified file", &additions.modified)]
    {
        lines.extend(paths.iter().take(FILES_NAMED).map(|path| (what, printable(&path.0))));
        if paths.len() > FILES_NAMED {
            lines.push(("", format!("and {} more", paths.len() - FILES_NAMED)));
        }
    }
    if additions.omitted > 0 {
        lines.push(("", format!("{} more are not listed", additions.omitted)));
    }
    lines
}

/// Why a venv blocks: the venv, and its interpreter before and after.
pub(super) fn block(decision: &Decision) -> String {
    let mut text = format!("{} ({})", decision.name, printable(&decision.path.0));
    if let Some(change) = &decision.change {
        let _ = write!(text, "\ninterpreter: {change}");
    }
    for reason in reasons(decision) {
        let _ = write!(text, "\n{reason}");
    }
    text
}

/// What a person can do about a blocked run.
pub(super) fn remediation(plan: &Plan) -> String {
    let blocking: Vec<&Decision> =
        plan.decisions.iter().filter(|decision| decision.blocks).collect();
    let by_policy: Vec<&Decision> = blocking
        .iter()
        .copied()
        .filter(|one| one.reasons.contains(&Reason::PolicyBlocks))
        .collect();
    let mut ways = Vec::new();
    if !by_policy.is_empty() {
        let paths = paths(&by_policy);
        ways.push(format!("allow the change: `venvguard register --policy auto {paths}`"));
    }
    let (removed, moved): (Vec<&Decision>, Vec<&Decision>) =
        blocking.iter().partition(|decision| is_removed(decision));
    if moved.iter().any(|decision| decision.change.is_some()) {
        ways.push("keep Python as it is and upgrade the rest: `venvguard hold`".into());
    }
    ways.extend(build_before(&blocking));
    ways.extend(mark_as_wanted(&removed));
    ways.extend(keep_libraries(&blocking));
    let paths = paths(&blocking);
    ways.push(format!("let venvguard only warn: `venvguard register --policy warn {paths}`"));
    ways.join("\nor ")
}

/// A prepared tree needs no way back.
fn build_before(blocking: &[&Decision]) -> Option<String> {
    let lacks_only_that =
        blocking.iter().copied().filter(|one| one.reasons.contains(&Reason::NoWayBack));
    let paths = paths(&lacks_only_that.collect::<Vec<_>>());
    (!paths.is_empty()).then(|| {
        format!("build the new environment first: `venvguard rehearse {paths}`, then run apt again")
    })
}

/// What a person can do if venvs could not be moved to the interpreter that remains.
pub(super) fn way_to_keep(plan: &Plan, ids: &[String]) -> String {
    let failed: Vec<&Decision> =
        plan.decisions.iter().filter(|one| ids.contains(&one.id)).collect();
    let fix = "fix the cause above and run apt again".to_string();
    std::iter::once(fix).chain(mark_as_wanted(&failed)).collect::<Vec<_>>().join("\nor ")
}

/// How apt keeps interpreters that nothing else needs. A hold does not keep them from autoremove.
fn mark_as_wanted(decisions: &[&Decision]) -> Option<String> {
    let packages: Vec<String> = programs(decisions)
        .into_iter()
        .flat_map(|program| [program.clone(), format!("{program}-minimal")])
        .collect();
    (!packages.is_empty())
        .then(|| format!("keep the interpreter: `apt-mark manual {}`", packages.join(" ")))
}

/// How apt keeps libraries that no package needs any more.
fn keep_libraries(decisions: &[&Decision]) -> Option<String> {
    let reasons = decisions.iter().flat_map(|decision| &decision.reasons);
    let packages: BTreeSet<&str> = reasons
        .filter_map(|reason| match reason {
            Reason::Loses(loss) => Some(loss.package.as_str()),
            _ => None,
        })
        .collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    (!packages.is_empty())
        .then(|| format!("keep the library: `apt-mark manual {}`", packages.join(" ")))
}

fn is_removed(decision: &Decision) -> bool {
    decision.change.as_ref().is_some_and(|change| change.kind == ChangeKind::Removed)
}

/// The names of the interpreters whose changes these decisions are about, each once.
fn programs(decisions: &[&Decision]) -> BTreeSet<String> {
    let changes = decisions.iter().filter_map(|decision| decision.change.as_ref());
    changes.filter_map(|change| Some(change.interpreter.file_name()?.to_str()?.into())).collect()
}

/// A size on disk: `312 MiB`.
pub(crate) fn in_mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// How many venvs are named in a command.
const VENVS_NAMED: usize = 5;

/// The venvs' paths, quoted for a shell.
fn paths(decisions: &[&Decision]) -> String {
    if decisions.len() > VENVS_NAMED {
        return "PATH...".to_string();
    }
    let quoted = |decision: &&Decision| {
        let path = printable(&decision.path.0);
        shlex::try_quote(&path).map_or_else(|_| path.clone(), std::borrow::Cow::into_owned)
    };
    decisions.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::Policy;
    use crate::python::Minor;

    #[test]
    fn output_of_a_venv_is_plain_text_and_forges_no_message() {
        let said = "module x: it\u{1b}]0;x\u{7} says\nvenvguard: forged\u{202e}";
        assert_eq!(
            indented(said),
            "module x: it\\u{1b}]0;x\\u{7} says\n    venvguard: forged\\u{202e}"
        );
        assert_eq!(lines("a\u{1b}[2J\nb"), "a\\u{1b}[2J\nb");
    }

    #[test]
    fn a_message_is_limited_in_length() {
        let long = indented(&format!("begin\n{}", "x\n".repeat(5000)));
        assert_eq!(long.lines().count(), LINES + 1);
        assert!(long.ends_with("\n    … and 4901 more lines"), "{long}");
        assert!(indented(&"\u{1b}".repeat(1 << 20)).len() <= LINE + 3);
    }

    /// A venv that a change of `/usr/bin/python3.11` blocks or strands.
    fn decided(path: &str, policy: Policy, version: &str) -> Decision {
        use crate::apt::samples::system;
        use crate::plan::{samples::subject, upgrade};
        let before = system(&["3.11.2-6"]);
        let after = if version.is_empty() { system(&[]) } else { system(&[version]) };
        let mut subject = subject(crate::venv::BaseLink::Pinned, Minor::new(3, 11));
        (subject.policy, subject.venv.path) = (policy, path.into());
        let facts = std::collections::BTreeMap::new();
        upgrade(&[subject], &facts, &before, &after, Phase::BeforeDpkg).decisions.remove(0)
    }

    #[test]
    fn hints_name_venvs_and_packages() {
        let way = |decisions: &[Decision]| {
            remediation(&Plan { decisions: decisions.to_vec(), ..Plan::default() })
        };
        let policy = decided("/srv/my shop/venv", Policy::Block, "3.11.2-7");
        assert_eq!(
            way(&[policy]),
            "allow the change: `venvguard register --policy auto '/srv/my shop/venv'`\n\
             or keep Python as it is and upgrade the rest: `venvguard hold`\n\
             or let venvguard only warn: `venvguard register --policy warn '/srv/my shop/venv'`"
        );
        let gone = decided("/srv/shop", Policy::Auto, "");
        assert!(gone.blocks, "{gone:?}");
        assert_eq!(
            way(&[gone.clone(), Decision { path: Path::new("/srv/blog").into(), ..gone.clone() }]),
            "keep the interpreter: `apt-mark manual python3.11 python3.11-minimal`\n\
             or let venvguard only warn: `venvguard register --policy warn /srv/shop /srv/blog`"
        );
        let unknown = Decision { change: None, ..gone.clone() };
        assert_eq!(
            way(&vec![unknown; 6]),
            "let venvguard only warn: `venvguard register --policy warn PATH...`"
        );
        let no_way_back = Decision { reasons: vec![Reason::NoWayBack], ..gone.clone() };
        let first = "build the new environment first: `venvguard rehearse /srv/shop`, then run apt again\nor ";
        let told = way(&[no_way_back]);
        assert!(told.starts_with(first), "{told}");
        let plan = Plan { decisions: vec![gone.clone()], ..Plan::default() };
        assert_eq!(
            way_to_keep(&plan, std::slice::from_ref(&gone.id)),
            "fix the cause above and run apt again\n\
             or keep the interpreter: `apt-mark manual python3.11 python3.11-minimal`"
        );
    }
}
