# Runs inside a root: turns the packages in /archive/pool/RELEASE into an archive like Debian's, with a key of its own
# for each release. What belongs to Python is in the suite of security updates, so that both suites are needed.
apt-get -qq update
apt-get -qq -y install --no-install-recommends apt-utils gnupg >/dev/null
export GNUPGHOME=/tmp/keys
mkdir -m 700 "$GNUPGHOME"
cd /archive || exit
mkdir keys
for release in "$@"; do
    mkdir -p "pool/$release" "pool/$release-security"
    find "pool/$release" -name '*python3.*' -exec mv -t "pool/$release-security" {} +
    name="The lab's $release <$release@localhost>"
    gpg --batch --quiet --passphrase '' --quick-generate-key "$name" rsa3072 sign never
    gpg --export "$name" >"keys/$release.gpg"
    for suite in "$release" "$release-security"; do
        dir=dists/$suite/main/binary-$(dpkg --print-architecture)
        mkdir -p "$dir"
        apt-ftparchive packages "pool/$suite" >"$dir/Packages"
        apt-ftparchive -o "APT::FTPArchive::Release::Suite=$suite" -o "APT::FTPArchive::Release::Codename=$suite" \
            -o "APT::FTPArchive::Release::Architectures=$(dpkg --print-architecture)" \
            -o APT::FTPArchive::Release::Components=main release "dists/$suite" >/tmp/Release
        mv /tmp/Release "dists/$suite/Release"
        gpg --batch --quiet --local-user "$name" --clearsign --output "dists/$suite/InRelease" "dists/$suite/Release"
    done
done
