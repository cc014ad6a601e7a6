//! The list that apt hands to `DPkg::Pre-Install-Pkgs`, in version 3.
//!
//! `VERSION 3`, then `key=value` lines of apt's configuration, a blank line, then a line an
//! action: `name oldversion oldarch oldmultiarch op newversion newarch newmultiarch action`.
//! The action is the rest of the line: a path (with spaces as they are), `**CONFIGURE**`,
//! `**REMOVE**` or `**ERROR**`. A version that does not exist is `-`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::python::is_debian_version;

/// An action on one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) package: String,
    /// The Debian version that is installed, if one is.
    pub(crate) from: Option<String>,
    /// The Debian version that will be installed; none for a removal.
    pub(crate) to: Option<String>,
    /// Its files are unpacked, also over the same version; else it is only configured.
    pub(crate) unpacks: bool,
}

impl Action {
    /// Whether its package is one of Python's own, and its name and versions are well-formed.
    pub(super) fn is_on_python(&self) -> bool {
        concerns_python(self.package.as_bytes())
            && is_package_name(&self.package)
            && self.from.iter().chain(&self.to).all(|text| is_debian_version(text))
    }
}

/// The part of apt's list that concerns Python and the libraries of extension modules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) actions: Vec<Action>,
    /// The packages of the system's architecture that are removed, whatever they contain.
    pub(crate) removed: BTreeSet<String>,
    /// The archives that dpkg will unpack, of all packages.
    pub(crate) archives: Vec<PathBuf>,
    /// apt only prints what it would tell dpkg (`Debug::pkgDPkgPM`, which
    /// `unattended-upgrade --dry-run` sets): nothing will change.
    pub(crate) dry_run: bool,
    /// apt was told to ask no questions (`-y`, `-qq`).
    pub(crate) assumes_yes: bool,
    /// `APT::Architecture`, if apt names it.
    pub(crate) architecture: Option<String>,
    /// `APT::Default-Release`, which `-t` sets for one run.
    pub(crate) default_release: Option<String>,
    /// `VenvGuard::Mode`, which `-o` sets for one run.
    pub(crate) mode: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("cannot read apt's list: {0}")]
    Io(#[from] std::io::Error),
    #[error(
        "apt's list begins with {0:?} instead of \"VERSION 3\" (is DPkg::Tools::Options set for this hook?)"
    )]
    Version(String),
    #[error("line {line} of apt's list is not an action: {text:?}")]
    Action { line: usize, text: String },
    #[error("apt's list is larger than {} bytes", Transaction::LIMIT)]
    TooLarge,
}

impl Transaction {
    /// In bytes, many times the size of the list of a full upgrade.
    pub(crate) const LIMIT: u64 = 16 << 20;

    /// Reads the list. Only actions on Python's own packages are checked: venvguard does not complain
    /// about faults in other lines.
    pub(crate) fn read(source: impl Read) -> Result<Self, ProtocolError> {
        let mut source = BufReader::with_capacity(64 << 10, source.take(Self::LIMIT));
        let mut transaction = Self::default();
        let mut line = Vec::new();
        let mut number = 0;
        let mut length = 0;
        let mut in_actions = false;
        loop {
            line.clear();
            let read = source.read_until(b'\n', &mut line)?;
            length += read as u64;
            if length >= Self::LIMIT {
                return Err(ProtocolError::TooLarge);
            }
            if read == 0 && number > 0 {
                return Ok(transaction);
            }
            number += 1;
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            if number == 1 {
                if text != b"VERSION 3" {
                    return Err(ProtocolError::Version(lossy(text)));
                }
            } else if in_actions {
                transaction.read_action(text, number)?;
            } else if text.is_empty() {
                in_actions = true;
            } else {
                transaction.read_option(text);
            }
        }
    }

