//! Checks without a program: whether something answers at an address.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// How long to wait for a connection, and for each part of an answer.
const LIMIT: Duration = Duration::from_secs(10);

/// How much of an answer is read: its status line is at the beginning.
const HEAD: u64 = 1 << 10;

/// What is asked: `http://HOST[:PORT][/PATH]`, `http+unix:SOCKET[:/PATH]`, `unix:SOCKET` or
/// `tcp:HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    place: Place,
    /// The host and the path of a request; without one, only a connection is made.
    request: Option<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// With its port.
    Host(String),
    Socket(PathBuf),
}

/// Why nothing answers as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("{place} does not answer: {source}")]
    Silent { place: String, source: io::Error },
    #[error("{0} answers, but not by HTTP")]
    NotHttp(String),
    #[error("{place} answers with HTTP status {status}")]
    Status { place: String, status: u16 },
}

/// Why a text is not an address that can be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an address (write http://HOST:PORT/PATH, http+unix:SOCKET:/PATH, unix:SOCKET or tcp:HOST:PORT)"
)]
pub(crate) struct AddressError(String);

impl Probe {
    /// Whether a check's first word is meant as an address rather than a program.
    pub(crate) fn is_meant(word: &str) -> bool {
        ["http://", "https://", "http+unix:", "unix:", "tcp:"]
            .iter()
            .any(|scheme| word.starts_with(scheme))
    }

    /// The request for `/` at an address at which a service listens, as text: `127.0.0.1:8000` or
    /// `/run/shop.sock`. There is none for a socket without an absolute path.
    pub(super) fn of_root_page(address: &str) -> Option<String> {
        let text = match address.parse::<SocketAddr>() {
            Ok(address) => format!("http://{address}/"),
            Err(_) if address.starts_with('/') && !address.contains(':') => {
                format!("http+unix:{address}:/")
            }
            Err(_) => return None,
        };
        text.parse::<Self>().is_ok().then_some(text)
    }

    /// Connects, and sends the request if there is one: any status below 400 will do.
    pub(crate) fn run(&self) -> Result<(), ProbeError> {
        match self.status()? {
            Some(status @ 400..) => {
                Err(ProbeError::Status { place: self.place.to_string(), status })
            }
            _ => Ok(()),
        }
    }

    /// Connects, and sends the request if there is one. Returns the status of the answer to it.
    pub(crate) fn status(&self) -> Result<Option<u16>, ProbeError> {
        let silent = |source| ProbeError::Silent { place: self.place.to_string(), source };
        match &self.place {
            Place::Host(host) => {
                let stream = connect(host).map_err(silent)?;
                stream.set_read_timeout(Some(LIMIT)).map_err(silent)?;
                self.ask(stream)
            }
            Place::Socket(path) => {
                let stream = UnixStream::connect(path).map_err(silent)?;
                stream.set_read_timeout(Some(LIMIT)).map_err(silent)?;
                self.ask(stream)
            }
        }
    }

    fn ask(&self, mut stream: impl Read + Write) -> Result<Option<u16>, ProbeError> {
        let Some((host, path)) = &self.request else { return Ok(None) };
        let place = || self.place.to_string();
        let silent = |source| ProbeError::Silent { place: place(), source };
        let request = format!(
            "GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: venvguard\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).map_err(silent)?;
        let mut head = Vec::new();
        let mut part = [0; 256];
        while !head.contains(&b'\n') && (head.len() as u64) < HEAD {
            match stream.read(&mut part).map_err(silent)? {
                0 => break,
                read => head.extend_from_slice(part.get(..read).unwrap_or_default()),
            }
        }
        let head = String::from_utf8_lossy(&head);
        let status = head.strip_prefix("HTTP/").and_then(|rest| rest.split(' ').nth(1));
        let status = status.and_then(|word| word.get(..3)?.parse::<u16>().ok());
        status.map(Some).ok_or_else(|| ProbeError::NotHttp(place()))
    }
}

fn connect(host: &str) -> io::Result<TcpStream> {
    let mut result = Err(io::Error::from(io::ErrorKind::NotFound));
    for address in host.to_socket_addrs()? {
        result = TcpStream::connect_timeout(&address, LIMIT);
        if result.is_ok() {
            break;
        }
    }
    result
}

impl FromStr for Probe {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        read(text).ok_or_else(|| AddressError(text.to_string()))
    }
}

