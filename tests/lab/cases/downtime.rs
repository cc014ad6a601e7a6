//! How long a service does not answer: during a guarded upgrade, and during a mere restart of its unit.
//! Other cases watch services with the same client.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::Case;
use crate::guard::On;
use crate::machine::{Machine, Service, services_of};
use crate::prepare::upgrade::Kind;
use crate::prepare::venvs::Site;

pub(super) fn cases() -> Vec<Case> {
    let subject = "minor_downtime_beside_a_restart";
    vec![Case::guarded(subject, Kind::TrixieMinor, &[Site::Followed], beside_a_restart)]
}

/// How often a client connects.
const EVERY: Duration = Duration::from_millis(20);

/// An answer takes a few milliseconds. A service that is silent for longer than this is down.
const DOWN: Duration = Duration::from_millis(150);

/// How long a client watches before and after the event.
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
    let watch = |during: &dyn Fn() -> Result<()>| -> Result<Watch> {
        let until_it_serves = || during().and_then(|()| machine.wait_until_serving(service));
        let mut watches = watch(machine, std::slice::from_ref(service), "/ok", until_it_serves)?;
        watches.pop().context("nothing was watched")
    };
    let before = watch(&restart)?;
    let upgraded = watch(&upgrade)?;
    let after = watch(&restart)?;
    println!("lab: downtime by a restart before the upgrade: {before}");
    println!("lab: downtime by the guarded upgrade:          {upgraded}");
    println!("lab: downtime by a restart after the upgrade:  {after}");
    machine.assert_guarded(&[(Site::Followed, On::New)])
}

/// A client's observations.
#[derive(Debug, Default)]
pub(super) struct Watch {
    requests: u32,
    failures: u32,
    /// The sum of the times without an answer.
    down: Duration,
    outages: u32,
}

impl Watch {
    fn note_silence(&mut self, silence: Duration, usual: Duration) {
        if silence > usual {
            self.down += silence;
            self.outages += 1;
        }
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, failures, down, outages } = self;
        write!(f, "{:.2} s in {outages} outages, ", down.as_secs_f32())?;
        write!(f, "{failures} of {requests} requests failed")
    }
}

/// Requests a page from each service, again and again, while `during` runs. An answer with an error is none.
pub(super) fn watch(
    machine: &Machine,
    services: &[Service],
    page: &str,
    during: impl FnOnce() -> Result<()>,
) -> Result<Vec<Watch>> {
    let is_over = AtomicBool::new(false);
    // All clients together are no more of a load than one.
    let every = EVERY * u32::try_from(services.len())?;
    thread::scope(|scope| {
        let ask = |service| ask_until(machine, service, page, every, &is_over);
        let clients: Vec<_> =
            services.iter().map(|service| scope.spawn(move || ask(service))).collect();
        thread::sleep(CALM);
        let outcome = during();
        thread::sleep(CALM);
        is_over.store(true, Ordering::Relaxed);
        let watches = clients.into_iter().zip(services).map(|(client, service)| {
            let watch = client.join().map_err(|_| anyhow!("a client panicked"))?;
            ensure!(watch.failures < watch.requests, "{} never answered: {watch}", service.name);
            Ok(watch)
        });
        let watches = watches.collect();
        outcome.and(watches)
    })
}

fn ask_until(
    machine: &Machine,
    service: &Service,
    page: &str,
    every: Duration,
    is_over: &AtomicBool,
) -> Watch {
    let mut watch = Watch::default();
    let mut answered = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        watch.requests += 1;
        if machine.ask(service, page).is_ok_and(|answer| answer.status == 200) {
            watch.note_silence(answered.elapsed(), DOWN + every);
            answered = Instant::now();
        } else {
            watch.failures += 1;
        }
        thread::sleep(every.saturating_sub(asked.elapsed()));
    }
    watch.note_silence(answered.elapsed(), DOWN + every);
    watch
}
