//! [`Context`]: who makes a change, why, and which request it answers (law 10).

use crate::types::{Digest, Error, ErrorKind, Limits, Result};

/// Said with every change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    pub(crate) actor: String,
    pub(crate) reason: Option<String>,
    pub(crate) request: Option<RequestId>,
}

/// A caller's id of a command, so that submitting it twice applies it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// The id, at most 1 KiB.
    pub id: String,
    /// Digest of the command's canonical arguments: the same id with another digest is `invalid`.
    pub digest: Digest,
}

impl Context {
    /// A change by this actor (a user, a service; never empty, at most 1 KiB).
    pub fn new(actor: impl Into<String>) -> Context {
        Context { actor: actor.into(), reason: None, request: None }
    }

    /// Says why (at most 16 KiB).
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Context {
        self.reason = Some(reason.into());
        self
    }

    /// Gives the command an id: submitted again within the retention it is not applied again but answered
    /// as the first time.
    #[must_use]
    pub fn request(mut self, request: RequestId) -> Context {
        self.request = Some(request);
        self
    }

    /// The context of a command that makes several transactions, with a reason when it has none. A
    /// request id stands for one transaction, so it is `invalid` here.
    pub(crate) fn for_many(mut self, reason: &str) -> Result<Context> {
        if self.request.is_some() {
            let message = "a request id stands for one transaction, but this makes several";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        self.reason.get_or_insert_with(|| reason.to_owned());
        self.validate()?;
        Ok(self)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let check = |what: &str, len: usize, min: usize, max: usize| {
            if (min..=max).contains(&len) {
                return Ok(());
            }
            Err(Error::new(ErrorKind::Invalid, format!("{what} has a bad length, bytes=`{len}` range=`{min}..={max}`")))
        };
        check("the actor", self.actor.len(), 1, Limits::NAME_BYTES_MAX)?;
        check("the reason", self.reason.as_ref().map_or(0, String::len), 0, Limits::REASON_BYTES_MAX)?;
        let id = self.request.as_ref().map_or(1, |request| request.id.len());
        check("the request id", id, 1, Limits::NAME_BYTES_MAX)
    }
}
