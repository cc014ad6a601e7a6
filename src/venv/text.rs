//! Texts that are allowed in a requirements line. Text from a venv is controlled by its owner:
//! a name with a line break would forge a requirement.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::origin::local_path;
use crate::host::redacted;

/// A text that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{:?} is not allowed in a requirement", redacted(.0))]
pub(crate) struct UnsafeText(pub(crate) String);

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident if $fits:path;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub(crate) struct $name(String);

        impl TryFrom<String> for $name {
            type Error = UnsafeText;

            fn try_from(text: String) -> Result<Self, UnsafeText> {
                if $fits(&text) { Ok(Self(text)) } else { Err(UnsafeText(text)) }
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

texts! {
    /// The name of a distribution (PEP 508).
    Name if is_name;
    /// A version in the alphabet of PEP 440.
    PackageVersion if is_release;
    /// A URL without a fragment, in the characters of URLs.
    Url if is_url;
    /// A directory in a repository or an archive, as written in a URL's fragment, where neither pip
    /// nor uv decodes it.
    Subdirectory if is_subdirectory;
    /// A commit, or the digits of a hash.
    Token if is_token;
    /// The name of a wheel or a source archive.
    FileName if is_file_name;
}

/// A hash of a file, of a kind that both pip and uv accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Hash {
    pub(crate) algorithm: Token,
    pub(crate) digits: Token,
}

impl TryFrom<String> for Hash {
    type Error = UnsafeText;

    fn try_from(text: String) -> Result<Self, UnsafeText> {
        let parts = text.split_once(':');
        let hashes = parts.map(|(name, digits)| [(name.to_string(), digits.to_string())].into());
        hashes.map_or(Ok(None), |hashes| Self::strongest(&hashes))?.ok_or(UnsafeText(text))
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

/// The form after `--hash=`.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.digits)
    }
}

impl Hash {
    /// The strongest of several hashes; `None` if installers accept none of them.
    pub(super) fn strongest(hashes: &BTreeMap<String, String>) -> Result<Option<Self>, UnsafeText> {
        let found = ["sha256", "sha512", "sha384"]
            .into_iter()
            .find_map(|algorithm| Some((algorithm, hashes.get(algorithm)?)));
        let Some((algorithm, digits)) = found else { return Ok(None) };
        let algorithm = Token::try_from(algorithm.to_string())?;
        Ok(Some(Self { algorithm, digits: Token::try_from(digits.clone())? }))
    }
}

impl Url {
    /// The URL of an absolute path of any bytes.
    pub(super) fn of_path(path: &Path) -> Result<Self, UnsafeText> {
        if !path.is_absolute() {
            return Err(UnsafeText(path.display().to_string()));
        }
        let mut url = String::from("file://");
        for byte in path.as_os_str().as_bytes() {
            if byte.is_ascii_alphanumeric() || b"/-._~+".contains(byte) {
                url.push(char::from(*byte));
            } else {
                // Writing to a String does not fail.
                let _ = write!(url, "%{byte:02X}");
            }
        }
        Self::try_from(url)
    }

    /// The path, if the URL is one of a local file.
    pub(super) fn path(&self) -> Option<PathBuf> {
        local_path(&self.0)
    }
}

fn is_name(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_release(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".!+_-".contains(&byte))
}

fn is_token(text: &str) -> bool {
    // git would read a commit with a leading dash as an option.
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_file_name(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+!-".contains(&byte))
}

fn is_subdirectory(text: &str) -> bool {
    let inside = |part| matches!(part, Component::Normal(_));
    !text.is_empty()
        && !text.starts_with('-')
        && Path::new(text).components().all(inside)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._+@~-".contains(&byte))
}

/// Braces are not characters of a URL, which also rules out `${TOKEN}`: pip and uv would replace
/// it by an environment variable.
fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let fits = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte);
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte);
    scheme.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && scheme.bytes().all(letter)
        && !rest.is_empty()
        && rest.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_would_end_a_line_or_a_word_is_refused() {
        for text in
            ["", " ", "a b", "a\nb", "a\r", "a;b", "a#b", "a\\", "-a", "a,b", "ä", "$a", "a\0"]
        {
            assert!(!is_name(text) && !is_release(text), "{text:?}");
            assert!(
                !is_url(&format!("https://x/{text}"))
                    || ["", "-a", "a;b", "a,b", "$a"].contains(&text)
            );
        }
        assert!(is_name("zope.interface") && is_name("a") && !is_name("a-") && !is_name("a@b"));
        assert!(is_release("1!2.0rc1.post1+cu118") && !is_release("1.0 ; x") && !is_release(">=1"));
        assert!(
            !is_token("--orphan") && !is_token("") && !is_token("abc#egg=x") && is_token("0a1b")
        );
    }

    #[test]
    fn a_subdirectory_stays_in_its_archive() {
        assert!(is_subdirectory("src/py-1.0") && is_subdirectory("a"));
        for text in ["", "..", "a/../../b", "/etc", "--x", "a b", "a&egg=b"] {
            assert!(!is_subdirectory(text), "{text}");
        }
    }

    #[test]
    fn urls_are_urls() {
        for url in ["https://x.org/a.git", "ssh://git@x.org/a.git", "file:///srv/my%20app"] {
            assert!(is_url(url), "{url}");
        }
        for url in [
            "https://${TOKEN}@x.org/a",
            "git@x.org:a.git",
            "--index-url=https://x",
            "https://",
            "-://x",
        ] {
            assert!(!is_url(url), "{url}");
        }
    }

    #[test]
    fn a_path_survives_conversion_to_a_url() {
        use std::ffi::OsStr;
        for bytes in
            [&b"/srv/my app"[..], b"/srv/a%20b", b"/srv/\xff\n", b"/srv/a#b?c", b"/srv/${HOME}"]
        {
            let path = Path::new(OsStr::from_bytes(bytes));
            assert_eq!(Url::of_path(path).unwrap().path().unwrap(), path);
        }
        assert!(Url::of_path(Path::new("a b")).is_err(), "it is relative");
    }
}
