//! The program `tresor`: arguments, settings, output. How anything is done is in the other crates.

mod app;
mod args;
mod cluster;
mod config;
mod confirm;
mod embedded;
mod error;
mod exit;
mod hint;
mod human;
mod logging;
mod metrics;
mod otlp;
mod report;
mod run;
mod screen;
mod signals;
mod support;
mod unlock;
mod verb;

use std::process::ExitCode;

/// Packs and buffers of many sizes are freed by other threads than took them; the C library's allocator keeps such memory for itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run::run()
}
