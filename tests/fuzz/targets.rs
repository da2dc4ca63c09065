//! All targets by name: each a test here.

use crate::{admin, config, dns, guard, guard_answer, http, lease, log, peer, postgres, records, stream, words};

macro_rules! targets {
    ($($there:ident::$trial:ident;)*) => { $(#[test] fn $trial() { $there::$trial().run(); })* };
}

targets! {
    admin::any_admin_message_is_answered_or_refused_precisely_and_a_refused_one_changes_nothing;
    http::any_answer_to_a_page_is_delivery_retry_or_refusal;
    config::any_cluster_configuration_is_sound_or_every_fault_is_named;
    words::any_command_line_is_read_or_refused;
    log::any_command_is_applied_or_rejected_alike_everywhere;
    dns::any_dns_message_is_records_of_the_name_or_an_error;
    words::any_duration_is_read_as_its_sum_or_refused_with_an_example;
    guard_answer::any_answer_is_read_wholly_or_refused_with_an_excerpt;
    config::any_guard_configuration_is_sound_or_named_with_its_file;
    guard::any_request_is_read_as_it_is_printed_or_refused;
    guard::any_request_to_an_enrolled_host_is_answered_and_a_refused_one_changes_nothing;
    lease::any_answer_of_a_standby_holds_only_where_it_says_so_to_this_request;
    lease::any_request_for_a_hold_is_refused_by_its_field_or_fits_a_record_that_can_be_read;
    http::any_http_answer_is_what_was_asked_for_or_a_failure;
    lease::any_answer_of_the_kernel_lists_sockets_of_the_port_or_ends;
    lease::any_answer_of_a_leader_extends_no_longer_than_the_ttl_and_leaves_a_record_that_can_be_read;
    lease::any_bytes_in_the_leases_files_are_what_was_written_or_taken_for_the_safe_thing;
    lease::any_sealed_record_of_the_lease_is_borne;
    lease::any_renewal_is_taken_with_sound_words_or_refused_by_its_field;
    records::any_bytes_in_a_ledger_are_its_entries_or_an_error_with_its_line;
    words::any_moment_is_shown;
    lease::any_listing_of_nft_is_the_gate_as_written_or_amiss;
    peer::any_payload_of_a_peer_is_sound_or_refused_by_field;
    stream::any_position_is_read_as_it_is_printed;
    postgres::any_answer_of_a_database_is_a_measure_or_a_failure;
    stream::any_replication_stream_confirms_nothing_without_a_lease_and_ends_in_words;
    dns::any_answer_of_route_53_is_judged_or_told;
    records::any_sealed_json_is_a_record_or_told;
    log::any_snapshot_is_a_state_that_goes_on_or_is_told;
    dns::any_text_is_a_token_record_as_printed_or_somebody_elses;
    records::any_bytes_in_a_token_store_or_latch_are_what_was_written_or_damage;
    words::any_token_is_read_as_it_is_printed_or_refused;
    dns::any_dns_answer_is_records_of_the_name_or_an_error_with_the_server;
    peer::any_call_of_a_peer_is_taken_or_refused_and_the_node_goes_on;
}
