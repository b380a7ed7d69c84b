//! Trace files: what is written is read back, from any instant; what was cut off
//! or altered is refused, and never read as something else.

use proptest::prelude::*;
use proto::trace::{Head, Kind, MAGIC, Reader, Record, TraceError, VERSION, Writer};
use std::io::{Cursor, Read, Seek, SeekFrom};

fn head() -> Head {
    Head {
        seed: 42,
        scenario: "chaos".into(),
        commit: "0123abcd".into(),
        lock_sha256: "ff".repeat(32),
        toolchain: "rustc 1.95.0".into(),
        again: "cargo chaos run --seed 42".into(),
    }
}

fn written(records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), &head()).unwrap();
    for record in records {
        writer.record(record).unwrap();
    }
    writer.finish().unwrap()
}

fn rest<R: Read + Seek>(reader: &mut Reader<R>) -> Result<Vec<Record>, TraceError> {
    let mut records = Vec::new();
    while let Some(record) = reader.next_record()? {
        records.push(record);
    }
    Ok(records)
}

fn open(bytes: &[u8]) -> Result<Reader<Cursor<&[u8]>>, TraceError> {
    Reader::open(Cursor::new(bytes))
}

/// All there is to a file, whatever way one comes to it.
fn read_all(bytes: &[u8]) -> Result<Vec<Record>, TraceError> {
    let mut reader = open(bytes)?;
    reader.verify()?;
    rest(&mut reader)
}

prop_compose! {
    fn step()(
        after_us in prop_oneof![3 => 0..3_000_u64, 1 => 0..u64::MAX / 4096],
        kind in any::<u8>(),
        node in prop_oneof![Just(String::new()), "node-[0-9]", "\\PC{0,12}"],
        job in prop_oneof![Just(String::new()), "lab-[0-9]{1,3}"],
        text in "\\PC{0,40}",
    ) -> (u64, Record) {
        (after_us, Record { at_us: 0, kind: Kind::from_number(kind), node, job, text })
    }
}

prop_compose! {
    fn records(count_max: usize)(steps in prop::collection::vec(step(), 0..count_max)) -> Vec<Record> {
        let mut at_us = 0_u64;
        let dated = steps.into_iter().map(|(after_us, record)| {
            at_us = at_us.saturating_add(after_us);
            Record { at_us, ..record }
        });
        dated.collect()
    }
}

