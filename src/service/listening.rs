//! Where a service listens: the passive check of a service that has no other one. A program that
//! came up, but listens nowhere although it did before, serves nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::Service;
use super::control::condition;
use super::discover::process::{Process, Processes};
use crate::host::clock::{Deadline, wait_until};
use crate::host::{Root, file};

/// How often to look.
const POLL: Duration = Duration::from_millis(200);

/// The limit of a table of sockets: a busy server has some ten thousand.
const LIMIT: u64 = 16 << 20;

/// The most descriptors of a process that are looked at.
const DESCRIPTORS: usize = 1 << 16;

/// The state of a TCP socket that listens, as the kernel prints it.
const TCP_LISTEN: &str = "0A";

/// The flag of a unix socket that accepts connections.
const ACCEPTS: u32 = 0x0001_0000;

/// The addresses at which the processes of a service listen: its main process and the Python
/// processes below it.
pub(crate) fn listening(root: &Root, service: &Service, processes: &Processes) -> BTreeSet<String> {
    let Some(main) = condition(root, service).ok().and_then(|found| found.main_pid) else {
        return BTreeSet::new();
    };
    let is_below = |one: &&Process| processes.lineage(one).any(|other| other.id.pid == main);
    let below: Vec<u32> = processes.iter().filter(is_below).map(|one| one.id.pid).collect();
    let pids: BTreeSet<u32> = below.into_iter().chain([main]).collect();
    pids.into_iter().flat_map(|pid| addresses(&root.at(format!("/proc/{pid}")))).collect()
}

/// Waits until a service listens anywhere. Returns whether it does.
pub(crate) fn await_listening(root: &Root, service: &Service, patience: Duration) -> bool {
    let listens = || !listening(root, service, &Processes::look(root)).is_empty();
    wait_until(Deadline::after(patience), POLL, listens)
}

/// The addresses at which a process listens, in the network namespace that it sees.
fn addresses(process: &Path) -> BTreeSet<String> {
    let own = sockets(process);
    if own.is_empty() {
        return BTreeSet::new();
    }
    let mut known = BTreeMap::new();
    for (name, parse) in [("tcp", tcp as Parse), ("tcp6", tcp), ("unix", unix)] {
        // A process that has just ended listens nowhere.
        let Ok(table) = file::read_untrusted(&process.join("net").join(name), LIMIT) else {
            continue;
        };
        known.extend(String::from_utf8_lossy(&table).lines().filter_map(parse));
    }
    own.iter().filter_map(|inode| known.get(inode).cloned()).collect()
}

/// The inodes of a process's sockets.
fn sockets(process: &Path) -> BTreeSet<u64> {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let links = descriptors.take(DESCRIPTORS).filter_map(|one| fs::read_link(one.path()).ok());
    let inode = |link: &Path| {
        let text = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        text.parse().ok()
    };
    links.filter_map(|link| inode(&link)).collect()
}

/// Reads a line of a table: the inode and the address of a socket that listens.
type Parse = fn(&str) -> Option<(u64, String)>;

/// `0: 0100007F:1F40 00000000:0000 0A … INODE …` (`proc_net_tcp` in the kernel's documentation).
fn tcp(line: &str) -> Option<(u64, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, TCP_LISTEN, _, _, _, _, _, inode, ..] = fields.as_slice() else {
        return None;
    };
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((inode.parse().ok()?, SocketAddr::new(ip(address)?, port).to_string()))
}

/// An address as words of 32 bits in the byte order of the machine.
fn ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(text.get(8 * at..8 * at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).into())
        }
        _ => None,
    }
}

/// `0000…: 00000002 00000000 00010000 0001 01 INODE /run/shop.sock` (`proc_pid_net(5)`).
fn unix(line: &str) -> Option<(u64, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, _, _, flags, _, _, inode, path, ..] = fields.as_slice() else { return None };
    let accepts = u32::from_str_radix(flags, 16).ok()? & ACCEPTS != 0;
    accepts.then_some((inode.parse().ok()?, (*path).to_string()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn the_sockets_of_a_process_that_listen_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.sock");
        let unix = UnixListener::bind(&path).unwrap();
        let _other = UnixDatagram::bind(dir.path().join("other.sock")).unwrap();
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let expected: BTreeSet<String> =
            [four.local_addr().unwrap().to_string(), path.display().to_string()].into();
        let own = Path::new("/proc/self");
        // Other tests of this process listen as well.
        assert!(addresses(own).is_superset(&expected), "{:?}", addresses(own));
        assert!(!addresses(own).iter().any(|one| one.ends_with("other.sock")));
        drop((unix, four));
        assert!(addresses(own).is_disjoint(&expected));
    }

    #[test]
    fn a_line_of_the_kernel_is_read() {
        let line = "   0: 00000000000000000000000001000000:1F40 00000000000000000000000000000000:0000 0A \
                    00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000";
        let expected = (cfg!(target_endian = "little")).then(|| (4711, "[::1]:8000".to_string()));
        assert_eq!(tcp(line), expected);
        assert_eq!(tcp(&line.replace(" 0A ", " 01 ")), None);
        for line in ["", "  sl  local_address rem_address", "0: x:y z:0 0A 0 0 0 0 0 1"] {
            assert_eq!((tcp(line), unix(line)), (None, None), "{line}");
        }
    }
}
