//! One model server and the gateway answer alike: each request goes to `modelway serve` with four models and to the gateway
//! before a deployment of each of them, and the two answers are compared.
//!
//! What may differ is in [`differences::DIFFERENCES`], and in the table of `docs/gateway.md` with a reason.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
};

use modelway_e2e::{Modelway, Role, free_port, kill, python, python_with_clients, until};
use rustix::process::Signal;

use differences::DIFFERENCES;

#[path = "doors/differences.rs"]
mod differences;
#[path = "doors/grpc.rs"]
mod grpc;
#[path = "doors/http.rs"]
mod http_asks;
#[path = "doors/wire.rs"]
mod wire;

const WRITER: &str = "\
from modelway import AbstractModel
class Writer(AbstractModel):
    def predict(self, text: str, *, words: int = 2) -> str:
        yield from [text] * words
";

const MODELS: [&str; 4] = ["simple", "simple_identity", "simple_string", "writer"];

/// One request, and the status that it is answered with at `modelway serve`: gRPC's where there is one.
pub(crate) struct Ask {
    pub(crate) name: String,
    pub(crate) status: u16,
    pub(crate) asked: wire::Asked,
}

/// `modelway serve` and the gateway, before the same models.
struct Doors {
    modelway: Modelway,
    serve: Child,
    port: u16,
}

impl Drop for Doors {
    fn drop(&mut self) {
        kill(self.serve.id(), Signal::KILL);
        let _ = self.serve.wait();
    }
}

/// The repository of Triton's examples, and a class that answers with a stream.
fn models(root: &Path) -> PathBuf {
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/../modelserver/tests/models");
    let make =
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import make; make.repository(pathlib.Path(sys.argv[2]))";
    let made =
        Command::new(python()).args(["-c", make, scripts]).arg(root).env("PYTHONDONTWRITEBYTECODE", "1").output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::create_dir_all(root.join("writer/1")).unwrap();
    std::fs::write(root.join("writer/1/model.py"), WRITER).unwrap();
    root.to_owned()
}

impl Doors {
    async fn open() -> Self {
        let mut modelway = Modelway::new();
        modelway.set("MODELWAY__SERVE__PYTHON", python().to_str().unwrap());
        let root = models(&modelway.data_dir().with_file_name("repository"));
        let port = free_port();
        let log = || File::create(modelway.data_dir().with_file_name("serve.log")).unwrap();
        let mut serving = modelway.command(&["serve", root.to_str().unwrap(), "--port", &port.to_string()]);
        let serve = serving.stderr(log()).stdout(log()).spawn().unwrap();
        modelway.start(Role::Up).await;
        for name in MODELS {
            modelway.deploy(name, &root.join(name), 1).await;
        }
        let doors = Self { modelway, serve, port };
        for door in [doors.port, doors.modelway.ports.gateway] {
            for name in MODELS {
                let url = format!("http://127.0.0.1:{door}/v2/models/{name}/ready");
                until(&format!("{url} is ready"), || async {
                    modelway_e2e::client().get(&url).send().await.is_ok_and(|answer| answer.status() == 200)
                })
                .await;
            }
        }
        doors
    }
}

#[tokio::test]
async fn what_is_asked_is_answered_alike_at_both_doors() {
    differences::the_document_has_the_same_rows();
    let doors = Doors::open().await;
    let mut faults = Vec::new();
    let mut unused: BTreeSet<_> = DIFFERENCES.iter().flat_map(|it| it.asks).collect();
    for Ask { name, status, asked } in http_asks::asks().into_iter().chain(grpc::asks()) {
        let (at_serve, at_gateway) = tokio::join!(asked.send(doors.port), asked.send(doors.modelway.ports.gateway));
        let (serve, gateway) = (differences::shown(&name, &at_serve), differences::shown(&name, &at_gateway));
        if at_serve.status != status {
            faults.push(format!("## {name}: not {status} at `modelway serve` but {serve}"));
        }
        let of: Vec<_> = DIFFERENCES.iter().flat_map(|it| it.asks).filter(|it| differences::fits(&name, it)).collect();
        match (of.is_empty(), serve == gateway) {
            (true, false) => faults.push(format!("== {name}\n-- serve\n{serve}\n-- gateway\n{gateway}\n")),
            (false, true) => faults.push(format!("## {name}: no difference any more: {serve}")),
            (true, true) | (false, false) => {}
        }
        for pattern in of {
            unused.remove(pattern);
        }
        if name.starts_with("POST /v2/models/simple/infer ") {
            let who = ["x-modelway-deployment", "x-modelway-revision", "x-modelway-replica"];
            assert!(who.iter().all(|it| at_gateway.headers.contains_key(*it) && !at_serve.headers.contains_key(*it)));
        }
        if name == "gRPC: a stream, two models" {
            assert!(differences::in_order(&at_serve) && differences::in_order(&at_gateway));
        }
    }
    assert!(faults.is_empty() && unused.is_empty(), "{}\nunused: {unused:?}", faults.join("\n"));
}

/// Runs a script of another server's client against the gateway; its own words say what failed.
fn ask_gateway(doors: &Doors, script: &str, parts: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../modelserver/tests/clients").join(script);
    let address = format!("127.0.0.1:{}", doors.modelway.ports.gateway);
    Command::new(python_with_clients()).arg(&script).arg(address).args(parts).output().unwrap()
}

#[tokio::test]
async fn the_clients_of_other_servers_find_at_the_gateway_what_they_know() {
    let doors = Doors::open().await;
    let of_http = ["infer", "compressed", "side_by_side", "coroutines", "strings", "about"];
    let of_grpc = ["infer", "side_by_side", "stream", "coroutines", "strings", "about", "options"];
    let asking = [("triton_http.py", &of_http[..]), ("triton_grpc.py", &of_grpc), ("kserve_clients.py", &[])];
    for (script, parts) in asking {
        let output = ask_gateway(&doors, script, parts);
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{script}:\n{}", String::from_utf8_lossy(&said));
    }
}
