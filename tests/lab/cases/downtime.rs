//! How long a service does not answer: during a guarded upgrade, and during a mere restart of its unit.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::Case;
use crate::guard::On;
use crate::machine::{Machine, Service, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let subject = "minor_downtime_beside_a_restart";
    vec![Case::guarded(subject, Kind::TrixieMinor, &[Site::Followed], beside_a_restart)]
}

/// How often the client connects.
const EVERY: Duration = Duration::from_millis(20);

/// An answer takes a few milliseconds. A service that is silent for longer than this is down.
const DOWN: Duration = Duration::from_millis(150);

/// How long the client watches before and after the event.
const CALM: Duration = Duration::from_millis(500);

/// Prints the downtimes and sets no limit: they depend on the machine.
fn beside_a_restart(machine: &Machine) -> Result<()> {
    let service = &services_of(Site::Followed)[0];
    machine.must(
        "sed -i 's/--workers 1/--workers 2/' /etc/systemd/system/followed.service
         systemctl daemon-reload; systemctl restart followed",
    )?;
    machine.wait_until_serving(service)?;
    machine.install_guard()?;
    let restart = || machine.must("systemctl restart followed").map(drop);
    let upgrade = || machine.must_upgrade_python().map(drop);
    let before = watch(machine, service, restart)?;
    let upgraded = watch(machine, service, upgrade)?;
    let after = watch(machine, service, restart)?;
    println!("lab: downtime by a restart before the upgrade: {before}");
    println!("lab: downtime by the guarded upgrade:          {upgraded}");
    println!("lab: downtime by a restart after the upgrade:  {after}");
    machine.assert_guarded(&[(Site::Followed, On::New)])
}

/// The client's observations.
#[derive(Debug, Default)]
struct Watch {
    requests: u32,
    failures: u32,
    /// The sum of the times without an answer.
    down: Duration,
    outages: u32,
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, failures, down, outages } = self;
        write!(f, "{:.2} s in {outages} outages, ", down.as_secs_f32())?;
        write!(f, "{failures} of {requests} requests failed")
    }
}

/// Sends requests without a pause while `during` runs.
fn watch(
    machine: &Machine,
    service: &Service,
    during: impl FnOnce() -> Result<()>,
) -> Result<Watch> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| ask_until(machine, service, &is_over));
        thread::sleep(CALM);
        let outcome = during().and_then(|()| machine.wait_until_serving(service));
        thread::sleep(CALM);
        is_over.store(true, Ordering::Relaxed);
        let watch = client.join().map_err(|_| anyhow!("the client panicked"))?;
        outcome?;
        ensure!(watch.failures < watch.requests, "nothing was answered: {watch}");
        Ok(watch)
    })
}

fn ask_until(machine: &Machine, service: &Service, is_over: &AtomicBool) -> Watch {
    let mut watch = Watch::default();
    let mut answered = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        watch.requests += 1;
        if machine.ask(service, "/ok").is_ok_and(|answer| answer.status == 200) {
            let silence = answered.elapsed();
            if silence > DOWN {
                watch.down += silence;
                watch.outages += 1;
            }
            answered = Instant::now();
        } else {
            watch.failures += 1;
        }
        thread::sleep(EVERY.saturating_sub(asked.elapsed()));
    }
    watch
}
