//! One suite for every disk: what the real files do, the hostile disk does.

use std::{io::ErrorKind, sync::Arc};
use world::{
    Disk,
    disk::{OpenMode, SEALED_MODE, Shared, read_all, replace},
    sim::HostileDisk,
};

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("an error was due"),
        Err(error) => error.kind(),
    }
}

fn names(disk: &dyn Disk, path: &str) -> Vec<String> {
    disk.list(path).unwrap().into_iter().map(|entry| entry.name).collect()
}

fn make(disk: &dyn Disk, path: &str, data: &[u8]) {
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    file.write_at(0, data).unwrap();
}

fn bytes_go_where_they_are_put(disk: &dyn Disk) {
    let file = disk.open("bytes", OpenMode::CreateNew).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_at(0, b"hello, world").unwrap();
    file.write_at(7, b"WORLD").unwrap();
    file.write_at(20, b"far").unwrap();
    assert_eq!(file.len().unwrap(), 23);
    let mut buffer = [1; 64];
    assert_eq!(file.read_at(0, &mut buffer).unwrap(), 23);
    assert_eq!(&buffer[..23], b"hello, WORLD\0\0\0\0\0\0\0\0far");
    assert_eq!(file.read_at(21, &mut buffer[..1]).unwrap(), 1);
    assert_eq!(buffer[0], b'a');
    assert_eq!(file.read_at(23, &mut buffer).unwrap(), 0);
    assert_eq!(file.read_at(1 << 40, &mut buffer).unwrap(), 0);
    file.set_len(5).unwrap();
    file.set_len(7).unwrap();
    assert_eq!(read_all(disk, "bytes", 100).unwrap(), b"hello\0\0");
    assert_eq!(kind(read_all(disk, "bytes", 6)), ErrorKind::FileTooLarge);
    file.write_at(3, b"").unwrap();
    file.sync().unwrap();
    // A second handle sees the same file.
    disk.open("bytes", OpenMode::Write).unwrap().write_at(0, b"J").unwrap();
    assert_eq!(read_all(disk, "bytes", 100).unwrap(), b"Jello\0\0");
    assert!(disk.open("bytes", OpenMode::Read).unwrap().write_at(0, b"x").is_err(), "opened for reading");
}

fn who_has_a_file_open_is_told(disk: &dyn Disk) {
    make(disk, "seat", b"");
    let first = disk.open("seat", OpenMode::Write).unwrap();
    assert!(first.is_sole());
    let second = disk.open("seat", OpenMode::Read).unwrap();
    assert!(!first.is_sole() && !second.is_sole(), "there are two");
    drop(second);
    assert!(first.is_sole());
    disk.create_dir_all("hall/room").unwrap();
    assert!(!disk.is_vacant("hall").unwrap() && disk.is_vacant("hall/room").unwrap());
    make(disk, "hall/room/chair", b"");
    assert!(!disk.is_vacant("hall/room").unwrap());
    assert_eq!(kind(disk.is_vacant("hall/absent")), ErrorKind::NotFound);
}

fn room_is_given_back(disk: &dyn Disk) {
    const UNIT: u64 = 64 << 10;
    let file = disk.open("room", OpenMode::CreateNew).unwrap();
    let bytes: Vec<u8> = (0..3 * UNIT + 5).map(|at| 1 + (at % 251) as u8).collect();
    file.write_at(0, &bytes).unwrap();
    let whole = |holes: std::ops::Range<u64>| {
        let there = |(at, byte): (u64, &u8)| if holes.contains(&at) { 0 } else { *byte };
        (0..).zip(&bytes).map(there).collect::<Vec<_>>()
    };
    file.punch(UNIT..2 * UNIT).unwrap();
    assert_eq!(read_all(disk, "room", 4 << 20).unwrap(), whole(UNIT..2 * UNIT));
    file.punch(0..UNIT).unwrap();
    file.punch(3 * UNIT..9 * UNIT).unwrap();
    let got = read_all(disk, "room", 4 << 20).unwrap();
    assert_eq!(got[..3 * UNIT as usize], whole(0..2 * UNIT)[..3 * UNIT as usize]);
    assert_eq!(got[3 * UNIT as usize..], [0; 5], "as long as before");
}

