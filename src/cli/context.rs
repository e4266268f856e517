//! Who changes something, why, and in answer to which request: the flags of every changing verb.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;

use clap::Args;
use sha2::{Digest as _, Sha256};

use crate::store::{Context, RequestId};
use crate::types::Digest;

/// `--actor` and `--reason`.
#[derive(Args, Clone, Debug, Default)]
pub struct ContextArgs {
    /// Who makes the change [default: cli: and the login name]
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    /// Why the change is made
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

impl ContextArgs {
    /// The actor given, or the one who is logged in.
    pub fn actor(&self) -> String {
        self.actor.clone().unwrap_or_else(|| format!("cli:{}", login_name()))
    }
}

/// `--request-id`, for verbs that make exactly one transaction.
#[derive(Args, Clone, Debug, Default)]
pub struct RequestArgs {
    /// Submitting the same command with the same id again changes nothing and gives the same answer
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// The context of a change; with a request id it stands for the command as it was given, verb and arguments.
pub fn context(who: &ContextArgs, request: &RequestArgs, command: &[&str]) -> Context {
    let mut context = Context::new(who.actor());
    if let Some(reason) = &who.reason {
        context = context.reason(reason.clone());
    }
    if let Some(id) = request.request_id.clone() {
        let mut hasher = Sha256::new();
        for part in command {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        context = context.request(RequestId { id, digest: Digest(hasher.finalize().into()) });
    }
    context
}

/// The login name: from the environment as login sets it, else from the user database, else the number.
fn login_name() -> String {
    let from_environment =
        ["LOGNAME", "USER"].iter().find_map(|name| env::var(name).ok().filter(|name| !name.is_empty()));
    from_environment.unwrap_or_else(|| {
        // The owner of the process's own entry is the user it runs as.
        let Ok(user) = fs::metadata("/proc/self").map(|metadata| metadata.uid()) else { return "unknown".into() };
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        name_of(&users, user).unwrap_or_else(|| format!("uid-{user}"))
    })
}

fn name_of(users: &str, user: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == user.to_string()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_actor_names_the_login() {
        assert_eq!(ContextArgs { actor: Some("ci".into()), reason: None }.actor(), "ci");
        let default = ContextArgs::default().actor();
        assert!(default.starts_with("cli:") && default.len() > "cli:".len(), "{default}");
    }

    #[test]
    fn users_are_found_by_number() {
        let users = "root:x:0:0:root:/root:/bin/bash\nbroken\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(name_of(users, 1000).as_deref(), Some("ann"));
        assert_eq!(name_of(users, 0).as_deref(), Some("root"));
        assert_eq!(name_of(users, 100), None);
    }
}
