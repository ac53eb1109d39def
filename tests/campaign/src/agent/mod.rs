//! Rounds against the guest agent: [`process`] starts and kills it, [`mod@work`] keeps
//! it busy and notes in the [`model`] what it acknowledged, [`check`] compares.

pub(crate) mod call;
pub(crate) mod check;
pub(crate) mod images;
pub(crate) mod model;
pub(crate) mod process;
pub(crate) mod work;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;

use self::{call::Caller, images::Images, model::Model, process::Agent, work::Worker};
use crate::findings::Findings;

/// Workers that call at the same time, each with names of its own.
const WORKERS: usize = 3;
/// One kill in so many hits an agent that has only just been started.
const KILLED_AT_START: u32 = 6;

/// What a campaign did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) rounds: u32,
    pub(crate) acknowledged: u64,
    pub(crate) cut_off: u64,
}

/// Kills the agent `rounds` times.
pub(crate) fn campaign(
    program: &Path,
    folder: &Path,
    rounds: u32,
    seed: u64,
    findings: &mut Findings,
) -> Result<Done> {
    let mut random = fastrand::Rng::with_seed(seed);
    let images = Images::make(&mut random)?;
    let mut models: Vec<Model> = (0..WORKERS).map(Model::new).collect();
    let mut done = Done::default();
    for round in 1..=rounds {
        findings.begin(round);
        if random.u32(..KILLED_AT_START) == 0 {
            let agent = Agent::spawn(program, folder)?;
            thread::sleep(Duration::from_millis(random.u64(..80)));
            agent.kill()?;
        }
        let agent = Agent::start(program, folder)?;
        check::check(&agent, &images, &mut models, findings)?;
        if findings.are_many() {
            agent.kill()?;
            return Ok(done);
        }
        // Short ones often: most calls take a few milliseconds.
        let longest = random.u32(10..=18);
        let busy = Duration::from_micros(random.u64(..1 << longest));
        work(
            &agent,
            &images,
            &mut models,
            &mut random,
            busy,
            &mut done,
            findings,
        )?;
        done.rounds = round;
    }
    let agent = Agent::start(program, folder)?;
    check::check(&agent, &images, &mut models, findings)?;
    check::nothing_is_left(&agent, findings)?;
    agent.kill()?;
    process::remove_control_groups(&models)?;
    Ok(done)
}

/// Lets all workers work for a while, kills the agent under them, and waits for
/// them.
fn work(
    agent: &Agent,
    images: &Images,
    models: &mut [Model],
    random: &mut fastrand::Rng,
    busy: Duration,
    done: &mut Done,
    findings: &mut Findings,
) -> Result<()> {
    let over = AtomicBool::new(false);
    let caller = Caller::agent(&agent.socket());
    let reports = thread::scope(|scope| {
        let workers: Vec<_> = models
            .iter_mut()
            .map(|model| {
                let mut worker = Worker::new(caller.clone(), images, model, random.fork());
                let over = &over;
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) && worker.step() {}
                    worker.report()
                })
            })
            .collect();
        thread::sleep(busy);
        let killed = agent.kill();
        over.store(true, Ordering::Relaxed);
        let reports: Vec<_> = workers
            .into_iter()
            .filter_map(|worker| worker.join().ok())
            .collect();
        killed.map(|()| reports)
    })?;
    if reports.len() != WORKERS {
        findings.add("a worker of the campaign itself panicked");
    }
    for report in reports {
        done.acknowledged += report.acknowledged;
        done.cut_off += u64::from(report.cut_off);
        for error in report.unexpected {
            findings.add(error);
        }
    }
    Ok(())
}
