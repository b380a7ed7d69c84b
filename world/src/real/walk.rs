//! All that is in a directory of a user, with names as the machine has them.
//!
//! A [`crate::Disk`] has only names that are UTF-8, and follows a link to a file: who is to
//! send a directory away needs to see what stands in the way.
#![expect(clippy::disallowed_methods, reason = "the one door to the machine's files")]

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// What a name in a directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A directory; what is in it comes next.
    Directory,
    /// A plain file.
    File {
        /// Its owner may run it.
        executable: bool,
    },
    /// A symbolic link, with what it says.
    Link(PathBuf),
    /// A pipe, a socket, a device.
    Other,
}

/// Tells of all below a directory, not through links: names in order, each directory before
/// what is in it. `take` gets paths as seen from `root`, and what could not be read, and
/// ends the walk by its error. Blocks.
pub fn walk<E>(
    root: &Path,
    take: &mut impl FnMut(&Path, io::Result<Found>) -> Result<(), E>,
) -> Result<(), E> {
    walk_below(root, Path::new(""), take)
}

fn walk_below<E>(
    root: &Path,
    below: &Path,
    take: &mut impl FnMut(&Path, io::Result<Found>) -> Result<(), E>,
) -> Result<(), E> {
    let names = match names(&root.join(below)) {
        Ok(names) => names,
        Err(error) => return take(below, Err(error)),
    };
    for name in names {
        let path = below.join(name);
        let found = look(&root.join(&path));
        let enter = matches!(found, Ok(Found::Directory));
        take(&path, found)?;
        if enter {
            walk_below(root, &path, take)?;
        }
    }
    Ok(())
}

fn names(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn look(path: &Path) -> io::Result<Found> {
    let meta = fs::symlink_metadata(path)?;
    Ok(match meta.file_type() {
        kind if kind.is_dir() => Found::Directory,
        kind if kind.is_file() => Found::File { executable: meta.permissions().mode() & 0o100 != 0 },
        kind if kind.is_symlink() => Found::Link(fs::read_link(path)?),
        _ => Found::Other,
    })
}
