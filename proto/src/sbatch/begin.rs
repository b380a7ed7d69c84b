//! When a job may begin: `--begin` as a span from now, a time of the day or a
//! date.
//!
//! What has no zone is in the submitter's own, which comes with what "now" is:
//! nothing here looks at a clock or at a machine's settings. A time that a change
//! of the clocks leaves out is the one after it; of one that comes twice the first
//! counts.

use super::values::{Slip, digits};
use jiff::civil::{Date, DateTime, Time};
use jiff::{ToSpan as _, Zoned};

const BEGIN: &str = "write it like now+1hour, 16:00, tomorrow or 2026-12-01T08:00";
const UNIT: &str = "write it like now+90 (seconds), now+30minutes, now+1hour or now+2days";
const NOT_READ: Slip = ("is neither a span from now, nor a time of the day, nor a date", BEGIN);
const NO_TIME: Slip = ("has a time that no clock shows", BEGIN);
const NO_DAY: Slip = ("has a day that no calendar has", BEGIN);
const FAR: Slip = ("is too far away", BEGIN);

/// An instant, milliseconds since 1970; `None`: a day or a time that is past, and
/// no next one was meant.
pub fn begin_ms(text: &str, now: &Zoned) -> Result<Option<u64>, Slip> {
    let lower = text.trim().to_ascii_lowercase();
    let now_ms = u64::try_from(now.timestamp().as_millisecond()).map_err(|_| FAR)?;
    if let Some(rest) = lower.strip_prefix("now") {
        return now_ms.checked_add(span_ms(rest.trim())?).map(Some).ok_or(FAR);
    }
    let meant = Meant::read(&lower)?;
    let at = meant.next(now)?.to_zoned(now.time_zone().clone()).map_err(|_| FAR)?;
    let at_ms = u64::try_from(at.timestamp().as_millisecond()).unwrap_or(0);
    Ok((at_ms > now_ms).then_some(at_ms))
}

/// What stands behind `now`.
fn span_ms(rest: &str) -> Result<u64, Slip> {
    const NO_SPAN: Slip = ("is not a span from now", UNIT);
    if rest.is_empty() {
        return Ok(0);
    }
    let rest = rest.strip_prefix('+').ok_or(NO_SPAN)?.trim();
    let split = rest.bytes().take_while(u8::is_ascii_digit).count();
    let number = digits(&rest[..split]).ok_or(NO_SPAN)?;
    let each_ms = match rest[split..].trim() {
        "" | "second" | "seconds" => 1000,
        "minute" | "minutes" => 60_000,
        "hour" | "hours" => 3_600_000,
        "day" | "days" => 86_400_000,
        "week" | "weeks" => 7 * 86_400_000,
        _ => return Err(("has a unit that is none of seconds, minutes, hours, days, weeks", UNIT)),
    };
    number.checked_mul(each_ms).ok_or(FAR)
}

/// A day as it was written.
#[derive(Clone, Copy, Debug)]
enum Day {
    Today,
    Tomorrow,
    /// Year, month, day of the month.
    Of(i16, i8, i8),
    /// Month and day: the next such.
    Next(i8, i8),
}

#[derive(Debug, Default)]
struct Meant {
    day: Option<Day>,
    time: Option<Time>,
}

impl Meant {
    /// Words in lower case: a day and a time, in either order.
    fn read(text: &str) -> Result<Self, Slip> {
        let mut meant = Self::default();
        let mut words = text.split_whitespace().flat_map(parts).peekable();
        while let Some(word) = words.next() {
            let afternoon = words.next_if(|next| matches!(*next, "am" | "pm"));
            match (time(word, afternoon)?, afternoon) {
                (Some(time), _) if meant.time.is_none() => meant.time = Some(time),
                (None, None) if meant.day.is_none() => meant.day = Some(day(word)?),
                _ => return Err(NOT_READ),
            }
        }
        if meant.day.is_none() && meant.time.is_none() { Err(NOT_READ) } else { Ok(meant) }
    }