    fn read_option(&mut self, text: &[u8]) {
        // apt ignores the case of its options, and prints each as it was first set.
        let mut halves = text.splitn(2, |byte| *byte == b'=');
        let (Some(key), Some(value)) = (halves.next(), halves.next()) else { return };
        let is = |name: &str| key.eq_ignore_ascii_case(name.as_bytes());
        // To apt, a value that is not a boolean gives the default: false.
        let truth = || truth(value).unwrap_or(false);
        if is("Debug::pkgDPkgPM") {
            self.dry_run = truth();
        } else if is("APT::Get::Assume-Yes") || is("Aptitude::CmdLine::Assume-Yes") {
            self.assumes_yes |= truth();
        } else if is("quiet") {
            self.assumes_yes |=
                std::str::from_utf8(value).is_ok_and(|text| number(text) >= Some(2));
        } else if is("APT::Architecture") {
            self.architecture = Some(lossy(value));
        } else if is("APT::Default-Release") {
            self.default_release = Some(lossy(value)).filter(|release| !release.is_empty());
        } else if is("VenvGuard::Mode") {
            self.mode = Some(lossy(value));
        }
    }

    /// Whether it installs a package of Python's; otherwise it only removes some.
    pub(crate) fn installs(&self) -> bool {
        self.actions.iter().any(|action| action.unpacks)
    }

    fn is_native(&self, architecture: &[u8]) -> bool {
        architecture == b"all"
            || self.architecture.as_ref().is_none_or(|own| own.as_bytes() == architecture)
    }

    fn read_action(&mut self, text: &[u8], line: usize) -> Result<(), ProtocolError> {
        let mut fields = text.splitn(9, |byte| *byte == b' ');
        let name = fields.next().unwrap_or_default();
        let architecture = fields.nth(1).unwrap_or_default();
        match fields.last() {
            Some(path @ [b'/', ..]) => self.archives.push(OsStr::from_bytes(path).into()),
            Some(b"**REMOVE**") if self.is_native(architecture) => {
                self.removed.insert(lossy(name));
            }
            _ => {}
        }
        if !concerns_python(name) {
            return Ok(());
        }
        let malformed = || ProtocolError::Action { line, text: lossy(text) };
        let text = std::str::from_utf8(text).map_err(|_| malformed())?;
        let fields: Vec<&str> = text.splitn(9, ' ').collect();
        let [name, old, _, _, operation, new, _, _, action] = fields.as_slice() else {
            return Err(malformed());
        };
        if !matches!(*operation, "<" | ">" | "=") {
            return Err(malformed());
        }
        let version = |text: &str| (text != "-").then(|| text.to_string());
        if !is_package_name(name) || ![old, new].into_iter().all(|text| is_debian_version(text)) {
            return Err(malformed());
        }
        match *action {
            // The action is unknown; its result is seen afterwards.
            "**ERROR**" => {}
            "**REMOVE**" => {
                self.actions.push(Action {
                    package: (*name).to_string(),
                    from: version(old),
                    to: None,
                    unpacks: false,
                });
            }
            _ => self.actions.push(Action {
                package: (*name).to_string(),
                from: version(old),
                to: Some(version(new).ok_or_else(malformed)?),
                unpacks: *action != "**CONFIGURE**",
            }),
        }
        Ok(())
    }
}

/// A boolean as apt reads it (`StringToBool`, apt-pkg/contrib/strutl.cc): a word, or a number
/// as `strtol` reads it in base 0. Any other text is not a boolean.
fn truth(value: &[u8]) -> Option<bool> {
    let text = std::str::from_utf8(value).ok()?;
    let is_one_of = |words: [&str; 5]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_one_of(["yes", "true", "with", "on", "enable"]) {
        return Some(true);
    }
    if is_one_of(["no", "false", "without", "off", "disable"]) {
        return Some(false);
    }
    match number(text)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn number(text: &str) -> Option<i64> {
    let (sign, digits) = match text.split_at_checked(1) {
        Some(("-", digits)) => (-1, digits),
        Some(("+", digits)) => (1, digits),
        _ => (1, text),
    };
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (digits, base) = match (hex, digits.strip_prefix('0')) {
        (Some(hex), _) => (hex, 16),
        (None, Some(octal)) if !octal.is_empty() => (octal, 8),
        _ => (digits, 10),
    };
    // `from_str_radix` would accept a second sign.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    i64::from_str_radix(digits, base).ok()?.checked_mul(sign)
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text.get(..200).unwrap_or(text)).into_owned()
}

