//! A replica for the tests of the process backend: it takes `modelway serve`'s flags, speaks its handshake,
//! and misbehaves when the environment variable `STUB` tells it to.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, reason = "a program for tests only")]

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use api::{
    ReplicaId,
    replica::{EXIT_MODEL_INVALID, ReplicaState, SelfReport, TerminationMessage},
    revision::FoundFiles,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{sleep, timeout},
};

const FLAGS: [&str; 11] = [
    "--model-uri",
    "--digest",
    "--pinned-since",
    "--model-name",
    "--alias",
    "--model-version",
    "--socket",
    "--replica-id",
    "--termination-message",
    "--drain-ms",
    "--pass-env",
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    assert_eq!(arguments.next().as_deref(), Some("serve"));
    let mut flags: HashMap<String, String> = HashMap::new();
    while let Some(flag) = arguments.next() {
        let (flag, value) = match flag.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), value.to_owned()),
            None => (flag, arguments.next().expect("each flag has a value")),
        };
        assert!(FLAGS.contains(&flag.as_str()), "unknown flag {flag}");
        flags.insert(flag, value);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(flags));
}

async fn serve(flags: HashMap<String, String>) {
    let what = std::env::var("STUB").unwrap_or_default();
    let mut ended = signal(SignalKind::terminate()).unwrap();
    println!("serving {} as {what:?}", flags["--model-uri"]);
    if let Some(digest) = flags.get("--digest") {
        println!("digest {digest}");
    }
    // What the environment is, for tests that look into the log.
    for (name, value) in std::env::vars().filter(|(name, _)| name.starts_with("MODELWAY")) {
        println!("{name}={value}");
    }
    fail_if_told(&what, Path::new(&flags["--termination-message"]));
    if what == "parent" {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        println!("child {}", child.id());
        std::thread::spawn(move || child.wait());
    }

    let listener = UnixListener::bind(&flags["--socket"]).unwrap();
    let (state, reports) = watch::channel((1, ReplicaState::Starting));
    let replica = ReplicaId(flags["--replica-id"].clone());
    let mute_after = if what == "falls_silent" { 1 } else { u64::MAX };
    let mut answered = 0;
    let open = Arc::new(());
    let serving = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            answered += 1;
            if answered > mute_after {
                // Held open, never answered.
                std::mem::forget(stream);
                continue;
            }
            let (answering, open) = (answer(stream, replica.clone(), reports.clone()), Arc::clone(&open));
            tokio::spawn(async move {
                answering.await;
                drop(open);
            });
        }
    };
    let living = async {
        if what == "never_ready" {
            std::future::pending::<()>().await;
        }
        state.send_replace((2, ReplicaState::Ready));
        if what == "eats_memory" {
            let mut eaten: Vec<Vec<u8>> = Vec::new();
            // Bounded, should nobody else bound it.
            while eaten.len() < 512 {
                eaten.push(vec![1; 1 << 20]);
                sleep(Duration::from_millis(1)).await;
            }
        }
        if what == "chats" {
            for line in 0.. {
                println!("line {line}");
                sleep(Duration::from_millis(2)).await;
            }
        }
        ended.recv().await;
        if what == "ignores_the_end" {
            std::future::pending::<()>().await;
        }
        println!("told to end");
        state.send_replace((3, ReplicaState::Stopping));
        sleep(Duration::from_millis(flags["--drain-ms"].parse().unwrap())).await;
        // A server finishes what has begun.
        while Arc::strong_count(&open) > 1 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = serving => {}
        () = living => {}
    }
}

fn fail_if_told(what: &str, termination: &Path) {
    match what {
        "crashes" => {
            println!("about to fall");
            std::process::exit(3);
        }
        "is_invalid" => {
            let words = TerminationMessage {
                code: "golden_mismatch".into(),
                message: "output `p` differs".into(),
                files: None,
            };
            std::fs::write(termination, serde_json::to_vec(&words).unwrap()).unwrap();
            std::process::exit(EXIT_MODEL_INVALID.into());
        }
        _ => {}
    }
}

async fn answer(mut stream: UnixStream, replica: ReplicaId, mut reports: watch::Receiver<(u64, ReplicaState)>) {
    let mut request = vec![0; 4096];
    let read = stream.read(&mut request).await.unwrap();
    let line = String::from_utf8_lossy(&request[..read]).lines().next().unwrap_or_default().to_owned();
    let target = line.split(' ').nth(1).unwrap_or_default();
    assert!(target.starts_with(api::replica::SELF_REPORT_PATH), "{line}");
    if let Some((_, after)) = target.split_once("?after=") {
        let after: u64 = after.parse().unwrap();
        let _ = timeout(Duration::from_secs(30), reports.wait_for(|(seq, _)| *seq > after)).await;
    }
    let (seq, state) = *reports.borrow();
    let report = SelfReport {
        replica: Some(replica),
        pid: std::process::id(),
        seq,
        state,
        artifact: (state == ReplicaState::Ready).then(|| "file:///model".to_owned()),
        files: (std::env::var("STUB").as_deref() == Ok("finds_files")).then(|| FoundFiles {
            uri: "file:///model".to_owned(),
            digest: format!("sha256:{:064}", 7),
            fingerprint: None,
        }),
        cpu_micros: 0,
        memory_bytes: 0,
    };
    let body = serde_json::to_string(&report).unwrap();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}
