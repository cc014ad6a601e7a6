//! Trials of the lab's own tools, which boot no machine.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::memory::shortage;
use crate::prepare::Lab;
use crate::times::{Part, Time, table};

/// A trial of one of the lab's tools.
pub(crate) struct Own {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Lab) -> Result<()>,
}

pub(crate) fn all() -> Vec<Own> {
    vec![
        Own { name: "lab_one_full_disk_is_no_others", run: full_disk },
        Own { name: "lab_tells_of_little_memory", run: little_memory },
        Own { name: "lab_tells_where_the_time_is_spent", run: spent_time },
    ]
}

/// A machine that has filled its disk takes no room from the others.
fn full_disk(lab: &Lab) -> Result<()> {
    let lower = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let full = lab.overlay_with_room("full", &lower, 8)?;
    let other = lab.overlay_with_room("other", &lower, 8)?;
    let mebibytes = |count: usize| vec![1; count << 20];
    let written = fs::write(full.path("/filler"), mebibytes(9));
    let is_full = |error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
    ensure!(written.as_ref().is_err_and(is_full), "9 MiB fit into 8: {written:?}");
    fs::write(other.path("/file"), mebibytes(6))?;
    ensure!(other.used()? == 6, "counted {} MiB instead of 6", other.used()?);
    Ok(())
}

fn little_memory(_: &Lab) -> Result<()> {
    let told = shortage("MemTotal: 8388608 kB\nMemAvailable:    3145728 kB\n", 2, 1 << 10);
    let words = "3.0 GiB of memory are available, and 2 machines at once may take 4.0 GiB";
    ensure!(told.as_ref().is_some_and(|told| told.contains(words)), "{told:?}");
    for enough in ["MemAvailable: 4194304 kB\n", ""] {
        let told = shortage(enough, 2, 1 << 10);
        ensure!(told.is_none(), "{enough:?}: {told:?}");
    }
    Ok(())
}

fn spent_time(_: &Lab) -> Result<()> {
    let time = |part, name: &str, seconds, boot, mebibytes| Time {
        part,
        name: name.to_owned(),
        seconds,
        boot,
        mebibytes,
    };
    let told = table(&[
        time(Part::Trial, "short", 1.5, Some(1.0), Some(7)),
        time(Part::Preparation, "root", 31.0, None, None),
        time(Part::Trial, "long", 100.0, Some(2.5), Some(1234)),
    ]);
    let expected = "\
lab: the time of each preparation and each trial
lab: seconds     boot      MiB
lab:    31.0        -        -  root
lab:    31.0        -        -  = 1 preparation
lab:   100.0      2.5     1234  long
lab:     1.5      1.0        7  short
lab:   101.5      3.5        -  = 2 trials
";
    ensure!(told == expected, "{told}");
    Ok(())
}
