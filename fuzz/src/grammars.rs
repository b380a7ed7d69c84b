//! The small texts people write: what a grammar accepts, it prints so that it
//! reads back the same, and what it refuses, it refuses in few words.

use crate::door::refused;
use agent::core::key::Key;
use agent::staging::glob::name_matches;
use proto::ids::{JobId, NodeName, PoolName, TenantName};
use proto::{array, jobfile, keys, tree, units, validate};

/// Arrays, spans of time, memory, cores, ids, names, constraints, globs.
pub fn grammars(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    arrays(text);
    quantities(text);
    names(text);
    paths(text);
    trees(text);
}

/// Manifests of directories: there is one way to write each.
fn trees(text: &str) {
    for manifest in [text.to_owned(), format!("{}{text}", tree::HEAD)] {
        match tree::Tree::parse(manifest.as_bytes()) {
            Ok(tree) => assert_eq!(tree.manifest(), manifest),
            Err(problem) => refused(&problem),
        }
    }
}

fn arrays(text: &str) {
    let array = match array::parse(text) {
        Ok(array) => array,
        Err(problem) => return refused(&problem),
    };
    let printed = array::format(&array);
    assert_eq!(array::parse(&printed).as_ref(), Ok(&array), "{text} -> {printed}");
    let count = array::count(&array);
    assert!(count > 0, "{text} has no task");
    for ordinal in [0, count / 2, count - 1] {
        let index = array::index_of(&array, ordinal).expect("every ordinal below the count has an index");
        assert_eq!(array::ordinal_of(&array, index), Some(ordinal), "{text}");
    }
    assert_eq!(array::index_of(&array, count), None, "{text}");
}

fn quantities(text: &str) {
    if let Ok(span_ms) = units::parse_duration_ms(text) {
        let printed = units::format_duration_ms(span_ms);
        assert_eq!(units::parse_duration_ms(&printed).ok(), Some(span_ms), "{text} -> {printed}");
        assert!(units::brief_duration_ms(span_ms).len() <= 24);
    }
    if let Ok(bytes) = units::parse_memory_bytes(text) {
        let printed = units::format_memory_bytes(bytes);
        assert_eq!(units::parse_memory_bytes(&printed).ok(), Some(bytes), "{text} -> {printed}");
        assert!(units::brief_memory_bytes(bytes).len() <= 24);
    }
    if let Ok(millicores) = units::parse_millicores(text) {
        let printed = units::format_millicores(millicores.into());
        assert_eq!(units::parse_millicores(&printed).ok(), Some(millicores), "{text} -> {printed}");
    }
}

fn names(text: &str) {
    for default in ["", "lab"] {
        match JobId::parse(text, default) {
            Ok(id) => assert_eq!(JobId::parse(&id.to_string(), default), Ok(id), "{text}"),
            Err(problem) => refused(&problem),
        }
    }
    // A name that was taken is a part of a key, and of a path.
    if let Ok(tenant) = TenantName::parse(text) {
        let key = keys::job(tenant.as_str(), 7);
        let expected = keys::Parsed::Job { tenant: tenant.into_string(), number: 7 };
        assert_eq!(keys::parse(&key), Some(expected));
    }
    if let Ok(node) = NodeName::parse(text) {
        let key = keys::node(node.as_str());
        assert_eq!(keys::parse(&key), Some(keys::Parsed::Node { node: node.into_string() }));
    }
    if let Err(problem) = PoolName::parse(text) {
        refused(&problem);
    }
    if let Some(key) = Key::from_process_key(text) {
        assert_eq!(key.process_key(), text);
    }
    if let Some(key) = Key::from_file_stem(text) {
        assert_eq!(key.file_stem(), text);
    }
    match jobfile::parse_constraint("constraints[0]", text) {
        Ok(constraint) => {
            let equals = if constraint.negated { "!=" } else { "=" };
            let printed = format!("{}{equals}{}", constraint.label, constraint.value);
            assert_eq!(jobfile::parse_constraint("", &printed).ok(), Some(constraint), "{text}");
        }
        Err(problem) => refused(&problem),
    }
}

fn paths(text: &str) {
    for checked in [validate::check_relative("path", text), validate::check_glob("outputs[0]", text)] {
        if let Err(problem) = checked {
            refused(&problem);
        }
    }
    if validate::check_relative("path", text).is_ok() {
        let inside = std::path::Path::new("/w").join(text);
        let out = inside.components().any(|part| part == std::path::Component::ParentDir);
        assert!(inside.starts_with("/w") && !out, "{text} leaves its directory");
    }
    // Pattern and name, parted by a space.
    if let Some((pattern, name)) = text.split_once(' ') {
        let matched = name_matches(pattern, name);
        if !pattern.contains(['*', '?', '[', '\\']) {
            assert_eq!(matched, pattern == name, "{pattern} against {name}");
        }
    }
}
