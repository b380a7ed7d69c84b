//! Where a job's log is: which files, and whose.
//!
//! A log is stretches, one behind the other, each in files that are named by where it begins
//! and by the reign that wrote it:
//! ```text
//! <tenant>/<job>.log                     the first stretch, where servers do not share the place
//! <tenant>/<job>/<reign>.log             the same where they do
//! <tenant>/<job>/<reign>.<begins>.log    a later one (reign 0 where they do not)
//! ….seg, ….idx in place of ….log         packed; packed and moved away: what is left of it
//! ```
//! No file lists them: where one ends the next begins, and the last is the one that is written.
//! So one file that is made is all it takes for a log to go on in another.
//!
//! What must hold: the stretch that is written is written by the server of its reign alone,
//! so that one that was deposed and does not know it writes where nobody looks any more. A
//! reign begins from a copy of what is whole in the last stretch of the one before
//! ([`super::file`]); it has the same frames at the same cursors, so cursors stay good. All
//! other stretches are written never again, and shared. So of several that begin at one place
//! the one of the latest reign counts; and behind one of a reign none of an earlier, which
//! only a deposed server can have written. Copied is what is looked at, when it is: most jobs
//! have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use world::Disk;

/// How a stretch is held; where it is so in several ways the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Packed,
    /// It is packed and away.
    Left,
    Plain,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Packed, Self::Left, Self::Plain];

    fn ending(self) -> &'static str {
        match self {
            Self::Packed => ".seg",
            Self::Left => ".idx",
            Self::Plain => ".log",
        }
    }

    /// The rest of a name, and what it is.
    fn of(name: &str) -> Option<(&str, Self)> {
        Self::ALL.iter().find_map(|kind| Some((name.strip_suffix(kind.ending())?, *kind)))
    }
}

/// Names a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    /// Its cursor.
    pub begins: u64,
    /// Who wrote it; 0 where servers do not share the place.
    pub reign: u64,
}

/// One job's place.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub disk: Arc<dyn Disk>,
    /// Directory of its tenant.
    tenant: String,
    /// Its own.
    own: String,
    /// Of this server.
    pub reign: u64,
}

/// What there is of a log.
pub(super) type Stretches = BTreeMap<Spot, BTreeSet<Kind>>;

impl Place {
    /// Of a job's log in the directory of its tenant, for a server of this reign.
    pub fn new(disk: &Arc<dyn Disk>, tenant: &str, number: u64, reign: Option<u64>) -> Self {
        let (tenant, own) = (tenant.to_owned(), format!("{tenant}/{number:016x}"));
        Self { disk: Arc::clone(disk), tenant, own, reign: reign.unwrap_or_default() }
    }

    pub fn path(&self, spot: Spot, kind: Kind) -> String {
        let (own, Spot { begins, reign }, ending) = (&self.own, spot, kind.ending());
        match spot {
            Spot { begins: 0, reign: 0 } => format!("{own}{ending}"),
            Spot { begins: 0, .. } => format!("{own}/{reign:016x}{ending}"),
            _ => format!("{own}/{reign:016x}.{begins:016x}{ending}"),
        }
    }

    /// The directory in which its files are.
    pub fn dir(&self, spot: Spot) -> &str {
        if spot == (Spot { begins: 0, reign: 0 }) { &self.tenant } else { &self.own }
    }

    /// Of files that this server makes, until they have their names. Another may make the
    /// same at the same time.
    pub fn fresh(&self, spot: Spot, kind: Kind) -> String {
        format!("{}.{:x}.new", self.path(spot, kind), self.reign)
    }

    /// Makes that directory, and its name durable.
    pub fn make_dir(&self, spot: Spot) -> io::Result<()> {
        make_dir(&*self.disk, &self.tenant)?;
        if self.dir(spot) == self.own { make_dir(&*self.disk, &self.own) } else { Ok(()) }
    }

