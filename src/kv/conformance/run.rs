//! The whole suite in one call.

use super::{
    a_call_that_is_dropped_leaves_the_store_usable, a_call_that_is_not_polled_does_nothing, absent_on_a_new_key_sets,
    absent_on_an_existing_key_fails, batch_size_too_big, closed_store_refuses_every_call, delete_succeeds,
    delete_while_iterating_in_turns, delete_while_iterating_nested_prefixes, empty_value_is_a_value,
    exists_on_a_missing_key_fails, exists_on_an_existing_key_sets, get_missing, message_delete_is_idempotent,
    message_get_missing, message_of_defaults_is_a_value, message_scans_after, message_set_and_get, message_set_if,
    message_that_does_not_decode, missing_arguments, missing_key, missing_partition, missing_value,
    partition_empty_name, partition_full_listing, partition_seek_inside_pages, partition_seek_past_the_end_and_back,
    partition_seek_reads_to_the_end, partition_seeks_cost_one_scan, primary_after, primary_all, primary_close,
    primary_from, primary_prefix, primary_undecodable_value, raw_bytes_compare_with_the_value,
    raw_bytes_on_a_missing_key_fail, raw_bytes_that_differ_fail, scan_close, scan_from_the_prefix,
    scan_of_an_empty_partition, scan_prefix_seeks, scan_prefix_without_after, scan_seeks, scan_start_is_inclusive,
    scan_while_the_last_key_goes, scan_while_the_last_key_goes_at_a_page_end, second_set_replaces, secondary_after,
    secondary_dangling_primary, secondary_empty_primary_key, secondary_order, secondary_prefix,
    secondary_undecodable_primary, set_then_get, token_of_a_deleted_entry_fails, token_of_a_value_changed_back_fails,
    token_of_an_empty_value_sets, token_of_an_unchanged_entry_sets, token_of_another_store_fails, two_stores_at_once,
    wrapped_store_counts_calls,
};
use crate::kv::KeyValue;

/// Runs everything on an open store, beside another one that is closed at the end. The first needs not
/// be empty, and keeps entries under random names.
///
/// # Panics
///
/// When an implementation breaks the contract.
pub async fn run_all(store: &dyn KeyValue, other: &dyn KeyValue) {
    two_stores_at_once(store, other).await;
    missing_partition(store).await;
    missing_key(store).await;
    missing_value(store).await;
    missing_arguments(store).await;
    batch_size_too_big(store).await;
    set_then_get(store).await;
    second_set_replaces(store).await;
    get_missing(store).await;
    empty_value_is_a_value(store).await;
    delete_succeeds(store).await;
    absent_on_a_new_key_sets(store).await;
    token_of_an_unchanged_entry_sets(store).await;
    raw_bytes_that_differ_fail(store).await;
    raw_bytes_compare_with_the_value(store).await;
    raw_bytes_on_a_missing_key_fail(store).await;
    absent_on_an_existing_key_fails(store).await;
    token_of_an_empty_value_sets(store).await;
    exists_on_an_existing_key_sets(store).await;
    exists_on_a_missing_key_fails(store).await;
    token_of_a_value_changed_back_fails(store).await;
    token_of_a_deleted_entry_fails(store).await;
    token_of_another_store_fails(store, other).await;
    scan_from_the_prefix(store).await;
    scan_start_is_inclusive(store).await;
    scan_of_an_empty_partition(store).await;
    scan_while_the_last_key_goes(store).await;
    scan_while_the_last_key_goes_at_a_page_end(store).await;
    scan_prefix_without_after(store).await;
    scan_seeks(store).await;
    scan_prefix_seeks(store).await;
    scan_close(store).await;
    a_call_that_is_not_polled_does_nothing(store).await;
    a_call_that_is_dropped_leaves_the_store_usable(store).await;
    delete_while_iterating_in_turns(store).await;
    delete_while_iterating_nested_prefixes(store).await;
    partition_full_listing(store).await;
    partition_seek_reads_to_the_end(store).await;
    partition_seeks_cost_one_scan(store).await;
    partition_empty_name(store).await;
    partition_seek_past_the_end_and_back(store).await;
    partition_seek_inside_pages(store).await;
    primary_all(store).await;
    primary_prefix(store).await;
    primary_after(store).await;
    primary_from(store).await;
    primary_undecodable_value(store).await;
    primary_close(store).await;
    secondary_order(store).await;
    secondary_prefix(store).await;
    secondary_after(store).await;
    secondary_empty_primary_key(store).await;
    secondary_dangling_primary(store).await;
    secondary_undecodable_primary(store).await;
    message_set_and_get(store).await;
    message_get_missing(store).await;
    message_of_defaults_is_a_value(store).await;
    message_set_if(store).await;
    message_delete_is_idempotent(store).await;
    message_scans_after(store).await;
    message_that_does_not_decode(store).await;
    wrapped_store_counts_calls(store).await;
    closed_store_refuses_every_call(other).await;
}
