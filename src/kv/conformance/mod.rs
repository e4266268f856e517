//! What every [`KeyValue`](super::KeyValue) must do, as functions that panic when it does not.
//!
//! For authors of implementations and wrappers: call [`run_all`] (or its parts) from an async test. Each function
//! uses keys or partitions of its own random name, so the suite can run against a shared store.
//! The functions are the lines of lakeFS's own checklist and what this contract adds to them.

mod arguments;
mod conditional;
mod dropped;
mod fixture;
mod interleaved;
mod lifetime;
mod messages;
mod partitions;
mod primaries;
mod run;
mod scans;
mod secondaries;
mod values;
mod wrapped;

pub use arguments::{batch_size_too_big, missing_arguments, missing_key, missing_partition, missing_value};
pub use conditional::{
    absent_on_a_new_key_sets, absent_on_an_existing_key_fails, exists_on_a_missing_key_fails,
    exists_on_an_existing_key_sets, raw_bytes_compare_with_the_value, raw_bytes_on_a_missing_key_fail,
    raw_bytes_that_differ_fail, token_of_a_deleted_entry_fails, token_of_a_value_changed_back_fails,
    token_of_an_empty_value_sets, token_of_an_unchanged_entry_sets, token_of_another_store_fails,
};
pub use dropped::{a_call_that_is_dropped_leaves_the_store_usable, a_call_that_is_not_polled_does_nothing};
pub use interleaved::{delete_while_iterating_in_turns, delete_while_iterating_nested_prefixes};
pub use lifetime::{closed_store_refuses_every_call, two_stores_at_once};
pub use messages::{
    message_delete_is_idempotent, message_get_missing, message_of_defaults_is_a_value, message_scans_after,
    message_set_and_get, message_set_if, message_that_does_not_decode,
};
pub use partitions::{
    partition_empty_name, partition_full_listing, partition_seek_inside_pages, partition_seek_past_the_end_and_back,
    partition_seek_reads_to_the_end, partition_seeks_cost_one_scan,
};
pub use primaries::{
    primary_after, primary_all, primary_close, primary_from, primary_prefix, primary_undecodable_value,
};
pub use run::run_all;
pub use scans::{
    scan_close, scan_from_the_prefix, scan_of_an_empty_partition, scan_prefix_seeks, scan_prefix_without_after,
    scan_seeks, scan_start_is_inclusive, scan_while_the_last_key_goes, scan_while_the_last_key_goes_at_a_page_end,
};
pub use secondaries::{
    secondary_after, secondary_dangling_primary, secondary_empty_primary_key, secondary_order, secondary_prefix,
    secondary_undecodable_primary,
};
pub use values::{delete_succeeds, empty_value_is_a_value, get_missing, second_set_replaces, set_then_get};
pub use wrapped::wrapped_store_counts_calls;
