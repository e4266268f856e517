//! The log in files: [`FileLog`] for the one writing process, [`LogFiles`] for readers beside it.
