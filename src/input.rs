//! Generators of what a parser may be given: a format's own words in any order, good samples
//! that somebody damaged, one piece again and again, and noise.
//!
//! The properties are beside the parsers, in each part's own `input` module: no panic, no
//! more memory and time than the input is worth, what is written is read back as it was, and
//! nothing gets through that would do harm further on. They run with a few hundred cases as
//! unit tests. For a long run of all, or of one part by a longer filter:
//!
//! ```text
//! PROPTEST_CASES=1000000 cargo test --profile soak --locked --lib input::
//! ```
//!
//! cargo-fuzz would be led by coverage, but needs a nightly compiler, which the Debian
//! releases that this is built on do not have. A case that failed is kept in
//! `proptest-regressions/` until there is a test with a name for it.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What an input that repeats itself is filled up to: enough to make a parser that is
/// quadratic in it hang.
const BULK: usize = 64 << 10;

/// Pieces that have broken parsers before.
const NASTY: [&str; 24] = [
    "\0",
    "\n",
    "\r\n",
    "\x1b[2J",
    "\u{202e}",
    "\u{2028}",
    "\u{fffd}",
    "ä",
    " ",
    "\t",
    "-",
    "--",
    "/",
    "..",
    "/../",
    "=",
    ":",
    "\\",
    "\\x",
    "\"",
    "'",
    "%",
    "%2e%2e",
    "18446744073709551616",
];

/// Bytes near a format: `samples` are good files of it, `words` the pieces it is made of.
pub(crate) fn near(
    samples: &'static [&'static str],
    words: &'static [&'static str],
) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => vec(piece(words), 0..4).prop_map(|pieces| pieces.concat()),
        7 => vec(piece(words), 4..48).prop_map(|pieces| pieces.concat()),
        8 => (select(samples), vec(damage(words), 0..5)).prop_map(|(sample, damages)| {
            damages.iter().fold(sample.as_bytes().to_vec(), Damage::apply)
        }),
        2 => vec(any::<u8>(), 0..256),
    ]
}

/// One short piece of a format again and again, after a few others: for a property of its
/// own, with fewer cases, because each takes as long as a hundred others.
pub(crate) fn bulky(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    (vec(piece(words), 0..8), vec(piece(words), 1..4)).prop_map(|(front, repeated)| {
        let (mut bytes, repeated) = (front.concat(), repeated.concat());
        if !repeated.is_empty() {
            bytes.extend(repeated.iter().cycle().take(BULK));
        }
        bytes
    })
}

/// The same as text, as far as it is one.
pub(crate) fn near_text(
    samples: &'static [&'static str],
    words: &'static [&'static str],
) -> impl Strategy<Value = String> {
    near(samples, words).prop_map(lossy)
}

pub(crate) fn lossy(bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(bytes.as_ref()).into_owned()
}

/// How often a bulky property is tried when the others are tried `PROPTEST_CASES` times.
pub(crate) fn few() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: (usual.cases / 100).max(4), ..usual }
}

/// Whether a text can be printed: nothing in it moves the cursor or reorders the line.
pub(crate) fn is_harmless(text: &str) -> bool {
    !text.contains(|c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

fn piece(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        12 => select(words).prop_map(|word| word.as_bytes().to_vec()),
        2 => select(&NASTY[..]).prop_map(|word| word.as_bytes().to_vec()),
        2 => "[a-z0-9._]{1,6}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 1..6),
    ]
}

/// One thing that is done to a good sample.
#[derive(Debug, Clone)]
enum Damage {
    Cut(Index),
    Remove(Index, Index),
    Double(Index, Index),
    Insert(Index, Vec<u8>),
    Set(Index, u8),
}

fn damage(words: &'static [&'static str]) -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        1 => at().prop_map(Damage::Cut),
        2 => (at(), at()).prop_map(|(from, to)| Damage::Remove(from, to)),
        2 => (at(), at()).prop_map(|(from, to)| Damage::Double(from, to)),
        4 => (at(), piece(words)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
    ]
}

impl Damage {
    fn apply(mut bytes: Vec<u8>, damage: &Self) -> Vec<u8> {
        let place = |index: &Index| index.index(bytes.len() + 1);
        let range = |from: &Index, to: &Index| {
            let (from, to) = (place(from), place(to));
            from.min(to)..from.max(to)
        };
        match damage {
            Self::Cut(at) => bytes.truncate(place(at)),
            Self::Remove(from, to) => drop(bytes.drain(range(from, to))),
            Self::Double(from, to) => {
                let range = range(from, to);
                let part = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, part);
            }
            Self::Insert(at, piece) => {
                let at = place(at);
                bytes.splice(at..at, piece.iter().copied());
            }
            Self::Set(at, byte) => {
                let at = place(at);
                if let Some(place) = bytes.get_mut(at) {
                    *place = *byte;
                }
            }
        }
        bytes
    }
}
