//! `delete`.

use std::{
    io::{self, IsTerminal as _},
    time::Instant,
};

use reqwest::Method;

use super::{
    Config,
    http::{Control, DEPLOYMENTS},
    view::who,
    wait::until_gone,
};
use crate::{
    args,
    exit::Failure,
    output::{print, tell},
};

/// Deletes deployments. All of them are looked up before the first one is deleted.
///
/// # Errors
/// One that does not exist, an error of the control plane, a declined confirmation; with `--wait`, a timeout.
pub async fn delete(config: &Config, args: &args::Delete) -> Result<(), Failure> {
    let control = Control::new(config)?;
    let mut doomed = Vec::new();
    for name in &args.deployments {
        let deployment = control.deployment(name).await?.deployment;
        if !doomed.iter().any(|other: &api::Deployment| other.id == deployment.id) {
            doomed.push(deployment);
        }
    }
    if !args.yes && io::stdin().is_terminal() && !confirmed(&doomed)? {
        return Err(Failure::failed("nothing was deleted"));
    }
    for deployment in &doomed {
        let path = format!("{DEPLOYMENTS}/{}", deployment.id.0);
        control.send(control.request(Method::DELETE, &path)).await?;
        print(format!("{} is being deleted\n", who(deployment)))?;
    }
    if args.wait {
        let end = Instant::now() + args.patience.wait_timeout;
        for deployment in &doomed {
            until_gone(&control, deployment.id, end).await?;
            print(format!("{} is deleted\n", who(deployment)))?;
        }
    }
    Ok(())
}

fn confirmed(doomed: &[api::Deployment]) -> Result<bool, Failure> {
    let names: Vec<_> = doomed.iter().map(who).collect();
    tell(format!("Delete {}? Their endpoints will be removed. [y/N]", names.join(", ")));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
