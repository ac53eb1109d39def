//! What differs from the recording.

use std::{collections::BTreeMap, fmt, io, thread};

use super::{
    Engine,
    answer::{Answer, Body},
    differences::{self, Difference, Reason},
    recording::Recording,
    requests::{self, Group},
    session::Exchange,
    shape::Shape,
};

/// What came of a comparison.
#[derive(Debug, Default)]
pub struct Report {
    /// Differences that nobody meant, one a line.
    pub unexpected: Vec<String>,
    /// Differences that were meant, and that are not there.
    pub unfounded: Vec<String>,
}

impl Report {
    /// Whether nothing is to be told.
    pub fn is_empty(&self) -> bool {
        self.unexpected.is_empty() && self.unfounded.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.unexpected {
            writeln!(formatter, "differs: {line}")?;
        }
        for line in &self.unfounded {
            writeln!(formatter, "does not differ any more: {line}")?;
        }
        write!(formatter, "{} differences", self.unexpected.len())
    }
}

/// Sends all requests to `engine`, the groups side by side, and compares its answers
/// with the recording. `groups` are those to compare; all when none is named.
///
/// # Errors
/// If there is no such group, or no recording of one.
///
/// # Panics
/// If a group's requests do.
pub fn compare(engine: &Engine, groups: &[&str]) -> io::Result<Report> {
    let mut found = Vec::new();
    thread::scope(|scope| {
        let groups: Vec<_> = requests::groups(groups)?
            .into_iter()
            .map(|group| scope.spawn(|| compare_group(group, engine)))
            .collect();
        for group in groups {
            found.extend(group.join().expect("the group's requests are sent")?);
        }
        io::Result::Ok(())
    })?;
    let mut report = report(&found, differences::MEANT);
    if !groups.is_empty() {
        // They may be in the other groups.
        report.unfounded.clear();
    }
    Ok(report)
}

/// One place in which an answer differs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    group: &'static str,
    request: String,
    place: String,
    recorded: String,
    ours: String,
}

fn report(found: &[Found], meant: &[Reason]) -> Report {
    let mut report = Report::default();
    let covers = |difference: &Difference, found: &Found| {
        difference.covers(&found.request, &found.place, &found.recorded)
    };
    for one in found {
        let mut differences = meant.iter().flat_map(|reason| reason.differences);
        if differences.any(|difference| covers(difference, one)) {
            continue;
        }
        let Found {
            group,
            request,
            place,
            recorded,
            ours,
        } = one;
        report.unexpected.push(format!(
            "{group}: {request}\n    {place}: {recorded} → {ours}"
        ));
    }
    for reason in meant {
        for difference in reason.differences.iter().filter(|it| !it.sometimes) {
            if !found.iter().any(|found| covers(difference, found)) {
                let Difference {
                    request,
                    place,
                    recorded,
                    ..
                } = difference;
                report
                    .unfounded
                    .push(format!("{request} · {place} · {recorded} ({})", reason.why));
            }
        }
    }
    report
}

fn compare_group(group: &Group, engine: &Engine) -> io::Result<Vec<Found>> {
    let recording = Recording::read(group)?;
    let ours = Recording::of(group, engine);
    let requests = |exchanges: &[Exchange]| -> Vec<String> {
        exchanges.iter().map(|it| it.request.clone()).collect()
    };
    if requests(&recording.exchanges) != requests(&ours) {
        return Err(io::Error::other(format!(
            "the requests of {} have changed: `cargo xtask contract record`",
            group.name
        )));
    }
    let mut found = Vec::new();
    for (recorded, ours) in recording.exchanges.iter().zip(&ours) {
        compare_answers(
            &recorded.answer,
            &ours.answer,
            &mut |place, recorded_there, ours| {
                found.push(Found {
                    group: group.name,
                    request: recorded.request.clone(),
                    place,
                    recorded: recorded_there,
                    ours,
                });
            },
        );
    }
    Ok(found)
}

