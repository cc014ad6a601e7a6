//! What a service answers to a request for `/`: the check of a service that has no other one, if
//! somebody asks for it. A service that answered before must answer again, and not with an error of
//! the server.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::Service;
use super::check::PROBE;
use super::discover::process::Processes;
use super::listening::listening;
use super::probe::Probe;
use crate::host::clock::{Deadline, wait_until};
use crate::host::file::printable;
use crate::host::user::User;
use crate::host::{Program, Root, confine};

/// From this status on, the server itself has failed.
const ERROR: u16 = 500;

/// How many addresses are asked, and how long each may take.
const MOST: usize = 4;
const LIMIT: Duration = Duration::from_secs(10);

/// How often a service is asked again.
const AGAIN: Duration = Duration::from_millis(250);

/// An answer by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpAnswer {
    address: String,
    status: u16,
}

/// Why a service does not serve as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error(
        "{now} answers a request for / with HTTP status {status}; before, {was} answered with {before}",
        now = printable(&.now.address), status = .now.status,
        was = printable(&.before.address), before = .before.status
    )]
    Error { now: HttpAnswer, before: HttpAnswer },
    #[error(
        "it no longer answers by HTTP; before, {was} answered a request for / with HTTP status {before}",
        was = printable(&.0.address), before = .0.status
    )]
    Silent(HttpAnswer),
}

impl HttpAnswer {
    /// The answer at the first of these addresses that speaks HTTP. A process of `owner` asks: the
    /// socket may be theirs.
    pub(crate) fn first(root: &Root, owner: &User, addresses: &BTreeSet<String>) -> Option<Self> {
        first(addresses.iter().map(String::as_str), |request| ask(root, owner, request))
    }

    fn is_error(&self) -> bool {
        self.status >= ERROR
    }
}

/// Waits until a service answers again as well as `before`, wherever it listens now.
pub(crate) fn await_answer(
    root: &Root,
    service: &Service,
    owner: &User,
    before: &HttpAnswer,
    patience: Duration,
) -> Result<(), AnswerError> {
    await_as_before(before, Deadline::after(patience), || {
        let now = listening(root, service, &Processes::look(root));
        first(to_ask(before, &now), |request| ask(root, owner, request))
    })
}

/// Asks until the answer is no error. An error that is older than the repair says nothing.
fn await_as_before(
    before: &HttpAnswer,
    deadline: Deadline,
    ask: impl Fn() -> Option<HttpAnswer>,
) -> Result<(), AnswerError> {
    if before.is_error() {
        return Ok(());
    }
    let mut last = None;
    let is_well = wait_until(deadline, AGAIN, || {
        last = ask();
        last.as_ref().is_some_and(|answer| !answer.is_error())
    });
    match last {
        _ if is_well => Ok(()),
        Some(now) => Err(AnswerError::Error { now, before: before.clone() }),
        None => Err(AnswerError::Silent(before.clone())),
    }
}

/// The addresses to ask after a repair. A service that listens at the same address again has moved
/// nothing: another of its sockets does not answer for that one.
fn to_ask<'a>(before: &HttpAnswer, now: &'a BTreeSet<String>) -> Vec<&'a str> {
    let same = now.get(&before.address);
    same.map_or_else(|| now.iter().map(String::as_str).collect(), |same| vec![same.as_str()])
}

fn first<'a>(
    addresses: impl IntoIterator<Item = &'a str>,
    ask: impl Fn(&str) -> Option<u16>,
) -> Option<HttpAnswer> {
    let requests = addresses.into_iter().filter_map(|one| Some((one, Probe::of_root_page(one)?)));
    requests.take(MOST).find_map(|(address, request)| {
        Some(HttpAnswer { address: address.to_string(), status: ask(&request)? })
    })
}