    /// All that is there.
    pub fn stretches(&self) -> io::Result<Stretches> {
        let mut found = Stretches::new();
        let first = Spot { begins: 0, reign: 0 };
        for kind in Kind::ALL {
            match self.disk.entry(&self.path(first, kind)) {
                Ok(_) => _ = found.entry(first).or_default().insert(kind),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        for (spot, kind) in listed(&*self.disk, &self.own)? {
            found.entry(spot).or_default().insert(kind);
        }
        Ok(found)
    }

    /// Takes all of it away. What one that was deposed writes yet is a file that nobody
    /// looks for.
    pub fn remove(&self) -> io::Result<()> {
        let may_be_gone = |done: io::Result<()>| match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        self.disk.remove_dir_all(&self.own)?;
        let first = Spot { begins: 0, reign: 0 };
        for kind in Kind::ALL {
            may_be_gone(self.disk.remove(&self.path(first, kind)))?;
            may_be_gone(self.disk.remove(&self.fresh(first, kind)))?;
        }
        may_be_gone(self.disk.sync_dir(&self.tenant))
    }
}

/// The stretch that begins there, of no earlier reign than that.
pub(super) fn at(stretches: &Stretches, begins: u64, least_reign: u64) -> Option<(Spot, &BTreeSet<Kind>)> {
    let of = |reign| Spot { begins, reign };
    stretches.range(of(least_reign)..=of(u64::MAX)).next_back().map(|(spot, kinds)| (*spot, kinds))
}

/// Those that begin behind there, of no earlier reign than that.
pub(super) fn behind(stretches: &Stretches, begins: u64, least_reign: u64) -> impl Iterator<Item = Spot> {
    let behind = (Excluded(Spot { begins, reign: u64::MAX }), Unbounded);
    stretches.range(behind).map(|(spot, _)| *spot).filter(move |spot| spot.reign >= least_reign)
}

/// The stretches of a job that has this directory, but for one beside it.
fn listed(disk: &dyn Disk, dir: &str) -> io::Result<Vec<(Spot, Kind)>> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let stretch = |name: &str| {
        let (name, kind) = Kind::of(name)?;
        let (reign, begins) = name.split_once('.').unwrap_or((name, "0"));
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        Some((Spot { begins: number(begins)?, reign: number(reign)? }, kind))
    };
    Ok(entries.iter().filter_map(|entry| stretch(&entry.name)).collect())
}

/// What may be done about a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// A stretch that is full is not packed.
    pub full: bool,
    /// Some stretch is not packed.
    pub plain: bool,
    /// One that is packed is here.
    pub here: bool,
}

impl Due {
    fn of(found: &[(Spot, Kind)]) -> Self {
        let has = |spot: Spot, kind| found.contains(&(spot, kind));
        let is_plain = |spot| has(spot, Kind::Plain) && !has(spot, Kind::Packed) && !has(spot, Kind::Left);
        let last = found.iter().map(|(spot, _)| spot.begins).max().unwrap_or_default();
        Self {
            full: found.iter().any(|(spot, _)| spot.begins < last && is_plain(*spot)),
            plain: found.iter().any(|(spot, _)| is_plain(*spot)),
            here: found.iter().any(|(_, kind)| *kind == Kind::Packed),
        }
    }
}

/// What may be done about the logs in a tenant's directory, by job, but for some.
pub(super) fn due(
    disk: &dyn Disk,
    tenant: &str,
    but: impl Fn(u64) -> bool,
) -> io::Result<BTreeMap<u64, Due>> {
    let mut found = BTreeMap::<u64, Vec<(Spot, Kind)>>::new();
    for entry in disk.list(tenant)? {
        let (name, kind) = Kind::of(&entry.name).unzip();
        let Ok(number) = u64::from_str_radix(name.unwrap_or(&entry.name), 16) else { continue };
        if but(number) {
            continue;
        }
        let stretches = found.entry(number).or_default();
        match kind {
            Some(kind) => stretches.push((Spot { begins: 0, reign: 0 }, kind)),
            None => stretches.extend(listed(disk, &format!("{tenant}/{}", entry.name))?),
        }
    }
    Ok(found.into_iter().map(|(number, stretches)| (number, Due::of(&stretches))).collect())
}

/// Makes a directory in one that is there. Without its name all that is below
/// it would be lost with the power.
pub(super) fn make_dir(disk: &dyn Disk, dir: &str) -> io::Result<()> {
    disk.create_dir_all(dir)?;
    disk.sync_dir(dir.rsplit_once('/').map_or("", |(parent, _)| parent))
}
