//! Hides values of environment variables from people, because output ends up in terminals, screenshots and CI logs.
//!
//! `-o json` and `-o yaml` show them, because programs edit the output and send it back. Secrets should be in a file of
//! `env_from_file`.

use std::{borrow::Cow, collections::BTreeMap};

use api::DeploymentSpec;

/// Replaces a secret.
pub(crate) const REDACTED: &str = "<redacted>";
/// The name of a secret contains one of these.
const WITHIN: [&str; 6] = ["SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "APIKEY"];
/// A word in the name of a secret ends in one of these. `TOKENIZERS_PARALLELISM` is not a secret.
const ENDS: [&str; 8] = ["KEY", "KEYS", "TOKEN", "TOKENS", "PASS", "PWD", "AUTH", "DSN"];

/// The value of a variable as it is shown to people.
pub(crate) fn shown<'v>(name: &str, value: &'v str) -> Cow<'v, str> {
    let name = name.to_ascii_uppercase();
    let ends = |word: &str| ENDS.iter().any(|end| word.ends_with(end));
    if WITHIN.iter().any(|part| name.contains(part)) || name.split('_').any(ends) {
        return REDACTED.into();
    }
    without_password(value)
}

/// `scheme://user:password@host` without the password.
fn without_password(value: &str) -> Cow<'_, str> {
    let Some((before, password)) = parts(value) else { return value.into() };
    format!("{before}{REDACTED}{}", &value[before.len() + password.len()..]).into()
}

/// The password in `scheme://user:password@host`.
pub(crate) fn password(value: &str) -> Option<&str> {
    parts(value).map(|(_, password)| password)
}

/// The text before the password in a URL, and the password.
fn parts(value: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = value.split_once("://")?;
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let (user, password) = authority.rsplit_once('@')?.0.split_once(':')?;
    Some((&value[..scheme.len() + 3 + user.len() + 1], password))
}

/// A specification without secrets. A value that differs from the one in `before` is marked as changed.
pub(super) fn without(spec: &DeploymentSpec, before: Option<&BTreeMap<String, String>>) -> DeploymentSpec {
    let mut spec = spec.clone();
    for (name, value) in &mut spec.env {
        let mut visible = shown(name, value).into_owned();
        let changed = before.and_then(|before| before.get(name)).is_some_and(|before| before != value);
        if visible != *value && changed {
            visible.push_str(" (changed)");
        }
        *value = visible;
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_name_or_stands_in_a_url() {
        for name in ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "apiKey", "DB_PASSWORD", "PGPASSWORD", "SENTRY_DSN", "DB_PWD"]
        {
            assert_eq!(shown(name, "hunter2"), REDACTED, "{name}");
        }
        for name in ["TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS", "KEYBOARD", "AUTHOR", "COMPASS_X"] {
            assert_eq!(shown(name, "1"), if name == "COMPASS_X" { REDACTED } else { "1" }, "{name}");
        }
        for (url, visible) in [
            ("postgres://me:pw@db:5432/x", "postgres://me:<redacted>@db:5432/x"),
            ("redis://:p@w@db/0?a=b@c:d", "redis://:<redacted>@db/0?a=b@c:d"),
            ("https://db:5432/x@y:z", "https://db:5432/x@y:z"),
            ("https://me@db", "https://me@db"),
        ] {
            assert_eq!(shown("DATABASE_URL", url), visible);
        }
    }
}
