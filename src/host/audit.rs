//! Lines in systemd's journal: one for each decision, and one for each act on a venv or a
//! service, with fields to filter by (`journalctl -t venvguard VENVGUARD_VENV=shop`).

use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use super::Root;

/// Where the journal listens, for its own protocol (`systemd.io/JOURNAL_NATIVE_PROTOCOL`).
const SOCKET: &str = "/run/systemd/journal/socket";

/// Shared by all lines of venvguard.
const MESSAGE_ID: &str = "6ee1aa8d7ad84b6f9d2b5c0c1f4f7e93";

/// A journal that has been full for this long stays full, and apt must not wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The limit of each field. A line must fit into one datagram.
const LIMIT: usize = 32 << 10;

/// One decision or act.
#[derive(Debug, Default)]
pub(crate) struct Line<'a> {
    /// The action in one word.
    pub(crate) action: &'a str,
    /// The name of the venv concerned.
    pub(crate) venv: Option<&'a str>,
    pub(crate) path: Option<&'a Path>,
    pub(crate) message: &'a str,
}

impl Line<'_> {
    /// Sends the line to the journal. Without a journal nothing happens, and a lost line is not
    /// an error.
    pub(crate) fn write(&self, root: &Root) {
        let Ok(socket) = UnixDatagram::unbound() else { return };
        let _ = socket.set_write_timeout(Some(PATIENCE));
        let _ = socket.send_to(&self.datagram(), root.at(SOCKET));
    }

    fn datagram(&self) -> Vec<u8> {
        let is_bad = matches!(self.action, "blocked" | "failed" | "refused" | "rolled-back");
        let subject = self.venv.map(|venv| format!("{venv}: ")).unwrap_or_default();
        let message = format!("{subject}{}: {}", self.action, self.message);
        let mut datagram = Vec::new();
        let mut add = |name: &str, value: &[u8]| {
            let value = within(value, LIMIT);
            datagram.extend_from_slice(name.as_bytes());
            if value.contains(&b'\n') {
                datagram.push(b'\n');
                datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
            } else {
                datagram.push(b'=');
            }
            datagram.extend_from_slice(value);
            datagram.push(b'\n');
        };
        add("SYSLOG_IDENTIFIER", b"venvguard");
        add("MESSAGE_ID", MESSAGE_ID.as_bytes());
        add("PRIORITY", if is_bad { b"4" } else { b"5" });
        add("VENVGUARD_ACTION", self.action.as_bytes());
        if let Some(venv) = self.venv {
            add("VENVGUARD_VENV", venv.as_bytes());
        }
        if let Some(path) = self.path {
            add("VENVGUARD_PATH", path.as_os_str().as_bytes());
        }
        add("MESSAGE", message.as_bytes());
        datagram
    }
}

/// The beginning of a value. A character cut in two would make the whole value binary.
fn within(value: &[u8], limit: usize) -> &[u8] {
    let is_inside = |end: usize| value.get(end).is_some_and(|byte| byte & 0xc0 == 0x80);
    let is_end = |end: &usize| *end == 0 || !is_inside(*end);
    // No character has more than four bytes; anything longer is not text and is cut anywhere.
    let end = (limit.saturating_sub(3)..=limit).rev().find(is_end).unwrap_or(limit);
    value.get(..end).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let line = Line { message: &"é".repeat(LIMIT), ..Line::default() };
        let datagram = line.datagram();
        assert!(datagram.len() < LIMIT + 1024);
        assert!(std::str::from_utf8(&datagram).is_ok());
        assert_eq!(within(&[0x80; 9], 5).len(), 5);
    }

    #[test]
    fn a_value_of_several_lines_stays_one_field() {
        let line = Line {
            action: "failed",
            venv: Some("shop"),
            path: Some(Path::new("/srv/a\nVENVGUARD_VENV=x")),
            message: "why",
        };
        let datagram = line.datagram();
        let wanted: &[u8] = b"VENVGUARD_VENV=shop\n\
            VENVGUARD_PATH\n\x17\0\0\0\0\0\0\0/srv/a\nVENVGUARD_VENV=x\nMESSAGE=shop: failed: why\n";
        assert!(datagram.ends_with(wanted), "{}", String::from_utf8_lossy(&datagram));
        assert!(datagram.starts_with(b"SYSLOG_IDENTIFIER=venvguard\n"));
    }

    #[test]
    fn a_missing_journal_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        Line { action: "allowed", message: "x", ..Line::default() }.write(&Root::new(dir.path()));
    }
}