/// Whether a text uses the alphabet of Debian's package names (Policy 5.6.1).
pub(super) fn is_package_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte);
    !name.is_empty() && name.bytes().all(fits)
}

/// Whether a package of this name is part of Debian's Python itself: `python3`,
/// `python3-minimal`, `python3-venv`, `python3.13`, `libpython3.13-stdlib` and so on,
/// but not the hundreds of modules packaged as `python3-something`.
pub(crate) fn concerns_python(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"lib").unwrap_or(name).strip_prefix(b"python3") else {
        return false;
    };
    match rest {
        b"" | b"-minimal" | b"-venv" | b"-stdlib" | b"-pip-whl" | b"-setuptools-whl" => true,
        [b'.', digit, ..] => digit.is_ascii_digit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "VERSION 3\nAPT::Architecture=amd64\nquiet=1\n\n";

    fn read(text: &str) -> Result<Transaction, ProtocolError> {
        Transaction::read(text.as_bytes())
    }

    #[test]
    fn upgrades_removals_and_new_packages_are_read() {
        let list = format!(
            "{HEAD}fpy 1.0-1 amd64 allowed < 1.1-1 amd64 allowed /t/repo/./fpy_1.1-1_amd64.deb\n\
             python3-minimal 3.11.2-1+b1 amd64 allowed < 3.13.5-1 amd64 allowed /var/cache/a b.deb\n\
             python3.13-minimal - - none < 3.13.5-2 amd64 allowed /x.deb\n\
             python3.11-minimal 3.11.2-6 amd64 allowed > - - none **REMOVE**\n\
             python3.13-minimal - - none < 3.13.5-2 amd64 allowed **CONFIGURE**\n"
        );
        let action = |package: &str, from: Option<&str>, to: Option<&str>| Action {
            package: package.into(),
            from: from.map(Into::into),
            to: to.map(Into::into),
            unpacks: to.is_some(),
        };
        assert_eq!(
            read(&list).unwrap(),
            Transaction {
                actions: vec![
                    action("python3-minimal", Some("3.11.2-1+b1"), Some("3.13.5-1")),
                    action("python3.13-minimal", None, Some("3.13.5-2")),
                    action("python3.11-minimal", Some("3.11.2-6"), None),
                    Action {
                        unpacks: false,
                        ..action("python3.13-minimal", None, Some("3.13.5-2"))
                    },
                ],
                removed: BTreeSet::from(["python3.11-minimal".to_string()]),
                architecture: Some("amd64".into()),
                archives: ["/t/repo/./fpy_1.1-1_amd64.deb", "/var/cache/a b.deb", "/x.deb",]
                    .map(PathBuf::from)
                    .to_vec(),
                ..Transaction::default()
            }
        );
    }

    #[test]
    fn apts_dry_run_is_seen() {
        let list = "VERSION 3\nDebug::pkgDPkgPM=1\nAPT::Get::Assume-Yes=1\n\n";
        assert!(read(list).unwrap().dry_run);
        assert!(!read("VERSION 3\nAPT::Get::Assume-Yes=1\n\n").unwrap().dry_run);
    }

    #[test]
    fn a_wish_for_no_questions_is_seen() {
        let assumes_yes = |line: &str| read(&format!("VERSION 3\n{line}\n\n")).unwrap().assumes_yes;
        for line in [
            "APT::Get::Assume-Yes=1",
            "apt::get::assume-yes=true",
            "Aptitude::CmdLine::Assume-Yes=yes",
            "quiet=2",
        ] {
            assert!(assumes_yes(line), "{line}");
        }
        for line in ["APT::Get::Assume-Yes=0", "quiet=1", "quiet=", "APT::Get::Assume-No=1"] {
            assert!(!assumes_yes(line), "{line}");
        }
    }

    #[test]
    fn the_release_of_one_run_is_read() {
        let release = |line: &str| read(&format!("VERSION 3\n{line}\n\n")).unwrap().default_release;
        assert_eq!(release("APT::Default-Release=forky").as_deref(), Some("forky"));
        assert_eq!(release("APT::Default-Release="), None);
    }

    #[test]
    fn the_mode_of_one_run_is_read() {
        let mode = |line: &str| read(&format!("VERSION 3\n{line}\n\n")).unwrap().mode;
        assert_eq!(mode("VenvGuard::Mode=block").as_deref(), Some("block"));
        assert_eq!(mode("venvguard::mode=").as_deref(), Some(""));
        assert_eq!(mode("VenvGuard::Other=block"), None);
    }

    #[test]
    fn a_dry_run_is_seen_in_every_spelling_that_apt_accepts() {
        let is_dry = |line: &str| read(&format!("VERSION 3\n{line}\n\n")).unwrap().dry_run;
        for word in ["1", "true", "yes", "on", "with", "enable", "Yes", "TRUE", "01", "0x1", "+1"] {
            assert!(is_dry(&format!("Debug::pkgDPkgPM={word}")), "{word}");
        }
        for word in [
            "0",
            "false",
            "no",
            "off",
            "without",
            "disable",
            "OFF",
            "00",
            "0x0",
            "-0",
            "",
            "2",
            "-1",
            "1x",
            "+-1",
            "0x",
            "y",
            "maybe",
            "99999999999999999999",
        ] {
            assert!(!is_dry(&format!("Debug::pkgDPkgPM={word}")), "{word}");
        }
        // apt's own lookup ignores the case, and `-o` sets the spelling.
        assert!(is_dry("debug::pkgdpkgpm=yes"));
        assert!(!is_dry("Debug::pkgDPkgPM::x=1") && !is_dry("Debug::pkgDPkgPM"));
    }

    #[test]
    fn another_protocol_version_is_reported() {
        assert!(matches!(read("VERSION 2\n\n"), Err(ProtocolError::Version(_))));
        assert!(matches!(read("/var/cache/apt/archives/x.deb\n"), Err(ProtocolError::Version(_))));
        assert!(matches!(read(""), Err(ProtocolError::Version(_))));
    }

    #[test]
    fn a_cut_line_is_an_error_only_if_it_concerns_python() {
        assert!(read(&format!("{HEAD}hello 1.0\n")).is_ok());
        for line in [
            "python3 3.11 amd64",
            "python3.1\u{1b}[2J 3.11 amd64 none < 3.13 amd64 none /x.deb",
            // The comparison of versions would panic.
            "python3 3.11 amd64 none < 3.13\u{fffd} amd64 none /x.deb",
        ] {
            let error = read(&format!("{HEAD}{line}\n")).unwrap_err();
            assert!(matches!(error, ProtocolError::Action { line: 5, .. }), "{error}");
        }
    }

    #[test]
    fn modules_packaged_by_debian_are_not_python_itself() {
        for name in [
            "python3",
            "python3-minimal",
            "python3.13",
            "libpython3.13-stdlib",
            "libpython3-stdlib",
            "python3.13-venv",
        ] {
            assert!(concerns_python(name.as_bytes()), "{name}");
        }
        for name in
            ["python3-requests", "python-is-python3", "libpython2.7", "python3-pip", "apython3"]
        {
            assert!(!concerns_python(name.as_bytes()), "{name}");
        }
    }
}