/// Enough for several chunks: one record a millisecond.
fn many() -> Vec<Record> {
    let record = |at: u64| Record {
        at_us: at * 1_000,
        kind: if at.is_multiple_of(7) { Kind::Fault } else { Kind::Commit },
        node: format!("node-{}", at % 8),
        job: String::new(),
        text: format!("commit {at} 00112233aabbccdd"),
    };
    (0..5_000).map(record).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_written_is_read_back(records in records(1_100)) {
        let bytes = written(&records);
        let mut reader = open(&bytes).unwrap();
        reader.verify().unwrap();
        prop_assert_eq!(reader.head(), &head());
        prop_assert_eq!(reader.records(), records.len() as u64);
        prop_assert_eq!(reader.last_us(), records.last().map_or(0, |last| last.at_us));
        prop_assert_eq!(rest(&mut reader).unwrap(), records);
    }

    #[test]
    fn from_any_instant_there_is_the_rest(
        records in records(1_100),
        picks in prop::collection::vec((any::<prop::sample::Index>(), -1_i64..=1), 1..12),
    ) {
        let mut reader = Reader::open(Cursor::new(written(&records))).unwrap();
        for (pick, beside) in picks {
            let at = records.get(pick.index(records.len().max(1))).map_or(0, |record| record.at_us);
            let at_us = at.saturating_add_signed(beside);
            reader.seek(at_us).unwrap();
            let expected: Vec<Record> =
                records.iter().filter(|record| record.at_us >= at_us).cloned().collect();
            prop_assert_eq!(rest(&mut reader).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_cut_off_is_refused_and_its_whole_chunks_are_there(
        records in records(1_100),
        pick in any::<prop::sample::Index>(),
    ) {
        let whole = written(&records);
        let cut = &whole[..pick.index(whole.len())];
        let refused = matches!(open(cut), Err(TraceError::Truncated | TraceError::Corrupt(_)));
        prop_assert!(refused);
        if let Ok(mut reader) = Reader::recover(Cursor::new(cut)) {
            let found = rest(&mut reader).unwrap();
            prop_assert_eq!(reader.records(), found.len() as u64);
            prop_assert_eq!(&found[..], &records[..found.len()]);
        }
    }

    #[test]
    fn what_is_altered_is_refused(
        records in records(600),
        pick in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut bytes = written(&records);
        let at = pick.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(read_all(&bytes).is_err());
        // And without the look at the whole: an error, or what was written.
        if let Ok(mut reader) = open(&bytes)
            && let Ok(found) = rest(&mut reader)
        {
            prop_assert_eq!(found, records);
        }
    }

    #[test]
    fn nonsense_is_no_reason_to_panic(noise in prop::collection::vec(any::<u8>(), 0..400), skip in 0_usize..90) {
        let mut bytes = written(&many()[..3]);
        bytes.truncate(skip);
        bytes.extend_from_slice(&noise);
        let _ = read_all(&bytes);
        let _ = Reader::recover(Cursor::new(&bytes[..])).and_then(|mut reader| rest(&mut reader));
        let _ = read_all(&noise);
    }
}

/// Counts what is read of a file.
struct Counted<'a> {
    inner: Cursor<&'a [u8]>,
    bytes: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(into)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

impl Seek for Counted<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.inner.seek(to)
    }
}

#[test]
fn to_seek_is_not_to_read_what_lies_before() {
    let bytes = written(&many());
    let whole = bytes.len() as u64;
    let mut counted = Counted { inner: Cursor::new(&bytes), bytes: 0 };
    let mut reader = Reader::open(&mut counted).unwrap();
    reader.seek(4_000_000).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().at_us, 4_000_000);
    drop(reader);
    assert!(counted.bytes < whole / 5, "{} of {whole} bytes were read", counted.bytes);
    assert!(whole < 5_000 * 45, "{whole} bytes for 5000 records");
}

#[test]
fn a_run_that_was_killed_leaves_what_it_had() {
    let records = many();
    let mut file = Vec::new();
    let mut writer = Writer::begin(&mut file, &head()).unwrap();
    records.iter().for_each(|record| writer.record(record).unwrap());
    drop(writer);
    assert!(matches!(open(&file), Err(TraceError::Truncated)));
    let mut reader = Reader::recover(Cursor::new(&file)).unwrap();
    // All but the chunk that was under way.
    assert_eq!(reader.records(), 4_608);
    reader.seek(1_000_000).unwrap();
    assert_eq!(rest(&mut reader).unwrap(), records[1_000..4_608]);
}

#[test]
fn another_file_and_another_version_are_told_apart() {
    assert!(matches!(open(b"{\"plan\":1}\n"), Err(TraceError::NotATrace)));
    assert!(matches!(open(b""), Err(TraceError::Truncated)));
    let mut bytes = written(&many()[..10]);
    bytes[MAGIC.len()] = VERSION as u8 + 1;
    assert!(matches!(open(&bytes), Err(TraceError::Version(2))));
}

#[test]
fn a_kind_of_a_later_day_is_passed_on() {
    let record = Record {
        at_us: 7,
        kind: Kind::Other(200),
        node: String::new(),
        job: "lab-1".into(),
        text: "what this reader does not know".into(),
    };
    let found = read_all(&written(std::slice::from_ref(&record))).unwrap();
    assert_eq!((found[0].kind.word(), &found[0]), ("other", &record));
}

#[test]
#[should_panic(expected = "time goes back")]
fn time_does_not_go_back() {
    let records = many();
    written(&[records[5].clone(), records[4].clone()]);
}
