//! What controllers say: demand of every shape, and words about nothing.

use super::{JOBS, POOLS, Shape, TENANTS, World};
use crate::draw::Draw;
use proto::keys;
use proto::limits::{GANG_NODES_MAX, GANG_TASKS_PER_NODE_MAX, TASKS_MAX};
use proto::v1::{Constraint, Demand, DemandKey, DemandUpdate, GrantNode, GrantRow, Resources};
use scheduler::core::{Event, Outcome};
use std::collections::BTreeMap;

impl World {
    fn shape(&mut self, job: u64, draw: &mut Draw<'_>) -> Shape {
        if let Some(shape) = self.shapes.get(&job) {
            return shape.clone();
        }
        let gang = match draw.below(8) {
            0..=4 => (0, 0),
            5 => (2, 2),
            6 => (1 + draw.below(5) as u32, 1 + draw.below(4) as u32),
            _ => (
                draw.number_u32().clamp(1, GANG_NODES_MAX),
                draw.number_u32().clamp(1, GANG_TASKS_PER_NODE_MAX),
            ),
        };
        let per_slot = match draw.below(6) {
            0..=2 => Resources { millicores: 1_000, memory_bytes: 1 << 30, gpus: 0 },
            3 => Resources { millicores: 500 * draw.below(17) as u32, memory_bytes: 6 << 30, gpus: 0 },
            4 => Resources { millicores: 1_000, memory_bytes: 0, gpus: 1 + draw.below(2) as u32 },
            _ => Resources {
                millicores: draw.number_u32().min(proto::limits::MILLICORES_MAX),
                memory_bytes: draw.number().min(proto::limits::MEMORY_BYTES_MAX),
                gpus: draw.number_u32().min(proto::limits::GPUS_MAX),
            },
        };
        let shape = Shape { per_slot, gang };
        self.shapes.insert(job, shape.clone());
        shape
    }

    pub(super) fn key(draw: &mut Draw<'_>) -> DemandKey {
        let tenant = (*draw.pick(&TENANTS)).to_owned();
        DemandKey { tenant, job_number: draw.byte() as u64 % JOBS, step: 0 }
    }

    pub(super) fn demand(&mut self, draw: &mut Draw<'_>) {
        let key = Self::key(draw);
        let shape = self.shape(key.job_number, draw);
        let wall_ms = self.now.wall_ms;
        let epoch = self.rows.epoch_of(&key.tenant);
        let demand = Demand {
            per_slot: Some(shape.per_slot),
            slots: draw.number().min(TASKS_MAX),
            gang_nodes: shape.gang.0,
            gang_tasks_per_node: shape.gang.1,
            priority: [0, 0, 1, -1, 1_000, -1_000, i32::MAX, i32::MIN][draw.below(8)],
            queued_ms: if draw.seldom(8) { draw.number() } else { wall_ms },
            not_before_ms: match draw.below(8) {
                0 => wall_ms + draw.word(),
                1 => draw.number(),
                _ => 0,
            },
            pool: if draw.seldom(3) { (*draw.pick(&POOLS)).to_owned() } else { String::new() },
            constraints: (0..draw.below(12) / 10)
                .map(|_| Constraint {
                    label: "disk".to_owned(),
                    value: "ssd".to_owned(),
                    negated: draw.coin(),
                })
                .collect(),
            avoid: (0..draw.below(8) / 3).map(|_| format!("n{}", draw.below(6))).collect(),
            granted_epoch: match draw.below(8) {
                0..=2 => 0,
                3 => draw.number(),
                _ => epoch,
            },
            expected_runtime_ms: draw.number(),
            limit_ms: 0,
            exclusive: false,
            licenses: BTreeMap::new(),
            key: Some(key.clone()),
        };
        let (changed, gone) =
            if draw.seldom(6) { (Vec::new(), vec![key]) } else { (vec![demand], Vec::new()) };
        let controller = if draw.seldom(8) { "d" } else { "c" }.to_owned();
        let update =
            DemandUpdate { snapshot: draw.seldom(16), controller, changed, gone, ..DemandUpdate::default() };
        let only = draw.seldom(8);
        for at in 0..if only { 1 } else { 2 } {
            self.tell(at, Event::Demand(update.clone()));
        }
    }

    pub(super) fn release(&mut self, draw: &mut Draw<'_>) {
        let grants = self.rows.below::<GrantRow>(keys::GRANTS);
        if !grants.is_empty() {
            self.rows.write(vec![(grants[draw.below(grants.len())].0.clone(), None)]);
        }
    }

    /// Words that name nothing, or what is long over.
    pub(super) fn strange_word(&mut self, at: usize, draw: &mut Draw<'_>) {
        let event = match draw.below(7) {
            0 => Event::Outcome { proposal: 1 << 40 | draw.number(), outcome: Outcome::Failed },
            1 => Event::Released { tenant: "nobody".to_owned(), epoch: draw.byte().into(), revision: 0 },
            2 => Event::NodeGone("gone".to_owned()),
            3 => Event::TenantGone("nobody".to_owned()),
            4 => {
                // No key, or of a tenant without a row.
                let key = DemandKey { tenant: "nobody".to_owned(), job_number: draw.number(), step: 7 };
                let slots = draw.number().min(TASKS_MAX);
                let changed =
                    vec![Demand::default(), Demand { key: Some(key.clone()), slots, ..Demand::default() }];
                let gone = if draw.coin() { vec![key] } else { Vec::new() };
                let controller = "c".to_owned();
                Event::Demand(DemandUpdate { controller, changed, gone, ..DemandUpdate::default() })
            }
            5 => Event::Granted { row: strange_grant(draw), revision: 0 },
            _ => Event::Tick,
        };
        self.tell(at, event);
    }
}

/// A row that no scheduler writes: of a tenant without a row, of any size.
fn strange_grant(draw: &mut Draw<'_>) -> GrantRow {
    let nodes =
        ["gone", "gone too"].map(|node| GrantNode { node: node.to_owned(), slots: draw.number_u32() });
    GrantRow {
        tenant: "nobody".to_owned(),
        job_number: draw.number(),
        step: 7,
        epoch: draw.byte().into(),
        nodes: nodes.to_vec(),
        per_slot: Some(Resources {
            millicores: draw.number_u32(),
            memory_bytes: draw.number(),
            gpus: draw.number_u32(),
        }),
        gang: draw.coin(),
        ..GrantRow::default()
    }
}