fn modes_of_opening(disk: &dyn Disk) {
    assert_eq!(kind(disk.open("absent", OpenMode::Read)), ErrorKind::NotFound);
    assert_eq!(kind(disk.open("absent", OpenMode::Write)), ErrorKind::NotFound);
    make(disk, "present", b"1");
    assert_eq!(kind(disk.open("present", OpenMode::CreateNew)), ErrorKind::AlreadyExists);
    disk.open("present", OpenMode::CreateOrWrite).unwrap();
    assert_eq!(read_all(disk, "present", 9).unwrap(), b"1", "what is there stays");
    disk.create_dir_all("directory").unwrap();
    assert_eq!(kind(disk.open("directory", OpenMode::Read)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.open("present/below", OpenMode::CreateNew)), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.open("absent/below", OpenMode::CreateNew)), ErrorKind::NotFound);
}

fn paths_stay_inside(disk: &dyn Disk) {
    make(disk, "x", b"");
    for path in ["/etc/passwd", "..", "a/../b", "a//b", "a/", ".", "a/./b", "nul\0"] {
        assert_eq!(kind(disk.open(path, OpenMode::CreateOrWrite)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(disk.create_dir_all(path)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(disk.remove_dir_all(path)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(disk.rename("x", path)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(disk.entry(path)), ErrorKind::InvalidInput, "{path:?}");
    }
    assert_eq!(kind(disk.remove_dir_all("")), ErrorKind::InvalidInput, "the root stays");
    assert_eq!(disk.absolute("a/b"), disk.absolute("").join("a").join("b"));
}

fn directories(disk: &dyn Disk) {
    disk.create_dir_all("tree/a/b").unwrap();
    disk.create_dir_all("tree/a").unwrap();
    make(disk, "tree/a/one", b"1");
    make(disk, "tree/two", b"22");
    disk.set_mode("tree/two", 0o600).unwrap();
    let entries = disk.list("tree").unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!((entries[0].name.as_str(), entries[0].is_dir, entries[0].len), ("a", true, 0));
    assert_eq!((entries[1].name.as_str(), entries[1].is_dir, entries[1].len), ("two", false, 2));
    assert_eq!(entries[1].mode, 0o600);
    assert_eq!(disk.entry("tree/two").unwrap(), entries[1]);
    assert!(disk.entry("").unwrap().is_dir);
    assert_eq!(kind(disk.entry("tree/none")), ErrorKind::NotFound);
    assert_eq!(kind(disk.list("tree/two")), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.list("nowhere")), ErrorKind::NotFound);
    assert!(disk.create_dir_all("tree/two/c").is_err());
    disk.sync_dir("tree/a").unwrap();
    disk.sync_dir("").unwrap();
    assert_eq!(kind(disk.sync_dir("nowhere")), ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_dir("tree/two")), ErrorKind::NotADirectory);
    assert!(disk.remove("tree/a").is_err(), "a directory is no file");
    disk.remove_dir_all("tree").unwrap();
    disk.remove_dir_all("tree").unwrap();
    disk.remove_dir_all("tree/a/b").unwrap();
    assert_eq!(kind(disk.entry("tree")), ErrorKind::NotFound);
}

fn names_move(disk: &dyn Disk) {
    disk.create_dir_all("from/full").unwrap();
    disk.create_dir_all("to/empty").unwrap();
    make(disk, "from/file", b"old");
    make(disk, "from/full/inner", b"inner");
    make(disk, "to/file", b"replaced");
    disk.rename("from/file", "to/file").unwrap();
    assert_eq!(read_all(disk, "to/file", 99).unwrap(), b"old");
    assert_eq!(kind(disk.rename("from/file", "to/file")), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename("to/file", "nowhere/file")), ErrorKind::NotFound);
    disk.rename("to/file", "to/file").unwrap();
    disk.rename("from/full", "to/empty").unwrap();
    assert_eq!(read_all(disk, "to/empty/inner", 99).unwrap(), b"inner");
    assert_eq!(names(disk, "from"), Vec::<String>::new());
    // XFS says it by the other word that POSIX has for it.
    let not_empty = kind(disk.rename("from", "to"));
    assert!(matches!(not_empty, ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists), "{not_empty:?}");
    assert_eq!(kind(disk.rename("to/file", "from")), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.rename("from", "to/file")), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.rename("to", "to/empty/to")), ErrorKind::InvalidInput);
    disk.remove("to/file").unwrap();
    assert_eq!(kind(disk.remove("to/file")), ErrorKind::NotFound);
    assert_eq!(names(disk, "to"), ["empty"]);
}

