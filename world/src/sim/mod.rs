//! The simulated sides, hostile by choice.
