//! What small sources look like with mutants in them.

use super::*;

fn mutant(number: u32, genre: &str, at: (usize, usize), replacement: &str) -> Mutant {
    Mutant {
        number,
        package: String::new(),
        file: String::new(),
        name: String::new(),
        genre: genre.to_owned(),
        line: at.0,
        column: at.1,
        replacement: replacement.to_owned(),
    }
}

/// Weaves mutants of a line, told by what they begin at: genre, text and its
/// replacement. The switch is written shorter.
fn woven(text: &str, mutants: &[(&str, &str, &str)]) -> String {
    let place = |from: &str| {
        let at = text.find(from).unwrap();
        let line = text[..at].lines().count().max(1);
        (line, at - text[..at].rfind('\n').map_or(0, |end| end + 1) + 1)
    };
    let mutants: Vec<Mutant> = mutants
        .iter()
        .zip(1..)
        .map(|((genre, from, replacement), number)| mutant(number, genre, place(from), replacement))
        .collect();
    let woven = weave(text, &mutants.iter().collect::<Vec<_>>()).unwrap();
    for (mutant, at) in &woven.at {
        assert!(woven.text[at.clone()].contains(&format!("::world::mutant({mutant})")));
    }
    syn::parse_file(&woven.text).unwrap();
    let text = woven.text.replace("::world::mutant", "m");
    if woven.left_out.is_empty() { text } else { format!("{text} without {:?}", woven.left_out) }
}

#[test]
fn a_function_returns_something_else() {
    let mutants = [("FnValue", "1 }", "0"), ("FnValue", "1 }", "7")];
    assert_eq!(
        woven("fn f() -> u8 { 1 }", &mutants),
        "fn f() -> u8 { if m(1) { return 0; } if m(2) { return 7; } 1 }"
    );
}

#[test]
fn operators_are_others_and_the_mutants_within_them_sleep_there() {
    let mutants = [("BinaryOperator", "<", "=="), ("BinaryOperator", "<", ">"), ("BinaryOperator", "+", "-")];
    assert_eq!(
        woven("fn f() -> bool { a + b < c }", &mutants),
        "fn f() -> bool { (if m(1) { (a + b) == (c) } else if m(2) { (a + b) > (c) } else { \
         (if m(3) { (a) - (b) } else { a + b }) < c }) }"
    );
    assert_eq!(
        woven("fn f() {\n    a += b;\n}", &[("BinaryOperator", "+=", "-=")]),
        "fn f() {\n    (if m(1) { (a) -= (b) } else { a += b });\n}"
    );
    let mutants = [("BinaryOperator", "&& b", "||"), ("UnaryOperator", "!", "")];
    assert_eq!(
        woven("fn f() -> bool { !a && b }", &mutants),
        "fn f() -> bool { (if m(1) { (! a) || (b) } else { (if m(2) { a } else { !a }) && b }) }"
    );
}

#[test]
fn arms_are_gone_and_guards_are_always_or_never_met() {
    assert_eq!(
        woven("fn f() { match a { 1 => b(), _ => {} } }", &[("MatchArm", "1 =>", "")]),
        "fn f() { match a { 1 if !m(1) => b(), _ => {} } }"
    );
    let mutants = [
        ("MatchArm", "1 if", ""),
        ("MatchArmGuard", "c == d", "true"),
        ("MatchArmGuard", "c == d", "false"),
        ("BinaryOperator", "== d", "!="),
    ];
    assert_eq!(
        woven("fn f() { match a { 1 if c == d => b(), _ => {} } }", &mutants),
        "fn f() { match a { 1 if !m(1) && ((if m(2) { true } else if m(3) { false } else { \
         (if m(4) { (c) != (d) } else { c == d }) })) => b(), _ => {} } }"
    );
}

#[test]
fn a_field_is_as_in_the_rest() {
    let mutants = [("StructField", "a: 1", ""), ("StructField", "b", "")];
    assert_eq!(
        woven("fn f() -> S { S { a: 1, b, ..c } }", &mutants),
        "fn f() -> S { (if m(1) { S { b , .. c } } else if m(2) { S { a : 1 , .. c } } else { \
         S { a: 1, b, ..c } }) }"
    );
}

#[test]
fn what_cannot_be_woven_is_told() {
    let one = |text, from| woven(text, &[("BinaryOperator", from, "-")]);
    for (text, from) in [
        ("const A: u8 = 1 + 2;", "+"),
        ("static A: u8 = 1 + 2;", "+"),
        ("const fn f() -> u8 { 1 + 2 }", "+"),
        ("fn f() { let a = [0; 1 + 2]; }", "+"),
        ("fn f() { let a: [u8; 1 + 2] = b; }", "+"),
        ("fn f() { if let Some(a) = b && c && d {} }", "&& d"),
        ("fn f() { if a && let Some(b) = c {} }", "&&"),
        ("fn f() { m!(1 + 2); }", "+"),
    ] {
        assert_eq!(one(text, from), format!("{text} without [1]"));
    }
    let text = "fn f() -> impl Fn() { g }";
    assert_eq!(woven(text, &[("FnValue", "g", "h")]), format!("{text} without [1]"));
    let all = [("MatchArm", "A =>", "")];
    let text = "fn f() { match a { _ if b => {} A => {} B => {} } }";
    assert_eq!(woven(text, &all), format!("{text} without [1]"));
    let within = one("fn f() { if let Some(a) = b && c + d == a {} }", "+");
    assert_eq!(within, "fn f() { if let Some(a) = b && (if m(1) { (c) - (d) } else { c + d }) == a {} }");
}
