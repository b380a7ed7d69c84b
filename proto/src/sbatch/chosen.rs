//! Which options count: the command line over the environment over the script,
//! and the later over the earlier.

use super::{
    options::{Given, Source},
    refuse,
    table::{Cover, KNOWN, Takes},
    values,
};
use crate::problem::Problem;
use std::collections::BTreeMap;

/// Options that say the same in different ways: one that comes from a higher
/// place overrules all of its kind from a lower one.
const KINDS: [&[&str]; 3] = [
    &["mem", "mem-per-cpu", "mem-per-gpu"],
    &["requeue", "no-requeue"],
    &["gres", "gpus", "gpus-per-node", "gpus-per-task"],
];

/// The options that count.
#[derive(Debug, Default)]
pub struct Chosen(BTreeMap<&'static str, Given>);

impl Chosen {
    /// Of those given, in any order of their sources; of one source in the
    /// order written.
    pub fn of(mut given: Vec<Given>) -> Result<Self, Problem> {
        given.sort_by_key(|given| given.source.rank());
        let mut chosen = Self::default();
        for given in given {
            let rank = given.source.rank();
            for like in KINDS.iter().filter(|kind| kind.contains(&given.option.long)).copied().flatten() {
                if chosen.0.get(like).is_some_and(|other| other.source.rank() < rank) {
                    chosen.0.remove(like);
                }
            }
            chosen.0.insert(given.option.long, given);
        }
        if let (Some(mem), Some(each)) = (chosen.get("mem"), chosen.get("mem-per-cpu")) {
            let (field, value) = (each.field(), &each.value);
            let reason = format!("cannot stand beside {}", mem.field());
            return Err(refuse(&field, value, &reason, "give one of them"));
        }
        Ok(chosen)
    }

    /// One option, where it was given.
    pub fn get(&self, long: &str) -> Option<&Given> {
        debug_assert!(KNOWN.iter().any(|option| option.long == long), "{long} is in the table");
        self.0.get(long)
    }

    /// Whether a flag was given.
    pub fn has(&self, long: &str) -> bool {
        self.get(long).is_some()
    }

    /// A value as it was written.
    pub fn text(&self, long: &str) -> Option<&str> {
        self.get(long).map(|given| given.value.as_str())
    }

    /// A value as `reader` reads it.
    pub fn read<T>(
        &self,
        long: &str,
        reader: impl FnOnce(&str) -> Result<T, values::Slip>,
    ) -> Result<Option<T>, Problem> {
        let Some(given) = self.get(long) else { return Ok(None) };
        let value = reader(&given.value);
        value.map(Some).map_err(|(reason, remedy)| refuse(&given.field(), &given.value, reason, remedy))
    }

    /// A warning for each option that changes nothing; a refusal where leaving
    /// it out would not do.
    pub fn uncovered(&self) -> Result<Vec<String>, Problem> {
        let mut warnings: Vec<(usize, String)> = Vec::new();
        for given in self.0.values() {
            match given.option.cover {
                Cover::Used => {}
                Cover::Refused(reason, remedy) => {
                    return Err(refuse(&given.field(), &given.value, reason, remedy));
                }
                Cover::Warned(why) => {
                    let line = if let Source::Script(line) = given.source { line } else { usize::MAX };
                    warnings.push((line, format!("{} is not covered: {why}", given.field())));
                }
            }
        }
        warnings.sort();
        Ok(warnings.into_iter().map(|(_, warning)| warning).collect())
    }
}

/// The options that `SBATCH_…` variables stand for. One that is set to nothing
/// says nothing.
pub fn from_environment(environment: &BTreeMap<String, String>) -> Vec<Given> {
    let named = KNOWN.iter().filter(|option| !option.variable.is_empty());
    let set = named.filter_map(|option| {
        let value = environment.get(option.variable)?;
        let value = match option.takes {
            Takes::Value if value.is_empty() => return None,
            Takes::Nothing => String::new(),
            Takes::Value | Takes::Perhaps => value.clone(),
        };
        Some(Given { option, value, source: Source::Environment })
    });
    set.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sbatch::options;

    fn line(text: &str, source: Source) -> Vec<Given> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        options::read(&words, source).unwrap().given
    }

    #[test]
    fn the_command_line_overrules_the_environment_and_that_the_script() {
        let environment: BTreeMap<String, String> = [
            ("SBATCH_TIMELIMIT", "20"),
            ("SBATCH_PARTITION", "b"),
            ("SBATCH_QOS", ""),
            ("SBATCH_REQUEUE", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let mut given = line("-t 30 --mem=1G", Source::CommandLine);
        given.extend(line("-t 10 -p a -n 2 --mem-per-cpu=2G --no-requeue", Source::Script(2)));
        given.extend(line("-n 3", Source::Script(4)));
        given.extend(from_environment(&environment));
        let chosen = Chosen::of(given).unwrap();
        let text = |long| chosen.text(long).unwrap_or("-");
        assert_eq!([text("time"), text("partition"), text("ntasks"), text("mem")], ["30", "b", "3", "1G"]);
        assert!(!chosen.has("mem-per-cpu") && !chosen.has("no-requeue") && !chosen.has("qos"));
    }

    #[test]
    fn what_excludes_each_other_is_refused_and_what_is_not_covered_is_named() {
        let problem = Chosen::of(line("--mem=1G --mem-per-cpu=2G", Source::Script(5))).unwrap_err();
        assert_eq!(
            problem.to_string(),
            "line 5: --mem-per-cpu = 2G: cannot stand beside line 5: --mem; give one of them"
        );
        let mut given = line("--qos=high", Source::CommandLine);
        given.extend(line("--mail-user=a@b -A lab", Source::Script(9)));
        let warnings = Chosen::of(given).unwrap().uncovered().unwrap();
        assert_eq!(warnings.len(), 3);
        assert!(warnings[0].starts_with("line 9: --account is not covered: "), "{warnings:?}");
        assert!(warnings[2].starts_with("--qos is not covered: "), "{warnings:?}");
        let held = Chosen::of(line("--hold", Source::Script(3))).unwrap();
        assert_eq!(held.uncovered().unwrap_err().field, "line 3: --hold");
    }
}
