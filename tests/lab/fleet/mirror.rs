//! The controller's mirror: signed repositories that it serves to the machines, which have no other network.

use std::path::Path;

use anyhow::Result;

use crate::machine::Machine;

/// Makes the keys of the mirror and of a stranger, and serves `/srv/mirror`.
const SERVE: &str = r"
set -e
mkdir -p /srv/mirror
for name in mirror stranger; do
    gpg --batch --quiet --passphrase '' --quick-generate-key $name@example.org ed25519 sign never
done
systemd-run --quiet --unit=mirror python3 -m http.server --directory /srv/mirror 8000
gpg --batch --armor --export mirror@example.org
";

/// Makes a repository of the packages in `/srv/mirror/NAME/pool`.
const PUBLISH: &str = r#"
set -e
cd /srv/mirror/$name
mkdir -p dists/stable/main/binary-amd64
apt-ftparchive packages pool >dists/stable/main/binary-amd64/Packages
for field in Suite=stable Codename=stable Components=main Architectures=amd64; do
    echo "APT::FTPArchive::Release::${field%=*} \"${field#*=}\";"
done >/root/release.conf
apt-ftparchive --config-file /root/release.conf release dists/stable >/root/Release
mv /root/Release dists/stable/
"#;

/// Starts the mirror, and returns its public key.
pub(super) fn serve(controller: &Machine) -> Result<String> {
    controller.must(SERVE)
}

/// Publishes the packages in some directories of the host as the repository `name`.
pub(super) fn publish(controller: &Machine, name: &str, directories: &[&Path]) -> Result<()> {
    let pool = format!("/srv/mirror/{name}/pool");
    controller.must(&format!("mkdir -p {pool}"))?;
    for (number, directory) in directories.iter().enumerate() {
        controller.copy(directory, &format!("{pool}/{number}"))?;
    }
    controller.must(&format!("name={name}\n{PUBLISH}"))?;
    sign(controller, name, "mirror")
}

/// Signs a repository by a key.
pub(super) fn sign(controller: &Machine, name: &str, key: &str) -> Result<()> {
    controller.must(&format!(
        "cd /srv/mirror/{name}/dists/stable
         gpg --batch --quiet --yes --local-user {key}@example.org --output InRelease --clear-sign Release"
    ))?;
    Ok(())
}
