//! The wire: what `proto/watchdog/v1/*.proto` compiles to, and the words its enums have for people and programs.

#![allow(missing_docs, clippy::all, reason = "generated; documented in the .proto files")]

use serde::Serializer;

tonic::include_proto!("watchdog.v1");

/// The descriptor set that the reflection service serves.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/watchdog.bin"));

/// An enum of the wire that has a word for each of its numbers.
pub trait Word {
    /// The lower-case word of a number (`timed_out`), `unspecified` for 0 and for numbers this program does not know.
    fn word(number: i32) -> String;
}

macro_rules! words {
    ($($name:ident: $prefix:literal),+ $(,)?) => {$(
        impl Word for $name {
            fn word(number: i32) -> String {
                let name = $name::try_from(number).unwrap_or_default().as_str_name();
                name.strip_prefix($prefix).unwrap_or(name).to_ascii_lowercase()
            }
        }
    )+};
}

words! {
    Reach: "REACH_", Mode: "MODE_", Fencing: "FENCING_", Verdict: "VERDICT_", FailureKind: "FAILURE_KIND_",
    Present: "PRESENT_", RunKind: "RUN_KIND_", RunPhase: "RUN_PHASE_", StepPhase: "STEP_PHASE_", Order: "ORDER_",
    MoveKind: "MOVE_KIND_", ReadinessState: "READINESS_STATE_", NodeRole: "NODE_ROLE_", NodeConfiguration: "NODE_CONFIGURATION_",
    NodeAction: "NODE_ACTION_", NodeProgress: "NODE_PROGRESS_", DeliveryState: "DELIVERY_STATE_",
    ServiceAction: "SERVICE_ACTION_", ChapterKind: "CHAPTER_KIND_", ChapterProgress: "CHAPTER_PROGRESS_",
    DrillKind: "DRILL_KIND_", DrillState: "DRILL_STATE_", ReportFormat: "REPORT_FORMAT_",
}

/// Serializes a number of the wire as its word.
pub(crate) fn word<S: Serializer, E: Word>(number: &i32, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&E::word(*number))
}
