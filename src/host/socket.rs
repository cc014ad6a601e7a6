//! Connections to Unix sockets that never hang and that know the listener's user.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::clock::{Deadline, wait_until};

/// How often a listener whose queue is full is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// A connection on which every step ends by a deadline.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    deadline: Deadline,
}

impl Connection {
    /// Connects to the socket at `path`. A blocking `connect` would wait for ever for a
    /// listener that accepts nothing.
    pub(crate) fn open(path: &Path, deadline: Deadline) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let address = SocketAddrUnix::new(path)?;
        let mut answer = Ok(());
        wait_until(deadline, RETRY, || {
            answer = rustix::net::connect(&socket, &address);
            !matches!(answer, Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR))
        });
        answer?;
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        Ok(Self { stream, deadline })
    }

    /// The user that the other side runs as, according to the kernel.
    pub(crate) fn peer(&self) -> io::Result<u32> {
        Ok(rustix::net::sockopt::socket_peercred(&self.stream)?.uid.as_raw())
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.stream.set_write_timeout(Some(self.left()?))?;
            let written = self.stream.write(rest)?;
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// The bytes that have arrived; empty once the other side has closed the connection.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<u8>> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        let mut bytes = vec![0; 16 << 10];
        let read = self.stream.read(&mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn left(&self) -> io::Result<Duration> {
        // A timeout of zero would mean no timeout.
        let left = self.deadline.left();
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_listeners_user_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let connection = Connection::open(&path, Deadline::after(Duration::from_secs(5))).unwrap();
        assert_eq!(connection.peer().unwrap(), rustix::process::geteuid().as_raw());
    }

    #[test]
    fn a_listener_that_never_answers_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let mut silent = Connection::open(&path, soon()).unwrap();
        assert!(silent.receive().is_err());
    }

    #[test]
    fn a_listener_that_accepts_nothing_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = Connection::open(&path, soon()).unwrap();
        assert!(Connection::open(&path, soon()).is_err(), "its queue is full");
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_millis(100))
    }
}
