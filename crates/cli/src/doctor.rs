//! `doctor`: checks this installation. It prints one line per check, with advice.
//!
//! It reads the settings and contacts the configured addresses. It changes nothing: it does not migrate a database, and
//! does not create a folder.

mod check;
mod database;
mod machine;
mod servers;

use serde_json::json;

pub(crate) use check::{Check, Grade};

use crate::{
    args,
    exit::{Exit, Failure},
    output::{Table, show},
    settings::Settings,
};

/// Runs all checks.
pub(crate) async fn checks(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![Check::ok("settings", "they can be read, and each value is one that can be used")];
    checks.extend(machine::checks(settings));
    checks.extend(database::checks(settings).await);
    checks.extend(servers::checks(settings).await);
    checks
}

/// Runs all checks and prints the results.
///
/// # Errors
/// A check failed.
pub async fn doctor(settings: &Settings, args: &args::Doctor) -> Result<(), Failure> {
    let checks = checks(settings).await;
    show(args.output.output, &json!({"checks": checks}), || table(&checks))?;
    let failed = checks.iter().filter(|check| check.grade == Grade::Failed).count();
    match failed {
        0 => Ok(()),
        failed => Err(Failure::new(Exit::Failed, format!("{failed} of {} checks failed", checks.len()))),
    }
}

/// Prints the checks for people.
pub(crate) fn table(checks: &[Check]) -> String {
    let mut table = Table::new(["CHECK", "", "FOUND"]);
    for check in checks {
        let grade = match check.grade {
            Grade::Ok => "ok",
            Grade::Warning => "warning",
            Grade::Failed => "FAILED",
        };
        let advice = check.advice.as_ref().map(|advice| format!(". {advice}")).unwrap_or_default();
        table.row([check.name.to_owned(), grade.to_owned(), format!("{}{advice}", check.detail)]);
    }
    table.text()
}
