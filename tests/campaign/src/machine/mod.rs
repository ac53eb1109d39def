//! Rounds against a whole machine: the engine and the monitor killed, and the power
//! cut.
//!
//! A machine boots, is kept busy by one worker, and its monitor is killed at a
//! random moment. What is on the disk then is looked at from outside: the file
//! system's checker, and the agent outside of a machine on a copy of all files.
//! Meanwhile the monitor recorded every write and flush: from that the disk is made
//! as it was at random moments, without a random part of what was not flushed, and
//! looked at in the same way. What was acknowledged before such a moment must be
//! there. One such disk of each boot is booted with again, and the agent in that
//! machine is asked and worked with.

mod home;
mod image;
mod journal;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use self::{home::Home, journal::Journal};
use crate::{
    agent::{call::Caller, check, images::Images, model::Model, process::Agent, work::Worker},
    findings::Findings,
};

/// How long a machine is kept busy, at most.
const BUSY: Duration = Duration::from_secs(8);

/// Work that is done with a disk that a power cut left, in calls.
const STEPS_INSIDE: u32 = 20;

/// What to kill, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Boots, each of which ends with a kill.
    pub(crate) boots: u32,
    /// Power cuts in all.
    pub(crate) cuts: u32,
    pub(crate) seed: u64,
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) boots: u32,
    pub(crate) cuts: u32,
    /// Disks of power cuts that a machine booted with.
    pub(crate) cuts_booted: u32,
    pub(crate) acknowledged: u64,
    /// Blocks that power cuts lost.
    pub(crate) lost: u64,
}

/// What was known when the journal had a length.
struct Moment {
    position: u64,
    model: Model,
}

/// Boots, kills and looks.
pub(crate) fn campaign(
    dctl: &Path,
    agent: &Path,
    folder: &Path,
    plan: Plan,
    findings: &mut Findings,
) -> Result<Done> {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let images = Images::make(&mut random)?;
    let home = Home::new(dctl, folder)?;
    let look = Look {
        agent,
        images: &images,
        folder: &folder.join("look"),
    };
    let mut model = Model::new(0);
    let mut done = Done::default();
    for boot in 1..=plan.boots {
        findings.begin(boot);
        let before = folder.join("before.raw");
        if boot == 1 {
            // As the first boot finds it: blank.
            File::create(&before)?.set_len(1 << 30)?;
        } else {
            image::copy(&home.disk(), &before)?;
        }
        let moments = session(&home, &images, &mut model, &mut random, &mut done, findings)?;
        let after = folder.join("after.raw");
        image::copy(&home.disk(), &after)?;
        model = look.at(&after, model, "kill", findings)?;
        done.boots = boot;

        let cuts = plan.cuts.saturating_sub(done.cuts) / (plan.boots - boot + 1);
        let journal = Journal::read(&home.journal())?;
        let booted = cut(
            &look,
            &journal,
            &before,
            &moments,
            cuts,
            &mut random,
            &mut done,
            findings,
        )?
        .map(|(known, disk)| inside(dctl, folder, &disk, known, &images, &mut random, findings))
        .transpose()?;
        done.cuts_booted += u32::from(booted.is_some());
        fs::remove_file(home.journal())?;
        if findings.are_many() {
            break;
        }
    }
    Ok(done)
}

/// One boot, work, and the monitor's end.
fn session(
    home: &Home,
    images: &Images,
    model: &mut Model,
    random: &mut fastrand::Rng,
    done: &mut Done,
    findings: &mut Findings,
) -> Result<Vec<Moment>> {
    home.boot()?;
    let position = || fs::metadata(home.journal()).map(|journal| journal.len());
    let mut moments = vec![Moment {
        position: position()?,
        model: model.clone(),
    }];
    let deadline = Instant::now() + BUSY.mul_f64(random.f64());
    let engine_dies = Instant::now() + BUSY.mul_f64(random.f64());
    let mut engine = Some(engine_dies);
    let caller = Caller::machine(&home.vsock());
    while Instant::now() < deadline {
        if engine.is_some_and(|at| Instant::now() > at) {
            // The agent does not notice.
            home.kill_engine()?;
            engine = None;
        }
        let mut worker = Worker::new(caller.clone(), images, model, random.fork());
        worker.step();
        let report = worker.report();
        done.acknowledged += report.acknowledged;
        report
            .unexpected
            .iter()
            .for_each(|error| findings.add(error));
        if report.cut_off {
            findings.add("the machine ended by itself");
            break;
        }
        moments.push(Moment {
            position: position()?,
            model: model.clone(),
        });
    }
    // Under a call as a rule: it goes on while the monitor dies.
    std::thread::scope(|scope| {
        let mut worker = Worker::new(caller, images, model, random.fork());
        let working = scope.spawn(move || {
            while worker.step() {}
            worker.report()
        });
        std::thread::sleep(Duration::from_millis(random.u64(..200)));
        let killed = home.kill_monitor();
        if let Ok(report) = working.join() {
            done.acknowledged += report.acknowledged;
            report
                .unexpected
                .iter()
                .for_each(|error| findings.add(error));
        }
        killed
    })?;
    Ok(moments)
}

