//! Separate file systems, in image files, for venvguard's state and venvs: they can be full or read-only, have a quota,
//! or lose power.

use anyhow::Result;

use crate::machine::Machine;

/// A new file system in an image file.
pub(crate) struct Disk {
    pub(crate) mkfs: &'static [&'static str],
    pub(crate) mebibytes: u64,
    pub(crate) options: &'static str,
}

/// As harsh as ext4 can be: nothing reaches the disk unless it is synced, and in no particular order.
pub(crate) const EXT4: Disk = Disk {
    mkfs: &["mkfs.ext4", "-q", "-F", "-m", "0"],
    mebibytes: 128,
    options: "loop,data=writeback,commit=300,noauto_da_alloc",
};

/// btrfs brings its own quotas: kernels for small machines often lack those of ext4 and xfs.
pub(crate) const BTRFS: Disk =
    Disk { mkfs: &["mkfs.btrfs", "--quiet"], mebibytes: 128, options: "loop" };

/// Stops the disks as a power cut does: ext4 loses all data that it has not handed to its disk (the ioctl is its
/// `SHUTDOWN` without a flush of its log, made for such tests). Then the machine comes up again: ext4 replays its
/// journal, and services start.
pub(crate) const POWER_OFF: &str = r#"
power_off() {
    python3 -c 'import fcntl, os, struct, sys
for place in sys.argv[1:]:
    fcntl.ioctl(os.open(place, os.O_RDONLY), 0x8004587D, struct.pack("I", 2))' /var/lib/venvguard /srv/bare || exit
    systemctl kill --signal KILL bare 2>/dev/null
    systemctl stop bare
    for place in /var/lib/venvguard /srv/bare; do
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            umount $place && break
            sleep 0.1
        done || exit
        mount $place || exit
    done
    systemctl reset-failed bare 2>/dev/null
    systemctl start bare
}
"#;

/// Turns on a quota that is already used up, or turns quotas off.
pub(crate) const QUOTA: &str = r#"
import fcntl, os, struct, sys
CONTROL, LIMIT = 0xC0109428, 0x8030942B
directory = os.open("/srv/bare", os.O_RDONLY)
if sys.argv[1] == "on":
    fcntl.ioctl(directory, CONTROL, struct.pack("QQ", 1, 0))
    fcntl.ioctl(directory, LIMIT, struct.pack("QQQQQQ", 0, 1, 1, 0, 0, 0))
else:
    fcntl.ioctl(directory, CONTROL, struct.pack("QQ", 2, 0))
"#;

impl Machine {
    /// Moves each directory onto a file system of its own.
    pub(crate) fn put_on_disks(&self, disk: &Disk, places: &[&str]) -> Result<()> {
        self.must("systemctl stop bare")?;
        for (number, place) in places.iter().enumerate() {
            let image = format!("/disks/{number}");
            self.make_file_system(&image, disk.mebibytes, disk.mkfs)?;
            self.must(&format!(
                "echo '{image} {place} auto {} 0 0' >>/etc/fstab
                 mkdir -p {place} && mount {image} /mnt && cp -a {place}/. /mnt/ && umount /mnt
                 rm -rf {place}/* && mount {place}",
                disk.options
            ))?;
        }
        self.must("systemctl start bare")?;
        self.wait_until_all_serve()
    }
}

/// Where venvguard keeps its state, and where the venv and its trees are.
pub(crate) const PLACES: [&str; 2] = ["/var/lib/venvguard", "/srv/bare"];
