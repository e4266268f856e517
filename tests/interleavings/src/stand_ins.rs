//! What the explored files use of the rest of the store, reduced to what they touch.

/// Stands in for the settings.
pub mod settings {
    /// The queue's bounds.
    pub struct Settings {
        pub queue_transactions_max: usize,
        pub queue_bytes_max: usize,
    }
}

/// Stands in for what callers send.
pub mod submission {
    use tokio::sync::oneshot;

    /// As the store's, of what the queue and the models need.
    #[derive(Debug)]
    pub enum Command {
        Commit(Box<Submission>),
        Tick,
        Close(oneshot::Sender<()>),
    }

    /// A transaction: its reply, and what is inserted.
    #[derive(Debug)]
    pub struct Submission {
        pub reply: Option<oneshot::Sender<u64>>,
        pub units: usize,
        pub prepared: Prepared,
    }

    /// What is inserted.
    #[derive(Debug, Default)]
    pub struct Prepared {
        pub set: u64,
    }

    impl Submission {
        /// A transaction with this content, and where its answer comes.
        pub fn new(set: u64) -> (Box<Submission>, oneshot::Receiver<u64>) {
            let (reply, answer) = oneshot::channel();
            (Box::new(Submission { reply: Some(reply), units: 0, prepared: Prepared { set } }), answer)
        }
    }
}

/// Stands in for the memtable.
pub mod projection {
    use parking_lot::Mutex;

    use crate::types::Position;

    /// What was inserted, in order.
    #[derive(Debug, Default)]
    pub struct Memtable {
        pub inserted: Mutex<Vec<(Position, u64)>>,
    }

    impl Memtable {
        /// Notes it.
        pub fn insert_announced(&self, position: Position, set: &u64) {
            self.inserted.lock().push((position, *set));
        }
    }
}

/// Stands in for the basic types.
pub mod types {
    /// A position of the log.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Position(pub u64);
}
