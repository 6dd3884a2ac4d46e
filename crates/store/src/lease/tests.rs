//! The lease machine against a model of it.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Acquire {
        owner: u8,
        hold: u64,
    },
    /// Of the leases ever given, this one.
    Renew {
        lease: usize,
        hold: u64,
    },
    Write {
        lease: usize,
    },
    Release {
        lease: usize,
    },
    Pass {
        seconds: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_u8, 1..8_u64).prop_map(|(owner, hold)| Step::Acquire { owner, hold }),
        2 => (any::<usize>(), 1..8_u64).prop_map(|(lease, hold)| Step::Renew { lease, hold }),
        3 => any::<usize>().prop_map(|lease| Step::Write { lease }),
        1 => any::<usize>().prop_map(|lease| Step::Release { lease }),
        3 => (1..5_u64).prop_map(|seconds| Step::Pass { seconds }),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Who holds it: the fence, and until when (in seconds). One that ran out is its owner's until taken.
#[derive(Default)]
struct Model {
    now: u64,
    last: i64,
    holder: Option<(i64, u64)>,
}

impl Model {
    fn holds(&self, lease: &Lease) -> bool {
        self.holder.is_some_and(|(fence, _)| fence == lease.fence.0)
    }
}

async fn play(steps: Vec<Step>) {
    let store = Store::open("memory:", Duration::ZERO).await.expect("it opens");
    let spec = serde_json::json!({"model": {"bucket": "/m", "version": "v1"}});
    let spec = api::DeploymentSpec::from_json(spec).expect("it is valid");
    let id = store.deployment_create(&spec, None, Timestamp(0)).await.expect("it is made").id;
    let status = api::DeploymentStatus::pending();
    let mut model = Model::default();
    let mut leases: Vec<Lease> = Vec::new();
    for step in steps {
        let now = Timestamp(0).after(Duration::from_secs(model.now));
        let picked = |lease: usize| leases.get(lease.checked_rem(leases.len()).unwrap_or(0)).cloned();
        match step {
            Step::Acquire { owner, hold } => {
                let owner = format!("worker-{owner}");
                let taken = store.lease_acquire(id, &owner, Duration::from_secs(hold), now).await.expect("it answers");
                let free = model.holder.is_none_or(|(_, until)| until <= model.now);
                assert_eq!(taken.is_some(), free);
                if let Some(lease) = taken {
                    assert!(lease.fence.0 > model.last, "the fence grows with each taking");
                    model.last = lease.fence.0;
                    model.holder = Some((lease.fence.0, model.now + hold));
                    leases.push(lease);
                }
            }
            Step::Renew { lease, hold } => {
                let Some(lease) = picked(lease) else { continue };
                let renewed = store.lease_renew(&lease, Duration::from_secs(hold), now).await;
                assert_eq!(renewed.is_ok(), model.holds(&lease), "{renewed:?}");
                if renewed.is_ok() {
                    model.holder = Some((lease.fence.0, model.now + hold));
                }
            }
            Step::Write { lease } => {
                let Some(lease) = picked(lease) else { continue };
                match store.deployment_observed(&lease, &status, None, &[], None, now).await {
                    Ok(()) => assert!(model.holds(&lease), "one that was fenced wrote"),
                    Err(StoreError::Fenced) => assert!(!model.holds(&lease), "the holder was fenced"),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Release { lease } => {
                let Some(lease) = picked(lease) else { continue };
                store.lease_release(&lease).await.expect("it answers");
                if model.holds(&lease) {
                    model.holder = None;
                }
            }
            Step::Pass { seconds } => model.now += seconds,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_lease_is_held_as_the_model_says(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(play(steps));
    }
}
