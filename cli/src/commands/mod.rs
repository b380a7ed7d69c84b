//! One file for each command. A command answers with the process's exit code.

mod cancel;
mod completions;
mod events;
mod licenses;
mod local_driver;
mod logs;
mod ls;
mod man;
mod nodes;
mod outputs;
mod pools;
mod quota;
mod replay;
mod reserve;
mod retry;
mod run;
mod server;
mod show;
mod slurm;
mod store;
mod submit;
pub(crate) use submit::labels;
mod agent;
mod alerts;
mod scheduler;
mod tenants;
mod tokens;
mod top;
mod up;
mod upload;
mod usage;
mod wait;
mod why;

use crate::{
    args::{Cli, Command, Connection},
    client::Client,
    failure::{EXIT_OK, Failure},
};
use std::future::Future;

/// What a command gives the shell.
pub type Outcome = Result<u8, Failure>;

/// Does what the command line says.
pub fn run(cli: Cli) -> Outcome {
    let connection = cli.connection;
    match cli.command {
        Command::Run(args) => on_all_cores(run::run(connection, args)),
        Command::Up(args) => on_all_cores(up::run(args)),
        Command::Server(args) => on_all_cores(server::run(args)),
        Command::Store(args) => on_all_cores(store::run(args)),
        Command::Agent(args) => on_all_cores(agent::run(connection, args)),
        Command::Scheduler(args) => on_one_core(scheduler::run(connection, args)),
        Command::LocalDriver(args) => on_one_core(local_driver::run(connection, args)),
        Command::Submit(args) => on_one_core(submit::run(connection, *args)),
        Command::Upload(args) => on_one_core(upload::run(connection, args)),
        Command::Sbatch(args) => on_one_core(slurm::sbatch::run(connection, args)),
        Command::Squeue(args) => as_client(connection, |client| slurm::squeue::run(client, args)),
        Command::Scancel(args) => as_client(connection, |client| slurm::scancel::run(client, args)),
        Command::Sinfo(args) => as_client(connection, |client| slurm::sinfo::run(client, args)),
        Command::Batch(args) => on_one_core(slurm::batch::run(args)),
        Command::Srun(args) => slurm::batch::srun(&args),
        Command::Ls(args) => as_client(connection, |client| ls::run(client, args)),
        Command::Show(args) => as_client(connection, |client| show::run(client, args)),
        Command::Why(args) => as_client(connection, |client| why::run(client, args)),
        Command::Logs(args) => as_client(connection, |client| logs::run(client, args)),
        Command::Events(args) => as_client(connection, |client| events::run(client, args)),
        Command::Wait(args) => as_client(connection, |client| wait::run(client, args)),
        Command::Cancel(args) => as_client(connection, |client| cancel::run(client, args)),
        Command::Retry(args) => as_client(connection, |client| retry::run(client, args)),
        Command::Outputs(args) => as_client(connection, |client| outputs::run(client, args)),
        Command::Nodes(args) => as_client(connection, |client| nodes::list(client, args)),
        Command::Node(args) => as_client(connection, |client| nodes::change(client, args)),
        Command::Reserve(args) => as_client(connection, |client| reserve::run(client, args)),
        Command::Pools(args) => as_client(connection, |client| pools::run(client, args)),
        Command::Licenses(args) => as_client(connection, |client| licenses::run(client, args)),
        Command::Alerts(args) => as_client(connection, |client| alerts::run(client, args)),
        Command::Tenants(args) => as_client(connection, |client| tenants::run(client, args)),
        Command::Quota(args) => as_client(connection, |client| quota::run(client, args)),
        Command::Usage(args) => as_client(connection, |client| usage::run(client, args)),
        Command::Tokens(args) => as_client(connection, |client| tokens::run(client, args)),
        Command::Replay(args) => replay::run(&args),
        Command::Top(args) => on_one_core(top::run(connection, args)),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Supervisor(args) => crate::cluster::supervise(args),
    }
}

/// Connects, then does one thing.
fn as_client<F, T>(connection: Connection, work: T) -> Outcome
where
    T: FnOnce(Client) -> F,
    F: Future<Output = Outcome>,
{
    on_one_core(async move { work(Client::connect(&connection).await?).await })
}

/// Client commands are short: one thread starts fastest.
fn on_one_core<F: Future<Output = Outcome>>(work: F) -> Outcome {
    block_on(tokio::runtime::Builder::new_current_thread(), work)
}

/// Servers and agents use the machine.
fn on_all_cores<F: Future<Output = Outcome>>(work: F) -> Outcome {
    block_on(tokio::runtime::Builder::new_multi_thread(), work)
}

fn block_on<F: Future<Output = Outcome>>(mut runtime: tokio::runtime::Builder, work: F) -> Outcome {
    let runtime = runtime.enable_all().build().map_err(|error| {
        Failure::broken("runtime", "", error.to_string(), "are there enough threads and open files?")
    })?;
    let outcome = runtime.block_on(work);
    // Whatever still blocks (a read of the terminal, say) is not waited for.
    runtime.shutdown_background();
    outcome
}

/// Done, with nothing more to say.
pub(crate) fn done() -> Outcome {
    Ok(EXIT_OK)
}
