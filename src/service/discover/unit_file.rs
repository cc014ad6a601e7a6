//! The service units on disk, and the paths that they name.
//!
//! Only the settings that determine a unit's programs are read; systemd itself is asked about
//! everything else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::command_line::{paths, words};
use super::unit_dir::Whose;
use super::unit_name::service_unit;
use crate::host::root::normal;
use crate::host::{Root, file};

/// No unit file is larger.
const LIMIT: u64 = 1 << 20;

/// A service of systemd, and the paths that its commands and environment name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitFile {
    pub(crate) name: String,
    pub(crate) paths: Vec<PathBuf>,
    /// The setting by which it uses a disk image, which is not looked into.
    pub(crate) image: Option<&'static str>,
}

/// All service units; for a template, its enabled or `running` instances.
pub(crate) fn units(root: &Root, running: &BTreeSet<String>) -> Vec<UnitFile> {
    let whose = Whose::of(root);
    let catalogue = Catalogue::look(root, &whose);
    let mut names: BTreeSet<&str> = catalogue.files.keys().map(String::as_str).collect();
    names.extend(catalogue.instances.iter().map(String::as_str));
    names.extend(running.iter().map(String::as_str));
    // A template itself is not a service: `service_unit` refuses it.
    let services = names.into_iter().filter_map(|name| service_unit(name).ok());
    services.filter_map(|name| catalogue.read(root, &whose, name)).collect()
}

/// The contents of the directories, by name; not read yet.
#[derive(Default)]
struct Catalogue {
    /// The file that takes precedence; `None` if the unit is masked or an alias.
    files: HashMap<String, Option<PathBuf>>,
    /// Drop-ins by unit, in order of their names.
    drop_ins: HashMap<String, BTreeMap<String, PathBuf>>,
    /// Instances of templates that another unit wants.
    instances: BTreeSet<String>,
    /// The aliases of a unit, whose drop-ins apply to it too.
    aliases: HashMap<String, Vec<String>>,
}

impl Catalogue {
    fn look(root: &Root, whose: &Whose) -> Self {
        let mut catalogue = Self::default();
        for dir in whose.dirs() {
            for name in names_in(root, &dir) {
                let path = dir.join(&name);
                if let Some(unit) = name.strip_suffix(".d") {
                    for conf in names_in(root, &path).into_iter().filter(|n| is(n, "conf")) {
                        let path = path.join(&conf);
                        let drop_ins = catalogue.drop_ins.entry(unit.to_string()).or_default();
                        drop_ins.entry(conf).or_insert(path);
                    }
                } else if is(&name, "wants") || is(&name, "requires") || is(&name, "upholds") {
                    let wanted = names_in(root, &path).into_iter();
                    catalogue.instances.extend(wanted.filter(|name| template(name).is_some()));
                } else if is(&name, "service") {
                    catalogue.add(root, name, &path);
                }
            }
        }
        catalogue
    }

    /// Adds a unit's file; the first directory that was read takes precedence.
    fn add(&mut self, root: &Root, name: String, path: &Path) {
        if self.files.contains_key(&name) {
            return;
        }
        let end = target(root, path);
        let own = end.as_ref().and_then(|end| end.file_name()?.to_str()).map(str::to_string);
        // `web@blue.service` may be a link to its template.
        let is_own = own.is_some() && (own.as_ref() == Some(&name) || own == template(&name));
        if let Some(own) = own.filter(|own| !is_own && is(own, "service")) {
            self.aliases.entry(own).or_default().push(name.clone());
        }
        self.files.insert(name, end.filter(|_| is_own));
    }

