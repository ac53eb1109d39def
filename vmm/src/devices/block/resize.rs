//! A disk that becomes larger while the guest runs: the monitor's main thread asks,
//! the device's thread looks at the image and answers.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Asks a disk to look at its image again. Cheap to clone.
#[derive(Clone)]
pub struct BlockHandle(Arc<Shared>);

/// What the device and those who ask share.
pub(super) struct Shared {
    state: Mutex<State>,
    answered: Condvar,
    /// Readable when somebody asked.
    pub(super) asked: EventFd,
}

#[derive(Default)]
struct State {
    /// Counts questions.
    asked: u64,
    /// The question that was answered last, and with what.
    answered: u64,
    answer: Option<Result<u64, String>>,
}

impl BlockHandle {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            state: Mutex::default(),
            answered: Condvar::new(),
            asked: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })))
    }

    /// Makes the device look at its image's length, and tell the guest if that has
    /// grown. Returns the disk's size in bytes; waits no longer than `patience`.
    ///
    /// # Errors
    /// When the image has become smaller or cannot be looked at, or the device's
    /// thread does not answer.
    pub fn resize(&self, patience: Duration) -> io::Result<u64> {
        let question = {
            let mut state = self.0.lock();
            state.asked += 1;
            state.asked
        };
        self.0.asked.write(1)?;
        let deadline = Instant::now() + patience;
        let mut state = self.0.lock();
        while state.answered < question {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            state = self
                .0
                .answered
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        match &state.answer {
            Some(Ok(bytes)) => Ok(*bytes),
            Some(Err(problem)) => Err(io::Error::other(problem.clone())),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    /// Answers everybody who has asked so far.
    pub(super) fn answer(&self, answer: io::Result<u64>) {
        let mut state = self.lock();
        state.answered = state.asked;
        state.answer = Some(answer.map_err(|error| error.to_string()));
        self.answered.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
