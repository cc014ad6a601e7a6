//! The service managers.

pub(crate) mod supervisord;
pub(crate) mod systemd;