fn an_open_file_outlives_its_name(disk: &dyn Disk) {
    make(disk, "held", b"still here");
    let file = disk.open("held", OpenMode::Write).unwrap();
    disk.remove("held").unwrap();
    make(disk, "held", b"another");
    let mut buffer = [0; 10];
    assert_eq!(file.read_at(0, &mut buffer).unwrap(), 10);
    assert_eq!(&buffer, b"still here");
    file.write_at(0, b"x").unwrap();
    file.sync().unwrap();
    assert_eq!(read_all(disk, "held", 99).unwrap(), b"another");
}

fn a_file_is_claimed_once(disk: &dyn Disk) {
    let first = disk.open("claimed", OpenMode::CreateNew).unwrap();
    let second = disk.open("claimed", OpenMode::Write).unwrap();
    assert!(first.try_lock().unwrap());
    assert!(!second.try_lock().unwrap());
    assert!(first.try_lock().unwrap(), "its own claim is no obstacle");
    drop(first);
    assert!(second.try_lock().unwrap());
}

fn replaced_whole(disk: &dyn Disk) {
    disk.create_dir_all("config").unwrap();
    replace(disk, "config/word", b"first and long").unwrap();
    replace(disk, "config/word", b"second").unwrap();
    assert_eq!(read_all(disk, "config/word", 99).unwrap(), b"second");
    assert_eq!(names(disk, "config"), ["word"]);
}

fn bytes_are_shared(disk: &dyn Disk) {
    disk.create_dir_all("shared").unwrap();
    make(disk, "shared/one", b"the same");
    disk.seal("shared/one").unwrap();
    let how = disk.share("shared/one", "shared/two", SEALED_MODE).unwrap();
    assert_ne!(how, Shared::Not, "no disk that tests run on lacks links");
    assert_eq!(read_all(disk, "shared/two", 99).unwrap(), b"the same");
    assert_eq!(disk.entry("shared/two").unwrap().mode, SEALED_MODE);
    assert_eq!(kind(disk.share("shared/one", "shared/two", SEALED_MODE)), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.share("shared/none", "shared/three", SEALED_MODE)), ErrorKind::NotFound);
    assert_eq!(kind(disk.share("shared/one", "nowhere/one", SEALED_MODE)), ErrorKind::NotFound);
    // One file has one mode.
    let other = disk.share("shared/one", "shared/runs", 0o555).unwrap();
    match other {
        Shared::Cloned => assert_eq!(disk.entry("shared/runs").unwrap().mode, 0o555),
        Shared::Linked => panic!("a link of another mode"),
        Shared::Not => assert_eq!(kind(disk.entry("shared/runs")), ErrorKind::NotFound),
    }
    disk.remove("shared/one").unwrap();
    assert_eq!(read_all(disk, "shared/two", 99).unwrap(), b"the same");
}

fn a_stamp_tells_of_every_write(disk: &dyn Disk) {
    make(disk, "stamped", b"bytes");
    let sealed = disk.seal("stamped").unwrap();
    assert_eq!(disk.stamp("stamped").unwrap(), sealed);
    // Names come and go without it.
    disk.share("stamped", "stamped-too", SEALED_MODE).unwrap();
    disk.remove("stamped-too").unwrap();
    assert_eq!(disk.stamp("stamped").unwrap(), sealed);
    disk.set_mode("stamped", 0o644).unwrap();
    assert_eq!(disk.stamp("stamped").unwrap(), sealed, "another mode is no write");
    // As long as before, and at once: within the same tick of any clock.
    disk.open("stamped", OpenMode::Write).unwrap().write_at(0, b"BYTES").unwrap();
    disk.set_mode("stamped", SEALED_MODE).unwrap();
    assert_ne!(disk.stamp("stamped").unwrap(), sealed);
    let again = disk.seal("stamped").unwrap();
    make(disk, "stamped-new", b"bytes");
    disk.rename("stamped-new", "stamped").unwrap();
    assert_ne!(disk.seal("stamped").unwrap(), again, "it is another file");
    assert_eq!(kind(disk.stamp("stamped-gone")), ErrorKind::NotFound);
}

