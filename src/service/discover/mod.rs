//! Finds what runs on this machine and what its units would run, from the kernel and from
//! files; no manager is asked.

pub(crate) mod apache;
pub(crate) mod cgroup;
pub(crate) mod command_line;
pub(crate) mod embedded;
#[cfg(test)]
mod input;
pub(crate) mod process;
mod stale;
pub(crate) mod unit_dir;
pub(crate) mod unit_file;
pub(crate) mod unit_name;
pub(crate) mod uwsgi;
pub(crate) mod venvs;
