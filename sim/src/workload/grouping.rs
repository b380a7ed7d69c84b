//! Groups of tenants, in some seeds: both tenants come into one, which may have less than
//! either, and into one within it, and leave them. When the load is over they are in none,
//! so that all that was let in can end. From a stream of chance of its own.

use super::Change;
use proto::v1::{Budget, Quota, TenantRow, WhenFull};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Without a limit, or with so many thousandths of a core.
fn group(name: &str, parent: &str, millicores: Option<u64>) -> TenantRow {
    TenantRow {
        name: name.into(),
        parent: parent.into(),
        group: true,
        quota: Some(Quota { millicores, ..Quota::default() }),
        budget: Some(Budget::default()),
        when_full: WhenFull::Reject.into(),
        ..TenantRow::default()
    }
}

/// Adds groups, and has tenants come into them; the last change stays as it is.
pub fn draw(seed: u64, over_ms: u64, changes: &mut Vec<Change>) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x6772_6f75_7073);
    if rng.random_bool(0.6) {
        return;
    }
    let within = ["", "org", "org", "team"];
    let (_, load) = changes.split_last_mut().expect("the last one makes room");
    for change in load {
        change.row.parent = (*within.choose(&mut rng).expect("not empty")).into();
    }
    let cores = [Some(2_000), Some(4_000), Some(6_000), Some(10_000), None];
    let mut limit = || *cores.choose(&mut rng).expect("not empty");
    let groups = [group("org", "", limit()), group("team", "org", limit())];
    let plain = TenantRow {
        name: "default".into(),
        quota: Some(Quota::default()),
        budget: Some(Budget::default()),
        when_full: WhenFull::Reject.into(),
        ..TenantRow::default()
    };
    for _ in 0..rng.random_range(0..3) {
        let parent = (*within.choose(&mut rng).expect("not empty")).into();
        let row = TenantRow { parent, when_full: WhenFull::Queue.into(), ..plain.clone() };
        changes.push(Change { at_ms: rng.random_range(0..over_ms), row });
    }
    changes.push(Change { at_ms: over_ms, row: plain });
    let made = groups.into_iter().map(|row| Change { at_ms: 0, row });
    changes.splice(0..0, made);
    // The one that makes room stays the last.
    changes.sort_by_key(|change| (change.at_ms, change.at_ms == over_ms && change.row.name == "lab"));
}
