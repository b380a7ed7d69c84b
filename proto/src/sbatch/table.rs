//! Every option of sbatch and what becomes of it.
//!
//! One table says all, so that parser, warnings and the documentation's table
//! (a test compares) cannot drift apart.

/// Whether an option has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Never.
    Nothing,
    /// Always.
    Value,
    /// Only when attached to it: `--nice=5`.
    Perhaps,
}

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// It does what it says.
    Used,
    /// It changes nothing, and a warning says why.
    Warned(&'static str),
    /// Leaving it out would run another job than the one meant: reason, remedy.
    Refused(&'static str, &'static str),
}

/// One option that sbatch has.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    /// Without its dashes.
    pub long: &'static str,
    /// The one-letter form.
    pub short: Option<char>,
    /// Its value.
    pub takes: Takes,
    /// What becomes of it.
    pub cover: Cover,
    /// The variable of the environment that stands for it; empty: none does.
    pub variable: &'static str,
}

const fn known(
    long: &'static str,
    short: Option<char>,
    takes: Takes,
    cover: Cover,
    variable: &'static str,
) -> Known {
    Known { long, short, takes, cover, variable }
}

const NO_MAIL: Cover = Cover::Warned("Drumline sends no mail; `drumline wait` or the events tell the end");
const NO_ACCOUNTS: Cover = Cover::Warned("a tenant pays; the token tells which");
const NO_TOPOLOGY: Cover = Cover::Warned("cores are counted, not chosen");
const NO_NODE_NAMES: Cover = Cover::Warned("nodes are not chosen by name; -p chooses a pool");
const NO_FEATURES: Cover = Cover::Warned("nodes have labels, not features; -p chooses a pool");
const NO_SITE: Cover = Cover::Warned("Drumline has nothing like it");
const NO_GPU_SHAPE: Cover = Cover::Warned("GPUs are counted for each node; use --gres=gpu:N");