fn conforms(disk: &dyn Disk) {
    bytes_go_where_they_are_put(disk);
    room_is_given_back(disk);
    who_has_a_file_open_is_told(disk);
    modes_of_opening(disk);
    paths_stay_inside(disk);
    directories(disk);
    names_move(disk);
    an_open_file_outlives_its_name(disk);
    a_file_is_claimed_once(disk);
    replaced_whole(disk);
    bytes_are_shared(disk);
    a_stamp_tells_of_every_write(disk);
}

#[test]
fn the_hostile_disk_conforms() {
    let hostile = HostileDisk::new(1);
    let disk: Arc<dyn Disk> = hostile.handle();
    conforms(&*disk);
}

#[cfg(not(madsim))]
mod real {
    #![allow(clippy::disallowed_methods, reason = "arranges what a disk alone cannot")]
    use super::*;
    use std::{fs, os::unix::fs::MetadataExt, os::unix::fs::symlink, path::PathBuf};
    use world::real::FsDisk;

    fn scratch(name: &str) -> PathBuf {
        let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("world-disk").join(name);
        let _absent = fs::remove_dir_all(&root);
        root
    }

    #[test]
    fn files_conform() {
        let disk = FsDisk::open(scratch("conform")).unwrap();
        conforms(&*disk);
    }

    #[test]
    fn room_that_was_given_back_is_free() {
        let root = scratch("room");
        let disk = FsDisk::open(root.clone()).unwrap();
        make(&*disk, "log", &[7; 1 << 20]);
        let file = disk.open("log", OpenMode::Write).unwrap();
        file.sync().unwrap();
        let blocks = || fs::metadata(root.join("log")).unwrap().blocks();
        let before = blocks();
        file.punch(0..1 << 19).unwrap();
        assert!(blocks() <= before / 2 + 64, "{} of {before} blocks", blocks());
    }

    #[test]
    fn one_server_a_data_directory() {
        let root = scratch("lock");
        let (first, second) = (FsDisk::open(root.clone()).unwrap(), FsDisk::open(root).unwrap());
        let lock = first.lock("lock").unwrap();
        let error = second.lock("lock").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(error.to_string().contains("another running process"), "{error}");
        drop(lock);
        second.lock("lock").unwrap();
    }

    #[test]
    fn a_pipe_is_refused_and_a_loop_of_links_ends() {
        let root = scratch("links");
        let disk = FsDisk::open(root.clone()).unwrap();
        make(&*disk, "target", b"12345");
        symlink("target", root.join("link")).unwrap();
        symlink(".", root.join("loop")).unwrap();
        symlink("gone", root.join("dangling")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(kind(disk.open("pipe", OpenMode::Read)), ErrorKind::InvalidInput);
        let found: Vec<_> =
            disk.list("").unwrap().into_iter().map(|e| (e.name, e.is_dir, e.len == 5)).collect();
        let due = [("dangling", false, false), ("link", false, true), ("loop", false, false)];
        for ((name, is_dir, whole), found) in due.iter().zip(&found) {
            assert_eq!((*name, *is_dir), (found.0.as_str(), found.1));
            assert!(!whole || found.2, "a link to a file has the length of that file");
        }
    }

    #[test]
    fn a_root_that_cannot_be_is_named() {
        let root = scratch("blocked");
        fs::create_dir_all(root.parent().unwrap()).unwrap();
        fs::write(&root, b"a file").unwrap();
        let error = FsDisk::open(root.clone()).unwrap_err();
        assert!(error.to_string().contains(root.to_str().unwrap()), "{error}");
        fs::remove_file(root).unwrap();
    }

    /// What is just being let go is asked for a few times before it is refused.
    #[test]
    fn a_claim_is_had_once_its_holder_lets_go() {
        let disk = FsDisk::open(scratch("claim")).unwrap();
        let first = disk.open("claimed", OpenMode::CreateNew).unwrap();
        assert!(first.try_lock().unwrap());
        let second = disk.open("claimed", OpenMode::Write).unwrap();
        let letting_go = std::thread::spawn(move || drop(first));
        assert!(second.try_lock().unwrap());
        letting_go.join().unwrap();
    }
}
