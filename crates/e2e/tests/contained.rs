//! A deployed model and the processes around it: it ends none of them, and what it starts ends with it.

use std::fs;

use modelway_e2e::{Modelway, Role, kill, until};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

const MODEL: &str = "\
import os
from modelway import AbstractModel
class Model(AbstractModel):
    batch = False
    def predict(self, what: str) -> str:
        if what != 'daemon':
            try:
                os.kill(int(what), 9)
            except (OSError, ValueError) as error:
                return type(error).__name__
            return 'killed'
        r, w = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(w, str(os.getpid()).encode())
                os.closerange(0, 100)
                os.execve('/bin/sleep', ['sleep', '1000'], {})
            os._exit(0)
        os.wait()
        return os.read(r, 20).decode()
";

#[tokio::test]
async fn a_model_ends_neither_its_server_nor_modelway_and_its_daemons_end_with_a_server_that_is_killed() {
    let mut modelway = Modelway::new();
    modelway.set("MODELWAY__SERVE__PYTHON", modelway_e2e::python().to_str().unwrap());
    modelway.start(Role::Up).await;
    let folder = modelway.data_dir().with_file_name("hostile");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.py"), MODEL).unwrap();
    modelway.succeed(&["deploy", folder.to_str().unwrap(), "--name", "hostile"]);
    let told = async |what: &str| {
        let url = modelway.gateway("/v1/models/hostile:predict");
        let answer = modelway.ask(Method::POST, &url, json!({"instances": [what]})).await;
        answer.body["predictions"][0].as_str().map(str::to_owned)
    };
    let (up, replica) = (modelway.pid(Role::Up), modelway.replica_pids()[0]);
    // The replica's process, the group that it leads, and Modelway itself.
    for victim in [replica.to_string(), format!("-{replica}"), up.to_string()] {
        assert_eq!(told(&victim).await.as_deref(), Some("PermissionError"), "{victim}");
    }
    let daemon = told("daemon").await.unwrap();
    let runs = || fs::read_to_string(format!("/proc/{daemon}/cmdline")).is_ok_and(|line| line.starts_with("sleep"));
    until("the daemon runs", || async { runs() }).await;
    kill(replica, Signal::KILL);
    until("the daemon ends with the replica", || async { !runs() }).await;
    until("another replica answers", || async { told("x").await.as_deref() == Some("ValueError") }).await;
    assert!(modelway.stop(Role::Up).await.success());
}
