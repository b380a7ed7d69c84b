//! The top of a batch script: its interpreter and its `#SBATCH` lines.
//!
//! Directives end at the first line that is neither blank nor a comment; what
//! comes later is pointed at, since it does nothing. A line is split as a shell
//! would split it, without expansions, up to a comment.

use super::{
    options::{self, Given, Source},
    refuse,
};
use crate::{limits::WORD_BYTES_MAX, problem::Problem};

/// What a script's text says of itself.
#[derive(Debug, Default)]
pub struct Script {
    /// In the order written.
    pub given: Vec<Given>,
    /// A line each.
    pub warnings: Vec<String>,
}

/// Reads the directives of a script. `name` is what a refusal calls it.
pub fn read(name: &str, text: &str) -> Result<Script, Problem> {
    check(name, text)?;
    let mut script = Script::default();
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    for (number, line) in lines.by_ref() {
        let trimmed = line.trim_start();
        if !(trimmed.is_empty() || trimmed.starts_with('#')) {
            break;
        }
        if let Some(directive) = directive(line) {
            one(number, directive, &mut script)?;
        }
    }
    // The line that ended the loop begins the commands.
    let late: Vec<String> =
        lines.filter(|(_, line)| directive(line).is_some()).map(|(number, _)| number.to_string()).collect();
    if !late.is_empty() {
        let lines = if late.len() == 1 { "line" } else { "lines" };
        script.warnings.push(format!(
            "{lines} {}: #SBATCH after the first command says nothing; move it to the top",
            some(&late)
        ));
    }
    Ok(script)
}

/// The first few of many.
pub(super) fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

/// What follows `#SBATCH` in a line that begins so.
fn directive(line: &str) -> Option<&str> {
    line.strip_prefix("#SBATCH").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
}

fn one(number: usize, text: &str, script: &mut Script) -> Result<(), Problem> {
    let words = split(text).map_err(|reason| {
        refuse(&format!("line {number}: #SBATCH"), text.trim(), reason, "correct this line")
    })?;
    let line = options::read(&words, Source::Script(number))?;
    script.given.extend(line.given);
    for name in line.unknown {
        script.warnings.push(format!("line {number}: {name} is no option of sbatch that is known here"));
    }
    if let Some(word) = line.rest.first() {
        script
            .warnings
            .push(format!("line {number}: `{word}` is no option; the rest of the line is not read"));
    }
    Ok(())
}

fn check(name: &str, text: &str) -> Result<(), Problem> {
    let wrong = |reason: &str, remedy: &str| Err(refuse("script", name, reason, remedy));
    if text.len() > WORD_BYTES_MAX {
        let reason = format!("has {} bytes; a script may have {WORD_BYTES_MAX}", text.len());
        return wrong(&reason, "keep data in files of its own");
    }
    if text.trim().is_empty() {
        return wrong("is empty", "give a script that begins with #!");
    }
    if text.contains('\0') {
        return wrong("holds a zero byte", "is it a program? start it by --wrap");
    }
    if !text.starts_with("#!") {
        return wrong("does not begin with #!", "name its interpreter in the first line: #!/bin/bash");
    }
    if text.lines().next().is_some_and(|line| line[2..].trim().is_empty()) {
        return wrong("names no interpreter behind #!", "name one: #!/bin/bash");
    }
    // `lines` would swallow them, and the interpreter's name would end in one.
    if text.split('\n').any(|line| line.ends_with('\r')) {
        return wrong("has the line ends of DOS", "convert it: sed -i 's/\\r$//' SCRIPT");
    }
    Ok(())
}

/// Splits a line into words: blanks part them, quotes and backslashes keep
/// them together, `#` at a word's start begins a comment.
pub fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '#' if word.is_none() => break,
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err("a quote is not closed"),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => word.push(chars.next().ok_or("ends in a backslash")?),
                        Some(other) => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next().ok_or("ends in a backslash")?),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Programs of Slurm that a script calls and a node may not have. Only looked
/// for, never run: a name inside a text may be taken for a call.
pub(super) fn calls(text: &str) -> Vec<&'static str> {
    const PROGRAMS: [&str; 8] =
        ["srun", "scontrol", "sacct", "sbcast", "sstat", "salloc", "sattach", "sbatch"];
    let parts = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '`' | ';' | '|' | '&' | '"' | '\'');
    let words: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split(parts))
        .collect();
    PROGRAMS.into_iter().filter(|program| words.contains(program)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        let script = read("job.sh", text).unwrap();
        let given: Vec<String> =
            script.given.iter().map(|given| format!("{}={}", given.field(), given.value)).collect();
        [given, script.warnings].concat().join("\n")
    }

    #[test]
    fn directives_stand_at_the_top_alone() {
        let text = "#!/bin/bash\n# words\n#SBATCH -n 2 --time=10 # ten minutes\n\n#SBATCH\n##SBATCH -n 8\n\
                    #sbatch -n 9\n # SBATCH\n#SBATCHY -n 7\n#SBATCH -J 'two words' -o a\\ b\necho hi\n#SBATCH -n 5\n";
        assert_eq!(
            shown(text),
            "line 3: --ntasks=2\nline 3: --time=10\nline 10: --job-name=two words\nline 10: --output=a b\n\
             line 12: #SBATCH after the first command says nothing; move it to the top"
        );
    }

    #[test]
    fn what_says_nothing_is_pointed_at() {
        assert_eq!(
            shown("#!/bin/sh\n#SBATCH --site-mode fast -n 2 extra -c 4\n"),
            "line 2: --ntasks=2\nline 2: --site-mode is no option of sbatch that is known here\n\
             line 2: `extra` is no option; the rest of the line is not read"
        );
    }

    #[test]
    fn what_is_no_script_is_refused() {
        for (text, reason) in [
            ("", "is empty"),
            ("echo hi\n", "does not begin with #!"),
            ("#!  \necho hi\n", "names no interpreter behind #!"),
            ("#!/bin/sh\r\necho hi\r\n", "has the line ends of DOS"),
            ("#!/bin/sh\necho \0\n", "holds a zero byte"),
            ("#!/bin/sh\n#SBATCH -J 'open\n", "a quote is not closed"),
            ("#!/bin/sh\n#SBATCH -J open\\", "ends in a backslash"),
        ] {
            assert_eq!(read("job.sh", text).unwrap_err().reason, reason);
        }
        assert!(read("job.sh", &format!("#!/bin/sh\n{}", "x".repeat(WORD_BYTES_MAX))).is_err());
    }

    #[test]
    fn calls_of_slurms_programs_are_seen() {
        let text =
            "#!/bin/sh\n# srun in a comment\nH=$(scontrol show hostnames $SLURM_JOB_NODELIST)\nsrunner x\n";
        assert_eq!(calls(text), ["scontrol"]);
        assert_eq!(calls("time srun ./app | tee log"), ["srun"]);
    }

    proptest! {
        #[test]
        fn quoting_brings_any_word_back(words in prop::collection::vec("[^\0\n]{0,12}", 0..4)) {
            let quoted: Vec<String> =
                words.iter().map(|word| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))).collect();
            prop_assert_eq!(split(&quoted.join(" ")).unwrap(), words);
        }
    }
}
