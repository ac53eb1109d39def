//! The program of the starter image: says what ran where, and what to try next.
//!
//! It is alone in its container: no shell, no libraries, no files but those of
//! the kernel. What it cannot find out it leaves out.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    process::ExitCode,
    thread,
};

fn main() -> ExitCode {
    let text = greeting(&Facts::gather());
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What a container can see of its machine.
#[derive(Default)]
struct Facts {
    hostname: Option<String>,
    kernel: Option<String>,
    cpus: Option<usize>,
    memory_kib: Option<u64>,
    uptime_seconds: Option<f64>,
    process_id: u32,
}

impl Facts {
    fn gather() -> Self {
        let read = |path: &str| {
            let text = fs::read_to_string(path).ok()?;
            Some(text.trim().to_owned())
        };
        Self {
            hostname: read("/proc/sys/kernel/hostname"),
            kernel: read("/proc/sys/kernel/osrelease"),
            cpus: thread::available_parallelism().ok().map(usize::from),
            memory_kib: read("/proc/meminfo").as_deref().and_then(memory_total),
            uptime_seconds: read("/proc/uptime").as_deref().and_then(first_number),
            process_id: std::process::id(),
        }
    }
}

/// `MemTotal` of `/proc/meminfo`, in KiB.
fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The first number of `/proc/uptime`: seconds since the kernel started.
fn first_number(uptime: &str) -> Option<f64> {
    uptime.split_whitespace().next()?.parse().ok()
}

fn greeting(facts: &Facts) -> String {
    let mut text = String::from("\nHello from a container in its own micro-VM.\n\n");
    let mut line = |title: &str, value: Option<String>| {
        if let Some(value) = value {
            // Writing to a String does not fail.
            let _ = writeln!(text, "  {title:<11}{value}");
        }
    };
    line("container", facts.hostname.clone());
    line(
        "process",
        Some(format!("{} of its own namespace", facts.process_id)),
    );
    line(
        "kernel",
        facts
            .kernel
            .as_ref()
            .map(|kernel| format!("Linux {kernel}")),
    );
    line(
        "machine",
        facts.cpus.zip(facts.memory_kib).map(|(cpus, memory)| {
            let plural = if cpus == 1 { "" } else { "s" };
            format!("{cpus} CPU{plural}, {} MiB of memory", memory / 1024)
        }),
    );
    line(
        "booted",
        facts
            .uptime_seconds
            .map(|seconds| format!("{seconds:.2} seconds ago")),
    );
    text.push_str(
        "
This program came with dctl; no registry was asked for it. The kernel above is
the machine's own: containers share it with each other, never with your system.

To go on:
  dctl run -it --rm debian bash     a shell in Debian
  dctl ps -a                        containers, this one too
  dctl images                       what is on the machine's disk
  dctl machine status               the machine itself

",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_as_the_kernel_writes_them() {
        let meminfo = "MemTotal:         498032 kB\nMemFree:           12 kB\n";
        assert_eq!(memory_total(meminfo), Some(498_032));
        assert_eq!(memory_total("nonsense"), None);
        assert_eq!(first_number("1.53 2.10\n"), Some(1.53));
        assert_eq!(first_number(""), None);
    }

    #[test]
    fn the_greeting_says_what_is_known_and_leaves_out_what_is_not() {
        let facts = Facts {
            hostname: Some("c0ffee".into()),
            memory_kib: Some(512 * 1024),
            cpus: Some(1),
            process_id: 1,
            ..Facts::default()
        };
        let text = greeting(&facts);
        assert!(text.contains("container  c0ffee\n"), "{text}");
        assert!(text.contains("1 CPU, 512 MiB"), "{text}");
        assert!(!text.contains("kernel  "), "{text}");
        assert!(text.contains("dctl run -it --rm debian bash"), "{text}");
    }
}
