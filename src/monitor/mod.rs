//! What monitoring systems and logins read: a summary as metrics for Prometheus, as the answer of a
//! plugin for Nagios and Icinga, and as the message of the day. Values in, texts out.

mod judgement;
mod metrics;
mod motd;
mod nagios;

pub(crate) use judgement::Severity;
pub(crate) use metrics::metrics;
pub(crate) use motd::motd;
pub(crate) use nagios::{Detail, answer, line};
