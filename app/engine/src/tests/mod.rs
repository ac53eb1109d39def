//! The engine as its clients see it.
