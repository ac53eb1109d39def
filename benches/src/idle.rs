//! What a machine at rest costs.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use crate::Options;
use crate::vm::{self, Machine, Monitor};

/// How long is measured, after the boot has settled.
const SETTLE: Duration = Duration::from_secs(20);
const PERIOD: Duration = Duration::from_secs(30);

pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = vm::formatted_disk(options, folder.path())?;
    for cpus in [1, 2] {
        let machine = Machine::start(options, Monitor::Ours, cpus, folder.path(), &disk)?;
        sleep(SETTLE);
        let before = vm::exits()?;
        sleep(PERIOD);
        let exits = (vm::exits()? - before) as f64 / PERIOD.as_secs_f64();
        let (guest, monitor) = vm::resident(machine.process())?;
        println!(
            "  {cpus} CPU: {exits:.1} VM exits a second (aim: under 10), guest memory {} MiB, monitor {:.1} MiB",
            guest / 1024,
            monitor as f64 / 1024.0
        );
    }
    Ok(())
}
