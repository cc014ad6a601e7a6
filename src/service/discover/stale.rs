//! Detects processes that still have an old interpreter in memory.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::process::{MappedFile, Process};
use crate::host::file;
use crate::venv::venv_of_aside;

impl Process {
    /// Why this process runs old code, if it does. `interpreter` is the current base interpreter
    /// of its venv (`/usr/bin/python3.13`), if it has one.
    ///
    /// A copied interpreter that is itself unchanged, while its library has moved on, cannot be
    /// detected if it has loaded none of its extension modules. Such a venv has to be refreshed
    /// anyway, and that replaces the copy.
    pub(crate) fn stale(&self, interpreter: Option<&Path>) -> Option<String> {
        let images = || self.exe.iter().chain(&self.mapped);
        if let Some(gone) = images().find(|image| image.deleted && is_python(&image.path)) {
            return Some(format!("{} was replaced after the process started", shown(gone)));
        }
        if let Some(gone) = images().find(|image| image.deleted && is_extension(&image.path)) {
            return Some(format!("{} was replaced after the process loaded it", shown(gone)));
        }
        if self.has_own_root {
            return None;
        }
        let is_aside =
            |image: &&MappedFile| image.path.ancestors().any(|path| venv_of_aside(path).is_some());
        if let Some(aside) = images().find(is_aside) {
            return Some(format!("it runs from a previous environment ({})", shown(aside)));
        }
        // `python3` contains no version to compare with.
        let now = interpreter.and_then(|path| version(path.file_name()?.as_bytes()))?;
        let other = images().find(|image| base_version(&image.path).is_some_and(|v| v != now))?;
        Some(format!(
            "it runs on {}, but the venv now uses python{}",
            shown(other),
            String::from_utf8_lossy(now)
        ))
    }
}

/// The file, or for an extension module its directory: which modules a process happens to have
/// loaded is irrelevant.
fn shown(image: &MappedFile) -> String {
    let dir = image.path.parent().filter(|dir| dir.ends_with("lib-dynload"));
    file::printable(dir.unwrap_or(&image.path))
}

/// Whether a file is an interpreter or part of one.
fn is_python(path: &Path) -> bool {
    let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
    let is_program =
        name.strip_prefix(b"python").is_some_and(|rest| rest.is_empty() || is_number(rest));
    let dir = path.parent().and_then(Path::file_name);
    match dir.map(OsStrExt::as_bytes) {
        Some(b"bin") if is_program => true,
        Some(b"lib-dynload") => true,
        _ => name.starts_with(b"libpython"),
    }
}

/// Whether a file is an extension module that an installer wrote into a venv.
fn is_extension(path: &Path) -> bool {
    let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
    let is_library = name.windows(3).any(|part| part == b".so");
    is_library && path.ancestors().any(|dir| dir.ends_with("site-packages"))
}

/// The minor version of the base interpreter that a file belongs to: of Debian's
/// interpreters, their library, their extension modules.
fn base_version(path: &Path) -> Option<&[u8]> {
    let name = path.file_name()?.as_bytes();
    let dir = path.parent()?;
    if dir == Path::new("/usr/bin") {
        return version(name);
    }
    if !path.starts_with("/usr/lib") {
        return None;
    }
    if let Some(rest) = name.strip_prefix(b"libpython") {
        let end = rest.windows(3).position(|part| part == b".so")?;
        return rest.get(..end).filter(|version| is_number(version));
    }
    (dir.file_name()? == "lib-dynload").then(|| version(dir.parent()?.file_name()?.as_bytes()))?
}

/// `3.13` of `python3.13`.
fn version(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(b"python").filter(|rest| is_number(rest) && rest.contains(&b'.'))
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::super::process::Processes;
    use super::super::process::tests::FakeProc;
    use super::*;

    fn stale(exe: &str, mapped: &[&str], now: &str) -> Option<String> {
        let machine = FakeProc::new();
        machine.process((5, 1), "/", exe, "/opt/v/web/bin/python3");
        let maps: Vec<_> =
            mapped.iter().map(|path| format!("1-2 r--p 0 fe:00 1   {path}")).collect();
        machine.write("proc/5/maps", maps.join("\n"));
        Processes::look(&machine.root()).get(5).unwrap().stale(Some(Path::new(now)))
    }

    #[test]
    fn a_replaced_file_makes_a_process_stale() {
        let dynload =
            "/usr/lib/python3.13/lib-dynload/_bz2.cpython-313-x86_64-linux-gnu.so (deleted)";
        let library = "/usr/lib/x86_64-linux-gnu/libpython3.13.so.1.0 (deleted)";
        for (exe, mapped) in [
            ("/usr/bin/python3.13 (deleted)", ""),
            ("/opt/v/copy/bin/python3 (deleted)", ""),
            ("/opt/v/copy/bin/python3", dynload),
            ("/usr/bin/uwsgi-core", library),
            ("/opt/v/dj/bin/uwsgi", dynload),
        ] {
            let reason = stale(exe, &[mapped], "/usr/bin/python3.13").unwrap_or_default();
            assert!(reason.ends_with(" was replaced after the process started"), "{exe}: {reason}");
            assert!(!reason.contains("(deleted)"), "{reason}");
        }
    }

    #[test]
    fn a_process_on_another_minor_version_than_its_venv_is_stale() {
        assert_eq!(
            stale("/usr/bin/python3.11", &[], "/usr/bin/python3.13").unwrap(),
            "it runs on /usr/bin/python3.11, but the venv now uses python3.13"
        );
        let library = "/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0";
        assert!(stale("/usr/bin/uwsgi-core", &[library], "/usr/bin/python3.13").is_some());
        let dynload = "/usr/lib/python3.11/lib-dynload/_bz2.cpython-311-x86_64-linux-gnu.so";
        assert!(stale("/opt/v/copy/bin/python3", &[dynload], "/usr/bin/python3.13").is_some());
    }

    #[test]
    fn an_extension_module_that_pip_replaced_makes_a_process_stale() {
        let module = "/opt/v/web/lib/python3.13/site-packages/x.cpython-313.so (deleted)";
        let reason = stale("/usr/bin/python3.13", &[module], "/usr/bin/python3.13").unwrap();
        assert!(reason.ends_with("x.cpython-313.so was replaced after the process loaded it"));
    }

    #[test]
    fn only_files_of_an_interpreter_make_a_process_stale() {
        for (exe, mapped) in [
            ("/usr/bin/python3.13", ""),
            ("/usr/bin/python3.13", "/dev/zero (deleted)"),
            ("/usr/bin/python3.13", "/memfd:python3 (deleted)"),
            ("/usr/bin/python3.13", "/tmp/ffi8Xc (deleted)"),
            ("/usr/bin/python3.13", "/SYSV00000000 (deleted)"),
            ("/usr/bin/python3.13", "/opt/v/web/lib/python3.13/site-packages/x.so"),
            ("/usr/bin/python3.13", "/opt/v/web/lib/python3.13/site-packages/x.mo (deleted)"),
            ("/usr/bin/python3.13", "/usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)"),
            ("/usr/bin/uwsgi-core (deleted)", ""),
            ("/opt/v/copy/bin/python3", ""),
        ] {
            assert_eq!(stale(exe, &[mapped], "/usr/bin/python3.13"), None, "{exe} {mapped}");
        }
        assert_eq!(stale("/usr/bin/python3.11", &[], "/usr/bin/python3"), None);
    }
}
