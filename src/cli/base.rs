//! `--base`: where checkpoints rest, if not in the store's directory.

use std::env;

use super::output::note;
use crate::backends::PostgresSettings;
use crate::store::Builder;
use crate::types::Result;

/// A base outside the store's directory.
pub struct Base {
    url: String,
    settings: PostgresSettings,
}

impl Base {
    /// Reads the URL. Warns of a password that a list of processes shows.
    pub fn new(url: &str) -> Result<Base> {
        let settings = PostgresSettings::new(url)?;
        let on_the_line = env::args_os().any(|argument| argument.to_str().is_some_and(|text| text.ends_with(url)));
        if settings.has_password() && on_the_line {
            note("a password on the command line is seen by everybody here; PGPASSWORD or ~/.pgpass keep it");
        }
        Ok(Base { url: url.to_owned(), settings })
    }

    /// Gives the base to a store.
    pub fn of(&self, builder: Builder) -> Builder {
        builder.with_postgres(self.settings.clone())
    }

    /// The URL as it was given: never to be shown.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The settings.
    pub fn settings(&self) -> &PostgresSettings {
        &self.settings
    }
}
