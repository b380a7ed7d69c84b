//! A node's own clock, which may be wrong.
//!
//! Two readings with two purposes. `monotonic_ms` only ever grows and measures
//! spans on this node: leases and deadlines are counted with it. `wall_ms` is
//! what the node believes the date to be; it may jump either way and is only
//! shown to people or compared over long spans (months, back-offs in rows).
//! No rule of safety may depend on two nodes agreeing about either.

/// Reads one node's clock.
pub trait NodeClock: Send + Sync + std::fmt::Debug + 'static {
    /// Milliseconds since some fixed instant of this node's life; never goes back.
    fn monotonic_ms(&self) -> u64;
    /// Milliseconds since 1970 as this node believes; may jump.
    fn wall_ms(&self) -> u64;
    /// Both at once, for a core's `step`.
    fn now(&self) -> Now {
        Now { mono_ms: self.monotonic_ms(), wall_ms: self.wall_ms() }
    }
}

/// The time as data, the way cores take it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// See [`NodeClock::monotonic_ms`].
    pub mono_ms: u64,
    /// See [`NodeClock::wall_ms`].
    pub wall_ms: u64,
}
