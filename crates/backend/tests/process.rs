//! The process backend with real processes: the stub of `examples/stub_replica.rs` in the place of
//! `modelway serve`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

#[path = "process/support.rs"]
mod support;

use std::{fs, time::Duration};

use api::{DeploymentId, RevisionNumber, replica::ReplicaState};
use futures::StreamExt;
use modelway_backend::{
    Backend, BackendError,
    conformance::{self, fence},
};
use support::{Home, ONE, alive, eventually, revision};

#[tokio::test(flavor = "multi_thread")]
async fn the_process_backend_keeps_every_backend_s_promises() {
    let home = Home::new();
    conformance::run(&home).await;
    assert_eq!(home.strays(), [0; 0], "processes survived");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_says_so_and_is_started_again_in_its_place() {
    let home = Home::new();
    let backend = home.open().await;
    let wanted = revision(ONE, 1, "");
    let first = home.ready(&backend, &wanted, 1).await.remove(0);
    home.kill(&first.id);
    eventually("the failure to show", async || {
        let seen = backend.observe(ONE).await.unwrap().remove(0);
        seen.state == ReplicaState::BackingOff && seen.retry_at.is_some()
    })
    .await;
    let seen = backend.observe(ONE).await.unwrap().remove(0);
    let failure = seen.failure.expect("it says how it ended");
    assert_eq!(failure.error.message, "killed by signal 9 (SIGKILL)");
    assert!(failure.error.log[0].starts_with("serving file:///model"), "{:?}", failure.error.log);

    let again = home.ready(&backend, &wanted, 1).await.remove(0);
    assert_eq!((again.id, again.restarts, again.failure), (first.id, 1, None));
    assert_ne!(again.started_at, first.started_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_crash_in_a_row_counts() {
    let home = Home::new();
    let backend = home.open().await;
    let wanted = revision(ONE, 1, "crashes");
    eventually("the third restart", async || {
        backend.ensure(&wanted, 1, &[], &fence(1)).await.unwrap();
        let seen = backend.observe(ONE).await.unwrap();
        assert!(seen.len() <= 1, "{seen:?}");
        seen.iter().any(|replica| replica.restarts >= 3)
    })
    .await;
    let failure = backend.observe(ONE).await.unwrap().remove(0).failure.expect("a failure stays until it is healed");
    assert_eq!((failure.error.code.as_str(), failure.permanent), ("crash_loop", false));
    assert_eq!(failure.error.message, "exited with status 3");
    assert_eq!(failure.error.log.last().map(String::as_str), Some("about to fall"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_started_again_without_the_database_serves_the_files_that_it_had_found() {
    let home = Home::new();
    let backend = home.open().await;
    let wanted = revision(ONE, 1, "finds_files");
    let first = home.ready(&backend, &wanted, 1).await.remove(0);
    let digest = first.files.expect("it has found files").digest;
    assert!(!home.log(&backend, &first.id).await.contains(&digest), "nobody had told it");
    home.kill(&first.id);
    eventually("it to be ready again", async || {
        backend.revive(ONE, &fence(1).epoch).await.unwrap();
        let seen = backend.observe(ONE).await.unwrap().remove(0);
        seen.restarts == 1 && seen.state == ReplicaState::Ready
    })
    .await;
    let log = home.log(&backend, &first.id).await;
    assert!(log.contains(&format!("digest {digest}\n")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_must_mend_is_told_in_the_replica_s_own_words_and_waits_long() {
    let home = Home::new();
    let backend = home.open().await;
    backend.ensure(&revision(ONE, 7, "is_invalid"), 1, &[], &fence(1)).await.unwrap();
    eventually("the failure", async || backend.observe(ONE).await.unwrap()[0].failure.is_some()).await;
    let seen = backend.observe(ONE).await.unwrap().remove(0);
    let failure = seen.failure.expect("it was there");
    assert!(failure.permanent);
    assert_eq!(failure.error.code, "golden_mismatch");
    assert_eq!(failure.error.message, "output `p` differs");
    assert_eq!(failure.error.revision, RevisionNumber(7));
    let wait = seen.retry_at.expect("it is tried again").since(seen.started_at.unwrap_or(api::Timestamp(0)));
    assert!(wait >= Duration::from_secs(60), "{wait:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_backend_finds_ready_replicas_ready_at_once() {
    let home = Home::new();
    let wanted = revision(ONE, 1, "");
    let before = {
        let backend = home.open().await;
        let ready = home.ready(&backend, &wanted, 2).await;
        home.abandon().await;
        ready
    };
    let backend = home.open().await;
    // The first look, without waiting: a table of routes made from it must not lose anybody.
    assert_eq!(backend.observe_all().await.unwrap(), before);
    backend.ensure(&wanted, 2, &[], &fence(2)).await.unwrap();
    assert_eq!(home.strays().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_adopted_replica_is_noticed_at_once() {
    let home = Home::new();
    let wanted = revision(ONE, 1, "");
    let replica = {
        let backend = home.open().await;
        let ready = home.ready(&backend, &wanted, 1).await.remove(0);
        home.abandon().await;
        ready
    };
    let backend = home.open().await;
    let mut changes = backend.changes();
    home.kill(&replica.id);
    eventually("the change", async || {
        changes.next().await == Some(ONE) && backend.observe(ONE).await.unwrap()[0].state == ReplicaState::BackingOff
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_only_has_the_number_of_a_replica_is_left_alone() {
    let home = Home::new();
    let wanted = revision(ONE, 1, "");
    let replica = {
        let backend = home.open().await;
        let ready = home.ready(&backend, &wanted, 1).await.remove(0);
        home.abandon().await;
        ready
    };
    home.kill(&replica.id);
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    // As if the number had been passed on after the replica's end.
    home.edit_record(&replica.id, |record| record["process"]["pid"] = stranger.id().into());

    let backend = home.open().await;
    eventually("the dead replica to show", async || {
        backend.observe(ONE).await.unwrap()[0].state == ReplicaState::BackingOff
    })
    .await;
    eventually("it to be removed", async || {
        backend.remove(ONE, None, &fence(2)).await.unwrap();
        backend.observe(ONE).await.unwrap().is_empty()
    })
    .await;
    assert!(alive(stranger.id()), "a foreign process was killed");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_names_a_foreign_process_loses_no_replica_and_harms_no_stranger() {
    let home = Home::new();
    let wanted = revision(ONE, 1, "");
    let replica = {
        let backend = home.open().await;
        let ready = home.ready(&backend, &wanted, 1).await.remove(0);
        home.abandon().await;
        ready
    };
    let pid = home.pid(&replica.id);
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", stranger.id())).unwrap();
    let started: u64 = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
    home.edit_record(&replica.id, |record| {
        record["process"]["pid"] = stranger.id().into();
        record["process"]["start_ticks"] = started.into();
    });

    let backend = home.open().await;
    home.ready(&backend, &wanted, 1).await;
    assert_eq!((home.pid(&replica.id), home.strays()), (pid, vec![pid]));
    backend.remove(ONE, None, &fence(2)).await.unwrap();
    eventually("the replica to end", async || home.strays().is_empty()).await;
    assert!(alive(stranger.id()), "a foreign process was killed");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_cut_short_before_its_number_was_written_is_found_not_doubled() {
    let home = Home::new();
    let wanted = revision(ONE, 1, "");
    let replica = {
        let backend = home.open().await;
        let ready = home.ready(&backend, &wanted, 1).await.remove(0);
        home.abandon().await;
        ready
    };
    let pid = home.pid(&replica.id);
    home.edit_record(&replica.id, |record| {
        *record = serde_json::json!({
            "id": record["id"], "phase": "launching", "restarts": 0, "failures": 0, "failure": null,
            "groups": [], "memory_limit": null, "notes": [], "origin": record["origin"]
        });
    });
    let backend = home.open().await;
    home.ready(&backend, &wanted, 1).await;
    assert_eq!((home.pid(&replica.id), home.strays()), (pid, vec![pid]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_cut_short_before_anything_started_is_begun_anew() {
    let home = Home::new();
    let slot = home.replicas().join("md-1-r1-0");
    fs::create_dir_all(&slot).unwrap();
    fs::write(
        slot.join("replica.json"),
        r#"{"id":"md-1-r1-0","phase":"launching","restarts":0,"failures":0,"failure":null,"groups":[],"memory_limit":null,"notes":[]}"#,
    )
    .unwrap();
    fs::create_dir_all(home.replicas().join("md-1-r1-1")).unwrap();
    let damaged = home.replicas().join("md-1-r1-2");
    fs::create_dir_all(&damaged).unwrap();
    fs::write(damaged.join("replica.json"), "{ half").unwrap();
    let backend = home.open().await;
    assert_eq!(backend.observe_all().await.unwrap(), []);
    home.ready(&backend, &revision(ONE, 1, ""), 1).await;
    assert_eq!(home.strays().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_replica_drains_leaves_its_log_and_nothing_else() {
    let home = Home::new();
    let backend = home.open().await;
    let wanted = revision(ONE, 1, "parent");
    let replica = home.ready(&backend, &wanted, 1).await.remove(0);
    let child: u32 = home
        .log(&backend, &replica.id)
        .await
        .lines()
        .find_map(|line| line.strip_prefix("child ")?.parse().ok())
        .expect("it names its child");
    let told = std::time::Instant::now();
    backend.remove(ONE, None, &fence(1)).await.unwrap();
    assert_eq!(backend.observe(ONE).await.unwrap()[0].state, ReplicaState::Stopping);
    eventually("it to be gone", async || backend.observe(ONE).await.unwrap().is_empty()).await;
    assert!(told.elapsed() < Duration::from_secs(5), "something kept it from ending by itself");
    assert!(home.log(&backend, &replica.id).await.ends_with("told to end\n"), "its log is still to be had");
    assert!(!home.replicas().join(&replica.id.0).exists());
    eventually("the child that it left to end", async || !alive(child)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_end_when_told_is_killed() {
    let home = Home::with(|config| (config.drain_ms, config.kill_after_ms) = (50, 300));
    let backend = home.open().await;
    let mut wanted = revision(ONE, 1, "ignores_the_end");
    wanted.spec.request_timeout_ms = 700;
    home.ready(&backend, &wanted, 1).await;
    let started = std::time::Instant::now();
    backend.remove(ONE, None, &fence(1)).await.unwrap();
    eventually("it to be gone", async || backend.observe(ONE).await.unwrap().is_empty()).await;
    assert!(started.elapsed() >= Duration::from_millis(1_050), "it was not given its time");
    assert_eq!(home.strays(), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_timeout_that_is_too_short_for_the_deployment_is_told() {
    let timeout = "MODELWAY__SERVE__REQUEST_TIMEOUT_MS";
    let models = r#"{"iris":{"request_timeout_ms":60},"other":{"request_timeout_ms":1},"md-1":{"queue_limit":1}}"#;
    let home = Home::with(|config| {
        config.serve_env.insert(timeout.to_owned(), "50".to_owned());
        config.serve_env.insert("MODELWAY__SERVE__MODELS".to_owned(), models.to_owned());
    });
    let backend = home.open().await;
    let mut wanted = revision(ONE, 1, "steady");
    backend.ensure(&wanted, 1, &[], &fence(1)).await.unwrap();
    let notes = backend.observe(ONE).await.unwrap().remove(0).notes;
    assert!(notes.iter().any(|note| note.contains(timeout) && note.contains("of 100")), "{notes:?}");
    assert!(!notes.iter().any(|note| note.contains("serve.models")), "{notes:?}");
    wanted.number = RevisionNumber(2);
    wanted.spec.name = Some("iris".to_owned());
    backend.ensure(&wanted, 1, &[], &fence(1)).await.unwrap();
    let observed = backend.observe(ONE).await.unwrap();
    let notes = &observed.iter().find(|replica| replica.revision == wanted.number).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("serve.models.iris.request_timeout_ms is 60")), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_falls_silent_is_killed_and_says_so() {
    let home = Home::with(|config| config.unresponsive_ms = 1_500);
    let backend = home.open().await;
    backend.ensure(&revision(ONE, 1, "falls_silent"), 1, &[], &fence(1)).await.unwrap();
    eventually("its end", async || backend.observe(ONE).await.unwrap()[0].failure.is_some()).await;
    let failure = backend.observe(ONE).await.unwrap().remove(0).failure.expect("it was there");
    assert_eq!(failure.error.code, "unresponsive");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_over_the_limit_is_named_as_the_reason() {
    let home = Home::new();
    let backend = home.open().await;
    let mut wanted = revision(ONE, 1, "eats_memory");
    wanted.spec.limit_res.memory = "64Mi".parse().ok();
    wanted.spec.limit_res.cpu = "500m".parse().ok();
    backend.ensure(&wanted, 1, &[], &fence(1)).await.unwrap();
    let notes = backend.observe(ONE).await.unwrap().remove(0).notes;
    if !notes.is_empty() {
        assert!(notes.iter().all(|note| note.contains("is not enforced on this machine: ")), "{notes:?}");
        return;
    }
    let groups = home.groups(&api::ReplicaId("md-1-r1-0".to_owned()));
    let set = |file: &str| groups.iter().find_map(|group| fs::read_to_string(group.join(file)).ok());
    let memory = set("memory.max").or_else(|| set("memory.limit_in_bytes"));
    assert_eq!(memory.as_deref().map(str::trim), Some("67108864"), "{groups:?}");
    let cpu = set("cpu.max").or_else(|| set("cpu.cfs_quota_us"));
    assert!(cpu.is_some_and(|cpu| cpu.starts_with("50000")), "{groups:?}");
    eventually("the kernel to step in", async || backend.observe(ONE).await.unwrap()[0].failure.is_some()).await;
    let failure = backend.observe(ONE).await.unwrap().remove(0).failure.expect("it was there");
    assert_eq!(failure.error.code, "out_of_memory");
    assert!(
        failure.error.message.starts_with("killed by signal 9 (SIGKILL) (out of memory: the limit is 64Mi)"),
        "{}",
        failure.error.message
    );
    eventually("it to be gone", async || {
        backend.remove(ONE, None, &fence(1)).await.unwrap();
        backend.observe(ONE).await.unwrap().is_empty()
    })
    .await;
    assert!(groups.iter().all(|group| !group.exists()), "groups are left: {groups:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_backends_on_one_data_directory_agree() {
    let home = Home::new();
    let (one, other) = (home.open().await, home.open().await);
    let wanted = revision(ONE, 1, "");
    let asked = (0..8).map(|turn| {
        let backend = if turn % 2 == 0 { one.clone() } else { other.clone() };
        let wanted = wanted.clone();
        async move { backend.ensure(&wanted, 3, &[], &fence(1)).await }
    });
    for result in futures::future::join_all(asked).await {
        result.unwrap();
    }
    let seen = home.ready(&one, &wanted, 3).await;
    assert_eq!(home.ready(&other, &wanted, 3).await, seen);
    assert_eq!(home.strays().len(), 3);

    one.ensure(&wanted, 1, &[], &fence(2)).await.unwrap();
    assert!(matches!(
        other.ensure(&wanted, 3, &[], &fence(1)).await,
        Err(BackendError::Fenced { given: 1, newest: 2 })
    ));
    eventually("both to see one", async || {
        one.observe(ONE).await.unwrap().len() == 1 && other.observe(ONE).await.unwrap().len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_is_whole_across_rotations() {
    let home = Home::with(|config| {
        (config.log_max_bytes, config.log_check_ms, config.kill_after_ms) = (2_000, 300, 100);
    });
    let backend = home.open().await;
    let replica = home.ready(&backend, &revision(ONE, 1, "chats"), 1).await.remove(0);
    let mut log = backend.logs(&replica.id, 1, true).await.unwrap().expect("it is known");
    let (mut text, rotated) = (Vec::new(), home.replicas().join(&replica.id.0).join("log.1"));
    eventually("rotations", async || {
        text.extend_from_slice(&log.next().await.expect("it is followed").unwrap());
        rotated.exists() && text.len() > 6_000
    })
    .await;
    let text = String::from_utf8(text).unwrap();
    let numbers: Vec<u32> = text.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    let numbers = &numbers[..numbers.len() - 1];
    let steps = numbers.windows(2).filter(|two| two[1] != two[0] + 1).count();
    // A line that is written between the copy and the cut may be lost; nothing comes twice.
    assert!(steps <= 2 && numbers.is_sorted(), "{steps} gaps in {numbers:?}");

    backend.remove(ONE, None, &fence(1)).await.unwrap();
    eventually("the followed log to end", async || log.next().await.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_processes_cannot_run_is_refused_with_the_reason() {
    let home = Home::new();
    let backend = home.open().await;
    let mut image = revision(ONE, 1, "");
    image.spec.content = api::registry::ModelContent::Image { reference: "registry/iris:1".to_owned() };
    let mut gpu = revision(ONE, 2, "");
    gpu.spec.machine = api::deployment::MachineType::Gpu;
    let refused = [(image, "container image"), (gpu, "no GPU")];
    for (wanted, reason) in refused.iter().take(if fs::exists("/dev/nvidia0").unwrap() { 1 } else { 2 }) {
        match backend.ensure(wanted, 1, &[], &fence(1)).await {
            Err(BackendError::Rejected { reason: said, .. }) => assert!(said.contains(reason), "{said}"),
            other => panic!("{other:?}"),
        }
        assert!(backend.ensure(wanted, 0, &[], &fence(1)).await.is_ok(), "asking for none of it is no mistake");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_program_is_named_and_leaves_nothing() {
    let home = Home::with(|config| config.executable = Some("/nowhere/modelway".into()));
    let backend = home.open().await;
    let error = backend.ensure(&revision(ONE, 1, ""), 1, &[], &fence(1)).await.expect_err("there is no such program");
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("cannot start /nowhere/modelway"), "{error}: {cause}");
    backend.remove(ONE, None, &fence(1)).await.unwrap();
    assert_eq!(backend.observe_all().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_s_environment_is_what_its_revision_and_the_settings_say() {
    let home = Home::with(|config| {
        config.serve_env.insert("MODELWAY__SERVE__X".to_owned(), "1".to_owned());
    });
    let backend = home.open().await;
    let mut wanted = revision(ONE, 1, "");
    wanted.spec.env.insert("MODELWAY_USER".to_owned(), "2".to_owned());
    let replica = home.ready(&backend, &wanted, 1).await.remove(0);
    let log = home.log(&backend, &replica.id).await;
    assert!(log.contains("MODELWAY__SERVE__X=1\n") && log.contains("MODELWAY_USER=2\n"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_s_value_is_read_from_its_file_each_time_a_replica_starts() {
    let home = Home::new();
    let backend = home.open().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    let mut wanted = revision(ONE, 1, "");
    wanted.spec.env_from_file.insert("MODELWAY_SECRET".to_owned(), secret.to_str().unwrap().to_owned());
    let refused = backend.ensure(&wanted, 1, &[], &fence(1)).await.expect_err("there is no file").to_string();
    assert!(refused.contains("the file of MODELWAY_SECRET, ") && refused.contains(" is not there"), "{refused}");
    assert_eq!(backend.observe_all().await.unwrap(), [], "nothing was started");

    std::fs::write(&secret, "hidden-1\n").unwrap();
    let replica = home.ready(&backend, &wanted, 1).await.remove(0);
    let log = home.log(&backend, &replica.id).await;
    assert!(log.contains("MODELWAY_SECRET=hidden-1\n"), "{log}");
    std::fs::remove_file(&secret).unwrap();
    backend.ensure(&wanted, 1, &[], &fence(1)).await.expect("what runs needs the file no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_replicas_whose_records_somebody_removed() {
    let home = Home::new();
    let backend = home.open().await;
    home.ready(&backend, &revision(ONE, 1, ""), 2).await;
    std::fs::remove_dir_all(home.replicas()).unwrap();
    home.abandon().await;
    backend.shutdown(Duration::from_secs(10), &fence(1).epoch).await.unwrap();
    assert_eq!(home.strays(), Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_kills_what_does_not_end_in_time_and_starts_nothing_more() {
    let home = Home::new();
    let backend = home.open().await;
    home.ready(&backend, &revision(ONE, 1, "ignores_the_end"), 1).await;
    home.ready(&backend, &revision(DeploymentId(2), 1, ""), 2).await;
    // As `up` does: its tasks have ended by the time it ends its replicas.
    home.abandon().await;
    backend.shutdown(Duration::from_millis(500), &fence(1).epoch).await.unwrap();
    assert_eq!(home.strays(), [0; 0]);
    assert_eq!(
        fs::read_dir(home.replicas()).unwrap().flatten().filter(|e| e.path().join("replica.json").exists()).count(),
        0
    );
    let late = backend.ensure(&revision(ONE, 2, ""), 1, &[], &fence(9)).await;
    assert!(matches!(late, Err(BackendError::Unavailable { .. })), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_at_any_moment_leaves_no_replica_unknown_and_none_doubled() {
    let home = Home::new();
    for life in 1..=40_u32 {
        let mut worker = home.mortal_worker(life);
        // Somewhere in its work: opening, writing, starting or ending.
        std::thread::sleep(Duration::from_micros(u64::from(life * 7_919 % 60_000)));
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    let backend = home.open().await;
    home.ready(&backend, &revision(ONE, 1, ""), 3).await;
    let mut known: Vec<u32> = backend.observe(ONE).await.unwrap().iter().map(|it| home.pid(&it.id)).collect();
    known.sort_unstable();
    assert_eq!(home.strays(), known);
    backend.shutdown(Duration::from_secs(10), &fence(1).epoch).await.unwrap();
    assert_eq!(home.strays(), [0; 0]);
}

#[test]
fn every_setting_has_a_default_and_unknown_ones_are_refused() {
    let read = |text: &str| serde_json::from_str::<modelway_backend::process::Config>(text);
    assert_eq!(read("{}").unwrap().drain_ms, 5_000);
    assert!(read(r#"{"drain": 1}"#).is_err());
}
