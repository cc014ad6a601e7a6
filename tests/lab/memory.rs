//! How much memory the machines may take, and whether that much is available.

/// The memory that a machine's programs take in addition to the files they write, in MiB.
const PROGRAMS: u64 = 1 << 10;

/// A warning if machines that may write `room` MiB each may take more memory than `/proc/meminfo` reports as available.
pub(crate) fn shortage(meminfo: &str, machines: usize, room: u64) -> Option<String> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    let available = kibibytes >> 10;
    let most = u64::try_from(machines).ok()?.saturating_mul(room + PROGRAMS);
    (available < most).then(|| {
        format!(
            "only {} GiB of memory are available, and {machines} machines at once may take {} GiB: \
             --test-threads 1 runs one after the other",
            gibibytes(available),
            gibibytes(most),
        )
    })
}

fn gibibytes(mebibytes: u64) -> String {
    format!("{}.{}", mebibytes >> 10, ((mebibytes % (1 << 10)) * 10) >> 10)
}
