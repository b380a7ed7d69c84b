//! No job file makes the parser or the validation panic, and what passes both
//! is worth submitting: it has tasks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    if let Ok(mut spec) = proto::jobfile::parse(text, Path::new("")) {
        proto::validate::normalize(&mut spec);
        if proto::validate::spec(&spec).is_ok() {
            assert!(proto::estimate::tasks(&spec) > 0);
        }
    }
});