fn read(text: &str) -> Option<Probe> {
    if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return None;
    }
    if let Some(rest) = text.strip_prefix("http://") {
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        let place = if has_port(host) { host.to_string() } else { format!("{host}:80") };
        let request = Some((host.to_string(), path.to_string()));
        return (!host.is_empty()).then_some(Probe { place: Place::Host(place), request });
    }
    if let Some(rest) = text.strip_prefix("http+unix:") {
        let (socket, path) = rest.split_once(':').unwrap_or((rest, "/"));
        let request = Some(("localhost".to_string(), path.to_string()));
        let is_whole = path.starts_with('/');
        return Some(Probe { place: socket_at(socket)?, request }).filter(|_| is_whole);
    }
    if let Some(socket) = text.strip_prefix("unix:") {
        return Some(Probe { place: socket_at(socket)?, request: None });
    }
    let host = text.strip_prefix("tcp:").filter(|host| has_port(host))?;
    Some(Probe { place: Place::Host(host.to_string()), request: None })
}

fn socket_at(path: &str) -> Option<Place> {
    Path::new(path).is_absolute().then(|| Place::Socket(path.into()))
}

/// Whether there is a port behind a name, or behind `]` of an IPv6 address.
fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(name, port)| {
        let is_whole = !name.contains(':') || (name.starts_with('[') && name.ends_with(']'));
        !name.is_empty() && is_whole && port.parse::<u16>().is_ok()
    })
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::Socket(path) => f.write_str(&crate::host::file::printable(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};

    #[test]
    fn an_address_is_read_or_refused() {
        for good in [
            "http://localhost",
            "http://localhost:8000/health?x=1",
            "http://[::1]:8000/",
            "http+unix:/run/shop.sock",
            "http+unix:/run/shop.sock:/health",
            "unix:/run/shop.sock",
            "tcp:localhost:5432",
        ] {
            assert!(Probe::is_meant(good) && good.parse::<Probe>().is_ok(), "{good}");
        }
        for bad in [
            "http://",
            "https://localhost/",
            "http://a b/",
            "http+unix:run/shop.sock",
            "http+unix:/run/shop.sock:health",
            "unix:",
            "tcp:localhost",
            "tcp::80",
            "tcp:::1:80",
            "tcp:localhost:99999",
            "http://x/\r\nX: y",
        ] {
            assert!(Probe::is_meant(bad) && bad.parse::<Probe>().is_err(), "{bad}");
        }
        for program in ["curl", "/usr/bin/unix:x", "./http://x"] {
            assert!(!Probe::is_meant(program), "{program}");
        }
    }

    #[test]
    fn the_root_page_is_asked_for_wherever_a_service_listens() {
        let text = |address: &str| Probe::of_root_page(address).unwrap_or_default();
        assert_eq!(text("127.0.0.1:8000"), "http://127.0.0.1:8000/");
        assert_eq!(text("[::]:80"), "http://[::]:80/");
        assert_eq!(text("/run/shop.sock"), "http+unix:/run/shop.sock:/");
        for nowhere in ["@abstract", "shop.sock", "/run/a:b", "/run/a\u{1b}", "127.0.0.1", ""] {
            assert_eq!(text(nowhere), "", "{nowhere}");
        }
    }

    #[test]
    fn an_answer_passes_by_its_status() {
        for (answer, why) in [
            ("HTTP/1.1 200 OK\r\n\r\n", ""),
            ("HTTP/1.0 302 Found\r\n\r\n", ""),
            ("HTTP/1.0 500 Internal Server Error\r\n\r\n", "answers with HTTP status 500"),
            ("HTTP/1.1 404\r\n\r\n", "answers with HTTP status 404"),
            ("SSH-2.0-OpenSSH\r\n", "not by HTTP"),
            ("", "not by HTTP"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("socket");
            let listener = UnixListener::bind(&path).unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let read = stream.read(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8_lossy(&request[..read]).into_owned()
            });
            let probe: Probe = format!("http+unix:{}:/health", path.display()).parse().unwrap();
            let said = probe.run().map_or_else(|error| error.to_string(), |()| String::new());
            assert!(said.contains(why) && said.is_empty() == why.is_empty(), "{answer}: {said}");
            assert!(server.join().unwrap().starts_with("GET /health HTTP/1.0\r\nHost: localhost"));
        }
    }

    #[test]
    fn a_connection_passes_without_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        format!("tcp:{address}").parse::<Probe>().unwrap().run().unwrap();
        // A socket that is bound and does not listen: nobody else can take its port.
        let silent = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&silent, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = SocketAddr::try_from(getsockname(&silent).unwrap()).unwrap();
        assert!(format!("tcp:{address}").parse::<Probe>().unwrap().run().is_err());
        assert!("unix:/nowhere".parse::<Probe>().unwrap().run().is_err());
    }
}