fn compare_answers(
    recorded: &Answer,
    ours: &Answer,
    tell: &mut impl FnMut(String, String, String),
) {
    if let (Some(recorded), Some(ours)) = (error(recorded), error(ours)) {
        if recorded != ours {
            tell("error".into(), recorded, ours);
        }
        return;
    }
    if recorded.status != ours.status {
        tell(
            "status".into(),
            recorded.status.to_string(),
            ours.status.to_string(),
        );
    }
    compare_headers(&recorded.headers, &ours.headers, tell);
    let (recorded, ours) = (&recorded.body, &ours.body);
    match (recorded, ours) {
        (Some(Body::Json(recorded)), Some(Body::Json(ours))) => {
            Shape::from_json(recorded).differences(&Shape::from_json(ours), "body", tell);
        }
        (
            Some(Body::Objects {
                shape: recorded,
                said,
            }),
            Some(Body::Objects {
                shape: ours,
                said: our_words,
            }),
        ) => {
            Shape::from_json(recorded).differences(&Shape::from_json(ours), "body", tell);
            for missing in said.difference(our_words) {
                tell("said".into(), missing.clone(), "nothing".into());
            }
            for more in our_words.difference(said) {
                tell("said".into(), "nothing".into(), more.clone());
            }
        }
        (recorded, ours) if recorded == ours => {}
        (recorded, ours) => tell("body".into(), text(recorded.as_ref()), text(ours.as_ref())),
    }
}

/// Status and message of an error.
fn error(answer: &Answer) -> Option<String> {
    match &answer.body {
        Some(Body::Message(message)) => Some(format!("{} {message}", answer.status)),
        _ => None,
    }
}

fn compare_headers(
    recorded: &BTreeMap<String, String>,
    ours: &BTreeMap<String, String>,
    tell: &mut impl FnMut(String, String, String),
) {
    let names: std::collections::BTreeSet<_> = recorded.keys().chain(ours.keys()).collect();
    let missing = "missing".to_owned();
    for name in names {
        let (recorded, ours) = (recorded.get(name), ours.get(name));
        if recorded != ours {
            let shown = |value: Option<&String>| value.unwrap_or(&missing).clone();
            tell(format!("header {name}"), shown(recorded), shown(ours));
        }
    }
}

fn text(body: Option<&Body>) -> String {
    match body {
        None => "nothing".to_owned(),
        Some(Body::Message(message)) => message.clone(),
        Some(body) => serde_json::to_string(body).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: Body) -> Answer {
        let headers = [("content-type".to_owned(), "application/json".to_owned())];
        Answer {
            status,
            headers: headers.into(),
            body: Some(body),
        }
    }

    fn places(recorded: &Answer, ours: &Answer) -> Vec<String> {
        let mut places = Vec::new();
        compare_answers(recorded, ours, &mut |place, _, _| places.push(place));
        places
    }

    #[test]
    fn every_part_of_an_answer_counts() {
        let recorded = answer(200, Body::Json(json!({"Id": "text"})));
        assert!(places(&recorded, &recorded).is_empty());
        let mut other = answer(201, Body::Json(json!({"Id": "number"})));
        other.headers.clear();
        assert_eq!(
            places(&recorded, &other),
            ["status", "header content-type", "body.Id"]
        );
        let message = |text: &str| answer(404, Body::Message(text.into()));
        assert_eq!(places(&message("a"), &message("b")), ["error"]);
    }

    #[test]
    fn what_is_meant_is_no_failure_and_must_be_there() {
        let found = Found {
            group: "system",
            request: "GET /info".into(),
            place: "body.Containerd.Address".into(),
            recorded: "text".into(),
            ours: "missing".into(),
        };
        let reasons = [Reason {
            why: "there is none",
            differences: &[Difference {
                request: "GET */info",
                place: "body.Containerd*",
                recorded: "te*",
                sometimes: false,
            }],
        }];
        let told = report(std::slice::from_ref(&found), &reasons);
        assert!(told.is_empty(), "{told}");
        let told = report(&[], &reasons);
        assert_eq!(told.unfounded.len(), 1);
        assert_eq!(report(&[found], &[]).unexpected.len(), 1);
    }
}
