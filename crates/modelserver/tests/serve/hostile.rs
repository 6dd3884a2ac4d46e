//! What a model does to others from within its worker.

use std::time::Duration;

use serde_json::json;

use crate::{
    python::settings,
    support::{Server, refused},
};

const MODEL: &str = "/v2/models/hostile/infer";

async fn hostile(memory: u64) -> Server {
    let mut settings = settings("hostile");
    settings.python_memory_limit_bytes = memory;
    Server::ready(settings).await
}

async fn ask(server: &Server, code: &str) -> (u16, serde_json::Value) {
    let body = json!({"inputs": [{"name": "code", "datatype": "BYTES", "shape": [1], "data": [code]}]});
    server.post(MODEL, &body).await
}

async fn does(server: &Server, code: &str) -> String {
    let (status, answer) = ask(server, code).await;
    assert_eq!(status, 200, "{code}: {answer}");
    answer["outputs"][0]["data"][0].as_str().unwrap().to_owned()
}

/// Whether a process runs; a zombie does not.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

async fn until_gone(pid: &str) {
    let gone = async {
        while runs(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, gone).await.unwrap_or_else(|_| panic!("{pid} still runs"));
}

/// Starts a daemon: a session of its own, no environment, nothing open, and its parent has ended.
const DAEMON: &str = "
import os, time
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.write(w, str(os.getpid()).encode())
        os.closerange(0, 100)
        os.execve('/bin/sleep', ['sleep', '1000'], {})
    os._exit(0)
os.wait()
made = os.read(r, 20).decode()
while not open(f'/proc/{made}/cmdline').read().startswith('sleep'): time.sleep(0.001)
";

#[tokio::test]
async fn a_model_can_signal_limit_and_trace_what_it_has_started_and_nothing_else() {
    let server = hostile(0).await;
    // URG and CONT do nothing to whom they reach.
    let others = "
import os, signal, resource, fcntl, ctypes, subprocess, threading
libc = ctypes.CDLL(None, use_errno=True)
def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), '')
";
    let me = std::process::id();
    for (attack, errno) in [
        (format!("os.kill({me}, signal.SIGURG)"), 1),
        ("os.kill(os.getppid(), signal.SIGURG)".to_owned(), 1),
        ("os.kill(1, signal.SIGURG)".to_owned(), 1),
        (format!("os.killpg(os.getpgid({me}), signal.SIGURG)"), 1),
        ("os.killpg(os.getpgid(os.getppid()), signal.SIGURG)".to_owned(), 1),
        ("os.kill(-1, signal.SIGCONT)".to_owned(), 1),
        (format!("signal.pidfd_send_signal(os.pidfd_open({me}), signal.SIGURG)"), 38),
        (format!("checked(libc.sigqueue({me}, signal.SIGURG, 0))"), 1),
        (format!("checked(libc.syscall(200, {me}, signal.SIGURG))"), 1),
        (format!("checked(libc.syscall(234, {me}, {me}, signal.SIGURG))"), 1),
        (format!("fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, {me})"), 1),
        (format!("fcntl.fcntl(os.pipe()[0], 15, bytes([1, 0, 0, 0]) + ({me}).to_bytes(4, 'little'))"), 1),
        (format!("checked(libc.ptrace(0x4206, {me}, 0, 0))"), 1),
        (format!("resource.prlimit({me}, resource.RLIMIT_CORE, (0, 0))"), 1),
        ("checked(libc.reboot(0))".to_owned(), 1),
        // Before a child of the model, and a thread of it.
        (format!("made = subprocess.call(['sh', '-c', 'kill -URG {me}'])\nif made: raise OSError(1, '')"), 1),
        (
            format!(
                "pid = os.fork()\nif pid == 0:\n try: os.setsid(); os.kill({me}, signal.SIGURG)\n \
                  except OSError as error: os._exit(error.errno)\n finally: os._exit(0)\n\
                  raise OSError(os.waitpid(pid, 0)[1] >> 8, '')"
            ),
            1,
        ),
    ] {
        let said = does(&server, &format!("{others}{attack}")).await;
        assert_eq!(said, format!("refused: {errno}"), "{attack}");
    }
    let own = "
import os, signal, subprocess, resource
child = subprocess.Popen(['sleep', '1000'], start_new_session=True)
resource.prlimit(child.pid, resource.RLIMIT_CORE, (0, 0))
os.kill(child.pid, 0), os.kill(os.getppid(), 0)
os.killpg(child.pid, signal.SIGTERM)
grandchild = subprocess.Popen(['sh', '-c', 'sleep 1000 & kill -9 $!; wait $!; exit 7'])
made = child.wait(), grandchild.wait(), os.kill(os.getpid(), signal.SIGURG)
";
    assert_eq!(does(&server, own).await, "(-15, 7, None)");
}

