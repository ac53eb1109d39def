//! Locks between processes and between open files.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::{Check, fails, signals};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "flock excludes",
        run: exclusive,
    },
    Check {
        name: "flock is shared",
        run: shared,
    },
    Check {
        name: "flock waits",
        run: waits,
    },
    Check {
        name: "a range is locked between descriptions",
        run: ranges,
    },
    Check {
        name: "a lock of a range is waited for",
        run: range_waits,
    },
    Check {
        name: "a signal ends a wait for a lock",
        run: interrupted,
    },
    Check {
        name: "a lock tells who conflicts",
        run: conflicts,
    },
];

fn open(at: &Path) -> Result<File> {
    Ok(OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(at.join("f"))?)
}

fn exclusive(at: &Path) -> Result<()> {
    let (one, two) = (open(at)?, open(at)?);
    flock(&one, FlockOperation::LockExclusive)?;
    fails(
        flock(&two, FlockOperation::NonBlockingLockShared),
        Errno::AGAIN,
    )?;
    drop(one);
    // Linux tells a FUSE server of the last close in the background: not at once, but soon.
    Ok(flock(&two, FlockOperation::LockExclusive)?)
}

fn shared(at: &Path) -> Result<()> {
    let (one, two) = (open(at)?, open(at)?);
    flock(&one, FlockOperation::LockShared)?;
    flock(&two, FlockOperation::NonBlockingLockShared)?;
    fails(
        flock(&two, FlockOperation::NonBlockingLockExclusive),
        Errno::AGAIN,
    )?;
    flock(&one, FlockOperation::Unlock)?;
    Ok(flock(&two, FlockOperation::NonBlockingLockExclusive)?)
}

/// Longer than a lock that is not held takes.
const HELD: Duration = Duration::from_millis(100);

fn waits(at: &Path) -> Result<()> {
    let (one, two) = (open(at)?, open(at)?);
    flock(&one, FlockOperation::LockExclusive)?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(HELD);
            drop(one);
        });
        flock(&two, FlockOperation::LockExclusive)
    })?;
    ensure!(start.elapsed() >= HELD);
    Ok(())
}

fn range(kind: i32, start: i64, length: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

fn take(file: &File, kind: i32, start: i64, length: i64) -> rustix::io::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&range(kind, start, length)))
        .map(drop)
        .map_err(|error| Errno::from_raw_os_error(error as i32))
}

fn ranges(at: &Path) -> Result<()> {
    let (one, two) = (open(at)?, open(at)?);
    take(&one, libc::F_WRLCK, 10, 10)?;
    fails(take(&two, libc::F_WRLCK, 19, 5), Errno::AGAIN)?;
    fails(take(&two, libc::F_RDLCK, 0, 0), Errno::AGAIN)?;
    take(&two, libc::F_WRLCK, 20, 5)?;
    take(&two, libc::F_WRLCK, 0, 10)?;
    take(&one, libc::F_UNLCK, 15, 5)?;
    take(&two, libc::F_WRLCK, 15, 5)?;
    fails(take(&two, libc::F_WRLCK, 14, 1), Errno::AGAIN)?;
    drop(one);
    let whole = range(libc::F_WRLCK, 0, 0);
    fcntl(&two, FcntlArg::F_OFD_SETLKW(&whole))?;
    Ok(())
}

fn range_waits(at: &Path) -> Result<()> {
    let (one, two) = (open(at)?, open(at)?);
    take(&one, libc::F_WRLCK, 0, 0)?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(HELD);
            drop(one);
        });
        fcntl(&two, FcntlArg::F_OFD_SETLKW(&range(libc::F_WRLCK, 5, 1)))
    })?;
    ensure!(start.elapsed() >= HELD);
    Ok(())
}

/// A file system may be on another machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn interrupted(at: &Path) -> Result<()> {
    type Wait = fn(&File) -> Result<(), Errno>;
    let waits: [Wait; 2] = [
        |file| flock(file, FlockOperation::LockExclusive),
        |file| {
            let whole = range(libc::F_WRLCK, 0, 0);
            fcntl(file, FcntlArg::F_OFD_SETLKW(&whole))
                .map(drop)
                .map_err(|error| Errno::from_raw_os_error(error as i32))
        },
    ];
    let (one, two) = (open(at)?, open(at)?);
    flock(&one, FlockOperation::LockExclusive)?;
    take(&one, libc::F_WRLCK, 0, 0)?;
    signals::ignore_and_return()?;
    for wait in waits {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| -> Result<()> {
            let waiter = scope.spawn(|| {
                sender.send(signals::Thread::current())?;
                anyhow::Ok(wait(&two))
            });
            let thread = receiver.recv()?;
            let start = Instant::now();
            // The first ones may come before it waits.
            while !waiter.is_finished() {
                if start.elapsed() > PATIENCE {
                    // Or the check would wait for it for good.
                    flock(&one, FlockOperation::Unlock)?;
                    take(&one, libc::F_UNLCK, 0, 0)?;
                    break;
                }
                std::thread::sleep(HELD);
                thread.interrupt();
            }
            let ended = waiter.join().map_err(|_| anyhow!("the waiter died"))??;
            ensure!(ended == Err(Errno::INTR), "the wait ended with {ended:?}");
            Ok(())
        })?;
    }
    // Nobody waits any more: nobody gets it.
    flock(&one, FlockOperation::Unlock)?;
    take(&one, libc::F_UNLCK, 0, 0)?;
    let three = open(at)?;
    flock(&three, FlockOperation::NonBlockingLockExclusive)?;
    Ok(take(&three, libc::F_WRLCK, 0, 0)?)
}

fn conflicts(at: &Path) -> Result<()> {
    let (one, two) = (open(at)?, open(at)?);
    take(&one, libc::F_WRLCK, 7, 3)?;
    let mut asked = range(libc::F_RDLCK, 0, 0);
    fcntl(&two, FcntlArg::F_OFD_GETLK(&mut asked))?;
    ensure!(i32::from(asked.l_type) == libc::F_WRLCK);
    ensure!((asked.l_start, asked.l_len) == (7, 3));
    let mut asked = range(libc::F_RDLCK, 0, 7);
    fcntl(&two, FcntlArg::F_OFD_GETLK(&mut asked))?;
    ensure!(i32::from(asked.l_type) == libc::F_UNLCK);
    Ok(())
}
