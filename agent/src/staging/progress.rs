//! Reads how far tasks say they have come.
//!
//! A task writes lines `PERCENT TEXT` to the file that `DRUMLINE_PROGRESS` names, which
//! nobody but the task makes. The last whole line that is one counts; all else in the
//! file is ignored.
//!
//! What must hold: a task without the file costs one look at its name; of a file that is
//! there only the end is read, however long it is; nothing in it is an error.

use crate::config::AgentConfig;
use crate::core::work::PROGRESS_FILE;
use crate::core::{Event, ProgressOrder, Said, Seen};
use crate::limits;
use crate::shell::{Inbound, tell};
use proto::limits::{PROGRESS_BASIS_POINTS_MAX, PROGRESS_TEXT_BYTES_MAX};
use std::io;
use std::sync::Arc;
use world::disk::{Disk, OpenMode};
use world::sync::mpsc;
use world::task::blocking;

/// Looks until nobody is left to ask. The core asks for one look at a time.
pub(crate) async fn work(
    disk: Arc<dyn Disk>,
    config: Arc<AgentConfig>,
    mut due: mpsc::Receiver<Vec<Vec<ProgressOrder>>>,
    inbox: mpsc::Sender<Inbound>,
) {
    while let Some(orders) = due.recv().await {
        let (disk, config) = (Arc::clone(&disk), Arc::clone(&config));
        let orders: Vec<ProgressOrder> = orders.into_iter().flatten().collect();
        let seen =
            blocking(move || orders.into_iter().filter_map(|order| look(&*disk, &config, order)).collect());
        tell(&inbox, vec![Event::ProgressSeen(seen.await)]).await;
    }
}

/// What one task says; `None` where it says nothing, or its file cannot be read. Blocks.
fn look(disk: &dyn Disk, config: &AgentConfig, order: ProgressOrder) -> Option<Seen> {
    let ProgressOrder { key, directory } = order;
    let path = format!("{}/{directory}/{PROGRESS_FILE}", config.directories.work);
    let entry = disk.entry(&path).ok()?;
    if entry.is_dir || entry.len == 0 {
        return None;
    }
    let (tail, from_start) = tail(disk, &path).ok()?;
    Some(Seen { key, directory, said: last_said(&tail, from_start)? })
}

/// The end of a file, and whether that is all of it.
fn tail(disk: &dyn Disk, path: &str) -> io::Result<(Vec<u8>, bool)> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut at = file.len()?.saturating_sub(limits::PROGRESS_TAIL_BYTES);
    let from_start = at == 0;
    let mut tail = vec![0; usize::try_from(limits::PROGRESS_TAIL_BYTES).unwrap_or(0)];
    let mut filled = 0;
    while filled < tail.len() {
        let read = file.read_at(at, &mut tail[filled..])?;
        if read == 0 {
            break;
        }
        filled += read;
        at += read as u64;
    }
    tail.truncate(filled);
    Ok((tail, from_start))
}

/// The last whole line that says something. Without `from_start` the first line may be
/// the end of one.
fn last_said(tail: &[u8], from_start: bool) -> Option<Said> {
    let whole = tail.iter().rposition(|byte| *byte == b'\n')?;
    let mut lines = tail[..whole].split(|byte| *byte == b'\n');
    if !from_start {
        lines.next();
    }
    lines.rev().find_map(said)
}

/// Reads `PERCENT TEXT`.
fn said(line: &[u8]) -> Option<Said> {
    let line = String::from_utf8_lossy(line);
    let line = line.trim();
    let (percent, text) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let percent: f64 = percent.parse().ok()?;
    // No number at all is in no range.
    if !(0.0..=100.0).contains(&percent) {
        return None;
    }
    let mut text: String = text.trim().chars().filter(|letter| !letter.is_control()).collect();
    text.truncate(text.floor_char_boundary(PROGRESS_TEXT_BYTES_MAX));
    Some(Said { basis_points: basis_points(percent), text })
}

