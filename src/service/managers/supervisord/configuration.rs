//! Finds the sockets of supervisord in its configuration.

use std::path::{Path, PathBuf};

use crate::host::root::normal;
use crate::host::{Root, file};

/// The configuration files of Debian's supervisor and of pip's.
const FILES: [&str; 2] = ["/etc/supervisor/supervisord.conf", "/etc/supervisord.conf"];

/// The socket of Debian's supervisor.
const DEFAULT_SOCKET: &str = "/run/supervisor.sock";

/// No configuration is larger than this.
const LIMIT: u64 = 1 << 20;

/// A socket that a supervisord listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) socket: PathBuf,
    pub(super) user: Option<(String, String)>,
}

/// The sockets that are configured, or the one that Debian configures.
pub(super) fn servers(root: &Root) -> Vec<Server> {
    let mut servers: Vec<Server> = Vec::new();
    for path in FILES.map(Path::new) {
        // The path may be a link: it is root's own, in /etc.
        let Some(real) = root.follow(path).ok().and_then(|mut chain| chain.pop()) else { continue };
        let Ok(bytes) = file::read_untrusted(&root.at(real), LIMIT) else { continue };
        let server = read(&String::from_utf8_lossy(&bytes), path);
        servers.extend(server.filter(|server| servers.iter().all(|s| s.socket != server.socket)));
    }
    if servers.is_empty() {
        servers.push(Server { socket: DEFAULT_SOCKET.into(), user: None });
    }
    servers
}

pub(super) fn read(text: &str, path: &Path) -> Option<Server> {
    let here = path.parent().unwrap_or(Path::new("/"));
    let mut section = "";
    let (mut socket, mut own, mut client) = (None, Login::default(), Login::default());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            section = name.0;
            continue;
        }
        let Some((key, value)) = line.split_once(['=', ':']) else { continue };
        // A comment starts at ` ;`; a semicolon within a word belongs to the word.
        let value = value.split(" ;").next().unwrap_or(value).trim();
        match (section, key.trim()) {
            ("unix_http_server", "file") => {
                let value = value.replace("%(here)s", &here.to_string_lossy());
                let value = value.replace("%%", "%");
                socket = Some(normal(Path::new(&value))).filter(|path| path.is_absolute());
            }
            ("unix_http_server", key) => own.take(key, value),
            // The server's password may be a hash; the client's cannot.
            ("supervisorctl", key) => client.take(key, value),
            _ => {}
        }
    }
    // /var/run is always a link to /run; one socket must count as one server.
    let socket = socket?;
    let socket = match socket.strip_prefix("/var/run") {
        Ok(below) => Path::new("/run").join(below),
        Err(_) => socket,
    };
    Some(Server { socket, user: client.pair().or(own.pair()) })
}

/// A user name and a password, if given.
#[derive(Default)]
struct Login(Option<String>, Option<String>);

impl Login {
    fn take(&mut self, key: &str, value: &str) {
        match key {
            "username" => self.0 = Some(value.to_string()),
            "password" => self.1 = Some(value.to_string()),
            _ => {}
        }
    }

    fn pair(self) -> Option<(String, String)> {
        self.0.zip(self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "; supervisor config file\n\n[unix_http_server]\n\
        file=/var/run/supervisor.sock   ; (the path to the socket file)\n\
        chmod=0700                       ; sockef file mode (default 0700)\n\n\
        [supervisord]\nlogfile=/var/log/supervisor/supervisord.log ; (main log file)\n";

    #[test]
    fn the_socket_is_the_configured_one() {
        let debian = read(DEBIAN, Path::new("/etc/supervisor/supervisord.conf")).unwrap();
        assert_eq!(debian, Server { socket: "/run/supervisor.sock".into(), user: None });
        let own = "[unix_http_server]\nfile = %(here)s/s.sock\nusername = bob\npassword = {SHA}82a\n\
                   [supervisorctl]\nusername = bob\npassword = pa;ss=word\n";
        let own = read(own, Path::new("/etc/supervisord.conf")).unwrap();
        assert_eq!(own.socket, Path::new("/etc/s.sock"));
        assert_eq!(own.user, Some(("bob".into(), "pa;ss=word".into())));
    }

    #[test]
    fn the_default_socket_is_debians() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let default = [Server { socket: DEFAULT_SOCKET.into(), user: None }];
        assert_eq!(servers(&root), default);
        std::fs::create_dir_all(dir.path().join("etc/supervisor")).unwrap();
        for path in FILES {
            std::fs::write(root.at(path), DEBIAN).unwrap();
        }
        assert_eq!(servers(&root), default, "two files, one socket");
    }
}
