//! What an installation's processes have in hand, and whether it stays the same however
//! much is asked of them.

use std::{
    fmt, fs, io,
    io::Read,
    time::{Duration, Instant},
};

use rustix::process::Pid;

use crate::{
    api::Connection,
    installation::{Installation, Part},
};

/// How long what lingers may take to go.
const PATIENCE: Duration = Duration::from_mins(1);

/// What may grow and is no leak, in KiB: pages that an allocator keeps for the next time.
const ALLOWANCE_KIB: u64 = 3 * 1024;

/// What is there at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Descriptors of the engine.
    pub engine_files: usize,
    /// Memory of the engine, in KiB.
    pub engine_kib: u64,
    /// Descriptors of what runs the machine: the way to the agent is there.
    pub monitor_files: usize,
    /// Descriptors of the agent.
    pub agent_files: usize,
    /// Memory of the agent, in KiB.
    pub agent_kib: u64,
    /// Processes in the machine.
    pub processes: usize,
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "engine {} files, {:.1} MiB; monitor {} files; agent {} files, {:.1} MiB; {} processes",
            self.engine_files,
            self.engine_kib as f64 / 1024.0,
            self.monitor_files,
            self.agent_files,
            self.agent_kib as f64 / 1024.0,
            self.processes,
        )
    }
}

impl Footprint {
    /// Looks at all processes of `installation`, whose machine runs.
    ///
    /// # Errors
    /// When one of them cannot be looked at.
    pub fn of(installation: &Installation) -> io::Result<Self> {
        // The shell that looks is there each time, and counts by itself: a helper of its own
        // would count at one time and not at another. Kernel threads have no program.
        const LOOK: &str = "ls /proc/1/fd | wc -l; grep VmRSS /proc/1/status; n=0; \
                            for p in /proc/[0-9]*; do [ -e $p/exe ] && n=$((n+1)); done; echo $n";
        let engine = installation.processes(Part::Engine);
        let [engine] = engine[..] else {
            return Err(io::Error::other(format!("{} engines", engine.len())));
        };
        let monitors = installation.processes(Part::Monitor);
        let monitor_files = monitors.into_iter().map(files).sum::<io::Result<usize>>()?;
        let shell = installation.dctl(&["machine", "shell", "sh", "-c", LOOK]);
        let said = shell.success().text();
        let mut numbers = said.lines().filter_map(|line| {
            let digits = line.trim_start_matches("VmRSS:").trim_end_matches("kB");
            digits.trim().parse::<u64>().ok()
        });
        let (Some(agent_files), Some(agent_kib), Some(processes)) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(io::Error::other(format!("the machine says {said:?}")));
        };
        Ok(Self {
            engine_files: files(engine)?,
            engine_kib: resident(engine)?,
            monitor_files,
            agent_files: agent_files as usize,
            agent_kib,
            processes: processes as usize,
        })
    }

    /// Whether nothing has become more since `before`, but for what allocators keep.
    pub fn is_no_more_than(&self, before: &Self) -> bool {
        self.engine_files <= before.engine_files
            && self.monitor_files <= before.monitor_files
            && self.agent_files <= before.agent_files
            && self.processes <= before.processes
            && self.engine_kib <= before.engine_kib + ALLOWANCE_KIB
            && self.agent_kib <= before.agent_kib + ALLOWANCE_KIB
    }

    /// Waits until nothing is more than it was, and says what there is then.
    ///
    /// # Errors
    /// When it stays more, or cannot be looked at.
    pub fn returns(&self, installation: &Installation) -> io::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Self::of(installation)?;
            if now.is_no_more_than(self) {
                return Ok(now);
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("it grows:\n{self}\n{now}")));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

fn files(process: Pid) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", process.as_raw_pid()))?.count())
}

fn resident(process: Pid) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.as_raw_pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kib.ok_or_else(|| io::Error::other("a process without memory"))
}

/// Makes `count` requests of many kinds about `container`, some on connections of their
/// own, some refused.
///
/// # Errors
/// When one is not answered, or not as it should be.
pub fn call(installation: &Installation, container: &str, count: usize) -> io::Result<()> {
    let socket = installation.socket();
    let mut kept = Connection::open(&socket)?;
    let inspect = format!("/containers/{container}/json");
    let logs = format!("/containers/{container}/logs?stdout=1");
    let archive = format!("/containers/{container}/archive?path=/etc");
    let exec = format!("/containers/{container}/exec");
    let requests: [(&str, &str, &str, u16); 12] = [
        ("GET", "/_ping", "", 200),
        ("GET", "/containers/json?all=1&size=0", "", 200),
        ("GET", &inspect, "", 200),
        ("GET", "/images/json", "", 200),
        ("GET", "/networks", "", 200),
        ("GET", "/volumes", "", 200),
        ("GET", &logs, "", 200),
        ("GET", &archive, "", 200),
        ("GET", "/containers/nobody/json", "", 404),
        ("POST", "/containers/create", "{", 400),
        ("POST", &exec, "{}", 400),
        ("GET", "/events?since=0&until=1", "", 200),
    ];
    for number in 0..count {
        let (method, path, body, status) = requests[number % requests.len()];
        let answer = if number % 5 == 0 {
            Connection::open(&socket)?.ask(method, path, body)?
        } else {
            kept.ask(method, path, body)?
        };
        if answer.status != status {
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            let message = format!(
                "{method} {path}: {} and not {status}: {said}",
                answer.status
            );
            return Err(io::Error::other(message));
        }
    }
    Ok(())
}

/// Runs `count` execs in `container`, each with its output carried.
///
/// # Errors
/// When one does not say what it should.
pub fn exec(installation: &Installation, container: &str, count: usize) -> io::Result<()> {
    const BODY: &str = r#"{"AttachStdout":true,"Tty":true,"Cmd":["echo","said"]}"#;
    let socket = installation.socket();
    for _ in 0..count {
        let mut client = Connection::open(&socket)?;
        let create = format!("/containers/{container}/exec");
        let created = client.ask("POST", &create, BODY)?.success().json();
        let id = created["Id"].as_str().unwrap_or_default().to_owned();
        let stream = Connection::open(&socket)?;
        let mut output = String::new();
        let start = format!("/exec/{id}/start");
        stream
            .hijack(&start, r#"{"Tty":true}"#)?
            .read_to_string(&mut output)?;
        let ended = client.ask("GET", &format!("/exec/{id}/json"), "")?.json();
        if output.trim() != "said" || ended["ExitCode"] != 0 {
            return Err(io::Error::other(format!(
                "an exec said {output:?}: {ended}"
            )));
        }
    }
    Ok(())
}
