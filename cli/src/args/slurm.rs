//! The commands that people know from Slurm, and the two that stand on a node
//! for them.
//!
//! Called through a link named after one of them, the binary is that command.

use clap::{ArgAction, Args, ValueEnum};
use std::{ffi::OsString, path::PathBuf};

/// Names by which the binary is a command of its own.
const LINKS: [&str; 5] = ["sbatch", "squeue", "scancel", "sinfo", "srun"];

/// The command line, with the name it was called by made a word of it.
pub fn called_as(mut words: Vec<OsString>) -> Vec<OsString> {
    let name = words.first().map(PathBuf::from);
    let name = name.as_deref().and_then(|path| path.file_name()).and_then(|name| name.to_str());
    if let Some(link) = LINKS.into_iter().find(|link| Some(*link) == name) {
        words.splice(..1, ["drumline".into(), link.into()]);
    }
    words
}

#[derive(Args, Debug)]
#[command(after_help = "\
Options are sbatch's: on the command line, else as SBATCH_… variables, else in #SBATCH lines at the
top of the script. One that is not covered is named in a warning. docs/slurm.md has the full table.

  -J --job-name   -n --ntasks   -N --nodes   -c --cpus-per-task   --ntasks-per-node   -t --time
  -p --partition (a pool)   --mem   --mem-per-cpu   --gres=gpu:N   -G --gpus   -a --array
  -o --output   -e --error   -i --input   --open-mode   -D --chdir   --export   --wrap
  -d --dependency=afterok|afterany|afternotok:ID[_INDEX]|aftercorr:ID|singleton   -b --begin=WHEN
  --signal   --requeue   -W --wait   --parsable   -Q --quiet   --test-only

Prints `Submitted batch job ID`. With --wait it exits with the job's code.

Examples:
  drumline sbatch job.sh
  drumline sbatch -a 1-100%5 -t 10:00 --mem=2G fit.sh data.csv
  drumline sbatch --parsable --dependency=afterok:17 merge.sh
  drumline sbatch -a 1-100 --dependency=aftercorr:17 score.sh
  drumline sbatch --begin=22:00 nightly.sh
  drumline sbatch --wait --wrap 'make check'
  ln -s \"$(command -v drumline)\" ~/bin/sbatch; sbatch job.sh")]
