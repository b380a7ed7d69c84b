//! The user's own files: job files, inputs, configuration.
//!
//! All through one disk rooted at `/`, by canonical paths, so that what is not
//! there is told before anything is made.

use crate::{failure::Failure, limits};
use proto::{keys::hex_of, problem::Problem};
use sha2::{Digest as _, Sha256};
use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};
use world::{
    Disk,
    disk::{OpenMode, read_all},
    real::FsDisk,
};

/// A file that is there, as a disk knows it.
#[derive(Clone, Debug)]
pub struct LocalFile {
    /// The whole machine's files.
    pub disk: Arc<dyn Disk>,
    /// Below that disk's root.
    pub path: String,
}

/// Digest and length of a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digested {
    /// Lower-case hexadecimal SHA-256.
    pub digest: String,
    /// Bytes.
    pub size_bytes: u64,
}

/// Finds a file. `field` is what it was given as.
pub fn find(field: &str, path: &Path) -> Result<LocalFile, Failure> {
    match find_any(field, path)? {
        Found::File(file) => Ok(file),
        Found::Directory(_) => {
            Err(Failure::wrong_use(field, path.display(), "is a directory", "give a file"))
        }
    }
}

/// What a path of this machine leads to.
#[derive(Clone, Debug)]
pub enum Found {
    /// A file.
    File(LocalFile),
    /// A directory; its path is empty where it is the root of the machine.
    Directory(LocalFile),
}

/// Finds a file or a directory. `field` is what it was given as.
pub fn find_any(field: &str, path: &Path) -> Result<Found, Failure> {
    let unusable = |error: &io::Error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "correct the path",
            io::ErrorKind::PermissionDenied => "make it readable",
            _ => "look at the file",
        };
        Failure::wrong_use(field, path.display(), &error.to_string(), remedy)
    };
    let full = path.canonicalize().map_err(|error| unusable(&error))?;
    let Some(text) = full.to_str() else {
        return Err(Failure::wrong_use(field, path.display(), "is no UTF-8 text", "rename the file"));
    };
    let disk: Arc<dyn Disk> = FsDisk::open(PathBuf::from("/")).map_err(|error| unusable(&error))?;
    let found = LocalFile { disk, path: text.trim_start_matches('/').to_owned() };
    Ok(if full.is_dir() { Found::Directory(found) } else { Found::File(found) })
}

/// Reads a small text file; `-` is standard input.
pub fn read_text(field: &str, path: &Path, bytes_max: u64) -> Result<String, Failure> {
    let too_large = || {
        let reason = format!("has more than {bytes_max} bytes");
        Failure::Refused(Problem::new(
            "spec.too_large",
            field,
            path.display(),
            reason,
            "give large texts as inputs",
        ))
    };
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin()
            .take(bytes_max + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::broken(field, "-", error.to_string(), "look at what is piped in"))?;
        bytes
    } else {
        let file = find(field, path)?;
        read_all(&*file.disk, &file.path, bytes_max).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => too_large(),
            _ => Failure::wrong_use(field, path.display(), &error.to_string(), "look at the file"),
        })?
    };
    if bytes.len() as u64 > bytes_max {
        return Err(too_large());
    }
    String::from_utf8(bytes)
        .map_err(|_| Failure::wrong_use(field, path.display(), "is no UTF-8 text", "save it as UTF-8"))
}

/// Digests a file of any size.
pub fn digest(file: &LocalFile) -> io::Result<Digested> {
    let open = file.disk.open(&file.path, OpenMode::Read)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; limits::DIGEST_CHUNK_BYTES];
    let mut size_bytes = 0;
    loop {
        let read = open.read_at(size_bytes, &mut buffer)?;
        if read == 0 {
            return Ok(Digested { digest: hex_of(&hash.finalize()), size_bytes });
        }
        hash.update(&buffer[..read]);
        size_bytes += read as u64;
    }
}

/// Opens a directory for writing, made where there is none.
pub fn directory(field: &str, path: &Path) -> Result<Arc<FsDisk>, Failure> {
    FsDisk::open(path.to_path_buf()).map_err(|error| {
        Failure::broken(field, path.display(), error.to_string(), "choose a directory you may write to")
    })
}
