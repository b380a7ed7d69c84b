//! What goes wrong with processes, and how often it did.

/// What processes of a node suffer, in parts per million of launches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessFaults {
    /// It cannot be launched.
    pub launch_ppm: u32,
    /// Its start takes a while, up to `slow_ms`.
    pub slow_ppm: u32,
    /// See `slow_ppm`.
    pub slow_ms: u64,
    /// Killed by signal 9 half way.
    pub kill_ppm: u32,
    /// Meets its memory limit half way, where it has one.
    pub oom_ppm: u32,
    /// Never ends by itself.
    pub hang_ppm: u32,
    /// Ends with an exit code of its own.
    pub code_ppm: u32,
    /// Does not write its outputs.
    pub no_output_ppm: u32,
    /// Something it left behind writes its outputs anew, soon after its end.
    pub late_output_ppm: u32,
    /// Does not heed TERM.
    pub deaf_ppm: u32,
}

impl ProcessFaults {
    /// A bad neighbourhood: about one launch in four goes wrong. None of them
    /// hangs: that is for who also sets timeouts.
    #[must_use]
    pub fn nasty() -> Self {
        Self {
            launch_ppm: 50_000,
            slow_ppm: 50_000,
            slow_ms: 2_000,
            kill_ppm: 60_000,
            oom_ppm: 20_000,
            hang_ppm: 0,
            code_ppm: 60_000,
            no_output_ppm: 50_000,
            late_output_ppm: 0,
            deaf_ppm: 100_000,
        }
    }
}

/// How often each fault fired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessCounts {
    /// Launches asked for.
    pub launches: u64,
    /// Of these, refused.
    pub launch_failures: u64,
    /// Of those, refused without a reason.
    pub launches_denied: u64,
    /// Started late.
    pub slow: u64,
    /// Killed half way.
    pub killed: u64,
    /// Met their memory limit.
    pub out_of_memory: u64,
    /// Never ended by themselves.
    pub hung: u64,
    /// Ended with a code of their own.
    pub codes: u64,
    /// Gave no outputs.
    pub no_outputs: u64,
    /// Outputs that changed after the end.
    pub late_outputs: u64,
    /// Did not heed TERM when it came.
    pub deaf: u64,
    /// Killed by the dead man's switch.
    pub fenced: u64,
    /// Writes that the disk refused.
    pub write_errors: u64,
    /// Supervisors that died as they took a launch.
    pub died_launching: u64,
}
