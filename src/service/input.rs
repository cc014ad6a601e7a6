//! Properties of the names of services. See `crate::input`.

use proptest::prelude::*;

use super::Service;
use crate::input::{is_harmless, near_text};

const NAMES: &[&str] = &[
    "systemd:web.service",
    "systemd:web@blue\\x2d1",
    "supervisord:pair:dj_00",
    "runit:web",
    "s6:web",
];

const NAME_WORDS: &[&str] = &[
    "systemd:",
    "supervisord:",
    "runit:",
    "s6:",
    ":",
    "web",
    ".service",
    ".timer",
    "@",
    "\\x2d",
    "-",
    "--",
    "/",
    "*",
    " ",
    "dj",
];

proptest! {
    #[test]
    fn names(text in near_text(NAMES, NAME_WORDS)) {
        match text.parse::<Service>() {
            Ok(service) => {
                let name = service.name();
                prop_assert!(is_harmless(name) && !name.starts_with('-') && !name.is_empty());
                prop_assert!(!name.contains(char::is_whitespace) && !name.contains(['/', '*']));
                prop_assert_eq!(service.to_string().parse::<Service>(), Ok(service.clone()));
                let json = serde_json::to_string(&service).unwrap();
                prop_assert_eq!(serde_json::from_str::<Service>(&json).unwrap(), service);
            }
            Err(error) => {
                let error = error.to_string();
                prop_assert!(is_harmless(&error), "{:?}", error);
            }
        }
        let json = serde_json::json!({"manager": "systemd", "name": text}).to_string();
        if let Ok(service) = serde_json::from_str::<Service>(&json) {
            prop_assert!(is_harmless(service.name()) && !service.name().starts_with('-'));
        }
    }
}
