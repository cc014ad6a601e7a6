//! The part of HTTP/1.1 that a call over a Unix socket needs.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::host::socket::Connection;

/// No answer to our calls is larger: 1,000 programs take a quarter of this.
const LIMIT: usize = 4 << 20;

/// The limit for the status line and the headers.
const HEAD_LIMIT: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it requires a user name and a password, which its configuration does not contain")]
    Unauthorized,
    #[error("it answered with HTTP status {0}")]
    Status(u16),
    #[error("its answer is not HTTP")]
    Malformed,
    #[error("its answer is larger than {LIMIT} bytes")]
    TooLarge,
}

/// Posts `body` and returns the body of the answer.
pub(super) fn post(
    connection: &mut Connection,
    user: Option<&(String, String)>,
    body: &str,
) -> Result<Vec<u8>, HttpError> {
    connection.send(head(user, body).as_bytes())?;
    connection.send(body.as_bytes())?;
    answer(|| connection.receive())
}

fn head(user: Option<&(String, String)>, body: &str) -> String {
    let login = user.map_or_else(String::new, |(name, password)| {
        format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:{password}")))
    });
    let length = body.len();
    format!(
        "POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nConnection: close\r\n\
         {login}Content-Length: {length}\r\n\r\n"
    )
}

/// Reads an answer as it arrives, up to the length that it declares.
pub(super) fn answer(
    mut receive: impl FnMut() -> io::Result<Vec<u8>>,
) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::new();
    let mut more = |bytes: &mut Vec<u8>| -> Result<bool, HttpError> {
        let arrived = receive()?;
        bytes.extend_from_slice(&arrived);
        if bytes.len() > LIMIT { Err(HttpError::TooLarge) } else { Ok(!arrived.is_empty()) }
    };
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            break Head::read(&std::mem::replace(&mut bytes, rest))?;
        }
        if bytes.len() > HEAD_LIMIT {
            return Err(HttpError::Malformed);
        }
        if !more(&mut bytes)? {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    };
    loop {
        let whole = match head.extent {
            Extent::Length(length) if length > LIMIT => return Err(HttpError::TooLarge),
            Extent::Length(length) => bytes.get(..length).map(<[u8]>::to_vec),
            Extent::Chunks => unchunk(&bytes)?,
            Extent::End => None,
        };
        if let Some(whole) = whole {
            return Ok(whole);
        }
        if !more(&mut bytes)? {
            let is_whole = matches!(head.extent, Extent::End);
            let cut = || io::Error::from(io::ErrorKind::UnexpectedEof).into();
            return is_whole.then_some(bytes).ok_or_else(cut);
        }
    }
}

/// The length of a body.
enum Extent {
    Length(usize),
    Chunks,
    End,
}

struct Head {
    extent: Extent,
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Self, HttpError> {
        let text = std::str::from_utf8(bytes).map_err(|_| HttpError::Malformed)?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1."));
        let status = status.and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        match status.ok_or(HttpError::Malformed)? {
            200 => {}
            401 => return Err(HttpError::Unauthorized),
            other => return Err(HttpError::Status(other)),
        }
        let mut extent = Extent::End;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("transfer-encoding")
                && value.eq_ignore_ascii_case("chunked")
            {
                return Ok(Self { extent: Extent::Chunks });
            }
            if name.eq_ignore_ascii_case("content-length") {
                extent = Extent::Length(value.parse().map_err(|_| HttpError::Malformed)?);
            }
        }
        Ok(Self { extent })
    }
}

/// The joined chunks; `None` while the last one is missing.
fn unchunk(bytes: &[u8]) -> Result<Option<Vec<u8>>, HttpError> {
    let mut whole = Vec::new();
    let mut rest = bytes;
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let (size, after) = rest.split_at(end);
        let size = size.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(size)
            .ok()
            .and_then(|hex| usize::from_str_radix(hex.trim(), 16).ok());
        let size = size.filter(|size| *size <= LIMIT).ok_or(HttpError::Malformed)?;
        if size == 0 {
            return Ok(Some(whole));
        }
        // Two bytes end the line of the size, two more the chunk.
        let Some(chunk) = after.get(2..2 + size) else { return Ok(None) };
        let Some(next) = after.get(4 + size..) else { return Ok(None) };
        whole.extend_from_slice(chunk);
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds an answer in pieces of a few bytes.
    fn read(answer_text: &str, piece: usize) -> Result<String, HttpError> {
        let mut pieces = answer_text.as_bytes().chunks(piece).map(<[u8]>::to_vec);
        answer(|| Ok(pieces.next().unwrap_or_default()))
            .map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_body_has_its_declared_length() {
        for text in [
            "HTTP/1.1 200 OK\r\nServer: Medusa/1.12\r\nContent-Length: 5\r\n\r\nhelloREST",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\nServer: x\r\n\r\nhello",
        ] {
            for piece in [1, 3, 1000] {
                assert_eq!(read(text, piece).unwrap(), "hello", "{text}");
            }
        }
    }

    #[test]
    fn a_bad_answer_is_an_error() {
        let large = LIMIT + 1;
        for (text, what) in [
            ("HTTP/1.1 401 Unauthorized\r\n\r\n", "user name"),
            ("HTTP/1.1 500 Oops\r\n\r\n", "status 500"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "unexpected end"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not HTTP"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
                "not HTTP",
            ),
            (&format!("HTTP/1.1 200 OK\r\nContent-Length: {large}\r\n\r\n"), "larger"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
            (&"a".repeat(HEAD_LIMIT * 2), "not HTTP"),
        ] {
            let error = read(text, 4096).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_head_has_the_login_and_the_length_of_the_body() {
        let without_login = head(None, "f\u{fc}");
        assert_eq!(
            without_login,
            "POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\n\
             Connection: close\r\nContent-Length: 3\r\n\r\n"
        );
        for (name, password, coded) in [
            ("", "", "Og=="),
            ("f", "", "Zjo="),
            ("f", "o", "Zjpv"),
            ("foo", "", "Zm9vOg=="),
            ("bob", "pa\u{fc}", "Ym9iOnBhw7w="),
        ] {
            let with_login = head(Some(&(name.into(), password.into())), "f\u{fc}");
            let login = format!("close\r\nAuthorization: Basic {coded}\r\n");
            assert_eq!(with_login, without_login.replace("close\r\n", &login));
        }
    }
}
