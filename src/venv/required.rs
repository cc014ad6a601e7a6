//! What distributions require on some versions of Python only.

use std::collections::BTreeSet;
use std::path::Path;

use super::Distribution;
use super::distribution::normalized;

/// The variables of a marker that differ between versions of Python.
const VERSIONS: [&str; 2] = ["python_version", "python_full_version"];

/// The normalized names of what these distributions require on some versions of Python, and never
/// without such a condition: an installer leaves it out on the others.
pub(crate) fn required_on_some_pythons(
    site_packages: &Path,
    distributions: &[Distribution],
) -> BTreeSet<String> {
    let (mut sometimes, mut always) = (BTreeSet::new(), BTreeSet::new());
    for one in distributions {
        let metadata = one.metadata(site_packages);
        let headers = metadata.lines().take_while(|line| !line.trim().is_empty());
        for (name, marker) in headers.filter_map(requirement) {
            if marker.is_empty() {
                always.insert(name);
            } else if VERSIONS.iter().any(|variable| marker.contains(variable)) {
                sometimes.insert(name);
            }
        }
    }
    sometimes.retain(|name| !always.contains(name));
    sometimes
}

/// The normalized name and the marker of `Requires-Dist: NAME[EXTRA] (VERSION); MARKER`.
pub(super) fn requirement(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.split_once(':')?;
    if !key.eq_ignore_ascii_case("Requires-Dist") {
        return None;
    }
    let (what, marker) = value.split_once(';').unwrap_or((value, ""));
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name = what.trim_start().split(|c| !is_of_name(c)).next()?;
    Some((normalized(name), marker.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_every_requirement_restricts_to_some_pythons_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("lib/python3.13/site-packages");
        for (name, requirements) in [
            (
                "redis",
                "Requires-Dist: async-timeout>=4.0.3; python_full_version < \"3.11.3\"\n\
                 Requires-Dist: hiredis (>=1.0) ; extra == 'hiredis'\n\
                 Requires-Dist: certifi\n",
            ),
            (
                "aiohttp",
                "requires-dist: Async_Timeout<6 ; python_version < \"3.11\"\n\
                 Requires-Dist: typing-extensions; python_version < \"3.13\"\n\
                 Requires-Dist: colorama; sys_platform == \"win32\"\n\
                 \n\
                 Requires-Dist: described; python_version < \"3.0\"\n",
            ),
            ("pydantic", "Requires-Dist: typing_extensions>=4.6\n"),
        ] {
            let info = site.join(format!("{name}-1.dist-info"));
            std::fs::create_dir_all(&info).unwrap();
            let head = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{requirements}");
            std::fs::write(info.join("METADATA"), head).unwrap();
        }
        let distributions = crate::venv::distributions(&site).unwrap();
        let found = required_on_some_pythons(&site, &distributions);
        assert_eq!(found, BTreeSet::from(["async-timeout".to_string()]));
    }
}