    fn read(&self, root: &Root, whose: &Whose, unit: String) -> Option<UnitFile> {
        let name = unit.as_str();
        let template = template(name);
        let own = self.files.get(name);
        let main = match (own, &template) {
            // Masked, or an alias: the unit is listed under its own name.
            (Some(None), _) => return None,
            (Some(file), _) => file.as_ref(),
            (None, Some(template)) => self.files.get(template)?.as_ref(),
            (None, None) => None,
        };
        // A unit's own drop-ins take precedence over those of its template, of its prefixes, and of
        // all services.
        let mut drop_ins: BTreeMap<&String, &PathBuf> = BTreeMap::new();
        let mut take = |unit: &str| drop_ins.extend(self.drop_ins.get(unit).into_iter().flatten());
        take("service");
        let aliases = self.aliases.get(name).into_iter().flatten().map(String::as_str);
        for name in aliases.chain([name]) {
            let template = self::template(name);
            for unit in prefixes(name).iter().chain(&template) {
                take(unit);
            }
            take(name);
        }
        let mut settings = Settings::default();
        let drop_ins = drop_ins.into_values().filter_map(|path| target(root, path));
        for path in main.cloned().into_iter().chain(drop_ins) {
            if let Some(text) = text(root, &path) {
                settings.read(&text);
            }
        }
        let (paths, image) = (settings.paths(whose, name), settings.image());
        Some(UnitFile { name: unit, paths, image })
    }
}

/// The commands of a unit, setting by setting.
#[derive(Default)]
pub(crate) struct Settings {
    values: BTreeMap<String, Vec<String>>,
    /// What is bound into the unit's file system: `/srv/v:/opt/v`.
    bound: Vec<String>,
    /// The directory that it has as its root.
    own_root: Option<String>,
    has_root_image: bool,
    has_mount_images: bool,
}

impl Settings {
    pub(crate) fn read(&mut self, text: &str) {
        let mut section = String::new();
        for line in logical_lines(text) {
            if line.starts_with('[') {
                section = line;
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let (key, value) = (key.trim(), value.trim());
            if section != "[Service]" {
                continue;
            }
            match key {
                "RootDirectory" => {
                    let root = Some(value.to_string());
                    self.own_root = root.filter(|value| !matches!(&**value, "" | "/"));
                }
                "RootImage" => self.has_root_image = !value.is_empty(),
                "MountImages" => self.has_mount_images = !value.is_empty(),
                // An empty value resets both.
                "BindPaths" | "BindReadOnlyPaths" if value.is_empty() => self.bound.clear(),
                "BindPaths" | "BindReadOnlyPaths" => self.bound.push(value.to_string()),
                _ => {}
            }
            if key.starts_with("Exec") || key == "Environment" {
                let values = self.values.entry(key.to_string()).or_default();
                if value.is_empty() {
                    // An empty value resets the setting.
                    values.clear();
                } else {
                    values.push(value.to_string());
                }
            }
        }
    }

    /// The paths that the unit names, as we see them.
    pub(crate) fn paths(&self, whose: &Whose, unit: &str) -> Vec<PathBuf> {
        let bound = self.bound.iter().flat_map(|value| words(&expand(value, whose, unit)));
        let mounts: Vec<(PathBuf, PathBuf)> = bound.filter_map(|word| mount(&word)).collect();
        let own_root = self.own_root.as_ref().map(|root| expand(root, whose, unit));
        let seen = |path: PathBuf| {
            let below = |(from, to): &(PathBuf, PathBuf)| {
                Some((to.as_os_str().len(), from.join(path.strip_prefix(to).ok()?)))
            };
            // The innermost mount hides the others.
            match (mounts.iter().filter_map(below).max_by_key(|(length, _)| *length), &own_root) {
                (Some((_, mounted)), _) => Some(normal(&mounted)),
                (None, Some(root)) => Some(Path::new(root).join(path.strip_prefix("/").ok()?)),
                (None, None) => (!self.has_root_image).then_some(path),
            }
        };
        let named = self.values.values().flatten();
        let named = named.flat_map(|value| paths(&expand(value, whose, unit))).filter_map(seen);
        mounts.iter().map(|(from, _)| from.clone()).chain(named).collect()
    }

    /// The setting that mounts a disk image.
    fn image(&self) -> Option<&'static str> {
        let of_root = self.has_root_image.then_some("RootImage");
        of_root.or_else(|| self.has_mount_images.then_some("MountImages"))
    }
}

