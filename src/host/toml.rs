//! Reading TOML from any source, however deeply it is nested.

use std::panic::resume_unwind;
use std::thread;

use serde::de::DeserializeOwned;

/// Why a text cannot be read.
#[derive(Debug)]
pub(crate) struct TomlError {
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// The stack that the parser needs at its maximum depth: 80 nested tables, each at the end of a
/// key of 80 names. The kernel only allocates the part that is used.
const STACK: usize = 64 << 20;

/// Each of them begins another level.
const DEEPER: &[u8] = b"[{.";

/// How many levels need no more than a usual stack: about 10 KiB each.
const SHALLOW: usize = 64;

/// Reads a text of any depth.
pub(crate) fn read<T: DeserializeOwned + Send>(text: &str) -> Result<T, TomlError> {
    let read = || toml::from_str(text).map_err(|error| TomlError::of(text, &error));
    // apt's hooks read the configuration in every run: a thread would take longer than the rest.
    if text.bytes().filter(|byte| DEEPER.contains(byte)).take(SHALLOW).count() < SHALLOW {
        return read();
    }
    thread::scope(|scope| {
        let reader = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, read);
        match reader.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(error) => Err(TomlError { line: 1, message: error.to_string() }),
        }
    })
}

impl TomlError {
    fn of(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
        Self { line, message: error.message().to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_text_does_no_harm() {
        let key = vec!["a"; 79].join(".");
        let deep = |times: usize| {
            let values = format!("{{{key}=").repeat(times) + "1" + &"}".repeat(times);
            format!("[{key}]\n{key}={values}\n")
        };
        for times in [1, 79, 80, 1000] {
            for text in [deep(times), deep(times).replace('}', "")] {
                let _ = read::<serde::de::IgnoredAny>(&text);
            }
        }
        assert!(
            read::<serde::de::IgnoredAny>(&deep(70)).is_ok(),
            "the depth limit alone must not be what prevents the overflow"
        );
    }

    #[test]
    fn a_mistake_is_reported_with_its_line() {
        let error = read::<serde::de::IgnoredAny>("a = 1\nb =\n").unwrap_err();
        assert_eq!(error.line, 2, "{error:?}");
    }
}
