//! A relay on a unix socket that notes when which message passed.
//!
//! Between `dctl` and the engine, and between the engine and the agent, it shows
//! where the time of a command goes without a word from either.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

/// When what happened, as it happened.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<(Instant, String)>>>);

impl Notes {
    fn add(&self, at: Instant, what: String) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((at, what));
    }

    /// What was noted since it was last asked, in the order of time.
    pub(crate) fn take(&self) -> Vec<(Instant, String)> {
        let mut notes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        notes.sort_by_key(|(at, _)| *at);
        notes
    }
}

/// What the relay's peers speak.
#[derive(Clone, Copy)]
pub(crate) enum Speech {
    /// HTTP, between `dctl` and the engine.
    Engine,
    /// The guest's protocol behind the vsock handshake, between engine and agent.
    Agent,
}

impl Speech {
    /// What a caller asks with these bytes; `None` when they are part of something
    /// that was asked before.
    fn asked(self, bytes: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(bytes.get(..256).unwrap_or(bytes));
        match self {
            Self::Engine => {
                let mut words = text.lines().next()?.split(' ');
                let (method, target) = (words.next()?, words.next()?);
                if !words.next()?.starts_with("HTTP/") {
                    return None;
                }
                let path = target.split('?').next()?;
                let parts: Vec<_> = path
                    .split('/')
                    .filter(|part| !part.starts_with("v1.") && !part.is_empty())
                    .map(|part| if part.len() == 64 { "ID" } else { part })
                    .collect();
                Some(format!("{method} /{}", parts.join("/")))
            }
            Self::Agent => {
                let (_, rest) = text.split_once("\"method\":\"")?;
                Some(rest.split('"').next()?.to_owned())
            }
        }
    }

    /// Whether these bytes answer something, rather than the handshake.
    fn answers(self, bytes: &[u8]) -> bool {
        match self {
            Self::Engine => true,
            Self::Agent => !bytes.starts_with(b"OK "),
        }
    }

    /// Who asks, and who answers.
    fn peers(self) -> (&'static str, &'static str) {
        match self {
            Self::Engine => ("dctl", "engine"),
            Self::Agent => ("engine", "agent"),
        }
    }
}

/// Takes connections at `at` and carries them to `to`, until this process ends.
pub(crate) fn start(at: &Path, to: &Path, speech: Speech, notes: &Notes) -> Result<()> {
    let listener =
        UnixListener::bind(at).with_context(|| format!("cannot listen at {}", at.display()))?;
    let (to, notes) = (to.to_path_buf(), notes.clone());
    thread::spawn(move || {
        while let Ok((caller, _)) = listener.accept() {
            // Whoever called sees that the connection ends.
            if let Ok(target) = UnixStream::connect(&to) {
                let _ = carry(caller, target, speech, &notes);
            }
        }
    });
    Ok(())
}

/// Puts a relay in the place of a socket on which somebody listens.
pub(crate) struct Inserted {
    place: PathBuf,
    moved: PathBuf,
}

impl Inserted {
    pub(crate) fn new(place: &Path, speech: Speech, notes: &Notes) -> Result<Self> {
        let moved = place.with_extension("behind");
        fs::rename(place, &moved).with_context(|| format!("cannot move {}", place.display()))?;
        let inserted = Self {
            place: place.to_path_buf(),
            moved,
        };
        start(place, &inserted.moved, speech, notes)?;
        Ok(inserted)
    }
}

impl Drop for Inserted {
    fn drop(&mut self) {
        // The folder is the bench's own, and goes with it.
        let _ = fs::rename(&self.moved, &self.place);
    }
}

fn carry(caller: UnixStream, target: UnixStream, speech: Speech, notes: &Notes) -> Result<()> {
    let asked = Arc::new(Mutex::new(None::<String>));
    let (from, to) = (caller.try_clone()?, target.try_clone()?);
    let (name, peer) = speech.peers();
    {
        let (asked, notes) = (Arc::clone(&asked), notes.clone());
        thread::spawn(move || {
            copy(from, to, |at, bytes| {
                if let Some(request) = speech.asked(bytes) {
                    notes.add(at, format!("{name} asks {peer}: {request}"));
                    *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(request);
                }
            });
        });
    }
    let notes = notes.clone();
    thread::spawn(move || {
        let mut answers = 0;
        copy(target, caller, |at, bytes| {
            let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            let (Some(request), true) = (&*asked, speech.answers(bytes)) else {
                return;
            };
            answers += 1;
            if answers == 1 {
                notes.add(at, format!("{peer} answers: {request}"));
            } else if answers == 2 && request.to_lowercase().ends_with("wait") {
                notes.add(at, format!("{peer} tells the end: {request}"));
            }
        });
        if let Some(request) = &*asked.lock().unwrap_or_else(PoisonError::into_inner)
            && request.to_lowercase().ends_with("attach")
        {
            notes.add(Instant::now(), format!("{peer} ends: {request}"));
        }
    });
    Ok(())
}

/// Copies until either end is gone; each piece is noted before it goes on.
fn copy(mut from: UnixStream, mut to: UnixStream, mut note: impl FnMut(Instant, &[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..length];
        note(Instant::now(), bytes);
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    // Either may be gone already.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_named_without_what_differs_between_runs() {
        let id = "a".repeat(64);
        let request = format!("POST /v1.51/containers/{id}/wait?condition=removed HTTP/1.1\r\n");
        assert_eq!(
            Speech::Engine.asked(request.as_bytes()).as_deref(),
            Some("POST /containers/ID/wait")
        );
        assert_eq!(Speech::Engine.asked(b"some text of stdin"), None);
        assert_eq!(
            Speech::Agent
                .asked(b"\0\0\0\x20{\"method\":\"ContainerStart\",\"params\":{}}")
                .as_deref(),
            Some("ContainerStart")
        );
        assert_eq!(Speech::Agent.asked(b"CONNECT 1024\n"), None);
    }

    #[test]
    fn what_passes_is_noted_and_carried_on() {
        let folder = tempfile::tempdir().unwrap();
        let (front, behind) = (folder.path().join("front"), folder.path().join("behind"));
        let engine = UnixListener::bind(&behind).unwrap();
        let notes = Notes::default();
        start(&front, &behind, Speech::Engine, &notes).unwrap();
        let answering = thread::spawn(move || {
            let (mut stream, _) = engine.accept().unwrap();
            let mut request = [0; 64];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /_ping"));
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        });
        let mut client = UnixStream::connect(&front).unwrap();
        client.write_all(b"GET /_ping HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answering.join().unwrap();
        assert_eq!(answer, "HTTP/1.1 200 OK\r\n\r\n");
        let notes: Vec<_> = notes.take().into_iter().map(|(_, what)| what).collect();
        assert_eq!(
            notes,
            ["dctl asks engine: GET /_ping", "engine answers: GET /_ping"]
        );
    }
}
