//! What headers say of a part of an object (RFC 9110, sections 13 and 14): which
//! bytes are wanted, whether those at hand are still the same.
//!
//! An object never changes, since its digest is its name: so every entity tag is
//! a strong one, and what does not fit means another object.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use std::ops::Range;

/// What a download is to be answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    /// These bytes of it.
    Part(Range<u64>),
    /// What was asked for lies behind its end.
    Nothing,
    /// The caller has it already.
    Same,
}

/// The entity tag of an object.
pub(crate) fn tag(digest: &str) -> String {
    format!("\"{digest}\"")
}

/// The one text of a header; none where there are several or it is no text.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// What a `GET` of an object of `len` bytes asks for. A range that cannot be read,
/// or several, are as if they were not there: then all of it comes.
pub(crate) fn wanted(headers: &HeaderMap, digest: &str, len: u64) -> Wanted {
    if has_it(headers, digest) {
        return Wanted::Same;
    }
    let still_it = text(headers, &header::IF_RANGE)
        .map_or(!headers.contains_key(header::IF_RANGE), |of| of == tag(digest));
    match text(headers, &header::RANGE).and_then(range) {
        Some(asked) if still_it => asked.within(len).map_or(Wanted::Nothing, Wanted::Part),
        _ => Wanted::Whole,
    }
}

/// The same of something that may still grow and so has no entity tag: whoever asks on
/// a condition has it not met.
#[must_use]
pub fn wanted_untagged(headers: &HeaderMap, len: u64) -> Wanted {
    match text(headers, &header::RANGE).and_then(range) {
        Some(asked) if !headers.contains_key(header::IF_RANGE) => {
            asked.within(len).map_or(Wanted::Nothing, Wanted::Part)
        }
        _ => Wanted::Whole,
    }
}

/// Whether `If-None-Match` names the object.
pub(crate) fn has_it(headers: &HeaderMap, digest: &str) -> bool {
    let tag = tag(digest);
    let named = |value: &HeaderValue| {
        value.to_str().is_ok_and(|tags| {
            tags.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
        })
    };
    headers.get_all(header::IF_NONE_MATCH).iter().any(named)
}

/// A range as asked for: the length is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// From here, up to and with there or to the end.
    From(u64, Option<u64>),
    /// So many at the end.
    Last(u64),
}

impl Asked {
    /// The bytes meant, where there are any.
    fn within(self, len: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(from, last) => from..last.map_or(len, |last| last.saturating_add(1).min(len)),
            Self::Last(count) => len.saturating_sub(count)..len,
        };
        if range.is_empty() { None } else { Some(range) }
    }
}

fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Reads `bytes=3-7`, `bytes=3-` or `bytes=-5`.
fn range(text: &str) -> Option<Asked> {
    let (unit, range) = text.split_once('=')?;
    let (from, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    match (from, last) {
        ("", count) => Some(Asked::Last(number(count)?)),
        (from, "") => Some(Asked::From(number(from)?, None)),
        (from, last) => {
            let (from, last) = (number(from)?, number(last)?);
            if from <= last { Some(Asked::From(from, Some(last))) } else { None }
        }
    }
}

/// What `Content-Range` tells of bytes that come along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// The first of them, and the first behind them; none come where it is a question,
    /// or a refusal (`bytes */9`).
    pub span: Option<(u64, u64)>,
    /// Of the whole.
    pub total: u64,
}