#[tokio::test]
async fn what_a_model_has_started_ends_with_its_worker_however_that_ends() {
    let mut server = hostile(0).await;
    for end in ["os._exit(3)", "os.kill(os.getpid(), 9)", "os.kill(0, 9)", "import ctypes; ctypes.string_at(0)"] {
        let daemon = does(&server, DAEMON).await;
        assert!(runs(&daemon), "it lives as long as the worker does");
        let told = refused(ask(&server, &format!("import os\n{end}")).await, 500);
        assert!(told.contains("the model's worker"), "{told}");
        until_gone(&daemon).await;
    }
    let daemon = does(&server, DAEMON).await;
    let worker = does(&server, "import os; made = os.getpid()").await;
    let pid = rustix::process::Pid::from_raw(worker.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until_gone(&daemon).await;
    // Many that fork on, a bounded number of times.
    let many = "
import os, time
for _ in range(5):
    os.fork()
    os.setsid() if os.getpid() != os.getpgrp() else None
if os.getppid() != 1: time.sleep(0.2)
made = os.getpid()
";
    let _ = ask(&server, many).await;
    let daemon = does(&server, DAEMON).await;
    server.tasks.stop();
    server.end().await.unwrap();
    until_gone(&daemon).await;
}

/// The processes of a session and those that they have started, as their children see it.
const COUNT: &str = "
import os
def descendants(of):
    found = [of]
    for pid in found:
        for task in os.listdir(f'/proc/{pid}/task'):
            try: found += map(int, open(f'/proc/{pid}/task/{task}/children').read().split())
            except OSError: pass
    return len(found)
";

#[tokio::test]
async fn a_model_that_starts_processes_or_threads_without_end_stays_within_a_bound() {
    let server = hostile(0).await;
    // Processes that wait, and are more than a usual pool.
    let pool = "
children = []
for _ in range(100):
    pid = os.fork()
    if pid == 0: os.execv('/bin/sleep', ['sleep', '1000'])
    children.append(pid)
made = descendants(os.getpid())
for pid in children: os.kill(pid, 9), os.waitpid(pid, 0)
";
    assert_eq!(does(&server, &format!("{COUNT}{pool}")).await, "101");
    // Signals that come meanwhile neither end a fork nor are lost.
    let alarms = "
import os, signal, subprocess
count = 0
def note(*_):
    global count
    count += 1
signal.signal(signal.SIGALRM, note)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
for _ in range(150):
    pid = os.fork()
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
subprocess.run(['true'], check=True)
signal.setitimer(signal.ITIMER_REAL, 0)
made = count > 20 and not signal.pthread_sigmask(signal.SIG_BLOCK, [])
";
    assert_eq!(does(&server, alarms).await, "True");
    // Each that is started starts others, in groups of their own.
    let bomb = "
import time
first = os.getpid()
def go_on():
    while True:
        try:
            if os.fork() == 0: os.setsid()
        except BlockingIOError as error:
            if os.getpid() != first: time.sleep(1000)
            return error.errno
made = go_on(), 256 < descendants(os.getppid()) <= 1024
";
    let worker = does(&server, "import os; made = os.getppid()").await;
    assert_eq!(does(&server, &format!("{COUNT}{bomb}")).await, "(11, True)");
    let told = refused(ask(&server, "import os; os._exit(3)").await, 500);
    assert!(told.contains("status 3"), "{told}");
    until_gone(&worker).await;
    let threads = "
import threading, time
threading.stack_size(32768)
for _ in range(5000): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
time.sleep(60)
";
    let told = refused(ask(&server, threads).await, 500);
    assert!(told.contains("threads with what it had started: more than 4096"), "{told}");
    assert_eq!(does(&server, "made = 1").await, "1");
}

#[tokio::test]
async fn all_memory_of_a_worker_counts_and_what_is_shared_counts_once() {
    let server = hostile(256 << 20).await;
    let shared = "
import mmap, os, time
area = mmap.mmap(-1, 120 << 20)
area.write(b'x' * (120 << 20))
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        bytes(area[:1 << 20]), [area[at] for at in range(0, 120 << 20, 4096)]
        time.sleep(1000)
    children.append(pid)
# Longer than two looks of the server, which come every second: that nothing happens has no condition to wait for.
time.sleep(2.5)
for pid in children: os.kill(pid, 9), os.waitpid(pid, 0)
area.close()
made = 'kept'
";
    assert_eq!(does(&server, shared).await, "kept");
    let hold = |what: &str| format!("import os, mmap, time\nblock = b'x' * (32 << 20)\n{what}\ntime.sleep(60)");
    for what in [
        "fd = os.memfd_create('x')\nfor _ in range(12): os.write(fd, block)",
        "area = mmap.mmap(-1, 400 << 20)\nfor _ in range(12): area.write(block)",
        "fd = os.open('/dev/shm', os.O_TMPFILE | os.O_RDWR)\nfor _ in range(12): os.write(fd, block)",
        "for _ in range(3):\n if os.fork() == 0:\n  os.setsid(); kept = [bytearray(block) for _ in range(4)]; break",
    ] {
        let told = refused(ask(&server, &hold(what)).await, 500);
        assert!(told.contains("MiB with what it had started") && told.contains("its 256 MiB"), "{what}: {told}");
    }
    assert_eq!(does(&server, "made = 1").await, "1");
}