    fn next(&self, now: &Zoned) -> Result<DateTime, Slip> {
        let (local, time) = (now.datetime(), self.time.unwrap_or(Time::midnight()));
        let date = |year, month, day| Date::new(year, month, day).map_err(|_| NO_DAY);
        let tomorrow = || local.date().checked_add(1.day()).map_err(|_| FAR);
        let day = match self.day {
            Some(Day::Today) => local.date(),
            Some(Day::Tomorrow) => tomorrow()?,
            Some(Day::Of(year, month, day)) => date(year, month, day)?,
            Some(Day::Next(month, day)) => match date(local.year(), month, day) {
                Ok(this) if this.to_datetime(time) > local => this,
                // The 29th of February is not in each year.
                _ => (1..=8).find_map(|years| date(local.year() + years, month, day).ok()).ok_or(NO_DAY)?,
            },
            None if local.date().to_datetime(time) > local => local.date(),
            None => tomorrow()?,
        };
        Ok(day.to_datetime(time))
    }
}

/// `2026-12-01t08:00` is two words, and so is `4:00pm`.
fn parts(word: &str) -> impl Iterator<Item = &str> {
    let behind = ["am", "pm"].iter().find_map(|half| word.strip_suffix(half)).map_or(word.len(), str::len);
    let (word, half) = word.split_at(behind);
    let bytes = word.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let joint = (1..bytes.len()).find(|at| bytes[*at] == b't' && digit(at - 1) && digit(at + 1));
    let (first, rest) = joint.map_or((word, ""), |at| (&word[..at], &word[at + 1..]));
    [first, rest, half].into_iter().filter(|part| !part.is_empty())
}

/// A time of the day, if the word is one.
fn time(word: &str, half: Option<&str>) -> Result<Option<Time>, Slip> {
    let (hour, minute, second) = match word {
        "midnight" => (0, 0, 0),
        "noon" => (12, 0, 0),
        "fika" => (15, 0, 0),
        "teatime" => (16, 0, 0),
        _ if word.contains(':') => {
            let numbers: Option<Vec<i8>> = word.split(':').map(two_digits).collect();
            match numbers.as_deref() {
                Some([hour, minute]) => (*hour, *minute, 0),
                Some([hour, minute, second]) => (*hour, *minute, *second),
                _ => return Err(NO_TIME),
            }
        }
        _ => return Ok(None),
    };
    let hour = match half {
        None => hour,
        Some(_) if !word.contains(':') || !(1..=12).contains(&hour) => return Err(NO_TIME),
        Some("am") => hour % 12,
        Some(_) => hour % 12 + 12,
    };
    Time::new(hour, minute, second, 0).map(Some).map_err(|_| NO_TIME)
}

fn day(word: &str) -> Result<Day, Slip> {
    let number = |text: &str| two_digits(text).ok_or(NOT_READ);
    // Of a year's two digits this century is meant.
    let year = |text: &str| match text.len() {
        4 => digits(text).and_then(|year| i16::try_from(year).ok()).ok_or(NOT_READ),
        _ => Ok(2000 + i16::from(number(text)?)),
    };
    let dashed: Vec<&str> = word.split('-').collect();
    let slashed: Vec<&str> = word.split('/').collect();
    match (word, dashed.as_slice(), slashed.as_slice()) {
        ("today", ..) => Ok(Day::Today),
        ("tomorrow", ..) => Ok(Day::Tomorrow),
        (_, [of, month, day], _) if of.len() == 4 => Ok(Day::Of(year(of)?, number(month)?, number(day)?)),
        (_, _, [month, day]) => Ok(Day::Next(number(month)?, number(day)?)),
        (_, _, [month, day, of]) => Ok(Day::Of(year(of)?, number(month)?, number(day)?)),
        (all, ..) if all.len() == 6 && digits(all).is_some() => {
            Ok(Day::Of(year(&all[4..])?, number(&all[..2])?, number(&all[2..4])?))
        }
        _ => Err(NOT_READ),
    }
}

