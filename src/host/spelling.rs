//! Guesses which known word a person meant.

/// How alike two words have to be, from 0 to 1.
const ALIKE: f64 = 0.8;

/// The known word that is most like `word`, if one is.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known: &'a str| (strsim::jaro_winkler(word, known), known);
    let alike = known.map(likeness).filter(|(likeness, _)| *likeness > ALIKE);
    alike.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_that_is_alike_is_meant() {
        let known = ["shop", "shopping", "blog"];
        let meant = |word| nearest(word, known.into_iter());
        assert_eq!(meant("shopp"), Some("shop"));
        assert_eq!(meant("blgo"), Some("blog"));
        assert_eq!(meant("/srv/other"), None);
        assert_eq!(nearest("shop", std::iter::empty()), None);
    }
}
