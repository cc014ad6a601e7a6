//! Advice about files that venvguard cannot use.

use std::path::Path;

use super::{LAST_GOOD, REGISTRY, Store, StoreError, registry};
use crate::host::ReadError;
use crate::host::access::Access;
use crate::host::file::printable;
use crate::host::lock::LockError;

impl Store {
    /// How to fix an error, with the commands; `None` if the error says it all.
    pub(crate) fn advice(&self, error: &StoreError) -> Option<String> {
        let path = match error {
            StoreError::Newer { .. } => {
                return Some(
                    "install the version of venvguard that wrote it, or a newer one".to_string(),
                );
            }
            StoreError::LockFile(LockError::Held(_)) => {
                return Some(
                    "try again when the other one has finished; after an apt run, `venvguard resume` does what is left"
                        .to_string(),
                );
            }
            StoreError::Read(ReadError::NotOurs { path, .. }) => {
                let mode = if path.is_dir() { "755" } else { "644" };
                let has_list = Access::at(path).is_ok_and(|access| access.has_list());
                let path = printable(path);
                let owner = if self.root.user().is_none() { "root:root" } else { "$USER:" };
                let lists =
                    if has_list { format!("setfacl -bk '{path}' && ") } else { String::new() };
                return Some(format!(
                    "find out who wrote there and check its contents, then run `{lists}chown {owner} '{path}' && chmod {mode} '{path}'`"
                ));
            }
            StoreError::Damaged { path, .. }
            | StoreError::Read(ReadError::NotRegular { path } | ReadError::TooLarge { path, .. }) => {
                path
            }
            _ => return None,
        };
        let shown = printable(path);
        if path.parent() != Some(self.dir()) {
            return Some(if path.starts_with(self.dir()) {
                format!(
                    "its venv is complete, either old or new: check it with `venvguard status`, then run `mv '{shown}' '{shown}.damaged'`"
                )
            } else {
                format!(
                    "`man venvguard.toml` lists the settings and their values; to use the defaults, move the file away: `mv '{shown}' '{shown}.damaged'`"
                )
            });
        }
        Some(match path.file_name()?.to_str()? {
            REGISTRY => self.advice_on_registry(path),
            "history.jsonl" => format!("start a new one: `mv '{shown}' '{shown}.old'`"),
            // It is rebuilt from what is installed.
            _ => {
                format!("continue without it: `mv '{shown}' '{shown}.damaged' && venvguard resume`")
            }
        })
    }

    fn advice_on_registry(&self, path: &Path) -> String {
        let path = printable(path);
        let aside = format!("mv '{path}' '{path}.damaged'");
        let last_good = self.load::<super::Registry>(LAST_GOOD, registry::SCHEMA);
        if let Ok(Some(registry)) = last_good {
            let copy = printable(self.dir().join(LAST_GOOD));
            let count = registry.venvs.len();
            let venvs = if count == 1 { "1 venv".to_string() } else { format!("{count} venvs") };
            format!(
                "restore the registry from before its last change, with {venvs}: `{aside} && cp '{copy}' '{path}'`"
            )
        } else {
            format!(
                "there is no earlier copy; register the venvs again: `{aside} && venvguard scan --register`"
            )
        }
    }
}
