//! One transaction from the command line: what `set`, `delete`, `delete-range` and each line of `apply` share.

use std::fmt;

use serde::Serialize;

use crate::store::{Batch, Context, Predicate, RequestId};
use crate::types::{Position, Result};

use super::command::Shell;
use super::context::{ContextArgs, RequestArgs};
use super::operations::{Condition, Operation, digest};
use super::output::Ended;

/// `{"position"}`.
#[derive(Debug, Serialize)]
pub struct Written {
    position: u64,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "done at {}", self.position)
    }
}

impl From<Position> for Written {
    fn from(position: Position) -> Written {
        Written { position: position.0 }
    }
}

/// Makes one transaction of one operation and answers its position.
pub async fn one(operation: Operation, who: ContextArgs, request: RequestArgs, shell: &mut Shell) -> Result<Ended> {
    let operations = vec![operation];
    let context = context(who.actor(), who.reason, request.request_id, &operations);
    let done = shell.with_store(async |store, _| store.write(context, batch(operations)).await).await?;
    shell.out.answer(&Written::from(done.position))?;
    Ok(Ended::Done)
}

/// The context of a transaction; the digest of its request is that of the operations.
pub fn context(actor: String, reason: Option<String>, id: Option<String>, operations: &[Operation]) -> Context {
    let mut context = Context::new(actor);
    if let Some(reason) = reason {
        context = context.reason(reason);
    }
    if let Some(id) = id {
        context = context.request(RequestId { id, digest: digest(operations) });
    }
    context
}

/// The operations as the store takes them.
pub fn batch(operations: Vec<Operation>) -> Batch {
    operations.into_iter().fold(Batch::new(), |batch, operation| match operation {
        Operation::Set { partition, key, value, condition } => match condition {
            None => batch.set(&partition.0, &key.0, &value.0),
            Some(condition) => batch.set_if(&partition.0, &key.0, &value.0, condition.into()),
        },
        Operation::Delete { partition, key, condition } => match condition {
            None => batch.delete(&partition.0, &key.0),
            Some(condition) => batch.delete_if(&partition.0, &key.0, condition.into()),
        },
        Operation::DeleteRange { partition, prefix } => batch.delete_range(&partition.0, &prefix.0),
        Operation::Check { partition, key, condition } => batch.check(&partition.0, &key.0, condition.into()),
    })
}

impl From<Condition> for Predicate {
    fn from(condition: Condition) -> Predicate {
        match condition {
            Condition::Absent => Predicate::Absent,
            Condition::Exists => Predicate::Exists,
            Condition::Version(version) => Predicate::Version(version),
            Condition::Value(value) => Predicate::Value(value.into()),
        }
    }
}