pub struct SbatchArgs {
    /// Options, the script (else standard input), and its arguments
    #[arg(value_name = "WORD", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
#[command(after_help = "\
Waiting and running jobs. Fields of --format: %i id, %A its number, %K index, %P pool, %j name, %u user,
%a tenant, %t %T state, %M time, %l limit, %L time left, %D nodes, %C cores, %m memory, %b GPUs, %Q priority,
%V submitted, %S started, %N nodes' names, %r reason, %R names or reason. Times are UTC.

Examples:
  drumline squeue --me
  drumline squeue -j 17,18 -h -o %T
  drumline squeue -u ada -t PD,R -o '%.10i %.20j %.2t %R'")]
pub struct SqueueArgs {
    /// Only these jobs (with commas between)
    #[arg(short, long, value_name = "ID,…", value_delimiter = ',')]
    pub jobs: Vec<String>,
    /// Only jobs of these users
    #[arg(short, long, value_name = "USER,…", value_delimiter = ',')]
    pub user: Vec<String>,
    /// Only your own jobs
    #[arg(long)]
    pub me: bool,
    /// Only jobs for these pools
    #[arg(short, long, value_name = "POOL,…", value_delimiter = ',')]
    pub partition: Vec<String>,
    /// Only jobs in these states: PD, R, CD, F, CA … or all
    #[arg(short = 't', long, value_name = "STATE,…", value_delimiter = ',')]
    pub states: Vec<String>,
    /// Only jobs of these names
    #[arg(short, long, value_name = "NAME,…", value_delimiter = ',')]
    pub name: Vec<String>,
    /// Without the line of headers
    #[arg(short = 'h', long)]
    pub noheader: bool,
    /// Which fields, as %[.][WIDTH]CODE
    #[arg(short = 'o', long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// With states in full and the time limit
    #[arg(short, long, conflicts_with = "format")]
    pub long: bool,
    /// A line for each waiting task of an array
    #[arg(short = 'r', long)]
    pub array: bool,
    /// Taken and without meaning: all jobs are always shown
    #[arg(short, long, hide = true)]
    pub all: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub help: Option<bool>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Whole jobs only: a task of an array cannot be cancelled by itself.

Examples:
  drumline scancel 17 18
  drumline scancel --me -t PENDING
  drumline scancel -n nightly")]
pub struct ScancelArgs {
    /// Which jobs
    #[arg(value_name = "ID", required_unless_present_any = ["name", "user", "me", "state", "partition"])]
    pub jobs: Vec<String>,
    /// Jobs of these names
    #[arg(short, long = "name", alias = "jobname", value_name = "NAME,…", value_delimiter = ',')]
    pub name: Vec<String>,
    /// Jobs of this user
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Your own jobs
    #[arg(long)]
    pub me: bool,
    /// Jobs in this state: PENDING or RUNNING
    #[arg(short = 't', long, value_name = "STATE")]
    pub state: Option<String>,
    /// Jobs for this pool
    #[arg(short, long, value_name = "POOL")]
    pub partition: Option<String>,
    /// Say nothing of jobs that have ended
    #[arg(short = 'Q', long)]
    pub quiet: bool,
}

#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
#[command(after_help = "\
Pools are partitions. Fields of --format: %P %R pool, %a up, %l limit, %D nodes, %N their names, %n a node,
%t %T state, %c cores, %m memory (MiB), %G GPUs, %f labels, %E why drained, %C cores and %F nodes as
allocated/idle/other/total, %A nodes as allocated/idle.

Examples:
  drumline sinfo
  drumline sinfo -N -l
  drumline sinfo -h -p gpu -o '%n %t %C'")]
pub struct SinfoArgs {
    /// A line for each node
    #[arg(short = 'N', long = "Node")]
    pub node: bool,
    /// Only these pools
    #[arg(short, long, value_name = "POOL,…", value_delimiter = ',')]
    pub partition: Vec<String>,
    /// Only nodes in these states: idle, mix, alloc, drain, down …
    #[arg(short = 't', long, value_name = "STATE,…", value_delimiter = ',')]
    pub states: Vec<String>,
    /// Only these nodes
    #[arg(short, long, value_name = "NODE,…", value_delimiter = ',')]
    pub nodes: Vec<String>,
    /// Without the line of headers
    #[arg(short = 'h', long)]
    pub noheader: bool,
    /// Which fields, as %[.][WIDTH]CODE
    #[arg(short = 'o', long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// With cores and memory
    #[arg(short, long, conflicts_with = "format")]
    pub long: bool,
    /// A line for each pool
    #[arg(short, long, conflicts_with_all = ["format", "long", "node"])]
    pub summarize: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub help: Option<bool>,
}

/// What a job of sbatch's runs on its node.
#[derive(Args, Debug)]
pub struct BatchArgs {
    /// Where the script runs
    #[arg(long)]
    pub chdir: PathBuf,
    /// Pattern of the file of its output
    #[arg(long)]
    pub output: String,
    /// Likewise of its errors
    #[arg(long)]
    pub error: Option<String>,
    /// Likewise of its input
    #[arg(long)]
    pub input: Option<String>,
    /// What becomes of files that are there
    #[arg(long, value_enum, default_value_t = OpenMode::Truncate)]
    pub open_mode: OpenMode,
    /// To be sent before the time limit
    #[arg(long, requires = "signal_after_ms")]
    pub signal: Option<String>,
    /// After so long
    #[arg(long)]
    pub signal_after_ms: Option<u64>,
    /// To whom
    #[arg(long, value_enum, default_value_t = SignalTo::Steps)]
    pub signal_to: SignalTo,
    /// The script's text, and its arguments
    #[arg(last = true, required = true)]
    pub script: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OpenMode {
    /// It goes
    Truncate,
    /// It stays
    Append,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SignalTo {
    /// The script
    Script,
    /// What it started by srun
    Steps,
}

/// `srun` inside a script.
#[derive(Args, Debug)]
pub struct SrunArgs {
    /// Options and the command
    #[arg(value_name = "WORD", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser as _;

    fn parse(line: &str) -> Command {
        let words = called_as(line.split(' ').map(OsString::from).collect());
        Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}")).command
    }

    #[test]
    fn a_link_is_the_command_of_its_name() {
        let Command::Sbatch(args) = parse("/usr/bin/sbatch -n 4 --time=5 job.sh --server x -h") else {
            panic!()
        };
        assert_eq!(args.words.join(" "), "-n 4 --time=5 job.sh --server x -h");
        let Command::Squeue(args) = parse("squeue -h -o %T -j 1,2 --me") else { panic!() };
        assert_eq!((args.noheader, args.jobs.len(), args.me), (true, 2, true));
        let Command::Scancel(args) = parse("./scancel 17") else { panic!() };
        assert_eq!(args.jobs, ["17"]);
        let Command::Sinfo(args) = parse("sinfo -N -h -p a,b") else { panic!() };
        assert_eq!((args.node, args.partition.len()), (true, 2));
        let Command::Srun(args) = parse("srun -n 1 hostname -f") else { panic!() };
        assert_eq!(args.words.len(), 4);
        assert!(matches!(parse("drumline sbatch -n 4 job.sh"), Command::Sbatch(_)));
    }

    #[test]
    fn the_line_that_jobs_are_made_of_is_taken() {
        let words =
            ["drumline", "batch", "--chdir=/w", "--output=-o.out", "--signal=USR1", "--signal-after-ms=5"];
        let words =
            words.iter().chain(&["--signal-to=script", "--open-mode=append", "--", "#!/bin/sh\n", "-a"]);
        let Command::Batch(args) = Cli::try_parse_from(words).unwrap().command else { panic!() };
        assert_eq!(
            (args.script.len(), args.open_mode, args.signal_to),
            (2, OpenMode::Append, SignalTo::Script)
        );
        assert_eq!(args.output, "-o.out");
    }
}
