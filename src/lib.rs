//! venvguard keeps Python virtualenvs working across apt upgrades of Python.

pub mod cli;
mod host;
mod python;
mod service;
mod venv;
