//! Masks credentials in URLs wherever others may read them: in messages, the registry, the
//! history and systemd's journal. The result looks like pip's.

/// What replaces a secret.
const MASK: &str = "****";

/// The longest password. The limit also bounds the cost of a text with many colons.
const SECRET_LIMIT: usize = 512;

/// The text with the password or token in front of each URL's host masked.
pub(crate) fn redacted(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        result.push_str(before);
        result.push_str("://");
        rest = after;
        if let Some((credentials, host)) = split_credentials(after) {
            // A lone name may be a token.
            match credentials.split_once(':') {
                Some((name, _)) => result.extend([name, ":", MASK, "@"]),
                None => result.extend([MASK, "@"]),
            }
            rest = host;
        }
    }
    result.push_str(rest);
    result
}

/// Splits a URL into the credentials in front of its host and the rest of the text, if it has
/// credentials.
fn split_credentials(url: &str) -> Option<(&str, &str)> {
    let ends = |character: char| character.is_whitespace() || "/?#".contains(character);
    let authority = url.get(..url.find(ends).unwrap_or(url.len()))?;
    let end = authority.rfind('@').or_else(|| {
        // A password with an unencoded slash: the text before the slash does not look like a port.
        let (_, port) = authority.rsplit_once(':')?;
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) || port.contains(']');
        let mut rest =
            url.bytes().take(SECRET_LIMIT).take_while(|byte| !byte.is_ascii_whitespace());
        if is_port { None } else { rest.position(|byte| byte == b'@') }
    })?;
    let (credentials, host) = (url.get(..end)?, url.get(end + 1..)?);
    // If another URL begins in between, the `@` belongs to that one.
    (!credentials.contains("://")).then_some((credentials, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_masked_as_pip_does() {
        for (text, shown) in [
            ("https://user:pass@x.org/a.whl", "https://user:****@x.org/a.whl"),
            ("https://token@x.org/a", "https://****@x.org/a"),
            ("https://:pass@x.org", "https://:****@x.org"),
            ("https://u%40x:p%40ss%3A@x.org/a", "https://u%40x:****@x.org/a"),
            ("https://user:p@ss@x.org/a", "https://user:****@x.org/a"),
            ("https://user:pa/ss@x.org/a", "https://user:****@x.org/a"),
            ("https://user:it's@x.org:8080/a", "https://user:****@x.org:8080/a"),
            ("git+ssh://git@x.org/a.git@4f2a", "git+ssh://****@x.org/a.git@4f2a"),
            ("https://a:b/https://u:p@x.org", "https://a:b/https://u:****@x.org"),
            ("https://u:p@[::1]:80/a", "https://u:****@[::1]:80/a"),
            (
                "error: 'https://u:p@x.org' and (https://t@y.org/)\nhttp://u:p@z",
                "error: 'https://u:****@x.org' and (https://****@y.org/)\nhttp://u:****@z",
            ),
        ] {
            assert_eq!(redacted(text), shown);
            assert_eq!(redacted(shown), shown, "masking twice changes nothing");
        }
    }

    #[test]
    fn text_without_credentials_is_unchanged() {
        for text in [
            "",
            "no URL, mail@example.org",
            "https://x.org/a@4f2a?token=x&mail=a@b.org#egg=a",
            "https://x.org:8080/simple/?a:b@c",
            "https://[::1]/a@b",
            "https://[::1]:8080/a@b",
            "lib @ git+https://x.org/lib.git@4f2a",
            "https://x.org user@y.org",
            "file:///srv/a@b",
            "git@x.org:a.git",
            "://",
            "https://",
        ] {
            assert_eq!(redacted(text), text);
        }
    }
}