fn two_digits(text: &str) -> Option<i8> {
    digits(text).filter(|_| text.len() <= 2).and_then(|number| i8::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    /// Friday, half past ten, where clocks change at the end of the month.
    fn now() -> Zoned {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        jiff::civil::date(2026, 3, 6).at(10, 30, 15, 0).to_zoned(zone).unwrap()
    }

    fn shown(text: &str) -> String {
        match begin_ms(text, &now()) {
            Err((reason, _)) => reason.to_owned(),
            Ok(None) => "past".to_owned(),
            Ok(Some(at_ms)) => {
                let at = jiff::Timestamp::from_millisecond(i64::try_from(at_ms).unwrap()).unwrap();
                at.to_zoned(now().time_zone().clone()).strftime("%F %T %:z").to_string()
            }
        }
    }

    #[test]
    fn spans_times_and_dates_are_instants() {
        for (text, at) in [
            ("now", "2026-03-06 10:30:15 +01:00"),
            ("NOW+90", "2026-03-06 10:31:45 +01:00"),
            ("now + 1hour", "2026-03-06 11:30:15 +01:00"),
            ("now+2weeks", "2026-03-20 10:30:15 +01:00"),
            // A span is hours, whatever the clocks on the wall do meanwhile.
            ("now+30days", "2026-04-05 11:30:15 +02:00"),
            ("16:00", "2026-03-06 16:00:00 +01:00"),
            ("10:30", "2026-03-07 10:30:00 +01:00"),
            ("8:05:30", "2026-03-07 08:05:30 +01:00"),
            ("4:00PM", "2026-03-06 16:00:00 +01:00"),
            ("12:15 am", "2026-03-07 00:15:00 +01:00"),
            ("12:15pm", "2026-03-06 12:15:00 +01:00"),
            ("noon", "2026-03-06 12:00:00 +01:00"),
            ("fika", "2026-03-06 15:00:00 +01:00"),
            ("teatime tomorrow", "2026-03-07 16:00:00 +01:00"),
            ("midnight", "2026-03-07 00:00:00 +01:00"),
            ("tomorrow", "2026-03-07 00:00:00 +01:00"),
            ("today 18:00", "2026-03-06 18:00:00 +01:00"),
            ("2026-12-01T08:00", "2026-12-01 08:00:00 +01:00"),
            ("2026-12-01T08:00:30", "2026-12-01 08:00:30 +01:00"),
            ("2026-04-01 8:00pm", "2026-04-01 20:00:00 +02:00"),
            ("2026-04-01T8:00PM", "2026-04-01 20:00:00 +02:00"),
            ("2026-12-01", "2026-12-01 00:00:00 +01:00"),
            ("12/01/26", "2026-12-01 00:00:00 +01:00"),
            ("12/01/2026 07:00", "2026-12-01 07:00:00 +01:00"),
            ("120126", "2026-12-01 00:00:00 +01:00"),
            ("12/01", "2026-12-01 00:00:00 +01:00"),
            // The next that comes.
            ("03/06", "2027-03-06 00:00:00 +01:00"),
            ("03/06 11:00", "2026-03-06 11:00:00 +01:00"),
            ("02/29", "2028-02-29 00:00:00 +01:00"),
            // There is no half past two on that day, and two of them on that one.
            ("2026-03-29T02:30", "2026-03-29 03:30:00 +02:00"),
            ("2026-10-25T02:30", "2026-10-25 02:30:00 +02:00"),
            ("2020-01-01", "past"),
            ("today", "past"),
            ("today 9:00", "past"),
            ("1969-01-01", "past"),
        ] {
            assert_eq!(shown(text), at, "{text}");
        }
    }

    #[test]
    fn what_is_no_instant_is_told_why() {
        for (text, reason) in [
            ("", NOT_READ.0),
            ("soon", NOT_READ.0),
            ("16", NOT_READ.0),
            ("pm", NOT_READ.0),
            ("16:00 17:00", NOT_READ.0),
            ("today tomorrow", NOT_READ.0),
            ("tomorrow pm", NOT_READ.0),
            ("2026-12", NOT_READ.0),
            ("2026/12/01", NOT_READ.0),
            ("26-12-01", NOT_READ.0),
            ("2026-12-01T", NOT_READ.0),
            ("1/2/3/4", NOT_READ.0),
            ("24:00", NO_TIME.0),
            ("16:60", NO_TIME.0),
            ("16:", NO_TIME.0),
            ("1:2:3:4", NO_TIME.0),
            ("13:00 pm", NO_TIME.0),
            ("noon pm", NO_TIME.0),
            ("2026-02-29", NO_DAY.0),
            ("13/01", NO_DAY.0),
            ("02/30 12:00", NO_DAY.0),
            ("now+", "is not a span from now"),
            ("now-1hour", "is not a span from now"),
            ("nowadays", "is not a span from now"),
            ("now+1year", "has a unit that is none of seconds, minutes, hours, days, weeks"),
            ("now+99999999999999999weeks", FAR.0),
        ] {
            assert_eq!(shown(text), reason, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,20}", like in "[0-9:/tTapm -]{0,20}") {
            for text in [text, like] {
                if let Ok(Some(at_ms)) = begin_ms(&text, &now()) {
                    prop_assert!(at_ms >= u64::try_from(now().timestamp().as_millisecond()).unwrap());
                }
            }
        }
    }
}
