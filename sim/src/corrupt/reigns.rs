//! Slips in who controls.

use super::{At, Class};
use crate::recording::Recording;
use crate::rows::Row;
use rand::rngs::SmallRng;

pub const CLASSES: &[Class] = &[
    Class { name: "written-by-a-deposed-controller", by: &["one-reigns"], spoil: deposed },
    Class { name: "written-by-nobody-s-leave", by: &["one-reigns"], spoil: unfenced },
];

/// A row of a shard in a commit that does more than to take it.
fn fence(rec: &Recording, rng: &mut SmallRng) -> Option<At> {
    rec.draw(rng, |at, row| {
        let state = |row: &Row| matches!(row, Row::State(..));
        let fences = matches!(row, Row::Shard(_, Some(row)) if row.seq > 1);
        fences && rec.is_whole(at) && rec.commits[at.commit].rows.iter().any(state)
    })
}

/// Another one's name stands where the owner's was.
fn deposed(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = fence(rec, rng)?;
    let Row::Shard(_, Some(row)) = rec.row(at) else { return None };
    row.owner.push('x');
    Some(())
}

/// No row of a shard goes with what was written.
fn unfenced(rec: &mut Recording, rng: &mut SmallRng) -> Option<()> {
    let at = fence(rec, rng)?;
    rec.commit(at.commit).rows.retain(|row| !matches!(row, Row::Shard(..)));
    Some(())
}