/// Every option of sbatch, by its long name.
pub static KNOWN: &[Known] = {
    use Cover::{Refused, Used, Warned};
    use Takes::{Nothing, Perhaps, Value};
    &[
        known("account", Some('A'), Value, NO_ACCOUNTS, "SBATCH_ACCOUNT"),
        known("acctg-freq", None, Value, NO_SITE, "SBATCH_ACCTG_FREQ"),
        known("array", Some('a'), Value, Used, "SBATCH_ARRAY_INX"),
        known("batch", None, Value, NO_FEATURES, "SBATCH_BATCH"),
        known("bb", None, Value, NO_SITE, ""),
        known("bbf", None, Value, NO_SITE, ""),
        known("begin", Some('b'), Value, Used, ""),
        known("chdir", Some('D'), Value, Used, ""),
        known("cluster-constraint", None, Value, NO_FEATURES, "SBATCH_CLUSTER_CONSTRAINT"),
        known(
            "clusters",
            Some('M'),
            Value,
            Warned("a server is one cluster; DRUMLINE_SERVER tells which"),
            "SBATCH_CLUSTERS",
        ),
        known(
            "comment",
            None,
            Value,
            Warned("Drumline keeps no comments; labels are the nearest"),
            "SBATCH_COMMENT",
        ),
        known("constraint", Some('C'), Value, NO_FEATURES, "SBATCH_CONSTRAINT"),
        known(
            "container",
            None,
            Value,
            Refused("Drumline starts no containers", "start it inside the script, with apptainer say"),
            "SBATCH_CONTAINER",
        ),
        known(
            "container-id",
            None,
            Value,
            Refused("Drumline starts no containers", "start it inside the script, with apptainer say"),
            "SBATCH_CONTAINER_ID",
        ),
        known("contiguous", None, Nothing, NO_TOPOLOGY, ""),
        known("core-spec", Some('S'), Value, NO_TOPOLOGY, "SBATCH_CORE_SPEC"),
        known("cores-per-socket", None, Value, NO_TOPOLOGY, ""),
        known("cpu-freq", None, Value, NO_SITE, "SBATCH_CPU_FREQ_REQ"),
        known(
            "cpus-per-gpu",
            None,
            Value,
            Warned("cores follow from -n and -c alone"),
            "SBATCH_CPUS_PER_GPU",
        ),
        known("cpus-per-task", Some('c'), Value, Used, ""),
        known("deadline", None, Value, Warned("a job that is late runs all the same"), ""),
        known("delay-boot", None, Value, NO_SITE, "SBATCH_DELAY_BOOT"),
        known("dependency", Some('d'), Value, Used, ""),
        known("distribution", Some('m'), Value, NO_TOPOLOGY, "SBATCH_DISTRIBUTION"),
        known("error", Some('e'), Value, Used, "SBATCH_ERROR"),
        known("exclude", Some('x'), Value, NO_NODE_NAMES, ""),
        known("exclusive", None, Perhaps, Used, "SBATCH_EXCLUSIVE"),
        known("export", None, Value, Used, "SBATCH_EXPORT"),
        known("export-file", None, Value, Warned("name the variables with --export"), ""),
        known("extra", None, Value, NO_SITE, ""),
        known("extra-node-info", Some('B'), Value, NO_TOPOLOGY, ""),
        known(
            "get-user-env",
            None,
            Perhaps,
            Warned("no login shell is started; --export=ALL hands the environment on"),
            "SBATCH_GET_USER_ENV",
        ),
        known("gid", None, Value, Warned("a task runs as its node's agent does"), ""),
        known("gpu-bind", None, Value, NO_TOPOLOGY, "SBATCH_GPU_BIND"),
        known("gpu-freq", None, Value, NO_SITE, "SBATCH_GPU_FREQ"),
        known("gpus", Some('G'), Value, Used, "SBATCH_GPUS"),
        known("gpus-per-node", None, Value, Used, "SBATCH_GPUS_PER_NODE"),
        known("gpus-per-socket", None, Value, NO_GPU_SHAPE, ""),
        known("gpus-per-task", None, Value, Used, "SBATCH_GPUS_PER_TASK"),
        known("gres", None, Value, Used, "SBATCH_GRES"),
        known("gres-flags", None, Value, NO_TOPOLOGY, "SBATCH_GRES_FLAGS"),
        known("help", Some('h'), Nothing, Used, ""),
        known("hint", None, Value, NO_TOPOLOGY, "SBATCH_HINT"),
        known(
            "hold",
            Some('H'),
            Nothing,
            Refused(
                "a job cannot be held back here",
                "submit it when it may run, or give it --begin or --dependency",
            ),
            "",
        ),
        known("ignore-pbs", None, Nothing, Used, "SBATCH_IGNORE_PBS"),
        known("input", Some('i'), Value, Used, "SBATCH_INPUT"),
        known("job-name", Some('J'), Value, Used, "SBATCH_JOB_NAME"),
        known(
            "kill-on-invalid-dep",
            None,
            Value,
            Warned("a job whose dependency cannot be met is always cancelled"),
            "",
        ),
        known("licenses", Some('L'), Value, Used, ""),
        known("mail-type", None, Value, NO_MAIL, ""),
        known("mail-user", None, Value, NO_MAIL, ""),
        known("mcs-label", None, Value, NO_SITE, ""),
        known("mem", None, Value, Used, "SBATCH_MEM_PER_NODE"),
        known("mem-bind", None, Value, NO_TOPOLOGY, "SBATCH_MEM_BIND"),
        known("mem-per-cpu", None, Value, Used, "SBATCH_MEM_PER_CPU"),
        known(
            "mem-per-gpu",
            None,
            Value,
            Warned("memory follows from --mem or --mem-per-cpu alone"),
            "SBATCH_MEM_PER_GPU",
        ),
        known("mincpus", None, Value, NO_TOPOLOGY, ""),
        known("network", None, Value, NO_SITE, "SBATCH_NETWORK"),
        known("nice", None, Perhaps, Warned("`drumline submit --priority` has priorities"), ""),
        known(
            "no-kill",
            Some('k'),
            Perhaps,
            Warned("the loss of a node ends the attempt on all its nodes"),
            "SBATCH_NO_KILL",
        ),
        known(
            "no-requeue",
            None,
            Nothing,
            Warned("a job whose node is lost is always tried again"),
            "SBATCH_NO_REQUEUE",
        ),
        known("nodefile", Some('F'), Value, NO_NODE_NAMES, ""),
        known("nodelist", Some('w'), Value, NO_NODE_NAMES, ""),
        known("nodes", Some('N'), Value, Used, ""),
        known("ntasks", Some('n'), Value, Used, ""),
        known("ntasks-per-core", None, Value, NO_TOPOLOGY, ""),
        known("ntasks-per-gpu", None, Value, NO_GPU_SHAPE, ""),
        known("ntasks-per-node", None, Value, Used, ""),
        known("ntasks-per-socket", None, Value, NO_TOPOLOGY, ""),
        known("open-mode", None, Value, Used, "SBATCH_OPEN_MODE"),
        known("output", Some('o'), Value, Used, "SBATCH_OUTPUT"),
        known(
            "overcommit",
            Some('O'),
            Nothing,
            Warned("no node is given more than it has"),
            "SBATCH_OVERCOMMIT",
        ),
        known("oversubscribe", Some('s'), Nothing, Warned("no node is given more than it has"), ""),
        known("parsable", None, Nothing, Used, ""),
        known("partition", Some('p'), Value, Used, "SBATCH_PARTITION"),
        known("power", None, Value, NO_SITE, "SBATCH_POWER"),
        known("prefer", None, Value, NO_FEATURES, ""),
        known("priority", None, Value, Warned("`drumline submit --priority` has priorities"), ""),
        known("profile", None, Value, NO_SITE, "SBATCH_PROFILE"),
        known("propagate", None, Perhaps, Warned("limits of the shell are not handed on"), ""),
        known("qos", Some('q'), Value, NO_ACCOUNTS, "SBATCH_QOS"),
        known("quiet", Some('Q'), Nothing, Used, ""),
        known("reboot", None, Nothing, NO_SITE, ""),
        known("requeue", None, Nothing, Used, "SBATCH_REQUEUE"),
        known("reservation", None, Value, NO_SITE, "SBATCH_RESERVATION"),
        known("signal", None, Value, Used, "SBATCH_SIGNAL"),
        known("sockets-per-node", None, Value, NO_TOPOLOGY, ""),
        known("spread-job", None, Nothing, NO_TOPOLOGY, "SBATCH_SPREAD_JOB"),
        known("switches", None, Value, NO_TOPOLOGY, "SBATCH_REQ_SWITCH"),
        known("test-only", None, Nothing, Used, ""),
        known("thread-spec", None, Value, NO_TOPOLOGY, "SBATCH_THREAD_SPEC"),
        known("threads-per-core", None, Value, NO_TOPOLOGY, "SBATCH_THREADS_PER_CORE"),
        known("time", Some('t'), Value, Used, "SBATCH_TIMELIMIT"),
        known("time-min", None, Value, Warned("the limit is what --time says"), ""),
        known("tmp", None, Value, Warned("room in /tmp is not counted"), ""),
        known("tres-bind", None, Value, NO_TOPOLOGY, ""),
        known("tres-per-task", None, Value, NO_TOPOLOGY, "SBATCH_TRES_PER_TASK"),
        known("uid", None, Value, Warned("a task runs as its node's agent does"), ""),
        known("usage", None, Nothing, Used, ""),
        known("use-min-nodes", None, Nothing, NO_TOPOLOGY, "SBATCH_USE_MIN_NODES"),
        known("verbose", Some('v'), Nothing, Used, ""),
        known("version", Some('V'), Nothing, Used, ""),
        known("wait", Some('W'), Nothing, Used, "SBATCH_WAIT"),
        known(
            "wait-all-nodes",
            None,
            Value,
            Warned("a job starts on all its nodes or on none"),
            "SBATCH_WAIT_ALL_NODES",
        ),
        known("wckey", None, Value, NO_ACCOUNTS, "SBATCH_WCKEY"),
        known("wrap", None, Value, Used, ""),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_names_each_option_once() {
        let longs: BTreeSet<_> = KNOWN.iter().map(|option| option.long).collect();
        let shorts: BTreeSet<_> = KNOWN.iter().filter_map(|option| option.short).collect();
        assert_eq!(longs.len(), KNOWN.len());
        assert_eq!(shorts.len(), KNOWN.iter().filter(|option| option.short.is_some()).count());
    }
}
