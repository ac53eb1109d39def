//! What a user reads: tables, JSON, human units, progress. It knows how Docker's
//! client writes them and nothing of where they come from.

pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod table;
