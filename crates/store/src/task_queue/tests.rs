//! The tasks' life against a model of it: whatever happens in whatever order, both say the same.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Wake {
        id: i64,
        delay: u64,
    },
    Take {
        lease: u64,
    },
    /// Of the receipts ever given, this one.
    Renew {
        receipt: usize,
        lease: u64,
    },
    Ack {
        receipt: usize,
    },
    Pass {
        seconds: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..4_i64, 0..8_u64).prop_map(|(id, delay)| Step::Wake { id, delay }),
        4 => (1..6_u64).prop_map(|lease| Step::Take { lease }),
        1 => (any::<usize>(), 1..6_u64).prop_map(|(receipt, lease)| Step::Renew { receipt, lease }),
        3 => any::<usize>().prop_map(|receipt| Step::Ack { receipt }),
        3 => (1..5_u64).prop_map(|seconds| Step::Pass { seconds }),
    ];
    proptest::collection::vec(step, 1..60)
}

/// One deployment's task, in seconds.
#[derive(Clone, Debug, Default)]
struct Modelled {
    due: u64,
    holder: Option<Receipt>,
    again: Option<u64>,
}

#[derive(Default)]
struct Model {
    now: u64,
    tasks: BTreeMap<i64, Modelled>,
}

impl Model {
    fn wake(&mut self, id: i64, delay: u64) {
        let at = self.now + delay;
        match self.tasks.get_mut(&id) {
            None => {
                self.tasks.insert(id, Modelled { due: at, ..Modelled::default() });
            }
            Some(task) if task.holder.is_some() => task.again = Some(task.again.map_or(at, |again| again.min(at))),
            Some(task) => task.due = task.due.min(at),
        }
    }

    /// The longest due come first; among equals any.
    fn may_be_taken(&self) -> Vec<i64> {
        let due = || self.tasks.iter().filter(|(_, task)| task.due <= self.now);
        let first = due().map(|(_, task)| task.due).min();
        due().filter(|(_, task)| Some(task.due) == first).map(|(id, _)| *id).collect()
    }

    fn taken(&mut self, id: i64, receipt: &Receipt, lease: u64) {
        let now = self.now;
        let task = self.tasks.get_mut(&id).expect("it was due");
        task.again = task.again.filter(|again| *again > now);
        task.due = now + lease;
        task.holder = Some(receipt.clone());
    }

    fn held_by(&mut self, receipt: &Receipt) -> Option<(i64, &mut Modelled)> {
        self.tasks.iter_mut().find(|(_, task)| task.holder.as_ref() == Some(receipt)).map(|(id, task)| (*id, task))
    }

    fn ack(&mut self, receipt: &Receipt) {
        let Some((id, task)) = self.held_by(receipt) else { return };
        match task.again.take() {
            Some(again) => *task = Modelled { due: again, ..Modelled::default() },
            None => {
                self.tasks.remove(&id);
            }
        }
    }
}

async fn play(steps: Vec<Step>) {
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
    let store = Store::open("memory:", Duration::ZERO).await.expect("it opens");
    let queue = TaskQueue::new(store, clock.clone());
    let mut model = Model::default();
    let mut receipts: Vec<Receipt> = Vec::new();
    for step in steps {
        match step {
            Step::Wake { id, delay } => {
                queue.wake(DeploymentId(id), Duration::from_secs(delay)).await.expect("it wakes");
                model.wake(id, delay);
            }
            Step::Take { lease } => {
                let may = model.may_be_taken();
                match queue.take(Duration::from_secs(lease)).await.expect("it answers") {
                    Ok(task) => {
                        assert!(may.contains(&task.deployment.0), "{} was taken, of {may:?}", task.deployment);
                        assert!(!receipts.contains(&task.receipt), "a receipt came twice");
                        model.taken(task.deployment.0, &task.receipt, lease);
                        receipts.push(task.receipt);
                    }
                    Err(_) => assert!(may.is_empty(), "nothing was taken, of {may:?}"),
                }
            }
            Step::Renew { receipt, lease } if !receipts.is_empty() => {
                let receipt = &receipts[receipt % receipts.len()];
                let renewed = queue.renew(receipt, Duration::from_secs(lease)).await.expect("it answers");
                let due = model.now + lease;
                let held = model.held_by(receipt).map(|(_, task)| task.due = due).is_some();
                assert_eq!(renewed, held);
            }
            Step::Ack { receipt } if !receipts.is_empty() => {
                let receipt = &receipts[receipt % receipts.len()];
                queue.ack(receipt).await.expect("it answers");
                model.ack(receipt);
            }
            Step::Renew { .. } | Step::Ack { .. } => {}
            Step::Pass { seconds } => {
                clock.advance(Duration::from_secs(seconds));
                model.now += seconds;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tasks_live_as_the_model_says(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(play(steps));
    }
}