/// What a bind mount such as `/srv/v:/opt/v` mounts, and where.
fn mount(word: &str) -> Option<(PathBuf, PathBuf)> {
    let mut parts = word.trim_start_matches(['-', '+']).split(':');
    let from = parts.next()?;
    let to = parts.next().filter(|to| !to.is_empty()).unwrap_or(from);
    let is_whole = from.starts_with('/') && to.starts_with('/');
    is_whole.then(|| (normal(Path::new(from)), normal(Path::new(to))))
}

/// The lines, joined where a backslash continues them, without comments.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut whole = String::new();
    for line in text.lines() {
        let line = line.trim_start();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(front) = line.strip_suffix('\\') {
            whole.push_str(front);
            whole.push(' ');
        } else {
            whole.push_str(line);
            lines.push(std::mem::take(&mut whole).trim_end().to_string());
        }
    }
    lines.push(whole);
    lines
}

/// Expands the specifiers (`%i` and others) that paths are made of.
fn expand(value: &str, whose: &Whose, unit: &str) -> String {
    let stem = unit.strip_suffix(".service").unwrap_or(unit);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let mut text = String::new();
    let mut rest = value.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match rest.next() {
            Some('n') => text.push_str(unit),
            Some('N') => text.push_str(stem),
            Some('p') => text.push_str(prefix),
            Some('P') => text.push_str(&unescape(prefix)),
            Some('i') => text.push_str(instance),
            Some('I') => text.push_str(&unescape(instance)),
            Some('f') => {
                text.push('/');
                text.push_str(&unescape(if instance.is_empty() { prefix } else { instance }));
            }
            Some('j') => text.push_str(prefix.rsplit('-').next().unwrap_or(prefix)),
            Some('%') | None => text.push('%'),
            Some(other) => match whose.dir(other) {
                Some(dir) => text.push_str(&dir.to_string_lossy()),
                None => text.extend(['%', other]),
            },
        }
    }
    text
}

