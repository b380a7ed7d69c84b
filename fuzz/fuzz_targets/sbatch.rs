//! No script and no command line makes the reader of batch scripts panic, and
//! what it takes is a job that every door takes. The first line of the input is
//! the command line, the rest the script.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::sbatch::{self, CommandLine, Names, Surroundings};

fuzz_target!(|input: &str| {
    let (words, text) = input.split_once('\n').unwrap_or(("", input));
    let words: Vec<String> = words.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let _ = sbatch::fill(words.first().map_or("", String::as_str), &Names::default());
    let _ = sbatch::srun(&words, &Default::default());
    let around = Surroundings { directory: "/work".to_owned(), ..Surroundings::default() };
    let Ok(line) = CommandLine::read(&words) else { return };
    if let Ok(submission) = sbatch::submission(&line, text, &around) {
        assert!(proto::validate::spec(&submission.spec).is_ok());
        assert!(proto::estimate::tasks(&submission.spec) > 0);
    }
});
