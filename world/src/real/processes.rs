//! Processes of a node; see [`crate::processes`].