/// Sends a request once, in a process of `owner`: the status of an answer by HTTP.
fn ask(root: &Root, owner: &User, request: &str) -> Option<u16> {
    let program = Program::new("/proc/self/exe").args([PROBE, "--status", "--", request]);
    let program = program.called("probe".into()).limit(LIMIT).read_only();
    let finished = confine::confined(root, program, owner, &[], Path::new("/")).run().ok()?;
    finished.text().trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Answers each connection to a port with the next of these texts.
    fn server(answers: &'static [&str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 512]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        address
    }

    fn unix_server(path: &Path, answer: &'static str) -> String {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(answer.as_bytes());
        });
        path.display().to_string()
    }

    /// Asks from this process: the tests are not the program.
    fn ask_here(request: &str) -> Option<u16> {
        request.parse::<Probe>().unwrap().status().ok().flatten()
    }

    fn answer(address: &str, status: u16) -> HttpAnswer {
        HttpAnswer { address: address.into(), status }
    }

    const OK: &str = "HTTP/1.1 200 OK\r\n\r\n";
    const AWAY: &str = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n";
    const BROKEN: &str = "HTTP/1.1 500 Internal Server Error\r\n\r\n";

    #[test]
    fn the_first_socket_that_speaks_http_answers() {
        let dir = tempfile::tempdir().unwrap();
        let ssh = server(&["SSH-2.0-OpenSSH_9.2\r\n"]);
        let web = unix_server(&dir.path().join("web.sock"), AWAY);
        let gone = dir.path().join("gone.sock").display().to_string();
        let asked = ["@abstract", "relative.sock", &ssh, &gone, &web];
        assert_eq!(first(asked, ask_here), Some(answer(&web, 302)), "a redirect is not followed");
        assert_eq!(first(["@abstract", &gone], ask_here), None);
    }

    #[test]
    fn only_a_few_sockets_are_asked() {
        let addresses: Vec<String> = (1..99).map(|port| format!("127.0.0.1:{port}")).collect();
        let asked = std::cell::Cell::new(0);
        let ask = |_: &str| {
            asked.set(asked.get() + 1);
            None
        };
        assert_eq!(first(addresses.iter().map(String::as_str), ask), None);
        assert_eq!(asked.get(), MOST);
    }

    #[test]
    fn an_error_that_is_new_counts_and_older_ones_do_not() {
        let web = server(&[BROKEN, BROKEN, BROKEN]);
        let now = || first([web.as_str()], ask_here);
        let at_once = || Deadline::after(Duration::ZERO);
        let broken = await_as_before(&answer(&web, 404), at_once(), now).unwrap_err();
        assert_eq!(
            broken.to_string(),
            format!(
                "{web} answers a request for / with HTTP status 500; before, {web} answered with 404"
            )
        );
        await_as_before(&answer(&web, 503), at_once(), now).unwrap();
        let silent = await_as_before(&answer(&web, 200), at_once(), || None).unwrap_err();
        assert_eq!(
            silent.to_string(),
            format!(
                "it no longer answers by HTTP; before, {web} answered a request for / with HTTP status 200"
            )
        );
    }

    #[test]
    fn a_service_that_needs_some_time_is_asked_again() {
        let web = server(&["", BROKEN, OK]);
        let deadline = Deadline::after(Duration::from_secs(20));
        let now = || first([web.as_str()], ask_here);
        await_as_before(&answer(&web, 200), deadline, now).unwrap();
    }

    #[test]
    fn a_socket_at_the_same_address_answers_for_itself() {
        let listens = |addresses: &[&str]| addresses.iter().map(ToString::to_string).collect();
        let before = answer("127.0.0.1:8000", 200);
        assert_eq!(
            to_ask(&before, &listens(&["127.0.0.1:8000", "127.0.0.1:7"])),
            ["127.0.0.1:8000"]
        );
        assert_eq!(
            to_ask(&before, &listens(&["/run/a", "127.0.0.1:7"])),
            ["/run/a", "127.0.0.1:7"]
        );
    }
}
