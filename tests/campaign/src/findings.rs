//! What was found, told as it is found.

/// More than this is one fault many times.
const MANY: u32 = 20;

/// The findings so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    count: u32,
    round: u32,
    during: String,
}

impl Findings {
    /// Findings are of this round from here on.
    pub(crate) fn begin(&mut self, round: u32) {
        self.round = round;
    }

    /// Findings are of this part of the round.
    pub(crate) fn during(&mut self, what: &str) {
        what.clone_into(&mut self.during);
    }

    /// Tells of one.
    pub(crate) fn add(&mut self, finding: impl std::fmt::Display) {
        self.count += 1;
        match self.during.as_str() {
            "" => println!("round {}: {finding}", self.round),
            during => println!("round {}, {during}: {finding}", self.round),
        }
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Whether it is no use to go on.
    pub(crate) fn are_many(&self) -> bool {
        self.count >= MANY
    }
}
