//! `doctor`: what is wrong with this installation. One line for each thing that was looked at, and what to do about it.
//!
//! It reads what the settings name and asks who answers there. It changes nothing: a database is not brought up to date, a
//! folder is not made.

mod database;
mod machine;
mod servers;

use serde::Serialize;
use serde_json::json;

use crate::{
    args,
    exit::{Exit, Failure},
    output::{Table, show},
    settings::Settings,
};

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Grade {
    /// As it should be.
    Ok,
    /// It works, and something should be looked at.
    Warning,
    /// It does not work.
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// A stable word.
    pub(crate) name: &'static str,
    /// How it stands.
    pub(crate) grade: Grade,
    /// What was found.
    pub(crate) detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, grade: Grade::Ok, detail: detail.into(), advice: None }
    }

    fn warning(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, grade: Grade::Warning, detail: detail.into(), advice: Some(advice.into()) }
    }

    fn failed(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, grade: Grade::Failed, detail: detail.into(), advice: Some(advice.into()) }
    }
}

/// Looks at everything.
pub(crate) async fn checks(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![Check::ok("settings", "they can be read, and each value is one that can be used")];
    checks.extend(machine::checks(settings));
    checks.extend(database::checks(settings).await);
    checks.extend(servers::checks(settings).await);
    checks
}

/// Looks at everything and says what was found.
///
/// # Errors
/// Something does not work.
pub async fn doctor(settings: &Settings, args: &args::Doctor) -> Result<(), Failure> {
    let checks = checks(settings).await;
    show(args.output.output, &json!({"checks": checks}), || table(&checks))?;
    let failed = checks.iter().filter(|check| check.grade == Grade::Failed).count();
    match failed {
        0 => Ok(()),
        failed => Err(Failure::new(Exit::Failed, format!("{failed} of {} checks failed", checks.len()))),
    }
}

/// The checks as people read them.
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
