//! Roots: bootable Debian releases as they came out, without updates.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::Lab;
use crate::child;

/// A Debian release that an upgrade starts from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Suite {
    Bullseye,
    Bookworm,
    Trixie,
    Forky,
}

impl Suite {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Forky => "forky",
        }
    }
}

/// The packages that the cases need in each root. Nothing is installed later, so that an upgrade computed on the
/// bare root is the upgrade of every machine that a case boots.
const PACKAGES: &str = "ca-certificates,curl,dbus,libpam-systemd,openssl,passwd,procps,\
                        python3,python3-venv,supervisor,systemd,systemd-sysv";

/// The grid needs git for its checkouts and tools for other file systems; the hostile suite traces every program that
/// runs.
const PACKAGES_OF_TRIXIE: &str = "btrfs-progs,git,strace,xfsprogs";

/// Masks the units that only cost time here, and creates the user who owns every venv.
const CUSTOMISE: &str = r#"
set -eu
rm -f "$1"/var/cache/apt/archives/*.deb
: > "$1/etc/machine-id"
for unit in apt-daily.timer apt-daily-upgrade.timer systemd-networkd-wait-online.service \
    systemd-resolved.service systemd-timesyncd.service; do
    ln -sf /dev/null "$1/etc/systemd/system/$unit"
done
rm -f "$1/etc/systemd/system/multi-user.target.wants/supervisor.service"
chroot "$1" useradd --create-home --uid 1000 --shell /bin/sh app
"#;

impl Lab {
    /// The root of a release.
    pub(crate) fn root(&self, suite: Suite) -> Result<PathBuf> {
        let packages = match suite {
            Suite::Trixie => format!("{PACKAGES},{PACKAGES_OF_TRIXIE}"),
            _ => PACKAGES.to_owned(),
        };
        let suite = suite.name();
        self.artefact(&format!("root-{suite}"), &[&packages, CUSTOMISE], |directory| {
            child::output(
                Command::new("mmdebstrap")
                    .args(["--quiet", "--variant=apt", "--format=directory"])
                    .arg(format!("--include={packages}"))
                    // A snapshot of the archive may be older than its Release file allows.
                    .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
                    .arg("--dpkgopt=force-unsafe-io")
                    .arg("--dpkgopt=path-exclude=/usr/share/man/*")
                    .arg("--dpkgopt=path-exclude=/usr/share/doc/*")
                    .arg("--dpkgopt=path-exclude=/usr/share/locale/*")
                    .arg(format!("--customize-hook={CUSTOMISE}"))
                    .arg(suite)
                    .arg(directory)
                    .arg(&self.mirror.main),
            )?;
            Ok(())
        })
    }
}
