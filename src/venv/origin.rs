//! The origin of a distribution that is not from an index (`direct_url.json`, PEP 610).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

/// The origin of a distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Installed by name, from an index or a directory of wheels.
    Index,
    Vcs {
        url: String,
        vcs: String,
        commit: String,
        subdirectory: Option<String>,
    },
    /// A wheel or a source archive; a local one has a `file:` URL.
    Archive {
        url: String,
        hashes: BTreeMap<String, String>,
        subdirectory: Option<String>,
    },
    Directory {
        path: PathBuf,
        editable: bool,
    },
    /// It has an origin, but the record of it cannot be read.
    Unknown {
        reason: String,
    },
}

/// `direct_url.json`. Installers add fields of their own.
#[derive(Deserialize)]
struct DirectUrl {
    url: String,
    subdirectory: Option<String>,
    vcs_info: Option<VcsInfo>,
    archive_info: Option<ArchiveInfo>,
    dir_info: Option<DirInfo>,
}

#[derive(Deserialize)]
struct VcsInfo {
    vcs: String,
    commit_id: String,
}

#[derive(Deserialize)]
struct ArchiveInfo {
    hashes: Option<BTreeMap<String, String>>,
    /// The older form, `sha256=…`.
    hash: Option<String>,
}

#[derive(Deserialize)]
struct DirInfo {
    editable: Option<bool>,
}

impl Origin {
    /// Reads a `direct_url.json`.
    pub(super) fn of_direct_url(bytes: &[u8]) -> Self {
        match serde_json::from_slice::<DirectUrl>(bytes) {
            Ok(direct) => Self::of(direct),
            Err(error) => Self::Unknown { reason: format!("direct_url.json: {error}") },
        }
    }

    fn of(DirectUrl { url, subdirectory, vcs_info, archive_info, dir_info }: DirectUrl) -> Self {
        let subdirectory = subdirectory.filter(|dir| !dir.is_empty());
        match (vcs_info, archive_info, dir_info) {
            (Some(VcsInfo { vcs, commit_id: commit }), None, None) => {
                Self::Vcs { url, vcs, commit, subdirectory }
            }
            (None, Some(archive), None) => {
                let mut hashes = archive.hashes.unwrap_or_default();
                if let Some((name, value)) =
                    archive.hash.as_deref().and_then(|hash| hash.split_once('='))
                {
                    hashes.entry(name.to_string()).or_insert_with(|| value.to_string());
                }
                // uv leaves the requested hash in the URL.
                let (url, fragment) = url.split_once('#').unwrap_or((&url, ""));
                for (name, value) in fragment.split('&').filter_map(|part| part.split_once('=')) {
                    if name.starts_with("sha") {
                        hashes.entry(name.to_string()).or_insert_with(|| value.to_string());
                    }
                }
                Self::Archive { url: url.to_string(), hashes, subdirectory }
            }
            (None, None, Some(dir)) => match local_path(&url) {
                Some(path) => Self::Directory {
                    path: below(path, subdirectory.as_deref()),
                    editable: dir.editable.unwrap_or(false),
                },
                None => Self::Unknown {
                    reason: format!("direct_url.json: not a local directory: {url}"),
                },
            },
            _ => {
                Self::Unknown { reason: "direct_url.json names no origin, or several".to_string() }
            }
        }
    }
}

fn below(path: PathBuf, subdirectory: Option<&str>) -> PathBuf {
    match subdirectory {
        Some(dir) if Path::new(dir).components().all(|c| matches!(c, Component::Normal(_))) => {
            path.join(dir)
        }
        _ => path,
    }
}

/// The path in a `file:` URL.
pub(super) fn local_path(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("file://")?;
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    let path = path.split(['#', '?']).next()?;
    path.starts_with('/').then(|| PathBuf::from(OsString::from_vec(percent_decoded(path))))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((byte, after)) = rest.split_first() {
        let code = match after {
            [high, low, ..] if *byte == b'%' => hexadecimal(*high, *low),
            _ => None,
        };
        decoded.push(code.unwrap_or(*byte));
        rest = if code.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    decoded
}

fn hexadecimal(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from((digit(high)? << 4) | digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(json: &str) -> Origin {
        Origin::of_direct_url(json.as_bytes())
    }

    #[test]
    fn each_kind_of_origin_is_recognized() {
        assert_eq!(
            origin(
                r#"{"url": "https://example.org/a.git", "subdirectory": "py", "vcs_info":
                {"vcs": "git", "commit_id": "abc", "requested_revision": "main"}}"#
            ),
            Origin::Vcs {
                url: "https://example.org/a.git".into(),
                vcs: "git".into(),
                commit: "abc".into(),
                subdirectory: Some("py".into()),
            }
        );
        assert_eq!(
            origin(r#"{"url": "file:///srv/a.whl", "archive_info": {"hash": "sha256=ab"}}"#),
            Origin::Archive {
                url: "file:///srv/a.whl".into(),
                hashes: [("sha256".to_string(), "ab".to_string())].into(),
                subdirectory: None,
            }
        );
        assert_eq!(
            origin(r#"{"url": "https://x.org/a.whl#egg=a&sha256=ab", "archive_info": {}}"#),
            Origin::Archive {
                url: "https://x.org/a.whl".into(),
                hashes: [("sha256".to_string(), "ab".to_string())].into(),
                subdirectory: None,
            }
        );
        assert_eq!(
            origin(
                r#"{"url": "file:///srv/my%20app", "dir_info": {"editable": true}, "subdirectory": "x"}"#
            ),
            Origin::Directory { path: "/srv/my app/x".into(), editable: true }
        );
    }

    #[test]
    fn an_unreadable_origin_is_not_mistaken_for_an_index() {
        for json in [
            "",
            "{}",
            r#"{"url": "https://example.org"}"#,
            r#"{"url": "https://example.org", "dir_info": {}}"#,
            r#"{"url": "file:///a", "dir_info": {}, "archive_info": {}}"#,
            r#"{"url": 7, "dir_info": {}}"#,
        ] {
            assert!(matches!(origin(json), Origin::Unknown { .. }), "{json}");
        }
    }

    #[test]
    fn a_local_source_is_a_path() {
        let path = |url: &str| local_path(url).map(|path| path.display().to_string());
        assert_eq!(path("file:///srv/a%2Bb%zz%4").as_deref(), Some("/srv/a+b%zz%4"));
        assert_eq!(path("file://localhost/srv/a#sha256=x").as_deref(), Some("/srv/a"));
        assert_eq!(path("file://host/srv/a"), None);
        assert_eq!(path("https://example.org/a"), None);
    }

    #[test]
    fn a_subdirectory_does_not_lead_out_of_its_directory() {
        let origin = origin(r#"{"url": "file:///srv/a", "subdirectory": "../b", "dir_info": {}}"#);
        assert!(matches!(origin, Origin::Directory { path, .. } if path == Path::new("/srv/a")));
    }
}