/// All of the work is only what says so: 99.999 is not.
fn basis_points(percent: f64) -> u32 {
    let most = if percent < 100.0 { PROGRESS_BASIS_POINTS_MAX - 1 } else { PROGRESS_BASIS_POINTS_MAX };
    ((percent * 100.0).round() as u32).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::key::Key;
    use proto::v1::{AttemptRef, Resources};

    fn read(text: &str) -> Option<(u32, String)> {
        last_said(text.as_bytes(), true).map(|said| (said.basis_points, said.text))
    }

    fn says(basis_points: u32, text: &str) -> Option<(u32, String)> {
        Some((basis_points, text.to_owned()))
    }

    #[test]
    fn the_last_whole_line_counts() {
        assert_eq!(read("10 begins\n42.5 epoch 3 of 7\n"), says(4_250, "epoch 3 of 7"));
        assert_eq!(read("10 begins\n42 epo"), says(1_000, "begins"), "half a line is none");
        assert_eq!(read("10 begins"), None);
        assert_eq!(read("7\n"), says(700, ""));
        assert_eq!(read(" 7\tloads \r\n"), says(700, "loads"));
        assert_eq!(read(""), None);
        assert_eq!(read("\n\n\n"), None);
    }

    #[test]
    fn only_what_says_so_is_all() {
        let points = |percent: &str| read(&format!("{percent} x\n")).map(|(points, _)| points);
        assert_eq!(["0", "-0", "0.29", "1.1", "1e1"].map(points), [0, 0, 29, 110, 1_000].map(Some));
        assert_eq!(["99.999", "99.99", "100", "100.0"].map(points), [9_999, 9_999, 10_000, 10_000].map(Some));
    }

    #[test]
    fn what_is_no_progress_is_ignored_and_what_came_before_it_stands() {
        for garbage in
            ["NaN x", "-1 x", "100.1 x", "inf x", "-inf x", "1e999 x", "50% x", "half", "0x10 x", "\u{0}"]
        {
            assert_eq!(read(&format!("{garbage}\n")), None, "{garbage}");
            assert_eq!(read(&format!("5 well\n{garbage}\n")), says(500, "well"), "{garbage}");
        }
        assert_eq!(last_said(b"\xff\xfe\n3 a\xffb\n", true).unwrap().text, "a\u{fffd}b");
    }

    #[test]
    fn a_text_is_short_and_plain() {
        assert_eq!(read("1 a\u{7}b\u{1b}[31mc\n"), says(100, "ab[31mc"));
        let (_, cut) = read(&format!("1 {}\n", "\u{20ac}".repeat(100))).unwrap();
        assert_eq!(cut, "\u{20ac}".repeat(40), "120 bytes, between characters");
        let (_, cut) = read(&format!("1 x{}\n", "\u{20ac}".repeat(100))).unwrap();
        assert_eq!(cut.len(), 118);
    }

    #[test]
    fn only_the_end_of_a_large_file_is_read() {
        let disk = world::sim::HostileDisk::new(1).handle();
        let config = AgentConfig::new("h:1", "dl_x", "n1", Resources::default());
        let path = format!("{}/t/{PROGRESS_FILE}", config.directories.work);
        disk.create_dir_all(&format!("{}/t", config.directories.work)).unwrap();
        let order = ProgressOrder { key: Key::of(&AttemptRef::default(), 0), directory: "t".to_owned() };
        let look =
            || look(&*disk, &config, order.clone()).map(|seen| (seen.said.basis_points, seen.said.text));
        assert_eq!(look(), None, "there is no file");
        let file = disk.open(&path, OpenMode::CreateNew).unwrap();
        assert_eq!(look(), None, "it is empty");
        file.write_at(0, &vec![b'x'; 3 << 20]).unwrap();
        assert_eq!(look(), None, "one line without an end");
        file.write_at(3 << 20, b"9 y\n").unwrap();
        assert_eq!(look(), None, "its beginning is not in what is read: it may say 909");
        file.write_at(file.len().unwrap(), b"12 z\nhal").unwrap();
        assert_eq!(look(), says(1_200, "z"));
        disk.remove(&path).unwrap();
        disk.create_dir_all(&path).unwrap();
        assert_eq!(look(), None, "a directory says nothing");
    }
}