/// Reads `bytes 3-7/9` or `bytes */9`.
pub(crate) fn told(text: &str) -> Option<Told> {
    let (span, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let total = number(total)?;
    if span == "*" {
        return Some(Told { span: None, total });
    }
    let (from, last) = span.split_once('-')?;
    let (from, last) = (number(from)?, number(last)?);
    if from <= last && last < total { Some(Told { span: Some((from, last + 1)), total }) } else { None }
}

/// How many bytes from the beginning `bytes=0-4` names; none where it does not begin there.
pub(crate) fn so_far(headers: &HeaderMap) -> Option<u64> {
    match headers.get(header::RANGE) {
        None => Some(0),
        Some(value) => match range(value.to_str().ok()?)? {
            Asked::From(0, Some(last)) => last.checked_add(1),
            _ => None,
        },
    }
}

/// `bytes 3-7/9` for what lies in 3..8 of 9.
pub(crate) fn content_range(range: &Range<u64>, total: u64) -> String {
    format!("bytes {}-{}/{total}", range.start, range.end - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn asks(range: &str, len: u64) -> Wanted {
        wanted(&headers(&[(header::RANGE, range)]), "d", len)
    }

    #[test]
    fn one_range_is_cut_to_what_there_is() {
        for (range, span) in [
            ("bytes=0-0", 0..1),
            ("bytes=3-7", 3..8),
            ("bytes=3-", 3..10),
            ("bytes=3-99999999999", 3..10),
            ("bytes=9-18446744073709551615", 9..10),
            ("bytes=-3", 7..10),
            ("bytes=-99", 0..10),
            ("BYTES= 1-2 ", 1..3),
        ] {
            assert_eq!(asks(range, 10), Wanted::Part(span), "{range}");
        }
    }

    #[test]
    fn what_lies_behind_the_end_is_told_and_what_is_no_range_is_not_heeded() {
        for range in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99999999999-"] {
            assert_eq!(asks(range, 10), Wanted::Nothing, "{range}");
        }
        assert_eq!(asks("bytes=0-", 0), Wanted::Nothing);
        assert_eq!(asks("bytes=-5", 0), Wanted::Nothing);
        for range in
            ["", "bytes", "bytes=", "bytes=-", "bytes=5-3", "bytes=a-b", "bytes=1-2,4-5", "lines=1-2"]
                .into_iter()
                .chain(["bytes=+1-2", "bytes=1-18446744073709551616"])
        {
            assert_eq!(asks(range, 10), Wanted::Whole, "{range}");
        }
        let mut twice = headers(&[(header::RANGE, "bytes=0-1")]);
        twice.append(header::RANGE, HeaderValue::from_static("bytes=4-5"));
        assert_eq!(wanted(&twice, "d", 10), Wanted::Whole);
    }

    #[test]
    fn a_part_comes_only_of_what_the_caller_has_the_rest_of() {
        let ask =
            |of: &str| wanted(&headers(&[(header::RANGE, "bytes=4-"), (header::IF_RANGE, of)]), "d", 10);
        assert_eq!(ask("\"d\""), Wanted::Part(4..10));
        for other in ["\"e\"", "W/\"d\"", "d", "Sun, 06 Nov 1994 08:49:37 GMT", ""] {
            assert_eq!(ask(other), Wanted::Whole, "{other}");
        }
    }

    #[test]
    fn what_may_grow_has_parts_and_no_conditions() {
        let asks = |pairs: &[(HeaderName, &str)]| wanted_untagged(&headers(pairs), 10);
        assert_eq!(asks(&[(header::RANGE, "bytes=4-")]), Wanted::Part(4..10));
        assert_eq!(asks(&[(header::RANGE, "bytes=10-")]), Wanted::Nothing);
        assert_eq!(asks(&[(header::RANGE, "bytes=4-"), (header::IF_RANGE, "\"d\"")]), Wanted::Whole);
        assert_eq!(asks(&[]), Wanted::Whole);
    }

    #[test]
    fn who_has_it_is_told_so_before_any_range() {
        for tags in ["\"d\"", "W/\"d\"", "\"a\", \"d\"", "*"] {
            let asked = headers(&[(header::IF_NONE_MATCH, tags), (header::RANGE, "bytes=99-")]);
            assert_eq!(wanted(&asked, "d", 10), Wanted::Same, "{tags}");
        }
        for tags in ["\"e\"", "d", ""] {
            assert_eq!(wanted(&headers(&[(header::IF_NONE_MATCH, tags)]), "d", 10), Wanted::Whole, "{tags}");
        }
    }

    #[test]
    fn what_is_there_of_an_upload_is_read() {
        assert_eq!(so_far(&headers(&[])), Some(0));
        assert_eq!(so_far(&headers(&[(header::RANGE, "bytes=0-4")])), Some(5));
        for other in ["bytes=1-4", "bytes=0-", "bytes=-4", "bytes=0-18446744073709551615", "0-4"] {
            assert_eq!(so_far(&headers(&[(header::RANGE, other)])), None, "{other}");
        }
    }

    #[test]
    fn what_is_told_of_bytes_is_read_back() {
        assert_eq!(told(&content_range(&(3..8), 9)), Some(Told { span: Some((3, 8)), total: 9 }));
        assert_eq!(told("bytes */9"), Some(Told { span: None, total: 9 }));
        for nonsense in ["", "bytes", "bytes 3-9/9", "bytes 5-3/9", "bytes 3-7/*", "bytes -7/9", "3-7/9"]
            .into_iter()
            .chain(["bytes 0--1/0", "bytes 0-18446744073709551615/18446744073709551615"])
        {
            assert_eq!(told(nonsense), None, "{nonsense}");
        }
    }
}
