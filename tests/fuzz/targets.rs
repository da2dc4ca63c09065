//! All targets by name: each a test here, and most guided by coverage besides (`libfuzzer`).

use crate::runner::Trial;
use crate::{
    admin, audit, config, dns, guard, guard_answer, http, lease, log, peer, postgres, records, redis, stream, words,
};

/// `guided`: fast enough that coverage leads somewhere; there is a program of that name in `libfuzzer/targets`.
macro_rules! targets {
    ($(guided $guided:literal => $there:ident::$trial:ident;)* $(by_chance $slow:ident::$slow_trial:ident;)*) => {
        /// The names of those that can be guided.
        pub const GUIDED: &[&str] = &[$($guided),*];

        /// One of [`GUIDED`], set up.
        pub fn guided(name: &str) -> Option<Trial> {
            match name {
                $($guided => Some($there::$trial()),)*
                _ => None,
            }
        }

        $(#[test] fn $trial() { $there::$trial().run(); })*
        $(#[test] fn $slow_trial() { $slow::$slow_trial().run(); })*
    };
}

targets! {
    guided "admin-messages" => admin::any_admin_message_is_answered_or_refused_precisely_and_a_refused_one_changes_nothing;
    guided "answers-to-pages" => http::any_answer_to_a_page_is_delivery_retry_or_refusal;
    guided "audit-lines" => audit::any_line_of_an_audit_is_the_one_that_was_written_or_the_file_is_not_whole;
    guided "backup-files" => audit::any_bytes_in_a_backup_are_what_was_written_or_damage;
    guided "cluster-configuration" => config::any_cluster_configuration_is_sound_or_every_fault_is_named;
    guided "command-lines" => words::any_command_line_is_read_or_refused;
    guided "commands" => log::any_command_is_applied_or_rejected_alike_everywhere;
    guided "dns-messages" => dns::any_dns_message_is_records_of_the_name_or_an_error;
    guided "durations" => words::any_duration_is_read_as_its_sum_or_refused_with_an_example;
    guided "guard-answers" => guard_answer::any_answer_is_read_wholly_or_refused_with_an_excerpt;
    guided "guard-configuration" => config::any_guard_configuration_is_sound_or_named_with_its_file;
    guided "guard-requests" => guard::any_request_is_read_as_it_is_printed_or_refused;
    guided "guard-serving" => guard::any_request_to_an_enrolled_host_is_answered_and_a_refused_one_changes_nothing;
    guided "hold-answers" => lease::any_answer_of_a_standby_holds_only_where_it_says_so_to_this_request;
    guided "hold-requests" => lease::any_request_for_a_hold_is_refused_by_its_field_or_fits_a_record_that_can_be_read;
    guided "http-answers" => http::any_http_answer_is_what_was_asked_for_or_a_failure;
    guided "kernels-sockets" => lease::any_answer_of_the_kernel_lists_sockets_of_the_port_or_ends;
    guided "lease-answers" => lease::any_answer_of_a_leader_extends_no_longer_than_the_ttl_and_leaves_a_record_that_can_be_read;
    guided "lease-files" => lease::any_bytes_in_the_leases_files_are_what_was_written_or_taken_for_the_safe_thing;
    guided "lease-records" => lease::any_sealed_record_of_the_lease_is_borne;
    guided "lease-requests" => lease::any_renewal_is_taken_with_sound_words_or_refused_by_its_field;
    guided "ledger" => records::any_bytes_in_a_ledger_are_its_entries_or_an_error_with_its_line;
    guided "moments" => words::any_moment_is_shown;
    guided "nft-listings" => lease::any_listing_of_nft_is_the_gate_as_written_or_amiss;
    guided "peer-payloads" => peer::any_payload_of_a_peer_is_sound_or_refused_by_field;
    guided "positions" => stream::any_position_is_read_as_it_is_printed;
    guided "postgresql-answers" => postgres::any_answer_of_a_database_is_a_measure_or_a_failure;
    guided "redis-answers" => redis::any_answer_of_redis_is_read_within_its_bound_or_told;
    guided "redis-info" => redis::any_info_of_redis_is_what_it_says_or_names_what_is_missing;
    guided "replication-streams" => stream::any_replication_stream_confirms_nothing_without_a_lease_and_ends_in_words;
    guided "route-53-answers" => dns::any_answer_of_route_53_is_judged_or_told;
    guided "sealed-records" => records::any_sealed_json_is_a_record_or_told;
    guided "snapshots" => log::any_snapshot_is_a_state_that_goes_on_or_is_told;
    guided "token-records" => dns::any_text_is_a_token_record_as_printed_or_somebody_elses;
    guided "token-store" => records::any_bytes_in_a_token_store_or_latch_are_what_was_written_or_damage;
    guided "tokens" => words::any_token_is_read_as_it_is_printed_or_refused;

    by_chance dns::any_dns_answer_is_records_of_the_name_or_an_error_with_the_server;
    by_chance peer::any_call_of_a_peer_is_taken_or_refused_and_the_node_goes_on;
}

/// Each has a program of its name, and sets up what bears that name.
#[test]
fn every_guided_target_has_its_program() {
    let folder = crate::corpus::root().join("tests/fuzz/libfuzzer");
    let listed = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for name in GUIDED {
        assert_eq!(guided(name).unwrap().target.name, *name);
        let program = std::fs::read_to_string(folder.join(format!("targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("guide!(\"{name}\")")), "{name}: {program}");
        assert!(listed.contains(&format!("name = \"{name}\"")), "{name} is not in libfuzzer/Cargo.toml");
    }
    assert_eq!(listed.matches("[[bin]]").count(), GUIDED.len(), "a program in libfuzzer/Cargo.toml without its target");
}

/// What is fuzzed there is what is built here: a package of its own has a lock of its own, which nothing else keeps up.
#[test]
fn the_guided_programs_are_built_from_the_same_versions() {
    let lock = |folder: &str| -> Vec<String> {
        let text = std::fs::read_to_string(crate::corpus::root().join(folder).join("Cargo.lock")).unwrap();
        let packages = text.split("[[package]]").skip(1);
        packages.map(|package| package.lines().skip(1).take(2).collect::<Vec<_>>().join(" ")).collect()
    };
    let (ours, theirs) = (lock("."), lock("tests/fuzz/libfuzzer"));
    let alone = ["failover-watchdog-fuzz", "libfuzzer-sys", "arbitrary", "jobserver"];
    let strange = |package: &&String| !ours.contains(package) && !alone.iter().any(|name| package.contains(name));
    let strange: Vec<_> = theirs.iter().filter(strange).collect();
    assert!(strange.is_empty(), "copy Cargo.lock to tests/fuzz/libfuzzer and build there once: {strange:?}");
}
