//! When patience with whom ends: deadlines on one timer file descriptor, which is only
//! set while somebody is waited for.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

pub(super) struct Deadlines {
    timer: OwnedFd,
    /// When the timer fires, if it does.
    armed: Option<Instant>,
    waiting: BTreeSet<(Instant, u64)>,
}

impl Deadlines {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self {
            timer: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            armed: None,
            waiting: BTreeSet::new(),
        })
    }

    /// Waits for `id` from now on. Returns the deadline, to forget it by.
    pub(super) fn add(&mut self, id: u64, patience: Duration) -> Instant {
        let deadline = Instant::now() + patience;
        self.waiting.insert((deadline, id));
        deadline
    }

    pub(super) fn forget(&mut self, id: u64, deadline: Instant) {
        self.waiting.remove(&(deadline, id));
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// The timer fired: who took too long.
    pub(super) fn expired(&mut self) -> io::Result<Vec<u64>> {
        let mut expirations = [0; 8];
        match rustix::io::read(&self.timer, &mut expirations) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.armed = None;
        let now = Instant::now();
        let mut ids = Vec::new();
        while let Some(&(deadline, id)) = self.waiting.first()
            && deadline <= now
        {
            self.waiting.pop_first();
            ids.push(id);
        }
        Ok(ids)
    }

    /// Sets the timer to the first deadline. A timer that fires earlier is left alone: it
    /// is set anew then.
    pub(super) fn arm(&mut self) -> io::Result<()> {
        let Some(&(deadline, _)) = self.waiting.first() else {
            return Ok(());
        };
        if self.armed.is_some_and(|armed| armed <= deadline) {
            return Ok(());
        }
        // Zero would disarm it.
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.armed = Some(deadline);
        Ok(())
    }
}

/// The timer: readable when [`Deadlines::expired`] has something.
impl AsFd for Deadlines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