/// Boots a machine with a disk that a power cut left: what was acknowledged is there,
/// and it can be worked with.
fn inside(
    dctl: &Path,
    folder: &Path,
    disk: &Path,
    known: Model,
    images: &Images,
    random: &mut fastrand::Rng,
    findings: &mut Findings,
) -> Result<()> {
    findings.during("boot after a power cut");
    let home = Home::new(dctl, &folder.join("cut"))?;
    fs::rename(disk, home.disk())?;
    home.boot()?;
    let caller = Caller::machine(&home.vsock());
    let mut models = [known];
    check::check_inside(&caller, &mut models, findings)?;
    let [model] = &mut models;
    let mut worker = Worker::new(caller.clone(), images, model, random.fork());
    for _ in 0..STEPS_INSIDE {
        worker.step();
    }
    let report = worker.report();
    if report.cut_off {
        findings.add("the machine ended by itself");
    } else {
        check::check_inside(&caller, &mut models, findings)?;
    }
    report
        .unexpected
        .iter()
        .for_each(|error| findings.add(error));
    home.kill_monitor()?;
    fs::remove_file(home.journal())?;
    findings.during("");
    Ok(())
}

/// Looks at disks as power cuts at random moments of a session would have left them.
/// Gives one such disk, for a look from inside, and what must be on it.
#[allow(clippy::too_many_arguments, reason = "it has one caller")]
fn cut(
    look: &Look<'_>,
    journal: &Journal,
    before: &Path,
    moments: &[Moment],
    cuts: u32,
    random: &mut fastrand::Rng,
    done: &mut Done,
    findings: &mut Findings,
) -> Result<Option<(Model, PathBuf)>> {
    // After the boot: before it nothing was acknowledged in this session.
    let first = moments.first().map_or(0, |moment| moment.position);
    let begin = (0..journal.len())
        .find(|count| journal.position(*count) >= first)
        .unwrap_or(0);
    let last = moments.last().map_or(0, |moment| moment.position);
    let end = (begin..journal.len())
        .find(|count| journal.position(*count) > last)
        .unwrap_or(journal.len());
    let mut places: Vec<usize> = (0..cuts).map(|_| random.usize(begin..=end)).collect();
    places.sort_unstable();

    let image = File::options().write(true).open(before)?;
    let cut = look.folder.with_file_name("cut.raw");
    let to_boot = look.folder.with_file_name("boot.raw");
    let chosen = random.usize(..places.len().max(1));
    let mut booted = None;
    let mut applied = 0;
    for (number, place) in places.into_iter().enumerate() {
        let flushed = journal.flushed(place).max(applied);
        journal.apply(applied, flushed, &image)?;
        applied = flushed;
        image::copy(before, &cut)?;
        let copy = File::options().write(true).open(&cut)?;
        done.lost += journal.cut(flushed, place, &copy, random)?;
        let position = journal.position(place);
        let index = moments.partition_point(|moment| moment.position <= position);
        let known = &moments
            .get(index.saturating_sub(1))
            .context("a session has a beginning")?
            .model;
        let next = moments.get(index).map_or(known, |moment| &moment.model);
        let known = known.until(next);
        if number == chosen {
            image::copy(&cut, &to_boot)?;
            booted = Some((known.clone(), to_boot.clone()));
        }
        look.at(
            &cut,
            known,
            &format!("power cut at record {place} of {}", journal.len()),
            findings,
        )?;
        done.cuts += 1;
    }
    Ok(booted)
}

/// Looks at disks.
struct Look<'a> {
    agent: &'a Path,
    images: &'a Images,
    folder: &'a Path,
}

impl Look<'_> {
    /// Compares what is on the disk with the model; returns the model as it is on
    /// the disk.
    fn at(&self, disk: &Path, model: Model, when: &str, findings: &mut Findings) -> Result<Model> {
        findings.during(when);
        if let Some(problem) = image::check(disk)? {
            findings.add(format!("the file system is damaged: {problem}"));
        }
        fs::create_dir_all(self.folder)?;
        let data = self.folder.join("data");
        image::extract(disk, &data)?;
        // Before the agent makes the folders of those that were about to be made.
        for id in model.sure_containers() {
            if !data.join("containers").join(id).exists() {
                findings.add(format!("{id} was made, and its folder is not on the disk"));
            }
        }
        let agent = Agent::start(self.agent, self.folder)?;
        let mut models = [model];
        check::check(&agent, self.images, &mut models, findings)?;
        agent.kill()?;
        findings.during("");
        let [model] = models;
        Ok(model)
    }
}