/// `srv-my\x2dapp` is `srv/my-app` (`systemd-escape(1)`).
pub(crate) fn unescape(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.strip_prefix(b"x").and_then(|hex| std::str::from_utf8(hex.get(..2)?).ok());
        let code = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let byte;
        (rest, byte) = match (first, code) {
            (b'\\', Some(code)) => (after.get(3..).unwrap_or_default(), code),
            (b'-', _) => (after, b'/'),
            (other, _) => (after, *other),
        };
        bytes.push(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `web@.service` of `web@blue.service`.
fn template(name: &str) -> Option<String> {
    let (prefix, instance) = name.strip_suffix(".service")?.split_once('@')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.service"))
}

/// `web-.service` and `web-blue-.service` of `web-blue-1.service`, the most general one first:
/// drop-ins for them apply too (`systemd.unit(5)`). An instance has those of its template.
fn prefixes(name: &str) -> Vec<String> {
    let Some(stem) = name.strip_suffix(".service") else { return Vec::new() };
    let (prefix, kind) = match stem.split_once('@') {
        Some((prefix, _)) => (prefix, "@"),
        None => (stem, ""),
    };
    let dashes = prefix.match_indices('-').map(|(at, dash)| at + dash.len());
    let fronts = dashes.filter_map(|end| prefix.get(..end)).filter(|front| *front != prefix);
    fronts.map(|front| format!("{front}{kind}.service")).collect()
}

/// The file that a name in a unit directory resolves to; for a masked unit, `/dev/null`.
fn target(root: &Root, path: &Path) -> Option<PathBuf> {
    root.follow(path).ok()?.pop()
}

/// The text of a file whose path leads through no links.
fn text(root: &Root, real: &Path) -> Option<String> {
    let bytes = file::read_untrusted(&root.at(real), LIMIT).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn names_in(root: &Root, dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.at(dir)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn is(name: &str, kind: &str) -> bool {
    name.strip_suffix(kind).is_some_and(|front| front.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::super::process::tests::FakeProc;
    use super::*;

    fn found(machine: &FakeProc, running: &[&str]) -> BTreeMap<String, Vec<PathBuf>> {
        let running = running.iter().map(ToString::to_string).collect();
        units(&machine.root(), &running).into_iter().map(|unit| (unit.name, unit.paths)).collect()
    }

    #[test]
    fn the_first_file_takes_precedence_and_drop_ins_change_it() {
        let machine = FakeProc::new();
        machine
            .write("usr/lib/systemd/system/web.service", "[Service]\nExecStart=/opt/old/bin/app\n");
        machine.write(
            "etc/systemd/system/web.service",
            "[Unit]\nDescription=/opt/not/bin/this\n[Service]\n# ExecStart=/opt/not/bin/that\n\
             ExecStartPre=/opt/pre/bin/migrate\nExecStart=/opt/first/bin/app \\\n  --home=/opt/more\n",
        );
        machine.write(
            "usr/lib/systemd/system/web.service.d/10.conf",
            "[Service]\nExecStart=/opt/hidden/bin/app\n",
        );
        machine.write(
            "etc/systemd/system/web.service.d/10.conf",
            "[Service]\nExecStart=\nExecStart=/opt/second/bin/app\nEnvironment=\"VIRTUAL_ENV=/opt/v\"\n",
        );
        let paths = ["/opt/v", "/opt/second/bin/app", "/opt/pre/bin/migrate"].map(PathBuf::from);
        assert_eq!(found(&machine, &[])["web.service"], paths);
    }

    #[test]
    fn a_template_stands_for_its_instances() {
        let machine = FakeProc::new();
        machine.write(
            "etc/systemd/system/web@.service",
            "[Service]\nExecStart=/srv/%i/venv/bin/app --name %n %%i\nExecStop=/%I/x\n",
        );
        machine
            .link("etc/systemd/system/multi-user.target.wants/web@blue.service", "../web@.service");
        let found = found(&machine, &[r"web@my\x2dapp-x.service", "gone@1.service"]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found["web@blue.service"][0], Path::new("/srv/blue/venv/bin/app"));
        let escaped = &found[r"web@my\x2dapp-x.service"];
        assert!(escaped.contains(&"/my-app/x/x".into()), "{escaped:?}");
    }

    #[test]
    fn masks_and_aliases_name_nothing_and_another_root_has_its_own_paths() {
        let machine = FakeProc::new();
        for unit in ["masked", "real"] {
            machine.write(
                &format!("usr/lib/systemd/system/{unit}.service"),
                "[Service]\nExecStart=/opt/v/bin/app\n",
            );
        }
        machine.link("etc/systemd/system/masked.service", "/dev/null");
        machine.link("etc/systemd/system/alias.service", "/usr/lib/systemd/system/real.service");
        machine.write(
            "etc/systemd/system/jail.service",
            "[Service]\nRootDirectory=/srv/jail\nExecStart=/opt/v/bin/app\nBindReadOnlyPaths=/srv/e4:/opt/e4\n",
        );
        machine.write("srv/app/linked.service", "[Service]\nExecStart=/opt/v/bin/app\n");
        machine.link("etc/systemd/system/linked.service", "/srv/app/linked.service");
        let mut named = found(&machine, &[]);
        let jail = named.remove("jail.service").unwrap();
        assert!(jail.contains(&"/srv/e4".into()), "{jail:?}");
        assert!(jail.contains(&"/srv/jail/opt/v/bin/app".into()), "{jail:?}");
        assert!(!jail.contains(&"/opt/v/bin/app".into()), "{jail:?}");
        named.retain(|_, paths| !paths.is_empty());
        assert_eq!(named.into_keys().collect::<Vec<_>>(), ["linked.service", "real.service"]);
    }

    #[test]
    fn a_path_below_a_bind_mount_means_what_is_mounted_there() {
        let machine = FakeProc::new();
        let named = |settings: &str| {
            let text = format!("[Service]\n{settings}\nExecStart=/opt/e4/venv/bin/python x\n");
            machine.write("etc/systemd/system/web.service", text);
            found(&machine, &[]).remove("web.service").unwrap()
        };
        let venv = PathBuf::from("/srv/e4/venv/bin/python");
        for bound in [
            "BindReadOnlyPaths=/srv/e4:/opt/e4",
            "BindPaths=/srv/a -/srv/e4:/opt/e4:rbind",
            "BindPaths=/srv/other:/opt\nBindReadOnlyPaths=\"/srv/e4:/opt/e4\"",
            "RootDirectory=/srv/jail\nBindPaths=/srv/e4:/opt/e4",
        ] {
            let paths = named(bound);
            assert!(paths.contains(&venv), "{bound}: {paths:?}");
            assert!(!paths.contains(&"/opt/e4/venv/bin/python".into()), "{bound}: {paths:?}");
        }
        for other in ["BindPaths=/srv/e4:/opt/e", "BindPaths=/srv/e4:/opt/e4\nBindPaths="] {
            assert!(!named(other).contains(&venv), "{other}");
        }
    }

    #[test]
    fn drop_ins_for_a_prefix_and_for_an_alias_apply_to_the_unit() {
        let machine = FakeProc::new();
        let dir = "etc/systemd/system";
        for unit in ["web-blue-1", "web-", "web@", "web-red@"] {
            let text = format!("[Service]\nExecStart=/usr/bin/env {unit}\n");
            machine.write(&format!("{dir}/{unit}.service"), text);
        }
        machine.link(&format!("{dir}/shop.service"), "web-blue-1.service");
        let drop_in = |unit: &str, conf: &str, venv: &str| {
            let text = format!("[Service]\nEnvironment=VIRTUAL_ENV=/opt/{venv}\n");
            machine.write(&format!("{dir}/{unit}.d/{conf}.conf"), text);
        };
        drop_in("web-.service", "venv", "web");
        drop_in("web-blue-.service", "blue", "blue");
        drop_in("web-blue-1.service", "own", "own");
        drop_in("shop.service", "alias", "alias");
        drop_in("web-@.service", "template", "template");
        // The more specific of two drop-ins of one name takes precedence.
        drop_in("web-.service", "both", "not-this");
        drop_in("web-blue-.service", "both", "this");
        let found = found(&machine, &["web-red@x-y.service"]);
        let venvs = |unit: &str| -> Vec<String> {
            let paths = found[unit].iter().filter_map(|path| path.strip_prefix("/opt").ok());
            paths.map(|path| path.to_string_lossy().into_owned()).collect()
        };
        let mut all = venvs("web-blue-1.service");
        all.sort();
        assert_eq!(all, ["alias", "blue", "own", "this", "web"]);
        assert_eq!(venvs("web-red@x-y.service"), ["template"]);
        assert_eq!(venvs("web-.service"), ["not-this", "web"], "its own drop-ins");
        assert!(!found.contains_key("shop.service"));
    }

    #[test]
    fn files_that_are_not_unit_files_do_no_harm() {
        let machine = FakeProc::new();
        machine.link("etc/systemd/system/loop.service", "loop.service");
        machine.write("etc/systemd/system/-H.service", "[Service]\nExecStart=/opt/v/bin/app\n");
        machine.write("etc/systemd/system/bytes.service", b"[Service]\n\xff=\xff\nExecStart=\\");
        std::fs::create_dir(machine.0.path().join("etc/systemd/system/directory.service")).unwrap();
        assert!(found(&machine, &[]).values().all(Vec::is_empty));
    }
}
